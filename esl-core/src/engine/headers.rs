//! The headers that go with a delivery.

use super::{lane::Job, target::Target};
use crate::{DeliveryId, HeaderName, Timestamp};

/// The names, made once.
#[derive(Debug, Clone)]
pub(crate) struct HeaderNames {
    prefix: HeaderName,
    signature: HeaderName,
    signature_next: HeaderName,
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
            prefix: prefixed(""),
            signature: prefixed("signature"),
            signature_next: prefixed("signature-next"),
            event: prefixed("event"),
            delivery: prefixed("delivery"),
            attempt: prefixed("attempt"),
            webhook_id: "webhook-id".into(),
            webhook_timestamp: "webhook-timestamp".into(),
            webhook_signature: "webhook-signature".into(),
            user_agent: "user-agent".into(),
        }
    }

    /// Whether a header, in lower case, begins like ESL's own.
    pub(crate) fn is_ours(&self, name: &str) -> bool {
        name.starts_with(&*self.prefix)
    }

    /// The headers of one attempt. While a rotation is under way, the documented signature is made
    /// with the old secret, the one beside it with the new, and the Standard header has both.
    pub(crate) fn of(
        &self,
        target: &Target,
        job: &Job,
        body: &[u8],
        attempt: u32,
        now: Timestamp,
    ) -> Vec<(HeaderName, String)> {
        let event = &job.event;
        let id = event.id.to_string();
        let delivery = DeliveryId::new(event.id, job.seq, target.subscription.lane);
        let seconds = now.as_seconds();
        let mut standard = target.signer.standard(&id, seconds, body);
        let mut sapien = target.signer.sapien(body);
        let name = HeaderName::clone;
        let mut headers = Vec::with_capacity(FIXED_COUNT + 1 + target.headers.len());
        if let Some(old) = target.retiring_at(now) {
            standard.push(' ');
            standard.push_str(&old.standard(&id, seconds, body));
            let next = std::mem::replace(&mut sapien, old.sapien(body));
            headers.push((name(&self.signature_next), next));
        }
        headers.extend_from_slice(&target.headers);
        headers.extend([
            (name(&self.user_agent), USER_AGENT.to_owned()),
            (name(&self.signature), sapien),
            (name(&self.event), event.event_type.as_str().to_owned()),
            (name(&self.delivery), delivery.to_string()),
            (name(&self.attempt), attempt.to_string()),
            (name(&self.webhook_id), id),
            (name(&self.webhook_timestamp), seconds.to_string()),
            (name(&self.webhook_signature), standard),
        ]);
        headers
    }
}

/// Headers that every attempt has.
const FIXED_COUNT: usize = 8;
