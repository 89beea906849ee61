//! Real connections.

use std::time::Duration;

use axum::http::StatusCode;
use esl_core::CallbackPolicy;
use esl_http::api::{ApiConfig, ServerLimits};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    faulty::Mode,
    server::{HEALTH, read_answer, start, start_with},
    world::World,
};

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let server = start(ServerLimits::default()).await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        stream.write_all(HEALTH).await.expect("a request");
        let answer = read_answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("\r\nx-request-id: req_"), "{answer}");
    }
    let event = r#"{"type":"a.b","data":{}}"#;
    let request = format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{event}",
        server.world.token,
        event.len()
    );
    stream.write_all(request.as_bytes()).await.expect("a request");
    assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 202 Accepted\r\n"));
}

#[tokio::test]
async fn a_small_body_that_is_of_another_type_costs_no_connection() {
    let server = start(ServerLimits::default()).await;
    let mut stream = server.connect().await;
    for target in [
        "POST /api/v1/events",
        "POST /api/v1/clients",
        "POST /api/authors",
        "PUT /api/library/cards/1",
        "PATCH /api/authors/1",
    ] {
        // What asks the client for its body reads it.
        let head = format!(
            "{target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
             content-type: text/plain\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n",
            server.world.token
        );
        stream.write_all(head.as_bytes()).await.expect("a head");
        let mut goes_on = [0; 25];
        stream.read_exact(&mut goes_on).await.expect("an interim answer");
        assert_eq!(&goes_on, b"HTTP/1.1 100 Continue\r\n\r\n", "{target}");
        stream.write_all(b"some words").await.expect("a body");
        let answer = read_answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 415 "), "{target}: {answer}");
        stream.write_all(HEALTH).await.expect("a request");
        let answer = read_answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{target}: {answer}");
    }
}

#[tokio::test]
async fn what_the_client_has_already_is_given_no_length() {
    let server = start(ServerLimits::default()).await;
    let made = server.world.post("/api/authors").json(&json!({ "name": "Ada" })).send().await;
    let path = format!("/api/authors/{}", made.body["id"].as_str().expect("an id"));
    for method in ["GET", "HEAD"] {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
             if-none-match: *\r\nconnection: close\r\n\r\n",
            server.world.token
        );
        let answer = server.converse(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 304 "), "{method}: {answer}");
        assert!(answer.contains("\r\netag: \"") && !answer.contains("content-length"), "{answer}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_a_431() {
    let server = start(ServerLimits::default()).await;
    let head = format!("GET /health HTTP/1.1\r\nhost: x\r\nlong: {}\r\n\r\n", "x".repeat(70_000));
    let answer = server.converse(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let many = "a: b\r\n".repeat(200);
    let head = format!("GET /health HTTP/1.1\r\nhost: x\r\n{many}\r\n");
    assert!(server.converse(head.as_bytes()).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn what_is_not_http_ends_its_connection_and_nothing_else() {
    let server = start(ServerLimits::default()).await;
    let answer = server.converse(b"\x16\x03\x01 not http\r\n\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(server.converse(b"GET /health HTTP/1.0\r\n\r\n").await.contains("200 OK"));
}

#[tokio::test]
async fn a_panic_costs_its_request_and_no_connection() {
    let server = start(ServerLimits::default()).await;
    let request = format!(
        "GET /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        server.world.token
    );
    let mut stream = server.connect().await;
    for (mode, status) in [(Mode::Panic, "500"), (Mode::None, "200")] {
        server.world.fault.set(mode);
        stream.write_all(request.as_bytes()).await.expect("a request");
        let answer = read_answer(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let limits = ServerLimits::default().with_head_timeout(Duration::from_millis(20));
    let server = start(limits).await;
    for beginning in [&b""[..], b"GET /health HTTP/1.1\r\nhost:"] {
        assert!(!server.converse(beginning).await.contains("200 OK"));
    }
}

#[tokio::test]
async fn no_more_connections_are_accepted_than_allowed() {
    let server = start(ServerLimits::default().with_connections_max(1)).await;
    let mut first = server.connect().await;
    first.write_all(HEALTH).await.expect("a request");
    read_answer(&mut first).await;
    let mut second = server.connect().await;
    second.write_all(HEALTH).await.expect("a request");
    // The first is still served, the second only after it.
    first.write_all(HEALTH).await.expect("a request");
    read_answer(&mut first).await;
    assert_eq!(
        second.try_read(&mut [0; 1]).map_err(|error| error.kind()),
        Err(std::io::ErrorKind::WouldBlock)
    );
    drop(first);
    assert!(read_answer(&mut second).await.contains("200 OK"));
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_is_cut_off() {
    let limits = ServerLimits::default().with_write_timeout(Duration::from_millis(20));
    let server = start(limits).await;
    let data = "x".repeat(200 * 1024);
    for _ in 0..100 {
        let body = serde_json::json!({ "type": "a.b", "data": data });
        let reply = server.world.post("/api/v1/events").json(&body).send().await;
        assert_eq!(reply.status, StatusCode::ACCEPTED);
    }
    // More than the sockets hold between them.
    let request = format!(
        "GET /api/v1/events?limit=100 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        server.world.token
    );
    let mut stream = server.connect().await;
    stream.write_all(request.as_bytes()).await.expect("a request");
    assert_eq!(stream.peek(&mut [0; 1]).await.expect("the beginning of an answer"), 1);
    server.stop.send(()).expect("a server");
    // Nothing is read here, and still the server comes to its end, long before its grace does.
    server.done.await.expect("no panic");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.len() < 100 * data.len());
}

#[tokio::test]
async fn a_shutdown_lets_requests_in_flight_finish() {
    let server = start(ServerLimits::default()).await;
    let mut idle = server.connect().await;
    idle.write_all(HEALTH).await.expect("a request");
    read_answer(&mut idle).await;
    let event = r#"{"type":"a.b","data":{}}"#;
    let head = format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        server.world.token,
        event.len()
    );
    let mut busy = server.connect().await;
    busy.write_all(head.as_bytes()).await.expect("a head");
    let mut go_on = [0; 25];
    // The server asks for the body, so the request is in flight.
    busy.read_exact(&mut go_on).await.expect("100 Continue");
    server.stop.send(()).expect("a server");
    assert_eq!(idle.read(&mut [0; 1]).await.expect("an end"), 0, "an idle connection is closed");
    busy.write_all(event.as_bytes()).await.expect("a body");
    let answer = read_answer(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    server.done.await.expect("no panic");
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn what_does_not_finish_within_the_grace_is_cut_off() {
    let server = start(ServerLimits::default().with_grace(Duration::from_millis(20))).await;
    server.world.fault.set(Mode::Hang);
    let request = format!(
        "GET /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        server.world.token
    );
    let mut stream = server.connect().await;
    stream.write_all(request.as_bytes()).await.expect("a request");
    server.world.fault.wait_for_hanging().await;
    server.stop.send(()).expect("a server");
    server.done.await.expect("no panic");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(answer, b"");
}

#[tokio::test]
async fn the_router_learns_who_is_connected() {
    let config = ApiConfig::default().with_trusted_proxies("127.0.0.1".parse().expect("a list"));
    let world = World::with(config, CallbackPolicy::default()).await;
    let server = start_with(world, ServerLimits::default()).await;
    let form = "grant_type=client_credentials&client_id=acme-client&client_secret=wrong";
    let guess = async |client: &str| {
        let request = format!(
            "POST /oauth/token HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             x-forwarded-for: {client}\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             content-length: {}\r\n\r\n{form}",
            form.len()
        );
        server.converse(request.as_bytes()).await[9..12].to_owned()
    };
    for _ in 0..5 {
        assert_eq!(guess("203.0.113.1").await, "401");
    }
    // Believed, because the connection is one of a proxy that is trusted.
    assert_eq!(guess("203.0.113.1").await, "429");
    assert_eq!(guess("203.0.113.2").await, "401");
}
