//! Who is asking, and whether they may: bearer tokens (RFC 6750) and scopes.

use std::{
    collections::HashMap,
    marker::PhantomData,
    ops::Deref,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    extract::FromRequestParts,
    http::{
        HeaderMap, HeaderValue,
        header::{AUTHORIZATION, WWW_AUTHENTICATE},
        request::Parts,
    },
};
use esl_core::{Actor, Digest, OrganizationId, Scope, Scopes, Timestamp, Token, TokenKind};

use super::{
    Api,
    address::ClientAddress,
    problem::{Code, Problem},
    request::Context,
};

/// The client behind a valid token.
#[derive(Debug)]
pub(super) struct Caller {
    /// Whose data it sees.
    pub(super) organization: OrganizationId,
    /// Its `client_id`.
    pub(super) client: Arc<str>,
    /// What its token is good for.
    pub(super) scopes: Scopes,
    expires_at: Timestamp,
}

/// A caller whose token is good for something. As a handler's argument it refuses all others, so it
/// stands before the body.
#[derive(Debug)]
pub(super) struct Authorized<P> {
    caller: Arc<Caller>,
    address: ClientAddress,
    permission: PhantomData<P>,
}

impl<P> Authorized<P> {
    /// Whose changes they are that this request makes.
    pub(super) fn actor(&self) -> Actor {
        Actor::Client { id: self.client.to_string(), address: self.address.ip() }
    }
}

/// What a route asks of a token.
pub(super) trait Permission {
    /// One of these must be among its scopes.
    const ANY_OF: &'static [Scope];
}

macro_rules! permission {
    ($name:ident, $($scope:ident),+) => {
        #[derive(Debug)]
        pub(super) struct $name;

        impl Permission for $name {
            const ANY_OF: &'static [Scope] = &[$(Scope::$scope),+];
        }
    };
}

permission!(MayPublish, Publish);
permission!(MayRead, Read);
permission!(MaySubscribe, Subscribe);
permission!(MayReadEventTypes, Read, Subscribe);
permission!(MayReadSubscriptions, Read, Subscribe);
permission!(MayAdminister, Admin);
permission!(MayReadOrganization, Read, Subscribe, Publish);
#[cfg(feature = "entities")]
permission!(MayReadEntities, EntitiesRead);
#[cfg(feature = "entities")]
permission!(MayWriteEntities, EntitiesWrite);

impl<P> Deref for Authorized<P> {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl<P: Permission> FromRequestParts<Api> for Authorized<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let caller = caller(bearer(&parts.headers)?, api).await?;
        let context = Context::of(parts);
        context.set_client(caller.client.clone());
        context.set_organization(caller.organization);
        if P::ANY_OF.iter().any(|&scope| caller.scopes.allow(scope)) {
            let address = api.address_of(parts);
            Ok(Self { caller, address, permission: PhantomData })
        } else {
            Err(missing(P::ANY_OF))
        }
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Err(unidentified());
    };
    let text = value.to_str().map_err(|_| invalid_token())?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(unidentified());
    }
    let token = token.trim_matches(' ');
    if token.is_empty() || values.next().is_some() { Err(invalid_token()) } else { Ok(token) }
}

async fn caller(token: &str, api: &Api) -> Result<Arc<Caller>, Problem> {
    let digest = Digest::of(token.as_bytes());
    let caller = match api.callers.get(&digest, Instant::now()) {
        Ok(caller) => caller,
        Err(asked) => {
            let token = api.esl.storage().token(&digest).await?;
            let caller = token.and_then(Caller::of).ok_or_else(invalid_token)?;
            let caller = Arc::new(caller);
            api.callers.put(digest, caller.clone(), asked);
            caller
        }
    };
    if caller.expires_at > api.esl.now() { Ok(caller) } else { Err(invalid_token()) }
}

impl Caller {
    fn of(token: Token) -> Option<Self> {
        let Token { kind, client, organization, scopes, expires_at, .. } = token;
        let client = client.into();
        (kind == TokenKind::Access).then_some(Self { organization, client, scopes, expires_at })
    }
}

fn unidentified() -> Problem {
    Problem::unauthorized(
        r#"Bearer realm="esl""#,
        "expected the header `Authorization: Bearer <token>`; POST /oauth/token gives one",
    )
}

fn invalid_token() -> Problem {
    Problem::unauthorized(
        r#"Bearer realm="esl", error="invalid_token""#,
        "the token is not one of ours, or it has expired or been revoked",
    )
}

/// For a token that outlived its organization.
pub(super) fn organization_gone() -> Problem {
    Problem::unauthorized(
        r#"Bearer realm="esl", error="invalid_token""#,
        "the organization of this token does not exist any more",
    )
}

fn missing(any_of: &[Scope]) -> Problem {
    let names: Vec<_> = any_of.iter().map(|scope| scope.as_str()).collect();
    let challenge = format!(
        r#"Bearer realm="esl", error="insufficient_scope", scope="{}""#,
        names.first().expect("every permission names a scope")
    );
    let detail = format!("the token lacks the scope {}", names.join(" or "));
    Problem::new(Code::InsufficientScope, detail).with_header(
        WWW_AUTHENTICATE,
        HeaderValue::try_from(challenge).expect("names of scopes are ASCII"),
    )
}

/// Callers seen within the last second, so that a busy client costs no read per request. A token
/// that another process revokes works for that second at most.
#[derive(Debug, Default)]
pub(super) struct CallerCache(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    callers: HashMap<Digest, (Arc<Caller>, Instant)>,
    swept_at: Option<Instant>,
    /// How often something was forgotten.
    revocations: u64,
}

/// When storage was asked for a caller.
#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    revocations: u64,
}

impl CallerCache {
    /// A caller that is fresh; otherwise storage is asked.
    fn get(&self, digest: &Digest, now: Instant) -> Result<Arc<Caller>, Asked> {
        let seen = self.seen();
        match seen.callers.get(digest) {
            Some((caller, at)) if is_fresh(*at, now) => Ok(caller.clone()),
            _ => Err(Asked { at: now, revocations: seen.revocations }),
        }
    }

    /// `asked` is from before storage was asked: what is revoked later is not believed longer.
    fn put(&self, digest: Digest, caller: Arc<Caller>, asked: Asked) {
        let mut seen = self.seen();
        // Storage may have been read before what was revoked since.
        if seen.revocations != asked.revocations {
            return;
        }
        let asked_at = asked.at;
        if seen.callers.len() >= CALLERS_MAX {
            // At most once a second, so that a flood of tokens does not sweep at every request.
            if seen.swept_at.is_some_and(|at| is_fresh(at, asked_at)) {
                return;
            }
            seen.swept_at = Some(asked_at);
            seen.callers.retain(|_, (_, at)| is_fresh(*at, asked_at));
        }
        if seen.callers.len() < CALLERS_MAX {
            seen.callers.insert(digest, (caller, asked_at));
        }
    }

    /// Believes nothing more of a client, after something of it was revoked.
    pub(super) fn forget(&self, client: &str) {
        let mut seen = self.seen();
        seen.revocations += 1;
        seen.callers.retain(|_, (caller, _)| &*caller.client != client);
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}

fn is_fresh(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < FRESH
}

const FRESH: Duration = Duration::from_secs(1);
const CALLERS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn a_caller() -> Arc<Caller> {
        Arc::new(Caller {
            organization: OrganizationId::from_bytes([1; 16]),
            client: "client".into(),
            scopes: Scopes::all(),
            expires_at: Timestamp::MAX,
        })
    }

    /// Puts a caller as if storage had been asked at that time.
    fn put(cache: &CallerCache, digest: Digest, caller: Arc<Caller>, at: Instant) {
        let asked = cache.get(&digest, at).expect_err("it is not known yet");
        cache.put(digest, caller, asked);
    }

    #[test]
    fn a_caller_is_believed_for_less_than_a_second() {
        let cache = CallerCache::default();
        let (digest, then) = (Digest::of(b"token"), Instant::now());
        put(&cache, digest, a_caller(), then);
        assert!(cache.get(&digest, then + Duration::from_millis(999)).is_ok());
        assert!(cache.get(&digest, then + FRESH).is_err());
        assert!(cache.get(&Digest::of(b"other"), then).is_err());
    }

    #[test]
    fn a_client_that_is_forgotten_is_not_believed_by_an_older_answer_of_storage() {
        let cache = CallerCache::default();
        let ([first, second], then) = ([b"1", b"2"].map(|text| Digest::of(text)), Instant::now());
        put(&cache, first, a_caller(), then);
        let asked = cache.get(&second, then).expect_err("it is not known yet");
        cache.forget("client");
        cache.put(second, a_caller(), asked);
        assert!(cache.get(&first, then).is_err());
        assert!(cache.get(&second, then).is_err());
        put(&cache, first, a_caller(), then);
        cache.forget("another");
        assert!(cache.get(&first, then).is_ok());
    }

    #[test]
    fn the_cache_is_bounded_and_makes_room_for_the_living() {
        let cache = CallerCache::default();
        let then = Instant::now();
        let caller = a_caller();
        let digest = |number: usize| Digest::of(&number.to_le_bytes());
        for number in 0..=CALLERS_MAX {
            put(&cache, digest(number), caller.clone(), then);
        }
        assert_eq!(cache.seen().callers.len(), CALLERS_MAX);
        assert!(cache.get(&digest(CALLERS_MAX), then).is_err());
        put(&cache, digest(CALLERS_MAX), caller, then + FRESH);
        assert_eq!(cache.seen().callers.len(), 1);
        assert!(cache.get(&digest(CALLERS_MAX), then + FRESH).is_ok());
    }

    #[test]
    fn only_one_well_formed_bearer_header_is_read() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(str::to_owned).ok()
        };
        for (values, expected) in [
            (&["Bearer abc"][..], Some("abc")),
            (&["bearer  abc "], Some("abc")),
            (&[], None),
            (&["Bearer"], None),
            (&["Bearer "], None),
            (&["Basic abc"], None),
            (&["Bearerabc"], None),
            (&["Bearer abc", "Bearer abc"], None),
        ] {
            assert_eq!(read(values).as_deref(), expected, "{values:?}");
        }
    }
}
