//! What stored envelopes say of blobs, and whose the blob store is.

use std::collections::HashSet;

use esl_core::{BlobKey, InstallationId};
use rusqlite::{Connection, OptionalExtension, Row, blob::Blob};

use crate::storage::{readers::Snapshot, session::Session};

/// The blob that the head of an envelope, in the first column, names.
pub(crate) fn named(row: &Row<'_>) -> rusqlite::Result<Option<BlobKey>> {
    // As text it would be damaged, and name the blob no less.
    let head =
        row.get_ref(0)?.as_bytes().map_err(|error| crate::storage::rows::mistyped(0, error))?;
    Ok(BlobKey::named_by(head))
}

/// The blobs that stored events name. Of each envelope only the beginning is read, by SQLite too:
/// `substr` would read all of it first.
pub(crate) fn named_by(
    connection: &Connection,
    events: impl Iterator<Item = i64>,
) -> rusqlite::Result<Vec<BlobKey>> {
    let mut named = Vec::new();
    let mut body: Option<Blob<'_>> = None;
    let mut head = [0; HEAD_BYTES];
    for key in events {
        let body = match body.take() {
            Some(mut other) => {
                other.reopen(key)?;
                body.insert(other)
            }
            None => body.insert(connection.blob_open("main", "esl_events", "body", key, true)?),
        };
        let length = body.read_at(&mut head, 0)?;
        named.extend(BlobKey::named_by(&head[..length]));
    }
    Ok(named)
}

/// Which installation this is.
pub(crate) fn installation(
    session: &Session<'_>,
    fresh: InstallationId,
) -> rusqlite::Result<InstallationId> {
    let sql = "UPDATE esl_engine SET installation = coalesce(installation, ?1) WHERE one = 1
               RETURNING installation";
    let mut update = session.connection.prepare_cached(sql)?;
    update.query_one([fresh.to_bytes()], |row| Ok(InstallationId::from_bytes(row.get(0)?)))
}

/// Those that no envelope names.
pub(crate) fn unnamed(
    snapshot: &Snapshot<'_>,
    mut keys: Vec<BlobKey>,
) -> rusqlite::Result<Vec<BlobKey>> {
    // The intake first: what is moved out of it meanwhile is found among the events.
    let waiting = in_intake(snapshot)?;
    keys.retain(|key| !waiting.contains(key));
    let mut event = snapshot.connection.prepare_cached(EVENT)?;
    let mut unnamed = Vec::new();
    for key in keys {
        snapshot.refresh()?;
        let ids = (key.event.to_bytes(), key.organization.to_bytes());
        let stored = event.query_row(ids, named).optional()?.flatten();
        if stored != Some(key) {
            unnamed.push(key);
        }
    }
    Ok(unnamed)
}

/// Few rows, unless the engine is switched off: then its work waits for this one's, in stretches.
fn in_intake(snapshot: &Snapshot<'_>) -> rusqlite::Result<HashSet<BlobKey>> {
    let mut select = snapshot.connection.prepare_cached(INTAKE)?;
    let mut found = HashSet::new();
    let mut after = i64::MIN;
    loop {
        snapshot.refresh()?;
        let rows = select.query_map((after, STRETCH), |row| Ok((named(row)?, row.get(1)?)))?;
        let rows = rows.collect::<Result<Vec<(_, i64)>, _>>()?;
        let Some((_, last)) = rows.last() else { return Ok(found) };
        after = *last;
        found.extend(rows.into_iter().filter_map(|(named, _)| named));
    }
}

/// Enough of an envelope to see whether its data is in a blob.
const HEAD_BYTES: usize = 1024;

const EVENT: &str = "
SELECT substr(body, 1, 1024) FROM esl_events
WHERE id = ?1 AND key >> 40 = (SELECT key FROM esl_organizations WHERE id = ?2)";

const INTAKE: &str = "
SELECT substr(body, 1, 1024), id FROM esl_intake WHERE id > ?1 ORDER BY id LIMIT ?2";

const STRETCH: i64 = 1000;

#[cfg(test)]
mod tests {
    use esl_core::Timestamp;
    use rusqlite::Connection;

    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn the_event_of_a_blob_is_found_by_search() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let event = "SEARCH esl_events USING INDEX esl_events_by_id (id=?)";
        let organization = "SEARCH esl_organizations USING COVERING INDEX sqlite_autoindex_esl_o";
        assert_plan(&connection, EVENT, &[event, "SCALAR SUBQUERY", organization]);
        let intake = "SEARCH esl_intake USING INTEGER PRIMARY KEY (rowid>?)";
        assert_plan(&connection, INTAKE, &[intake]);
    }
}
