//! `/api/v1/organization`: what the caller's organization may use, and what it uses.

use axum::{extract::State, http::StatusCode, response::Response};
use esl_core::{OrganizationId, Tier, Timestamp};
use serde::{Serialize, Serializer};

use super::{
    Api, answer,
    auth::{self, Authorized, MayReadOrganization},
    page::NoParameters,
    problem::Problem,
};

/// `GET /api/v1/organization`
pub(super) async fn own(
    State(api): State<Api>,
    caller: Authorized<MayReadOrganization>,
    _: NoParameters,
) -> Result<Response, Problem> {
    let storage = api.esl.storage();
    let organization = storage.organization(caller.organization).await?;
    let organization = organization.ok_or_else(auth::organization_gone)?;
    let subscriptions = storage.count_subscriptions(caller.organization).await?;
    let standing = api.esl.standing(caller.organization).await?;
    let allowance = standing.map(|standing| standing.allowance);
    let view = View {
        id: organization.id,
        name: &organization.name,
        created_at: organization.created_at,
        tier: organization.plan.map(|plan| plan.tier),
        limits: Limits {
            subscriptions: allowance.and_then(|allowance| allowance.subscriptions.get()),
            events_per_hour: allowance.and_then(|allowance| allowance.events_per_hour.get()),
            retries: allowance.map(|allowance| allowance.retries),
        },
        usage: Usage {
            subscriptions,
            events: standing.map(|standing| standing.usage.events),
            resets_at: standing.map(|standing| standing.usage.hour.end()),
        },
    };
    Ok(answer(StatusCode::OK, &view))
}

#[derive(Serialize)]
struct View<'a> {
    id: OrganizationId,
    name: &'a str,
    created_at: Timestamp,
    #[serde(serialize_with = "name_of")]
    tier: Option<Tier>,
    limits: Limits,
    usage: Usage,
}

/// What is not limited is null.
#[derive(Serialize)]
struct Limits {
    subscriptions: Option<u64>,
    events_per_hour: Option<u64>,
    retries: Option<u32>,
}

/// Events are counted where there is a tier.
#[derive(Serialize)]
struct Usage {
    subscriptions: u64,
    events: Option<u64>,
    resets_at: Option<Timestamp>,
}

fn name_of<S: Serializer>(tier: &Option<Tier>, serializer: S) -> Result<S::Ok, S::Error> {
    tier.map(Tier::as_str).serialize(serializer)
}
