//! Letting go of what is not kept any more, a slice at a time.
//!
//! Of what is old, in [`retention`]; of what deleted organizations have left, in [`deletion`]; of what
//! waits in the intake for nobody, in [`strays`](crate::storage::strays); and of what an event said, in
//! [`erasure`].

use std::time::Duration;

use async_trait::async_trait;
use esl_core::{
    Actor, BlobKey, EventId, InstallationId, LinkKey, OrganizationId, Seq,
    storage::{Erased, Removal, Removed, StorageError, Worker, encoding::Ending},
};
use rusqlite::{Connection, Row};

use crate::storage::{
    SqliteStorage, blobs, deletion, erasure, link_keys,
    readers::Snapshot,
    retention,
    rows::{self, seq_number},
    session::Session,
    strays::Strays,
};

#[async_trait]
impl Removal for SqliteStorage {
    async fn remove_old(
        &self,
        worker: &Worker,
        age: Option<Duration>,
        limit: usize,
    ) -> Result<Removed, StorageError> {
        const OPERATION: &str = "remove what is old";
        let worker = *worker;
        let work = move |session: &mut Session<'_>| {
            session.demand_running(&worker, OPERATION)?;
            let mut slice = Slice { left: limit, removed: Removed::default() };
            slice.removed.more = !remove(session, age, &mut slice)?;
            Ok(slice.removed)
        };
        let removed = self.writer().run(OPERATION, limit, work).await?;
        // Whoever has erased may have ended before the files were clean. What was removed stands even
        // if that fails, and its blobs are named here only.
        if !removed.more
            && let Err(error) = self.clean_up().await
        {
            tracing::error!(error = &error as &dyn std::error::Error, "could not clean up");
        }
        Ok(removed)
    }

    async fn erase_event(
        &self,
        organization: OrganizationId,
        id: EventId,
    ) -> Result<Erased, StorageError> {
        self.erase(organization, id).await
    }

    async fn organizations_of_event(
        &self,
        id: EventId,
    ) -> Result<Vec<OrganizationId>, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| Ok(erasure::find(snapshot.connection, id)?);
        self.readers().run("look for an event", work).await
    }

    async fn unnamed_blobs(&self, keys: Vec<BlobKey>) -> Result<Vec<BlobKey>, StorageError> {
        if keys.is_empty() {
            return Ok(keys);
        }
        let work = move |snapshot: &Snapshot<'_>| Ok(blobs::unnamed(snapshot, keys)?);
        self.readers().run("look for the events of blobs", work).await
    }

    async fn installation(&self, fresh: InstallationId) -> Result<InstallationId, StorageError> {
        let work = move |session: &mut Session<'_>| Ok(blobs::installation(session, fresh)?);
        self.writer().run("read which installation it is", 1, work).await
    }

    async fn link_keys(&self, fresh: LinkKey) -> Result<Vec<LinkKey>, StorageError> {
        let work = move |session: &mut Session<'_>| link_keys::link_keys(session, &fresh);
        self.writer().run("read the keys of links", 1, work).await
    }

    async fn delete_organization(
        &self,
        id: OrganizationId,
        by: &Actor,
    ) -> Result<(), StorageError> {
        self.delete(id, by).await
    }
}

/// Where removing stands.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) round: retention::Round,
    strays: Strays,
    /// Whether retention is through with its round, and waits for the deletions.
    is_round_over: bool,
    is_deletions_turn: bool,
}

/// Does a slice; true when nothing is left to do. Retention and deletions come first by turns, so that
/// neither waits until the other has nothing left.
fn remove(
    session: &mut Session<'_>,
    age: Option<Duration>,
    slice: &mut Slice,
) -> rusqlite::Result<bool> {
    if !erasure::resume(session, slice)? {
        return Ok(false);
    }
    let (connection, old) = (session.connection, age.map(|age| session.now - age));
    let are_strays_gone = session.removal.strays.remove(connection, old, slice)?;
    let is_deletions_turn = !session.removal.is_deletions_turn;
    let (mut is_deleted, mut is_round_over) = (false, session.removal.is_round_over);
    for is_deletion in [is_deletions_turn, !is_deletions_turn] {
        if is_deletion {
            is_deleted = deletion::remove(session, slice)?;
        } else if let Some(age) = age
            && !is_round_over
        {
            is_round_over = retention::remove(session, age, slice)?;
        }
    }
    let is_done = are_strays_gone && is_deleted && (is_round_over || age.is_none());
    if is_done {
        session.removal.strays.begin_anew();
    }
    session.removal.is_round_over = is_round_over && !is_done;
    session.removal.is_deletions_turn = is_deletions_turn;
    Ok(is_done)
}

/// What one call may do, and has done.
pub(crate) struct Slice {
    /// Rows, searches, and pages of large bodies.
    pub(crate) left: usize,
    pub(crate) removed: Removed,
}

impl Slice {
    pub(crate) fn use_up(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count);
    }

    /// A page costs as much as a row: what is freed is read before.
    pub(crate) fn use_up_bytes(&mut self, bytes: u64) {
        self.use_up(usize::try_from(bytes / PAGE_BYTES).unwrap_or(usize::MAX));
    }

    pub(crate) fn limit(&self) -> i64 {
        i64::try_from(self.left).unwrap_or(i64::MAX)
    }
}

const PAGE_BYTES: u64 = 4096;

/// Removes closed deliveries of a lane up to a seq, with their attempts; true when none is left.
pub(crate) fn remove_closed_of(
    connection: &Connection,
    lane: i64,
    to: Seq,
    slice: &mut Slice,
) -> rusqlite::Result<bool> {
    let mut select = connection.prepare_cached(CLOSED)?;
    let mut closed = select.query((lane, seq_number(to)))?;
    let mut remove_attempts = connection.prepare_cached(REMOVE_ATTEMPTS)?;
    let (mut last, mut is_done) = (None, false);
    while slice.left > 0 {
        let Some(row) = closed.next()? else {
            is_done = true;
            break;
        };
        let (seq, attempts): (i64, u32) = (row.get(0)?, row.get(1)?);
        last = Some(seq);
        slice.removed.deliveries += 1;
        slice.use_up(1);
        // A success at the first try has left no attempts.
        if attempts > 1 || rows::ending(row, 2)? != Ending::Delivered {
            let attempts = remove_attempts.execute((lane, seq))?;
            slice.removed.attempts += attempts;
            slice.use_up(attempts);
        }
    }
    drop(closed);
    if let Some(last) = last {
        connection.prepare_cached(REMOVE_CLOSED)?.execute((lane, last))?;
    }
    Ok(is_done)
}

/// An event or entity that is to be removed.
pub(crate) struct Doomed {
    pub(crate) key: i64,
    /// Its envelope and its changes, or its document.
    pub(crate) bytes: u64,
}

impl Doomed {
    /// Reads the first two columns.
    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { key: row.get(0)?, bytes: row.get::<_, i64>(1)?.unsigned_abs() })
    }
}

/// Removes events, and names the blobs that were theirs. Whoever has chosen them has paid for it.
pub(crate) fn remove_events(
    connection: &Connection,
    events: &[Doomed],
    slice: &mut Slice,
) -> rusqlite::Result<()> {
    let removed = &mut slice.removed;
    removed.blobs.extend(blobs::named_by(connection, events.iter().map(|event| event.key))?);
    let mut remove = connection.prepare_cached(REMOVE_EVENT)?;
    for event in events {
        remove.execute([event.key])?;
        removed.events += 1;
        removed.bytes += event.bytes;
    }
    Ok(())
}

const CLOSED: &str = "
SELECT seq, attempts, state FROM esl_closed WHERE lane = ?1 AND seq <= ?2 ORDER BY seq";

const REMOVE_ATTEMPTS: &str = "DELETE FROM esl_attempts WHERE lane = ?1 AND seq = ?2";

const REMOVE_CLOSED: &str = "DELETE FROM esl_closed WHERE lane = ?1 AND seq <= ?2";

const REMOVE_EVENT: &str = "DELETE FROM esl_events WHERE key = ?1";

#[cfg(test)]
mod tests {
    use esl_core::Timestamp;

    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn what_is_removed_is_found_by_search() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let closed = "SEARCH esl_closed USING PRIMARY KEY (lane=? AND seq<?)";
        for (sql, plan) in [
            (CLOSED, closed),
            (REMOVE_CLOSED, closed),
            (REMOVE_ATTEMPTS, "SEARCH esl_attempts USING PRIMARY KEY (lane=? AND seq=?)"),
            (REMOVE_EVENT, "SEARCH esl_events USING INTEGER PRIMARY KEY (rowid=?)"),
        ] {
            assert_plan(&connection, sql, &[plan]);
        }
    }
}
