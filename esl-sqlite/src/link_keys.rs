//! The keys that links to large payloads are signed with.

use esl_core::LinkKey;

use crate::{rows, session::Session};

/// The keys, the newest first; after a new one was added, if it was time.
pub(crate) fn link_keys(session: &Session<'_>, fresh: &LinkKey) -> rusqlite::Result<Vec<LinkKey>> {
    let connection = session.connection;
    let newest = "SELECT made_at FROM esl_link_keys ORDER BY number DESC LIMIT 1";
    let mut newest = connection.prepare_cached(newest)?;
    let mut found = newest.query([])?;
    let is_due = match found.next()? {
        Some(row) => session.now.since(rows::time(row, 0)?) >= LinkKey::AGE_MAX,
        None => true,
    };
    if is_due {
        let insert = "INSERT INTO esl_link_keys (key, made_at) VALUES (?1, ?2)";
        let parameters = (fresh.expose(), session.now.as_millis());
        connection.prepare_cached(insert)?.execute(parameters)?;
        let forget = "DELETE FROM esl_link_keys WHERE number NOT IN (
                          SELECT number FROM esl_link_keys ORDER BY number DESC LIMIT 2)";
        connection.prepare_cached(forget)?.execute([])?;
    }
    let all = "SELECT key FROM esl_link_keys ORDER BY number DESC";
    let mut all = connection.prepare_cached(all)?;
    let keys = all.query_map([], |row| Ok(LinkKey::from_bytes(row.get(0)?)))?;
    keys.collect()
}
