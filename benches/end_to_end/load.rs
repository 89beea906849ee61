//! Publishers: connections that each send the same request again and again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A request, written out once.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    address: String,
    request: Arc<[u8]>,
    /// What the answer's first line begins with.
    expected: &'static [u8],
}

impl Load {
    /// Publishes an event of 512 bytes to `path`.
    pub(crate) fn new(url: &str, path: &str, token: &str, expected: &'static [u8]) -> Self {
        let frame = r#"{"type":"person.updated","data":{"id":"person_1","text":""}}"#;
        let body = frame.replace("\"\"", &format!("\"{}\"", "x".repeat(512 - frame.len())));
        let head = format!(
            "POST {path} HTTP/1.1\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json"
        );
        Self::raw(url, &head, &body, expected)
    }

    /// Sends this head, to which what is missing is added, and body.
    pub(crate) fn raw(url: &str, head: &str, body: &str, expected: &'static [u8]) -> Self {
        let address = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
        let length = body.len();
        let request =
            format!("{head}\r\nhost: {address}\r\ncontent-length: {length}\r\n\r\n{body}");
        Self { address: address.to_owned(), request: request.into_bytes().into(), expected }
    }

    /// Sends so many requests over so many connections, as fast as they are answered.
    pub(crate) async fn run(&self, events: usize, connections: usize) -> anyhow::Result<()> {
        let left = Arc::new(AtomicUsize::new(events));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..connections {
            let (load, left) = (self.clone(), Arc::clone(&left));
            tasks.spawn(async move {
                let mut connection = load.connect().await?;
                let mut answer = Vec::with_capacity(4096);
                let take = |left: usize| left.checked_sub(1);
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                    load.send(&mut connection, &mut answer).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(task) = tasks.join_next().await {
            task??;
        }
        Ok(())
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<TcpStream> {
        let connection = TcpStream::connect(&self.address).await?;
        connection.set_nodelay(true)?;
        Ok(connection)
    }

    /// Sends the request and reads its answer.
    pub(crate) async fn send(
        &self,
        connection: &mut TcpStream,
        answer: &mut Vec<u8>,
    ) -> anyhow::Result<()> {
        connection.write_all(&self.request).await?;
        answer.clear();
        loop {
            let read = connection.read_buf(answer).await?;
            anyhow::ensure!(read > 0, "the connection was closed");
            if is_whole(answer) {
                break;
            }
        }
        let text = String::from_utf8_lossy(answer);
        anyhow::ensure!(answer.starts_with(self.expected), "unexpected answer: {text}");
        Ok(())
    }
}

/// Whether the head and as many bytes as it announces are there.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return false;
    };
    let head = answer[..end].to_ascii_lowercase();
    let name = b"content-length: ";
    let Some(at) = head.windows(name.len()).position(|window| window == name) else { return true };
    let digits: Vec<u8> =
        head[at + name.len()..].iter().copied().take_while(u8::is_ascii_digit).collect();
    let length: usize = String::from_utf8_lossy(&digits).parse().unwrap_or(0);
    answer.len() >= end + 4 + length
}

/// Sends requests at a steady pace over one connection, and says when each began.
pub(crate) async fn paced(
    load: &Load,
    count: usize,
    every: Duration,
) -> anyhow::Result<Vec<std::time::Instant>> {
    let mut connection = load.connect().await?;
    let mut answer = Vec::with_capacity(4096);
    let mut begun = Vec::with_capacity(count);
    let mut interval = tokio::time::interval(every);
    for _ in 0..count {
        interval.tick().await;
        begun.push(std::time::Instant::now());
        load.send(&mut connection, &mut answer).await?;
    }
    Ok(begun)
}
