//! Clients that take their time, beside one that does not.

use std::{io::ErrorKind, time::Duration};

use esl_core::CallbackPolicy;
use esl_http::api::{ApiConfig, ServerLimits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    server::{HEALTH, Server, read_answer, start, start_with},
    world::World,
};

const SLOW_CLIENTS: usize = 50;
const PATIENCE: Duration = Duration::from_millis(50);

/// The one that is in no way slow, and has to be answered all the while.
struct Healthy(TcpStream);

impl Healthy {
    async fn at(server: &Server) -> Self {
        Self(server.connect().await)
    }

    async fn is_answered(&mut self) {
        self.0.write_all(HEALTH).await.expect("a request");
        let answer = read_answer(&mut self.0).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
}

/// Sends each of the beginnings on a connection of its own, and then a byte at a time, one for each
/// request of the healthy client, until the server has closed all. What it said before that.
async fn drip(server: &Server, beginning: &str) -> Vec<String> {
    let mut healthy = Healthy::at(server).await;
    let mut slow = Vec::new();
    for _ in 0..SLOW_CLIENTS {
        let mut stream = server.connect().await;
        stream.write_all(beginning.as_bytes()).await.expect("a beginning");
        slow.push((stream, Vec::new()));
    }
    let mut answers = Vec::new();
    while !slow.is_empty() {
        healthy.is_answered().await;
        let mut open = Vec::new();
        for (stream, mut answer) in slow {
            // Closed or reset, the answer is read all the same.
            let _ = stream.try_write(b" ");
            match stream.try_read_buf(&mut answer) {
                Ok(0) => answers.push(String::from_utf8(answer).expect("UTF-8")),
                Ok(_) => open.push((stream, answer)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => open.push((stream, answer)),
                Err(_) => answers.push(String::from_utf8(answer).expect("UTF-8")),
            }
        }
        slow = open;
    }
    healthy.is_answered().await;
    answers
}

#[tokio::test]
async fn heads_that_come_a_byte_at_a_time_are_given_up_and_hold_up_nobody() {
    let server = start(ServerLimits::default().with_head_timeout(PATIENCE)).await;
    for answer in drip(&server, "GET /health HTTP/1.1\r\nhost: x\r\nslow: ").await {
        assert!(!answer.contains("200 OK"), "{answer}");
    }
}

#[tokio::test]
async fn bodies_that_come_a_byte_at_a_time_are_given_up_and_hold_up_nobody() {
    let config = ApiConfig::default().with_body_timeout(PATIENCE);
    let world = World::with(config, CallbackPolicy::default()).await;
    let server = start_with(world, ServerLimits::default()).await;
    let head = format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 1000000\r\n\r\n{{",
        server.world.token
    );
    for answer in drip(&server, &head).await {
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("body_timeout"), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_only_asks_is_cut_off_and_holds_up_nobody() {
    let server = start(ServerLimits::default().with_write_timeout(PATIENCE)).await;
    let mut healthy = Healthy::at(&server).await;
    let mut greedy = server.connect().await;
    let mut asked = 0;
    // It never reads; once its answers fill the sockets, its questions do, and then it is cut off.
    loop {
        match greedy.try_write(HEALTH) {
            Ok(bytes) => asked += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => healthy.is_answered().await,
            Err(_) => break,
        }
    }
    healthy.is_answered().await;
    let mut answers = Vec::new();
    let _ = greedy.read_to_end(&mut answers).await;
    let answered = String::from_utf8_lossy(&answers).matches("200 OK").count();
    assert!(answered < asked / HEALTH.len(), "{answered} of {asked} bytes");
}
