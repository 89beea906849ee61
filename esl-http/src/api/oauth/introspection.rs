//! `POST /oauth/introspect`: what a token of the organization is good for (RFC 7662).

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use esl_core::{Digest, Token, TokenKind};
use serde::Serialize;

use super::{Asking, not_stored, refusal::Refusal};
use crate::api::{Api, answer, request::Context};

/// `POST /oauth/introspect`
pub(crate) async fn introspect(
    State(api): State<Api>,
    context: Context,
    request: Request,
) -> Result<Response, Refusal> {
    let asking = Asking::read(request, &api).await?;
    let client = asking.client(&context, &api).await?;
    let digest = Digest::of(asking.form.demand("token")?.as_bytes());
    let found = api.esl.storage().token(&digest).await?;
    let token = found.filter(|token| token.organization == client.organization);
    let view = match &token {
        Some(token) => answer(StatusCode::OK, &View::of(token, &api)),
        None => answer(StatusCode::OK, &Inactive { active: false }),
    };
    Ok(not_stored(view))
}

#[derive(Serialize)]
struct View<'a> {
    active: bool,
    scope: String,
    client_id: &'a str,
    /// A refresh token has none, so that nobody takes it for one that opens something.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    exp: u64,
    iss: &'a str,
}

impl<'a> View<'a> {
    fn of(token: &'a Token, api: &'a Api) -> Self {
        Self {
            active: true,
            scope: token.scopes.to_string(),
            client_id: &token.client,
            token_type: (token.kind == TokenKind::Access).then_some("Bearer"),
            exp: token.expires_at.as_millis_u64() / 1000,
            iss: api.esl.public_url(),
        }
    }
}

/// Nothing more, whatever the reason (section 2.2).
#[derive(Serialize)]
struct Inactive {
    active: bool,
}
