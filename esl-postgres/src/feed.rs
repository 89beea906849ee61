//! Feeds: how far all that is committed was passed on, in each organization.

use async_trait::async_trait;
use esl_core::{
    OrganizationId, Seq,
    storage::{Fed, Feed, FeedBatch, FeedRoom, FeedStep, StorageError, Worker},
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage,
    damage::Place,
    error::Damage,
    flatten::epoch_number,
    id::Id16,
    parameters::parameters,
    rows::{self, STORED_EVENT, get, limit_number, seq, seq_number, stored_event, whole},
};

#[async_trait]
impl Feed for PostgresStorage {
    async fn begin_feed(&self, worker: &Worker, name: &str) -> Result<(), StorageError> {
        let (id, epoch) = (Id16::from(worker.id), epoch_number(worker));
        let values = parameters![self.suite_time(), id, epoch, name];
        self.database().execute("begin a feed", BEGIN, values).await.map(drop)
    }

    async fn feed(
        &self,
        name: &str,
        after: Option<OrganizationId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Fed, StorageError> {
        let room = FeedRoom::new(limit, bytes_max);
        read(self, name, after, room).await
    }

    async fn advance_feed(
        &self,
        worker: &Worker,
        name: &str,
        steps: Vec<FeedStep>,
    ) -> Result<(), StorageError> {
        if steps.is_empty() {
            return Ok(());
        }
        let organizations: Vec<Id16> = steps.iter().map(|step| step.organization.into()).collect();
        let from: Vec<i64> = steps.iter().map(|step| seq_number(step.from)).collect();
        let to: Vec<i64> = steps.iter().map(|step| seq_number(step.to)).collect();
        let (id, epoch) = (Id16::from(worker.id), epoch_number(worker));
        let values = parameters![self.suite_time(), id, epoch, name, organizations, from, to];
        self.database().execute("advance a feed", ADVANCE, values).await.map(drop)
    }
}

const READ: &str = "read a feed";

async fn read(
    storage: &PostgresStorage,
    name: &str,
    after: Option<OrganizationId>,
    mut room: FeedRoom,
) -> Result<Fed, StorageError> {
    let mut fed = Fed::default();
    let values = parameters![name, after.map(Id16::from), LOOKED_AT];
    let rows = storage.database().query(READ, CURSORS, values).await?;
    let mut last = None;
    for row in &rows {
        let cursor = whole(READ, Cursor::read(row))?;
        if cursor.last_seq > cursor.seq {
            let (batch, is_full) = cursor.batch(storage, &mut room).await?;
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
    let is_all = limit_number(rows.len()) < LOOKED_AT;
    Ok(Fed { after: last.filter(|_| !is_all), ..fed })
}

/// Where a feed stands in an organization.
struct Cursor {
    key: i32,
    organization: OrganizationId,
    last_seq: Seq,
    seq: Seq,
}

impl Cursor {
    fn read(row: &Row) -> Result<Self, Damage> {
        Ok(Self {
            key: get(row, 0)?,
            organization: rows::id(row, 1)?,
            last_seq: seq(row, 2)?,
            seq: seq(row, 3)?,
        })
    }

    /// What comes next, and whether there was no room for all of it.
    async fn batch(
        &self,
        storage: &PostgresStorage,
        room: &mut FeedRoom,
    ) -> Result<(FeedBatch, bool), StorageError> {
        let (organization, from) = (self.organization, self.seq);
        let mut batch = FeedBatch { organization, from, to: self.last_seq, events: Vec::new() };
        let mut after = from;
        loop {
            // One more than there is room for, so that it shows whether that was all.
            let asked = limit_number(room.events.saturating_add(1));
            let bytes = limit_number(room.bytes);
            let values =
                parameters![self.key, seq_number(after), seq_number(self.last_seq), asked, bytes,];
            let rows = storage.database().query(READ, &events_sql(), values).await?;
            for row in &rows {
                after = whole(READ, seq(row, 0))?;
                let place = Place::Event(self.key, after, rows::id(row, 1).ok());
                let read = storage.damages().readable(place, stored_event(row));
                let Some(event) = read else { continue };
                if !room.takes(&event) {
                    batch.to = batch.events.last().map_or(from, |last| last.seq);
                    return Ok((batch, true));
                }
                batch.events.push(event);
            }
            if rows.is_empty() {
                return Ok((batch, false));
            }
        }
    }
}

const BEGIN: &str = "SELECT esl.begin_feed_1($1, $2, $3, $4)";

const ADVANCE: &str = "SELECT esl.advance_feed_1($1, $2, $3, $4, $5, $6, $7)";

/// By key, which no organization that comes later is before. None, if the feed has not begun. A condition is put
/// so that no plan takes the index of those that are not deleted, and sorts them.
const CURSORS: &str = "
SELECT g.key, g.id, g.last_seq, coalesce(c.seq, 0)
FROM esl.feeds f
CROSS JOIN LATERAL (
    SELECT g.key, g.id, g.last_seq FROM esl.organizations g
    WHERE (g.deleted_at IS NULL) IS NOT FALSE
        AND g.key > coalesce((SELECT a.key FROM esl.organizations a WHERE a.id = $2), 0)
    ORDER BY g.key LIMIT $3
) g
LEFT JOIN LATERAL (
    SELECT k.seq FROM esl.feed_cursors k
    WHERE k.organization = g.key AND k.feed = f.name LIMIT 1
) c ON true
WHERE f.name = $1
ORDER BY g.key";

/// Up to the first event that there is no room for: what is behind it is not fetched.
fn events_sql() -> String {
    format!(
        "SELECT {STORED_EVENT} FROM (
             SELECT *, sum(octet_length(body)) OVER (ORDER BY seq) - octet_length(body) AS before
             FROM (
                 SELECT * FROM esl.events
                 WHERE organization = $1 AND seq > $2 AND seq <= $3 ORDER BY seq LIMIT $4
             ) e
         ) e
         WHERE before <= $5
         ORDER BY seq"
    )
}

/// Organizations that one call looks at.
const LOOKED_AT: i64 = 1000;
