use axum::{
    body::Body,
    http::{HeaderMap, header::CONTENT_TYPE},
};
use url::form_urlencoded;

use super::refusal::{ErrorCode, Refusal};
use crate::api::{Api, body};

/// The request's form.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    pub(super) async fn read(headers: &HeaderMap, body: Body, api: &Api) -> Result<Self, Refusal> {
        let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.and_then(|text| text.split(';').next()).unwrap_or_default();
        if !media_type.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            let detail = "expected Content-Type: application/x-www-form-urlencoded";
            return Err(Refusal::new(ErrorCode::InvalidRequest, detail));
        }
        let body = body::read(body, body::SMALL, api).await.map_err(|_| {
            let detail = "the form is too large, or did not arrive whole and in time";
            Refusal::new(ErrorCode::InvalidRequest, detail)
        })?;
        // A parameter without a value counts as left out (RFC 6749, section 3.2).
        let pairs = form_urlencoded::parse(&body).into_owned();
        Ok(Self(pairs.filter(|(_, value)| !value.is_empty()).collect()))
    }

    /// A parameter that must not be repeated. What is not asked for is ignored, as the RFC wants.
    pub(super) fn get(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| &**value);
        let value = values.next();
        match values.next() {
            None => Ok(value),
            Some(_) => {
                let detail = format!("{name} stands there more than once");
                Err(Refusal::new(ErrorCode::InvalidRequest, detail))
            }
        }
    }

    /// The same, where it must be there.
    pub(super) fn demand(&self, name: &str) -> Result<&str, Refusal> {
        let missing = || Refusal::new(ErrorCode::InvalidRequest, format!("{name} is missing"));
        self.get(name)?.ok_or_else(missing)
    }
}
