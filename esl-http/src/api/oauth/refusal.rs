//! Errors in OAuth's own shape (RFC 6749, section 5.2).

use std::borrow::Cow;

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
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), cause: None }
    }

    /// The same for a client that does not exist.
    pub(super) fn not_proven() -> Self {
        Self::new(ErrorCode::InvalidClient, "no client has this id and secret")
    }
}

impl From<StorageError> for Refusal {
    fn from(error: StorageError) -> Self {
        // The client was deleted since it proved itself.
        if error.kind() == StorageErrorKind::NotFound {
            return Self::not_proven();
        }
        let cause = Some(Cause::of(&error));
        Self { cause, ..Self::new(ErrorCode::TemporarilyUnavailable, "storage is not available") }
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
        };
        let view = View { error, error_description: &self.detail };
        let mut response = not_stored(answer(status, &view));
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(r#"Basic realm="esl""#));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(cause);
        }
        response
    }
}
