//! Events that were published, and the types that there are.

use bytes::Bytes;
use esl_core::{Envelope, EventError, EventId, EventType, Seq, Timestamp};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{Client, ClientError, List, wire};

pub(super) const EVENTS: &str = "/api/v1/events";

impl Client {
    /// The events, newest first.
    pub fn events(&self) -> List<StoredEvent> {
        self.list(EVENTS)
    }

    /// An event.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn event(&self, id: EventId) -> Result<StoredEvent, ClientError> {
        self.get(&format!("{EVENTS}/{id}")).await
    }

    /// The data of an event that was too large to go inline, as it was published. Where the server sends on to
    /// its store for it, that is an error, since redirects are not followed: the event's envelope has the link.
    ///
    /// # Errors
    /// See [`ClientError`]. [`NotFound`](super::ClientErrorKind::NotFound), too, if the data is inline.
    pub async fn blob(&self, id: EventId) -> Result<Bytes, ClientError> {
        let answer = self.call(Method::GET, &format!("/api/v1/blobs/{id}")).send().await?;
        Ok(answer.body().clone())
    }

    /// What can be subscribed to, by name.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn event_types(&self) -> Result<Vec<EventTypeEntry>, ClientError> {
        #[derive(Deserialize)]
        struct Answered {
            data: Vec<EventTypeEntry>,
        }

        let Answered { data } = self.get("/api/v1/event-types").await?;
        Ok(data)
    }
}

impl List<StoredEvent> {
    /// Of one type only.
    pub fn of_type(self, event_type: &str) -> Self {
        self.with("type", event_type)
    }
}

/// An event as the service keeps it.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct StoredEvent {
    /// Its id.
    pub id: EventId,
    /// What has happened.
    #[serde(rename = "type", deserialize_with = "wire::event_type")]
    pub event_type: EventType,
    /// Its place among the organization's events.
    #[serde(deserialize_with = "wire::seq")]
    pub seq: Seq,
    /// When it was published.
    pub timestamp: Timestamp,
    /// To how many subscriptions it goes.
    pub deliveries: u32,
    /// What receivers are sent, byte for byte.
    pub envelope: Box<RawValue>,
    /// What has changed, if the envelope has no room for it.
    pub changes: Option<Box<RawValue>>,
    /// When it was erased.
    pub erased_at: Option<Timestamp>,
}

impl StoredEvent {
    /// The envelope, read.
    ///
    /// # Errors
    /// [`EventError::Envelope`].
    pub fn read(&self) -> Result<Envelope, EventError> {
        Envelope::from_slice(self.envelope.get().as_bytes())
    }
}

/// A type of events that can be subscribed to.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct EventTypeEntry {
    /// Its name.
    #[serde(rename = "type", deserialize_with = "wire::event_type")]
    pub event_type: EventType,
    /// What it says.
    pub description: String,
    /// The JSON Schema of the events' data.
    pub schema: Value,
    /// Such data.
    pub example: Option<Value>,
}
