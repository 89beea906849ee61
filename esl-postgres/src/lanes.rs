//! Epochs, and whose the lanes are.

use std::sync::Arc;

use async_trait::async_trait;
use esl_core::{
    LaneId, OrganizationId, SealedEvent, Seq, WorkerId,
    storage::{
        Change, Claimed, EPOCH, FanOut, IntakeRow, Lanes, Renewed, StorageError, StorageErrorKind,
        Swept, Taken, Tenure, Waiting, Want, Worker, due_time,
    },
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage, claim,
    damage::Place,
    encryption_keys,
    error::Damage,
    fan_out,
    flatten::epoch_number,
    id::Id16,
    intake,
    parameters::parameters,
    plan::{PLAN, plan},
    reopen,
    rows::{self, LANE_STATE, LANE_STATE_COLUMNS, get, lane, lane_number, lane_state, time, whole},
    subscription_row::{SUBSCRIPTION, SUBSCRIPTION_COLUMNS, subscription},
    sweep,
};

#[async_trait]
impl Lanes for PostgresStorage {
    async fn enlist(
        &self,
        worker: WorkerId,
        tenure: Tenure,
    ) -> Result<(Worker, Renewed), StorageError> {
        enlist(self, worker, tenure).await
    }

    async fn renew(&self, worker: &Worker) -> Result<Renewed, StorageError> {
        let operation = "renew the epoch";
        let (id, epoch) = (Id16::from(worker.id), epoch_number(worker));
        let values = parameters![self.suite_time(), id, epoch, EPOCH_MS];
        match self.database().query_one(operation, RENEW, values).await {
            Ok(row) => {
                let renewed = whole(operation, renewed(&row, 0))?;
                self.changes().lead(renewed.leads);
                Ok(renewed)
            }
            Err(error) => {
                if error.kind() == StorageErrorKind::Fenced {
                    self.changes().own_nothing();
                }
                Err(error)
            }
        }
    }

    async fn resign(&self, worker: &Worker) -> Result<(), StorageError> {
        let (id, epoch) = (Id16::from(worker.id), epoch_number(worker));
        let values = parameters![self.suite_time(), self.handle(), id, epoch];
        let row = self.database().query_one("end the epoch", RESIGN, values).await?;
        self.changes().own_nothing();
        if whole("end the epoch", get(&row, 0))? {
            self.notifier().look();
        }
        Ok(())
    }

    async fn release(&self, worker: &Worker, lanes: &[LaneId]) -> Result<(), StorageError> {
        let operation = "let go of lanes";
        let numbers: Vec<i64> = lanes.iter().copied().map(lane_number).collect();
        let (epoch, call) = (epoch_number(worker), self.next_call());
        let values = parameters![self.suite_time(), self.handle(), epoch, numbers, call];
        // Before they are free: what is committed from then on may be for another engine.
        self.changes().disown(lanes);
        let row = self.database().query_one(operation, RELEASE, values).await?;
        if whole(operation, get(&row, 0))? {
            self.notifier().look();
        }
        Ok(())
    }

    async fn take(&self, worker: &Worker, lanes: &[LaneId]) -> Result<Vec<Taken>, StorageError> {
        take(self, worker, lanes).await
    }

    async fn waiting(
        &self,
        worker: &Worker,
        after: Option<LaneId>,
        limit: usize,
    ) -> Result<Vec<Waiting>, StorageError> {
        let operation = "look for waiting lanes";
        let after = after.map_or(0, lane_number);
        let limit = rows::limit_number(limit);
        let values = parameters![self.suite_time(), epoch_number(worker), after, limit];
        let found = self.database().query(operation, WAITING, values).await?;
        whole(operation, found.iter().map(waiting).collect())
    }

    async fn claim(
        &self,
        worker: &Worker,
        wants: &[Want],
        bytes_max: usize,
    ) -> Result<Vec<Claimed>, StorageError> {
        claim::claim(self, worker, wants, bytes_max).await
    }

    async fn fan_outs(
        &self,
        after: Option<OrganizationId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Option<(OrganizationId, Vec<FanOut>)>, StorageError> {
        fan_out::read(self, after, limit, bytes_max).await
    }

    async fn reopen(
        &self,
        organization: OrganizationId,
        lane: LaneId,
        seq: Seq,
    ) -> Result<(), StorageError> {
        reopen::reopen(self, organization, lane, seq).await
    }

    async fn intake(
        &self,
        after: Option<IntakeRow>,
        limit: usize,
        left_out: &[OrganizationId],
    ) -> Result<Vec<(IntakeRow, Arc<SealedEvent>)>, StorageError> {
        intake::read(self, after, limit, left_out).await
    }

    async fn enqueue(&self, events: Vec<Arc<SealedEvent>>) -> Result<(), StorageError> {
        intake::enqueue(self, &events).await
    }

    async fn changed(&self) -> Vec<Change> {
        self.changes().next().await
    }

    async fn sweep(&self, worker: &Worker, limit: usize) -> Result<Swept, StorageError> {
        sweep::sweep(self, worker, limit).await
    }
}

#[expect(clippy::cast_possible_truncation, reason = "30 s")]
const EPOCH_MS: i64 = EPOCH.as_millis() as i64;

async fn enlist(
    storage: &PostgresStorage,
    worker: WorkerId,
    tenure: Tenure,
) -> Result<(Worker, Renewed), StorageError> {
    let operation = "enlist an engine";
    let keyring = storage.secrets().keyring.as_ref();
    encryption_keys::demand_all(storage.database(), keyring, operation).await?;
    let (id, key_ids) = (Id16::from(worker), encryption_keys::ids(keyring));
    let values = parameters![
        storage.suite_time(),
        storage.handle(),
        id,
        EPOCH_MS,
        tenure.takes_lanes,
        tenure.leads,
        key_ids
    ];
    let row = storage.database().query_one(operation, ENLIST, values).await?;
    let epoch: i32 = whole(operation, get(&row, 0))?;
    let renewed = whole(operation, renewed(&row, 1))?;
    storage.changes().own_nothing();
    storage.changes().lead(renewed.leads);
    storage.notifier().look();
    Ok((Worker { id: worker, epoch: epoch.unsigned_abs().into() }, renewed))
}

/// Reads how things stand, beginning at column `first`.
fn renewed(row: &Row, first: usize) -> Result<Renewed, Damage> {
    let peers: Vec<Id16> = get(row, first + 2)?;
    Ok(Renewed {
        at: time(row, first)?,
        peers: peers.into_iter().map(|id| WorkerId::from_bytes(id.0)).collect(),
        leads: get(row, first + 1)?,
    })
}

const ENLIST: &str = "SELECT epoch, at, leads, peers FROM esl.enlist_1($1, $2, $3, $4, $5, $6, $7)";
const RENEW: &str = "SELECT at, leads, peers FROM esl.renew_1($1, $2, $3, $4)";
const RELEASE: &str = "SELECT esl.release_1($1, $2, $3, $4, $5)";
const RESIGN: &str = "SELECT esl.resign_1($1, $2, $3, $4)";

async fn take(
    storage: &PostgresStorage,
    worker: &Worker,
    lanes: &[LaneId],
) -> Result<Vec<Taken>, StorageError> {
    let operation = "take lanes";
    let lanes: Vec<i64> = lanes.iter().copied().map(lane_number).collect();
    let (id, epoch) = (Id16::from(worker.id), epoch_number(worker));
    let values = parameters![storage.suite_time(), id, epoch, lanes, storage.next_call()];
    storage.database().query(operation, TAKE, values).await?;
    // Read afterwards: what was settled while the lanes were waited for must show.
    let text = taken_sql();
    let rows = storage.database().query(operation, &text, parameters![lanes, epoch]).await?;
    let taken = rows.iter().filter_map(|row| {
        // The others go on.
        let place = Place::Subscription(get(row, 0).unwrap_or_default());
        storage.damages().readable(place, taken(storage, row))
    });
    let taken: Vec<Taken> = taken.collect();
    storage.changes().own(taken.iter().map(|taken| taken.subscription.lane));
    Ok(taken)
}

const TAKE: &str = "SELECT esl.take_1($1, $2, $3, $4, $5)";

fn taken_sql() -> String {
    format!(
        "SELECT {SUBSCRIPTION}, {LANE_STATE}, g.id, {PLAN}
         FROM unnest($1) WITH ORDINALITY AS t (lane, n)
         JOIN esl.owners o ON o.lane = t.lane AND o.epoch = $2
         JOIN esl.subscriptions s ON s.lane = t.lane
         JOIN esl.organizations g ON g.key = s.organization
         LEFT JOIN esl.lanes l ON l.lane = s.lane
         WHERE s.deleted_at IS NULL AND g.deleted_at IS NULL
         ORDER BY t.n"
    )
}

fn taken(storage: &PostgresStorage, row: &Row) -> Result<Taken, Damage> {
    let organization = rows::id(row, SUBSCRIPTION_COLUMNS + LANE_STATE_COLUMNS)?;
    Ok(Taken {
        subscription: subscription(row, organization, storage.secrets())?,
        state: lane_state(row, SUBSCRIPTION_COLUMNS)?,
        plan: plan(row, SUBSCRIPTION_COLUMNS + LANE_STATE_COLUMNS + 1)?,
    })
}

/// Goes from lane to lane: each costs one search, however many deliveries it has.
const WAITING: &str = "
WITH RECURSIVE t AS MATERIALIZED (SELECT esl.now_1($1) AS now),
hop AS (
    (
        SELECT a.lane, a.due_at FROM esl.open a WHERE a.lane > $3
        ORDER BY a.lane, a.due_at, a.seq LIMIT 1
    )
    UNION ALL
    SELECT f.lane, f.due_at FROM hop CROSS JOIN LATERAL (
        SELECT a.lane, a.due_at FROM esl.open a WHERE a.lane > hop.lane
        ORDER BY a.lane, a.due_at, a.seq LIMIT 1
    ) f
)
SELECT hop.lane, hop.due_at, t.now
FROM t CROSS JOIN hop CROSS JOIN LATERAL (
    SELECT FROM esl.subscriptions s JOIN esl.organizations g ON g.key = s.organization
    WHERE s.lane = hop.lane AND s.active AND s.expiring IS NULL AND s.deleted_at IS NULL
        AND g.deleted_at IS NULL
        AND NOT EXISTS (
            SELECT FROM esl.owners o
            WHERE o.lane = hop.lane AND o.epoch <> $2 AND esl.is_running_1(o.epoch, t.now)
        )
    LIMIT 1
) f
LIMIT $4";

fn waiting(row: &Row) -> Result<Waiting, Damage> {
    // What was never tried has 0, and so is due at once.
    Ok(Waiting { lane: lane(row, 0)?, due_at: due_time(time(row, 1)?, time(row, 2)?) })
}
