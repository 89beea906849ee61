//! A delivery as its organization sees it. What an open one is called follows from its subscription, so that a
//! pause or a deletion rewrites no rows.

use super::Ending;
use crate::{
    AttemptError, Delivery, DeliveryId, DeliveryState, EventId, EventType, LaneId, Seq,
    SubscriptionId, Timestamp,
};

/// What is said of a lane once for all its deliveries, those of a deleted subscription too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneHead {
    /// Its number.
    pub lane: LaneId,
    /// Whose it is.
    pub subscription: SubscriptionId,
    /// Whether the subscription is active.
    pub is_active: bool,
    /// When the subscription was deleted.
    pub deleted_at: Option<Timestamp>,
    /// Its receiver gets nothing before.
    pub not_before: Option<Timestamp>,
}

/// What is kept of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRow {
    /// The place of its event.
    pub seq: Seq,
    /// How many attempts were made.
    pub attempts: u32,
    /// When it came to be owed, if not with its event.
    pub created_at: Option<Timestamp>,
    /// The HTTP status of the last attempt that got one.
    pub last_status: Option<u16>,
    /// What went wrong at the last attempt.
    pub last_error: Option<AttemptError>,
    /// Whether it is owed.
    pub standing: Standing,
}

/// Whether a delivery is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is, and was not tried yet.
    Untried,
    /// It is, and is due then.
    RetryAt(Timestamp),
    /// It is not, since then.
    Closed(Ending, Timestamp),
}

/// What a delivery shows of its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventHead {
    /// Its id.
    pub id: EventId,
    /// Its type.
    pub event_type: EventType,
    /// When it was sealed.
    pub timestamp: Timestamp,
}

impl LaneHead {
    /// What its open deliveries are called.
    #[must_use]
    pub const fn open_state(&self) -> DeliveryState {
        match (self.deleted_at, self.is_active) {
            (Some(_), _) => DeliveryState::Cancelled,
            (None, true) => DeliveryState::Pending,
            (None, false) => DeliveryState::Held,
        }
    }

    /// The state of one of its deliveries.
    #[must_use]
    pub const fn state(&self, standing: Standing) -> DeliveryState {
        match standing {
            Standing::Untried | Standing::RetryAt(_) => self.open_state(),
            Standing::Closed(ending, _) => ending.state(),
        }
    }

    /// One of its deliveries, of that event.
    #[must_use]
    pub fn delivery(&self, row: &DeliveryRow, event: EventHead) -> Delivery {
        let created_at = row.created_at.unwrap_or(event.timestamp);
        let state = self.state(row.standing);
        let (finished_at, due_at) = match row.standing {
            Standing::Untried => (self.deleted_at, Some(created_at)),
            Standing::RetryAt(due_at) => (self.deleted_at, Some(due_at)),
            Standing::Closed(_, at) => (Some(at), None),
        };
        Delivery {
            id: DeliveryId::new(event.id, row.seq, self.lane),
            event_id: event.id,
            event_type: event.event_type,
            subscription_id: self.subscription,
            seq: row.seq,
            state,
            attempts: row.attempts,
            created_at,
            next_attempt_at: due_at
                .max(self.not_before)
                .filter(|_| state == DeliveryState::Pending),
            finished_at,
            last_status: row.last_status,
            last_error: row.last_error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_millis(1_000);

    fn shown(lane: &LaneHead, standing: Standing) -> Delivery {
        let row = DeliveryRow {
            seq: Seq::new(5),
            attempts: 2,
            created_at: None,
            last_status: Some(500),
            last_error: Some(AttemptError::Status),
            standing,
        };
        let event_type = "person.updated".parse().unwrap();
        let event = EventHead { id: EventId::from_bytes([7; 16]), event_type, timestamp: AT };
        lane.delivery(&row, event)
    }

    #[test]
    fn an_open_one_is_called_after_its_subscription() {
        let mut lane = LaneHead {
            lane: LaneId::new(3),
            subscription: SubscriptionId::from_bytes([9; 16]),
            is_active: true,
            deleted_at: None,
            not_before: None,
        };
        let seen = |lane: &LaneHead| {
            let delivery = shown(lane, Standing::Untried);
            (delivery.state, delivery.next_attempt_at, delivery.finished_at)
        };
        assert_eq!(seen(&lane), (DeliveryState::Pending, Some(AT), None));
        let later = Timestamp::from_millis(2_000);
        lane.not_before = Some(later);
        assert_eq!(seen(&lane), (DeliveryState::Pending, Some(later), None));
        lane.is_active = false;
        assert_eq!(seen(&lane), (DeliveryState::Held, None, None));
        lane.deleted_at = Some(later);
        assert_eq!(seen(&lane), (DeliveryState::Cancelled, None, Some(later)));
        let closed = shown(&lane, Standing::Closed(Ending::Delivered, AT));
        assert_eq!((closed.state, closed.finished_at), (DeliveryState::Delivered, Some(AT)));
        assert_eq!(closed.id, DeliveryId::new(closed.event_id, Seq::new(5), LaneId::new(3)));
    }
}
