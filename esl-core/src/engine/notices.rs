//! What ESL itself tells an organization: events of the type `system.*` about its subscriptions.
//!
//! A notice is part of the unit that makes it true, and it never goes to the subscription that it is
//! about: that one cannot be reached.

use std::sync::Arc;

use serde_json::json;

use super::{driver::Driver, lanes::Sending};
use crate::{
    AttemptError, DeliveryId, DisabledReason, EventType, LaneId, NewEvent, Origin, SealedEvent,
    Timestamp, seal, storage::LaneState,
};

/// An event of ESL's own, and the lane that it is about.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    pub(crate) event: Arc<SealedEvent>,
    pub(crate) about: LaneId,
}

/// How the last attempt came out, for those who read of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastAttempt {
    pub(crate) number: u32,
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<AttemptError>,
}

/// `system.delivery.exhausted`: a delivery was given up.
pub(crate) fn exhausted(driver: &Driver, send: &Sending, last: LastAttempt) -> Notice {
    let subscription = &send.target.subscription;
    let event = &send.job.event;
    let data = json!({
        "subscription_id": subscription.id,
        "delivery_id": delivery(send),
        "event_id": event.id,
        "event_type": event.event_type.as_str(),
        "seq": send.job.seq.get(),
        "attempts": last.number,
        "last_status": last.status,
        "last_error": last.error.map(AttemptError::as_str),
    });
    notice(driver, send, "system.delivery.exhausted", &data)
}

/// `system.subscription.disabled`: ESL has switched a subscription off.
pub(crate) fn disabled(
    driver: &Driver,
    send: &Sending,
    last: LastAttempt,
    (reason, state, at): (DisabledReason, Option<LaneState>, Timestamp),
) -> Notice {
    let data = json!({
        "subscription_id": send.target.subscription.id,
        "reason": reason.as_str(),
        "disabled_at": at,
        "failing_since": state.and_then(|state| state.failing_since),
        "delivery_id": delivery(send),
        "last_status": last.status,
        "last_error": last.error.map(AttemptError::as_str),
    });
    notice(driver, send, "system.subscription.disabled", &data)
}

fn delivery(send: &Sending) -> DeliveryId {
    DeliveryId::new(send.job.event.id, send.job.seq, send.lane)
}

fn notice(driver: &Driver, send: &Sending, name: &str, data: &serde_json::Value) -> Notice {
    let event_type: EventType = name.parse().expect("our own types are types");
    let origin = Origin {
        correlation_id: delivery(send).to_string(),
        triggered_by: "esl".to_owned(),
        source: "system",
    };
    let organization = send.target.subscription.organization;
    let event = NewEvent::new(organization, event_type, data).expect("a value is JSON");
    let (id, now) = driver.ids.event();
    let event = Arc::new(seal(&event.with_origin(Arc::new(origin)), id, now));
    Notice { event, about: send.lane }
}
