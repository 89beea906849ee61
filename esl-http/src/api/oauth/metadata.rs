//! `GET /.well-known/oauth-authorization-server`: where all this is (RFC 8414).

use axum::{extract::State, http::StatusCode, response::Response};
use esl_core::Scope;
use serde::Serialize;
use url::Url;

use crate::api::{Api, answer};

/// `GET /.well-known/oauth-authorization-server`
pub(crate) async fn metadata(State(api): State<Api>) -> Response {
    answer(StatusCode::OK, &Metadata::of(api.esl.public_url()))
}

/// What clients configure themselves with.
#[derive(Serialize)]
pub(crate) struct Metadata<'a> {
    issuer: &'a str,
    token_endpoint: String,
    revocation_endpoint: String,
    introspection_endpoint: String,
    token_endpoint_auth_methods_supported: [&'static str; 2],
    revocation_endpoint_auth_methods_supported: [&'static str; 2],
    introspection_endpoint_auth_methods_supported: [&'static str; 2],
    grant_types_supported: [&'static str; 2],
    /// Required, although there is no authorization endpoint that it would be about.
    response_types_supported: [&'static str; 0],
    scopes_supported: Vec<&'static str>,
}

impl<'a> Metadata<'a> {
    pub(crate) const PATH: &'static str = "/.well-known/oauth-authorization-server";

    fn of(issuer: &'a str) -> Self {
        Self {
            issuer,
            token_endpoint: format!("{issuer}/oauth/token"),
            revocation_endpoint: format!("{issuer}/oauth/revoke"),
            introspection_endpoint: format!("{issuer}/oauth/introspect"),
            token_endpoint_auth_methods_supported: AUTHENTICATION,
            revocation_endpoint_auth_methods_supported: AUTHENTICATION,
            introspection_endpoint_auth_methods_supported: AUTHENTICATION,
            grant_types_supported: ["client_credentials", "refresh_token"],
            response_types_supported: [],
            scopes_supported: Scope::ALL.iter().map(|scope| scope.as_str()).collect(),
        }
    }

    /// Where clients look for it besides, if the issuer has a path: behind the well-known part, at
    /// the root of the host (section 3.1).
    pub(crate) fn path_of(issuer: &str) -> Option<String> {
        let url = Url::parse(issuer).ok()?;
        let path = url.path().trim_end_matches('/');
        // A router would take these for patterns.
        let is_plain = !path.contains(['{', '}']);
        (is_plain && !path.is_empty()).then(|| format!("{}{path}", Self::PATH))
    }
}

/// In the order of preference.
const AUTHENTICATION: [&str; 2] = ["client_secret_basic", "client_secret_post"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuers_path_goes_behind_the_well_known_part() {
        for (issuer, path) in [
            ("https://esl.example.com", None),
            ("https://esl.example.com/", None),
            ("https://example.com/esl", Some("/.well-known/oauth-authorization-server/esl")),
            ("https://example.com/a/b/", Some("/.well-known/oauth-authorization-server/a/b")),
            ("nonsense", None),
        ] {
            assert_eq!(Metadata::path_of(issuer).as_deref(), path, "{issuer}");
        }
    }
}
