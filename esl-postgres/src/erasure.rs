//! Erasing what an event said.

use bytes::Bytes;
use esl_core::{
    BlobKey, EventId, OrganizationId, SealedEvent, Seq, Timestamp, erased,
    storage::{Change, Erased, StorageError, StorageErrorKind},
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage,
    changes::News,
    error::Damage,
    id::Id16,
    parameters::parameters,
    removal::{OPERATION, Slice},
    rows::{self, get, limit_number, optional_bytes, parsed, seq, seq_number, time, whole},
    vacuum::vacuum,
};

const ERASE: &str = "erase an event";

/// The organizations that have an event of that id, in the intake, too.
pub(crate) async fn find(
    storage: &PostgresStorage,
    id: EventId,
) -> Result<Vec<OrganizationId>, StorageError> {
    let operation = "look for an event";
    let rows = storage.database().query(operation, FIND, parameters![Id16::from(id)]).await?;
    whole(operation, rows.iter().map(|row| rows::id(row, 0)).collect())
}

const FIND: &str = "
SELECT g.id FROM esl.events e
CROSS JOIN LATERAL (
    SELECT o.id FROM esl.organizations o
    WHERE o.key = e.organization AND o.deleted_at IS NULL LIMIT 1
) g
WHERE e.id = $1
UNION
SELECT q.organization FROM esl.intake q WHERE q.event_id = $1";

/// Erases an event, and comes back when nothing of it is left that a statement can reach.
pub(crate) async fn erase(
    storage: &PostgresStorage,
    organization: OrganizationId,
    id: EventId,
) -> Result<Erased, StorageError> {
    let (erased, place) = begin(storage, organization, id).await?;
    if let Some((key, seq)) = place {
        // To this handle's own engine, too: until the last slice is done, the call has not come back.
        storage.changes().tell(Change::Erased(organization));
        let mut collisions = 0;
        loop {
            match go_on(storage, ERASE, key, seq, LANES_MAX).await {
                Ok(true) => break,
                Ok(false) => {}
                // It and a group of settlements waited for each other: nothing of the slice was done.
                Err(error)
                    if error.kind() == StorageErrorKind::Busy && collisions < COLLISIONS_MAX =>
                {
                    collisions += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(erased)
}

/// Puts an event without what it said in place of the event: from now on nothing of it is handed out.
/// What is owed of it, and what was answered to it, is left to [`go_on`] with the place that is given; what
/// is yet to be owed of it, to the commits that expand it.
async fn begin(
    storage: &PostgresStorage,
    organization: OrganizationId,
    id: EventId,
) -> Result<(Erased, Option<(i32, Seq)>), StorageError> {
    let mut lease = storage.database().lease(ERASE).await?;
    let mut session = storage.begin(&mut lease, ERASE).await?;
    let key = session.organization(organization).await?.key;
    let own_id = Id16::from(id);
    let values = parameters![Id16::from(organization), own_id];
    let waiting = session.query(REMOVE_INTAKE, values).await?;
    let stored = session.query_opt(EVENT, parameters![key, own_id]).await?;
    if stored.is_none() && waiting.is_empty() {
        return Err(session.refused(StorageErrorKind::NotFound));
    }
    let mut erasure = Erased::default();
    for row in &waiting {
        // What esl.publish wrote has no envelope yet, and no blob.
        let head = whole(ERASE, get::<Option<&[u8]>>(row, 0))?;
        erasure.blobs.extend(head.and_then(BlobKey::named_by));
    }
    let mut place = None;
    if let Some(row) = stored {
        let (seq, was_erased) = whole(ERASE, standing(&row))?;
        place = Some((key, seq));
        // Perhaps a process ended in the middle of it.
        erasure.before = was_erased;
        if !was_erased {
            let event = shell(&row, (organization, id), session.now());
            erasure.blobs.extend(BlobKey::named_by(&event.body));
            let (seq, now) = (seq_number(seq), session.now().as_millis());
            let values = parameters![
                key,
                seq,
                event.event_type.as_str(),
                event.timestamp.as_millis(),
                event.digest.as_ref().map(|digest| &digest[..]),
                &*erased(&event),
                now,
            ];
            session.execute(REPLACE, values).await?;
            session.execute(LEAVE, parameters![key, seq]).await?;
            session.tell_others(News::Erased(organization));
        }
    }
    session.execute(BEGUN, &[]).await?;
    session.commit().await?;
    Ok((erasure, place))
}

fn standing(row: &Row) -> Result<(Seq, bool), Damage> {
    Ok((seq(row, 0)?, get(row, 1)?))
}

/// What is kept of an event, and what it says at its beginning, as far as that can be read: erasing is how
/// one gets rid of what is damaged.
fn shell(row: &Row, (organization, id): (OrganizationId, EventId), now: Timestamp) -> SealedEvent {
    SealedEvent {
        id,
        organization,
        event_type: parsed(row, 2).unwrap_or_else(|_| DAMAGED.parse().expect("a type")),
        timestamp: time(row, 3).unwrap_or(now),
        digest: optional_bytes(row, 4).unwrap_or(None),
        body: Bytes::copy_from_slice(get(row, 5).unwrap_or_default()),
        changes: None,
    }
}

/// The type of an erased event whose own cannot be read.
const DAMAGED: &str = "system.damaged";

/// Cancels what is owed of an erased event, and takes what receivers said to it from the attempts, in at
/// most `limit` lanes; true when none is left.
async fn go_on(
    storage: &PostgresStorage,
    operation: &'static str,
    key: i32,
    seq: Seq,
    limit: usize,
) -> Result<bool, StorageError> {
    let now = storage.suite_time();
    let values = parameters![now, key, seq_number(seq), limit_number(limit)];
    let row = storage.database().query_one(operation, GO_ON, values).await?;
    whole(operation, get(&row, 0))
}

/// Goes on with what a process has not come to the end of; true when there is none.
pub(crate) async fn resume(
    storage: &PostgresStorage,
    slice: &mut Slice,
) -> Result<bool, StorageError> {
    while slice.left > 0 {
        let Some(row) = storage.database().query_opt(OPERATION, NEXT, &[]).await? else {
            return Ok(true);
        };
        let (key, seq) = whole(OPERATION, get(&row, 0).and_then(|key| Ok((key, seq(&row, 1)?))))?;
        let lanes = slice.left.min(LANES_MAX);
        go_on(storage, OPERATION, key, seq, lanes).await?;
        slice.use_up(lanes);
    }
    Ok(false)
}

/// More of them are no accident.
const COLLISIONS_MAX: u32 = 3;

/// Lanes of a slice.
const LANES_MAX: usize = 500;

const REMOVE_INTAKE: &str = "
DELETE FROM esl.intake q WHERE q.organization = $1 AND q.event_id = $2
RETURNING substring(q.body FROM 1 FOR 1024)";

const EVENT: &str = "
SELECT e.seq, e.erased_at IS NOT NULL, e.event_type, e.timestamp, e.digest,
    substring(e.body FROM 1 FOR 1024)
FROM esl.events e WHERE e.id = $2 AND e.organization + 0 = $1";

const REPLACE: &str = "
UPDATE esl.events SET event_type = $3, timestamp = $4, digest = $5, body = $6, changes = NULL,
    erased_at = $7
WHERE organization = $1 AND seq = $2";

const LEAVE: &str = "
INSERT INTO esl.erasures (organization, seq, after_lane) VALUES ($1, $2, 0)
ON CONFLICT (organization, seq) DO UPDATE SET after_lane = 0";

const GO_ON: &str = "SELECT esl.erase_1($1, $2, $3, $4)";

const NEXT: &str = "
SELECT e.organization, e.seq FROM esl.erasures e ORDER BY e.organization, e.seq LIMIT 1";

const BEGUN: &str = "UPDATE esl.settings SET erasures_begun = erasures_begun + 1";

/// Has the server free the rows that held what was erased.
pub(crate) async fn clean_up(storage: &PostgresStorage) -> Result<(), StorageError> {
    let database = storage.database();
    let row = database.query_one(OPERATION, TO_CLEAN, &[]).await?;
    let (begun, cleaned): (i64, i64) =
        whole(OPERATION, get(&row, 0).and_then(|begun| Ok((begun, get(&row, 1)?))))?;
    if begun == cleaned {
        return Ok(());
    }
    vacuum(database, OPERATION, &VACUUMED).await?;
    database.execute(OPERATION, CLEANED, parameters![begun]).await.map(drop)
}

const TO_CLEAN: &str = "SELECT erasures_begun, erasures_cleaned FROM esl.settings";

const VACUUMED: [&str; 3] = ["esl.events", "esl.attempts", "esl.intake"];

const CLEANED: &str = "
UPDATE esl.settings SET erasures_cleaned = greatest(erasures_cleaned, $1)";
