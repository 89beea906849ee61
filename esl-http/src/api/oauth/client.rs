//! Who asks: a client that proves itself (RFC 6749, section 2.3.1).

use std::borrow::Cow;

use axum::http::{HeaderMap, header::AUTHORIZATION, request::Parts};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use esl_core::{Client, Digest};
use url::form_urlencoded;

use super::{
    attempts::Pair,
    form::Form,
    refusal::{ErrorCode, Refusal},
};
use crate::api::{Api, address::ClientAddress};

/// The client that proves itself in the form or by HTTP Basic.
///
/// A client that does not exist costs the same work as a wrong secret, and is slowed like one.
pub(super) async fn authenticate(head: &Parts, form: &Form, api: &Api) -> Result<Client, Refusal> {
    let (id, secret) = credentials(&head.headers, form)?;
    let address = api.address_of(head);
    let admitted = api.attempts.admit(Pair::new(&id, address), || api.esl.monotonic()).await;
    let attempt = match admitted {
        Ok(attempt) => attempt,
        Err(wait) => {
            tell(&id, address, api);
            return Err(Refusal::slowed(wait));
        }
    };
    let client = match id.len() {
        0..=CLIENT_ID_BYTES_MAX => api.esl.storage().client(&id).await?,
        _ => None,
    };
    let expected = client.as_ref().map_or(Digest::from_bytes([0; 32]), |client| client.secret);
    let is_right = Digest::of(secret.as_bytes()).matches(&expected);
    let Some(client) = client.filter(|_| is_right) else {
        attempt.failed(api.esl.monotonic());
        tell(&id, address, api);
        return Err(Refusal::not_proven());
    };
    attempt.succeeded(api.esl.monotonic());
    Ok(client)
}

/// Tells the log of failures, once in a while. Of an id it gets the beginning: somebody may have put
/// a secret there.
fn tell(id: &str, address: ClientAddress, api: &Api) {
    let Some(figures) = api.attempts.to_tell(api.esl.monotonic()) else { return };
    let shown = (id.chars().count() / 2).min(4);
    let begins = id.chars().take(shown).collect::<String>();
    tracing::warn!(
        failed = figures.failed,
        slowed = figures.slowed,
        addresses = figures.addresses,
        last_address = %address,
        last_client_begins = %begins.escape_debug(),
        "clients have not proven who they are"
    );
}

/// Id and secret, wherever they stand.
fn credentials<'a>(
    headers: &HeaderMap,
    form: &'a Form,
) -> Result<(Cow<'a, str>, Cow<'a, str>), Refusal> {
    let in_form = (form.get("client_id")?, form.get("client_secret")?);
    match (basic(headers)?, in_form) {
        (None, (Some(id), Some(secret))) => Ok((Cow::from(id), Cow::from(secret))),
        (None, _) => {
            let detail = "expected client_id and client_secret, in the form or by HTTP Basic";
            Err(Refusal::new(ErrorCode::InvalidClient, detail))
        }
        // The id may be repeated in the form, the proof may not.
        (Some((id, secret)), (form_id, None)) if form_id.is_none_or(|form_id| form_id == id) => {
            Ok((Cow::from(id), Cow::from(secret)))
        }
        (Some(_), _) => {
            let detail = "a client proves itself in the form or by HTTP Basic, not by both";
            Err(Refusal::new(ErrorCode::InvalidRequest, detail))
        }
    }
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
}
