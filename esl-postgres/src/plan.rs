//! What organizations may use, as it is stored.

use esl_core::{Action, Actor, Limit, OrganizationId, Plan, storage::StorageError};
use tokio_postgres::Row;

use crate::{
    PostgresStorage, audit,
    changes::News,
    error::Damage,
    parameters::parameters,
    rows::{get, optional_count, parsed},
};

/// The columns of a plan.
pub(crate) const PLAN: &str = "g.tier, g.subscriptions_max, g.events_per_hour, g.retries";

/// Reads [`PLAN`], beginning at column `first`.
pub(crate) fn plan(row: &Row, first: usize) -> Result<Option<Plan>, Damage> {
    if get::<Option<&str>>(row, first)?.is_none() {
        return Ok(None);
    }
    let limit = |column| match get::<Option<&str>>(row, column)? {
        None => Ok(None),
        Some(_) => parsed::<Limit>(row, column).map(Some),
    };
    Ok(Some(Plan {
        tier: parsed(row, first)?,
        subscriptions: limit(first + 1)?,
        events_per_hour: limit(first + 2)?,
        retries: optional_count(row, first + 3)?,
    }))
}

/// What the columns of a plan hold.
pub(crate) struct PlanColumns {
    pub(crate) tier: Option<&'static str>,
    pub(crate) subscriptions_max: Option<String>,
    pub(crate) events_per_hour: Option<String>,
    pub(crate) retries: Option<i64>,
}

impl PlanColumns {
    pub(crate) fn of(plan: Option<Plan>) -> Self {
        let text = |limit: Option<Limit>| limit.map(|limit| limit.to_string());
        Self {
            tier: plan.map(|plan| plan.tier.as_str()),
            subscriptions_max: text(plan.and_then(|plan| plan.subscriptions)),
            events_per_hour: text(plan.and_then(|plan| plan.events_per_hour)),
            retries: plan.and_then(|plan| plan.retries).map(i64::from),
        }
    }
}

/// Gives an organization another plan.
pub(crate) async fn set_plan(
    storage: &PostgresStorage,
    id: OrganizationId,
    plan: Option<Plan>,
    by: &Actor,
) -> Result<(), StorageError> {
    let operation = "set a plan";
    let mut lease = storage.database().lease(operation).await?;
    let mut session = storage.begin(&mut lease, operation).await?;
    let (row, known) = session.organization_with_plan(id).await?;
    if known.as_ref().is_ok_and(|known| *known == plan) {
        return Ok(());
    }
    // One that cannot be read as it was written is another one.
    let known = known.unwrap_or_default();
    let columns = PlanColumns::of(plan);
    let values = parameters![
        row.key,
        columns.tier,
        columns.subscriptions_max,
        columns.events_per_hour,
        columns.retries,
    ];
    session.execute(SET, values).await?;
    let (action, fields) = (Action::OrganizationUpdated, Plan::changed(known, plan));
    audit::note(&session, id, by, action, &id.to_string(), &fields).await?;
    session.raise_route_version(row).await?;
    session.tell_others(News::Subscriptions(id));
    session.commit().await
}

const SET: &str = "
UPDATE esl.organizations
SET tier = $2, subscriptions_max = $3, events_per_hour = $4, retries = $5
WHERE key = $1";
