use std::fmt;

use async_trait::async_trait;

use super::{StorageError, StoredEvent, Worker};
use crate::{OrganizationId, Seq};

/// Feeds: all that is committed, for something outside that gets every event once at least.
///
/// A feed has a name, and a cursor in each organization: up to it everything was passed on.
#[async_trait]
pub trait Feed: fmt::Debug + Send + Sync + 'static {
    /// Begins a feed of that name: its cursors are at the last event of each organization that there is,
    /// and at the beginning of those that are made later. One that has begun stays as it is.
    ///
    /// # Errors
    /// [`Fenced`](super::StorageErrorKind::Fenced) if the epoch is over.
    async fn begin_feed(&self, worker: &Worker, name: &str) -> Result<(), StorageError>;

    /// What comes next in a feed: of some organizations after `after`, the events behind the cursor, in
    /// the order of their seqs. Of one that has not begun, nothing.
    ///
    /// - There are at most `limit` events in the answer, and their bodies have at most `bytes_max` bytes
    ///   together, but for the first.
    /// - An event that was removed, or that cannot be read as it was written, is passed over; the storage
    ///   logs the latter.
    /// - Whoever goes on with [`Fed::after`] until it is `None` has seen something of every organization
    ///   that has something, however much another one has. Its cost depends on how many organizations
    ///   are looked at, which is bounded, and not on how much is stored.
    async fn feed(
        &self,
        name: &str,
        after: Option<OrganizationId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Fed, StorageError>;

    /// Moves cursors, each from where it was expected to where it is to be. One that stands elsewhere
    /// stays, and so does that of an organization that is gone.
    ///
    /// # Errors
    /// [`Fenced`](super::StorageErrorKind::Fenced) if the epoch is over; then none was moved.
    async fn advance_feed(
        &self,
        worker: &Worker,
        name: &str,
        steps: Vec<FeedStep>,
    ) -> Result<(), StorageError>;
}

/// A part of a feed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fed {
    /// What there is, one for each organization that has something.
    pub batches: Vec<FeedBatch>,
    /// Where the next look begins; `None` once all organizations have had their turn.
    pub after: Option<OrganizationId>,
}

/// How much there is room for in a part of a [`Feed`].
#[derive(Debug, Clone, Copy)]
pub struct FeedRoom {
    /// How many events fit in yet.
    pub events: usize,
    /// How many bytes of bodies.
    pub bytes: usize,
    is_empty: bool,
}

impl FeedRoom {
    /// For so many events, and so many bytes of bodies.
    #[must_use]
    pub const fn new(events: usize, bytes: usize) -> Self {
        Self { events, bytes, is_empty: true }
    }

    /// Takes an event in; false if it is too much. The first one may have more bytes than there is room for.
    pub fn takes(&mut self, event: &StoredEvent) -> bool {
        let bytes = event.body.len();
        if self.events == 0 || (bytes > self.bytes && !self.is_empty) {
            return false;
        }
        self.events -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        self.is_empty = false;
        true
    }
}

/// What comes next in an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedBatch {
    /// Which.
    pub organization: OrganizationId,
    /// Where the cursor stands.
    pub from: Seq,
    /// Where it stands once these events were passed on.
    pub to: Seq,
    /// The events that there still are above `from`, up to `to`. There may be none.
    pub events: Vec<StoredEvent>,
}

impl FeedBatch {
    /// How many events are passed over because they are not there any more.
    #[must_use]
    pub const fn passed(&self) -> u64 {
        (self.to.get() - self.from.get()).saturating_sub(self.events.len() as u64)
    }
}

/// A cursor's step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedStep {
    /// In which organization.
    pub organization: OrganizationId,
    /// Where it is expected to stand.
    pub from: Seq,
    /// Where it is to stand; not beyond the last event.
    pub to: Seq,
}
