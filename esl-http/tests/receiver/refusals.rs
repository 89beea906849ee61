//! What is not let through.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, routing::post};
use bytes::Bytes;
use esl_core::{Clock as _, SystemClock, Verifier};
use esl_http::receiver::Receiver;
use futures_util::stream;
use http::{HeaderValue, StatusCode, header::CONTENT_ENCODING, header::CONTENT_TYPE};

use crate::delivery::{EVENT, headers, headers_at, number, send, signed, verifier, with_headers};

/// A receiver's router, and how often its handler ran.
fn counting(receiver: Receiver) -> (Router, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let handler = move || async move {
        counter.fetch_add(1, Ordering::SeqCst);
    };
    (Router::new().route("/", post(handler)).layer(receiver), runs)
}

#[tokio::test]
async fn a_body_that_is_said_to_be_something_else_is_refused() {
    let (router, runs) = counting(Receiver::new(verifier()));
    let body = number(EVENT);
    for (content_type, expected) in [
        ("application/json", StatusCode::OK),
        ("Application/JSON; charset=UTF-8", StatusCode::OK),
        ("application/json; charset=\"utf-8\"", StatusCode::OK),
        ("application/json; charset=latin1", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("text/plain", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/x-www-form-urlencoded", StatusCode::UNSUPPORTED_MEDIA_TYPE),
    ] {
        let mut headers = headers(body.as_bytes());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        let (status, _) = send(&router, with_headers(headers, body.clone())).await;
        assert_eq!(status, expected, "{content_type}");
    }
    let mut without = headers(body.as_bytes());
    without.remove(CONTENT_TYPE);
    let mut encoded = headers(body.as_bytes());
    encoded.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    for headers in [without, encoded] {
        let (status, _) = send(&router, with_headers(headers, body.clone())).await;
        assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_whether_or_not_it_says_so() {
    let body = number(EVENT);
    let in_parts = |body: &str| {
        let parts: Vec<_> = body.bytes().map(|byte| Ok::<_, Infallible>(vec![byte])).collect();
        Body::from_stream(stream::iter(parts))
    };
    for (spare, expected) in [(0, StatusCode::OK), (-1, StatusCode::PAYLOAD_TOO_LARGE)] {
        let max = body.len().checked_add_signed(spare).unwrap();
        let (router, runs) = counting(Receiver::new(verifier()).with_body_max(max));
        for sent in [Body::from(body.clone()), in_parts(&body)] {
            let request = with_headers(headers(body.as_bytes()), sent);
            assert_eq!(send(&router, request).await.0, expected);
        }
        let run = if expected.is_success() { 2 } else { 0 };
        assert_eq!(runs.load(Ordering::SeqCst), run);
    }
}

#[tokio::test]
async fn the_usual_limit_is_a_mebibyte() {
    let (router, _) = counting(Receiver::new(verifier()));
    let empty = number(EVENT).len();
    for (length, expected) in
        [(1024 * 1024, StatusCode::OK), (1024 * 1024 + 1, StatusCode::PAYLOAD_TOO_LARGE)]
    {
        let body = number(EVENT).replace('7', &"7".repeat(length - empty + 1));
        assert_eq!(send(&router, signed(body)).await.0, expected);
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_refused() {
    let (router, runs) = counting(Receiver::new(verifier()));
    let body = number(EVENT);
    let parts = [Ok(Bytes::from(body.clone())), Err(io::Error::other("the connection is gone"))];
    let broken = Body::from_stream(stream::iter(parts));
    let (status, text) = send(&router, with_headers(headers(body.as_bytes()), broken)).await;
    assert_eq!((status, text.as_str()), (StatusCode::BAD_REQUEST, "the body broke off"));
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let receiver = Receiver::new(verifier()).with_body_timeout(Duration::from_secs(3));
    let (router, _) = counting(receiver);
    let began = tokio::time::Instant::now();
    let hung = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let (status, _) = send(&router, with_headers(headers(b""), hung)).await;
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(began.elapsed().as_secs(), 3);
}

#[tokio::test]
async fn what_is_not_genuine_is_told_what_failed_and_not_what_was_expected() {
    let (router, runs) = counting(Receiver::new(verifier()));
    let body = number(EVENT);
    let now = SystemClock::new().utc().as_seconds();
    let mut unsigned = headers(body.as_bytes());
    unsigned.remove("webhook-signature");
    let mut garbled = headers(body.as_bytes());
    garbled.insert("webhook-timestamp", HeaderValue::from_static("yesterday"));
    for (headers, expected) in [
        (unsigned, "the header `webhook-signature` is missing"),
        (garbled, "the header `webhook-timestamp` is malformed"),
        (headers(b"{}"), "no signature in the header `webhook-signature` matches"),
        (headers_at(now - 310, EVENT, body.as_bytes()), "the request was signed too long ago"),
        (headers_at(now + 310, EVENT, body.as_bytes()), "the request was signed in the future"),
    ] {
        let (status, text) = send(&router, with_headers(headers, body.clone())).await;
        assert_eq!((status, text.as_str()), (StatusCode::UNAUTHORIZED, expected));
    }
    let (nobody, _) = counting(Receiver::new(Verifier::standard([])));
    assert_eq!(send(&nobody, signed(body)).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_is_signed_and_no_envelope_is_refused() {
    let (router, runs) = counting(Receiver::new(verifier()));
    let long = format!("{:?}", "é".repeat(10_000));
    for (body, reason) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("{}", "missing field `id` at line 1 column 2"),
        ("no JSON", "expected ident at line 1 column 2"),
        (&long, "at line 1 column 20002"),
    ] {
        let (status, text) = send(&router, signed(body.to_owned())).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
        // Its sender is known, and is told why, in short.
        assert!(text.starts_with("the body is not an envelope: "), "{text}");
        assert!(text.ends_with(reason) && text.len() < 500, "{text}");
    }
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

#[test]
fn a_receiver_shows_no_secret() {
    let shown = format!("{:?}", Receiver::new(verifier()));
    assert!(shown.contains("1048576") && !shown.contains("your-webhook"), "{shown}");
}
