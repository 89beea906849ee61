//! What `esl.publish` wrote into the intake: an event as its publisher stated it, which is sealed whenever it
//! is read. That gives the same bytes each time: its id and its time are in the row.

use std::{fmt, sync::Arc};

use esl_core::{EventId, Metadata, NewEvent, OrganizationId, SealedEvent, seal};
use serde::{
    Deserializer as _,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use tokio_postgres::Row;

use crate::{
    error::Damage,
    rows::{get, id, parsed, time},
};

/// The columns of `intake q` that [`sealed`] reads, beside those of a sealed event.
pub(crate) const UNSEALED: &str = "q.data, q.metadata, q.chose_id";

/// Reads `event_id, event_type, timestamp, digest, body, changes`, beginning at column `first`, and then
/// [`UNSEALED`].
pub(crate) fn sealed(
    row: &Row,
    first: usize,
    organization: OrganizationId,
) -> Result<Arc<SealedEvent>, Damage> {
    let event_id: EventId = id(row, first)?;
    let data = raw(get::<&str>(row, first + 6)?, first + 6)?;
    let mut event = NewEvent::from_raw(organization, parsed(row, first + 1)?, data);
    if let Some(changes) = get::<Option<&[u8]>>(row, first + 5)? {
        let text = std::str::from_utf8(changes).map_err(|error| Damage::new(first + 5, error))?;
        event.changes = Some(raw(text, first + 5)?);
    }
    if let Some(text) = get::<Option<&str>>(row, first + 7)? {
        event.metadata =
            metadata(text).map_err(|error| Damage::new(first + 7, error.to_string()))?;
    }
    if get(row, first + 8)? {
        event.id = Some(event_id);
    }
    Ok(Arc::new(seal(&event, event_id, time(row, first + 2)?)))
}

fn raw(text: &str, column: usize) -> Result<Box<RawValue>, Damage> {
    // An error of its own would quote what an event says.
    serde_json::from_str(text).map_err(|_| Damage::new(column, "not JSON"))
}

/// Metadata from an object, whose members keep their order.
fn metadata(text: &str) -> serde_json::Result<Metadata> {
    struct Members;

    impl<'de> Visitor<'de> for Members {
        type Value = Metadata;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Metadata, A::Error> {
            let mut metadata = Metadata::default();
            while let Some(name) = members.next_key::<String>()? {
                match name.as_str() {
                    "correlation_id" => metadata.correlation_id = Some(members.next_value()?),
                    "triggered_by" => metadata.triggered_by = Some(members.next_value()?),
                    "source" => metadata.source = Some(members.next_value()?),
                    _ => metadata.other.push((name, members.next_value()?)),
                }
            }
            Ok(metadata)
        }
    }

    let mut reader = serde_json::Deserializer::from_str(text);
    let metadata = reader.deserialize_map(Members)?;
    reader.end()?;
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_metadata_keep_their_order_and_their_bytes() {
        let text = r#"{"z": 1.50, "source":"a\u00e9", "a":{"k" : [ ]}, "correlation_id":""}"#;
        let metadata = metadata(text).unwrap();
        assert_eq!(metadata.source.as_deref(), Some("aé"));
        assert_eq!(metadata.correlation_id.as_deref(), Some(""));
        assert_eq!(metadata.triggered_by, None);
        let other: Vec<_> =
            metadata.other.iter().map(|(name, raw)| (name.as_str(), raw.get())).collect();
        assert_eq!(other, [("z", "1.50"), ("a", r#"{"k" : [ ]}"#)]);
    }

    #[test]
    fn what_is_no_metadata_is_damage() {
        for wrong in ["", "[]", "null", r#"{"source":1}"#, "{} {}", "{"] {
            assert!(metadata(wrong).is_err(), "{wrong}");
        }
    }
}
