//! How much an organization may publish, and how much is left of it (SPEC.md, "Rate Limiting").

use std::time::Duration;

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header::RETRY_AFTER},
    response::Response,
};
use esl_core::{Hour, OrganizationId};
use tokio::time::timeout;

use super::Api;

/// Adds the documented headers to an answer to an organization that has a limit; to a 429 also
/// `Retry-After`.
pub(super) async fn tell(api: &Api, organization: OrganizationId, response: &mut Response) {
    let is_over_limit = response.status() == StatusCode::TOO_MANY_REQUESTS;
    // The answer itself does not wait for a storage that is not well.
    let standing = timeout(PATIENCE, api.esl.standing(organization)).await;
    let standing = standing.ok().and_then(Result::ok).flatten();
    // Whoever is turned away has to know for how long, whatever else is known.
    let hour = standing.map_or_else(|| Hour::of(api.esl.now()), |standing| standing.usage.hour);
    let headers = response.headers_mut();
    if is_over_limit {
        let wait = hour.end().since(api.esl.now()).as_millis().div_ceil(1000).max(1);
        let wait = u64::try_from(wait).unwrap_or(u64::MAX);
        headers.insert(RETRY_AFTER, HeaderValue::from(wait));
    }
    let Some(standing) = standing else { return };
    let (Some(limit), Some(remaining)) =
        (standing.allowance.events_per_hour.get(), standing.remaining())
    else {
        return;
    };
    headers.insert(X_RATELIMIT_LIMIT, HeaderValue::from(limit));
    headers.insert(X_RATELIMIT_REMAINING, HeaderValue::from(remaining));
    headers.insert(X_RATELIMIT_RESET, HeaderValue::from(hour.end().as_millis_u64() / 1000));
}

const PATIENCE: Duration = Duration::from_secs(1);
const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
