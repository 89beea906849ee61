//! Deliveries: how events fared on their way.

use esl_core::{DeliveryId, EventId, EventType, Seq, SubscriptionId, Timestamp};
use serde::Deserialize;

use super::{Client, ClientError, List, subscriptions, wire};

impl Client {
    /// The deliveries to a subscription, the newest event's first; also to one that was deleted.
    pub fn deliveries(&self, subscription: SubscriptionId) -> List<Delivery> {
        self.list(&format!("{}/deliveries", subscriptions::one(subscription)))
    }

    /// A delivery, with its attempts.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delivery(&self, id: DeliveryId) -> Result<DeliveryDetail, ClientError> {
        self.get(&format!("/api/v1/deliveries/{id}")).await
    }

    /// Sends an exhausted or expired delivery again, with all its retries. Not repeated where it is not known
    /// whether it was done: then it is pending, and a second time a conflict.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn redeliver(&self, id: DeliveryId) -> Result<Delivery, ClientError> {
        self.post(&format!("/api/v1/deliveries/{id}/redeliver")).await
    }
}

impl List<Delivery> {
    /// In one state only.
    pub fn in_state(self, state: DeliveryState) -> Self {
        self.with("state", state.as_str())
    }
}

/// A delivery: one event on its way to one subscription.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// Its event.
    pub event_id: EventId,
    /// What has happened.
    #[serde(deserialize_with = "wire::event_type")]
    pub event_type: EventType,
    /// Its subscription.
    pub subscription_id: SubscriptionId,
    /// Its event's place among the organization's events.
    #[serde(deserialize_with = "wire::seq")]
    pub seq: Seq,
    /// How it stands.
    pub state: DeliveryState,
    /// How many attempts there were.
    pub attempts: u32,
    /// When its event was published.
    pub created_at: Timestamp,
    /// When the next attempt begins, while it is pending.
    pub next_attempt_at: Option<Timestamp>,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
    /// The last status that the receiver answered.
    pub last_status: Option<u16>,
    /// What went wrong at the last attempt.
    pub last_error: Option<DeliveryError>,
}

/// How a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeliveryState {
    /// Owed; sent as soon as it is due.
    Pending,
    /// Owed, but the subscription is inactive.
    Held,
    /// The receiver answered 2xx.
    Delivered,
    /// Every attempt has failed.
    Exhausted,
    /// Held for seven days.
    Expired,
    /// The subscription was deleted, or the event erased.
    Cancelled,
    /// A word that this version of the client does not know.
    #[serde(other)]
    Other,
}

impl DeliveryState {
    /// Its word in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Held => "held",
            Self::Delivered => "delivered",
            Self::Exhausted => "exhausted",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Other => "other",
        }
    }
}

/// What went wrong at an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeliveryError {
    /// The receiver answered, but not with 2xx.
    Status,
    /// The URL leads to an address that must not be called.
    RefusedAddress,
    /// The host's name could not be resolved.
    Dns,
    /// No connection came about.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// The time for the attempt was over.
    Timeout,
    /// The connection broke, or what came was not HTTP.
    Reset,
    /// A kept connection turned out to be closed.
    StaleConnection,
    /// The answer's head was larger than is read.
    TooLarge,
    /// The service itself could not send.
    Unsent,
    /// A word that this version of the client does not know.
    #[serde(other)]
    Other,
}

/// A delivery, with its attempts.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct DeliveryDetail {
    /// The delivery.
    #[serde(flatten)]
    pub delivery: Delivery,
    /// The attempts from the first failure on.
    pub attempts_log: Vec<Attempt>,
}

/// An attempt to deliver.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct Attempt {
    /// Which it was; the first is 1.
    pub number: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// What the receiver answered.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<DeliveryError>,
    /// The beginning of what the receiver said, or what is known of the failure.
    pub detail: Option<String>,
    /// Whether it asked a receiver that has failed for long whether it is back.
    pub probe: bool,
    /// Whether it counts against the retries.
    pub charged: bool,
    /// How long its parts took.
    pub timings: Timings,
}

/// How long the parts of an attempt took, in milliseconds; what did not take place is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Timings {
    /// Resolving the name.
    pub resolve_ms: Option<f64>,
    /// Connecting.
    pub connect_ms: Option<f64>,
    /// The TLS handshake.
    pub tls_ms: Option<f64>,
    /// From the start to the first byte of the answer.
    pub first_byte_ms: Option<f64>,
    /// All of it.
    pub total_ms: Option<f64>,
}
