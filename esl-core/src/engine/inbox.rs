//! What waits for the next commit: publishes, and settlements that ride along.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::sync::{Notify, oneshot};

use super::{lane::Hold, notices::Notice};
use crate::{
    Clock, Monotonic, SealedEvent,
    storage::{
        Committed, EntityWrite, Expand, FAN_OUT_ABOVE, LaneState, Publish, Refused, Settlement,
        StorageError, SwitchOff, Unit, Worker,
    },
};

/// A group has publishes of so many rows at most, events and deliveries …
const PUBLISH_ROWS_MAX: usize = 2000;
/// … with so many bytes of bodies, unless a single one has more …
const PUBLISH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// … and so many settlements: what comes meanwhile waits for it to end.
const SETTLEMENTS_MAX: usize = 1000;
/// So many settlements do not wait for a publish …
const SETTLEMENTS_RIPE: usize = 1000;
/// … and none waits longer.
const SETTLEMENT_AGE_MAX: Duration = Duration::from_millis(10);

/// A publish that waits for its commit.
#[derive(Debug)]
pub(crate) struct PublishRequest {
    pub(crate) publish: Publish,
    /// What is written in the same unit.
    pub(crate) write: Option<Arc<EntityWrite>>,
    pub(crate) reply: oneshot::Sender<Result<Committed, CommitFailure>>,
}

/// A slice of a fan-out that waits for its commit.
#[derive(Debug)]
pub(crate) struct ExpandRequest {
    pub(crate) expand: Expand,
    pub(crate) event: Arc<SealedEvent>,
    pub(crate) reply: oneshot::Sender<Result<(), CommitFailure>>,
}

/// Why a publish was not committed.
#[derive(Debug, Clone)]
pub(crate) enum CommitFailure {
    Refused(Refused),
    Storage(Arc<StorageError>),
}

/// A settlement that waits for its commit.
#[derive(Debug, Clone)]
pub(crate) struct SettleRequest {
    pub(crate) worker: Worker,
    pub(crate) settlement: Settlement,
    /// [`Job::hold`](super::lane::Job::hold) of what was sent.
    pub(crate) hold: Option<Hold>,
    pub(crate) lane_state: Option<LaneState>,
    pub(crate) switch_off: Option<SwitchOff>,
    /// What the organization is told of it, in the same unit.
    pub(crate) notices: Vec<Notice>,
    /// Something waits for it: it is not kept until others come.
    pub(crate) is_urgent: bool,
}

/// What goes into one commit.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) publishes: Vec<PublishRequest>,
    pub(crate) expands: Vec<ExpandRequest>,
    pub(crate) settlements: Vec<SettleRequest>,
}

#[derive(Debug, Default)]
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    group: Group,
    /// When the first of the settlements came.
    settlements_since: Option<Monotonic>,
    is_urgent: bool,
    is_closed: bool,
}

impl Inbox {
    /// Puts a publish into the next group. When the engine has stopped it is dropped, and so is the
    /// sender of its answer.
    pub(crate) fn publish(&self, request: PublishRequest) {
        let mut waiting = self.lock();
        if !waiting.is_closed {
            waiting.group.publishes.push(request);
            drop(waiting);
            self.filled.notify_one();
        }
    }

    /// Puts slices into the next group, in their order. When the engine has stopped they are dropped.
    pub(crate) fn expand(&self, requests: Vec<ExpandRequest>) {
        let mut waiting = self.lock();
        if !waiting.is_closed {
            waiting.group.expands.extend(requests);
            drop(waiting);
            self.filled.notify_one();
        }
    }

    /// Puts a settlement into the next group.
    pub(crate) fn settle(&self, request: SettleRequest, now: Monotonic) {
        let is_urgent = request.is_urgent;
        let mut waiting = self.lock();
        waiting.is_urgent |= is_urgent;
        waiting.group.settlements.push(request);
        let count = waiting.group.settlements.len();
        if count == 1 {
            waiting.settlements_since = Some(now);
        }
        drop(waiting);
        // The first arms the committer's timer; in between nobody need be woken.
        if is_urgent || count == 1 || count == SETTLEMENTS_RIPE {
            self.filled.notify_one();
        }
    }

    /// Puts settlements back that a failed commit left open.
    pub(crate) fn settle_again(&self, requests: Vec<SettleRequest>, now: Monotonic) {
        let mut waiting = self.lock();
        waiting.group.settlements.splice(0..0, requests);
        waiting.settlements_since = Some(now);
    }

    /// Takes no more publishes; [`next`](Self::next) gives out what is left and then ends.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.filled.notify_one();
    }

    /// Gives up what waits, after the committer is gone.
    pub(crate) fn abandon(&self) {
        let mut waiting = self.lock();
        waiting.is_closed = true;
        // Dropped replies tell the publishers.
        waiting.group = Group::default();
    }

    /// The next group, once there is reason to commit; `None` when all is done after a close.
    ///
    /// # Cancellation
    /// A dropped call takes nothing.
    pub(crate) async fn next(&self, clock: &dyn Clock) -> Option<Group> {
        loop {
            let ripe_at = {
                let mut waiting = self.lock();
                let ripe_at = waiting.settlements_since.map(|since| since + SETTLEMENT_AGE_MAX);
                let is_ripe = waiting.is_urgent
                    || !waiting.group.publishes.is_empty()
                    || !waiting.group.expands.is_empty()
                    || waiting.group.settlements.len() >= SETTLEMENTS_RIPE
                    || ripe_at.is_some_and(|at| at <= clock.monotonic());
                if is_ripe || waiting.is_closed {
                    let group = waiting.take();
                    return (!group.is_empty()).then_some(group);
                }
                ripe_at
            };
            match ripe_at {
                // Both arms may be dropped: they hold nothing.
                Some(at) => tokio::select! {
                    biased;
                    () = self.filled.notified() => {}
                    () = clock.sleep_until(at) => {}
                },
                None => self.filled.notified().await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no code panics while it holds this lock")
    }
}

impl Group {
    fn is_empty(&self) -> bool {
        let Self { publishes, expands, settlements } = self;
        publishes.is_empty() && expands.is_empty() && settlements.is_empty()
    }
}

impl Waiting {
    fn take(&mut self) -> Group {
        let Group { publishes, expands, settlements } = &mut self.group;
        let (mut rows, mut bytes) = (0, 0);
        let fits = publishes.iter().take_while(|request| {
            let is_first = rows == 0;
            rows += request.rows();
            bytes += request.bytes();
            is_first || (rows <= PUBLISH_ROWS_MAX && bytes <= PUBLISH_BYTES_MAX)
        });
        let later = publishes.split_off(fits.count());
        let unsettled = settlements.split_off(settlements.len().min(SETTLEMENTS_MAX));
        if unsettled.is_empty() {
            // Otherwise those that are left are as old, and as urgent, as they were.
            self.settlements_since = None;
            self.is_urgent = false;
        }
        Group {
            publishes: std::mem::replace(publishes, later),
            expands: std::mem::take(expands),
            settlements: std::mem::replace(settlements, unsettled),
        }
    }
}

impl PublishRequest {
    pub(crate) fn unit(&self) -> Unit {
        Unit { entities: self.write.clone(), ..Unit::publish(self.publish.clone()) }
    }

    /// How many rows it is in storage: where it has very many lanes, one for each event at first.
    fn rows(&self) -> usize {
        let events = self.publish.events.iter();
        let steps = self.write.as_ref().map_or(0, |write| write.steps.len());
        steps + events.map(|routed| 1 + routed.lanes.len().min(FAN_OUT_ABOVE)).sum::<usize>()
    }

    fn bytes(&self) -> usize {
        self.publish.events.iter().map(|routed| routed.event.body.len()).sum()
    }
}
