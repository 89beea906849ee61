//! The headers that go with a delivery.

use crate::{DeliveryId, HeaderName, Timestamp};

use super::lane::{Job, Target};

/// The names, made once.
#[derive(Debug, Clone)]
pub(crate) struct HeaderNames {
    signature: HeaderName,
    event: HeaderName,
    delivery: HeaderName,
    attempt: HeaderName,
    webhook_id: HeaderName,
    webhook_timestamp: HeaderName,
    webhook_signature: HeaderName,
    user_agent: HeaderName,
}

const USER_AGENT: &str = concat!("ESL/", env!("CARGO_PKG_VERSION"));

impl HeaderNames {
    /// With the prefix of the documented headers, for instance `X-Sapien`.
    pub(crate) fn new(prefix: &str) -> Self {
        let prefixed = |name: &str| format!("{prefix}-{name}").to_ascii_lowercase().into();
        Self {
            signature: prefixed("signature"),
            event: prefixed("event"),
            delivery: prefixed("delivery"),
            attempt: prefixed("attempt"),
            webhook_id: "webhook-id".into(),
            webhook_timestamp: "webhook-timestamp".into(),
            webhook_signature: "webhook-signature".into(),
            user_agent: "user-agent".into(),
        }
    }

    /// The headers of one attempt.
    pub(crate) fn of(
        &self,
        target: &Target,
        job: &Job,
        attempt: u32,
        now: Timestamp,
    ) -> Vec<(HeaderName, String)> {
        let event = &job.event;
        let id = event.id.to_string();
        let delivery = DeliveryId::new(event.id, job.seq, target.subscription.lane);
        let seconds = now.as_seconds();
        let standard = target.signer.standard(&id, seconds, &event.body);
        let sapien = target.signer.sapien(&event.body);
        let name = HeaderName::clone;
        vec![
            (name(&self.user_agent), USER_AGENT.to_owned()),
            (name(&self.signature), sapien),
            (name(&self.event), event.event_type.as_str().to_owned()),
            (name(&self.delivery), delivery.to_string()),
            (name(&self.attempt), attempt.to_string()),
            (name(&self.webhook_id), id),
            (name(&self.webhook_timestamp), seconds.to_string()),
            (name(&self.webhook_signature), standard),
        ]
    }
}
