//! `POST /oauth/token`: tokens for clients (RFC 6749), with the errors of its section 5.2.

use std::{borrow::Cow, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{
            AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE,
        },
    },
    response::{IntoResponse, Response},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use esl_core::{Client, Digest, Scopes, Token, TokenKind, storage::StorageError};
use serde::Serialize;
use url::form_urlencoded;

use super::{Api, answer, body, problem::Cause, request::Context};

/// `POST /oauth/token`
pub(super) async fn token(
    State(api): State<Api>,
    context: Context,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let form = Form::read(&head.headers, body, &api).await?;
    match form.get("grant_type")? {
        Some("client_credentials") => {}
        Some(_) => {
            return Err(Refusal::new(
                ErrorCode::UnsupportedGrantType,
                "expected client_credentials",
            ));
        }
        None => return Err(Refusal::new(ErrorCode::InvalidRequest, "grant_type is missing")),
    }
    let client = authenticate(&head.headers, &form, &api).await?;
    context.set_client(client.id.as_str().into());
    let scopes = narrowed(form.get("scope")?, client.scopes)?;
    let tokens = issue(&client, scopes, &api).await?;
    Ok(not_stored(answer(StatusCode::OK, &tokens)))
}

/// The client that proves itself in the form or by HTTP Basic (section 2.3.1).
///
/// A client that does not exist costs the same work as a wrong secret.
async fn authenticate(headers: &HeaderMap, form: &Form, api: &Api) -> Result<Client, Refusal> {
    let in_form = (form.get("client_id")?, form.get("client_secret")?);
    let (id, secret) = match (basic(headers)?, in_form) {
        (None, (Some(id), Some(secret))) => (Cow::from(id), Cow::from(secret)),
        (None, _) => {
            let detail = "expected client_id and client_secret, in the form or by HTTP Basic";
            return Err(Refusal::new(ErrorCode::InvalidClient, detail));
        }
        // The id may be repeated in the form, the proof may not.
        (Some((id, secret)), (form_id, None)) if form_id.is_none_or(|form_id| form_id == id) => {
            (Cow::from(id), Cow::from(secret))
        }
        (Some(_), _) => {
            let detail = "a client proves itself in the form or by HTTP Basic, not by both";
            return Err(Refusal::new(ErrorCode::InvalidRequest, detail));
        }
    };
    let client = match id.len() {
        0..=CLIENT_ID_BYTES_MAX => api.esl.storage().client(&id).await?,
        _ => None,
    };
    let expected = client.as_ref().map_or(Digest::from_bytes([0; 32]), |client| client.secret);
    let is_right = Digest::of(secret.as_bytes()).matches(&expected);
    client
        .filter(|_| is_right)
        .ok_or_else(|| Refusal::new(ErrorCode::InvalidClient, "no client has this id and secret"))
}

/// Id and secret of an `Authorization: Basic` header, each percent-decoded as the RFC wants.
fn basic(headers: &HeaderMap) -> Result<Option<(String, String)>, Refusal> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Ok(None);
    };
    let decoded = || {
        let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
        let pair = STANDARD.decode(encoded.trim_matches(' ')).ok()?;
        let (id, secret) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
        scheme.eq_ignore_ascii_case("basic").then(|| (form_decoded(id), form_decoded(secret)))
    };
    let detail = "expected Authorization: Basic with the base64 of id:secret";
    decoded().map(Some).ok_or_else(|| Refusal::new(ErrorCode::InvalidClient, detail))
}

fn form_decoded(text: &str) -> String {
    // As the value of a form's only field, in which `&` and `=` have no other meaning.
    let pair = format!("={}", text.replace('&', "%26"));
    let (_, value) = form_urlencoded::parse(pair.as_bytes()).next().expect("one pair was written");
    value.into_owned()
}

/// What was asked for, within what the client has; all of that when nothing was asked for.
fn narrowed(asked: Option<&str>, held: Scopes) -> Result<Scopes, Refusal> {
    let refuse = |detail: String| Err(Refusal::new(ErrorCode::InvalidScope, detail));
    match asked.map(str::parse::<Scopes>) {
        None if held.is_empty() => refuse("the client has no scope".into()),
        None => Ok(held),
        Some(Err(_)) => refuse("one of the scopes does not exist".into()),
        Some(Ok(asked)) if asked.is_empty() => refuse("no scope was named".into()),
        Some(Ok(asked)) if held.cover(asked) => Ok(asked),
        Some(Ok(_)) => refuse(format!("the client has only: {held}")),
    }
}

async fn issue(client: &Client, scopes: Scopes, api: &Api) -> Result<View, Refusal> {
    let now = api.esl.now();
    let mint = |kind, lifetime: Duration| {
        let text = random_token();
        let token = Token {
            digest: Digest::of(text.as_bytes()),
            kind,
            client: client.id.clone(),
            organization: client.organization,
            scopes,
            expires_at: now + lifetime,
        };
        (text, token)
    };
    let lifetime = api.config.access_token_lifetime;
    let (access_token, access) = mint(TokenKind::Access, lifetime);
    let (refresh_token, refresh) = mint(TokenKind::Refresh, api.config.refresh_token_lifetime);
    api.esl.storage().store_tokens(vec![access, refresh]).await?;
    Ok(View {
        access_token,
        token_type: "Bearer",
        expires_in: lifetime.as_secs(),
        refresh_token,
        scope: scopes.to_string(),
    })
}

/// 256 random bits, as text that needs no escape anywhere.
fn random_token() -> String {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the operating system has random bits");
    URL_SAFE_NO_PAD.encode(bytes)
}

#[derive(Serialize)]
struct View {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    refresh_token: String,
    scope: String,
}

fn not_stored(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// The request's form.
struct Form(Vec<(String, String)>);

impl Form {
    async fn read(headers: &HeaderMap, body: Body, api: &Api) -> Result<Self, Refusal> {
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
        // A parameter without a value counts as left out (section 3.2).
        let pairs = form_urlencoded::parse(&body).into_owned();
        Ok(Self(pairs.filter(|(_, value)| !value.is_empty()).collect()))
    }

    /// A parameter that must not be repeated. What is not asked for is ignored, as the RFC wants.
    fn get(&self, name: &str) -> Result<Option<&str>, Refusal> {
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
}

/// An error in OAuth's own shape.
#[derive(Debug)]
pub(super) struct Refusal {
    code: ErrorCode,
    detail: Cow<'static, str>,
    cause: Option<Cause>,
}

#[derive(Debug, Clone, Copy)]
enum ErrorCode {
    InvalidRequest,
    InvalidClient,
    UnsupportedGrantType,
    InvalidScope,
    /// Not the RFC's for this route, which has no name for it, but its own for the one beside it.
    TemporarilyUnavailable,
}

impl Refusal {
    fn new(code: ErrorCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), cause: None }
    }
}

impl From<StorageError> for Refusal {
    fn from(error: StorageError) -> Self {
        let cause = Some(Cause::of(&error));
        Self { cause, ..Self::new(ErrorCode::TemporarilyUnavailable, "storage is not available") }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct View<'a> {
            error: &'static str,
            error_description: &'a str,
        }

        let (status, error) = match self.code {
            ErrorCode::InvalidRequest => (StatusCode::BAD_REQUEST, "invalid_request"),
            ErrorCode::InvalidClient => (StatusCode::UNAUTHORIZED, "invalid_client"),
            ErrorCode::UnsupportedGrantType => (StatusCode::BAD_REQUEST, "unsupported_grant_type"),
            ErrorCode::InvalidScope => (StatusCode::BAD_REQUEST, "invalid_scope"),
            ErrorCode::TemporarilyUnavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable")
            }
        };
        let view = View { error, error_description: &self.detail };
        let mut response = not_stored(answer(status, &view));
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(r#"Basic realm="esl""#));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(cause);
        }
        response
    }
}

/// Longer than any id we give out; what is longer is not looked up.
const CLIENT_ID_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_percent_decoded() {
        let read = |pair: &str| {
            let mut headers = HeaderMap::new();
            let value = format!("Basic {}", STANDARD.encode(pair));
            headers.insert(AUTHORIZATION, value.parse().expect("a header"));
            basic(&headers).map(|pair| pair.expect("a header is there")).ok()
        };
        for (pair, id, secret) in [
            ("id:secret", "id", "secret"),
            ("a%3Ab:c%25+d", "a:b", "c% d"),
            ("id:a:b=c&d", "id", "a:b=c&d"),
            ("id:", "id", ""),
        ] {
            assert_eq!(read(pair), Some((id.into(), secret.into())), "{pair}");
        }
        assert_eq!(read("no colon"), None);
    }

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
