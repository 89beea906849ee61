use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{FanOut, IntakeRow, StorageError};
use crate::{LaneId, OrganizationId, Plan, SealedEvent, Seq, Subscription, Timestamp, WorkerId};

/// Workers, the lanes they own, and the deliveries in those lanes.
///
/// A worker has one epoch. It lasts [`EPOCH`] from the renewal before it, in the storage's time
/// (when that much has passed, it is over), and when it lapses everything the worker owned is free
/// at once. A lane has one owner at a time; deliveries have none of their own.
#[async_trait]
pub trait Lanes: fmt::Debug + Send + Sync + 'static {
    /// Begins an epoch for a worker. What it owned under an earlier epoch is free.
    ///
    /// A storage that serves one engine at a time voids every other epoch, too.
    ///
    /// # Errors
    /// [`Fenced`](super::StorageErrorKind::Fenced) if the storage serves one engine at a time and
    /// another one is alive.
    async fn enlist(
        &self,
        worker: WorkerId,
        tenure: Tenure,
    ) -> Result<(Worker, Renewed), StorageError>;

    /// Lets the epoch last [`EPOCH`] from now, and says how things stand.
    ///
    /// # Errors
    /// [`Fenced`](super::StorageErrorKind::Fenced) once it has lapsed or was voided: it does not
    /// come back.
    async fn renew(&self, worker: &Worker) -> Result<Renewed, StorageError>;

    /// Ends the epoch and frees what it owned, its lead included. Of an epoch that is over already,
    /// nothing happens.
    async fn resign(&self, worker: &Worker) -> Result<(), StorageError>;

    /// Frees lanes that the worker owns. Nothing happens to those that it does not own, and nothing at all
    /// if its epoch is over.
    async fn release(&self, worker: &Worker, lanes: &[LaneId]) -> Result<(), StorageError>;

    /// Takes those of the lanes that are free, and says again which of them are the worker's.
    ///
    /// A lane that another worker owns, or whose subscription was deleted, is left out. A settlement in
    /// the name of whoever owned it before is over by then, or will be refused: what is claimed from now
    /// on nobody else can settle.
    ///
    /// # Errors
    /// [`Fenced`](super::StorageErrorKind::Fenced) if the epoch is over.
    async fn take(&self, worker: &Worker, lanes: &[LaneId]) -> Result<Vec<Taken>, StorageError>;

    /// The lanes with open deliveries that `worker` owns or could take, ascending, after `after`,
    /// at most `limit`; those whose subscription is not [sending](Subscription::is_sending) or was
    /// deleted are left out.
    ///
    /// Its cost depends on the number of lanes, never on the number of deliveries.
    async fn waiting(
        &self,
        worker: &Worker,
        after: Option<LaneId>,
        limit: usize,
    ) -> Result<Vec<Waiting>, StorageError>;

    /// Hands out the next due deliveries of lanes that the worker owns: for each [`Want`], retries
    /// that are due first, by due time, then those that were never tried, by seq.
    ///
    /// - When a retry is due is what [`due_time`](super::due_time) makes of the time it was stored
    ///   with.
    /// - In a strict lane ([`Want::in_order`]) both kinds are one list by seq, which ends before the
    ///   first retry that is not due; `held` is empty there.
    /// - Answers are in the order of the wants. A lane that the worker does not own, whose
    ///   subscription is not [sending](Subscription::is_sending) or was deleted, is left out. Nothing
    ///   due is a [`Claimed`] without deliveries.
    /// - The answer shows every commit that was over before the call began.
    /// - A delivery whose event cannot be read as it was written stays owed, and those after it are
    ///   handed out; in a strict lane it ends the list. A lane of which anything else cannot be read is
    ///   left out. The storage logs which: the others go on.
    /// - The bodies of one answer have at most `bytes_max` bytes together, but each lane that has
    ///   something due gets one delivery at least.
    ///
    /// # Errors
    /// [`Fenced`](super::StorageErrorKind::Fenced) if the epoch is over.
    ///
    /// # Cancellation
    /// Changes nothing, so a dropped call hands out the same again.
    async fn claim(
        &self,
        worker: &Worker,
        wants: &[Want],
        bytes_max: usize,
    ) -> Result<Vec<Claimed>, StorageError>;

    /// The open fan-outs of the next organization after `after` that has some, in the order of their
    /// seqs: at most `limit`, and no more than `bytes_max` bytes of bodies beyond the first. `None` if
    /// there is no such organization. The list ends before an event that cannot be read as it was written,
    /// and is empty if that is the first.
    async fn fan_outs(
        &self,
        after: Option<OrganizationId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Option<(OrganizationId, Vec<FanOut>)>, StorageError>;

    /// Opens a delivery that is exhausted or expired again: due now, with a fresh budget.
    ///
    /// Its id and `created_at` stay and its attempt numbers go on; it comes before what was never
    /// tried, as a retry does.
    ///
    /// # Errors
    /// [`NotFound`](super::StorageErrorKind::NotFound) if the organization has no such delivery;
    /// [`Gone`](super::StorageErrorKind::Gone) if its event was removed because it was old, or erased;
    /// [`Conflict`](super::StorageErrorKind::Conflict) if it is in another state,
    /// or its subscription was deleted.
    async fn reopen(
        &self,
        organization: OrganizationId,
        lane: LaneId,
        seq: Seq,
    ) -> Result<(), StorageError>;

    /// The intake rows after `after` of organizations that exist, in their order, at most `limit`,
    /// without those of some that are to be left out. They stay until a unit that carries them is
    /// committed.
    ///
    /// Those whose organization does not exist stay, too, until it does, or until they are
    /// [removed](super::Removal::remove_old). However many there are, whoever asks for the others does not
    /// notice. A row that cannot be read as it was written stays, too; the storage logs which, and later
    /// ones of its organization pass it.
    async fn intake(
        &self,
        after: Option<IntakeRow>,
        limit: usize,
        left_out: &[OrganizationId],
    ) -> Result<Vec<(IntakeRow, Arc<SealedEvent>)>, StorageError>;

    /// Adds intake rows, all or none: events of an accepted kind that an engine will move into
    /// ordinary commits, in order.
    async fn enqueue(&self, events: Vec<Arc<SealedEvent>>) -> Result<(), StorageError>;

    /// Waits until something was committed that did not come through this handle's own calls, and
    /// says what to look at. Several causes may come as one; one may come twice.
    ///
    /// Intake rows, and what is scheduled, are the exception: they are reported whoever added them, for their adder has no
    /// other way to reach an engine, and again when the organization is made that they waited for. An
    /// erasure may be, too, since the call that erases comes back later than the event is erased.
    ///
    /// # Cancellation
    /// A dropped call loses nothing: what it would have said, the next one says.
    async fn changed(&self) -> Vec<Change>;

    /// Does one slice of the chores, of at most `limit` rows, so that a publish never waits long
    /// behind it:
    ///
    /// - Idempotency keys older than 24 h, tokens that expired, and retiring secrets whose grace is
    ///   over are removed.
    /// - Open deliveries of deleted subscriptions are closed as cancelled.
    /// - Of subscriptions that have something to expire ([`Subscription::expires_until`]) the open
    ///   deliveries are closed as expired: retries that were due by then; and of what was never tried
    ///   the first ones by seq, up to one whose event is younger. When none is left,
    ///   [`Subscription::expiring`] is cleared.
    ///
    /// Where lanes become [`ready`](Swept::ready), other handles hear of their
    /// [subscriptions](Change::Subscriptions), too: their owners may be others.
    ///
    /// # Errors
    /// [`Fenced`](super::StorageErrorKind::Fenced) if the epoch is over.
    async fn sweep(&self, worker: &Worker, limit: usize) -> Result<Swept, StorageError>;
}

/// How long an epoch lasts without renewal.
pub const EPOCH: Duration = Duration::from_secs(30);

/// What an engine enlists for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenure {
    /// Whether it takes lanes, and so is among the [`peers`](Renewed::peers).
    pub takes_lanes: bool,
    /// The duty that it would lead in. Of all that ask for the same one, one [leads](Renewed::leads).
    pub leads: Option<&'static str>,
}

/// Takes lanes, and leads in nothing.
impl Default for Tenure {
    fn default() -> Self {
        Self { takes_lanes: true, leads: None }
    }
}

/// How things stand when an epoch begins or goes on.
///
/// A storage that serves one engine at a time says that it is alone and leads, whatever it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// What time it is in the storage.
    pub at: Timestamp,
    /// The workers that take lanes and whose epochs run, this one included if it does; ascending.
    pub peers: Vec<WorkerId>,
    /// Whether it leads in the duty that it asked for: from the first renewal on at which nobody else did,
    /// for as long as its epoch runs. It spares others the work, and no more: the one before may not know
    /// yet that it leads no longer.
    pub leads: bool,
}

/// A running engine, as storage knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Worker {
    /// Which engine.
    pub id: WorkerId,
    /// Which of its lives; larger than all before it in this storage.
    pub epoch: u64,
}

/// A lane that a worker now owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The subscription, as it is now.
    pub subscription: Subscription,
    /// How its receiver has fared.
    pub state: LaneState,
    /// What its organization may use.
    pub plan: Option<Plan>,
}

/// A lane with open deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Which.
    pub lane: LaneId,
    /// When the first of them is due; no later than now if it was never tried.
    pub due_at: Timestamp,
}

/// What a worker has room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// In which lane.
    pub lane: LaneId,
    /// For how many.
    pub room: usize,
    /// Deliveries that were never tried, with a seq above this; `None` for retries alone.
    ///
    /// Up to it, everything was handed out already or came straight from a commit.
    pub after: Option<Seq>,
    /// Retries that the worker still has in hand, or has not settled yet.
    pub held: Vec<Seq>,
    /// Retries take their turn by seq, like the others, and one that is not due yet blocks what
    /// comes after it: the lane is strict.
    pub in_order: bool,
}

/// What a lane has for a worker.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The lane.
    pub lane: LaneId,
    /// The deliveries, in the order of their turn.
    pub due: Vec<Due>,
    /// Whether everything was handed out that was never tried and above [`Want::after`]; also true
    /// when that was not asked for, and when a retry that is not due blocks the rest.
    pub is_all: bool,
    /// When the first retry is due that was not handed out and is not held; in a strict lane, the
    /// one that blocks it.
    pub next_due: Option<Timestamp>,
}

/// A delivery that is due.
#[derive(Debug, Clone)]
pub struct Due {
    /// Its event's place.
    pub seq: Seq,
    /// Its event; [`SealedEvent::digest`] has done its work and may be left out.
    pub event: Arc<SealedEvent>,
    /// Whether it is a retry (or was opened again) rather than one that was never tried.
    pub is_retry: bool,
    /// Attempts made so far.
    pub attempts: u32,
    /// Those that count against the budget.
    pub charged: u32,
}

/// How the receiver behind a lane has fared: what the circuit and `Retry-After` go by.
///
/// The default is a receiver of whom nothing bad is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneState {
    /// Failures in a row.
    pub failures: u32,
    /// From how many deliveries they came; counted up to the number that the circuit asks for.
    pub failed_deliveries: u32,
    /// When the first of them was; `None` after a success.
    pub failing_since: Option<Timestamp>,
    /// While the circuit is open: how many probes have failed.
    pub open_probes: Option<u32>,
    /// Nothing is sent before: the next probe's time, or what the receiver asked for.
    pub not_before: Option<Timestamp>,
    /// When it last said 2xx, to the hour.
    pub last_success_at: Option<Timestamp>,
    /// When its organization was last told that a delivery was given up.
    pub exhaustion_told_at: Option<Timestamp>,
}

/// Something that was committed by others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Change {
    /// There are intake rows.
    Intake,
    /// Subscriptions of an organization.
    Subscriptions(OrganizationId),
    /// Lanes got work or became free: a delivery was opened again, events were committed for lanes
    /// that are not the committer's, or an engine let go of some.
    Lanes,
    /// An engine has begun an epoch or ended it: others share the lanes, and what it owned is free.
    Engines,
    /// A replay was made.
    Replays,
    /// There is something that is to be published at a time of its own.
    Schedule,
    /// An event is to be fanned out, and nothing of its organization was before.
    FanOuts,
    /// Events of an organization were erased: what is in memory of them must not be sent.
    Erased(OrganizationId),
    /// Organizations, clients or tokens.
    Tenancy,
    /// Whatever it may be: the storage may have missed something.
    All,
}

/// What a slice of chores did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Idempotency keys removed.
    pub idempotency_keys: usize,
    /// Tokens removed.
    pub tokens: usize,
    /// Deliveries closed as cancelled.
    pub cancelled: usize,
    /// Deliveries closed as expired.
    pub expired: usize,
    /// Lanes whose subscription was resumed and that may send from now on: what had to be expired
    /// before is.
    pub ready: Vec<LaneId>,
    /// Whether there is more to do. A slice may also have done nothing but look at what turned out to
    /// have nothing to do.
    pub more: bool,
}
