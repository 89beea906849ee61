//! Events that an application commits in its own transaction, beside its own rows.
//!
//! What a storage offers for that (a `publish_in` that takes its own kind of transaction) is its own
//! method. What they have in common is here: the event is sealed first, outside the transaction, and
//! then inserted as it is.

use std::{sync::Arc, time::Duration};

use crate::{EventId, SealedEvent, Timestamp};

/// An event that is sealed, checked and ready to be inserted by the caller's own transaction.
///
/// Dropping it publishes nothing.
#[derive(Debug, Clone)]
#[must_use = "a prepared event is published by inserting it"]
pub struct Prepared {
    event: Arc<SealedEvent>,
}

impl Prepared {
    /// After so long it is refused: what was put aside for it may have been swept up.
    pub const AGE_MAX: Duration = Duration::from_secs(12 * 60 * 60);

    pub(crate) const fn new(event: Arc<SealedEvent>) -> Self {
        Self { event }
    }

    /// The event's id.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.event.id
    }

    /// The event, for the storage that inserts it.
    #[must_use]
    pub const fn event(&self) -> &Arc<SealedEvent> {
        &self.event
    }

    /// Whether it is too old to be inserted at `now`.
    #[must_use]
    pub fn is_stale(&self, now: Timestamp) -> bool {
        now.since(self.event.timestamp) > Self::AGE_MAX
    }
}
