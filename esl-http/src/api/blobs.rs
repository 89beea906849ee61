//! `/api/v1/blobs`: data that is too large to go inline, by token or by a signed link.

use std::{ops::Range, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequestParts, Request, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{
            ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
            IF_NONE_MATCH, IF_RANGE, LOCATION, RANGE, X_CONTENT_TYPE_OPTIONS,
        },
        request::Parts,
    },
    response::Response,
};
use esl_core::{BlobKey, BlobStore, DataRef, EventId, LinkError, OrganizationId, data_ref};
use url::form_urlencoded;

use super::{
    Api,
    auth::{Authorized, MayRead},
    page::NoParameters,
    path::Id,
    problem::{Code, Problem},
};

/// `GET` and `HEAD /api/v1/blobs/{event_id}`
pub(super) async fn one(
    State(api): State<Api>,
    Id(event): Id<EventId>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    let organization = opened(&api, event, &mut parts).await?;
    let not_found = || Problem::not_found("blob");
    let stored = api.esl.storage().event(organization, event).await?.ok_or_else(not_found)?;
    let (reference, _) = data_ref(&stored.body).ok_or_else(not_found)?;
    let key = BlobKey::named_by(&stored.body).ok_or_else(not_found)?;
    let store = api.esl.blobs().ok_or_else(not_found)?;
    let etag = format!("\"{}\"", reference.checksum);

    if matches_etag(&parts.headers, IF_NONE_MATCH, &etag) {
        return Ok(bare(StatusCode::NOT_MODIFIED, &etag));
    }
    if api.config.blob_redirect
        && let Some(link) = presigned(&api, &**store, key).await?
    {
        let mut response = bare(StatusCode::FOUND, &etag);
        let link = HeaderValue::try_from(link).map_err(|error| Problem::internal(&error))?;
        response.headers_mut().insert(LOCATION, link);
        // The link to the store is for this reader, and for a while.
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return Ok(response);
    }
    let size = reference.size_bytes;
    let Some(part) = part(&parts.headers, &reference, &etag) else {
        let mut response = bare(StatusCode::RANGE_NOT_SATISFIABLE, &etag);
        insert(&mut response, CONTENT_RANGE, &format!("bytes */{size}"));
        return Ok(response);
    };
    let (status, range) = match part {
        Some(range) => (StatusCode::PARTIAL_CONTENT, range),
        None => (StatusCode::OK, 0..size),
    };
    let body = if parts.method == Method::HEAD {
        Body::empty()
    } else {
        let stream = store.read(key, range.clone()).await.map_err(|error| unavailable(&error))?;
        Body::from_stream(stream.ok_or_else(not_found)?)
    };
    let mut response = bare(status, &etag);
    if status == StatusCode::PARTIAL_CONTENT {
        let last = range.end.saturating_sub(1);
        insert(&mut response, CONTENT_RANGE, &format!("bytes {}-{last}/{size}", range.start));
    }
    insert(&mut response, CONTENT_LENGTH, &(range.end - range.start).to_string());
    *response.body_mut() = body;
    Ok(response)
}

/// Whose event the request may read the data of: a link says so by itself, whatever `Authorization`
/// says.
async fn opened(api: &Api, event: EventId, parts: &mut Parts) -> Result<OrganizationId, Problem> {
    let query = parts.uri.query().unwrap_or_default();
    let parameter = |name: &str| {
        let mut all = form_urlencoded::parse(query.as_bytes());
        all.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    };
    if let (Some(exp), Some(sig)) = (parameter("exp"), parameter("sig")) {
        let forbidden = |error: LinkError| Problem::new(Code::LinkRefused, error.to_string());
        let exp = exp.parse().map_err(|_| forbidden(LinkError::NotGenuine))?;
        return api.esl.check_link(event, exp, &sig).await.map_err(forbidden);
    }
    let caller = Authorized::<MayRead>::from_request_parts(parts, api).await?;
    NoParameters::from_request_parts(parts, api).await?;
    Ok(caller.organization)
}

async fn presigned(
    api: &Api,
    store: &dyn BlobStore,
    key: BlobKey,
) -> Result<Option<String>, Problem> {
    let expires_at = api.esl.now() + REDIRECT_LIFETIME;
    store.presigned(key, expires_at).await.map_err(|error| unavailable(&error))
}

/// What of the blob is wanted: `None` if that is nothing that there is, `Some(None)` for all of it.
fn part(headers: &HeaderMap, reference: &DataRef, etag: &str) -> Option<Option<Range<u64>>> {
    let Some(range) = headers.get(RANGE).and_then(|value| value.to_str().ok()) else {
        return Some(None);
    };
    // Another version is wanted whole.
    if headers.contains_key(IF_RANGE) && !matches_etag(headers, IF_RANGE, etag) {
        return Some(None);
    }
    read_range(range, reference.size_bytes)
}

/// RFC 9110, section 14.1.2: one range of bytes. Several, and what is no range of bytes, are answered
/// with everything, as the RFC allows.
fn read_range(text: &str, size: u64) -> Option<Option<Range<u64>>> {
    let Some(spec) = text.trim().strip_prefix("bytes=") else { return Some(None) };
    let Some((first, last)) = spec.split_once('-').filter(|_| !spec.contains(',')) else {
        return Some(None);
    };
    let number = |text: &str| match text.trim() {
        "" => Ok(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok(Some(digits.parse().unwrap_or(u64::MAX)))
        }
        _ => Err(()),
    };
    let (Ok(first), Ok(last)) = (number(first), number(last)) else { return Some(None) };
    let range = match (first, last) {
        (None, None) => return Some(None),
        (None, Some(suffix)) => size.saturating_sub(suffix)..size,
        (Some(first), None) => first..size,
        (Some(first), Some(last)) if last < first => return Some(None),
        (Some(first), Some(last)) => first..last.saturating_add(1).min(size),
    };
    (range.start < range.end).then_some(Some(range))
}

fn matches_etag(headers: &HeaderMap, name: axum::http::HeaderName, etag: &str) -> bool {
    let listed = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    listed.flat_map(|value| value.split(',')).any(|one| {
        let one = one.trim();
        one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag
    })
}

/// An answer without a body, and with what all answers here have.
fn bare(status: StatusCode, etag: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    for (name, value) in [
        (CONTENT_TYPE, "application/json"),
        (ACCEPT_RANGES, "bytes"),
        (CACHE_CONTROL, "private"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (ETAG, etag),
    ] {
        insert(&mut response, name, value);
    }
    response
}

fn insert(response: &mut Response, name: axum::http::HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("checksums and numbers are ASCII");
    response.headers_mut().insert(name, value);
}

fn unavailable(error: &esl_core::BlobError) -> Problem {
    Problem::unavailable("the store for large payloads is not available", 5).with_cause(error)
}

/// A link to the store itself lasts as long as a reader needs to follow it.
const REDIRECT_LIFETIME: Duration = Duration::from_secs(15 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_their_rfc_says() {
        for (text, expected) in [
            ("bytes=0-9", Some(Some(0..10))),
            ("bytes=90-", Some(Some(90..100))),
            ("bytes=-10", Some(Some(90..100))),
            ("bytes=-1000", Some(Some(0..100))),
            ("bytes=50-1000", Some(Some(50..100))),
            ("bytes=99-99", Some(Some(99..100))),
            ("bytes=100-", None),
            ("bytes=-0", None),
            ("bytes=99999999999999999999-", None),
            ("bytes=9-0", Some(None)),
            ("bytes=0-9,20-29", Some(None)),
            ("bytes=a-b", Some(None)),
            ("bytes=-", Some(None)),
            ("items=0-9", Some(None)),
            ("", Some(None)),
        ] {
            assert_eq!(read_range(text, 100), expected, "{text}");
        }
    }
}
