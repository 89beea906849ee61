//! How a subscription fares.

use esl_core::{LaneId, OrganizationId, SubscriptionId, Timestamp, storage::Health};
use rusqlite::{Connection, OptionalExtension};

use crate::storage::{
    rows::{self, lane_number},
    subscriptions::read_state,
};

pub(crate) fn health(
    connection: &Connection,
    organization: OrganizationId,
    subscription: SubscriptionId,
) -> rusqlite::Result<Option<Health>> {
    let mut select = connection.prepare_cached(LANE)?;
    let parameters = (subscription.to_bytes(), organization.to_bytes());
    let found = select.query_row(parameters, |row| Ok((rows::lane(row, 0)?, row.get(1)?)));
    let Some((lane, organization)) = found.optional()? else { return Ok(None) };
    let counted_max = Health::WAITING_COUNTED_MAX.cast_signed();
    let waiting: i64 = connection
        .prepare_cached(WAITING)?
        .query_row((lane_number(lane), counted_max), |row| row.get(0))?;
    Ok(Some(Health {
        lane: read_state(connection, lane)?,
        waiting: waiting.cast_unsigned(),
        oldest_due: oldest_due(connection, lane, organization)?,
    }))
}

/// When the open delivery that is due first was due, or will be.
fn oldest_due(
    connection: &Connection,
    lane: LaneId,
    organization: i64,
) -> rusqlite::Result<Option<Timestamp>> {
    let time = |sql: &str, parameters: &[&dyn rusqlite::ToSql]| {
        let mut select = connection.prepare_cached(sql)?;
        select.query_row(parameters, |row| rows::time(row, 0)).optional()
    };
    let lane = lane_number(lane);
    let untried = time(FIRST_UNTRIED, &[&lane, &organization])?;
    let retry = time(FIRST_RETRY, &[&lane])?;
    Ok(untried.into_iter().chain(retry).min())
}

const LANE: &str = "
SELECT s.lane, s.organization
FROM esl_subscriptions s JOIN esl_organizations o ON o.key = s.organization
WHERE s.id = ?1 AND o.id = ?2 AND s.deleted_at IS NULL";

const WAITING: &str = "
SELECT count(*) FROM (SELECT 1 FROM esl_open WHERE lane = ?1 LIMIT ?2)";

const FIRST_UNTRIED: &str = "
SELECT coalesce(d.created_at, e.timestamp)
FROM esl_open d JOIN esl_events e ON e.key = (?2 << 40 | d.seq)
WHERE d.lane = ?1 AND d.due_at = 0 ORDER BY d.seq LIMIT 1";

const FIRST_RETRY: &str = "
SELECT due_at FROM esl_open WHERE lane = ?1 AND due_at > 0 ORDER BY due_at LIMIT 1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn health_is_found_by_search() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let key = "SEARCH esl_open USING PRIMARY KEY (lane=? AND due_at>?)";
        assert_plan(&connection, FIRST_RETRY, &[key]);
        let keys = [
            "SEARCH d USING PRIMARY KEY (lane=? AND due_at=?)",
            "SEARCH e USING INTEGER PRIMARY KEY (rowid=?)",
        ];
        assert_plan(&connection, FIRST_UNTRIED, &keys);
    }
}
