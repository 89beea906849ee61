//! `/api/v1/blobs`: data that is too large to go inline, by token or by a signed link.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequestParts, Request, State},
    http::{
        HeaderName, HeaderValue, Method, StatusCode,
        header::{
            ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
            LOCATION, X_CONTENT_TYPE_OPTIONS,
        },
        request::Parts,
    },
    response::Response,
};
use esl_core::{BlobError, BlobKey, BlobStore, EventId, LinkError, OrganizationId, data_ref};

use super::{
    Api,
    auth::{Authorized, MayRead, Permission},
    conditional::{Wanted, wanted},
    page::Parameters,
    path::Id,
    problem::{Code, Problem},
    routes::{Access, Guard},
};

/// `GET` and `HEAD /api/v1/blobs/{event_id}`
pub(super) async fn one(
    State(api): State<Api>,
    Opened(organization): Opened,
    Id(event): Id<EventId>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let not_found = || Problem::not_found("blob");
    let stored = api.esl.storage().event(organization, event).await?.ok_or_else(not_found)?;
    let (reference, _) = data_ref(&stored.body).ok_or_else(not_found)?;
    let key = BlobKey::named_by(&stored.body).ok_or_else(not_found)?;
    let Some(store) = api.esl.blobs() else { return Err(missing(key)) };

    // Before the preconditions: they are the store's to go by (RFC 9110, section 13.2.1). Its links
    // are signed for GET alone.
    if api.config.blob_redirect
        && parts.method == Method::GET
        && let Some(link) = presigned(&api, &**store, key).await?
    {
        return redirect(link);
    }

    let (size, etag) = (reference.size_bytes, format!("\"{}\"", reference.checksum));
    let wanted = wanted(&parts.method, &parts.headers, &etag, size);
    let has_body = parts.method == Method::GET;
    let read = match &wanted {
        Wanted::Whole if has_body => 0..size,
        Wanted::Part(range) if has_body => range.clone(),
        // What the store has lost is lost, whatever was asked. One byte tells.
        Wanted::Whole
        | Wanted::Part(_)
        | Wanted::NotModified
        | Wanted::PreconditionFailed
        | Wanted::NotSatisfiable => 0..size.min(1),
    };
    let stream = store.read(key, read).await.map_err(|error| unavailable(&error))?;
    let Some(stream) = stream else {
        // An event that was removed or erased meanwhile has lost nothing: its data goes after it.
        let stored = api.esl.storage().event(organization, event).await?.ok_or_else(not_found)?;
        let is_named = BlobKey::named_by(&stored.body) == Some(key);
        return Err(if is_named { missing(key) } else { not_found() });
    };

    let (status, range) = match wanted {
        Wanted::Whole => (StatusCode::OK, 0..size),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::NotModified => return Ok(bare(StatusCode::NOT_MODIFIED, &etag)),
        Wanted::PreconditionFailed => return Err(precondition_failed()),
        Wanted::NotSatisfiable => return Err(not_satisfiable(size)),
    };
    let mut response = bare(status, &etag);
    insert(&mut response, CONTENT_TYPE, "application/json");
    insert(&mut response, CONTENT_LENGTH, &(range.end - range.start).to_string());
    if status == StatusCode::PARTIAL_CONTENT {
        let last = range.end - 1;
        insert(&mut response, CONTENT_RANGE, &format!("bytes {}-{last}/{size}", range.start));
    }
    if has_body {
        *response.body_mut() = Body::from_stream(stream);
    }
    Ok(response)
}

/// Whose event the request may read the data of: a link says so by itself, whatever `Authorization`
/// says.
#[derive(Debug)]
pub(super) struct Opened(OrganizationId);

impl Guard for Opened {
    const ACCESS: Access = Access::LinkOrToken(MayRead::ANY_OF);
}

impl FromRequestParts<Api> for Opened {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let mut parameters = Parameters::from_request_parts(parts, api).await?;
        let mut text = |name| parameters.take(name, |text| Ok(text.to_owned()));
        let organization = match (text("exp"), text("sig")) {
            (None, None) => {
                Authorized::<MayRead>::from_request_parts(parts, api).await?.organization
            }
            // Half a link is one that was cut off.
            (exp, sig) => {
                let forbidden =
                    |error: LinkError| Problem::new(Code::LinkRefused, error.to_string());
                let Id(event) = Id::<EventId>::from_request_parts(parts, api).await?;
                let exp = exp.and_then(|exp| exp.parse().ok());
                let (exp, sig) = exp.zip(sig).ok_or_else(|| forbidden(LinkError::NotGenuine))?;
                api.esl.check_link(event, exp, &sig).await.map_err(forbidden)?
            }
        };
        parameters.finish()?;
        Ok(Self(organization))
    }
}

async fn presigned(
    api: &Api,
    store: &dyn BlobStore,
    key: BlobKey,
) -> Result<Option<String>, Problem> {
    let expires_at = api.esl.now() + REDIRECT_LIFETIME;
    store.presigned(key, expires_at).await.map_err(|error| unavailable(&error))
}

/// The link to the store is for this reader, and for a while.
fn redirect(link: String) -> Result<Response, Problem> {
    let link = HeaderValue::try_from(link).map_err(|error| Problem::internal(&error))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::FOUND;
    response.headers_mut().insert(LOCATION, link);
    insert(&mut response, CACHE_CONTROL, "no-store");
    Ok(response)
}

/// An answer without a body, and with what all answers about a version have.
fn bare(status: StatusCode, etag: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    for (name, value) in [
        (ACCEPT_RANGES, "bytes"),
        (CACHE_CONTROL, "private"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (ETAG, etag),
    ] {
        insert(&mut response, name, value);
    }
    response
}

fn insert(response: &mut Response, name: HeaderName, text: &str) {
    response.headers_mut().insert(name, value(text));
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("checksums and numbers are ASCII")
}

fn precondition_failed() -> Problem {
    Problem::new(Code::PreconditionFailed, "If-Match names another version than there is")
}

fn not_satisfiable(size: u64) -> Problem {
    let detail = format!("there is nothing in this range; the blob has {size} bytes");
    let problem = Problem::new(Code::RangeNotSatisfiable, detail);
    problem.with_header(CONTENT_RANGE, value(&format!("bytes */{size}")))
}

/// A fault of this side, which an operator must learn of: the event is there, and its data is not.
fn missing(key: BlobKey) -> Problem {
    let detail = "there is such an event, but its data is not in the store for large payloads";
    Problem::new(Code::BlobMissing, detail).with_cause(&Missing { key })
}

#[derive(Debug, thiserror::Error)]
#[error("the data of event {} is not in the store: {key}", key.event)]
struct Missing {
    key: BlobKey,
}

fn unavailable(error: &BlobError) -> Problem {
    Problem::unavailable("the store for large payloads is not available", 5).with_cause(error)
}

/// A link to the store itself lasts as long as a reader needs to follow it.
const REDIRECT_LIFETIME: Duration = Duration::from_secs(15 * 60);
