//! How a subscription fares.

use esl_core::{OrganizationId, SubscriptionId, storage::Health, storage::StorageError};
use tokio_postgres::Row;

use crate::{
    PostgresStorage,
    error::Damage,
    id::Id16,
    parameters::parameters,
    rows::{LANE_STATE, LANE_STATE_COLUMNS, get, lane_state, optional_time, saturated, whole},
};

pub(crate) async fn health(
    storage: &PostgresStorage,
    organization: OrganizationId,
    subscription: SubscriptionId,
) -> Result<Option<Health>, StorageError> {
    let operation = "read a subscription's health";
    let counted_max = saturated(Health::WAITING_COUNTED_MAX);
    let values = parameters![Id16::from(organization), Id16::from(subscription), counted_max];
    let row = storage.database().query_opt(operation, &health_sql(), values).await?;
    whole(operation, row.map(|row| read(&row)).transpose())
}

fn read(row: &Row) -> Result<Health, Damage> {
    let untried = optional_time(row, LANE_STATE_COLUMNS + 1)?;
    let retry = optional_time(row, LANE_STATE_COLUMNS + 2)?;
    Ok(Health {
        lane: lane_state(row, 0)?,
        waiting: get::<i64>(row, LANE_STATE_COLUMNS)?.cast_unsigned(),
        oldest_due: untried.into_iter().chain(retry).min(),
    })
}

/// The lane's state, how many are open, and when the first of what was never tried came to be owed, and the
/// first retry is due.
fn health_sql() -> String {
    format!(
        "SELECT {LANE_STATE},
             (SELECT count(*) FROM (
                 SELECT FROM esl.open a WHERE a.lane = s.lane
                 ORDER BY a.due_at, a.seq LIMIT $3
             ) counted),
             (
                 SELECT coalesce(a.created_at, e.timestamp)
                 FROM esl.open a
                 CROSS JOIN LATERAL (
                     SELECT v.timestamp FROM esl.events v
                     WHERE v.organization = g.key AND v.seq = a.seq LIMIT 1
                 ) e
                 WHERE a.lane = s.lane AND a.due_at = 0 ORDER BY a.seq LIMIT 1
             ),
             (
                 SELECT a.due_at FROM esl.open a
                 WHERE a.lane = s.lane AND a.due_at > 0 ORDER BY a.due_at LIMIT 1
             )
         FROM esl.organizations g
         JOIN esl.subscriptions s ON s.organization = g.key
         LEFT JOIN esl.lanes l ON l.lane = s.lane
         WHERE g.id = $1 AND g.deleted_at IS NULL AND s.id = $2 AND s.deleted_at IS NULL"
    )
}
