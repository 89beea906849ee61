//! The keys that links to large payloads are signed with.

use esl_core::{LinkKey, SealedPlace};
use rusqlite::OptionalExtension;

use crate::storage::{encryption_keys, error::Stop, rows, session::Session};

/// The keys, the newest first; after a new one was added, if it was time.
pub(crate) fn link_keys(session: &mut Session<'_>, fresh: &LinkKey) -> Result<Vec<LinkKey>, Stop> {
    let connection = session.connection;
    let newest = "SELECT number, made_at FROM esl_link_keys ORDER BY number DESC LIMIT 1";
    let mut newest = connection.prepare_cached(newest)?;
    let newest = newest.query_row([], |row| Ok((row.get::<_, i64>(0)?, rows::time(row, 1)?)));
    let newest = newest.optional()?;
    if newest.is_none_or(|(_, made_at)| session.now.since(made_at) >= LinkKey::AGE_MAX) {
        encryption_keys::demand_known(session, READ)?;
        encryption_keys::note(session)?;
        // The newest one is never forgotten, so no number comes twice.
        let number = newest.map_or(1, |(number, _)| number + 1);
        let key = session.secrets.bytes(fresh.expose(), SealedPlace::LinkKey(number))?;
        let insert = "INSERT INTO esl_link_keys (number, key, made_at) VALUES (?1, ?2, ?3)";
        connection.prepare_cached(insert)?.execute((number, key, session.now.as_millis()))?;
        let forget = "DELETE FROM esl_link_keys WHERE number NOT IN (
                          SELECT number FROM esl_link_keys ORDER BY number DESC LIMIT 2)";
        connection.prepare_cached(forget)?.execute([])?;
    }
    let mut all =
        connection.prepare_cached("SELECT number, key FROM esl_link_keys ORDER BY number DESC")?;
    let keys = all.query_map([], |row| {
        let place = SealedPlace::LinkKey(row.get(0)?);
        session.secrets.read_bytes(row, 1, place).map(LinkKey::from_bytes)
    })?;
    Ok(keys.collect::<Result<_, _>>()?)
}

const READ: &str = "read the keys of links";
