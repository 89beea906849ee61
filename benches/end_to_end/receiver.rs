//! A receiver that says 200 and counts.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::mpsc};

#[derive(Debug, Clone)]
pub(crate) struct Receiver {
    pub(crate) url: String,
    count: Arc<AtomicUsize>,
}

impl Receiver {
    /// Answers at once.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        Self::listen(None, false).await
    }

    /// Accepts, and never answers.
    pub(crate) async fn hung() -> anyhow::Result<Self> {
        Self::listen(None, true).await
    }

    /// Tells when each event came.
    pub(crate) async fn telling(times: mpsc::UnboundedSender<Instant>) -> anyhow::Result<Self> {
        Self::listen(Some(times), false).await
    }

    async fn listen(
        times: Option<mpsc::UnboundedSender<Instant>>,
        is_hung: bool,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/webhooks", listener.local_addr()?);
        let count = Arc::new(AtomicUsize::new(0));
        let receiver = Self { url, count: Arc::clone(&count) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let (count, times) = (Arc::clone(&count), times.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (count, times) = (Arc::clone(&count), times.clone());
                    async move {
                        let _body = request.into_body().collect().await;
                        if is_hung {
                            std::future::pending::<()>().await;
                        }
                        count.fetch_add(1, Ordering::Relaxed);
                        if let Some(times) = times {
                            let _ = times.send(Instant::now());
                        }
                        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(receiver)
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until so many events have come in all.
    pub(crate) async fn wait_for(&self, count: usize) {
        while self.count() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
