//! One request and its answer, as often as it takes.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use esl_core::retry_after;
use futures_util::future::BoxFuture;
use reqwest::{
    Method, StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderName, RETRY_AFTER},
};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::{ClientError, ClientErrorKind, Inner, tokens::AccessToken};

/// A request that can be sent any number of times.
pub(super) struct Prepared {
    /// The method and the path, for errors.
    pub(super) call: String,
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    pub(super) repeat: Repeat,
}

/// When a request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    Never,
    /// When it certainly was not done.
    WhenUndone,
    /// Also when it is not known whether it was done.
    WhenInDoubt,
}

/// An answer, whatever its status. Its `Debug` leaves out the body and what the headers say, which may be secret.
#[derive(Clone)]
pub struct Answer {
    call: String,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    tries: u32,
}

impl Inner {
    /// Asks with a token; one that is refused is changed for another, once.
    pub(super) async fn exchange(&self, request: &Prepared) -> Result<Answer, ClientError> {
        let token = self.tokens.current(self).await?;
        self.repeat(request, Some(token)).await
    }

    /// Asks without a token. Boxed, because tokens are asked for in the middle of asking with one.
    pub(super) fn exchange_open<'a>(
        &'a self,
        request: &'a Prepared,
    ) -> BoxFuture<'a, Result<Answer, ClientError>> {
        Box::pin(self.repeat(request, None))
    }

    async fn repeat(
        &self,
        request: &Prepared,
        mut token: Option<Arc<AccessToken>>,
    ) -> Result<Answer, ClientError> {
        let (mut tried, mut is_renewed) = (0, false);
        loop {
            tried += 1;
            let result = self.once(request, token.as_deref()).await;
            if let (Ok(answer), Some(refused), false) = (&result, &token, is_renewed)
                && answer.status == StatusCode::UNAUTHORIZED
                && let Some(another) = self.tokens.instead_of(refused, self).await?
            {
                (token, is_renewed) = (Some(another), true);
                continue;
            }
            let (kind, retry_after) = match &result {
                Ok(answer) if answer.status.as_u16() < 400 => (None, None),
                Ok(answer) => {
                    let kind = ClientErrorKind::of_status(answer.status.as_u16());
                    (Some(kind), answer.retry_after())
                }
                Err(error) => (Some(error.kind()), None),
            };
            let wait = kind.and_then(|kind| {
                let draw = fastrand::f64();
                self.retries.wait(tried, kind, request.repeat, retry_after, draw)
            });
            let (Some(wait), Some(kind)) = (wait, kind) else {
                return match result {
                    Ok(answer) => Ok(Answer { tries: tried, ..answer }),
                    Err(error) => Err(error.with_tries(tried)),
                };
            };
            tracing::debug!(call = request.call, tried, %kind, ?wait, "trying again");
            tokio::time::sleep(wait).await;
            if token.is_some() {
                // It may have expired meanwhile.
                token = Some(self.tokens.current(self).await?);
            }
        }
    }

    /// Asks once.
    pub(super) async fn once(
        &self,
        request: &Prepared,
        token: Option<&AccessToken>,
    ) -> Result<Answer, ClientError> {
        let failed = |error| ClientError::transport(&request.call, error);
        let mut builder = self
            .http
            .request(request.method.clone(), &request.url)
            .headers(request.headers.clone());
        if let Some(token) = token {
            builder = builder.header(AUTHORIZATION, token.header()?);
        }
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        let mut response = builder.send().await.map_err(failed)?;
        let too_large = || {
            let detail = format!("it has more than {ANSWER_BYTES_MAX} bytes");
            ClientError::new(ClientErrorKind::TooLarge, &request.call).with_detail(detail)
        };
        // Told before, it need not be read to the bound.
        if response.content_length().is_some_and(|length| length > ANSWER_BYTES_MAX as u64) {
            return Err(too_large());
        }
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            call: request.call.clone(),
            status: response.status(),
            headers: response.headers().clone(),
            body: Bytes::from_owner(body),
            tries: 1,
        })
    }
}

impl Answer {
    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// A header that is text and stands there.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Its body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Its body, read as JSON; an empty one is `null`.
    ///
    /// # Errors
    /// [`Unexpected`](ClientErrorKind::Unexpected) if it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        let body: &[u8] = if self.body.is_empty() { b"null" } else { &self.body };
        serde_json::from_slice(body).map_err(|error| {
            // Where it went wrong, but not what stands there: that may be a secret.
            let (line, column) = (error.line(), error.column());
            let detail = format!("line {line}, column {column} is not what was expected");
            self.error(ClientErrorKind::Unexpected).with_detail(detail)
        })
    }

    /// Itself if it is a success, and otherwise what it says as an error.
    ///
    /// # Errors
    /// Of the kind that the status stands for.
    pub fn successful(self) -> Result<Self, ClientError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let status = self.status.as_u16();
        let error = self.error(ClientErrorKind::of_status(status));
        Err(match status {
            300..=399 => error.with_detail("redirects are not followed"),
            _ => error,
        })
    }

    fn error(&self, kind: ClientErrorKind) -> ClientError {
        let request_id = self.header("x-request-id").map(str::to_owned);
        // A success says nothing of an error, and may show a secret.
        let body: &[u8] = if self.status.is_success() { b"" } else { &self.body };
        ClientError::new(kind, &self.call)
            .with_answer(self.status.as_u16(), request_id, self.retry_after(), body)
            .with_tries(self.tries)
    }

    fn retry_after(&self) -> Option<Duration> {
        let now = DateTime::<Utc>::from(SystemTime::now()).into();
        self.header(RETRY_AFTER.as_str()).and_then(|text| retry_after(text, now))
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A `Location`, for instance, may be a signed link.
        let headers: Vec<_> = self.headers.keys().map(HeaderName::as_str).collect();
        f.debug_struct("Answer")
            .field("call", &self.call)
            .field("status", &self.status)
            .field("headers", &headers)
            .field("tries", &self.tries)
            .finish_non_exhaustive()
    }
}

/// What an answer may have at most. A page of a list that has more is read with a smaller limit.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
