//! Reading bodies, in bounded space and time.

use axum::{
    body::{Body, HttpBody},
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method},
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use super::{
    Api,
    fault::Faults,
    json,
    problem::{Code, Problem},
};
use crate::media_type::{self, JSON};

/// The largest body of a route that does not publish.
pub(super) const SMALL: usize = 64 * 1024;

/// A body that says it is JSON, at most `BYTES_MAX` bytes, not parsed yet.
#[derive(Debug)]
pub(super) struct JsonBody<const BYTES_MAX: usize>(pub(super) Bytes);

impl<const BYTES_MAX: usize> FromRequest<Api> for JsonBody<BYTES_MAX> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let accept_patch = (*request.method() == Method::PATCH).then_some(JSON);
        let (_, body) = read_as(request, &[JSON], accept_patch, BYTES_MAX, api).await?;
        Ok(Self(body))
    }
}

/// The same where every member may be left out: no body at all, whatever its type is said to be, is
/// an object without members.
#[derive(Debug)]
pub(super) struct OptionalJsonBody<const BYTES_MAX: usize>(pub(super) Bytes);

impl<const BYTES_MAX: usize> FromRequest<Api> for OptionalJsonBody<BYTES_MAX> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let body = read(body, BYTES_MAX, api).await?;
        if body.is_empty() {
            return Ok(Self(Bytes::from_static(b"{}")));
        }
        media_type(&parts.headers, &[JSON])?;
        Ok(Self(body))
    }
}

/// A route that takes no body, or one that says nothing.
#[derive(Debug)]
pub(super) struct NoBody;

impl FromRequest<Api> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let body = read(request.into_body(), SMALL, api).await?;
        if !body.is_empty() {
            let mut faults = Faults::default();
            json::object(&body)?.finish("", &[], &mut faults);
            faults.check()?;
        }
        Ok(Self)
    }
}

/// Reads a body that is said to be of one of these kinds of JSON, of which a refusal names those that a
/// `PATCH` may be written in.
pub(super) async fn read_as(
    request: Request,
    taken: &[&'static str],
    accept_patch: Option<&'static str>,
    bytes_max: usize,
    api: &Api,
) -> Result<(&'static str, Bytes), Problem> {
    let (parts, body) = request.into_parts();
    match media_type(&parts.headers, taken) {
        Ok(media_type) => Ok((media_type, read(body, bytes_max, api).await?)),
        Err(refused) => {
            // Once it is read, the connection can take the next request. A large one is not worth that.
            if body.size_hint().upper().is_some_and(|bytes| bytes <= SMALL as u64) {
                _ = read(body, SMALL, api).await;
            }
            Err(match accept_patch {
                Some(accepted) => {
                    refused.with_header(ACCEPT_PATCH, HeaderValue::from_static(accepted))
                }
                None => refused,
            })
        }
    }
}

/// Reads a body to its end, in bounded space and time.
pub(super) async fn read(body: Body, bytes_max: usize, api: &Api) -> Result<Bytes, Problem> {
    let too_large =
        || Problem::new(Code::TooLarge, format!("a body here has at most {bytes_max} bytes"));
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    match timeout(api.config.body_timeout, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(Code::Malformed, "the body broke off")),
        Err(_) => Err(Problem::new(Code::BodyTimeout, "the body took too long to arrive")),
    }
}

/// Which of these kinds of JSON the body is said to be.
fn media_type(headers: &HeaderMap, taken: &[&'static str]) -> Result<&'static str, Problem> {
    media_type::of(headers, taken)
        .map_err(|detail| Problem::new(Code::UnsupportedMediaType, detail))
}

/// RFC 5789, section 2.2: what a PATCH may be written in.
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
