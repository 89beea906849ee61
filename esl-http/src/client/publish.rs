//! Publishing.

use esl_core::{EventId, Seq};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::{Client, ClientError, wire};

impl Client {
    /// Publishes an event. When this returns, it is durable and on its way.
    ///
    /// Tried again as [`RetryPolicy`](super::RetryPolicy) says, which is safe: all tries have one
    /// `Idempotency-Key`, or the event has an id of its own.
    ///
    /// # Errors
    /// See [`ClientError`]. After one that [`is_transient`](ClientError::is_transient) it is not known whether
    /// the event was published: an id or a key of one's own makes another call safe.
    pub async fn publish(&self, event: &NewEvent) -> Result<Published, ClientError> {
        let key = event.id.is_none().then(generated_key);
        self.publish_body(event, key.as_deref()).await
    }

    /// Publishes up to 1000 events in this order, all or nothing.
    ///
    /// # Errors
    /// As of [`publish`](Self::publish).
    pub async fn publish_all(&self, events: &[NewEvent]) -> Result<Vec<Published>, ClientError> {
        let key = events.iter().any(|event| event.id.is_none()).then(generated_key);
        self.publish_many(events, key.as_deref()).await
    }

    /// Publishes events under an `Idempotency-Key` of one's own: for 24 hours the same key with the same events
    /// publishes nothing again, whoever sends it.
    ///
    /// # Errors
    /// As of [`publish`](Self::publish).
    pub async fn publish_once(
        &self,
        key: &str,
        events: &[NewEvent],
    ) -> Result<Vec<Published>, ClientError> {
        self.publish_many(events, Some(key)).await
    }

    async fn publish_many(
        &self,
        events: &[NewEvent],
        key: Option<&str>,
    ) -> Result<Vec<Published>, ClientError> {
        #[derive(Deserialize)]
        struct Answered {
            data: Vec<Published>,
        }

        let Answered { data } = self.publish_body(events, key).await?;
        Ok(data)
    }

    async fn publish_body<T: serde::de::DeserializeOwned>(
        &self,
        body: &(impl Serialize + ?Sized),
        key: Option<&str>,
    ) -> Result<T, ClientError> {
        let mut call = self.call(Method::POST, super::events::EVENTS).json(body).repeatable();
        if let Some(key) = key {
            call = call.header("idempotency-key", key);
        }
        call.send().await?.json()
    }
}

/// A key that nobody has used: 128 random bits.
fn generated_key() -> String {
    format!("esl-{:032x}", fastrand::u128(..))
}

/// An event to be published.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct NewEvent {
    /// What has happened: `person.updated`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// What its receivers need to know of it; it arrives as it is written here.
    pub data: Box<RawValue>,
    /// An id of the publisher's own, which makes publishing it twice one event; generated if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<EventId>,
    /// Which fields changed, from what to what: an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<Box<RawValue>>,
    /// Where it came from: an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
}

impl NewEvent {
    /// An event of that type with this data.
    ///
    /// # Errors
    /// [`Misuse`](super::ClientErrorKind::Misuse) if the data cannot be written as JSON. The type is the server's
    /// to check.
    pub fn new(
        event_type: impl Into<String>,
        data: &(impl Serialize + ?Sized),
    ) -> Result<Self, ClientError> {
        Ok(Self::from_raw(event_type, raw("data", data)?))
    }

    /// An event whose data is JSON already.
    #[must_use]
    pub fn from_raw(event_type: impl Into<String>, data: Box<RawValue>) -> Self {
        let event_type = event_type.into();
        Self { event_type, data, id: None, changes: None, metadata: None }
    }

    /// With an id of its own.
    #[must_use]
    pub const fn with_id(mut self, id: EventId) -> Self {
        self.id = Some(id);
        self
    }

    /// With what has changed: `{"name": {"old": "John Smith", "new": "John Doe"}}`.
    ///
    /// # Errors
    /// As of [`new`](Self::new).
    pub fn with_changes(
        mut self,
        changes: &(impl Serialize + ?Sized),
    ) -> Result<Self, ClientError> {
        self.changes = Some(raw("changes", changes)?);
        Ok(self)
    }

    /// With where it came from: `{"correlation_id": "order-1042", "source": "till"}`.
    ///
    /// # Errors
    /// As of [`new`](Self::new).
    pub fn with_metadata(
        mut self,
        metadata: &(impl Serialize + ?Sized),
    ) -> Result<Self, ClientError> {
        self.metadata = Some(raw("metadata", metadata)?);
        Ok(self)
    }
}

fn raw(name: &str, value: &(impl Serialize + ?Sized)) -> Result<Box<RawValue>, ClientError> {
    to_raw_value(value).map_err(|_| {
        ClientError::misuse("making an event", format!("its {name} cannot be written as JSON"))
    })
}

/// An event that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Published {
    /// Its id.
    pub id: EventId,
    /// Its place among the organization's events.
    #[serde(deserialize_with = "wire::seq")]
    pub seq: Seq,
    /// To how many subscriptions it goes.
    pub deliveries: u32,
}
