//! One event, sent as a delivery is.

use std::{fmt, time::Duration};

use esl_core::{
    CallbackPolicy, CallbackUrl, Clock, DeliveryId, HeaderName, LaneId, Outbound, Secret, Sent,
    Signer, SystemClock, Transport,
};
use esl_http::{HttpTransport, client::StoredEvent};

use super::Request;

/// Sends events to one URL.
pub(super) struct Forward {
    transport: HttpTransport,
    clock: SystemClock,
    url: CallbackUrl,
    signer: Signer,
    prefix: String,
}

/// What came of it.
pub(super) struct Outcome(Sent);

impl Forward {
    pub(super) fn new(request: &Request, secret: &Secret) -> Self {
        Self {
            transport: HttpTransport::new(CallbackPolicy::allow_private()),
            clock: SystemClock::new(),
            url: request.forward_to.clone(),
            signer: Signer::new(secret, request.algorithm),
            prefix: request.prefix.to_ascii_lowercase(),
        }
    }

    /// Sends an event, once.
    pub(super) async fn send(&self, event: &StoredEvent) -> Outcome {
        let body = event.envelope.get().as_bytes();
        let outbound = |fresh| Outbound {
            url: self.url.clone(),
            headers: self.headers(event),
            body: body.to_vec().into(),
            timeout: TIMEOUT,
            fresh,
        };
        let sent = self.transport.send(outbound(false)).await;
        match &sent.result {
            // A kept connection was closed before anything came of it: no attempt, as with deliveries.
            Err(failure) if failure.error == esl_core::AttemptError::StaleConnection => {
                Outcome(self.transport.send(outbound(true)).await)
            }
            _ => Outcome(sent),
        }
    }

    /// The headers of a first attempt (docs/api.md, "What a receiver gets").
    fn headers(&self, event: &StoredEvent) -> Vec<(HeaderName, String)> {
        let body = event.envelope.get().as_bytes();
        let id = event.id.to_string();
        let seconds = self.clock.utc().as_seconds();
        let prefixed = |name: &str| format!("{}-{name}", self.prefix).into();
        vec![
            ("user-agent".into(), USER_AGENT.to_owned()),
            (prefixed("event"), event.event_type.to_string()),
            (prefixed("delivery"), DeliveryId::new(event.id, event.seq, NO_LANE).to_string()),
            (prefixed("attempt"), "1".to_owned()),
            (prefixed("signature"), self.signer.sapien(body)),
            ("webhook-timestamp".into(), seconds.to_string()),
            ("webhook-signature".into(), self.signer.standard(&id, seconds, body)),
            ("webhook-id".into(), id),
        ]
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Sent { result, timings }) = self;
        match result {
            Ok(answer) => write!(f, "{}", answer.status)?,
            Err(failure) if failure.detail.is_empty() => f.write_str(failure.error.as_str())?,
            Err(failure) => write!(f, "{}: {}", failure.error.as_str(), failure.detail)?,
        }
        write!(f, "  {} ms", timings.total.as_millis())
    }
}

/// As long as deliveries have by default.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Lanes begin with 1: these are the deliveries of no subscription.
const NO_LANE: LaneId = LaneId::new(0);
const USER_AGENT: &str = concat!("ESL/", env!("CARGO_PKG_VERSION"));
