//! The chores that are done in slices.

use std::sync::atomic::{AtomicI64, Ordering};

use esl_core::{
    HELD_MAX,
    storage::{StorageError, Swept, Worker},
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage,
    error::Damage,
    flatten::epoch_number,
    id::Id16,
    parameters::parameters,
    rows::{get, lane_from, limit_number, whole},
};

/// Does at most `limit` rows' worth of chores.
pub(crate) async fn sweep(
    storage: &PostgresStorage,
    worker: &Worker,
    limit: usize,
) -> Result<Swept, StorageError> {
    let operation = "sweep";
    let values = parameters![
        storage.suite_time(),
        storage.handle(),
        Id16::from(worker.id),
        epoch_number(worker),
        limit_number(limit),
        HELD_MAX_MS,
        storage.expiry_mark().get(),
    ];
    let row = storage.database().query_one(operation, SWEEP, values).await?;
    let (swept, after) = whole(operation, read(&row))?;
    storage.expiry_mark().set(after);
    if !swept.ready.is_empty() {
        storage.notifier().look();
    }
    Ok(swept)
}

fn read(row: &Row) -> Result<(Swept, i64), Damage> {
    let count = |column| {
        let count: i64 = get(row, column)?;
        usize::try_from(count).map_err(|error| Damage::new(column, error))
    };
    let ready: Vec<i64> = get(row, 4)?;
    let swept = Swept {
        idempotency_keys: count(0)?,
        tokens: count(1)?,
        cancelled: count(2)?,
        expired: count(3)?,
        ready: ready.into_iter().map(|lane| lane_from(lane, 4)).collect::<Result<_, _>>()?,
        more: get(row, 5)?,
    };
    Ok((swept, get(row, 6)?))
}

const SWEEP: &str = "SELECT * FROM esl.sweep_1($1, $2, $3, $4, $5, $6, $7)";

#[expect(clippy::cast_possible_truncation, reason = "seven days")]
const HELD_MAX_MS: i64 = HELD_MAX.as_millis() as i64;

/// Up to which lane this handle has looked for what expires: with very many paused subscriptions, each call
/// goes on from there. Whoever begins anew, or beside another, only looks again at what has nothing.
#[derive(Debug, Default)]
pub(crate) struct ExpiryMark(AtomicI64);

impl ExpiryMark {
    fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, lane: i64) {
        self.0.store(lane, Ordering::Relaxed);
    }
}
