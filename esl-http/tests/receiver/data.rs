//! What handlers get.

use std::{
    error::Error as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use axum::{Router, extract::State, response::IntoResponse, routing::post};
use bytes::Bytes;
use esl_core::{DataRef, payload::Person};
use esl_http::receiver::{
    Fetch, FetchError, Received, Receiver, SignedEvent, SignedEventRejection,
};
use http::{HeaderMap, StatusCode};

use crate::delivery::{EVENT, envelope, number, send, signed, status, verifier};

const BY_REFERENCE: &str = r#""data_ref":{"type":"blob","uri":"https://esl.example/blob","expires_at":"2024-01-15T14:32:00.000Z","size_bytes":1,"checksum":"sha256:00"}"#;

fn by_reference() -> String {
    envelope(EVENT, "order.paid", BY_REFERENCE)
}

/// Has always the same to give, and counts how often it is asked.
#[derive(Debug)]
struct Scripted {
    answer: fn() -> Result<Bytes, FetchError>,
    asked: Arc<AtomicUsize>,
}

#[async_trait]
impl Fetch for Scripted {
    async fn fetch(&self, reference: &DataRef) -> Result<Bytes, FetchError> {
        assert_eq!(reference.uri, "https://esl.example/blob");
        self.asked.fetch_add(1, Ordering::SeqCst);
        (self.answer)()
    }
}

fn fetching(answer: fn() -> Result<Bytes, FetchError>) -> (Receiver, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let fetch = Scripted { answer, asked: Arc::clone(&asked) };
    (Receiver::new(verifier()).with_fetch(fetch), asked)
}

/// Answers with the number that an event has.
fn numbers(receiver: Receiver) -> Router {
    let handler = |SignedEvent(event): SignedEvent<u8>| async move { event.data.to_string() };
    Router::new().route("/", post(handler)).layer(receiver)
}

#[tokio::test]
async fn a_handler_gets_the_event_as_its_type_beside_what_else_it_takes() {
    async fn handle(
        State(greeting): State<&'static str>,
        headers: HeaderMap,
        SignedEvent(event): SignedEvent<Person>,
        received: Received,
        body: Bytes,
    ) -> String {
        assert_eq!(received.body, body);
        assert_eq!(headers["webhook-id"], *event.id.to_string());
        let name = event.changes.get::<String>("name").unwrap().unwrap();
        format!("{greeting} {} who was {}", event.data.name, name.old)
    }
    let router =
        Router::new().route("/", post(handle)).layer(Receiver::new(verifier())).with_state("hello");
    let person = r#""data":{"id":"person_1","name":"John Doe","email":null,"status":"active","created_at":"2024-01-01T00:00:00.000Z","updated_at":"2024-01-15T14:32:00.000Z"},"changes":{"name":{"old":"John Smith","new":"John Doe"}},"metadata":{}"#;
    let (status, text) = send(&router, signed(envelope(EVENT, "person.updated", person))).await;
    assert_eq!((status, text.as_str()), (StatusCode::OK, "hello John Doe who was John Smith"));
}

#[tokio::test]
async fn data_that_is_not_what_the_handler_takes_is_refused() {
    let router = numbers(Receiver::new(verifier()));
    assert_eq!(send(&router, signed(number(EVENT))).await.1, "7");
    for (members, reason) in [
        (r#""data":"seven""#, r#"invalid type: string "seven", expected u8 at line 1 column 7"#),
        (r#""data":null"#, "invalid type: null, expected u8 at line 1 column 4"),
        (r#""metadata":{}"#, "invalid type: null, expected u8 at line 1 column 4"),
    ] {
        let answer = send(&router, signed(envelope(EVENT, "order.paid", members))).await;
        let text = format!("the data is not of the type that it is read as: {reason}");
        assert_eq!(answer, (StatusCode::BAD_REQUEST, text), "{members}");
    }
    // However much data the reason quotes, its beginning and its end are enough.
    let long = format!(r#""data":"{}""#, "é".repeat(10_000));
    let (_, text) = send(&router, signed(envelope(EVENT, "order.paid", &long))).await;
    assert!(text.len() < 500 && text.ends_with("expected u8 at line 1 column 20002"), "{text}");
}

#[tokio::test]
async fn a_ping_is_answered_by_who_does_not_know_it() {
    let router = numbers(Receiver::new(verifier()));
    let ping = r#""data":{"subscription_id":"sub_01J00000000000000000000000"},"metadata":{}"#;
    let ping = envelope(EVENT, "system.ping", ping);
    let none = (StatusCode::NO_CONTENT, String::new());
    assert_eq!(send(&router, signed(ping.clone())).await, none);
    // A type that fits gets it.
    async fn handle(SignedEvent(event): SignedEvent<esl_core::payload::Ping>) -> String {
        event.data.subscription_id.to_string()
    }
    let router = Router::new().route("/", post(handle)).layer(Receiver::new(verifier()));
    assert_eq!(send(&router, signed(ping)).await.1, "sub_01J00000000000000000000000");
}

#[tokio::test]
async fn without_the_layer_nothing_is_taken_for_genuine() {
    let signed_event = |_: SignedEvent<u8>| async {};
    let whole = |_: Received| async {};
    for handler in [post(signed_event), post(whole)] {
        let router = Router::new().route("/", handler);
        let (status, text) = send(&router, signed(number(EVENT))).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(text, "nothing has verified this request");
    }
}

#[tokio::test]
async fn large_data_is_fetched_for_a_handler_that_asks_for_it() {
    let (receiver, asked) = fetching(|| Ok(Bytes::from_static(b"9")));
    assert_eq!(send(&numbers(receiver.clone()), signed(by_reference())).await.1, "9");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    let whole = |received: Received| async move { received.envelope.id.to_string() };
    let router = Router::new().route("/", post(whole)).layer(receiver.clone());
    assert_eq!(send(&router, signed(by_reference())).await.1, EVENT);
    assert_eq!(send(&numbers(receiver), signed(number(EVENT))).await.1, "7");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn large_data_that_is_not_had_is_asked_for_again_later() {
    let (expired, _) = fetching(|| Err(FetchError::Expired));
    let answer = send(&numbers(expired), signed(by_reference())).await;
    assert_eq!(answer, (StatusCode::BAD_GATEWAY, "the data could not be fetched".to_owned()));
    let (other, _) = fetching(|| Ok(Bytes::from_static(b"nine")));
    assert_eq!(status(&numbers(other), signed(by_reference())).await, StatusCode::BAD_REQUEST);
    let none = numbers(Receiver::new(verifier()));
    let (status, text) = send(&none, signed(by_reference())).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(text, "the data is not in the envelope, and nothing here fetches it");
}

#[tokio::test]
async fn a_handler_may_look_at_why_it_gets_no_event() {
    async fn handle(event: Result<SignedEvent<u8>, SignedEventRejection>) -> impl IntoResponse {
        let rejection = event.unwrap_err();
        (rejection.status(), rejection.source().unwrap().to_string())
    }
    let (expired, _) = fetching(|| Err(FetchError::Expired));
    let router = Router::new().route("/", post(handle)).layer(expired);
    let answer = send(&router, signed(by_reference())).await;
    assert_eq!(answer, (StatusCode::BAD_GATEWAY, "the link to the data has expired".to_owned()));
}
