//! Feeds: how far all that is committed was passed on, in each organization.

use async_trait::async_trait;
use esl_core::{
    OrganizationId, Seq,
    storage::{Fed, Feed, FeedBatch, FeedRoom, FeedStep, StorageError, Worker},
};
use rusqlite::{OptionalExtension, Row};

use crate::storage::{
    SqliteStorage,
    damage::Place,
    error::Stop,
    readers::Snapshot,
    rows::{self, EventKey, STORED_EVENT, seq_number},
    session::{Session, read_organization},
};

#[async_trait]
impl Feed for SqliteStorage {
    async fn begin_feed(&self, worker: &Worker, name: &str) -> Result<(), StorageError> {
        let (worker, name) = (*worker, name.to_owned());
        let work = move |session: &mut Session<'_>| begin(session, &worker, &name);
        self.writer().run(BEGIN, 1, work).await
    }

    async fn feed(
        &self,
        name: &str,
        after: Option<OrganizationId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Fed, StorageError> {
        let name = name.to_owned();
        let room = FeedRoom::new(limit, bytes_max);
        let work = move |snapshot: &Snapshot<'_>| Ok(read(snapshot, &name, after, room)?);
        self.readers().run("read a feed", work).await
    }

    async fn advance_feed(
        &self,
        worker: &Worker,
        name: &str,
        steps: Vec<FeedStep>,
    ) -> Result<(), StorageError> {
        let (worker, name, weight) = (*worker, name.to_owned(), steps.len());
        let work = move |session: &mut Session<'_>| advance(session, &worker, &name, &steps);
        self.writer().run(ADVANCE, weight, work).await
    }
}

const BEGIN: &str = "begin a feed";
const ADVANCE: &str = "advance a feed";

fn begin(session: &mut Session<'_>, worker: &Worker, name: &str) -> Result<(), Stop> {
    session.demand_running(worker, BEGIN)?;
    let mut insert = session.connection.prepare_cached(INSERT_FEED)?;
    if insert.execute((name, session.now.as_millis()))? == 0 {
        return Ok(());
    }
    // The cursors are copies of what is there.
    session.write_organizations()?;
    session.connection.prepare_cached(INSERT_CURSORS)?.execute([name])?;
    Ok(())
}

fn read(
    snapshot: &Snapshot<'_>,
    name: &str,
    after: Option<OrganizationId>,
    mut room: FeedRoom,
) -> rusqlite::Result<Fed> {
    let connection = snapshot.connection;
    let mut fed = Fed::default();
    if !connection.prepare_cached(HAS_BEGUN)?.exists([name])? {
        return Ok(fed);
    }
    let after: i64 = match after {
        Some(id) => read_organization(connection, id)?.map_or(0, |row| row.key),
        None => 0,
    };
    let mut select = connection.prepare_cached(CURSORS)?;
    let mut rows = select.query((after, name, LOOKED_AT))?;
    let (mut looked_at, mut last) = (0, None);
    while let Some(row) = rows.next()? {
        looked_at += 1;
        let key = row.get(0)?;
        let place = Place::Organization(key, row.get(1).ok().map(OrganizationId::from_bytes));
        let Some(cursor) = snapshot.readable(place, Cursor::read(key, row))? else { continue };
        if !cursor.is_deleted && cursor.last_seq > cursor.seq {
            let (batch, is_full) = cursor.batch(snapshot, &mut room)?;
            if batch.to > batch.from {
                last = Some(cursor.organization);
                fed.batches.push(batch);
            }
            if is_full {
                return Ok(Fed { after: last, ..fed });
            }
        }
        last = Some(cursor.organization);
    }
    let is_all = looked_at < LOOKED_AT;
    Ok(Fed { after: last.filter(|_| !is_all), ..fed })
}

/// Where a feed stands in an organization.
struct Cursor {
    key: i64,
    organization: OrganizationId,
    last_seq: Seq,
    seq: Seq,
    is_deleted: bool,
}

impl Cursor {
    fn read(key: i64, row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            key,
            organization: OrganizationId::from_bytes(row.get(1)?),
            last_seq: rows::seq(row, 2)?,
            seq: rows::seq(row, 3)?,
            is_deleted: row.get(4)?,
        })
    }

    /// What comes next, and whether there was no room for all of it.
    fn batch(
        &self,
        snapshot: &Snapshot<'_>,
        room: &mut FeedRoom,
    ) -> rusqlite::Result<(FeedBatch, bool)> {
        let (organization, from) = (self.organization, self.seq);
        let mut batch = FeedBatch { organization, from, to: self.last_seq, events: Vec::new() };
        let keys = [self.seq, self.last_seq].map(|seq| EventKey::new(self.key, seq).0);
        let mut select = snapshot.connection.prepare_cached(&events_sql())?;
        let mut rows = select.query(keys)?;
        while let Some(row) = rows.next()? {
            let key = EventKey(row.get(0)?);
            let place = Place::event(key, row, 1);
            let Some(event) = snapshot.readable(place, rows::stored_event(row))? else { continue };
            if !room.takes(&event) {
                batch.to = batch.events.last().map_or(from, |last| last.seq);
                return Ok((batch, true));
            }
            batch.events.push(event);
        }
        Ok((batch, false))
    }
}

fn advance(
    session: &mut Session<'_>,
    worker: &Worker,
    name: &str,
    steps: &[FeedStep],
) -> Result<(), Stop> {
    session.demand_running(worker, ADVANCE)?;
    let connection = session.connection;
    if !connection.prepare_cached(HAS_BEGUN)?.exists([name])? {
        return Ok(());
    }
    let mut select = connection.prepare_cached(CURSOR)?;
    let mut upsert = connection.prepare_cached(MOVE)?;
    for FeedStep { organization, from, to } in steps {
        let Some(row) = session.organization(*organization)? else { continue };
        let cursor = select.query_row((row.key, name), |row| rows::seq(row, 0)).optional()?;
        if cursor.unwrap_or(Seq::ZERO) == *from && (*from..=row.last_seq).contains(to) {
            upsert.execute((row.key, name, seq_number(*to)))?;
        }
    }
    Ok(())
}

const INSERT_FEED: &str =
    "INSERT INTO esl_feeds (name, begun_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING";

const INSERT_CURSORS: &str = "
INSERT INTO esl_feed_cursors (organization, feed, seq)
SELECT key, ?1, last_seq FROM esl_organizations WHERE deleted_at IS NULL";

const HAS_BEGUN: &str = "SELECT 1 FROM esl_feeds WHERE name = ?1";

const CURSORS: &str = "
SELECT o.key, o.id, o.last_seq, coalesce(c.seq, 0), o.deleted_at IS NOT NULL
FROM esl_organizations o
LEFT JOIN esl_feed_cursors c ON c.organization = o.key AND c.feed = ?2
WHERE o.key > ?1 ORDER BY o.key LIMIT ?3";

fn events_sql() -> String {
    format!(
        "SELECT {STORED_EVENT} FROM esl_events WHERE key > ?1 AND key <= ?2
         ORDER BY key"
    )
}

const CURSOR: &str = "SELECT seq FROM esl_feed_cursors WHERE organization = ?1 AND feed = ?2";

const MOVE: &str = "
INSERT INTO esl_feed_cursors (organization, feed, seq) VALUES (?1, ?2, ?3)
ON CONFLICT (organization, feed) DO UPDATE SET seq = excluded.seq";

/// Organizations that one call looks at: a millisecond's worth.
const LOOKED_AT: i64 = 1000;

#[cfg(test)]
mod tests {
    use esl_core::Timestamp;
    use rusqlite::Connection;

    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn a_feed_is_found_by_search() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let cursor = "(organization=? AND feed=?)";
        for (sql, steps) in [
            (HAS_BEGUN, &["SEARCH esl_feeds USING PRIMARY KEY (name=?)".to_owned()][..]),
            (
                CURSORS,
                &[
                    "SEARCH o USING INTEGER PRIMARY KEY (rowid>?)".to_owned(),
                    format!("SEARCH c USING PRIMARY KEY {cursor} LEFT-JOIN"),
                ],
            ),
            (
                &events_sql(),
                &["SEARCH esl_events USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)".to_owned()],
            ),
            (CURSOR, &[format!("SEARCH esl_feed_cursors USING PRIMARY KEY {cursor}")]),
        ] {
            let steps: Vec<_> = steps.iter().map(String::as_str).collect();
            assert_plan(&connection, sql, &steps);
        }
    }
}
