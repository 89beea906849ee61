//! What goes around every request: its id, its deadline, its line in the log, and a net for panics.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header::RETRY_AFTER, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use esl_core::OrganizationId;
use futures_util::FutureExt;
use tokio::time::timeout;

use super::{
    Api, limits,
    problem::{Cause, Code, Problem},
};

/// The request that is being answered. A cheap handle.
#[derive(Debug, Clone)]
pub(super) struct Context(Arc<Facts>);

#[derive(Debug)]
struct Facts {
    request_id: HeaderValue,
    client: OnceLock<Arc<str>>,
    organization: OnceLock<OrganizationId>,
    too_slow: OnceLock<&'static str>,
}

impl Context {
    /// The request that these parts belong to.
    pub(super) fn of(parts: &Parts) -> &Self {
        parts.extensions.get().expect("`accompany` is around every route")
    }

    /// The client's own name for the request if it is one, otherwise ours.
    pub(super) fn request_id(&self) -> &str {
        self.0.request_id.to_str().expect("request ids are ASCII")
    }

    /// Notes for the log who is asking.
    pub(super) fn set_client(&self, client: Arc<str>) {
        // A second extractor of the same request says the same.
        let _ = self.0.client.set(client);
    }

    /// Notes whose limits the answer tells of.
    pub(super) fn set_organization(&self, organization: OrganizationId) {
        let _ = self.0.organization.set(organization);
    }

    /// Notes what the answer says, should the time for the request be over before it is done: for
    /// work that changes nothing, and takes as long when it is asked for again.
    pub(super) fn when_too_slow(&self, detail: &'static str) {
        let _ = self.0.too_slow.set(detail);
    }
}

/// Answers a request through `next`, whatever happens on the way.
pub(super) async fn accompany(
    State(api): State<Api>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let request_id = given_id(request.headers()).unwrap_or_else(|| {
        HeaderValue::try_from(api.esl.request_id().to_string()).expect("request ids are ASCII")
    });
    let facts = Facts {
        request_id,
        client: OnceLock::new(),
        organization: OnceLock::new(),
        too_slow: OnceLock::new(),
    };
    let context = Context(Arc::new(facts));
    let method = request.method().clone();
    let path = request.extensions().get::<MatchedPath>().cloned();
    request.extensions_mut().insert(context.clone());

    // Nothing of the request is looked at after a panic, so nothing can be seen half done.
    let answering = AssertUnwindSafe(next.run(request)).catch_unwind();
    let mut response = match timeout(api.config.request_timeout, answering).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Problem::internal(&Panicked).into_response(),
        Err(_) => too_slow(&context).into_response(),
    };

    response.headers_mut().insert(X_REQUEST_ID, context.0.request_id.clone());
    if let Some(organization) = context.0.organization.get() {
        limits::tell(&api, *organization, &mut response).await;
    }
    let cause = response.extensions_mut().remove::<Cause>();
    log(&method, path.as_ref(), &response, started.elapsed(), &context, cause.as_ref());
    response
}

/// A client's own id is kept if it cannot disturb a log or a header.
fn given_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(X_REQUEST_ID)?;
    let bytes = value.as_bytes();
    let is_id = (1..=64).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    is_id.then(|| value.clone())
}

fn too_slow(context: &Context) -> Problem {
    if let Some(detail) = context.0.too_slow.get() {
        return Problem::new(Code::Timeout, *detail);
    }
    let detail = "the request took too long; whether it was done is not known. Publishing again \
                  with the same Idempotency-Key or the same event ids is safe";
    Problem::new(Code::Timeout, detail).with_header(RETRY_AFTER, HeaderValue::from_static("1"))
}

/// One line for every request, under the target `esl_http::access`. Paths are those of routes, so
/// that neither an id nor a token in a wrong place gets into the log.
fn log(
    method: &Method,
    path: Option<&MatchedPath>,
    response: &Response,
    duration: Duration,
    context: &Context,
    cause: Option<&Cause>,
) {
    let method = method.as_str();
    let path = path.map(MatchedPath::as_str);
    let status = response.status().as_u16();
    let duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let request_id = context.request_id();
    let client = context.0.client.get().map(|client| &**client);
    match cause {
        None => tracing::info!(
            target: "esl_http::access",
            method, path, status, duration_us, request_id, client, "answered"
        ),
        Some(Cause(error)) => tracing::error!(
            target: "esl_http::access",
            method, path, status, duration_us, request_id, client, %error, "failed"
        ),
    }
}

impl FromRequestParts<Api> for Context {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Infallible> {
        Ok(Self::of(parts).clone())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the handler panicked; standard error has its message")]
struct Panicked;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
