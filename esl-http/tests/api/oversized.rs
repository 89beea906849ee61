//! Requests that are larger than any has to be.

use esl_http::api::ServerLimits;

use crate::server::{Server, start};

/// The status of the only answer to a request, whose connection ends after it.
async fn only_status(server: &Server, request: &str) -> String {
    let answer = server.converse(request.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    answer[9..12].to_owned()
}

#[tokio::test]
async fn a_head_has_a_largest_size_however_it_is_made_up() {
    let server = start(ServerLimits::default()).await;
    let get = |target: &str, headers: &str| {
        format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n")
    };
    let line = |length: usize| format!("a: {}\r\n", "b".repeat(length));
    // 98 beside `host` and `connection`, and not one more.
    for (request, status) in [
        (get("/health", &line(60_000)), "200"),
        (get("/health", &line(70_000)), "431"),
        (get("/health", &line(0).repeat(98)), "200"),
        (get("/health", &line(0).repeat(99)), "431"),
        (get("/health", &line(600).repeat(98)), "200"),
        (get("/health", &line(1000).repeat(90)), "431"),
        (get(&format!("/{}", "x".repeat(60_000)), ""), "404"),
        (get(&format!("/{}", "x".repeat(70_000)), ""), "431"),
        (get("/health", &format!("{}: b\r\n", "a".repeat(70_000))), "431"),
        (format!("{} /health HTTP/1.1\r\n", "G".repeat(70_000)), "431"),
        // One that never ends.
        ("x".repeat(10 * 1024 * 1024), "431"),
    ] {
        let beginning = &request[..request.len().min(60)];
        let bytes = request.len();
        assert_eq!(only_status(&server, &request).await, status, "{bytes} bytes: {beginning}");
    }
}

#[tokio::test]
async fn a_body_has_a_largest_size_however_it_comes() {
    const BYTES_MAX: usize = 16 * 1024 * 1024;
    let server = start(ServerLimits::default()).await;
    let post = |framing: &str, body: &str| {
        format!(
            "POST /api/v1/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             authorization: Bearer {}\r\ncontent-type: application/json\r\n{framing}\r\n{body}",
            server.world.token
        )
    };
    // Refused by what it says, before any of it has come.
    for length in [BYTES_MAX + 1, usize::MAX / 2] {
        let request = post(&format!("content-length: {length}\r\n"), "");
        assert_eq!(only_status(&server, &request).await, "413", "{length}");
    }
    let chunk = |bytes: usize| format!("{bytes:x}\r\n{}\r\n", " ".repeat(bytes));
    let chunks = "transfer-encoding: chunked\r\n";
    let mebibyte = chunk(1024 * 1024);
    // All white, which is 400 once it has been read, and 413 if it is not.
    let fits = mebibyte.repeat(16) + "0\r\n\r\n";
    assert_eq!(only_status(&server, &post(chunks, &fits)).await, "400");
    for too_large in [
        mebibyte.repeat(16) + &chunk(1) + "0\r\n\r\n",
        // These do not even end.
        mebibyte.repeat(32),
        format!("{:x}\r\n{}", usize::MAX / 4, " ".repeat(BYTES_MAX + 1)),
    ] {
        assert_eq!(only_status(&server, &post(chunks, &too_large)).await, "413");
    }
    // Small chunks are no way round it, nor are endless trailers a way to more.
    let tiny = chunk(1).repeat(100_000) + "0\r\n\r\n";
    assert_eq!(only_status(&server, &post(chunks, &tiny)).await, "400");
    let trailers = format!("0\r\n{}", "a: b\r\n".repeat(100_000));
    assert_eq!(only_status(&server, &post(chunks, &trailers)).await, "400");
}
