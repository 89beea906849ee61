//! What a receiver says in its own log: why something was refused, and nothing that was to stay secret.

use axum::{Router, routing::post};
use esl_core::MemorySeen;
use esl_http::receiver::{Receiver, SignedEvent};
use http::StatusCode;
use serde_json::Value;

use crate::{
    delivery::{EVENT, SECRET, headers, number, send, signed, status, verifier, with_headers},
    log::Log,
};

/// The only line with that message.
fn line(log: &Log, message: &str) -> Value {
    let mut lines: Vec<_> =
        log.lines().into_iter().filter(|line| line["message"] == message).collect();
    assert_eq!(lines.len(), 1, "{}", log.text());
    lines.remove(0)
}

/// A router whose handler takes events with texts.
fn taking_texts() -> Router {
    let handler = |_: SignedEvent<String>| async {};
    Router::new().route("/", post(handler)).layer(Receiver::new(verifier()))
}

#[tokio::test]
async fn what_is_genuine_and_cannot_be_read_is_warned_of_with_the_reason() {
    let (log, router) = (Log::default(), taking_texts());
    let listening = log.listen();
    let (refused, text) = send(&router, signed("[]")).await;
    assert_eq!(refused, StatusCode::BAD_REQUEST);
    let said = line(&log, "a delivery is genuine and cannot be read");
    assert_eq!((&said["level"], &said["reason"]), (&"WARN".into(), &text.into()));

    let (refused, text) = send(&router, signed(number(EVENT))).await;
    assert_eq!(refused, StatusCode::BAD_REQUEST);
    let said = line(&log, "an event is not what the handler takes");
    assert_eq!((&said["level"], &said["reason"]), (&"WARN".into(), &text.into()));
    drop(listening);
    assert!(!log.text().contains(SECRET));
}

#[tokio::test]
async fn what_is_not_genuine_is_no_warning_since_anybody_could_fill_the_log() {
    let (log, router) = (Log::default(), taking_texts());
    let listening = log.listen();
    let mut forged = headers(b"other");
    forged.insert("webhook-signature", "v1,Zm9yZ2VkLWJ5LXNvbWVib2R5".parse().unwrap());
    let refused = status(&router, with_headers(forged, number(EVENT))).await;
    assert_eq!(refused, StatusCode::UNAUTHORIZED);
    drop(listening);
    let said = line(&log, "a delivery was refused");
    assert_eq!((&said["level"], &said["status"]), (&"DEBUG".into(), &401.into()));
    assert!(!log.text().contains("Zm9yZ2Vk") && !log.text().contains(SECRET), "{}", log.text());
}

#[tokio::test]
async fn a_panic_of_the_handler_is_an_error_that_names_the_event() {
    for receiver in
        [Receiver::new(verifier()), Receiver::new(verifier()).with_seen(MemorySeen::new())]
    {
        let log = Log::default();
        let listening = log.listen();
        let handler = || async {
            if true {
                panic!("it cannot be")
            }
        };
        let router = Router::new().route("/", post(handler)).layer(receiver);
        let failed = status(&router, signed(number(EVENT))).await;
        drop(listening);
        assert_eq!(failed, StatusCode::INTERNAL_SERVER_ERROR);
        let said = line(&log, "the handler has panicked");
        assert_eq!((&said["level"], &said["panic"]), (&"ERROR".into(), &"it cannot be".into()));
        assert!(said["event"].as_str().unwrap().ends_with(EVENT), "{said}");
    }
}
