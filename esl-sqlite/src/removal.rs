//! Removing what is old, in slices.
//!
//! A round goes through the organizations. In each it finds up to which seq everything is old, and
//! says so in the organization's row first: from then on nothing up to there is opened again. Then the
//! lanes' closed deliveries go, lane by lane, and at last the events, but for those that a lane still
//! owes. Where a round stands is remembered here and not in the database: a restart begins anew, and
//! finds little to do where it was before.

use std::time::Duration;

use async_trait::async_trait;
use esl_core::{
    BlobKey, EventId, InstallationId, LinkKey, OrganizationId, Seq, Timestamp,
    storage::{Erased, Removal, Removed, StorageError, Worker},
};
use rusqlite::{Connection, OptionalExtension};

use crate::{
    SqliteStorage, blobs, deletion, erasure, link_keys,
    readers::Snapshot,
    rows::{self, Ending, EventKey, seq_number},
    session::Session,
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
            if !deletion::remove(session, &mut slice)? {
                slice.removed.more = true;
            } else if let Some(age) = age {
                let before = session.now - age;
                slice.removed.more = !remove(session, before, &mut slice)?;
            }
            Ok(slice.removed)
        };
        self.writer().run(OPERATION, limit, work).await
    }

    async fn erase_event(
        &self,
        organization: OrganizationId,
        id: EventId,
    ) -> Result<Erased, StorageError> {
        let work = move |session: &mut Session<'_>| erasure::erase(session, organization, id);
        let erased = self.writer().run(erasure::ERASE, 1, work).await?;
        self.wash().await?;
        Ok(erased)
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
        let work = move |session: &mut Session<'_>| Ok(link_keys::link_keys(session, &fresh)?);
        self.writer().run("read the keys of links", 1, work).await
    }

    async fn delete_organization(&self, id: OrganizationId) -> Result<(), StorageError> {
        let work = move |session: &mut Session<'_>| deletion::delete(session, id);
        self.writer().run(deletion::DELETE, 1, work).await
    }
}

/// What one call may do, and has done.
pub(crate) struct Slice {
    /// Rows and searches.
    pub(crate) left: usize,
    pub(crate) removed: Removed,
}

impl Slice {
    pub(crate) fn use_up(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count);
    }

    pub(crate) fn limit(&self) -> i64 {
        i64::try_from(self.left).unwrap_or(i64::MAX)
    }
}

/// Where a round stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Round {
    /// The organizations up to this key are done.
    after: i64,
    at: Option<Place>,
}

/// Where it stands in the organization after that.
#[derive(Debug, Clone)]
struct Place {
    organization: i64,
    /// Everything up to here is old.
    to: Seq,
    /// The lanes up to this one are done; `None` when all are.
    after_lane: Option<i64>,
    /// The lanes that owe something up to `to`.
    owing: Vec<i64>,
    /// The events up to here are done.
    after_seq: Seq,
}

/// Goes on with the round; true when it has come to its end.
fn remove(
    session: &mut Session<'_>,
    before: Timestamp,
    slice: &mut Slice,
) -> rusqlite::Result<bool> {
    let mut round = std::mem::take(&mut session.removal);
    while slice.left > 0 {
        let Some(place) = &mut round.at else {
            match next_organization(session.connection, round.after)? {
                None => return Ok(true),
                Some((organization, id)) => {
                    slice.use_up(1);
                    round.after = organization;
                    round.at = begin(session, organization, id, before, slice)?;
                }
            }
            continue;
        };
        let is_done = match place.after_lane {
            Some(after) => {
                place.after_lane = remove_closed(session.connection, place, after, slice)?;
                false
            }
            None => remove_events(session.connection, place, before, slice)?,
        };
        if is_done {
            round.at = None;
        }
    }
    session.removal = round;
    Ok(false)
}

fn next_organization(
    connection: &Connection,
    after: i64,
) -> rusqlite::Result<Option<(i64, OrganizationId)>> {
    let mut select = connection.prepare_cached(NEXT_ORGANIZATION)?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok((row.get::<_, i64>(0)?, OrganizationId::from_bytes(row.get(1)?)))
    };
    select.query_row([after], read).optional()
}

/// Finds out up to where everything is old; `None` if nothing is.
fn begin(
    session: &mut Session<'_>,
    organization: i64,
    id: OrganizationId,
    before: Timestamp,
    slice: &mut Slice,
) -> rusqlite::Result<Option<Place>> {
    let connection = session.connection;
    let row = session.organization(id)?.expect("it was found in this transaction");
    let first_fan_out: Option<Seq> = connection
        .prepare_cached(FIRST_FAN_OUT)?
        .query_row([organization], |row| rows::seq(row, 0))
        .optional()?;
    let expanded_to = first_fan_out.map_or(row.last_seq, |seq| Seq::new(seq.get() - 1));
    let to = old_to(connection, organization, expanded_to, before, slice)?;
    let Some(to) = to.max((row.removed_to > Seq::ZERO).then_some(row.removed_to)) else {
        return Ok(None);
    };
    if to > row.removed_to {
        session.change_organization(id, |row| row.removed_to = to);
    }
    let owing = Vec::new();
    Ok(Some(Place { organization, to, after_lane: Some(0), owing, after_seq: Seq::ZERO }))
}

/// The last event that is old, by halving: events are sealed in the order of their seqs, but for
/// moments. (An event that is younger all the same stays; its deliveries are what may go too early.)
fn old_to(
    connection: &Connection,
    organization: i64,
    last: Seq,
    before: Timestamp,
    slice: &mut Slice,
) -> rusqlite::Result<Option<Seq>> {
    let mut select = connection.prepare_cached(FIRST_FROM)?;
    let mut first_from = |seq: u64, slice: &mut Slice| {
        slice.use_up(1);
        let key = |seq| EventKey::new(organization, Seq::new(seq)).0;
        let parameters = (key(seq), key(last.get()));
        let read = |row: &rusqlite::Row<'_>| {
            Ok((EventKey(row.get(0)?).seq().get(), rows::time(row, 1)? <= before))
        };
        select.query_row(parameters, read).optional()
    };
    let Some((mut old, true)) = first_from(1, slice)? else { return Ok(None) };
    // `old` is old; nothing from `young` on is.
    let mut young = last.get() + 1;
    while young - old > 1 {
        let middle = old + (young - old) / 2;
        match first_from(middle, slice)? {
            Some((seq, true)) => old = seq,
            Some((_, false)) | None => young = middle,
        }
    }
    Ok(Some(Seq::new(old)))
}

/// Removes what is closed in the next lane; gives the lane up to which it is done then, `None` after
/// the last.
fn remove_closed(
    connection: &Connection,
    place: &mut Place,
    after: i64,
    slice: &mut Slice,
) -> rusqlite::Result<Option<i64>> {
    let mut next = connection.prepare_cached(NEXT_LANE)?;
    let next = next.query_row((place.organization, after), |row| row.get(0)).optional()?;
    let Some(lane) = next else { return Ok(None) };
    let is_done = remove_closed_of(connection, lane, place.to, slice)?;
    // The visit comes last, so that the smallest slice, too, removes something.
    slice.use_up(1);
    if !is_done {
        return Ok(Some(after));
    }
    let mut owes = connection.prepare_cached(OWES)?;
    if owes.exists((lane, seq_number(place.to)))? {
        place.owing.push(lane);
    }
    Ok(Some(lane))
}

/// Removes closed deliveries of a lane up to a seq, with their attempts; true when none is left.
pub(crate) fn remove_closed_of(
    connection: &Connection,
    lane: i64,
    to: Seq,
    slice: &mut Slice,
) -> rusqlite::Result<bool> {
    let limit = slice.left;
    if limit == 0 {
        // That nothing is found then says nothing.
        return Ok(false);
    }
    let mut select = connection.prepare_cached(CLOSED)?;
    let read = |row: &rusqlite::Row<'_>| {
        let attempts: u32 = row.get(1)?;
        // A success at the first try has left no attempts.
        let has_log = attempts > 1 || rows::ending(row, 2)? != Ending::Delivered;
        Ok((row.get::<_, i64>(0)?, has_log))
    };
    let closed = select.query_map((lane, seq_number(to), slice.limit()), read)?;
    let closed: Vec<(i64, bool)> = closed.collect::<Result<_, _>>()?;
    let Some((last, _)) = closed.last() else { return Ok(true) };
    let mut remove_attempts = connection.prepare_cached(REMOVE_ATTEMPTS)?;
    for (seq, _) in closed.iter().filter(|(_, has_log)| *has_log) {
        slice.removed.attempts += remove_attempts.execute((lane, seq))?;
    }
    connection.prepare_cached(REMOVE_CLOSED)?.execute((lane, last))?;
    slice.removed.deliveries += closed.len();
    slice.use_up(closed.len());
    Ok(closed.len() < limit)
}

/// Removes old events that nobody owes; true when all are gone through.
fn remove_events(
    connection: &Connection,
    place: &mut Place,
    before: Timestamp,
    slice: &mut Slice,
) -> rusqlite::Result<bool> {
    let limit = slice.left;
    let key = |seq| EventKey::new(place.organization, seq).0;
    let mut select = connection.prepare_cached(EVENTS)?;
    let events = select.query_map((key(place.after_seq), key(place.to), slice.limit()), |row| {
        Ok((row.get::<_, i64>(0)?, rows::time(row, 1)?, row.get::<_, i64>(2)?.unsigned_abs()))
    })?;
    let events: Vec<(i64, Timestamp, u64)> = events.collect::<Result<_, _>>()?;
    let mut blob = connection.prepare_cached(HEAD)?;
    let mut is_owed = connection.prepare_cached(IS_OWED)?;
    let mut remove = connection.prepare_cached(REMOVE_EVENT)?;
    for (key, timestamp, bytes) in &events {
        let seq = EventKey(*key).seq();
        place.after_seq = seq;
        slice.use_up(1 + place.owing.len());
        let mut is_kept = *timestamp > before;
        for lane in &place.owing {
            is_kept = is_kept || is_owed.exists((lane, seq_number(seq)))?;
        }
        if !is_kept {
            slice.removed.blobs.extend(blob_of(&mut blob, *key)?);
            remove.execute([key])?;
            slice.removed.events += 1;
            slice.removed.bytes += bytes;
        }
        if slice.left == 0 {
            return Ok(false);
        }
    }
    Ok(events.len() < limit)
}

/// The blob that an event's data is in, if it is in one.
pub(crate) fn blob_of(
    head: &mut rusqlite::CachedStatement<'_>,
    key: i64,
) -> rusqlite::Result<Option<BlobKey>> {
    head.query_row([key], blobs::named)
}

/// Enough of an envelope to see whether its data is in a blob.
pub(crate) const HEAD: &str = "SELECT substr(body, 1, 1024) FROM esl_events WHERE key = ?1";

const NEXT_ORGANIZATION: &str = "
SELECT key, id FROM esl_organizations WHERE key > ?1 AND deleted_at IS NULL ORDER BY key LIMIT 1";

const FIRST_FAN_OUT: &str =
    "SELECT seq FROM esl_fan_outs WHERE organization = ?1 ORDER BY seq LIMIT 1";

const FIRST_FROM: &str = "
SELECT key, timestamp FROM esl_events WHERE key >= ?1 AND key <= ?2 ORDER BY key LIMIT 1";

const NEXT_LANE: &str = "
SELECT lane FROM esl_subscriptions WHERE organization = ?1 AND lane > ?2 ORDER BY lane LIMIT 1";

const CLOSED: &str = "
SELECT seq, attempts, state FROM esl_closed WHERE lane = ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3";

const REMOVE_ATTEMPTS: &str = "DELETE FROM esl_attempts WHERE lane = ?1 AND seq = ?2";

const REMOVE_CLOSED: &str = "DELETE FROM esl_closed WHERE lane = ?1 AND seq <= ?2";

const OWES: &str = "
SELECT 1 FROM esl_open WHERE lane = ?1 AND due_at = 0 AND seq <= ?2
UNION ALL
SELECT 1 FROM esl_open INDEXED BY esl_open_tried WHERE lane = ?1 AND seq <= ?2 AND due_at > 0";

const IS_OWED: &str = "
SELECT 1 FROM esl_open WHERE lane = ?1 AND due_at = 0 AND seq = ?2
UNION ALL
SELECT 1 FROM esl_open INDEXED BY esl_open_tried WHERE lane = ?1 AND seq = ?2 AND due_at > 0";

const EVENTS: &str = "
SELECT key, timestamp, length(body) FROM esl_events WHERE key > ?1 AND key <= ?2
ORDER BY key LIMIT ?3";

const REMOVE_EVENT: &str = "DELETE FROM esl_events WHERE key = ?1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plans::assert_plan;

    #[test]
    fn what_is_old_is_found_by_search() {
        let connection = Connection::open_in_memory().unwrap();
        crate::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let events = "SEARCH esl_events USING INTEGER PRIMARY KEY (rowid";
        let closed = "SEARCH esl_closed USING PRIMARY KEY (lane=? AND seq<?)";
        let lanes = "SEARCH esl_subscriptions USING COVERING INDEX esl_subscriptions_by_organi";
        for (sql, plan) in [
            (NEXT_ORGANIZATION, "SEARCH esl_organizations USING INTEGER PRIMARY KEY (rowid>?)"),
            (FIRST_FROM, events),
            (EVENTS, events),
            (REMOVE_EVENT, events),
            (NEXT_LANE, lanes),
            (CLOSED, closed),
            (REMOVE_CLOSED, closed),
            (REMOVE_ATTEMPTS, "SEARCH esl_attempts USING PRIMARY KEY (lane=? AND seq=?)"),
        ] {
            assert_plan(&connection, sql, &[plan]);
        }
        let untried = "SEARCH esl_open USING PRIMARY KEY (lane=? AND due_at=? AND seq";
        let tried = "SEARCH esl_open USING COVERING INDEX esl_open_tried (lane=? AND seq";
        for sql in [OWES, IS_OWED] {
            let both = ["COMPOUND QUERY", "LEFT-MOST SUBQUERY", "UNION ALL", untried, tried];
            assert_plan(&connection, sql, &both);
        }
    }
}
