use std::{fmt, time::Duration};

use async_trait::async_trait;

use super::{StorageError, Worker};
use crate::{Actor, BlobKey, EventId, InstallationId, LinkKey, OrganizationId, Timestamp};

/// Letting go of what is old, of what must not be kept, and of whole organizations.
#[async_trait]
pub trait Removal: fmt::Debug + Send + Sync + 'static {
    /// Does one slice of removing events that were sealed longer than `age` ago, with their deliveries and
    /// attempts, replays that have been over for so long, what is as old in the audit trail, and what has
    /// waited for so long in the intake for an organization that does not exist; `None` removes none of
    /// them. Rows that a deleted organization has left are removed in any case, and so is what came to the
    /// intake for it since. At most `limit` rows, and fewer large ones, so that a publish never waits long
    /// behind it.
    ///
    /// - An event that a delivery still owes stays, and goes in a later round. Deliveries of it that
    ///   are over go.
    /// - No organization waits until another one has nothing left.
    /// - An event that says to be from more than a day in the future holds up none of those after it,
    ///   and goes with them.
    /// - Seqs go on. Of an event that was removed nothing is known: its id may be used again.
    /// - A delivery of a removed event is
    ///   [`Gone`](super::StorageErrorKind::Gone) to whoever asks for it by its id, and cannot be
    ///   opened again.
    /// - Where a round stands is the storage's to remember; a new handle begins at the beginning.
    /// - At the end of a round, what an [erasure](Self::erase_event) that was cut off has left is
    ///   finished, in the storage's files, too, which can take long.
    ///
    /// # Errors
    /// [`Fenced`](super::StorageErrorKind::Fenced) if the epoch is over.
    ///
    /// # Cancellation
    /// A dropped call may have removed a slice, and the blobs of that are named by nobody.
    async fn remove_old(
        &self,
        worker: &Worker,
        age: Option<Duration>,
        limit: usize,
    ) -> Result<Removed, StorageError>;

    /// Takes what an event said and keeps the fact that there was one: its id, type, time and place.
    ///
    /// Its envelope becomes what [`erased`](crate::erased) makes of it; open deliveries of it are
    /// cancelled, and so is what is yet to be owed of it, with its slice; what receivers answered to it
    /// is removed from the attempts. An event in the intake is removed. So is one that cannot be read as
    /// it was written; its type is `system.damaged` then, if that is what cannot be read. When this
    /// returns, no byte of it is left in the storage's files, as far as the
    /// storage can see to that. Blobs are the caller's to delete:
    /// [`delete_erased`](crate::engine::delete_erased).
    ///
    /// # Errors
    /// [`NotFound`](super::StorageErrorKind::NotFound).
    async fn erase_event(
        &self,
        organization: OrganizationId,
        id: EventId,
    ) -> Result<Erased, StorageError>;

    /// The organizations that have an event of that id, in the intake, too.
    async fn organizations_of_event(
        &self,
        id: EventId,
    ) -> Result<Vec<OrganizationId>, StorageError>;

    /// Which of these blobs nobody names: neither the stored event of that organization and id, nor one
    /// in the intake, names exactly that put ([`BlobKey::named_by`]).
    async fn unnamed_blobs(&self, keys: Vec<BlobKey>) -> Result<Vec<BlobKey>, StorageError>;

    /// The installation that this storage is, the same for ever and in every copy of it. Becomes
    /// `fresh` where it was never asked for.
    async fn installation(&self, fresh: InstallationId) -> Result<InstallationId, StorageError>;

    /// The keys that links to blobs are signed with, the newest first, two at most. Stores `fresh` if
    /// there is none yet, or if the newest has signed for [`LinkKey::AGE_MAX`].
    async fn link_keys(&self, fresh: LinkKey) -> Result<Vec<LinkKey>, StorageError>;

    /// Deletes an organization and all that is its own. From now on nothing of it is found, accepted
    /// or sent, and its id and name are free; its rows are removed by
    /// [`remove_old`](Self::remove_old), which also says what blobs its events named. Those that only
    /// its intake named are [nobody's](Self::unnamed_blobs).
    ///
    /// # Errors
    /// [`NotFound`](super::StorageErrorKind::NotFound).
    async fn delete_organization(&self, id: OrganizationId, by: &Actor)
    -> Result<(), StorageError>;
}

/// What a slice has removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Events.
    pub events: usize,
    /// Deliveries.
    pub deliveries: usize,
    /// Attempts.
    pub attempts: usize,
    /// Replays that were over.
    pub replays: usize,
    /// Entries of the audit trail.
    pub audit: usize,
    /// Bytes of envelopes, and of the changes that are kept beside them.
    pub bytes: u64,
    /// Organizations of which nothing is left.
    pub organizations: usize,
    /// The blobs that the events named, which are nobody's now.
    pub blobs: Vec<BlobKey>,
    /// Whether there is more to do.
    pub more: bool,
}

impl Removed {
    /// Whether it removed nothing.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.events
            + self.deliveries
            + self.attempts
            + self.replays
            + self.audit
            + self.organizations
            == 0
    }
}

/// What came of erasing an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Erased {
    /// Whether it had been erased before.
    pub before: bool,
    /// The blobs that it named, also in the intake.
    pub blobs: Vec<BlobKey>,
}

/// Which times are old, and which cannot be true.
#[derive(Debug, Clone, Copy)]
pub struct AgeLimit {
    /// What was sealed then, or before, is old.
    pub old: Timestamp,
    /// Nobody whose clock is about right seals something later than that.
    pub possible: Timestamp,
}

impl AgeLimit {
    /// By how much a clock may be ahead of the storage's. An event from further in the future says nothing
    /// of its neighbours' age: it would hold up what comes after it until then.
    const AHEAD_MAX: Duration = Duration::from_secs(24 * 60 * 60);

    /// For what is kept for so long.
    #[must_use]
    pub fn new(now: Timestamp, age: Duration) -> Self {
        Self { old: now - age, possible: now + Self::AHEAD_MAX }
    }

    /// Whether what was sealed then is old.
    #[must_use]
    pub fn is_old(&self, time: Timestamp) -> bool {
        time <= self.old
    }

    /// Whether a machine may have sealed an event then whose clock is about right.
    #[must_use]
    pub fn is_possible(&self, time: Timestamp) -> bool {
        time <= self.possible
    }
}
