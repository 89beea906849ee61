//! Servers that answer exactly what a test says, byte by byte.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use rcgen::generate_simple_self_signed;
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

/// Answers one request on each connection and closes it; stops when it is dropped.
pub(super) struct Server {
    address: SocketAddr,
    scheme: &'static str,
    /// Its certificate, if it has one (DER).
    pub(super) certificate: Vec<u8>,
    connections: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

/// What is answered, by the path.
type Answers = dyn Fn(&str) -> String + Send + Sync;

impl Server {
    pub(super) async fn start(answers: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::listen(None, Vec::new(), Arc::new(answers)).await
    }

    /// One that speaks TLS, with a certificate for its address.
    pub(super) async fn start_tls(
        answers: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Self {
        let (acceptor, certificate) = acceptor(&[]);
        Self::listen(Some(acceptor), certificate, Arc::new(answers)).await
    }

    async fn listen(
        acceptor: Option<TlsAcceptor>,
        certificate: Vec<u8>,
        answers: Arc<Answers>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let (connections, heads) = (Arc::new(AtomicUsize::new(0)), Arc::default());
        let (counter, notes) = (Arc::clone(&connections), Arc::clone(&heads));
        let task = tokio::spawn(async move {
            let mut conversations = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let (acceptor, answers) = (acceptor.clone(), Arc::clone(&answers));
                let notes = Arc::clone(&notes);
                conversations.spawn(async move {
                    match acceptor {
                        None => converse(tcp, &*answers, &notes).await,
                        Some(acceptor) => match acceptor.accept(tcp).await {
                            Ok(tls) => converse(tls, &*answers, &notes).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Self { address, scheme, certificate, connections, heads, task }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// How many connections there were.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The heads of the requests so far.
    pub(super) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Takes connections to 127.0.0.1 by one of these protocols, with a certificate (DER) of its own.
pub(super) fn acceptor(protocols: &[&str]) -> (TlsAcceptor, Vec<u8>) {
    let certified = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let certificate = certified.cert.der().clone();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    (TlsAcceptor::from(Arc::new(config)), certificate.to_vec())
}

/// `None` when the other side has hung up.
async fn converse(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    answers: &Answers,
    heads: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let answer = answers(head.split(' ').nth(1).unwrap());
    heads.lock().unwrap().push(head);
    io.write_all(answer.as_bytes()).await.ok()?;
    io.shutdown().await.ok()
}

/// An answer that says how long its body is.
pub(super) fn with_body(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// An answer whose body ends when it ends.
pub(super) fn without_length(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{body}")
}

/// An answer in parts.
pub(super) fn in_parts(parts: &[&str]) -> String {
    let mut answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    for part in parts {
        answer += &format!("{:x}\r\n{part}\r\n", part.len());
    }
    answer + "0\r\n\r\n"
}

pub(super) fn redirect(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
}
