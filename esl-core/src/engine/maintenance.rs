//! Announcing maintenance: `system.maintenance.scheduled` (SPEC.md, "System Events").

use std::sync::Arc;

use serde_json::json;

use super::{
    Esl, Publisher,
    driver::Driver,
    publish::{PublishError, Published, publish_free},
};
use crate::{
    EventId, Limit, NewEvent, OrganizationId, Origin, SealedEvent, Timestamp, seal,
    storage::{SCHEDULED_MAX, StorageError, StorageErrorKind},
};

/// A time in which something will not be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintenance {
    /// From then on …
    pub starts_at: Timestamp,
    /// … until then.
    pub ends_at: Timestamp,
    /// What is to be said of it, 1 to [`MESSAGE_BYTES_MAX`](Self::MESSAGE_BYTES_MAX) bytes.
    pub message: String,
}

impl Maintenance {
    /// The name of its event type.
    pub const EVENT_TYPE: &'static str = "system.maintenance.scheduled";
    /// The longest message.
    pub const MESSAGE_BYTES_MAX: usize = 4096;

    /// Whether it can be announced at that time.
    ///
    /// # Errors
    /// If it would be over by then, ends before it begins, or says nothing or too much.
    pub fn check(&self, announced_at: Timestamp) -> Result<(), MaintenanceError> {
        if self.ends_at <= self.starts_at {
            return Err(MaintenanceError::NoTime);
        }
        if self.ends_at <= announced_at {
            return Err(MaintenanceError::Over);
        }
        if self.message.trim().is_empty() || self.message.len() > Self::MESSAGE_BYTES_MAX {
            return Err(MaintenanceError::Message);
        }
        Ok(())
    }

    fn sealed(
        &self,
        organization: OrganizationId,
        origin: Option<Arc<Origin>>,
        (id, at): (EventId, Timestamp),
    ) -> Arc<SealedEvent> {
        let event_type = Self::EVENT_TYPE.parse().expect("our own types are types");
        let data = json!({
            "starts_at": self.starts_at,
            "ends_at": self.ends_at,
            "message": self.message,
        });
        let mut event = NewEvent::new(organization, event_type, &data).expect("a value is JSON");
        event.origin = Some(origin.unwrap_or_else(|| {
            Arc::new(Origin {
                correlation_id: id.to_string(),
                triggered_by: "operator".to_owned(),
                source: "system",
            })
        }));
        Arc::new(seal(&event, id, at))
    }
}

/// Why maintenance cannot be announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MaintenanceError {
    /// It takes no time.
    #[error("it has to end after it starts")]
    NoTime,
    /// It ends before it is announced.
    #[error("it would be over when it is announced")]
    Over,
    /// There is no message, or too long a one.
    #[error("expected a message of 1 to {} bytes", Maintenance::MESSAGE_BYTES_MAX)]
    Message,
}

/// What came of announcing maintenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// It is announced.
    Now(Published),
    /// It will be, by the event of this id.
    Later(EventId, Timestamp),
}

impl Esl {
    /// Announces maintenance to an organization: now, or at a time that is yet to come. An announcement
    /// is never refused for what the organization may publish, and does not count.
    ///
    /// # Errors
    /// See [`PublishError`]; of one that is to come, [`PublishError::Storage`] of the kind
    /// [`OverLimit`](StorageErrorKind::OverLimit) if very many wait already.
    ///
    /// # Cancellation
    /// A dropped call may or may not have announced it.
    pub async fn announce_maintenance(
        &self,
        organization: OrganizationId,
        maintenance: &Maintenance,
        at: Option<Timestamp>,
        origin: Option<Arc<Origin>>,
    ) -> Result<Announced, PublishError> {
        self.demand_enabled()?;
        let driver: &Driver = &self.engine.driver;
        let (id, now) = driver.ids.event();
        maintenance.check(at.map_or(now, |at| at.max(now)))?;
        let Some(at) = at.filter(|at| *at > now) else {
            let _room = driver.room.acquire().await.expect("it is never closed");
            let event = maintenance.sealed(organization, origin, (id, now));
            return publish_free(driver, event).await.map(Announced::Now);
        };
        // It says when it was announced, not when that was planned.
        let event = maintenance.sealed(organization, origin, (id, at));
        let scheduled = driver.storage.schedule(vec![(at, event)], SCHEDULED_MAX).await;
        scheduled.map_err(not_scheduled)?;
        Ok(Announced::Later(id, at))
    }
}

impl Publisher {
    /// Announces maintenance to organizations, now or at a time that is yet to come, by an engine over
    /// the same storage. In each of them the event has the same id, which is returned. Whatever waits
    /// there already, it is not too much.
    ///
    /// It goes in slices, so that nobody who publishes waits long. Should one fail, those before it
    /// stand, and [`take_back_maintenance`](Self::take_back_maintenance) takes back what still waits.
    ///
    /// # Errors
    /// [`PublishError::Maintenance`], [`PublishError::UnknownOrganization`], or when storage fails.
    pub async fn announce_maintenance(
        &self,
        organizations: &[OrganizationId],
        maintenance: &Maintenance,
        at: Option<Timestamp>,
    ) -> Result<EventId, PublishError> {
        let (id, now) = self.ids().event();
        let says_at = at.map_or(now, |at| at.max(now));
        maintenance.check(says_at)?;
        // Without a time of its own it is due whatever storage's clock says.
        let due_at = at.unwrap_or(Timestamp::EPOCH);
        for slice in organizations.chunks(SLICE) {
            let one = |organization: &OrganizationId| {
                (due_at, maintenance.sealed(*organization, None, (id, says_at)))
            };
            let events = slice.iter().map(one).collect();
            let scheduled = self.storage().schedule(events, Limit::Unlimited).await;
            scheduled.map_err(not_scheduled)?;
        }
        Ok(id)
    }

    /// Takes an announcement back where it still waits, and says in how many organizations it did.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn take_back_maintenance(
        &self,
        organizations: &[OrganizationId],
        id: EventId,
    ) -> Result<usize, StorageError> {
        let mut taken_back = 0;
        for organization in organizations {
            match self.storage().unschedule(*organization, id).await {
                Ok(()) => taken_back += 1,
                Err(error) if error.kind() == StorageErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(taken_back)
    }
}

fn not_scheduled(error: StorageError) -> PublishError {
    match error.kind() {
        StorageErrorKind::NotFound => PublishError::UnknownOrganization,
        _ => error.into(),
    }
}

/// So many organizations are told in one transaction.
const SLICE: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maintenance_takes_time_is_yet_to_end_and_says_something() {
        let at = Timestamp::from_millis;
        let whole = Maintenance { starts_at: at(10), ends_at: at(20), message: "m".into() };
        assert_eq!(whole.check(at(19)), Ok(()));
        assert_eq!(whole.check(at(20)), Err(MaintenanceError::Over));
        let none = Maintenance { ends_at: at(10), ..whole.clone() };
        assert_eq!(none.check(at(0)), Err(MaintenanceError::NoTime));
        for message in [" \n".to_owned(), "m".repeat(4097)] {
            let silent = Maintenance { message, ..whole.clone() };
            assert_eq!(silent.check(at(0)), Err(MaintenanceError::Message));
        }
    }
}
