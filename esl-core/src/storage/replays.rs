use std::fmt;

use async_trait::async_trait;

use super::{Page, PageOf, StorageError, Worker};
use crate::{EventType, OrganizationId, Replay, ReplayId, ReplayNumber, Seq, SubscriptionId};

/// Replays, and what they are of.
#[async_trait]
pub trait Replays: fmt::Debug + Send + Sync + 'static {
    /// Stores a new replay; the stored one, with its number, its lane and the end of its range (no
    /// later than the organization's last event), is returned.
    ///
    /// # Errors
    /// [`NotFound`](super::StorageErrorKind::NotFound) if the organization has no such subscription;
    /// [`Conflict`](super::StorageErrorKind::Conflict) if a replay to it is running.
    async fn create_replay(&self, replay: Replay) -> Result<Replay, StorageError>;

    /// One replay.
    async fn replay(
        &self,
        organization: OrganizationId,
        id: ReplayId,
    ) -> Result<Option<Replay>, StorageError>;

    /// The replays to a subscription, of a deleted one too, newest first, before a number; `None` if
    /// the organization never had such a subscription.
    async fn replays(
        &self,
        organization: OrganizationId,
        subscription: SubscriptionId,
        page: Page<ReplayNumber>,
    ) -> Result<Option<PageOf<Replay>>, StorageError>;

    /// Stops a replay; one that is not running stays as it is. What it has opened stays open.
    ///
    /// # Errors
    /// [`NotFound`](super::StorageErrorKind::NotFound).
    async fn cancel_replay(
        &self,
        organization: OrganizationId,
        id: ReplayId,
    ) -> Result<Replay, StorageError>;

    /// The replays that are running, of all organizations, in the order of creation after a number,
    /// at most `limit`. Those whose subscription was deleted are not.
    async fn running_replays(
        &self,
        after: ReplayNumber,
        limit: usize,
    ) -> Result<Vec<Replay>, StorageError>;

    /// What a replay may open next: events above its position, at most `limit`, in their order. Looks
    /// at a bounded number of rows, and so may find none although there are some further on.
    ///
    /// The replay need not be stored: only its subscription, what it is of, its range and its
    /// position count. An event that is still being fanned out, and what comes after it, is not
    /// reached yet. One that was erased is never among them.
    async fn candidates(&self, replay: &Replay, limit: usize) -> Result<Candidates, StorageError>;

    /// Opens deliveries of a replay and moves it from one position to the next; done, if `is_done`.
    ///
    /// Of each seq that is still what the replay is of, and whose event is there and was not erased, a
    /// delivery is opened: due now, like a retry,
    /// with a fresh budget. The others are passed over and not counted.
    ///
    /// # Errors
    /// [`Fenced`](super::StorageErrorKind::Fenced) if the worker's epoch is over;
    /// [`Conflict`](super::StorageErrorKind::Conflict) if the replay is not running or stands
    /// elsewhere, or its subscription was deleted: read it again.
    async fn advance_replay(
        &self,
        worker: &Worker,
        step: ReplayStep,
    ) -> Result<Replay, StorageError>;
}

/// What a replay may open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidates {
    /// The events, with their types.
    pub events: Vec<(Seq, EventType)>,
    /// Up to here everything was looked at.
    pub position: Seq,
    /// Whether that is the end of the replay's range.
    pub is_end: bool,
}

/// A step of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayStep {
    /// Of which.
    pub organization: OrganizationId,
    /// Of which.
    pub replay: ReplayId,
    /// Where it stands.
    pub from: Seq,
    /// Where it stands after this.
    pub to: Seq,
    /// What is opened, ascending, above `from` and not above `to`.
    pub seqs: Vec<Seq>,
    /// Whether this is the end of it.
    pub is_done: bool,
}
