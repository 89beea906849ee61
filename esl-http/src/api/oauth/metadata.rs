//! `GET /.well-known/oauth-authorization-server`: where all this is (RFC 8414).

use axum::{
    extract::State,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use esl_core::Scope;
use serde::Serialize;
use url::Url;

use crate::api::{Api, answer, problem::no_route};

/// `GET /.well-known/oauth-authorization-server`
pub(crate) async fn metadata(State(api): State<Api>) -> Response {
    answer(StatusCode::OK, &Metadata::of(api.esl.public_url()))
}

/// The same behind [`Metadata::PATH`], where clients look for it if the issuer has a path.
pub(crate) async fn metadata_of_issuer(State(api): State<Api>, uri: Uri) -> Response {
    let issuer = api.esl.public_url();
    match Metadata::path_of(issuer) {
        Some(path) if path == uri.path() => answer(StatusCode::OK, &Metadata::of(issuer)),
        _ => no_route().await.into_response(),
    }
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
    /// All that is below it. A path of the operator's own may have what a router takes for a pattern,
    /// or refuses, so it is compared and not routed.
    pub(crate) const PATHS: &'static str = "/.well-known/oauth-authorization-server/{*issuer}";

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
        (!path.is_empty()).then(|| format!("{}{path}", Self::PATH))
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
