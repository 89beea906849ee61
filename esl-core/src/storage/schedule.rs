use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{Page, PageOf, StorageError};
use crate::{EventId, Limit, OrganizationId, SealedEvent, Timestamp};

/// Events that are to be published at a time of their own.
#[async_trait]
pub trait Schedule: fmt::Debug + Send + Sync + 'static {
    /// Keeps events until they are due, all or none. An event whose time has come is due at once.
    ///
    /// # Errors
    /// [`NotFound`](super::StorageErrorKind::NotFound) if there is no such organization;
    /// [`Conflict`](super::StorageErrorKind::Conflict) if one of that id waits already;
    /// [`OverLimit`](super::StorageErrorKind::OverLimit) if more than `at_most` would wait in an
    /// organization.
    async fn schedule(
        &self,
        events: Vec<(Timestamp, Arc<SealedEvent>)>,
        at_most: Limit,
    ) -> Result<(), StorageError>;

    /// What waits in an organization, in the order in which it was scheduled, after a number.
    async fn scheduled(
        &self,
        organization: OrganizationId,
        page: Page<ScheduleNumber>,
    ) -> Result<PageOf<Scheduled>, StorageError>;

    /// Forgets an event that waits.
    ///
    /// # Errors
    /// [`NotFound`](super::StorageErrorKind::NotFound), also once it was due.
    async fn unschedule(
        &self,
        organization: OrganizationId,
        id: EventId,
    ) -> Result<(), StorageError>;

    /// When the next event of any organization is due.
    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError>;

    /// Moves what is due into the [intake](super::Lanes::intake), by time, at most `limit`: each once,
    /// whoever calls. Says how many it were.
    async fn release_due(&self, limit: usize) -> Result<usize, StorageError>;
}

/// So many events an organization itself may have wait.
pub const SCHEDULED_MAX: Limit = Limit::AtMost(1000);

/// An event that waits for its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// Where it stands in the list.
    pub number: ScheduleNumber,
    /// When it is to be published.
    pub due_at: Timestamp,
    /// The event.
    pub event: Arc<SealedEvent>,
}

/// A place in the list of what is scheduled. Later ones have larger numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScheduleNumber(pub u64);
