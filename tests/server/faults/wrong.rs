//! One receiver for each thing that a receiver can do wrong.

use std::{future::Future, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, sink},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::{Duration, interval},
};
use tokio_rustls::TlsAcceptor;

use crate::support::{Authority, Behaviour, Receiver, self_signed};

/// A receiver that does something wrong, and what an attempt must say of it.
pub(super) struct Wrong {
    pub(super) what: &'static str,
    pub(super) url: String,
    /// Empty if it counts as delivered all the same.
    pub(super) error: &'static str,
    pub(super) status: Option<u16>,
    /// What the detail has in it.
    pub(super) detail: &'static str,
    /// What serves it, for as long as it is there.
    _service: Box<dyn Send>,
}

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// All of them.
pub(super) async fn receivers(authority: &Authority) -> Vec<Wrong> {
    let mut all = vec![nobody().await];
    all.extend(breaking().await);
    all.extend(slow().await);
    all.extend(endless().await);
    all.extend(no_http().await);
    all.extend(out_of_turn().await);
    all.extend(without_trust(authority).await);
    all
}

impl Wrong {
    fn at(what: &'static str, url: String, error: &'static str, detail: &'static str) -> Self {
        Self { what, url, error, status: None, detail, _service: Box::new(()) }
    }

    /// One that does with each connection what the script says.
    async fn doing<S, F>(
        what: &'static str,
        (error, detail): (&'static str, &'static str),
        script: S,
    ) -> Self
    where
        S: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (address, task) = serve(script).await;
        let wrong = Self::at(what, format!("http://{address}/"), error, detail);
        Self { _service: Box::new(task), ..wrong }
    }

    fn with_status(self, status: u16) -> Self {
        Self { status: Some(status), ..self }
    }
}

async fn nobody() -> Wrong {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    Wrong::at("is not there", format!("http://{address}/"), "connect", "refused")
}

async fn breaking() -> Vec<Wrong> {
    vec![
        Wrong::doing("resets before any byte", ("reset", ""), async |mut stream| {
            request(&mut stream).await;
            reset(stream);
        })
        .await,
        Wrong::doing("closes at once", ("reset", ""), async |stream| drop(stream)).await,
        Wrong::doing("resets within the head", ("reset", ""), async |mut stream| {
            request(&mut stream).await;
            say(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-le").await;
            reset(stream);
        })
        .await,
        Wrong::doing("resets within the body", ("reset", ""), async |mut stream| {
            request(&mut stream).await;
            say(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
            reset(stream);
        })
        .await,
    ]
}

async fn slow() -> Vec<Wrong> {
    vec![
        Wrong::doing("never answers", ("timeout", "no answer within 1s"), async |mut stream| {
            request(&mut stream).await;
            take_all(stream).await;
        })
        .await,
        Wrong::doing("never reads", ("timeout", "no answer within 1s"), async |stream| {
            let _open = stream;
            std::future::pending().await
        })
        .await,
        Wrong::doing("drips its head", ("timeout", "no answer within 1s"), async |mut stream| {
            request(&mut stream).await;
            say(&mut stream, b"HTTP/1.1 200 OK\r\nx-long: ").await;
            drip(stream).await;
        })
        .await,
        Wrong::doing("drips its body", ("timeout", "did not end within 1s"), async |mut stream| {
            request(&mut stream).await;
            say(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
            drip(stream).await;
        })
        .await,
    ]
}

async fn endless() -> Vec<Wrong> {
    vec![
        // It has said yes, and what else it says is left there.
        Wrong::doing("accepts with a gigabyte", ("", ""), async |mut stream| {
            request(&mut stream).await;
            say(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n").await;
            flood(stream, &[b'x'; 65536]).await;
        })
        .await
        .with_status(200),
        Wrong::doing("refuses with a gigabyte", ("status", "xxxx"), async |mut stream| {
            request(&mut stream).await;
            say(&mut stream, b"HTTP/1.1 500 Error\r\ncontent-length: 1073741824\r\n\r\n").await;
            flood(stream, &[b'x'; 65536]).await;
        })
        .await
        .with_status(500),
        Wrong::doing("has headers without end", ("too_large", "head"), async |mut stream| {
            request(&mut stream).await;
            say(&mut stream, b"HTTP/1.1 200 OK\r\n").await;
            flood(stream, &b"x-more: x\r\n".repeat(5000)).await;
        })
        .await,
        Wrong::doing("has one header without end", ("too_large", "head"), async |mut stream| {
            request(&mut stream).await;
            say(&mut stream, b"HTTP/1.1 200 OK\r\nx-more: ").await;
            flood(stream, &[b'x'; 65536]).await;
        })
        .await,
        Wrong::doing("has interim answers without end", ("timeout", ""), async |mut stream| {
            request(&mut stream).await;
            let one = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
            flood(stream, &one.repeat(1000)).await;
        })
        .await,
    ]
}

async fn no_http() -> Vec<Wrong> {
    vec![
        Wrong::doing("says garbage", ("reset", "not HTTP/1.1"), async |mut stream| {
            request(&mut stream).await;
            say(&mut stream, b"\0\x01\xff\xfe garbage \r\n\r\n").await;
            take_all(stream).await;
        })
        .await,
        Wrong::doing("speaks HTTP/0.9", ("reset", "not HTTP/1.1"), async |mut stream| {
            request(&mut stream).await;
            say(&mut stream, b"<html>welcome</html>\r\n").await;
            take_all(stream).await;
        })
        .await,
    ]
}

async fn out_of_turn() -> Vec<Wrong> {
    vec![
        Wrong::doing("redirects to itself", ("status", ""), async |mut stream| {
            while request(&mut stream).await {
                let head = b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n";
                say(&mut stream, head).await;
            }
        })
        .await
        .with_status(302),
        Wrong::doing("answers within the request", ("status", ""), async |mut stream| {
            // Some of the request has come, and the rest is never read.
            stream.read_u8().await.expect("a request");
            let head = b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            say(&mut stream, head).await;
            take_all(stream).await;
        })
        .await
        .with_status(413),
    ]
}

/// Whom TLS must not believe.
async fn without_trust(authority: &Authority) -> Vec<Wrong> {
    let secure = async |what, detail, acceptor: TlsAcceptor| {
        let receiver = Receiver::start_tls(acceptor, Behaviour::Accept).await;
        let wrong = Wrong::at(what, format!("https://{}/", receiver.address()), "tls", detail);
        Wrong { _service: Box::new(receiver), ..wrong }
    };
    let mut all = vec![
        secure("has expired", "expired", authority.acceptor_until("127.0.0.1", 2001)).await,
        secure("is another", "not valid for name", authority.acceptor("hooks.example")).await,
        secure("vouches for itself", "certificate", self_signed("127.0.0.1")).await,
    ];
    let plain = Wrong::doing("speaks no TLS", ("tls", ""), async |mut stream| {
        say(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        take_all(stream).await;
    });
    let mut plain = plain.await;
    plain.url = plain.url.replace("http:", "https:");
    all.push(plain);
    let silent = Wrong::doing("never shakes hands", ("timeout", "no answer within 1s"), take_all);
    let mut silent = silent.await;
    silent.url = silent.url.replace("http:", "https:");
    all.push(silent);
    all
}

async fn serve<S, F>(script: S) -> (SocketAddr, Task)
where
    S: Fn(TcpStream) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let task = tokio::spawn(async move {
        let mut conversations = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            while conversations.try_join_next().is_some() {}
            conversations.spawn(script(stream));
        }
    });
    (address, Task(task))
}

/// Reads a request; false if there is no more.
async fn request(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return false };
        head.push(byte);
    }
    let head = String::from_utf8(head).expect("a head is text");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.expect("it says so").parse().expect("a number")];
    stream.read_exact(&mut body).await.is_ok()
}

async fn say(stream: &mut TcpStream, bytes: &[u8]) {
    // Nobody may listen any more, which is not what a case is about.
    drop(stream.write_all(bytes).await);
}

async fn drip(mut stream: TcpStream) {
    let mut pace = interval(Duration::from_millis(200));
    while stream.write_all(b"x").await.is_ok() {
        pace.tick().await;
    }
}

/// Says it a gigabyte long, or until nobody listens any more.
async fn flood(mut stream: TcpStream, bytes: &[u8]) {
    let mut said = 0;
    while said < 1 << 30 && stream.write_all(bytes).await.is_ok() {
        said += bytes.len();
    }
}

async fn take_all(mut stream: TcpStream) {
    drop(copy(&mut stream, &mut sink()).await);
}

/// Closes the connection so that the sender sees a reset.
fn reset(stream: TcpStream) {
    stream.set_zero_linger().expect("it is open");
    drop(stream);
}
