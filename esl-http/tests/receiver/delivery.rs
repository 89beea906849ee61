//! Deliveries as ESL makes them, and what becomes of them.

use axum::{Router, body::Body};
use bytes::Bytes;
use esl_core::{Algorithm, Clock as _, Secret, Signer, SystemClock, Verifier};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

pub(crate) const SECRET: &str = "your-webhook-secret-for-signature-verification";

pub(crate) const EVENT: &str = "evt_01J00000000000000000000000";

pub(crate) fn verifier() -> Verifier {
    Verifier::standard([Secret::new(SECRET).unwrap()])
}

pub(crate) fn envelope(id: &str, event_type: &str, members: &str) -> String {
    format!(
        r#"{{"id":"{id}","type":"{event_type}","version":"1.0","timestamp":"2024-01-15T14:32:00.000Z","organization_id":"org_01J00000000000000000000000",{members}}}"#
    )
}

/// An event whose data is a number.
pub(crate) fn number(id: &str) -> String {
    envelope(id, "order.paid", r#""data":7,"metadata":{}"#)
}

/// The headers of a delivery that is sent now.
pub(crate) fn headers(body: &[u8]) -> HeaderMap {
    headers_at(SystemClock::new().utc().as_seconds(), EVENT, body)
}

pub(crate) fn headers_at(seconds: i64, id: &str, body: &[u8]) -> HeaderMap {
    let signer = Signer::new(&Secret::new(SECRET).unwrap(), Algorithm::Sha256);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in [
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", seconds.to_string()),
        ("webhook-signature", signer.standard(id, seconds, body)),
    ] {
        headers.insert(name, value.try_into().unwrap());
    }
    headers
}

/// A genuine delivery, sent now.
pub(crate) fn signed(body: impl Into<Bytes>) -> Request<Body> {
    let body = body.into();
    with_headers(headers(&body), body)
}

pub(crate) fn with_headers(headers: HeaderMap, body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::post("/").body(body.into()).unwrap();
    *request.headers_mut() = headers;
    request
}

/// The status and the text of the answer.
pub(crate) async fn send(router: &Router, request: Request<Body>) -> (StatusCode, String) {
    let answer = router.clone().oneshot(request).await.unwrap();
    let status = answer.status();
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(text.to_vec()).unwrap())
}

pub(crate) async fn status(router: &Router, request: Request<Body>) -> StatusCode {
    send(router, request).await.0
}
