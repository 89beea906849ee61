//! Errors in OAuth's own shape (RFC 6749, section 5.2).

use std::{borrow::Cow, time::Duration};

use axum::{
    http::{
        HeaderValue, StatusCode,
        header::{RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use esl_core::storage::{StorageError, StorageErrorKind};
use serde::Serialize;

use super::not_stored;
use crate::api::{answer, problem::Cause};

/// An answer that says what was wrong.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: ErrorCode,
    detail: Cow<'static, str>,
    /// In seconds.
    retry_after: Option<u64>,
    cause: Option<Cause>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum ErrorCode {
    InvalidRequest,
    InvalidClient,
    InvalidGrant,
    UnsupportedGrantType,
    InvalidScope,
    /// Not the RFC's for these routes, which has no name for it, but its own for the one beside them.
    TemporarilyUnavailable,
    /// The same, because the client has failed too often.
    Slowed,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), retry_after: None, cause: None }
    }

    /// 429, with a word on when to come back.
    pub(super) fn slowed(wait: Duration) -> Self {
        let detail = "too many attempts have failed; the secret was not looked at";
        // A part of a second counts as one: whoever comes back in time is not refused again.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self { retry_after: Some(seconds), ..Self::new(ErrorCode::Slowed, detail) }
    }

    /// The same for a client that does not exist.
    pub(super) fn not_proven() -> Self {
        Self::new(ErrorCode::InvalidClient, "no client has this id and secret")
    }
}

impl From<StorageError> for Refusal {
    fn from(error: StorageError) -> Self {
        // The client was deleted, or its secret rotated, since it proved itself.
        if error.kind() == StorageErrorKind::NotFound {
            return Self::not_proven();
        }
        let (cause, retry_after) = (Some(Cause::of(&error)), Some(5));
        let detail = "storage is not available";
        Self { cause, retry_after, ..Self::new(ErrorCode::TemporarilyUnavailable, detail) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct View<'a> {
            error: &'static str,
            error_description: &'a str,
        }

        let (status, error) = match self.code {
            ErrorCode::InvalidRequest => (StatusCode::BAD_REQUEST, "invalid_request"),
            ErrorCode::InvalidClient => (StatusCode::UNAUTHORIZED, "invalid_client"),
            ErrorCode::InvalidGrant => (StatusCode::BAD_REQUEST, "invalid_grant"),
            ErrorCode::UnsupportedGrantType => (StatusCode::BAD_REQUEST, "unsupported_grant_type"),
            ErrorCode::InvalidScope => (StatusCode::BAD_REQUEST, "invalid_scope"),
            ErrorCode::TemporarilyUnavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable")
            }
            ErrorCode::Slowed => (StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable"),
        };
        let view = View { error, error_description: &self.detail };
        let mut response = not_stored(answer(status, &view));
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(r#"Basic realm="esl""#));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(cause);
        }
        response
    }
}
