//! A server that answers what a case says, and keeps what it was asked.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use esl_http::client::{Client, ClientBuilder, RetryPolicy};
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, Response, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

/// What the server was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// The method, and the path with its query.
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn is_for_a_token(&self) -> bool {
        self.line == "POST /oauth/token"
    }
}

/// What it does about it.
#[derive(Debug)]
pub(crate) enum Say {
    Answer(Response<Full<Bytes>>),
    /// The connection ends without an answer.
    Break,
    /// No answer ever comes.
    Hang,
}

pub(crate) fn json(status: u16, body: &Value) -> Say {
    with_header(status, body, "x-request-id", "req_scripted")
}

pub(crate) fn with_header(status: u16, body: &Value, name: &str, value: &str) -> Say {
    let response = Response::builder().status(status).header(name, value);
    Say::Answer(response.body(Full::from(body.to_string())).unwrap())
}

pub(crate) fn problem(status: u16, code: &str) -> Say {
    json(status, &json!({ "status": status, "code": code, "detail": "as the case wants it" }))
}

/// Stops when it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Server {
    /// The script is given each request, and which it is of those to the same route: 1, 2, 3 …
    pub(crate) async fn start(
        script: impl Fn(&Asked, usize) -> Say + Send + Sync + 'static,
    ) -> Self {
        Self::over(None, script).await
    }

    /// The same over TLS, if there is any.
    pub(crate) async fn over(
        acceptor: Option<TlsAcceptor>,
        script: impl Fn(&Asked, usize) -> Say + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (kept, script) = (asked.clone(), Arc::new(script));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (kept, script) = (kept.clone(), script.clone());
                let service =
                    service_fn(move |request| answer(request, kept.clone(), script.clone()));
                let Some(acceptor) = acceptor.clone() else {
                    let served =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    connections.spawn(async move { drop(served.await) });
                    continue;
                };
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    drop(
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await,
                    );
                });
            }
        });
        Self { address, asked, task }
    }

    /// Gives out the tokens `token-1`, `token-2` … for an hour each; the script is for all else.
    pub(crate) async fn with_tokens(
        script: impl Fn(&Asked, usize) -> Say + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |asked, number| match asked.is_for_a_token() {
            true => token(number, 3600),
            false => script(asked, number),
        })
        .await
    }

    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client of it that waits as good as nothing between tries.
    pub(crate) fn builder(&self) -> ClientBuilder {
        Client::builder(self.base()).with_credentials(CLIENT, SECRET).with_retries(hasty())
    }

    pub(crate) fn client(&self) -> Client {
        self.builder().build().unwrap()
    }

    /// What it was asked, tokens apart.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.retain(|asked| !asked.is_for_a_token());
        asked
    }

    /// With which forms it was asked for tokens.
    pub(crate) fn forms(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.retain(Asked::is_for_a_token);
        asked.into_iter().map(|asked| asked.body).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The number makes the tokens differ.
pub(crate) fn token(number: usize, expires_in: u64) -> Say {
    let body = json!({
        "access_token": format!("token-{number}"),
        "token_type": "Bearer",
        "expires_in": expires_in,
        "refresh_token": format!("refresh-{number}"),
        "scope": "events:read",
    });
    json(200, &body)
}

pub(crate) fn hasty() -> RetryPolicy {
    RetryPolicy::default().with_delays(Duration::ZERO, Duration::ZERO)
}

async fn answer(
    request: Request<Incoming>,
    kept: Arc<Mutex<Vec<Asked>>>,
    script: Arc<impl Fn(&Asked, usize) -> Say>,
) -> Result<Response<Full<Bytes>>, io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let asked = Asked {
        line: format!("{} {}", head.method, head.uri),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    let said = {
        let mut kept = kept.lock().unwrap();
        kept.push(asked.clone());
        let same = |before: &&Asked| before.line == asked.line;
        script(&asked, kept.iter().filter(same).count())
    };
    match said {
        Say::Answer(response) => Ok(response),
        Say::Break => Err(io::Error::other("as the case wants it")),
        Say::Hang => Ok(std::future::pending::<Result<_, Infallible>>().await.unwrap()),
    }
}

pub(crate) const CLIENT: &str = "shop";
pub(crate) const SECRET: &str = "hunter2: 100% & more";
