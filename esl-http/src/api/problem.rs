//! Errors as the API's callers read them: `application/problem+json` (RFC 9457).

use std::{borrow::Cow, error::Error, fmt::Write as _, sync::Arc};

use axum::{
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use esl_core::{
    PublishError, SubscriptionId,
    storage::{StorageError, StorageErrorKind},
};
use serde::Serialize;

use super::{fault::Fault, path::Named};

/// An answer that says what was wrong.
#[derive(Debug)]
pub(super) struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    code: Code,
    detail: Cow<'static, str>,
    errors: Vec<Fault>,
    header: Option<(HeaderName, HeaderValue)>,
    cause: Option<Cause>,
}

/// What the operator's log says about an error and its caller does not read; travels in the
/// response's extensions.
#[derive(Debug, Clone)]
pub(super) struct Cause(pub(super) Arc<str>);

/// The kinds of problem. A caller's program goes by these, so a spelling never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Malformed,
    Unauthorized,
    InsufficientScope,
    LinkRefused,
    NotFound,
    MethodNotAllowed,
    BodyTimeout,
    Gone,
    EventConflict,
    IdempotencyConflict,
    Conflict,
    SubscriptionLimit,
    ClientLimit,
    RateLimited,
    PreconditionFailed,
    TooLarge,
    UnsupportedMediaType,
    RangeNotSatisfiable,
    Invalid,
    BlobMissing,
    Internal,
    Unavailable,
    Timeout,
}

impl Code {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unauthorized => "unauthorized",
            Self::InsufficientScope => "insufficient_scope",
            Self::LinkRefused => "link_refused",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::BodyTimeout => "body_timeout",
            Self::Gone => "gone",
            Self::EventConflict => "event_conflict",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::Conflict => "conflict",
            Self::SubscriptionLimit => "subscription_limit",
            Self::ClientLimit => "client_limit",
            Self::RateLimited => "rate_limited",
            Self::PreconditionFailed => "precondition_failed",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::RangeNotSatisfiable => "range_not_satisfiable",
            Self::Invalid => "invalid",
            Self::BlobMissing => "blob_missing",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::InsufficientScope | Self::LinkRefused => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Gone => StatusCode::GONE,
            Self::EventConflict
            | Self::IdempotencyConflict
            | Self::Conflict
            | Self::SubscriptionLimit
            | Self::ClientLimit => StatusCode::CONFLICT,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            Self::BlobMissing | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable | Self::Timeout => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl Problem {
    pub(super) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let detail = detail.into();
        Self(Box::new(Parts { code, detail, errors: Vec::new(), header: None, cause: None }))
    }

    /// What storage says about one thing that the path names.
    pub(super) fn about(what: &str, error: &StorageError) -> Self {
        match error.kind() {
            StorageErrorKind::NotFound => Self::not_found(what),
            _ => error.into(),
        }
    }

    /// What the organization does not have, whether or not another one does.
    pub(super) fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("there is no such {what}"))
    }

    /// 401 with the challenge of RFC 6750, section 3.
    pub(super) fn unauthorized(challenge: &'static str, detail: &'static str) -> Self {
        Self::new(Code::Unauthorized, detail)
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    /// Something of ours failed; its caller learns no more than that.
    pub(super) fn internal(cause: &dyn Error) -> Self {
        let detail = "something failed on this side; the log knows more under X-Request-Id";
        Self::new(Code::Internal, detail).with_cause(cause)
    }

    /// 503, with a word on when to come back.
    pub(super) fn unavailable(detail: &'static str, retry_after_seconds: u16) -> Self {
        Self::new(Code::Unavailable, detail)
            .with_header(RETRY_AFTER, HeaderValue::from(retry_after_seconds))
    }

    pub(super) fn with_errors(mut self, errors: Vec<Fault>) -> Self {
        self.0.errors = errors;
        self
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.header = Some((name, value));
        self
    }

    /// With something for the log alone.
    pub(super) fn with_cause(mut self, cause: &dyn Error) -> Self {
        self.0.cause = Some(Cause::of(cause));
        self
    }
}

impl Cause {
    /// An error and everything that led to it.
    pub(super) fn of(error: &dyn Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            write!(text, ": {error}").expect("a String takes everything");
            source = error.source();
        }
        Self(text.into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct View<'a> {
            r#type: &'static str,
            title: &'static str,
            status: u16,
            code: &'static str,
            detail: &'a str,
            #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
            errors: &'a [Fault],
        }

        let Parts { code, detail, errors, header, cause } = *self.0;
        let status = code.status();
        let view = View {
            // The status says all that a generic client can use; `code` says the rest.
            r#type: "about:blank",
            title: status.canonical_reason().expect("every status of Code is a registered one"),
            status: status.as_u16(),
            code: code.as_str(),
            detail: &detail,
            errors: &errors,
        };
        let body = serde_json::to_vec(&view).expect("strings and numbers are JSON");
        let mut response = (status, body).into_response();
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, value);
        }
        if let Some(cause) = cause {
            response.extensions_mut().insert(cause);
        }
        response
    }
}

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Self {
        Self::from(&error)
    }
}

impl From<&StorageError> for Problem {
    fn from(error: &StorageError) -> Self {
        match error.kind() {
            StorageErrorKind::Busy => {
                Self::unavailable("storage is busy; try again", 1).with_cause(error)
            }
            StorageErrorKind::Unavailable
            | StorageErrorKind::Fenced
            | StorageErrorKind::KeyMissing => {
                Self::unavailable("storage is not available", 5).with_cause(error)
            }
            StorageErrorKind::NotFound => Self::not_found("thing in this organization"),
            StorageErrorKind::Gone => {
                Self::new(Code::Gone, "its event was erased, or removed because it was old")
            }
            StorageErrorKind::Conflict => {
                Self::new(Code::Conflict, "the present state does not allow this")
            }
            StorageErrorKind::OverLimit => Self::new(
                Code::SubscriptionLimit,
                "the organization has as many subscriptions as it may have",
            ),
            _ => Self::internal(error),
        }
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::TooLarge { bytes, bytes_max } => Self::new(
                Code::TooLarge,
                format!("sealed, the event has {bytes} bytes; {bytes_max} are the most"),
            ),
            PublishError::SystemType => {
                Self::new(Code::Invalid, "the types below system are ESL's own")
            }
            PublishError::EventConflict(id) => Self::new(
                Code::EventConflict,
                format!(
                    "event {id} has been published before, with other content, or under an id \
                     that was generated for it"
                ),
            ),
            PublishError::IdempotencyConflict => Self::new(
                Code::IdempotencyConflict,
                "this Idempotency-Key has been used for another request",
            ),
            PublishError::OverLimit { events, limit, .. } if !limit.allows(events) => {
                let detail = format!(
                    "these are {events} events, and the organization may publish {limit} in an hour: \
                     no hour has room for them at once"
                );
                Self::new(Code::RateLimited, detail)
            }
            PublishError::OverLimit { limit, usage, .. } => {
                let left = limit.get().map_or(0, |limit| limit.saturating_sub(usage.events));
                let detail = format!(
                    "the organization may publish {limit} events an hour, and has {left} left \
                     until {}",
                    usage.hour.end()
                );
                Self::new(Code::RateLimited, detail)
            }
            PublishError::Maintenance(error) => Self::new(Code::Invalid, error.to_string()),
            PublishError::UnknownOrganization => super::auth::organization_gone(),
            PublishError::UnknownSubscription => Self::not_found(SubscriptionId::NAME),
            PublishError::Disabled => Self::unavailable("the event system is switched off", 60),
            PublishError::Stopped => Self::unavailable("the service is stopping", 5),
            PublishError::Storage(error) => Self::from(&*error),
            PublishError::Blob(error) => {
                Self::unavailable("the store for large payloads is not available", 5)
                    .with_cause(&*error)
            }
            _ => Self::internal(&error),
        }
    }
}

/// What is asked for where no route is.
pub(super) async fn no_route() -> Problem {
    Problem::new(Code::NotFound, "there is no such route")
}

/// A route that does not know the method; the router adds `Allow`.
pub(super) async fn no_method() -> Problem {
    Problem::new(Code::MethodNotAllowed, "this route does not know the method; Allow names those")
}
