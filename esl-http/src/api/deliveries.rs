//! `/api/v1/deliveries`: how events fared on their way.

use std::time::Duration;

use axum::{extract::State, http::StatusCode, response::Response};
use esl_core::{
    Attempt, Delivery, DeliveryId, DeliveryState, EventId, OrganizationId, SubscriptionId,
    Timestamp, Timings, storage::StorageErrorKind,
};
use serde::Serialize;

use super::{
    Api, answer,
    auth::{Authorized, MayRead, MaySubscribe},
    body::NoBody,
    page::{List, NoParameters, Parameters},
    path::{Id, Named},
    problem::{Code, Problem},
};

/// `GET /api/v1/subscriptions/{id}/deliveries`
pub(super) async fn list(
    State(api): State<Api>,
    caller: Authorized<MayRead>,
    Id(subscription): Id<SubscriptionId>,
    mut parameters: Parameters,
) -> Result<Response, Problem> {
    let state = parameters.take("state", |text| {
        DeliveryState::from_name(text).ok_or_else(|| {
            let names = DeliveryState::ALL.map(DeliveryState::as_str).join(", ");
            format!("expected one of {names}").into()
        })
    });
    let page = parameters.page();
    parameters.finish()?;
    let storage = api.esl.storage();
    let page = storage.deliveries(caller.organization, subscription, state, page).await?;
    let page = page.ok_or_else(|| Problem::not_found(SubscriptionId::NAME))?;
    Ok(answer(StatusCode::OK, &List::of(&page, |last| last.seq, View::of)))
}

/// `GET /api/v1/deliveries/{id}`
pub(super) async fn one(
    State(api): State<Api>,
    caller: Authorized<MayRead>,
    Id(id): Id<DeliveryId>,
    _: NoParameters,
) -> Result<Response, Problem> {
    let found = api.esl.storage().delivery(caller.organization, id).await?;
    let (delivery, attempts) = found.ok_or_else(|| Problem::not_found(DeliveryId::NAME))?;
    let attempts_log = attempts.iter().map(AttemptView::of).collect();
    let view = DetailView { delivery: View::of(&delivery), attempts_log };
    Ok(answer(StatusCode::OK, &view))
}

/// `POST /api/v1/deliveries/{id}/redeliver`
pub(super) async fn redeliver(
    State(api): State<Api>,
    caller: Authorized<MaySubscribe>,
    Id(id): Id<DeliveryId>,
    _: NoParameters,
    _: NoBody,
) -> Result<Response, Problem> {
    let organization = caller.organization;
    api.demand_enabled()?;
    let delivery = match api.esl.redeliver(organization, id).await {
        Ok(delivery) => delivery,
        Err(error) if error.kind() == StorageErrorKind::Conflict => {
            return Err(why_not(&api, organization, id).await);
        }
        Err(error) => return Err(Problem::about(DeliveryId::NAME, &error)),
    };
    Ok(answer(StatusCode::ACCEPTED, &View::of(&delivery)))
}

/// Why a delivery was not sent again. Read after the refusal, and only for people.
async fn why_not(api: &Api, organization: OrganizationId, id: DeliveryId) -> Problem {
    let storage = api.esl.storage();
    if let Ok(Some((delivery, _))) = storage.delivery(organization, id).await
        && let Ok(None) = storage.subscription(organization, delivery.subscription_id).await
    {
        return Problem::new(Code::Conflict, "the subscription of this delivery is deleted");
    }
    Problem::new(Code::Conflict, "only an exhausted or expired delivery can be sent again")
}

/// A delivery as its organization sees it.
#[derive(Debug, Serialize)]
struct View<'a> {
    id: DeliveryId,
    event_id: EventId,
    event_type: &'a str,
    subscription_id: SubscriptionId,
    seq: u64,
    state: &'static str,
    attempts: u32,
    created_at: Timestamp,
    next_attempt_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    last_status: Option<u16>,
    last_error: Option<&'static str>,
}

impl<'a> View<'a> {
    fn of(delivery: &'a Delivery) -> Self {
        Self {
            id: delivery.id,
            event_id: delivery.event_id,
            event_type: delivery.event_type.as_str(),
            subscription_id: delivery.subscription_id,
            seq: delivery.seq.get(),
            state: delivery.state.as_str(),
            attempts: delivery.attempts,
            created_at: delivery.created_at,
            next_attempt_at: delivery.next_attempt_at,
            finished_at: delivery.finished_at,
            last_status: delivery.last_status,
            last_error: delivery.last_error.map(|error| error.as_str()),
        }
    }
}

/// A delivery with the attempts that were kept.
#[derive(Debug, Serialize)]
struct DetailView<'a> {
    #[serde(flatten)]
    delivery: View<'a>,
    attempts_log: Vec<AttemptView<'a>>,
}

#[derive(Debug, Serialize)]
struct AttemptView<'a> {
    number: u32,
    started_at: Timestamp,
    status: Option<u16>,
    error: Option<&'static str>,
    detail: Option<&'a str>,
    probe: bool,
    charged: bool,
    timings: TimingsView,
}

impl<'a> AttemptView<'a> {
    fn of(attempt: &'a Attempt) -> Self {
        Self {
            number: attempt.number,
            started_at: attempt.started_at,
            status: attempt.status,
            error: attempt.error.map(|error| error.as_str()),
            detail: attempt.detail.as_deref(),
            probe: attempt.probe,
            charged: attempt.charged,
            timings: TimingsView::of(attempt.timings),
        }
    }
}

/// Where an attempt's time went, in milliseconds.
#[derive(Debug, Serialize)]
struct TimingsView {
    resolve_ms: Option<f64>,
    connect_ms: Option<f64>,
    tls_ms: Option<f64>,
    first_byte_ms: Option<f64>,
    total_ms: f64,
}

impl TimingsView {
    fn of(timings: Timings) -> Self {
        Self {
            resolve_ms: timings.resolve.map(milliseconds),
            connect_ms: timings.connect.map(milliseconds),
            tls_ms: timings.tls.map(milliseconds),
            first_byte_ms: timings.first_byte.map(milliseconds),
            total_ms: milliseconds(timings.total),
        }
    }
}

/// To the microsecond; what is finer is not measured.
fn milliseconds(duration: Duration) -> f64 {
    let microseconds = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
    f64::from(microseconds) / 1000.0
}
