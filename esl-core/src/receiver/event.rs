//! The event that an envelope brings, with its data as a type of the receiver's.

use std::collections::HashMap;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{Envelope, EventId, Metadata, OrganizationId, Timestamp};

/// An event as its receiver knows it: an [`Envelope`] whose data was read as `T`.
///
/// `T` is one of the [payloads](crate::payload) of the catalogue, or any type that serde reads.
///
/// ```
/// use esl_core::{Event, payload::Person};
///
/// # let body = br#"{"id":"evt_01J00000000000000000000000","type":"person.updated","version":"1.0",
/// #   "timestamp":"2024-01-15T14:32:00.000Z","organization_id":"org_01J00000000000000000000000",
/// #   "data":{"id":"person_1","name":"John Doe","email":null,"status":"active",
/// #     "created_at":"2024-01-01T00:00:00.000Z","updated_at":"2024-01-15T14:32:00.000Z","pets":[]},
/// #   "changes":{"name":{"old":"John Smith","new":"John Doe"}},"metadata":{"source":"api"}}"#;
/// let event = Event::<Person>::from_slice(body)?; // once its signature was verified
/// assert_eq!(event.data.name, "John Doe");
/// if let Some(name) = event.changes.get::<String>("name")? {
///     assert_eq!((name.old.as_str(), name.new.as_str()), ("John Smith", "John Doe"));
/// }
/// # Ok::<(), esl_core::EventError>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Event<T> {
    /// Its id, which is unique within the organization: the same [key](Self::key) is the same event, so a second
    /// arrival can be dropped.
    pub id: EventId,
    /// What has happened. A text, so that a receiver also reads types that it does not know.
    pub event_type: String,
    /// When it was published.
    pub timestamp: Timestamp,
    /// Whose event it is.
    pub organization_id: OrganizationId,
    /// What it tells.
    pub data: T,
    /// Which fields have changed.
    pub changes: Changes,
    /// Where it came from.
    pub metadata: Metadata,
}

impl<T: DeserializeOwned> Event<T> {
    /// Reads a delivery's body, whose signature was verified before.
    ///
    /// # Errors
    /// See [`EventError`]. Of data that is too large, the body has a reference only
    /// ([`EventError::ByReference`]).
    pub fn from_slice(body: &[u8]) -> Result<Self, EventError> {
        Envelope::from_slice(body)?.into_event()
    }
}

impl<T> Event<T> {
    /// The same event, with other data: when the type says what to read.
    pub fn map<U>(self, data: impl FnOnce(T) -> U) -> Event<U> {
        let Self { id, event_type, timestamp, organization_id, changes, metadata, .. } = self;
        let data = data(self.data);
        Event { id, event_type, timestamp, organization_id, data, changes, metadata }
    }
}

impl Envelope {
    /// Reads a delivery's body, whose signature was verified before.
    ///
    /// # Errors
    /// [`EventError::Envelope`].
    pub fn from_slice(body: &[u8]) -> Result<Self, EventError> {
        serde_json::from_slice(body).map_err(EventError::Envelope)
    }

    /// The event, with the data that the envelope has. What was erased has `null`.
    ///
    /// # Errors
    /// [`EventError::ByReference`] if it has none but a reference, and [`EventError::Data`] if the data
    /// is not a `T`.
    pub fn into_event<T: DeserializeOwned>(mut self) -> Result<Event<T>, EventError> {
        match (self.data.take(), &self.data_ref) {
            (None, Some(_)) => Err(EventError::ByReference),
            (None, None) => self.into_event_with(b"null"),
            (Some(data), _) => self.into_event_with(data.get().as_bytes()),
        }
    }

    /// The event, with data that was fetched from where the [reference](Self::data_ref) says.
    ///
    /// # Errors
    /// [`EventError::Data`] if it is not a `T`.
    pub fn into_event_with<T: DeserializeOwned>(self, data: &[u8]) -> Result<Event<T>, EventError> {
        Ok(Event {
            id: self.id,
            event_type: self.event_type,
            timestamp: self.timestamp,
            organization_id: self.organization_id,
            data: serde_json::from_slice(data).map_err(EventError::Data)?,
            changes: Changes(self.changes),
            metadata: self.metadata,
        })
    }
}

/// Which fields of what an event tells have changed; nothing, for an event that says nothing of it.
///
/// Of an event that is too large even [by reference](crate::DataRef), the envelope leaves them out, too: it
/// looks as if nothing had changed, and `GET /api/v1/events/{id}` has them.
///
/// It is also empty where the changes made the envelope too large even without its data: they are left out of
/// what is sent then, and nothing in it says so. With a token, `GET /api/v1/events/{id}` has them, as
/// `changes` beside the envelope. Only an event whose data has a [reference](Envelope::data_ref) can be such a
/// one.
#[derive(Debug, Clone, Default)]
pub struct Changes(Option<Box<RawValue>>);

/// What a field was, and what it is.
///
/// Where there may have been no value, `T` is an `Option`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Change<T> {
    /// Before.
    pub old: T,
    /// Now.
    pub new: T,
}

impl Changes {
    /// How a field has changed; `None` if the event does not say that it has: it has not, or the changes were too
    /// large to be sent, and are at `GET /api/v1/events/{id}` ([`Changes`]). Members of members are named with
    /// dots: `address.city`.
    ///
    /// # Errors
    /// [`EventError::Changes`] if the publisher wrote something else there, or values that are no `T`.
    pub fn get<T: DeserializeOwned>(&self, field: &str) -> Result<Option<Change<T>>, EventError> {
        let Some(change) = self.read()?.remove(field) else { return Ok(None) };
        serde_json::from_str(change.get()).map(Some).map_err(EventError::Changes)
    }

    /// The names of the fields, in the order of the alphabet; none if the changes were too large to be sent
    /// ([`Changes`]).
    ///
    /// # Errors
    /// [`EventError::Changes`] if the publisher wrote something else there.
    pub fn fields(&self) -> Result<Vec<String>, EventError> {
        let mut fields: Vec<String> = self.read()?.into_keys().collect();
        fields.sort_unstable();
        Ok(fields)
    }

    /// The JSON that the publisher wrote, if there is any.
    #[must_use]
    pub fn as_raw(&self) -> Option<&RawValue> {
        self.0.as_deref()
    }

    fn read(&self) -> Result<HashMap<String, Box<RawValue>>, EventError> {
        let Some(raw) = &self.0 else { return Ok(HashMap::new()) };
        serde_json::from_str(raw.get()).map_err(EventError::Changes)
    }
}

/// Why a body that was signed is not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// It is not an envelope.
    #[error("the body is not an envelope")]
    Envelope(#[source] serde_json::Error),
    /// The data is not what it was to be read as.
    #[error("the data is not of the type that it is read as")]
    Data(#[source] serde_json::Error),
    /// The changes are not what they were to be read as.
    #[error("the changes are not of the type that they are read as")]
    Changes(#[source] serde_json::Error),
    /// The data was too large to be sent; the envelope says where it is.
    #[error("the data is not in the envelope: it is to be fetched")]
    ByReference,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(members: &str) -> String {
        format!(
            r#"{{"id":"evt_01J00000000000000000000000","type":"order.paid","version":"1.0","timestamp":"2024-01-15T14:32:00.000Z","organization_id":"org_01J00000000000000000000000",{members}}}"#
        )
    }

    fn read<T: DeserializeOwned>(members: &str) -> Result<Event<T>, EventError> {
        Event::from_slice(body(members).as_bytes())
    }

    #[test]
    fn data_is_read_as_the_type_that_was_asked_for() {
        let event = read::<Vec<u8>>(r#""data":[1,2],"metadata":{"source":"api","n":1.0}"#).unwrap();
        assert_eq!((event.event_type.as_str(), event.data), ("order.paid", vec![1, 2]));
        assert_eq!(event.metadata.source.as_deref(), Some("api"));
        assert_eq!(event.metadata.other[0].1.get(), "1.0");
        assert!(matches!(read::<u8>(r#""data":[1,2]"#), Err(EventError::Data(_))));
        assert!(matches!(Event::<u8>::from_slice(b"[]"), Err(EventError::Envelope(_))));
    }

    #[test]
    fn data_that_was_left_out_is_asked_for_and_what_was_erased_is_null() {
        let reference = r#""data_ref":{"type":"blob","uri":"https://x/y","expires_at":"2024-01-15T14:32:00.000Z","size_bytes":2,"checksum":"sha256:00"}"#;
        assert!(matches!(read::<u8>(reference), Err(EventError::ByReference)));
        let envelope = Envelope::from_slice(body(reference).as_bytes()).unwrap();
        assert_eq!(envelope.into_event_with::<u8>(b"7").unwrap().data, 7);
        let erased = r#""data":null,"metadata":{}"#;
        assert_eq!(read::<Option<u8>>(erased).unwrap().data, None);
        assert!(matches!(read::<u8>(erased), Err(EventError::Data(_))));
    }

    #[test]
    fn changes_say_what_was_and_what_is() {
        let changes =
            r#""data":1,"changes":{"n":{"old":null,"new":2},"a.b":{"old":"x","new":"y"}}"#;
        let event = read::<u8>(changes).unwrap();
        assert_eq!(event.changes.fields().unwrap(), ["a.b", "n"]);
        let change = event.changes.get::<Option<u8>>("n").unwrap();
        assert_eq!(change, Some(Change { old: None, new: Some(2) }));
        assert_eq!(event.changes.get::<String>("a.b").unwrap().unwrap().new, "y");
        assert_eq!(event.changes.get::<u8>("other").unwrap(), None);
        assert!(matches!(event.changes.get::<u8>("n"), Err(EventError::Changes(_))));
        let event = read::<u8>(r#""data":1,"changes":[]"#).unwrap();
        assert!(matches!(event.changes.fields(), Err(EventError::Changes(_))));
        assert!(read::<u8>(r#""data":1"#).unwrap().changes.fields().unwrap().is_empty());
    }
}
