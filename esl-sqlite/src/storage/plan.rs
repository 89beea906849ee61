//! What organizations may use, as it is stored.

use esl_core::{Action, Actor, OrganizationId, Plan, storage::StorageErrorKind};
use rusqlite::{Connection, Row, types::Type};

use crate::storage::{
    audit,
    changes::News,
    error::{Stop, is_damaged_value},
    rows::parsed,
    session::Session,
};

/// The columns of a plan.
pub(crate) const PLAN: &str = "tier, subscriptions_max, events_per_hour, retries";

/// Reads [`PLAN`], beginning at column `first`.
pub(crate) fn plan(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Plan>> {
    if row.get_ref(first)?.data_type() == Type::Null {
        return Ok(None);
    }
    let limit = |index| match row.get_ref(index)?.data_type() {
        Type::Null => Ok(None),
        _ => parsed(row, index).map(Some),
    };
    Ok(Some(Plan {
        tier: parsed(row, first)?,
        subscriptions: limit(first + 1)?,
        events_per_hour: limit(first + 2)?,
        retries: row.get(first + 3)?,
    }))
}

pub(crate) fn read_plan(
    connection: &Connection,
    organization: i64,
) -> rusqlite::Result<Option<Plan>> {
    let sql = format!("SELECT {PLAN} FROM esl_organizations WHERE key = ?1");
    connection.prepare_cached(&sql)?.query_row([organization], |row| plan(row, 0))
}

pub(crate) fn write_plan(
    connection: &Connection,
    id: OrganizationId,
    plan: Option<Plan>,
) -> rusqlite::Result<()> {
    let sql = "UPDATE esl_organizations
               SET tier = ?2, subscriptions_max = ?3, events_per_hour = ?4, retries = ?5
               WHERE id = ?1";
    connection.prepare_cached(sql)?.execute((
        id.to_bytes(),
        plan.map(|plan| plan.tier.as_str()),
        plan.and_then(|plan| plan.subscriptions).map(|limit| limit.to_string()),
        plan.and_then(|plan| plan.events_per_hour).map(|limit| limit.to_string()),
        plan.and_then(|plan| plan.retries),
    ))?;
    Ok(())
}

/// Gives an organization another plan.
pub(crate) fn set_plan(
    session: &mut Session<'_>,
    id: OrganizationId,
    plan: Option<Plan>,
    by: &Actor,
) -> Result<(), Stop> {
    let row = session.organization(id)?;
    let row = row.ok_or(Stop::refused(StorageErrorKind::NotFound, SET_PLAN))?;
    let known = match read_plan(session.connection, row.key) {
        Ok(known) if known == plan => return Ok(()),
        Ok(known) => known,
        // One that cannot be read as it was written is another one.
        Err(error) if is_damaged_value(&error) => None,
        Err(error) => return Err(error.into()),
    };
    write_plan(session.connection, id, plan)?;
    let (action, fields) = (Action::OrganizationUpdated, Plan::changed(known, plan));
    audit::note(session, id, by, action, &id.to_string(), &fields)?;
    session.raise_route_version(id);
    Ok(session.tell_others(News::Subscriptions(id))?)
}

pub(crate) const SET_PLAN: &str = "set a plan";
