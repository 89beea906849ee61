//! Which requests are let through.

use std::borrow::Cow;

use axum_core::{
    BoxError,
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use esl_core::{Envelope, EventError, VerifyError};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tokio::time::timeout;

use super::{Received, Receiver, once::in_short};
use crate::media_type::{self, JSON};

/// Why a request is not let through.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("{0}")]
    MediaType(Cow<'static, str>),
    #[error("a body here has at most {0} bytes")]
    TooLarge(usize),
    #[error("the body took too long to arrive")]
    TooSlow,
    #[error("the body broke off")]
    BrokenOff,
    #[error(transparent)]
    NotGenuine(VerifyError),
    #[error(transparent)]
    Unreadable(EventError),
}

impl Receiver {
    /// Reads a request, and what it says if it is genuine.
    pub(super) async fn admit<B>(
        &self,
        request: Request<B>,
    ) -> Result<(Received, Request<Full<Bytes>>), Refused>
    where
        B: http_body::Body,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        media_type::of(&head.headers, &[JSON]).map_err(Refused::MediaType)?;
        let body = self.read(body).await?;
        let header = |name: &str| text(&head.headers, name);
        let verified = self.verifier.verify_now(header, &body).map_err(Refused::NotGenuine)?;
        let envelope = Envelope::from_slice(&body).map_err(Refused::Unreadable)?;
        let request = Request::from_parts(head, Full::new(body.clone()));
        Ok((Received { envelope, body, verified, fetch: self.fetch.clone() }, request))
    }

    /// Reads a body to its end, in bounded space and time.
    async fn read<B>(&self, body: B) -> Result<Bytes, Refused>
    where
        B: http_body::Body,
        B::Error: Into<BoxError>,
    {
        let bytes_max = self.body_bytes_max;
        if body.size_hint().lower() > bytes_max as u64 {
            return Err(Refused::TooLarge(bytes_max));
        }
        match timeout(self.body_timeout, Limited::new(body, bytes_max).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refused::TooLarge(bytes_max)),
            Ok(Err(_)) => Err(Refused::BrokenOff),
            Err(_) => Err(Refused::TooSlow),
        }
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

impl Refused {
    const fn status(&self) -> StatusCode {
        match self {
            Self::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::NotGenuine(_) => StatusCode::UNAUTHORIZED,
            Self::BrokenOff | Self::Unreadable(_) => StatusCode::BAD_REQUEST,
        }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let status = self.status();
        let text = match &self {
            // It is genuine: its sender may know why, and whoever receives has to.
            Self::Unreadable(error) => {
                let reason = in_short(error);
                tracing::warn!(reason, "a delivery is genuine and cannot be read");
                reason
            }
            Self::MediaType(_)
            | Self::TooLarge(_)
            | Self::TooSlow
            | Self::BrokenOff
            | Self::NotGenuine(_) => {
                tracing::debug!(status = status.as_u16(), reason = %self, "a delivery was refused");
                self.to_string()
            }
        };
        (status, text).into_response()
    }
}
