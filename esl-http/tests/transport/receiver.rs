//! Receivers that do exactly what a test says, byte by byte.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// Serves each connection with the same script; stops when it is dropped.
pub(crate) struct Receiver {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// The script is given each connection and its number: 1, 2, 3 …
    pub(crate) async fn start<S, F>(script: S) -> Self
    where
        S: Fn(Conversation<TcpStream>, usize) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = listen().await;
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            let mut conversations = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
                conversations.spawn(script(Conversation::new(stream), number));
            }
        });
        Self { address, accepted, task }
    }

    /// Answers every request of every connection with the same bytes.
    pub(crate) async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::start(move |mut conversation, _| {
            let answer = Arc::clone(&answer);
            async move {
                while conversation.request().await.is_some() {
                    conversation.say(&answer).await;
                }
            }
        })
        .await
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// How many connections there were.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Whether somebody has connected.
pub(crate) async fn has_visitor(listener: &TcpListener) -> bool {
    poll_fn(|cx| Poll::Ready(listener.poll_accept(cx).is_ready())).await
}

/// One connection, seen from the receiver.
pub(crate) struct Conversation<S> {
    stream: BufReader<S>,
}

/// A request as it came over the wire.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// The next request; `None` when the sender has closed the connection.
    pub(crate) async fn request(&mut self) -> Option<Received> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .expect("every delivery says how long it is");
        let mut body = vec![0; length.parse().unwrap()];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(Received { head, body })
    }

    /// Says so many bytes; false when nobody listens any more.
    pub(crate) async fn say(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Completes when the sender closes the connection.
    pub(crate) async fn closed(&mut self) {
        let mut byte = [0];
        while !matches!(self.stream.read(&mut byte).await, Ok(0) | Err(_)) {}
    }
}

impl Conversation<TcpStream> {
    /// For a conversation that goes on differently; nothing has been read yet.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream.into_inner()
    }

    /// Closes the connection so that the sender sees a reset.
    pub(crate) fn reset(self) {
        self.stream.into_inner().set_zero_linger().unwrap();
    }
}

/// An answer with a body of that length.
pub(crate) fn with_body(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}
