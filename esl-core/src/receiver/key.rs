//! What an event is known by.

use std::fmt;

use super::Event;
use crate::{Envelope, EventId, OrganizationId};

/// What an event is known by, of whichever organization.
///
/// An event's id is unique within its organization alone, as publishers may choose ids: two organizations may
/// have different events of the same id, and a receiver that takes events of both gets both.
///
/// ```
/// use esl_core::{Envelope, EventKey};
///
/// # let body = br#"{"id":"evt_01J00000000000000000000000","type":"person.updated","version":"1.0",
/// #   "timestamp":"2024-01-15T14:32:00.000Z","organization_id":"org_01J00000000000000000000000",
/// #   "data":1}"#;
/// let envelope = Envelope::from_slice(body)?; // once its signature was verified
/// let key: EventKey = envelope.key();
/// assert_eq!((key.organization, key.event), (envelope.organization_id, envelope.id));
/// assert_eq!(key.to_string(), "org_01J00000000000000000000000/evt_01J00000000000000000000000");
/// # Ok::<(), esl_core::EventError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey {
    /// Whose event it is.
    pub organization: OrganizationId,
    /// Which of the organization's events it is.
    pub event: EventId,
}

impl fmt::Display for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.organization, self.event)
    }
}

impl Envelope {
    /// What the event is known by: the same key is the same event.
    #[must_use]
    pub const fn key(&self) -> EventKey {
        EventKey { organization: self.organization_id, event: self.id }
    }
}

impl<T> Event<T> {
    /// What the event is known by: the same key is the same event.
    #[must_use]
    pub const fn key(&self) -> EventKey {
        EventKey { organization: self.organization_id, event: self.id }
    }
}
