//! JSON values one after the other: an event's data, its changes, and members of its metadata. Its
//! envelope has all of them, byte for byte and in their order; with a reference in place of the data,
//! that is found and can be replaced. Of bytes that nobody has sealed, whatever is read is read again
//! the same.
#![no_main]

use std::fmt;

use esl_core::{
    DataRef, Envelope, EventId, NewEvent, OrganizationId, SealedEvent, Timestamp, data_ref, erased,
    relinked, seal, seal_with_reference,
};
use libfuzzer_sys::fuzz_target;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

fuzz_target!(|bytes: &[u8]| {
    is_read_the_same_again(bytes);
    let Some(event) = event(bytes) else { return };
    let sealed = seal(&event, ID, AT);
    has_all_of(&sealed, &event);
    is_erased(&sealed, &event);
    for with_changes in [true, false] {
        is_found_and_replaced(&event, with_changes);
    }
});

fn is_read_the_same_again(bytes: &[u8]) {
    if let Ok(envelope) = serde_json::from_slice::<Envelope>(bytes) {
        assert_eq!(envelope.id.to_string().parse(), Ok(envelope.id));
        assert_eq!(envelope.timestamp.to_string().parse(), Ok(envelope.timestamp));
    }
    let Some((found, place)) = data_ref(bytes) else { return };
    let again: DataRef = serde_json::from_slice(&bytes[place.clone()]).expect("a reference");
    assert_eq!(again, found);
    let body = bytes.to_vec().into();
    let other = relinked(&body, "https://x/\"\n".to_owned(), AT);
    let (replaced, other_place) = data_ref(&other).expect("a reference");
    assert_eq!((replaced.uri.as_str(), replaced.expires_at), ("https://x/\"\n", AT));
    assert_eq!((replaced.size_bytes, replaced.checksum), (found.size_bytes, found.checksum));
    assert_eq!(other[..other_place.start], bytes[..place.start]);
    assert_eq!(other[other_place.end..], bytes[place.end..]);
}

/// An event of the values there are: the data at least. The text behind them is said to be its
/// source.
fn event(bytes: &[u8]) -> Option<NewEvent> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Box<RawValue>>();
    let data = values.next()?.ok()?;
    let event_type = "person.updated".parse().expect("a type");
    let mut event = NewEvent::from_raw(OrganizationId::from_bytes([1; 16]), event_type, data);
    event.changes = values.next().and_then(Result::ok);
    while event.metadata.other.len() < 4
        && let Some(Ok(value)) = values.next()
    {
        // Its name is a text from outside, too.
        event.metadata.other.push((value.get().to_owned(), value));
    }
    let rest = String::from_utf8_lossy(&bytes[values.byte_offset()..]);
    event.metadata.source = Some(rest.into_owned()).filter(|rest| !rest.is_empty());
    Some(event)
}

fn has_all_of(sealed: &SealedEvent, event: &NewEvent) {
    let envelope: Envelope = serde_json::from_slice(&sealed.body).expect("an envelope");
    assert_eq!((envelope.id, envelope.timestamp), (ID, AT));
    assert_eq!(envelope.event_type, event.event_type.as_str());
    assert_eq!(envelope.organization_id, event.organization);
    assert!(envelope.data_ref.is_none() && sealed.data_ref().is_none());

    let top = members(&sealed.body);
    let mut expected = vec!["id", "type", "version", "timestamp", "organization_id", "data"];
    expected.extend(event.changes.as_ref().map(|_| "changes"));
    expected.push("metadata");
    assert_eq!(top.iter().map(|(name, _)| name).collect::<Vec<_>>(), expected);
    assert_eq!(top[5].1.get(), event.data.get());
    if let Some(changes) = &event.changes {
        assert_eq!(top[6].1.get(), changes.get());
    }

    let metadata = members(top.last().expect("metadata").1.get().as_bytes());
    let (named, other) = metadata.split_at(usize::from(event.metadata.source.is_some()));
    if let Some(source) = &event.metadata.source {
        let read: String = serde_json::from_str(named[0].1.get()).expect("a string");
        assert_eq!((named[0].0.as_str(), &read), ("source", source));
    }
    assert_eq!(other.len(), event.metadata.other.len());
    for ((name, value), (given_name, given)) in other.iter().zip(&event.metadata.other) {
        assert_eq!((name, value.get()), (given_name, given.get()));
    }
}

/// Nothing that was said can be told from what is left.
fn is_erased(sealed: &SealedEvent, event: &NewEvent) {
    let nothing = serde_json::from_str("0").expect("JSON");
    let other = NewEvent::from_raw(event.organization, event.event_type.clone(), nothing);
    let erased = [sealed, &seal(&other, ID, AT)].map(erased);
    assert_eq!(erased[0], erased[1]);
    let envelope: Envelope = serde_json::from_slice(&erased[0]).expect("an envelope");
    assert!(envelope.data.is_none());
}

fn is_found_and_replaced(event: &NewEvent, with_changes: bool) {
    let data = event.data.get();
    // A link as nobody gives it out, so that anything is escaped that must be.
    let reference = DataRef::to_blob(data.as_bytes(), data.to_owned(), AT);
    let sealed = seal_with_reference(event, ID, AT, &reference, with_changes);
    let (found, place) = sealed.data_ref().expect("a reference");
    assert_eq!(found, reference);
    let written: DataRef = serde_json::from_slice(&sealed.body[place]).expect("a reference");
    assert_eq!(written, found);
    let envelope: Envelope = serde_json::from_slice(&sealed.body).expect("an envelope");
    assert!(envelope.data.is_none());
    assert_eq!(envelope.data_ref.as_ref(), Some(&reference));
    let left_out = event.changes.as_ref().filter(|_| !with_changes);
    assert_eq!(sealed.changes.as_deref(), left_out.map(|changes| changes.get().as_bytes()));
    let other = relinked(&sealed.body, "https://x/y".to_owned(), Timestamp::EPOCH);
    assert_eq!(relinked(&other, reference.uri, AT), sealed.body);
}

/// An object's members in their order, repeated ones, too.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

fn members(json: &[u8]) -> Vec<(String, Box<RawValue>)> {
    let Members(members) = serde_json::from_slice(json).expect("an object");
    members
}

const ID: EventId = EventId::from_bytes([2; 16]);
const AT: Timestamp = Timestamp::from_millis(1_705_329_120_000);
