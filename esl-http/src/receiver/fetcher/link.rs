//! Going where a reference leads.

use esl_core::{AttemptError, Failure};
use http_body_util::{BodyExt as _, Limited};
use hyper::{
    Response, StatusCode, Uri,
    body::Incoming,
    header::{HeaderMap, LOCATION},
};
use serde::Deserialize;
use url::Url;

use super::super::FetchError;
use crate::transport::Getting;

/// The answer that has the data, if there is one behind the link.
pub(super) async fn follow(
    getting: &Getting,
    link: &str,
) -> Result<Response<Incoming>, FetchError> {
    let mut url = Url::parse(link).map_err(|_| FetchError::Unusable("it is no absolute URL"))?;
    for _ in 0..=REDIRECTS_MAX {
        let answer = getting.get(uri(&url)?).await.map_err(of_failure)?;
        match answer.status() {
            StatusCode::OK => return Ok(answer),
            StatusCode::FORBIDDEN => return Err(of_forbidden(answer).await),
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => url = elsewhere(&url, answer.headers())?,
            status => return Err(FetchError::Status(status.as_u16())),
        }
    }
    Err(FetchError::Unusable("it leads from one redirect to the next"))
}

/// What can be asked for. Whether it may be is decided where the connection is opened.
fn uri(url: &Url) -> Result<Uri, FetchError> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(FetchError::Unusable("it is neither https nor http"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(FetchError::Unusable("it has a user name or password"));
    }
    Uri::try_from(url.as_str())
        .map_err(|_| FetchError::Unusable("it cannot be asked for over HTTP"))
}

fn elsewhere(from: &Url, headers: &HeaderMap) -> Result<Url, FetchError> {
    let location = headers.get(LOCATION).and_then(|location| location.to_str().ok());
    location
        .and_then(|location| from.join(location).ok())
        .ok_or(FetchError::Unusable("it leads to a redirect that leads nowhere"))
}

fn of_failure(failure: Failure) -> FetchError {
    match failure.error {
        AttemptError::RefusedAddress => FetchError::Refused(failure.detail),
        AttemptError::Timeout => FetchError::Timeout,
        _ => FetchError::Unavailable(failure.detail.into()),
    }
}

/// ESL says in so many words that it is the link which it refuses; a store has words of its own.
async fn of_forbidden(answer: Response<Incoming>) -> FetchError {
    #[derive(Deserialize)]
    struct Problem {
        code: String,
    }
    let status = answer.status().as_u16();
    let Ok(body) = Limited::new(answer.into_body(), PROBLEM_BYTES_MAX).collect().await else {
        return FetchError::Status(status);
    };
    match serde_json::from_slice(&body.to_bytes()) {
        Ok(Problem { code }) if code == "link_refused" => FetchError::Expired,
        Ok(_) | Err(_) => FetchError::Status(status),
    }
}

const REDIRECTS_MAX: u32 = 3;
const PROBLEM_BYTES_MAX: usize = 16 * 1024;
