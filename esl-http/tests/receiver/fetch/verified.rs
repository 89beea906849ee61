//! What is fetched is what the event says, or an error.

use std::{net::TcpListener, time::Duration};

use axum::{Router, routing::post};
use esl_core::DataRef;
use esl_http::receiver::{Fetch as _, FetchError, Receiver, SignedEvent};
use futures_util::StreamExt as _;
use http::StatusCode;

use super::{
    DATA, anywhere, from_now, reference,
    server::{Server, in_parts, with_body, without_length},
};
use crate::delivery::{EVENT, envelope, send, signed, verifier};

/// What comes of fetching [`DATA`] from a server that answers this.
async fn fetched(answer: String) -> Result<String, FetchError> {
    let server = Server::start(move |_| answer.clone()).await;
    let fetched = anywhere().build().unwrap().fetch(&reference(server.url("/blob"))).await;
    fetched.map(|data| String::from_utf8(data.to_vec()).unwrap())
}

#[tokio::test]
async fn good_data_is_had_however_it_comes() {
    let (front, back) = DATA.split_at(10);
    for answer in [
        with_body("200 OK", DATA),
        without_length(DATA),
        in_parts(&[DATA]),
        in_parts(&[front, back]),
    ] {
        assert_eq!(fetched(answer).await.unwrap(), DATA);
    }
}

#[tokio::test]
async fn data_of_which_a_byte_is_another_is_refused() {
    let changed = DATA.replace('n', "m");
    for answer in [with_body("200 OK", &changed), without_length(&changed)] {
        assert!(matches!(fetched(answer).await, Err(FetchError::Checksum)));
    }
}

#[tokio::test]
async fn data_that_is_short_or_long_is_refused() {
    let short = &DATA[..DATA.len() - 1];
    let long = format!("{DATA} ");
    for short in [with_body("200 OK", short), without_length(short), in_parts(&[short])] {
        assert!(matches!(fetched(short).await, Err(FetchError::TooShort)));
    }
    for long in [with_body("200 OK", &long), without_length(&long), in_parts(&[DATA, " "])] {
        assert!(matches!(fetched(long).await, Err(FetchError::TooLong)));
    }
    let broken_off = with_body("200 OK", DATA).replace('}', "");
    assert!(matches!(fetched(broken_off).await, Err(FetchError::Unavailable(_))));
}

#[tokio::test]
async fn data_without_a_byte_is_data() {
    let server = Server::start(|_| with_body("200 OK", "")).await;
    let fetcher = anywhere().build().unwrap();
    let empty = DataRef::to_blob(b"", server.url("/"), from_now(60_000));
    assert_eq!(fetcher.fetch(&empty).await.unwrap(), "");
    let mut other = empty.clone();
    other.checksum = reference(String::new()).checksum;
    assert!(matches!(fetcher.fetch(&other).await, Err(FetchError::Checksum)));
}

#[tokio::test]
async fn whoever_reads_bit_by_bit_never_gets_the_end_of_something_else() {
    let (front, back) = DATA.split_at(10);
    let changed = back.replace('n', "m");
    let server = Server::start(move |path| match path {
        "/good" => in_parts(&[front, back]),
        _ => in_parts(&[front, &changed]),
    })
    .await;
    let fetcher = anywhere().build().unwrap();
    for (path, is_good) in [("/good", true), ("/changed", false)] {
        let mut stream = fetcher.open(&reference(server.url(path))).await.unwrap();
        let mut read = String::new();
        let error = loop {
            match stream.next().await {
                Some(Ok(part)) => read += std::str::from_utf8(&part).unwrap(),
                Some(Err(error)) => break Some(error),
                None => break None,
            }
        };
        // What comes in one read is one part.
        let expected = if is_good { DATA } else { &read[..read.len().min(front.len())] };
        assert_eq!(read, expected);
        assert_eq!(matches!(error, Some(FetchError::Checksum)), !is_good);
        assert!(stream.next().await.is_none());
    }
}

#[tokio::test]
async fn data_that_is_too_large_is_not_asked_for() {
    let server = Server::start(|_| with_body("200 OK", DATA)).await;
    let size_bytes = DATA.len() as u64;
    for (bytes_max, is_taken) in [(size_bytes, true), (size_bytes - 1, false)] {
        let fetcher = anywhere().with_data_max(bytes_max).build().unwrap();
        match fetcher.fetch(&reference(server.url("/"))).await {
            Ok(data) => assert!(is_taken && data == DATA),
            Err(FetchError::TooLarge { size_bytes: is, bytes_max: max }) => {
                assert_eq!((is, max, is_taken), (size_bytes, bytes_max, false));
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn an_expired_link_is_said_to_be_that() {
    let refused = with_body("403 Forbidden", r#"{"status":403,"code":"link_refused"}"#);
    assert!(matches!(fetched(refused).await, Err(FetchError::Expired)));

    let server = Server::start(|_| with_body("200 OK", DATA)).await;
    let mut reference = reference(server.url("/"));
    reference.expires_at = from_now(-1);
    let expired = anywhere().build().unwrap().fetch(&reference).await;
    assert!(matches!(expired, Err(FetchError::Expired)));
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn any_other_answer_is_not_the_data() {
    for (status, body, expected) in [
        ("403 Forbidden", r#"{"code":"insufficient_scope"}"#, 403),
        ("403 Forbidden", "<Error>AccessDenied</Error>", 403),
        ("404 Not Found", DATA, 404),
        ("206 Partial Content", DATA, 206),
        ("304 Not Modified", "", 304),
        ("500 Internal Server Error", DATA, 500),
    ] {
        match fetched(with_body(status, body)).await {
            Err(FetchError::Status(status)) => assert_eq!(status, expected),
            other => panic!("{status}: {other:?}"),
        }
    }
    assert!(matches!(fetched("SSH-2.0\r\n\r\n".into()).await, Err(FetchError::Unavailable(_))));
}

#[tokio::test]
async fn a_checksum_of_an_unknown_kind_is_not_passed_over() {
    let server = Server::start(|_| with_body("200 OK", DATA)).await;
    for checksum in ["md5:00", "", "sha256:00", "sha256:", "sha256:zz"] {
        let mut reference = reference(server.url("/"));
        reference.checksum = checksum.to_owned();
        let refused = anywhere().build().unwrap().fetch(&reference).await;
        assert!(matches!(refused, Err(FetchError::Unusable(_))), "{checksum}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for_for_ever() {
    // Connections are taken by the system, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let fetcher = anywhere().with_timeout(Duration::from_millis(10)).build().unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    assert!(matches!(fetcher.fetch(&reference(url)).await, Err(FetchError::Timeout)));
}

#[tokio::test]
async fn a_handler_gets_what_was_fetched_as_its_type() {
    let server = Server::start(|_| with_body("200 OK", "[1,2,3]")).await;
    let data = DataRef::to_blob(b"[1,2,3]", server.url("/blob"), from_now(60_000));
    let data = serde_json::to_string(&data).unwrap();
    let handler =
        |SignedEvent(event): SignedEvent<Vec<u8>>| async move { event.data.len().to_string() };
    let receiver = Receiver::new(verifier()).with_fetch(anywhere().build().unwrap());
    let router = Router::new().route("/", post(handler)).layer(receiver);
    let body = envelope(EVENT, "order.paid", &format!(r#""data_ref":{data},"metadata":{{}}"#));
    assert_eq!(send(&router, signed(body)).await, (StatusCode::OK, "3".to_owned()));
}
