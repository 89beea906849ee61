//! What organizations may use, as it is stored.

use esl_core::{Limit, Plan};
use tokio_postgres::Row;

use crate::{
    error::Damage,
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
