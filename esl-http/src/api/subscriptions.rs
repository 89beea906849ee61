//! `/api/v1/subscriptions`: who wants which events.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{MatchedPath, State},
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, LOCATION},
    },
    response::Response,
};
use esl_core::{
    CallbackPolicy, CallbackUrl, DeliveryId, Esl, EventId, EventPattern, NewSubscription, Origin,
    Secret, SecretChange, Subscription, SubscriptionId, SubscriptionUpdate, Timestamp,
    storage::{Health, StorageErrorKind},
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    Api, answer,
    auth::{Authorized, MayReadSubscriptions, MaySubscribe},
    body::{self, JsonBody, NoBody, OptionalJsonBody},
    fault::{Faults, Place},
    json::{self, Items, Members},
    page::{List, NoParameters, Parameters},
    path::{Id, Named},
    problem::{Code, Problem},
    request::Context,
    subscription_options::{self, OptionsView},
};

/// `POST /api/v1/subscriptions`
pub(super) async fn create(
    State(api): State<Api>,
    caller: Authorized<MaySubscribe>,
    path: MatchedPath,
    _: NoParameters,
    JsonBody(body): JsonBody<{ body::SMALL }>,
) -> Result<Response, Problem> {
    let new = read_new(&body, &api.esl)?;
    let is_generated = new.secret.is_none();
    let subscription = api.esl.by(caller.actor()).subscribe(caller.organization, new).await?;
    // The only answer that holds a secret, and only one that its reader did not choose.
    let secret = is_generated.then(|| subscription.secret.expose());
    let mut response = answer(StatusCode::CREATED, &View::of(&subscription, secret, api.esl.now()));
    let location = format!("{}/{}", path.as_str(), subscription.id);
    let headers = response.headers_mut();
    headers.insert(LOCATION, HeaderValue::try_from(location).expect("paths and ids are ASCII"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// `GET /api/v1/subscriptions`
pub(super) async fn list(
    State(api): State<Api>,
    caller: Authorized<MayReadSubscriptions>,
    mut parameters: Parameters,
) -> Result<Response, Problem> {
    let page = parameters.page();
    parameters.finish()?;
    let page = api.esl.storage().subscriptions(caller.organization, page).await?;
    let now = api.esl.now();
    let view = |subscription| View::of(subscription, None, now);
    Ok(answer(StatusCode::OK, &List::of(&page, |last| last.lane, view)))
}

/// `GET /api/v1/subscriptions/{id}`
pub(super) async fn one(
    State(api): State<Api>,
    caller: Authorized<MayReadSubscriptions>,
    Id(id): Id<SubscriptionId>,
    _: NoParameters,
) -> Result<Response, Problem> {
    let not_found = || Problem::not_found(SubscriptionId::NAME);
    let storage = api.esl.storage();
    let subscription = storage.subscription(caller.organization, id).await?;
    let subscription = subscription.ok_or_else(not_found)?;
    let health = storage.health(caller.organization, id).await?.ok_or_else(not_found)?;
    let view = DetailView {
        subscription: View::of(&subscription, None, api.esl.now()),
        health: HealthView::of(&health),
    };
    Ok(answer(StatusCode::OK, &view))
}

/// `PATCH /api/v1/subscriptions/{id}`
pub(super) async fn update(
    State(api): State<Api>,
    caller: Authorized<MaySubscribe>,
    Id(id): Id<SubscriptionId>,
    _: NoParameters,
    JsonBody(body): JsonBody<{ body::SMALL }>,
) -> Result<Response, Problem> {
    let update = read_update(&body, &api.esl)?;
    let updated =
        api.esl.by(caller.actor()).update_subscription(caller.organization, id, update).await;
    let subscription = updated.map_err(|error| Problem::about(SubscriptionId::NAME, &error))?;
    Ok(answer(StatusCode::OK, &View::of(&subscription, None, api.esl.now())))
}

/// `DELETE /api/v1/subscriptions/{id}`
pub(super) async fn delete(
    State(api): State<Api>,
    caller: Authorized<MaySubscribe>,
    Id(id): Id<SubscriptionId>,
    _: NoParameters,
) -> Result<StatusCode, Problem> {
    let deleted = api.esl.by(caller.actor()).delete_subscription(caller.organization, id).await;
    deleted.map_err(|error| Problem::about(SubscriptionId::NAME, &error))?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/v1/subscriptions/{id}/rotate-secret`
pub(super) async fn rotate_secret(
    State(api): State<Api>,
    caller: Authorized<MaySubscribe>,
    Id(id): Id<SubscriptionId>,
    _: NoParameters,
    OptionalJsonBody(body): OptionalJsonBody<{ body::SMALL }>,
) -> Result<Response, Problem> {
    let rotation = read_rotation(&body)?;
    let is_generated = matches!(rotation, Rotation::Begin { secret: None, .. });
    let organization = caller.organization;
    let rotated = match rotation {
        Rotation::Begin { secret, grace } => {
            api.esl.by(caller.actor()).rotate_secret(organization, id, secret, grace).await
        }
        Rotation::Finish => {
            let mut update = SubscriptionUpdate::default();
            update.secret = Some(SecretChange::Finish);
            api.esl.by(caller.actor()).update_subscription(organization, id, update).await
        }
    };
    let subscription = rotated.map_err(|error| match error.kind() {
        StorageErrorKind::Conflict => {
            let detail = "a rotation is under way; finish it first ({\"finish\": true})";
            Problem::new(Code::Conflict, detail)
        }
        _ => Problem::about(SubscriptionId::NAME, &error),
    })?;
    let secret = is_generated.then(|| subscription.secret.expose());
    let mut response = answer(StatusCode::OK, &View::of(&subscription, secret, api.esl.now()));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// `POST /api/v1/subscriptions/{id}/ping`
pub(super) async fn ping(
    State(api): State<Api>,
    caller: Authorized<MaySubscribe>,
    context: Context,
    Id(id): Id<SubscriptionId>,
    _: NoParameters,
    _: NoBody,
) -> Result<Response, Problem> {
    let origin = Arc::new(Origin {
        correlation_id: context.request_id().to_owned(),
        triggered_by: caller.client.to_string(),
        source: "api",
    });
    let (published, delivery_id) = api.esl.ping(caller.organization, id, Some(origin)).await?;
    let view = PingView {
        id: published.id,
        seq: published.seq.get(),
        deliveries: published.deliveries,
        delivery_id,
    };
    Ok(answer(StatusCode::ACCEPTED, &view))
}

/// What is asked of a rotation.
enum Rotation {
    Begin { secret: Option<Secret>, grace: Duration },
    Finish,
}

fn read_rotation(body: &[u8]) -> Result<Rotation, Problem> {
    let members = json::object(body)?;
    let mut faults = Faults::default();
    if members.get("finish").is_some() {
        // `false` is refused: it would begin a rotation, which hardly anybody means by it.
        members.optional("", "finish", &mut faults, |raw| match json::boolean(raw) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err("expected true; left out, a rotation begins"),
        });
        for name in ["secret", "grace_seconds"] {
            members.optional("", name, &mut faults, |_| {
                Err::<(), _>("this member does not go together with finish")
            });
        }
        members.finish("", &ROTATION, &mut faults);
        faults.check()?;
        return Ok(Rotation::Finish);
    }
    let secret = members.optional("", "secret", &mut faults, secret);
    let grace = members.optional("", "grace_seconds", &mut faults, |raw| {
        json::whole(raw, 0..=SecretChange::GRACE_MAX.as_secs()).map(Duration::from_secs)
    });
    members.finish("", &ROTATION, &mut faults);
    faults.check()?;
    Ok(Rotation::Begin { secret, grace: grace.unwrap_or(SecretChange::GRACE_DEFAULT) })
}

const ROTATION: [&str; 3] = ["finish", "secret", "grace_seconds"];

fn read_new(body: &[u8], esl: &Esl) -> Result<NewSubscription, Problem> {
    let policy = esl.callback_policy();
    let members = json::object(body)?;
    let mut faults = Faults::default();
    let callback_url =
        members.required("", "callback_url", &mut faults, |raw| callback_url(raw, policy));
    members.required("", "events", &mut faults, |_| Ok::<_, &str>(()));
    let events = patterns(&members, &mut faults);
    let secret = members.optional("", "secret", &mut faults, secret);
    let active = members.optional("", "active", &mut faults, json::boolean);
    let options = subscription_options::read(&members, esl, &mut faults);
    members.finish("", &known(), &mut faults);
    faults.check()?;

    let mut new = NewSubscription::new(
        callback_url.expect("a required member that is not there is a fault"),
        events.expect("a required member that is not there is a fault"),
    );
    new.secret = secret;
    new.options.update(options);
    Ok(new.with_active(active.unwrap_or(true)))
}

fn read_update(body: &[u8], esl: &Esl) -> Result<SubscriptionUpdate, Problem> {
    let policy = esl.callback_policy();
    let members = json::object(body)?;
    let mut faults = Faults::default();
    let mut update = SubscriptionUpdate::default();
    update.callback_url =
        members.optional("", "callback_url", &mut faults, |raw| callback_url(raw, policy));
    update.events = patterns(&members, &mut faults);
    update.active = members.optional("", "active", &mut faults, json::boolean);
    members.optional("", "secret", &mut faults, |_| {
        Err::<(), _>("a secret is not changed by PATCH but by rotation (rotate-secret)")
    });
    update.options = subscription_options::read(&members, esl, &mut faults);
    members.finish("", &known(), &mut faults);
    faults.check()?;
    Ok(update)
}

/// The members that there are.
fn known() -> Vec<&'static str> {
    [&["callback_url", "events", "secret", "active"][..], &subscription_options::NAMES].concat()
}

fn callback_url(raw: &RawValue, policy: &CallbackPolicy) -> Result<CallbackUrl, String> {
    CallbackUrl::parse(&json::text(raw)?, policy).map_err(|error| error.to_string())
}

fn secret(raw: &RawValue) -> Result<Secret, String> {
    Secret::new(json::text(raw)?).map_err(|error| error.to_string())
}

/// The patterns in `events`, each once; every wrong one is a fault of its own.
fn patterns(members: &Members<'_>, faults: &mut Faults) -> Option<Vec<EventPattern>> {
    let items = members.optional("", "events", faults, |raw| {
        Items::of(raw, PATTERNS_MAX)
            .filter(|items| (1..=PATTERNS_MAX).contains(&items.count))
            .ok_or_else(|| format!("expected an array of 1 to {PATTERNS_MAX} patterns"))
    })?;
    let mut patterns = Vec::with_capacity(items.list.len());
    for (index, raw) in items.list.into_iter().enumerate() {
        match pattern(raw) {
            Ok(pattern) if patterns.contains(&pattern) => {}
            Ok(pattern) => patterns.push(pattern),
            Err(detail) => faults.add(Place::member("/events", &index.to_string()), detail),
        }
    }
    Some(patterns)
}

fn pattern(raw: &RawValue) -> Result<EventPattern, String> {
    json::text(raw)?.parse().map_err(|error: esl_core::EventPatternError| error.to_string())
}

/// A subscription as its organization sees it.
// Without Debug: it may hold a secret.
#[derive(Serialize)]
struct View<'a> {
    id: SubscriptionId,
    callback_url: &'a str,
    events: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
    active: bool,
    disabled_reason: Option<&'static str>,
    /// Until when the secret before this one signs, too.
    rotation_ends_at: Option<Timestamp>,
    #[serde(flatten)]
    options: OptionsView<'a>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl<'a> View<'a> {
    fn of(subscription: &'a Subscription, secret: Option<&'a str>, now: Timestamp) -> Self {
        Self {
            id: subscription.id,
            callback_url: subscription.callback_url.as_str(),
            events: subscription.events.iter().map(ToString::to_string).collect(),
            secret,
            active: subscription.active,
            disabled_reason: subscription.disabled_reason.map(|reason| reason.as_str()),
            rotation_ends_at: subscription.retiring_at(now).map(|retiring| retiring.until),
            options: OptionsView::of(&subscription.options),
            created_at: subscription.created_at,
            updated_at: subscription.updated_at,
        }
    }
}

/// A subscription with how it fares.
// Without Debug, as what it holds.
#[derive(Serialize)]
struct DetailView<'a> {
    #[serde(flatten)]
    subscription: View<'a>,
    health: HealthView,
}

#[derive(Debug, Serialize)]
struct HealthView {
    state: &'static str,
    failing_since: Option<Timestamp>,
    last_success_at: Option<Timestamp>,
    next_attempt_not_before: Option<Timestamp>,
    waiting: u64,
    oldest_due_at: Option<Timestamp>,
}

impl HealthView {
    fn of(health: &Health) -> Self {
        let state = match (health.lane.is_open(), health.lane.failing_since) {
            (true, _) => "circuit_open",
            (false, Some(_)) => "failing",
            (false, None) => "healthy",
        };
        Self {
            state,
            failing_since: health.lane.failing_since,
            last_success_at: health.lane.last_success_at,
            next_attempt_not_before: health.lane.not_before,
            waiting: health.waiting,
            oldest_due_at: health.oldest_due,
        }
    }
}

/// What became of a ping.
#[derive(Debug, Serialize)]
struct PingView {
    id: EventId,
    seq: u64,
    deliveries: u32,
    delivery_id: DeliveryId,
}

const PATTERNS_MAX: usize = 100;
