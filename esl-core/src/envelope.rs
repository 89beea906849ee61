//! The envelope: what an event looks like on its way (SPEC.md, "Standard Event Envelope").
//!
//! Written once, by [`seal`]; these bytes are stored, signed and sent to every receiver. Read by
//! receivers, as [`Envelope`].

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{EventId, EventType, Metadata, NewEvent, OrganizationId, Timestamp};

/// The version of the envelope's own form.
pub const ENVELOPE_VERSION: &str = "1.0";

/// An event in its final bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedEvent {
    /// Its id.
    pub id: EventId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// Its type.
    pub event_type: EventType,
    /// When it was sealed.
    pub timestamp: Timestamp,
    /// What the publisher said, digested, if the publisher also chose the id: the same id with
    /// another digest is another event, which is refused. `None` for a generated id.
    pub digest: Option<[u8; 16]>,
    /// The envelope: one JSON object, members in the documented order. Where its data is in the blob
    /// store, the name of its put stands in the place of the link, which is made when it is sent.
    pub body: Bytes,
    /// What had to be left out of the envelope: `changes` that are too large beside a reference.
    pub changes: Option<Bytes>,
}

impl SealedEvent {
    /// The reference in place of the data, and where it stands in the body; `None` if the data is
    /// inline.
    #[must_use]
    pub fn data_ref(&self) -> Option<(DataRef, std::ops::Range<usize>)> {
        data_ref(&self.body)
    }
}

/// Finds the reference in an envelope that [`seal_with_reference`] has made.
#[must_use]
pub fn data_ref(body: &[u8]) -> Option<(DataRef, std::ops::Range<usize>)> {
    const BEFORE: &[u8] = b"\",\"organization_id\":\"";
    // All that stands before has no escapes and is short; data is behind it.
    let head = &body[..body.len().min(HEAD_BYTES_MAX)];
    let at = head.windows(BEFORE.len()).position(|window| window == BEFORE)?;
    let organization_bytes = OrganizationId::PREFIX.len() + ulid::ULID_LEN;
    let rest = body.get(at + BEFORE.len() + organization_bytes..)?;
    let reference = rest.strip_prefix(b"\",\"data_ref\":")?;
    let start = body.len() - reference.len();
    let mut found = serde_json::Deserializer::from_slice(reference).into_iter::<DataRef>();
    let data_ref = found.next()?.ok()?;
    Some((data_ref, start..start + found.byte_offset()))
}

/// Puts another link in place of the one in an envelope.
#[must_use]
pub fn relinked(body: &Bytes, uri: String, expires_at: Timestamp) -> Bytes {
    let Some((mut data_ref, place)) = data_ref(body) else { return body.clone() };
    data_ref.uri = uri;
    data_ref.expires_at = expires_at;
    let mut out = Vec::with_capacity(body.len() + data_ref.uri.len());
    out.extend_from_slice(&body[..place.start]);
    write_json(&mut out, &data_ref);
    out.extend_from_slice(&body[place.end..]);
    out.into()
}

/// An event type has 128 characters at most, and the other members before the data fewer.
const HEAD_BYTES_MAX: usize = 512;

/// What stands in an envelope in place of `data` that is too large to go inline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DataRef {
    /// How it is kept; always `blob`.
    #[serde(rename = "type")]
    pub kind: DataRefKind,
    /// Where to fetch it.
    pub uri: String,
    /// Until when the link works.
    pub expires_at: Timestamp,
    /// The length of the blob in bytes.
    pub size_bytes: u64,
    /// `sha256:` and the lowercase hex digest of the blob's bytes.
    pub checksum: String,
}

/// The ways of keeping large data. There is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DataRefKind {
    /// In the blob store.
    Blob,
}

impl DataRef {
    /// A reference to `blob`, which can be fetched at `uri` until `expires_at`.
    #[must_use]
    pub fn to_blob(blob: &[u8], uri: String, expires_at: Timestamp) -> Self {
        use sha2::Digest as _;
        let checksum = format!("sha256:{}", hex::encode(sha2::Sha256::digest(blob)));
        let size_bytes = blob.len() as u64;
        Self { kind: DataRefKind::Blob, uri, expires_at, size_bytes, checksum }
    }
}

/// Puts an event into its final bytes, with its data inline.
///
/// A generated id is for an event that chose none; `event.id` wins.
#[must_use]
pub fn seal(event: &NewEvent, generated: EventId, timestamp: Timestamp) -> SealedEvent {
    seal_with(event, generated, timestamp, Payload::Inline)
}

/// Puts an event into its final bytes with a reference in place of its data, and without `changes`
/// if they are not to go inline either.
#[must_use]
pub fn seal_with_reference(
    event: &NewEvent,
    generated: EventId,
    timestamp: Timestamp,
    reference: &DataRef,
    with_changes: bool,
) -> SealedEvent {
    seal_with(event, generated, timestamp, Payload::Referenced { reference, with_changes })
}

#[derive(Clone, Copy)]
enum Payload<'a> {
    Inline,
    Referenced { reference: &'a DataRef, with_changes: bool },
}

fn seal_with(
    event: &NewEvent,
    generated: EventId,
    timestamp: Timestamp,
    payload: Payload<'_>,
) -> SealedEvent {
    let id = event.id.unwrap_or(generated);
    let changes = event.changes.as_deref().filter(|_| match payload {
        Payload::Inline => true,
        Payload::Referenced { with_changes, .. } => with_changes,
    });
    let left_out = event.changes.as_deref().filter(|_| changes.is_none());
    let data_bytes = match payload {
        Payload::Inline => event.data.get().len(),
        Payload::Referenced { .. } => 256,
    };
    let changes_bytes = changes.map_or(0, |changes| changes.get().len());
    let mut out = Vec::with_capacity(384 + data_bytes + changes_bytes);

    write_head(&mut out, id, &event.event_type, timestamp, event.organization);
    match payload {
        Payload::Inline => {
            out.extend_from_slice(b"\",\"data\":");
            out.extend_from_slice(event.data.get().as_bytes());
        }
        Payload::Referenced { reference, .. } => {
            out.extend_from_slice(b"\",\"data_ref\":");
            write_json(&mut out, reference);
        }
    }
    if let Some(changes) = changes {
        out.extend_from_slice(b",\"changes\":");
        out.extend_from_slice(changes.get().as_bytes());
    }
    out.extend_from_slice(b",\"metadata\":");
    write_metadata(&mut out, event);
    out.push(b'}');

    SealedEvent {
        id,
        organization: event.organization,
        event_type: event.event_type.clone(),
        timestamp,
        digest: event.id.map(|_| digest(event)),
        body: out.into(),
        changes: left_out.map(|changes| Bytes::copy_from_slice(changes.get().as_bytes())),
    }
}

/// An envelope without what it said: id, type, time and organization stay, `data` is `null`, and of
/// the metadata nothing is left.
#[must_use]
pub fn erased(event: &SealedEvent) -> Bytes {
    let mut out = Vec::with_capacity(256);
    write_head(&mut out, event.id, &event.event_type, event.timestamp, event.organization);
    out.extend_from_slice(b"\",\"data\":null,\"metadata\":{}}");
    out.into()
}

fn write_head(
    out: &mut Vec<u8>,
    id: EventId,
    event_type: &EventType,
    timestamp: Timestamp,
    organization: OrganizationId,
) {
    out.extend_from_slice(b"{\"id\":\"");
    write_id(out, EventId::PREFIX, id.as_ulid());
    out.extend_from_slice(b"\",\"type\":\"");
    out.extend_from_slice(event_type.as_str().as_bytes());
    out.extend_from_slice(b"\",\"version\":\"");
    out.extend_from_slice(ENVELOPE_VERSION.as_bytes());
    out.extend_from_slice(b"\",\"timestamp\":\"");
    out.extend_from_slice(timestamp.to_string().as_bytes());
    out.extend_from_slice(b"\",\"organization_id\":\"");
    write_id(out, OrganizationId::PREFIX, organization.as_ulid());
}

fn write_id(out: &mut Vec<u8>, prefix: &str, id: ulid::Ulid) {
    let mut buffer = [0; ulid::ULID_LEN];
    out.extend_from_slice(prefix.as_bytes());
    out.extend_from_slice(id.array_to_str(&mut buffer).as_bytes());
}

fn write_metadata(out: &mut Vec<u8>, event: &NewEvent) {
    let Metadata { correlation_id, triggered_by, source, other } = &event.metadata;
    let origin = event.origin.as_deref();
    let named = [
        ("correlation_id", correlation_id, origin.map(|origin| origin.correlation_id.as_str())),
        ("triggered_by", triggered_by, origin.map(|origin| origin.triggered_by.as_str())),
        ("source", source, origin.map(|origin| origin.source)),
    ];
    let mut separator = b'{';
    for (name, said, known) in named {
        if let Some(value) = said.as_deref().or(known) {
            out.push(separator);
            write_json(out, name);
            out.push(b':');
            write_json(out, value);
            separator = b',';
        }
    }
    for (name, value) in other {
        out.push(separator);
        write_json(out, name);
        out.push(b':');
        out.extend_from_slice(value.get().as_bytes());
        separator = b',';
    }
    if separator == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
}

fn write_json(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect("strings and DataRef are JSON, and a Vec takes all");
}

/// Digests what the publisher said; what ESL adds (time, missing metadata) is not part of it.
fn digest(event: &NewEvent) -> [u8; 16] {
    use sha2::Digest as _;
    let mut hasher = sha2::Sha256::new();
    let mut part = |text: Option<&str>| {
        // The length, so that no two lists of parts run together into the same bytes.
        let length = text.map_or(u64::MAX, |text| text.len() as u64);
        hasher.update(length.to_le_bytes());
        hasher.update(text.unwrap_or_default());
    };
    part(Some(event.event_type.as_str()));
    part(Some(event.data.get()));
    part(event.changes.as_ref().map(|changes| changes.get()));
    part(event.metadata.correlation_id.as_deref());
    part(event.metadata.triggered_by.as_deref());
    part(event.metadata.source.as_deref());
    for (name, value) in &event.metadata.other {
        part(Some(name));
        part(Some(value.get()));
    }
    let mut digest = [0; 16];
    digest.copy_from_slice(&hasher.finalize()[..16]);
    digest
}

/// An envelope as a receiver reads it, after its signature was verified.
///
/// ```
/// # let body = br#"{"id":"evt_01J00000000000000000000000","type":"person.updated","version":"1.0",
/// #   "timestamp":"2024-01-15T14:32:00.000Z","organization_id":"org_01J00000000000000000000000",
/// #   "data":{"name":"John Doe"},"metadata":{"source":"api"}}"#;
/// let envelope: esl_core::Envelope = serde_json::from_slice(body)?;
/// assert_eq!(envelope.event_type, "person.updated");
/// assert_eq!(envelope.data.expect("inline").get(), r#"{"name":"John Doe"}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct Envelope {
    /// The event's id, which is unique within the organization: the same [key](Self::key) is the same event, so
    /// a second arrival can be dropped.
    pub id: EventId,
    /// Its type. A text, so that a receiver also reads types that it does not know.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The version of the envelope's form.
    pub version: String,
    /// When it was sealed.
    pub timestamp: Timestamp,
    /// Whose event it is.
    pub organization_id: OrganizationId,
    /// The data, if it went inline.
    #[serde(default)]
    pub data: Option<Box<RawValue>>,
    /// Where the data is, if it did not.
    #[serde(default)]
    pub data_ref: Option<DataRef>,
    /// Which fields changed, from what to what; `None` also where that was too large to be sent
    /// ([`Changes`](crate::Changes)).
    #[serde(default)]
    pub changes: Option<Box<RawValue>>,
    /// Where it came from.
    #[serde(default)]
    pub metadata: Metadata,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Origin;

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).expect("JSON")
    }

    fn event(data: &str) -> NewEvent {
        let organization = "org_01J00000000000000000000000".parse().expect("an id");
        let event_type = "person.updated".parse().expect("a type");
        NewEvent::from_raw(organization, event_type, raw(data))
    }

    const GENERATED: EventId = EventId::from_bytes([1; 16]);
    const NOON: Timestamp = Timestamp::from_millis(1_705_329_120_000);

    #[test]
    fn members_stand_in_the_documented_order_and_data_is_untouched() {
        let data = r#"{"z":1.50,"a":12345678901234567890123,"e":"\u00e9\/","a":[ ]}"#;
        let mut event = event(data).with_changes(raw(r#"{"name":{"old":"a","new":"b"}}"#));
        event.metadata.correlation_id = Some("req \"1\"\n".into());
        event.metadata.source = Some("api".into());
        event.metadata.other.push(("n".into(), raw("1.0")));
        let sealed = seal(&event, GENERATED, NOON);
        let expected = format!(
            r#"{{"id":"{GENERATED}","type":"person.updated","version":"1.0","timestamp":"2024-01-15T14:32:00.000Z","organization_id":"org_01J00000000000000000000000","data":{data},"changes":{{"name":{{"old":"a","new":"b"}}}},"metadata":{{"correlation_id":"req \"1\"\n","source":"api","n":1.0}}}}"#
        );
        assert_eq!(sealed.body, expected);
        assert_eq!(sealed.digest, None);
    }

    #[test]
    fn the_origin_fills_in_what_the_publisher_left_out() {
        let origin = Origin { correlation_id: "r".into(), triggered_by: "c".into(), source: "api" };
        let mut event = event("{}").with_origin(origin.into());
        event.metadata.triggered_by = Some("user_1".into());
        let sealed = seal(&event, GENERATED, NOON);
        assert!(sealed.body.ends_with(
            br#","metadata":{"correlation_id":"r","triggered_by":"user_1","source":"api"}}"#
        ));
    }

    #[test]
    fn a_reference_takes_the_place_of_data() {
        let reference = DataRef::to_blob(b"{}", "https://x/y".into(), NOON);
        let event = event("{}").with_changes(raw("{}"));
        let sealed = seal_with_reference(&event, GENERATED, NOON, &reference, false);
        let envelope: Envelope = serde_json::from_slice(&sealed.body).expect("an envelope");
        assert!(envelope.data.is_none() && envelope.changes.is_none());
        assert_eq!(envelope.data_ref, Some(reference));
        assert!(sealed.body.ends_with(br#","metadata":{}}"#));
    }

    #[test]
    fn only_what_the_publisher_said_is_digested() {
        let id = EventId::from_bytes([9; 16]);
        let digest = |event: &NewEvent, at| seal(event, GENERATED, at).digest.expect("an own id");
        let base = event("1").with_id(id);
        assert_eq!(digest(&base, NOON), digest(&base, Timestamp::EPOCH));
        let mut source = base.clone();
        source.metadata.source = Some("api".into());
        let origin = Origin { correlation_id: "r".into(), triggered_by: "c".into(), source: "api" };
        let through_a_door = base.clone().with_origin(origin.into());
        assert_eq!(digest(&base, NOON), digest(&through_a_door, NOON));
        for other in [event("2").with_id(id), base.clone().with_changes(raw("1")), source] {
            assert_ne!(digest(&base, NOON), digest(&other, NOON));
        }
        assert_eq!(seal(&base, GENERATED, NOON).id, id);
    }
}
