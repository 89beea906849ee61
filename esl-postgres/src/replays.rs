//! Replays: ranges of events that are sent again, a step at a time.

use std::num::NonZeroU32;

use async_trait::async_trait;
use esl_core::{
    NewReplay, OrganizationId, Replay, ReplayId, ReplayNumber, ReplayRange, ReplayState,
    SubscriptionId, Timestamp,
    storage::{
        Candidates, Page, PageOf, ReplayStep, Replays, StorageError, StorageErrorKind, Worker,
        encoding,
    },
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage, candidates,
    changes::News,
    error::{Damage, refused},
    flatten::epoch_number,
    id::Id16,
    pages::PageReader,
    parameters::parameters,
    rows::{
        self, count, get, id, lane, lane_number, limit_number, optional_time, saturated, seq,
        seq_number, time, whole,
    },
};

#[async_trait]
impl Replays for PostgresStorage {
    async fn create_replay(&self, replay: Replay) -> Result<Replay, StorageError> {
        create(self, replay).await
    }

    async fn replay(
        &self,
        organization: OrganizationId,
        id: ReplayId,
    ) -> Result<Option<Replay>, StorageError> {
        let operation = "read a replay";
        let values = parameters![Id16::from(id), Id16::from(organization)];
        let row = self.database().query_opt(operation, &one_sql(), values).await?;
        whole(operation, row.map(|row| replay(&row)).transpose())
    }

    async fn replays(
        &self,
        organization: OrganizationId,
        subscription: SubscriptionId,
        page: Page<ReplayNumber>,
    ) -> Result<Option<PageOf<Replay>>, StorageError> {
        list(self, organization, subscription, page).await
    }

    async fn cancel_replay(
        &self,
        organization: OrganizationId,
        id: ReplayId,
    ) -> Result<Replay, StorageError> {
        cancel(self, organization, id).await
    }

    async fn running_replays(
        &self,
        after: ReplayNumber,
        limit: usize,
    ) -> Result<Vec<Replay>, StorageError> {
        let operation = "look for replays";
        let values = parameters![after.0.cast_signed(), limit_number(limit)];
        let rows = self.database().query(operation, &running_sql(), values).await?;
        whole(operation, rows.iter().map(replay).collect())
    }

    async fn candidates(&self, replay: &Replay, limit: usize) -> Result<Candidates, StorageError> {
        candidates::candidates(self, replay, limit).await
    }

    async fn advance_replay(
        &self,
        worker: &Worker,
        step: ReplayStep,
    ) -> Result<Replay, StorageError> {
        advance(self, worker, &step).await
    }
}

const CREATE: &str = "create a replay";
const LIST: &str = "list replays";
const CANCEL: &str = "cancel a replay";
const ADVANCE: &str = "advance a replay";

async fn create(storage: &PostgresStorage, mut new: Replay) -> Result<Replay, StorageError> {
    let mut lease = storage.database().lease(CREATE).await?;
    let mut session = storage.begin(&mut lease, CREATE).await?;
    let organization = session.organization(new.organization).await?;
    let values = parameters![Id16::from(new.subscription), organization.key];
    let found = session.query_opt(FIND_LANE, values).await?;
    let found = found.ok_or_else(|| session.refused(StorageErrorKind::NotFound))?;
    new.lane = whole(CREATE, lane(&found, 0))?;
    new.range.to = new.range.to.min(organization.last_seq);
    let values = parameters![
        Id16::from(new.id),
        lane_number(new.lane),
        i16::from(encoding::replay_of_number(&new.of)),
        seq_number(new.range.from),
        seq_number(new.range.to),
        new.range.since.map(Timestamp::as_millis),
        new.range.until.map(Timestamp::as_millis),
        i64::from(new.max_per_second.get()),
        new.state.as_str(),
        seq_number(new.position),
        saturated(new.opened),
        new.created_at.as_millis(),
    ];
    let inserted = session.query_opt(INSERT, values).await?;
    let inserted = inserted.ok_or_else(|| session.refused(StorageErrorKind::Conflict))?;
    new.number = whole(CREATE, number(&inserted, 0))?;
    session.tell_others(News::Replays);
    session.commit().await?;
    Ok(new)
}

async fn list(
    storage: &PostgresStorage,
    organization: OrganizationId,
    subscription: SubscriptionId,
    page: Page<ReplayNumber>,
) -> Result<Option<PageOf<Replay>>, StorageError> {
    let before = page.after.map_or(i64::MAX, |number| number.0.cast_signed());
    let mut reader = PageReader::new(page.limit);
    let (organization, subscription) = (Id16::from(organization), Id16::from(subscription));
    let values = parameters![organization, subscription, before, reader.ask()];
    let rows = storage.database().query(LIST, &list_sql(), values).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    for row in &rows {
        if whole(LIST, get::<Option<i64>>(row, 0))?.is_some() {
            reader.take(Some(whole(LIST, replay(row))?));
        }
    }
    Ok(Some(reader.into_page()))
}

async fn cancel(
    storage: &PostgresStorage,
    organization: OrganizationId,
    id: ReplayId,
) -> Result<Replay, StorageError> {
    let mut lease = storage.database().lease(CANCEL).await?;
    let mut session = storage.begin(&mut lease, CANCEL).await?;
    let key = session.organization(organization).await?.key;
    // Whoever advances it has locked its organization, too.
    let values = parameters![Id16::from(id), Id16::from(organization)];
    let found = session.query_opt(&one_sql(), values).await?;
    let found = found.ok_or_else(|| session.refused(StorageErrorKind::NotFound))?;
    let mut replay = whole(CANCEL, replay(&found))?;
    if replay.state == ReplayState::Running {
        replay.state = ReplayState::Cancelled;
        replay.finished_at = Some(session.now());
        let number = replay.number.0.cast_signed();
        let (state, at) = (replay.state.as_str(), session.now().as_millis());
        session.execute(FINISH, parameters![number, key, state, at]).await?;
        session.commit().await?;
    }
    Ok(replay)
}

async fn advance(
    storage: &PostgresStorage,
    worker: &Worker,
    step: &ReplayStep,
) -> Result<Replay, StorageError> {
    let seqs: Vec<i64> = step.seqs.iter().copied().map(seq_number).collect();
    let values = parameters![
        storage.suite_time(),
        storage.handle(),
        Id16::from(worker.id),
        epoch_number(worker),
        Id16::from(step.organization),
        Id16::from(step.replay),
        seq_number(step.from),
        seq_number(step.to),
        seqs,
        step.is_done,
    ];
    let row = storage.database().query_opt(ADVANCE, &advance_sql(), values).await?;
    let row = row.ok_or_else(|| refused(StorageErrorKind::Conflict, ADVANCE))?;
    if !step.seqs.is_empty() {
        storage.notifier().look();
    }
    whole(ADVANCE, replay(&row))
}

/// The columns that [`replay`] reads.
const REPLAY: &str = "
r.number, r.id, g.id, s.id, r.lane, r.kind, r.from_seq, r.to_seq, r.since, r.until,
r.max_per_second, r.state, r.position, r.opened, r.created_at, r.finished_at, s.deleted_at";

fn replay(row: &Row) -> Result<Replay, Damage> {
    let per_second = NonZeroU32::new(count(row, 10)?);
    let mut new = NewReplay::new(rows::replay_of(row, 5)?);
    new.max_per_second = per_second.ok_or_else(|| Damage::new(10, "nothing in a second"))?;
    new.range = ReplayRange {
        from: seq(row, 6)?,
        to: seq(row, 7)?,
        since: optional_time(row, 8)?,
        until: optional_time(row, 9)?,
    };
    let mut replay = Replay::new(id(row, 1)?, id(row, 2)?, id(row, 3)?, new, time(row, 14)?);
    replay.number = number(row, 0)?;
    replay.lane = lane(row, 4)?;
    let state = ReplayState::from_name(get(row, 11)?);
    replay.state = state.ok_or_else(|| Damage::new(11, "not a state of a replay"))?;
    replay.position = seq(row, 12)?;
    replay.opened = get::<i64>(row, 13)?.cast_unsigned();
    replay.finished_at = optional_time(row, 15)?;
    let deleted_at = optional_time(row, 16)?;
    replay.end_with_subscription(deleted_at);
    Ok(replay)
}

fn number(row: &Row, column: usize) -> Result<ReplayNumber, Damage> {
    get::<i64>(row, column).map(|number| ReplayNumber(number.cast_unsigned()))
}

const FIND_LANE: &str = "
SELECT lane FROM esl.subscriptions
WHERE id = $1 AND organization = $2 AND deleted_at IS NULL";

/// No row if one is running.
const INSERT: &str = "
INSERT INTO esl.replays
    (id, lane, kind, from_seq, to_seq, since, until, max_per_second, state, position, opened,
     created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (lane) WHERE state = 'running' DO NOTHING
RETURNING number";

const FINISH: &str = "
UPDATE esl.replays r SET state = $3, finished_at = $4 FROM esl.subscriptions s
WHERE r.number = $1 AND s.lane = r.lane AND s.organization = $2";

fn one_sql() -> String {
    format!(
        "SELECT {REPLAY}
         FROM esl.replays r
         JOIN esl.subscriptions s ON s.lane = r.lane
         JOIN esl.organizations g ON g.key = s.organization
         WHERE r.id = $1 AND g.id = $2 AND g.deleted_at IS NULL"
    )
}

/// A row for each, and one without if there is none. They are a range of the index by lane: in the order of
/// their numbers alone, a plan could go through everybody's.
fn list_sql() -> String {
    format!(
        "SELECT {REPLAY}
         FROM esl.organizations g
         JOIN esl.subscriptions s ON s.organization = g.key
         LEFT JOIN LATERAL (
             SELECT q.* FROM esl.replays q
             WHERE (q.lane, q.number) < (s.lane, $3) AND q.lane >= s.lane
             ORDER BY q.lane DESC, q.number DESC LIMIT $4
         ) r ON true
         WHERE g.id = $1 AND g.deleted_at IS NULL AND s.id = $2
         ORDER BY r.number DESC"
    )
}

fn running_sql() -> String {
    format!(
        "SELECT {REPLAY}
         FROM esl.replays r
         CROSS JOIN LATERAL (
             SELECT b.id, b.organization, b.deleted_at FROM esl.subscriptions b
             WHERE b.lane = r.lane LIMIT 1
         ) s
         CROSS JOIN LATERAL (
             SELECT o.id, o.deleted_at FROM esl.organizations o
             WHERE o.key = s.organization LIMIT 1
         ) g
         WHERE r.state = 'running' AND r.number > $1 AND s.deleted_at IS NULL
             AND g.deleted_at IS NULL
         ORDER BY r.number LIMIT $2"
    )
}

fn advance_sql() -> String {
    format!(
        "SELECT {REPLAY}
         FROM esl.advance_replay_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) r
         JOIN esl.subscriptions s ON s.lane = r.lane
         JOIN esl.organizations g ON g.key = s.organization"
    )
}
