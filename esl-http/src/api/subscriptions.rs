//! `/api/v1/subscriptions`: who wants which events.

use axum::{
    extract::{MatchedPath, State},
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, LOCATION},
    },
    response::Response,
};
use esl_core::{
    CallbackPolicy, CallbackUrl, EventPattern, NewSubscription, Secret, Subscription,
    SubscriptionId, SubscriptionUpdate, Timestamp,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    Api, answer,
    auth::{Authorized, MayReadSubscriptions, MaySubscribe},
    body::{self, JsonBody},
    fault::{Faults, Place},
    json::{self, Items, Members},
    page::{List, NoParameters, Parameters},
    path::{Id, Named},
    problem::Problem,
    to_its_end,
};

/// `POST /api/v1/subscriptions`
pub(super) async fn create(
    State(api): State<Api>,
    caller: Authorized<MaySubscribe>,
    path: MatchedPath,
    _: NoParameters,
    JsonBody(body): JsonBody<{ body::SMALL }>,
) -> Result<Response, Problem> {
    let new = read_new(&body, api.esl.callback_policy())?;
    let is_generated = new.secret.is_none();
    let organization = caller.organization;
    let subscription =
        to_its_end(async move { api.esl.subscribe(organization, new).await }).await?;
    // The only answer that holds a secret, and only one that its reader did not choose.
    let secret = is_generated.then(|| subscription.secret.expose());
    let mut response = answer(StatusCode::CREATED, &View::of(&subscription, secret));
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
    let view = |subscription| View::of(subscription, None);
    Ok(answer(StatusCode::OK, &List::of(&page, |last| last.lane, view)))
}

/// `GET /api/v1/subscriptions/{id}`
pub(super) async fn one(
    State(api): State<Api>,
    caller: Authorized<MayReadSubscriptions>,
    Id(id): Id<SubscriptionId>,
    _: NoParameters,
) -> Result<Response, Problem> {
    let subscription = api.esl.storage().subscription(caller.organization, id).await?;
    let subscription = subscription.ok_or_else(|| Problem::not_found(SubscriptionId::NAME))?;
    Ok(answer(StatusCode::OK, &View::of(&subscription, None)))
}

/// `PATCH /api/v1/subscriptions/{id}`
pub(super) async fn update(
    State(api): State<Api>,
    caller: Authorized<MaySubscribe>,
    Id(id): Id<SubscriptionId>,
    _: NoParameters,
    JsonBody(body): JsonBody<{ body::SMALL }>,
) -> Result<Response, Problem> {
    let update = read_update(&body, api.esl.callback_policy())?;
    let organization = caller.organization;
    let updated =
        to_its_end(async move { api.esl.update_subscription(organization, id, update).await });
    let subscription =
        updated.await.map_err(|error| Problem::about(SubscriptionId::NAME, &error))?;
    Ok(answer(StatusCode::OK, &View::of(&subscription, None)))
}

/// `DELETE /api/v1/subscriptions/{id}`
pub(super) async fn delete(
    State(api): State<Api>,
    caller: Authorized<MaySubscribe>,
    Id(id): Id<SubscriptionId>,
    _: NoParameters,
) -> Result<StatusCode, Problem> {
    let organization = caller.organization;
    let deleted = to_its_end(async move { api.esl.delete_subscription(organization, id).await });
    deleted.await.map_err(|error| Problem::about(SubscriptionId::NAME, &error))?;
    Ok(StatusCode::NO_CONTENT)
}

fn read_new(body: &[u8], policy: &CallbackPolicy) -> Result<NewSubscription, Problem> {
    let members = json::object(body)?;
    let mut faults = Faults::default();
    let callback_url =
        members.required("", "callback_url", &mut faults, |raw| callback_url(raw, policy));
    members.required("", "events", &mut faults, |_| Ok::<_, &str>(()));
    let events = patterns(&members, &mut faults);
    let secret = members.optional("", "secret", &mut faults, secret);
    let active = members.optional("", "active", &mut faults, json::boolean);
    members.finish("", &["callback_url", "events", "secret", "active"], &mut faults);
    faults.check()?;

    let mut new = NewSubscription::new(
        callback_url.expect("a required member that is not there is a fault"),
        events.expect("a required member that is not there is a fault"),
    );
    new.secret = secret;
    Ok(new.with_active(active.unwrap_or(true)))
}

fn read_update(body: &[u8], policy: &CallbackPolicy) -> Result<SubscriptionUpdate, Problem> {
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
    members.finish("", &["callback_url", "events", "secret", "active"], &mut faults);
    faults.check()?;
    Ok(update)
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
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl<'a> View<'a> {
    fn of(subscription: &'a Subscription, secret: Option<&'a str>) -> Self {
        Self {
            id: subscription.id,
            callback_url: subscription.callback_url.as_str(),
            events: subscription.events.iter().map(ToString::to_string).collect(),
            secret,
            active: subscription.active,
            disabled_reason: subscription.disabled_reason.map(|reason| reason.as_str()),
            created_at: subscription.created_at,
            updated_at: subscription.updated_at,
        }
    }
}

const PATTERNS_MAX: usize = 100;
