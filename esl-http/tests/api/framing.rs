//! Requests that two readers could take for different ones: what one of them sees as a body, another
//! sees as a second request. Here nothing behind such a request is ever heard.

use std::time::Duration;

use esl_http::api::ServerLimits;

use crate::server::{Server, start};

const OUTER: &str = r#"{"type":"outer.event","data":{}}"#;
const SMUGGLED: &str = r#"{"type":"smuggled.event","data":{}}"#;

/// What came of one connection.
#[derive(Debug, PartialEq)]
struct Outcome {
    statuses: Vec<u16>,
    events: Vec<String>,
}

/// Sends bytes on a connection of its own to a server of its own, until it is closed.
async fn outcome(bytes: impl AsRef<[u8]>) -> Outcome {
    // An answer that leaves the connection open is followed by silence, which ends it.
    let limits = ServerLimits::default().with_head_timeout(Duration::from_millis(100));
    let server = start(limits).await;
    let text = String::from_utf8_lossy(bytes.as_ref()).replace("TOKEN", &server.world.token);
    let answer = server.converse(text.as_bytes()).await;
    let statuses = answer
        .split("HTTP/1.")
        .skip(1)
        .map(|answer| answer[2..5].parse().expect("a status"))
        .collect();
    Outcome { statuses, events: published(&server).await }
}

async fn published(server: &Server) -> Vec<String> {
    let reply = server.world.get("/api/v1/events").send().await;
    let events = reply.body["data"].as_array().expect("events").iter();
    events.map(|event| event["type"].as_str().expect("a type").to_owned()).collect()
}

/// A publish whose headers end as given, and all that comes after them.
fn publish(version: &str, framing: &str, rest: &str) -> String {
    format!(
        "POST /api/v1/events HTTP/{version}\r\nhost: x\r\nauthorization: Bearer TOKEN\r\n\
         content-type: application/json\r\n{framing}\r\n{rest}"
    )
}

/// A whole and right request, which must not be heard where it stands within another.
fn smuggled() -> String {
    publish("1.1", &format!("content-length: {}\r\n", SMUGGLED.len()), SMUGGLED)
}

fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

#[track_caller]
fn assert_refused(outcome: &Outcome, what: &str) {
    let is_refused = matches!(outcome.statuses[..], [] | [400..=499]);
    assert!(is_refused && outcome.events.is_empty(), "{what:?}: {outcome:?}");
}

#[track_caller]
fn assert_one(outcome: &Outcome, what: &str) {
    let one = Outcome { statuses: vec![202], events: vec!["outer.event".to_owned()] };
    assert_eq!(*outcome, one, "{what:?}");
}

#[tokio::test]
async fn two_clear_requests_in_a_row_are_both_heard() {
    let length = format!("content-length: {}\r\n", OUTER.len());
    let both = outcome(publish("1.1", &length, OUTER) + &smuggled()).await;
    assert_eq!(both.statuses, [202, 202]);
    assert_eq!(both.events, ["smuggled.event", "outer.event"]);
}

#[tokio::test]
async fn what_comes_after_a_request_with_two_kinds_of_length_is_not_heard() {
    let length = format!("content-length: {}\r\n", smuggled().len() + 5);
    let chunks = "transfer-encoding: chunked\r\n";
    // The chunks count, the connection ends with them (RFC 9112, section 6.1).
    for framing in [format!("{length}{chunks}"), format!("{chunks}{length}")] {
        let empty = outcome(publish("1.1", &framing, &format!("0\r\n\r\n{}", smuggled()))).await;
        assert_refused(&empty, &framing);
        let rest = chunked(OUTER) + &smuggled();
        assert_one(&outcome(publish("1.1", &framing, &rest)).await, &framing);
    }
    for length in ["content-length: 0\r\n", "content-length: 4\r\n", "content-length: x\r\n"] {
        let rest = chunked(OUTER) + &smuggled();
        let framing = format!("{chunks}{length}");
        assert_one(&outcome(publish("1.1", &framing, &rest)).await, &framing);
    }
    let http_1_0 = outcome(publish("1.0", chunks, &(chunked(OUTER) + &smuggled()))).await;
    assert_refused(&http_1_0, "chunks in HTTP/1.0");
}

#[tokio::test]
async fn lengths_that_differ_or_are_no_numbers_are_refused() {
    let right = OUTER.len();
    for framing in [
        format!("content-length: {right}\r\ncontent-length: 0\r\n"),
        format!("content-length: 0\r\ncontent-length: {right}\r\n"),
        format!("content-length: {right}, 0\r\n"),
        format!("content-length: {right}, {right}\r\n"),
        format!("content-length: +{right}\r\n"),
        format!("content-length: -{right}\r\n"),
        format!("content-length: {right}.0\r\n"),
        format!("content-length: 0x{right:x}\r\n"),
        format!("content-length: {right} 0\r\n"),
        format!("content-length: \"{right}\"\r\n"),
        "content-length:\r\n".to_owned(),
        "content-length: 18446744073709551615\r\n".to_owned(),
        "content-length: 18446744073709551616\r\n".to_owned(),
        "content-length: 184467440737095516160000000000000\r\n".to_owned(),
    ] {
        let rest = OUTER.to_owned() + &smuggled();
        assert_refused(&outcome(publish("1.1", &framing, &rest)).await, &framing);
    }
    // Twice the same is one length (RFC 9112, section 6.3).
    let twice = format!("content-length: {right}\r\ncontent-length: {right}\r\n");
    assert_one(&outcome(publish("1.1", &twice, OUTER)).await, &twice);
}

#[tokio::test]
async fn a_transfer_coding_that_is_not_chunked_alone_is_refused() {
    for coding in [
        "chunked, identity",
        "identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked, chunked",
        "chunked,",
        ", chunked",
        "xchunked",
        "chunkedx",
        "chunked;q=1",
        "\"chunked\"",
        "\u{b}chunked",
        "chunked\u{0}",
        "chünked",
        "",
        "chunked\r\ntransfer-encoding: identity",
        "identity\r\ntransfer-encoding: chunked",
        "chunked\r\ntransfer-encoding: chunked",
    ] {
        let framing = format!("transfer-encoding: {coding}\r\n");
        for rest in [chunked(OUTER) + &smuggled(), OUTER.to_owned() + &smuggled()] {
            assert_refused(&outcome(publish("1.1", &framing, &rest)).await, &framing);
        }
    }
    // Space around a value is none of it.
    for coding in ["chunked", " chunked ", "\tChunked"] {
        let framing = format!("transfer-encoding:{coding}\r\n");
        assert_one(&outcome(publish("1.1", &framing, &chunked(OUTER))).await, &framing);
    }
}

#[tokio::test]
async fn a_header_that_readers_differ_on_is_refused() {
    let length = format!("content-length: {}\r\n", OUTER.len());
    for header in [
        "transfer-encoding : chunked\r\n",
        "transfer-encoding\t: chunked\r\n",
        "transfer-encoding\r\n: chunked\r\n",
        "transfer-encoding\r\n",
        "transfer encoding: chunked\r\n",
        " transfer-encoding: chunked\r\n",
        "\ttransfer-encoding: chunked\r\n",
        "x: y\r\n transfer-encoding: chunked\r\n",
        "x: y\rtransfer-encoding: chunked\r\n",
        "x: y\r\rtransfer-encoding: chunked\r\n",
        "x: y\0\r\n",
        "x\0: y\r\n",
        "\0x: y\r\n",
        "x: y\u{7f}\r\n",
        ": y\r\n",
        "x\u{e9}: y\r\n",
        "content-length : 0\r\n",
        "content-length\u{b}: 0\r\n",
    ] {
        let framing = format!("{header}{length}");
        let rest = OUTER.to_owned() + &smuggled();
        assert_refused(&outcome(publish("1.1", &framing, &rest)).await, header);
    }
    let rest = OUTER.to_owned() + &smuggled();
    let bare = publish("1.1", &length, &rest).replace("\r\n", "\r");
    assert_refused(&outcome(bare).await, "lines that end with CR alone");
}

#[tokio::test]
async fn a_chunk_whose_size_is_in_doubt_is_refused() {
    let size = format!("{:x}", OUTER.len());
    let right = format!("\r\n{OUTER}\r\n0\r\n\r\n");
    for beginning in [
        format!("+{size}"),
        format!("-{size}"),
        format!("0x{size}"),
        format!(" {size}"),
        format!("{size} {size}"),
        format!("{size}g"),
        format!("{size}\r"),
        format!("{size};a=\nb"),
        format!("{size};a={}", "b".repeat(20_000)),
        format!("1{}{size}", "0".repeat(16)),
        format!("{}{size}", "f".repeat(16)),
        "f".repeat(17),
        String::new(),
        ";a=b".to_owned(),
    ] {
        let rest = format!("{beginning}{right}{}", smuggled());
        let refused = outcome(publish("1.1", "transfer-encoding: chunked\r\n", &rest)).await;
        assert_refused(&refused, &beginning);
    }
    for rest in [
        // Lines that end with LF alone, and data longer and shorter than it says.
        format!("{size}\n{OUTER}\r\n0\r\n\r\n"),
        format!("{size}\r\n{OUTER}\n0\r\n\r\n"),
        format!("{size}\r\n{OUTER}\r\n0\n\r\n"),
        format!("{size}\r\n{OUTER}0\r\n\r\n"),
        format!("{size}\r\n{OUTER}  \r\n0\r\n\r\n"),
        format!("{size}\r\n{}\r\n0\r\n\r\n", &OUTER[1..]),
        format!("{size}\r\n{OUTER}\r\n0\r\nx: y\r\rz: a\r\n\r\n"),
    ] {
        let bytes = publish("1.1", "transfer-encoding: chunked\r\n", &(rest.clone() + &smuggled()));
        assert_refused(&outcome(bytes).await, &rest);
    }
    // An extension says nothing that matters; zeros before a size neither.
    for size in [format!("{size};a=b;c=\"d\""), format!("000{size}"), size.to_uppercase()] {
        let rest = format!("{size}{right}");
        assert_one(&outcome(publish("1.1", "transfer-encoding: chunked\r\n", &rest)).await, &size);
    }
}

#[tokio::test]
async fn a_trailer_is_not_taken_for_a_header() {
    let rest = format!(
        "{:x}\r\n{OUTER}\r\n0\r\ncontent-length: 5\r\nidempotency-key: a b\r\n\r\n",
        OUTER.len()
    );
    assert_one(&outcome(publish("1.1", "transfer-encoding: chunked\r\n", &rest)).await, &rest);
}

#[tokio::test]
async fn a_target_is_a_path_or_leads_nowhere() {
    let after = smuggled();
    let get =
        |target: &str| format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    for target in ["/health", "http://x/health", "HTTP://x/health", "http://y:1/health?a=b#c"] {
        let answered = outcome(get(target) + &after).await;
        assert_eq!(answered, Outcome { statuses: vec![200], events: vec![] }, "{target}");
    }
    for target in [
        "*",
        "x:80",
        "x",
        "http://",
        "//x/health",
        "/health\0",
        "/he alth",
        "/../health",
        "",
        "\u{1}",
    ] {
        assert_refused(&outcome(get(target) + &after).await, target);
    }
    for line in ["CONNECT x:80", "CONNECT /health", "OPTIONS *", "TRACE /health", "G@T /health"] {
        let request = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n{after}");
        assert_refused(&outcome(request).await, line);
    }
}

#[tokio::test]
async fn another_version_of_http_is_refused() {
    let after = smuggled();
    for beginning in [
        "GET /health\r\n",
        "GET /health\r\n\r\n",
        "GET /health HTTP/0.9\r\n\r\n",
        "GET /health HTTP/1.2\r\nhost: x\r\n\r\n",
        "GET /health HTTP/2.0\r\nhost: x\r\n\r\n",
        "GET /health http/1.1\r\nhost: x\r\n\r\n",
        "GET /health HTTP/1.10\r\nhost: x\r\n\r\n",
        "GET /health  HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET  /health HTTP/1.1\r\nhost: x\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\u{16}\u{3}\u{1}",
    ] {
        assert_refused(&outcome(beginning.to_owned() + &after).await, beginning);
    }
    // HTTP/1.0 ends with its first answer.
    let length = format!("content-length: {}\r\n", OUTER.len());
    let rest = OUTER.to_owned() + &after;
    assert_one(&outcome(publish("1.0", &length, &rest)).await, "HTTP/1.0");
}

#[tokio::test]
async fn a_request_names_one_host() {
    for host in [
        "",
        "host: x\r\nhost: x\r\n",
        "host: x\r\nhost: y\r\n",
        "host: x y\r\n",
        "host: x@y\r\n",
        "host: x/y\r\n",
    ] {
        let request = format!("GET /health HTTP/1.1\r\n{host}connection: close\r\n\r\n");
        assert_refused(&outcome(request).await, host);
    }
    for host in ["host: x\r\n", "host: x:8080\r\n", "host: [::1]:8080\r\n", "host:\r\n"] {
        let request = format!("GET /health HTTP/1.1\r\n{host}connection: close\r\n\r\n");
        assert_eq!(outcome(request).await.statuses, [200], "{host}");
    }
}
