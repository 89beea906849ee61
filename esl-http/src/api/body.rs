//! Reading bodies, in bounded space and time.

use std::borrow::Cow;

use axum::{
    body::{Body, HttpBody},
    extract::{FromRequest, Request},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method,
        header::{CONTENT_ENCODING, CONTENT_TYPE},
    },
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
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?").trim());
    let refuse = |detail: Cow<'static, str>| Err(Problem::new(Code::UnsupportedMediaType, detail));
    if text(CONTENT_ENCODING).is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return refuse("a body is taken as it is, without Content-Encoding".into());
    }
    let media_type = text(CONTENT_TYPE).unwrap_or("");
    let (media_type, parameters) = media_type.split_once(';').unwrap_or((media_type, ""));
    let media_type = media_type.trim_end();
    let Some(media_type) = taken.iter().find(|one| media_type.eq_ignore_ascii_case(one)) else {
        return refuse(format!("expected Content-Type: {}", taken.join(" or ")).into());
    };
    if Parameters(parameters)
        .any(|(name, value)| name.eq_ignore_ascii_case("charset") && !is_utf_8(value))
    {
        return refuse("a body is in UTF-8: expected charset=utf-8, or none".into());
    }
    Ok(media_type)
}

fn is_utf_8(value: &str) -> bool {
    let Some(quoted) = value.strip_prefix('"') else { return value.eq_ignore_ascii_case("utf-8") };
    // A backslash within quotes says that the next character is meant as it is.
    let text = quoted.strip_suffix('"').map(|text| text.replace('\\', ""));
    text.is_some_and(|text| text.eq_ignore_ascii_case("utf-8"))
}

/// The parameters of a media type (RFC 9110, section 5.6.6), each a name and its value as it is
/// written. What has no value is none.
struct Parameters<'a>(&'a str);

impl<'a> Iterator for Parameters<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.0.is_empty() {
            let (parameter, rest) = self.0.split_at(end_of_parameter(self.0));
            self.0 = rest.strip_prefix(';').unwrap_or(rest);
            if let Some((name, value)) = parameter.split_once('=') {
                return Some((name.trim(), value.trim()));
            }
        }
        None
    }
}

/// Where the first semicolon is that is not within quotes, or the end.
fn end_of_parameter(text: &str) -> usize {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let end = text.bytes().position(|byte| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_quoted,
            b'"' => is_quoted = !is_quoted,
            b';' => return !is_quoted,
            _ => {}
        }
        false
    });
    end.unwrap_or(text.len())
}

pub(super) const JSON: &str = "application/json";
/// RFC 5789, section 2.2: what a PATCH may be written in.
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
