//! `HttpTransport` against receivers on real sockets.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod answers;
mod authority;
mod connections;
mod failures;
mod http2;
#[path = "../../../tests/ports.rs"]
mod ports;
mod proxy;
mod receiver;
mod refusals;
mod refused_answers;
mod resolver;
mod tls;

use std::time::Duration;

use esl_core::{Answer, AttemptError, CallbackPolicy, CallbackUrl, Outbound, Sent, Transport as _};
use esl_http::HttpTransport;

const BODY: &str = r#"{"id":"evt_01J00000000000000000000000","data":{"name":"Jörg"}}"#;

/// Calls loopback, too.
fn transport() -> HttpTransport {
    HttpTransport::new(CallbackPolicy::allow_private())
}

/// Far more time than anything here needs: a deadline that is not to be met.
fn outbound(url: &str) -> Outbound {
    Outbound {
        url: CallbackUrl::from_stored(url),
        headers: vec![("x-sapien-event".into(), "person.updated".to_owned())],
        body: BODY.into(),
        timeout: Duration::from_secs(60),
        fresh: false,
    }
}

async fn send(transport: &HttpTransport, url: &str) -> Sent {
    transport.send(outbound(url)).await
}

async fn send_fresh(transport: &HttpTransport, url: &str) -> Sent {
    transport.send(Outbound { fresh: true, ..outbound(url) }).await
}

async fn send_within(transport: &HttpTransport, url: &str, timeout: Duration) -> Sent {
    transport.send(Outbound { timeout, ..outbound(url) }).await
}

#[track_caller]
fn answer(sent: Sent) -> Answer {
    sent.result.expect("the receiver answers")
}

#[track_caller]
fn error(sent: &Sent) -> AttemptError {
    sent.result.as_ref().expect_err("there is no answer").error
}

#[track_caller]
fn detail(sent: &Sent) -> &str {
    &sent.result.as_ref().expect_err("there is no answer").detail
}
