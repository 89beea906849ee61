//! The task that all commits go through: it takes whatever waits into one group, which is one call.
//!
//! A group has a number, and the server's ledger keeps what the last one of this handle came to. So a group
//! whose answer was lost is sent again under its number until the answer is known: it waits for itself, if the
//! server is still at it, and is never committed twice.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use esl_core::storage::{
    EntityAction, FAN_OUT_ABOVE, StorageError, StorageErrorKind, StorageTime, Unit,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_postgres::Row;

use crate::{
    connect::{CALL_TIMEOUT, Database, Line},
    decode::{Outcome, decode, decode_plain},
    error::{copy, is_outcome_unknown, is_there_already, is_worth_repeating, timed_out, translate},
    flatten::{COMMIT, Flat, PLAIN_COMMIT, Plain, flatten, plain},
    id::Id16,
    rows::whole,
};

type Results = Vec<Outcome>;

/// The way to the task. Dropped, it ends the task, and what nobody waits for any more with it.
#[derive(Debug)]
pub(crate) struct Committer {
    queue: mpsc::Sender<Request>,
    task: JoinHandle<()>,
}

/// Units of one caller.
#[derive(Debug)]
struct Request {
    units: Vec<Unit>,
    weight: Weight,
    caller: oneshot::Sender<Result<Results, StorageError>>,
}

impl Committer {
    pub(crate) fn start(
        handle: Id16,
        database: Arc<Database>,
        time: Option<Arc<StorageTime>>,
    ) -> Self {
        let (queue, requests) = mpsc::channel(QUEUE);
        let work = Work { handle, database, time, line: None, number: 0 };
        Self { queue, task: tokio::spawn(work.run(requests)) }
    }

    pub(crate) async fn commit(&self, units: Vec<Unit>) -> Result<Results, StorageError> {
        let (caller, answer) = oneshot::channel();
        let weight = units.iter().map(Weight::of).sum();
        if self.queue.send(Request { units, weight, caller }).await.is_err() {
            return Err(closed());
        }
        answer.await.unwrap_or_else(|_| Err(closed()))
    }
}

/// The task goes only with the handle, whose method was called, or in a panic.
fn closed() -> StorageError {
    StorageError::new(StorageErrorKind::Unavailable, OPERATION).with_source("the storage is closed")
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How much a group has to write.
#[derive(Debug, Clone, Copy, Default)]
struct Weight {
    rows: usize,
    bytes: usize,
}

impl Weight {
    /// Another group begins behind one that weighs so much.
    const FULL: Self = Self { rows: 2000, bytes: 16 * 1024 * 1024 };

    fn of(unit: &Unit) -> Self {
        let events = unit.publish.iter().flat_map(|publish| &publish.events);
        let settlements = unit.settle.as_ref().map_or(0, |settle| settle.settlements.len());
        let expanded = unit.expand.as_ref().map_or(0, |expand| 1 + expand.lanes.len());
        let mut weight = Self { rows: settlements + expanded, bytes: 0 };
        for step in unit.entities.iter().flat_map(|write| &write.steps) {
            weight.rows += 1;
            if let EntityAction::Put(put) = &step.action {
                weight.rows += put.unindexed.len() + put.indexed.len();
                weight.bytes += put.document.len();
            }
        }
        for routed in events {
            weight.rows += 1 + routed.lanes.len().min(FAN_OUT_ABOVE);
            weight.bytes += routed.event.body.len();
        }
        weight
    }

    const fn is_full(self) -> bool {
        self.rows >= Self::FULL.rows || self.bytes >= Self::FULL.bytes
    }
}

impl std::iter::Sum for Weight {
    fn sum<I: Iterator<Item = Self>>(weights: I) -> Self {
        weights.fold(Self::default(), |sum, weight| Self {
            rows: sum.rows + weight.rows,
            bytes: sum.bytes + weight.bytes,
        })
    }
}

/// What the task has.
struct Work {
    handle: Id16,
    database: Arc<Database>,
    time: Option<Arc<StorageTime>>,
    /// Its own connection; made when it is needed.
    line: Option<Line>,
    /// Of the last group.
    number: i64,
}

/// Why a group has no answer yet.
enum Failed {
    /// Nothing of it was written.
    Refused(StorageError),
    /// It was in another one's way; nothing of it was written.
    Repeat(StorageError),
    /// Nobody knows.
    Unknown(StorageError),
    /// It is not plain after all; nothing of it was written.
    NotPlain,
}

/// A group as arrays, for one function or the other.
enum Arrays<'u> {
    Plain(Box<Plain<'u>>),
    Flat(Box<Flat<'u>>),
}

impl<'u> Arrays<'u> {
    fn of(units: &'u [Unit]) -> Self {
        plain(units).map_or_else(|| Self::flat(units), |plain| Self::Plain(Box::new(plain)))
    }

    fn flat(units: &'u [Unit]) -> Self {
        Self::Flat(Box::new(flatten(units)))
    }
}

impl Work {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.recv().await {
            let mut weight = first.weight;
            let mut group = vec![first];
            while !weight.is_full()
                && let Ok(next) = requests.try_recv()
            {
                weight = [weight, next.weight].into_iter().sum();
                group.push(next);
            }
            // Whoever dropped the call does not mind whether it was done.
            group.retain(|request| !request.caller.is_closed());
            if !group.is_empty() {
                self.answer(group).await;
            }
        }
    }

    async fn answer(&mut self, group: Vec<Request>) {
        let (mut units, mut callers) = (Vec::new(), Vec::new());
        for request in group {
            callers.push((request.units.len(), request.caller));
            units.extend(request.units);
        }
        match self.commit(&units).await {
            Ok(results) => {
                let mut results = results.into_iter();
                for (count, caller) in callers {
                    // A caller that is gone has no use for the answer.
                    _ = caller.send(Ok(results.by_ref().take(count).collect()));
                }
            }
            // One caller's value that the server does not take is not the others' fault.
            Err(error) if !error.is_transient() && callers.len() > 1 => {
                let mut units = units.into_iter();
                for (count, caller) in callers {
                    let own: Vec<_> = units.by_ref().take(count).collect();
                    _ = caller.send(self.commit(&own).await);
                }
            }
            Err(error) => {
                for (_, caller) in callers {
                    _ = caller.send(Err(copy(&error)));
                }
            }
        }
    }

    /// Commits a group, however often it has to be sent.
    async fn commit(&mut self, units: &[Unit]) -> Result<Results, StorageError> {
        self.number += 1;
        let mut arrays = Arrays::of(units);
        let began = Instant::now();
        let mut repeats = 0;
        let mut pause = PAUSE;
        loop {
            let failed = match (self.call(&arrays).await, &arrays) {
                (Ok(row), Arrays::Flat(_)) => return whole(OPERATION, decode(units, &row)),
                (Ok(row), Arrays::Plain(_)) => match whole(OPERATION, decode_plain(units, &row))? {
                    Some(results) => return Ok(results),
                    None => Failed::NotPlain,
                },
                (Err(failed), _) => failed,
            };
            match failed {
                // From here on it is the other function's, whose answer the ledger then has.
                Failed::NotPlain => arrays = Arrays::flat(units),
                Failed::Refused(error) => return Err(error),
                Failed::Repeat(error) => {
                    repeats += 1;
                    if repeats > REPEATS {
                        return Err(error);
                    }
                }
                Failed::Unknown(error) => {
                    self.line = None;
                    if began.elapsed() >= PATIENCE {
                        return Err(error);
                    }
                    tracing::debug!(%error, "what a commit came to is asked again");
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn call(&mut self, arrays: &Arrays<'_>) -> Result<Row, Failed> {
        let now = self.time.as_ref().map(|time| time.now().as_millis());
        let line = match &mut self.line {
            Some(line) if !line.client.is_closed() => line,
            line => {
                let connected = self.database.connector().connect().await;
                line.insert(
                    connected.map_err(|error| Failed::Unknown(translate(OPERATION, error)))?,
                )
            }
        };
        let (text, arguments) = match arrays {
            Arrays::Plain(plain) => {
                (&*PLAIN_COMMIT, plain.arguments(&now, &self.handle, &self.number))
            }
            Arrays::Flat(flat) => (&*COMMIT, flat.arguments(&now, &self.handle, &self.number)),
        };
        let text = self.database.sql(text);
        let answer = line.client.query_typed_one(&text, &arguments);
        match timeout(CALL_TIMEOUT, answer).await {
            Ok(Ok(row)) => Ok(row),
            Ok(Err(error)) if is_outcome_unknown(&error) => {
                Err(Failed::Unknown(translate(OPERATION, error)))
            }
            Ok(Err(error)) if is_worth_repeating(&error) => {
                Err(Failed::Repeat(translate(OPERATION, error)))
            }
            // An id that nobody chose, which comes for the second time.
            Ok(Err(error)) if is_there_already(&error) && matches!(arrays, Arrays::Plain(_)) => {
                Err(Failed::NotPlain)
            }
            Ok(Err(error)) => Err(Failed::Refused(translate(OPERATION, error))),
            Err(_elapsed) => {
                self.database.connector().cancel(&line.client.cancel_token()).await;
                Err(Failed::Unknown(timed_out(OPERATION)))
            }
        }
    }
}

const OPERATION: &str = "commit";

/// Callers that wait at most; more of them wait to be let in.
const QUEUE: usize = 4096;

/// How often a group is sent again that was in another one's way.
const REPEATS: u32 = 3;

/// For so long a group whose outcome is not known is sent again.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
