//! Expiry: closing what was held for too long, a slice at a time.
//!
//! The lanes that may have something to expire are gone through in turn, some at each call, so that
//! very many paused subscriptions cost a call no more than few.

use esl_core::{
    LaneId, Timestamp, expires_until,
    storage::{Swept, encoding::Ending},
};
use rusqlite::OptionalExtension;

use crate::storage::{
    rows::{self, lane_number},
    session::Session,
};

/// Expires at most `left` deliveries, which are taken off it, and looks at no more lanes. Says whether
/// it went through all lanes.
pub(crate) fn expire(
    session: &mut Session<'_>,
    left: &mut usize,
    swept: &mut Swept,
) -> rusqlite::Result<bool> {
    for _ in 0..*left {
        let Some(held) = next_lane(session)? else {
            session.expiry_after = 0;
            return Ok(true);
        };
        let lane = lane_number(held.lane);
        if let Some(until) = expires_until(held.since, held.expiring, session.now) {
            let expired = expire_lane(session, lane, until, *left)?;
            swept.expired += expired;
            *left -= expired;
            if *left == 0 {
                // There may be more in this lane: the next call begins with it again.
                return Ok(false);
            }
            if held.expiring.is_some() {
                session.connection.prepare_cached(IS_EXPIRED)?.execute([lane])?;
                swept.ready.push(held.lane);
            }
        }
        session.expiry_after = lane;
    }
    Ok(false)
}

/// As much of a subscription as says what of it expires.
struct Held {
    lane: LaneId,
    since: Option<Timestamp>,
    expiring: Option<Timestamp>,
}

fn next_lane(session: &Session<'_>) -> rusqlite::Result<Option<Held>> {
    let mut select = session.connection.prepare_cached(NEXT_HELD)?;
    let held = select.query_row([session.expiry_after], |row| {
        Ok(Held {
            lane: rows::lane(row, 0)?,
            since: rows::optional_time(row, 1)?,
            expiring: rows::optional_time(row, 2)?,
        })
    });
    held.optional()
}

/// Expires what is due in a lane, and says how many deliveries that were.
fn expire_lane(
    session: &Session<'_>,
    lane: i64,
    until: Timestamp,
    limit: usize,
) -> rusqlite::Result<usize> {
    let mut keys = retries(session, lane, until, limit)?;
    let left = limit - keys.len();
    keys.extend(untried(session, lane, until, left)?);
    let mut close = session.connection.prepare_cached(crate::storage::sweep::CLOSE)?;
    let mut remove = session.connection.prepare_cached(crate::storage::sweep::REMOVE)?;
    let now = session.now.as_millis();
    for (due_at, seq) in &keys {
        close.execute((lane, due_at, seq, Ending::Expired.number(), now))?;
        remove.execute((lane, due_at, seq))?;
    }
    Ok(keys.len())
}

fn retries(
    session: &Session<'_>,
    lane: i64,
    until: Timestamp,
    limit: usize,
) -> rusqlite::Result<Vec<(i64, i64)>> {
    let mut select = session.connection.prepare_cached(RETRIES)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let keys =
        select.query_map((lane, until.as_millis(), limit), |row| Ok((row.get(0)?, row.get(1)?)))?;
    keys.collect()
}

/// Those that were never tried, up to one whose event is younger.
fn untried(
    session: &Session<'_>,
    lane: i64,
    until: Timestamp,
    limit: usize,
) -> rusqlite::Result<Vec<(i64, i64)>> {
    let mut select = session.connection.prepare_cached(UNTRIED)?;
    let mut rows = select.query([lane])?;
    let mut keys = Vec::new();
    while keys.len() < limit {
        let Some(row) = rows.next()? else { break };
        if rows::time(row, 1)? > until {
            break;
        }
        keys.push((0, row.get(0)?));
    }
    Ok(keys)
}

const NEXT_HELD: &str = "
SELECT lane, held_since, expiring FROM esl_subscriptions
WHERE lane > ?1 AND deleted_at IS NULL AND (held_since IS NOT NULL OR expiring IS NOT NULL)
ORDER BY lane LIMIT 1";

const IS_EXPIRED: &str = "UPDATE esl_subscriptions SET expiring = NULL WHERE lane = ?1";

const RETRIES: &str = "
SELECT due_at, seq FROM esl_open
WHERE lane = ?1 AND due_at > 0 AND due_at <= ?2 ORDER BY due_at, seq LIMIT ?3";

const UNTRIED: &str = "
SELECT d.seq, coalesce(d.created_at, e.timestamp)
FROM esl_open d
JOIN esl_subscriptions s ON s.lane = d.lane
JOIN esl_events e ON e.key = (s.organization << 40 | d.seq)
WHERE d.lane = ?1 AND d.due_at = 0 ORDER BY d.seq";

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn what_expires_is_found_by_search() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let index = "SEARCH esl_subscriptions USING INDEX esl_subscriptions_held (lane>?)";
        assert_plan(&connection, NEXT_HELD, &[index]);
        let key = "SEARCH esl_open USING PRIMARY KEY (lane=? AND due_at>? AND due_at<?)";
        assert_plan(&connection, RETRIES, &[key]);
        let keys = [
            "SEARCH d USING PRIMARY KEY (lane=? AND due_at=?)",
            "SEARCH s USING INTEGER PRIMARY KEY (rowid=?)",
            "SEARCH e USING INTEGER PRIMARY KEY (rowid=?)",
        ];
        assert_plan(&connection, UNTRIED, &keys);
    }
}
