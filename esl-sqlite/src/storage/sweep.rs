//! Chores, a slice at a time.

use esl_core::storage::{Swept, encoding::Ending};

use crate::storage::{commit::expired_idempotency, expiry, session::Session};

/// Does at most `limit` rows' worth of chores.
pub(crate) fn sweep(session: &mut Session<'_>, limit: usize) -> rusqlite::Result<Swept> {
    let mut swept = Swept::default();
    let mut left = limit;
    // First, because a subscription that was resumed may wait for it.
    let is_expired = expiry::expire(session, &mut left, &mut swept)?;
    let mut slice = Slice { session, left };
    let now = session.now.as_millis();
    let expired = expired_idempotency(session.now).as_millis();
    swept.idempotency_keys = slice.delete(IDEMPOTENCY_KEYS, expired)?;
    swept.tokens = slice.delete(TOKENS, now)?;
    slice.delete(RETIRED_SECRETS, now)?;
    let is_looked_through = slice.cancel(&mut swept)?;
    let is_cut_short = slice.left == 0 || !is_looked_through;
    swept.more = !is_expired || (is_cut_short && has_more(session, expired, now)?);
    Ok(swept)
}

struct Slice<'s, 'c> {
    session: &'s Session<'c>,
    left: usize,
}

impl Slice<'_, '_> {
    fn delete(&mut self, sql: &str, until: i64) -> rusqlite::Result<usize> {
        let mut delete = self.session.connection.prepare_cached(sql)?;
        let deleted = delete.execute((until, self.limit()))?;
        self.left -= deleted;
        Ok(deleted)
    }

    /// Closes the open deliveries of deleted subscriptions, lane by lane. Says whether it went through
    /// all lanes.
    fn cancel(&mut self, swept: &mut Swept) -> rusqlite::Result<bool> {
        let connection = self.session.connection;
        // Lanes that have nothing open are rows, too.
        for _ in 0..self.left {
            if self.left == 0 {
                break;
            }
            let mut deleted = connection.prepare_cached(DELETED)?;
            let mut rows = deleted.query([])?;
            let Some(row) = rows.next()? else { return Ok(true) };
            let (lane, deleted_at): (i64, i64) = (row.get(0)?, row.get(1)?);
            drop(rows);

            let mut open = connection.prepare_cached(OPEN)?;
            let keys =
                open.query_map((lane, self.limit()), |row| Ok((row.get(0)?, row.get(1)?)))?;
            let keys: Vec<(i64, i64)> = keys.collect::<Result<_, _>>()?;
            let mut close = connection.prepare_cached(CLOSE)?;
            let mut remove = connection.prepare_cached(REMOVE)?;
            for (due_at, seq) in &keys {
                close.execute((lane, due_at, seq, Ending::Cancelled.number(), deleted_at))?;
                remove.execute((lane, due_at, seq))?;
            }
            if keys.len() < self.left {
                // A deleted lane gets nothing new, so this was the last of it.
                connection.prepare_cached(IS_SWEPT)?.execute([lane])?;
            }
            swept.cancelled += keys.len();
            self.left -= keys.len();
        }
        Ok(false)
    }

    fn limit(&self) -> i64 {
        i64::try_from(self.left).unwrap_or(i64::MAX)
    }
}

/// A lane that is yet to be swept counts whether or not something is open in it: of very many lanes,
/// finding that out for each would cost more than sweeping some.
fn has_more(session: &Session<'_>, expired: i64, now: i64) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 WHERE EXISTS (SELECT 1 FROM esl_idempotency WHERE created_at <= ?1)
                   OR EXISTS (SELECT 1 FROM esl_tokens WHERE expires_at <= ?2)
                   OR EXISTS (SELECT 1 FROM esl_subscriptions
                              WHERE deleted_at IS NOT NULL AND is_swept = 0)";
    session.connection.prepare_cached(sql)?.exists((expired, now))
}

const IDEMPOTENCY_KEYS: &str = "
DELETE FROM esl_idempotency WHERE (organization, key) IN (
    SELECT organization, key FROM esl_idempotency WHERE created_at <= ?1 LIMIT ?2
)";

const TOKENS: &str = "
DELETE FROM esl_tokens WHERE digest IN (
    SELECT digest FROM esl_tokens WHERE expires_at <= ?1 LIMIT ?2
)";

const RETIRED_SECRETS: &str = "
UPDATE esl_subscriptions SET old_secret = NULL, old_secret_until = NULL WHERE lane IN (
    SELECT lane FROM esl_subscriptions
    WHERE old_secret_until IS NOT NULL AND old_secret_until <= ?1 LIMIT ?2
)";

const DELETED: &str = "
SELECT lane, deleted_at FROM esl_subscriptions
WHERE deleted_at IS NOT NULL AND is_swept = 0
ORDER BY lane LIMIT 1";

const IS_SWEPT: &str = "UPDATE esl_subscriptions SET is_swept = 1 WHERE lane = ?1";

const OPEN: &str = "SELECT due_at, seq FROM esl_open WHERE lane = ?1 LIMIT ?2";

pub(crate) const CLOSE: &str = "
INSERT INTO esl_closed
    (lane, seq, state, attempts, finished_at, created_at, last_status, last_error)
SELECT lane, seq, ?4, attempts, ?5, created_at, last_status, last_error
FROM esl_open WHERE lane = ?1 AND due_at = ?2 AND seq = ?3";

pub(crate) const REMOVE: &str = "DELETE FROM esl_open WHERE lane = ?1 AND due_at = ?2 AND seq = ?3";

#[cfg(test)]
mod tests {
    use esl_core::Timestamp;
    use rusqlite::Connection;

    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn chores_are_found_by_search() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        for (sql, index) in [
            (IDEMPOTENCY_KEYS, "COVERING INDEX esl_idempotency_by_age (created_at<?)"),
            (TOKENS, "COVERING INDEX esl_tokens_by_expiry (expires_at<?)"),
        ] {
            let table = sql.split_whitespace().nth(2).unwrap();
            let found = format!("SEARCH {table} USING {index}");
            let key = format!("SEARCH {table} USING PRIMARY KEY");
            let listed = ["LIST SUBQUERY", "CREATE BLOOM FILTER"];
            assert_plan(&connection, sql, &[&found, &key, listed[0], listed[1]]);
        }
        let index = "SCAN esl_subscriptions USING INDEX esl_subscriptions_to_sweep";
        assert_plan(&connection, DELETED, &[index]);
        assert_plan(&connection, OPEN, &["SEARCH esl_open USING PRIMARY KEY (lane=?)"]);
    }
}
