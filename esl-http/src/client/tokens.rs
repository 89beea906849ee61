//! Tokens, fetched when they are needed.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use esl_core::Scopes;
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde::Deserialize;
use tokio::{sync::Mutex, time::Instant};
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use super::{
    ClientError, ClientErrorKind, Inner,
    builder::Identity,
    exchange::{Prepared, Repeat},
};

/// The token of a client, and where the next comes from.
///
/// Who needs one while it is fetched waits for that, and shares what comes of it, be it an error: however many
/// ask, the server is asked once.
pub(super) struct Tokens {
    identity: Identity,
    scopes: Option<Scopes>,
    kept: Mutex<Kept>,
    /// How many fetches are over; who waits sees by it whether one has ended meanwhile.
    fetches: AtomicU64,
}

#[derive(Default)]
struct Kept {
    grant: Option<Grant>,
    /// How the last fetch failed, if it did.
    failed: Option<ClientError>,
}

struct Grant {
    access: Arc<AccessToken>,
    refresh: Option<Zeroizing<String>>,
    /// When the next one is fetched: a little before this one expires.
    renew_at: Option<Instant>,
}

/// An access token. Its `Debug` shows nothing.
pub struct AccessToken(Zeroizing<String>);

impl Tokens {
    pub(super) fn new(identity: Identity, scopes: Option<Scopes>) -> Result<Self, ClientError> {
        let mut kept = Kept::default();
        if let Identity::Token(token) = &identity {
            let access = Arc::new(AccessToken(token.clone()));
            access.header().map_err(|_| {
                ClientError::misuse("making a client", "the token cannot stand in a header")
            })?;
            kept.grant = Some(Grant { access, refresh: None, renew_at: None });
        }
        Ok(Self { identity, scopes, kept: Mutex::new(kept), fetches: AtomicU64::new(0) })
    }

    /// A token that is good, as far as is known.
    pub(super) async fn current(&self, client: &Inner) -> Result<Arc<AccessToken>, ClientError> {
        let before = self.fetches.load(Ordering::Acquire);
        let mut kept = self.kept.lock().await;
        match &kept.grant {
            Some(grant) if grant.is_good(Instant::now()) => Ok(grant.access.clone()),
            _ => self.fetch(&mut kept, before, client).await,
        }
    }

    /// Another token than this one, which was refused; `None` where there is nothing to get one by.
    pub(super) async fn instead_of(
        &self,
        refused: &Arc<AccessToken>,
        client: &Inner,
    ) -> Result<Option<Arc<AccessToken>>, ClientError> {
        let Identity::Client { .. } = &self.identity else { return Ok(None) };
        let before = self.fetches.load(Ordering::Acquire);
        let mut kept = self.kept.lock().await;
        match &kept.grant {
            Some(grant) if !Arc::ptr_eq(&grant.access, refused) => {
                return Ok(Some(grant.access.clone()));
            }
            // Its refresh token is of the same grant, so it is worth nothing either.
            _ => kept.grant = None,
        }
        self.fetch(&mut kept, before, client).await.map(Some)
    }

    async fn fetch(
        &self,
        kept: &mut Kept,
        before: u64,
        client: &Inner,
    ) -> Result<Arc<AccessToken>, ClientError> {
        if self.fetches.load(Ordering::Acquire) != before
            && let Some(error) = &kept.failed
        {
            return Err(error.clone());
        }
        // Taken first: a refresh token is good once, and whoever waits for this may go away.
        let refresh = kept.grant.take().and_then(|grant| grant.refresh);
        let fetched = self.ask(refresh, client).await;
        self.fetches.fetch_add(1, Ordering::Release);
        match fetched {
            Ok(grant) => {
                kept.failed = None;
                Ok(kept.grant.insert(grant).access.clone())
            }
            Err(error) => {
                kept.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    /// The next grant: by the refresh token, once, and otherwise by the client's secret.
    async fn ask(
        &self,
        refresh: Option<Zeroizing<String>>,
        client: &Inner,
    ) -> Result<Grant, ClientError> {
        let Identity::Client { id, secret } = &self.identity else {
            let detail = "there is neither a token nor a client's id and secret";
            return Err(ClientError::misuse(CALL, detail));
        };
        let scope = self.scopes.map(|scopes| scopes.to_string()).unwrap_or_default();
        let form = |members: &[(&str, &str)]| {
            let mut all = vec![("client_id", id.as_str()), ("client_secret", secret.as_str())];
            all.extend_from_slice(members);
            if !scope.is_empty() {
                all.push(("scope", scope.as_str()));
            }
            form(&all)
        };
        if let Some(refresh) = refresh {
            let body =
                form(&[("grant_type", "refresh_token"), ("refresh_token", refresh.as_str())]);
            match granted(body, Repeat::Never, client).await {
                Ok(grant) => return Ok(grant),
                // Whatever became of it: the secret begins anew.
                Err(error) => tracing::debug!(%error, "the token was not refreshed"),
            }
        }
        let body = form(&[("grant_type", "client_credentials")]);
        granted(body, Repeat::WhenInDoubt, client).await
    }
}

/// What a form is answered.
async fn granted(body: Bytes, repeat: Repeat, client: &Inner) -> Result<Grant, ClientError> {
    let mut headers = HeaderMap::new();
    let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
    headers.insert(CONTENT_TYPE, form_type);
    let prepared = Prepared {
        call: CALL.to_owned(),
        method: Method::POST,
        url: client.url("/oauth/token", ""),
        headers,
        body: Some(body),
        repeat,
    };
    let asked_at = Instant::now();
    let answer = client.exchange_open(&prepared).await?.successful()?;
    let given: Given = answer.json()?;
    let access = Arc::new(AccessToken(Zeroizing::new(given.access_token)));
    access.header()?;
    let renew_at = given.expires_in.map(|seconds| asked_at + good_for(seconds));
    Ok(Grant { access, refresh: given.refresh_token.map(Zeroizing::new), renew_at })
}

impl Grant {
    fn is_good(&self, now: Instant) -> bool {
        self.renew_at.is_none_or(|renew_at| now < renew_at)
    }
}

impl AccessToken {
    /// The text, for requests that this client does not make.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What it says in `Authorization`.
    pub(super) fn header(&self) -> Result<HeaderValue, ClientError> {
        let text = Zeroizing::new(format!("Bearer {}", *self.0));
        let mut value = HeaderValue::from_str(&text).map_err(|_| {
            let detail = "a token with characters that no header may have";
            ClientError::new(ClientErrorKind::Unexpected, CALL).with_detail(detail)
        })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// For how long a token of that lifetime is used: a tenth less, at most a minute.
fn good_for(expires_in: u64) -> Duration {
    // A year is more than any token lasts, and an `Instant` has room for it.
    let lifetime = Duration::from_secs(expires_in.min(365 * 24 * 3600));
    lifetime - (lifetime / 10).min(Duration::from_secs(60))
}

/// A form that is wiped when nobody holds it any more.
fn form(members: &[(&str, &str)]) -> Bytes {
    // Room for every byte to be escaped, so that no copy is left behind by growing.
    let room = members.iter().map(|(name, value)| name.len() + 3 * value.len() + 2).sum();
    let mut form = Serializer::new(String::with_capacity(room));
    form.extend_pairs(members);
    Bytes::from_owner(Zeroizing::new(form.finish()))
}

/// What the server grants (RFC 6749, section 5.1).
#[derive(Deserialize)]
struct Given {
    access_token: String,
    refresh_token: Option<String>,
    expires_in: Option<u64>,
}

const CALL: &str = "POST /oauth/token";

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(…)")
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("identity", &self.identity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_a_little_before_it_expires() {
        for (expires_in, expected) in
            [(0, 0), (10, 9), (300, 270), (3600, 3540), (u64::MAX, 31_535_940)]
        {
            assert_eq!(good_for(expires_in), Duration::from_secs(expected), "{expires_in}");
        }
    }

    #[test]
    fn a_form_has_room_for_its_escapes() {
        let body = form(&[("client_secret", "100% & more"), ("scope", "events:read")]);
        assert_eq!(&body[..], b"client_secret=100%25+%26+more&scope=events%3Aread");
    }
}
