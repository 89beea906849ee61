//! Deleting an organization: at once for everybody who asks, and its rows in slices.

use esl_core::{
    Action, Actor, OrganizationId, Seq,
    storage::{StorageError, StorageErrorKind},
};
use rusqlite::{Connection, OptionalExtension, Params};

use crate::storage::{
    SqliteStorage, audit,
    changes::News,
    error::Stop,
    removal::{Doomed, Slice, remove_closed_of, remove_events},
    session::Session,
};

const DELETE: &str = "delete an organization";

impl SqliteStorage {
    /// Deletes an organization at once for everybody who asks.
    pub(crate) async fn delete(&self, id: OrganizationId, by: &Actor) -> Result<(), StorageError> {
        // Between the slices the writer does what others want.
        loop {
            let by = by.clone();
            let slice = move |session: &mut Session<'_>| delete(session, id, &by);
            if self.writer().run(DELETE, INTAKE_MAX, slice).await? {
                return Ok(());
            }
        }
    }
}

/// Makes an organization one that nobody can name, once nothing of it is left in the intake; before that
/// removes some of what is there, and gives false. Its clients are removed, whose names are free from
/// now on; the rest of its rows are left to [`remove`], and no statement goes by them while its row
/// says that it is deleted.
fn delete(session: &mut Session<'_>, id: OrganizationId, by: &Actor) -> Result<bool, Stop> {
    let row = session.organization(id)?;
    let row = row.ok_or(Stop::refused(StorageErrorKind::NotFound, DELETE))?;
    let connection = session.connection;
    let limit = i64::try_from(INTAKE_MAX).unwrap_or(i64::MAX);
    let removed = connection.prepare_cached(INTAKE)?.execute((id.to_bytes(), limit))?;
    if removed == INTAKE_MAX {
        return Ok(false);
    }
    let scheduled = connection.prepare_cached(SCHEDULED)?.execute((id.to_bytes(), limit))?;
    if scheduled == INTAKE_MAX {
        return Ok(false);
    }
    // Under an id that is nobody's, no statement that is bound to an organization finds it. Its name is
    // one that nobody will think of.
    let unname = "UPDATE esl_organizations
                  SET id = randomblob(16), name = 'deleted ' || hex(randomblob(16)),
                      deleted_at = ?2, fan_outs = 0
                  WHERE key = ?1";
    connection.prepare_cached(unname)?.execute((row.key, session.now.as_millis()))?;
    let remember = "INSERT OR REPLACE INTO esl_deleted_organizations (id, deleted_at)
                    VALUES (?1, ?2)";
    connection.prepare_cached(remember)?.execute((id.to_bytes(), session.now.as_millis()))?;
    let clients = "DELETE FROM esl_clients WHERE organization = ?1";
    connection.prepare_cached(clients)?.execute([row.key])?;
    audit::note(session, id, by, Action::OrganizationDeleted, &id.to_string(), &[])?;
    session.forget_organization(id);
    session.tell_others(News::Tenancy)?;
    session.tell_others(News::Subscriptions(id))?;
    Ok(true)
}

/// Removes rows of deleted organizations; true when none is left.
pub(crate) fn remove(session: &Session<'_>, slice: &mut Slice) -> rusqlite::Result<bool> {
    let connection = session.connection;
    while slice.left > 0 {
        let mut next = connection.prepare_cached(NEXT_DELETED)?;
        let Some(key) = next.query_row([], |row| row.get::<_, i64>(0)).optional()? else {
            return Ok(true);
        };
        // First of all those that may be due, which others have to pass.
        let entities = doomed(connection, ENTITIES, [key], slice)?;
        if !entities.is_empty() {
            let mut remove = connection.prepare_cached(REMOVE_ENTITY)?;
            for entity in entities {
                remove.execute([entity.key])?;
            }
            continue;
        }
        let mut lane = connection.prepare_cached(NEXT_LANE)?;
        if let Some(lane) = lane.query_row([key], |row| row.get::<_, i64>(0)).optional()? {
            remove_lane(session, lane, slice)?;
            continue;
        }
        let (first, last) = (key << SEQ_BITS, (key + 1) << SEQ_BITS);
        let events = doomed(connection, EVENTS, (first, last), slice)?;
        if !events.is_empty() {
            remove_events(connection, &events, slice)?;
            continue;
        }
        let mut others = 0;
        for sql in [ENTITY_INDEX, IDEMPOTENCY_KEYS, TOKENS, FAN_OUTS] {
            others += connection.prepare_cached(sql)?.execute((key, slice.limit()))?;
        }
        if others > 0 {
            slice.use_up(others);
            continue;
        }
        connection.prepare_cached(ERASURES)?.execute((first, last))?;
        connection.prepare_cached(CURSORS)?.execute([key])?;
        connection
            .prepare_cached("DELETE FROM esl_organizations WHERE key = ?1")?
            .execute([key])?;
        slice.removed.organizations += 1;
        slice.use_up(1);
    }
    Ok(false)
}

/// Rows that may be large, as many as the slice has room for.
fn doomed(
    connection: &Connection,
    sql: &str,
    parameters: impl Params,
    slice: &mut Slice,
) -> rusqlite::Result<Vec<Doomed>> {
    let mut select = connection.prepare_cached(sql)?;
    let mut found = select.query(parameters)?;
    let mut doomed = Vec::new();
    while slice.left > 0 {
        let Some(row) = found.next()? else { break };
        let row = Doomed::read(row)?;
        slice.use_up(1);
        slice.use_up_bytes(row.bytes);
        doomed.push(row);
    }
    Ok(doomed)
}

/// Removes rows of a lane, and at last the lane.
fn remove_lane(session: &Session<'_>, lane: i64, slice: &mut Slice) -> rusqlite::Result<()> {
    let connection = session.connection;
    let open = connection.prepare_cached(OPEN)?.execute((lane, slice.limit()))?;
    slice.removed.deliveries += open;
    slice.use_up(open);
    if slice.left == 0 || !remove_closed_of(connection, lane, Seq::MAX, slice)? {
        return Ok(());
    }
    // Of what was open when it was deleted.
    let attempts = connection.prepare_cached(ATTEMPTS)?.execute((lane, slice.limit()))?;
    slice.removed.attempts += attempts;
    if attempts > 0 {
        slice.use_up(attempts);
        return Ok(());
    }
    for sql in [
        "DELETE FROM esl_lanes WHERE lane = ?1",
        "DELETE FROM esl_replays WHERE lane = ?1",
        "DELETE FROM esl_subscriptions WHERE lane = ?1",
    ] {
        connection.prepare_cached(sql)?.execute([lane])?;
    }
    slice.use_up(1);
    Ok(())
}

const SEQ_BITS: u32 = 40;

const NEXT_DELETED: &str =
    "SELECT key FROM esl_organizations WHERE deleted_at IS NOT NULL ORDER BY key LIMIT 1";

const NEXT_LANE: &str =
    "SELECT lane FROM esl_subscriptions WHERE organization = ?1 ORDER BY lane LIMIT 1";

const EVENTS: &str = "
SELECT key, length(body) + coalesce(length(changes), 0) FROM esl_events
WHERE key >= ?1 AND key < ?2 ORDER BY key";

const ENTITIES: &str = "
SELECT rowid, length(document) FROM esl_entities WHERE organization = ?1";

const REMOVE_ENTITY: &str = "DELETE FROM esl_entities WHERE rowid = ?1";

const ENTITY_INDEX: &str = "
DELETE FROM esl_entity_index WHERE (organization, kind, field, value, id) IN (
    SELECT organization, kind, field, value, id FROM esl_entity_index
    WHERE organization = ?1 LIMIT ?2
)";

const IDEMPOTENCY_KEYS: &str = "
DELETE FROM esl_idempotency WHERE (organization, key) IN (
    SELECT organization, key FROM esl_idempotency WHERE organization = ?1 LIMIT ?2
)";

const TOKENS: &str = "
DELETE FROM esl_tokens WHERE digest IN (
    SELECT digest FROM esl_tokens WHERE organization = ?1 LIMIT ?2
)";

const FAN_OUTS: &str = "
DELETE FROM esl_fan_outs WHERE (organization, seq) IN (
    SELECT organization, seq FROM esl_fan_outs WHERE organization = ?1 LIMIT ?2
)";

/// Few: one for each event that is being erased.
const ERASURES: &str = "DELETE FROM esl_erasures WHERE event >= ?1 AND event < ?2";

/// One for each feed.
const CURSORS: &str = "DELETE FROM esl_feed_cursors WHERE organization = ?1";

const SCHEDULED: &str = "
DELETE FROM esl_scheduled WHERE number IN (
    SELECT number FROM esl_scheduled WHERE organization = ?1 LIMIT ?2
)";

const INTAKE: &str = "
DELETE FROM esl_intake WHERE id IN (
    SELECT id FROM esl_intake WHERE organization = ?1 LIMIT ?2
)";

/// Intake rows that are removed in one transaction.
const INTAKE_MAX: usize = 500;

const OPEN: &str = "
DELETE FROM esl_open WHERE (lane, due_at, seq) IN (
    SELECT lane, due_at, seq FROM esl_open WHERE lane = ?1 LIMIT ?2
)";

const ATTEMPTS: &str = "
DELETE FROM esl_attempts WHERE (lane, seq, number) IN (
    SELECT lane, seq, number FROM esl_attempts WHERE lane = ?1 LIMIT ?2
)";

#[cfg(test)]
mod tests {
    use esl_core::Timestamp;

    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn what_a_deleted_organization_has_left_is_found_by_search() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let lanes = "SEARCH esl_subscriptions USING COVERING INDEX esl_subscriptions_by_organi";
        assert_plan(&connection, NEXT_LANE, &[lanes]);
        let events = "SEARCH esl_events USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)";
        assert_plan(&connection, EVENTS, &[events]);
        let entities = "SEARCH esl_entities USING INDEX sqlite_autoindex_esl_entities_1 (organi";
        assert_plan(&connection, ENTITIES, &[entities]);
        let entity = "SEARCH esl_entities USING INTEGER PRIMARY KEY (rowid=?)";
        assert_plan(&connection, REMOVE_ENTITY, &[entity]);
        for (sql, table) in [
            (ENTITY_INDEX, "esl_entity_index"),
            (OPEN, "esl_open"),
            (ATTEMPTS, "esl_attempts"),
            (IDEMPOTENCY_KEYS, "esl_idempotency"),
            (TOKENS, "esl_tokens"),
            (FAN_OUTS, "esl_fan_outs"),
            (ERASURES, "esl_erasures"),
            (CURSORS, "esl_feed_cursors"),
            (INTAKE, "esl_intake"),
        ] {
            let search = format!("SEARCH {table} USING PRIMARY KEY (");
            let index = format!("SEARCH {table} USING COVERING INDEX");
            let row = format!("SEARCH {table} USING INTEGER PRIMARY KEY (");
            assert_plan(
                &connection,
                sql,
                &[&search, &index, &row, "LIST SUBQUERY", "CREATE BLOOM FILTER"],
            );
        }
    }
}
