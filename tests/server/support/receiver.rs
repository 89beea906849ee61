use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    HeaderMap, Request, Response, StatusCode, Version, body::Incoming, service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use super::in_time;

/// A receiver of webhooks on loopback, which keeps everything it is sent.
#[derive(Debug)]
pub(crate) struct Receiver {
    address: SocketAddr,
    received: watch::Sender<Vec<Received>>,
    task: JoinHandle<()>,
}

/// How it answers.
#[derive(Debug, Clone)]
pub(crate) enum Behaviour {
    /// 200, at once.
    Accept,
    /// Never.
    Hang,
    /// 200, once the gate says true.
    Gate(watch::Receiver<bool>),
    /// With these, one after the other, and 200 when they are used up.
    Statuses(Arc<Mutex<VecDeque<u16>>>),
}

/// A request it was sent.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// When all of it was there.
    pub(crate) at: Instant,
    pub(crate) version: Version,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn event(&self) -> Value {
        serde_json::from_slice(&self.body).expect("an envelope is JSON")
    }
}

impl Receiver {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        Self::over(None, behaviour).await
    }

    /// One that shakes hands first.
    pub(crate) async fn start_tls(acceptor: TlsAcceptor, behaviour: Behaviour) -> Self {
        Self::over(Some(acceptor), behaviour).await
    }

    async fn over(acceptor: Option<TlsAcceptor>, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let received = watch::Sender::new(Vec::new());
        let sender = received.clone();
        let task = tokio::spawn(async move {
            // Ends with this task, so with the receiver.
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                while connections.try_join_next().is_some() {}
                let (sender, behaviour) = (sender.clone(), behaviour.clone());
                let Some(acceptor) = acceptor.clone() else {
                    connections.spawn(converse(stream, sender, behaviour));
                    continue;
                };
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    converse(stream, sender, behaviour).await;
                });
            }
        });
        Self { address, received, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until `is_enough`, which is shown every request once, in order. However many it takes, none may keep
    /// waiting for too long.
    pub(crate) async fn until(&self, what: &str, mut is_enough: impl FnMut(&Received) -> bool) {
        let mut receiver = self.received.subscribe();
        let mut seen = 0;
        loop {
            {
                let received = receiver.borrow_and_update();
                if received[seen..].iter().any(&mut is_enough) {
                    return;
                }
                seen = received.len();
            }
            in_time(what, receiver.changed()).await.expect("the receiver runs");
        }
    }

    /// Waits for the first request.
    pub(crate) async fn first(&self) -> Received {
        let mut receiver = self.received.subscribe();
        let first = receiver.wait_for(|received| !received.is_empty());
        let received = in_time("a first request", first).await.expect("the receiver runs");
        received[0].clone()
    }

    /// Waits for so many requests.
    pub(crate) async fn first_of(&self, count: usize) -> Vec<Received> {
        let mut receiver = self.received.subscribe();
        let enough = receiver.wait_for(|received| received.len() >= count);
        in_time("so many requests", enough).await.expect("the receiver runs")[..count].to_vec()
    }

    /// Waits for requests, and takes them away: for cases with more than should be kept.
    pub(crate) async fn take(&self) -> Vec<Received> {
        let mut receiver = self.received.subscribe();
        let some = receiver.wait_for(|received| !received.is_empty());
        drop(in_time("another request", some).await.expect("the receiver runs"));
        self.drain()
    }

    /// Takes away what is there, be it nothing.
    pub(crate) fn drain(&self) -> Vec<Received> {
        self.received.send_replace(Vec::new())
    }

    /// Everything so far.
    pub(crate) fn so_far(&self) -> Vec<Received> {
        self.received.borrow().clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    received: watch::Sender<Vec<Received>>,
    behaviour: Behaviour,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let (received, behaviour) = (received.clone(), behaviour.clone());
        async move {
            let (head, body) = request.into_parts();
            if let Ok(body) = body.collect().await {
                let request = Received {
                    at: Instant::now(),
                    version: head.version,
                    path: head.uri.path().to_owned(),
                    headers: head.headers,
                    body: body.to_bytes(),
                };
                received.send_modify(|all| all.push(request));
            }
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = behaviour.status().await;
            Ok::<_, Infallible>(response)
        }
    });
    // A connection that breaks is the sender's doing.
    let server = auto::Builder::new(TokioExecutor::new());
    drop(server.serve_connection(TokioIo::new(stream), service).await);
}

impl Behaviour {
    pub(crate) fn statuses(statuses: impl IntoIterator<Item = u16>) -> Self {
        Self::Statuses(Arc::new(Mutex::new(statuses.into_iter().collect())))
    }

    async fn status(self) -> StatusCode {
        match self {
            Self::Accept => {}
            Self::Statuses(statuses) => {
                let status = statuses.lock().expect("nobody panics here").pop_front();
                return StatusCode::from_u16(status.unwrap_or(200)).expect("a status");
            }
            Self::Hang => std::future::pending().await,
            Self::Gate(mut gate) => {
                gate.wait_for(|is_open| *is_open).await.expect("the gate outlives the receiver");
            }
        }
        StatusCode::OK
    }
}
