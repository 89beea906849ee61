//! An event before it is sealed.

use std::{fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{EventId, EventType, OrganizationId};

/// An event as its publisher states it.
///
/// `data` and `changes` stay the JSON they were given as: numbers, the order of keys and escapes
/// arrive at the receiver untouched.
///
/// ```
/// # use esl_core::{NewEvent, OrganizationId};
/// # let organization: OrganizationId = "org_01J00000000000000000000000".parse()?;
/// let event = NewEvent::new(
///     organization,
///     "person.updated".parse()?,
///     &serde_json::json!({ "id": "person_1", "name": "John Doe" }),
/// )?;
/// # assert_eq!(event.data.get(), r#"{"id":"person_1","name":"John Doe"}"#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewEvent {
    /// Whose event it is.
    pub organization: OrganizationId,
    /// What kind of thing happened.
    pub event_type: EventType,
    /// What the receiver needs to know of it.
    pub data: Box<RawValue>,
    /// Which fields changed, from what to what.
    pub changes: Option<Box<RawValue>>,
    /// Where it came from.
    pub metadata: Metadata,
    /// The caller's own id, which makes publishing it twice one event; generated when `None`.
    pub id: Option<EventId>,
    /// Stands in the envelope where `metadata` leaves a named member out.
    pub origin: Option<Arc<Origin>>,
}

impl NewEvent {
    /// An event with this data.
    ///
    /// # Errors
    /// When `data` cannot be written as JSON.
    pub fn new(
        organization: OrganizationId,
        event_type: EventType,
        data: &impl serde::Serialize,
    ) -> Result<Self, serde_json::Error> {
        let data = serde_json::value::to_raw_value(data)?;
        Ok(Self::from_raw(organization, event_type, data))
    }

    /// An event whose data is JSON already.
    #[must_use]
    pub fn from_raw(
        organization: OrganizationId,
        event_type: EventType,
        data: Box<RawValue>,
    ) -> Self {
        Self {
            organization,
            event_type,
            data,
            changes: None,
            metadata: Metadata::default(),
            id: None,
            origin: None,
        }
    }

    /// Gives it the caller's own id.
    #[must_use]
    pub const fn with_id(mut self, id: EventId) -> Self {
        self.id = Some(id);
        self
    }

    /// Says which fields changed: an object of `{"field": {"old": …, "new": …}}`.
    #[must_use]
    pub fn with_changes(mut self, changes: Box<RawValue>) -> Self {
        self.changes = Some(changes);
        self
    }

    /// Says where it came from.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Fills in what `metadata` leaves out.
    #[must_use]
    pub fn with_origin(mut self, origin: Arc<Origin>) -> Self {
        self.origin = Some(origin);
        self
    }
}

/// Where an event came from (SPEC.md, "Standard Event Envelope").
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Metadata {
    /// The request that led to it.
    pub correlation_id: Option<String>,
    /// The user or client that caused it.
    pub triggered_by: Option<String>,
    /// Through which door it came: `api`, `schedule`, `system`.
    pub source: Option<String>,
    /// Anything else, in order.
    pub other: Vec<(String, Box<RawValue>)>,
}

impl Metadata {
    /// All of it together, names included, may have so many bytes.
    pub const BYTES_MAX: usize = 8 * 1024;
}

/// As it stands in an envelope.
impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut metadata = Metadata::default();
                while let Some(name) = map.next_key::<String>()? {
                    let named = match name.as_str() {
                        "correlation_id" => &mut metadata.correlation_id,
                        "triggered_by" => &mut metadata.triggered_by,
                        "source" => &mut metadata.source,
                        _ => {
                            metadata.other.push((name, map.next_value()?));
                            continue;
                        }
                    };
                    if named.is_some() {
                        return Err(A::Error::custom(format!("`{name}` stands there twice")));
                    }
                    *named = map.next_value()?;
                }
                Ok(metadata)
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// What the door through which events come knows of them: for each named member of [`Metadata`], what
/// stands there when the publisher says nothing.
///
/// It is not part of what the publisher said. The same event under the same id, published again in
/// another request, is the same event.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The request.
    pub correlation_id: String,
    /// The client.
    pub triggered_by: String,
    /// The door: `api`, `schedule`, `system`.
    pub source: &'static str,
}
