//! `POST /oauth/token`: tokens for a client, or for a refresh token that it has.

use std::time::Duration;

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use esl_core::{
    Client, Digest, NewToken, Rotated, Rotation, Scopes, Token, TokenFamily, TokenKind,
};
use serde::Serialize;

use super::{
    Asking, not_stored,
    refusal::{ErrorCode, Refusal},
};
use crate::api::{Api, answer, request::Context};

/// `POST /oauth/token`
pub(crate) async fn token(
    State(api): State<Api>,
    context: Context,
    request: Request,
) -> Result<Response, Refusal> {
    let asking = Asking::read(request, &api).await?;
    let grant = match asking.form.demand("grant_type")? {
        "client_credentials" => Grant::ClientCredentials,
        "refresh_token" => Grant::RefreshToken,
        _ => {
            let detail = "expected client_credentials or refresh_token";
            return Err(Refusal::new(ErrorCode::UnsupportedGrantType, detail));
        }
    };
    let client = asking.client(&context, &api).await?;
    let asked = asking.form.get("scope")?;
    let pair = match grant {
        Grant::ClientCredentials => issue(&client, narrowed(asked, client.scopes)?, &api).await?,
        Grant::RefreshToken => {
            renew(&client, asking.form.demand("refresh_token")?, asked, &api).await?
        }
    };
    Ok(not_stored(answer(StatusCode::OK, &pair)))
}

enum Grant {
    ClientCredentials,
    RefreshToken,
}

/// The first tokens of a grant.
async fn issue(client: &Client, scopes: Scopes, api: &Api) -> Result<View, Refusal> {
    let fresh = Fresh::mint(api);
    let family = TokenFamily::from_bytes(random());
    let token = |kind, NewToken { digest, expires_at }| Token {
        digest,
        kind,
        client: client.id.clone(),
        organization: client.organization,
        family,
        scopes,
        expires_at,
    };
    let access = token(TokenKind::Access, fresh.access.1);
    let refresh = token(TokenKind::Refresh, fresh.refresh.1);
    api.esl.storage().store_tokens(&client.secret, vec![access, refresh]).await?;
    Ok(fresh.view(scopes))
}

/// The next tokens of a grant (section 6), for a refresh token that is good once.
async fn renew(
    client: &Client,
    shown: &str,
    asked: Option<&str>,
    api: &Api,
) -> Result<View, Refusal> {
    let fresh = Fresh::mint(api);
    let rotation = Rotation {
        shown: Digest::of(shown.as_bytes()),
        client: client.id.clone(),
        organization: client.organization,
        scopes: asked.map(known).transpose()?,
        access: fresh.access.1,
        refresh: fresh.refresh.1,
    };
    match api.esl.storage().rotate_token(rotation).await? {
        Rotated::Renewed(renewed) => return Ok(fresh.view(renewed.access.scopes)),
        Rotated::Exceeds(granted) => return Err(exceeds(granted)),
        Rotated::Reused => {
            api.callers.forget(&client.id);
            tracing::warn!(
                client = client.id,
                organization = %client.organization,
                "a refresh token was used a second time, and its grant is revoked"
            );
        }
        Rotated::Unknown => {}
    }
    // The same for both: whoever has stolen one learns nothing of what became of it.
    let detail = "the refresh token is not one of this client's, or it has expired, been used or \
                  been revoked";
    Err(Refusal::new(ErrorCode::InvalidGrant, detail))
}

/// What was asked for, within what the client has; all of that when nothing was asked for.
fn narrowed(asked: Option<&str>, held: Scopes) -> Result<Scopes, Refusal> {
    let asked = asked.map(known).transpose()?.unwrap_or(held);
    if held.is_empty() || !held.cover(asked) { Err(exceeds(held)) } else { Ok(asked) }
}

/// The scopes that are named, at least one.
fn known(names: &str) -> Result<Scopes, Refusal> {
    let refuse = |detail| Err(Refusal::new(ErrorCode::InvalidScope, detail));
    match names.parse::<Scopes>() {
        Err(_) => refuse("one of the scopes does not exist"),
        Ok(named) if named.is_empty() => refuse("no scope was named"),
        Ok(named) => Ok(named),
    }
}

fn exceeds(held: Scopes) -> Refusal {
    let detail = match held.is_empty() {
        true => "there is no scope to be had".into(),
        false => format!("there is no more to be had than: {held}"),
    };
    Refusal::new(ErrorCode::InvalidScope, detail)
}

/// Two tokens that are yet to be granted: their texts, and what storage knows of them.
struct Fresh {
    access: (String, NewToken),
    refresh: (String, NewToken),
    lifetime: Duration,
}

impl Fresh {
    fn mint(api: &Api) -> Self {
        let now = api.esl.now();
        let token = |lifetime| {
            let text = random_token();
            let digest = Digest::of(text.as_bytes());
            (text, NewToken { digest, expires_at: now + lifetime })
        };
        let lifetime = api.config.access_token_lifetime;
        let refresh = token(api.config.refresh_token_lifetime);
        Self { access: token(lifetime), refresh, lifetime }
    }

    fn view(self, scopes: Scopes) -> View {
        View {
            access_token: self.access.0,
            token_type: "Bearer",
            expires_in: self.lifetime.as_secs(),
            refresh_token: self.refresh.0,
            scope: scopes.to_string(),
        }
    }
}

/// 256 random bits, as text that needs no escape anywhere.
fn random_token() -> String {
    URL_SAFE_NO_PAD.encode(random::<32>())
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has random bits");
    bytes
}

#[derive(Serialize)]
struct View {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    refresh_token: String,
    scope: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_narrowed_to_what_the_client_has() {
        let held: Scopes = "events:read events:publish".parse().expect("scopes");
        let admin: Scopes = "events:admin".parse().expect("a scope");
        for (asked, held, expected) in [
            (None, held, Some("events:read events:publish")),
            (Some("events:publish"), held, Some("events:publish")),
            (Some("events:read"), admin, Some("events:read")),
            (Some("events:subscribe"), held, None),
            (Some("events:everything"), held, None),
            (Some(" "), held, None),
            (None, Scopes::NONE, None),
        ] {
            let narrowed = narrowed(asked, held).ok().map(|scopes| scopes.to_string());
            assert_eq!(narrowed.as_deref(), expected, "{asked:?}");
        }
    }

    #[test]
    fn tokens_have_256_bits_and_differ() {
        let (a, b) = (random_token(), random_token());
        assert_eq!((a.len(), b.len()), (43, 43));
        assert_ne!(a, b);
    }
}
