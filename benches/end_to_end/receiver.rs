//! A receiver that says 200 and counts.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response, body::Incoming, http::request::Parts, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, runtime::Builder, sync::mpsc};

#[derive(Debug, Clone)]
pub(crate) struct Receiver {
    pub(crate) url: String,
    count: Arc<AtomicUsize>,
}

/// What becomes of a request before it is answered.
type Note = Arc<dyn Fn(&Parts, &Bytes) + Send + Sync>;

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
        let note = move |_: &_, _: &_| {
            let _nobody_listens = times.send(Instant::now());
        };
        Self::noting(note).await
    }

    /// Notes each request.
    pub(crate) async fn noting(
        note: impl Fn(&Parts, &Bytes) + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        Self::listen(Some(Arc::new(note)), false).await
    }

    /// One with a thread of its own.
    pub(crate) fn on_a_thread<F>(start: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<Self>>,
    {
        let (tell, told) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                tell.send(start().await.expect("a receiver")).expect("somebody waits");
                std::future::pending::<()>().await;
            });
        });
        told.recv().expect("it starts")
    }

    async fn listen(note: Option<Note>, is_hung: bool) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/webhooks", listener.local_addr()?);
        let count = Arc::new(AtomicUsize::new(0));
        let receiver = Self { url, count: Arc::clone(&count) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let (count, note) = (Arc::clone(&count), note.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (count, note) = (Arc::clone(&count), note.clone());
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await;
                        if is_hung {
                            std::future::pending::<()>().await;
                        }
                        if let (Some(note), Ok(body)) = (note, body) {
                            note(&head, &body.to_bytes());
                        }
                        count.fetch_add(1, Ordering::Relaxed);
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
