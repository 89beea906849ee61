//! Envelopes.

use std::fmt;

use esl_core::{
    DataRef, Envelope, EventId, NewEvent, OrganizationId, Timestamp, data_ref, erased, relinked,
    seal, seal_with_reference,
};
use proptest::{collection::vec, option, prelude::*};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::config;

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("JSON")
}

/// JSON as people write it, and as nobody does: spaces, odd numbers and escapes, repeated keys.
fn json() -> impl Strategy<Value = String> {
    let string = prop_oneof![
        any::<String>().prop_map(|text| serde_json::to_string(&text).expect("JSON")),
        Just(r#""\ud800\/\u0000""#.to_owned()),
        Just(r#""\",\"data_ref\":{}""#.to_owned()),
    ];
    let leaf = prop_oneof![
        "null|true|false",
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?",
        string,
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let space = "[ \t\r\n]{0,2}";
        prop_oneof![
            (vec(inner.clone(), 0..6), space).prop_map(|(items, space)| {
                format!("[{space}{}]", items.join(&format!("{space},")))
            }),
            object(inner),
        ]
    })
}

fn object(value: impl Strategy<Value = String> + 'static) -> impl Strategy<Value = String> {
    let member = ("\"(a|b|data_ref|\\\\u0061|)\"", "[ \t\r\n]{0,2}", value)
        .prop_map(|(key, space, value)| format!("{space}{key}:{space}{value}"));
    vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(",")))
}

prop_compose! {
    fn event()(
        organization in any::<[u8; 16]>(),
        event_type in "[a-z0-9_]{1,10}(\\.[a-z0-9_]{1,10}){1,7}",
        data in json(),
        changes in option::of(object(json())),
        correlation_id in option::of(any::<String>()),
        source in option::of(any::<String>()),
        other in vec((any::<String>(), json()), 0..4),
        id in option::of(any::<[u8; 16]>()),
    ) -> NewEvent {
        let organization = OrganizationId::from_bytes(organization);
        let mut event = NewEvent::from_raw(organization, event_type.parse().expect("a type"), raw(&data));
        event.changes = changes.as_deref().map(raw);
        event.metadata.correlation_id = correlation_id;
        event.metadata.source = source;
        event.metadata.other = other.iter().map(|(name, value)| (name.clone(), raw(value))).collect();
        event.id = id.map(EventId::from_bytes);
        event
    }
}

/// An object's members in their order.
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

fn members(json: &[u8]) -> Vec<(String, String)> {
    let Members(members) = serde_json::from_slice(json).expect("an object");
    members.into_iter().map(|(name, value)| (name, value.get().to_owned())).collect()
}

const GENERATED: EventId = EventId::from_bytes([7; 16]);

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_sealed_is_read_back(event in event(), millis in 0..=Timestamp::MAX.as_millis()) {
        let at = Timestamp::from_millis(millis);
        let sealed = seal(&event, GENERATED, at);
        let envelope: Envelope = serde_json::from_slice(&sealed.body).expect("an envelope");
        prop_assert_eq!(envelope.id, event.id.unwrap_or(GENERATED));
        prop_assert_eq!(envelope.event_type, event.event_type.as_str());
        prop_assert_eq!(envelope.organization_id, event.organization);
        prop_assert_eq!(envelope.timestamp, at);
        prop_assert_eq!(envelope.data.as_ref().map_or("null", |data| data.get()), event.data.get());
        prop_assert_eq!(envelope.changes.map(|raw| raw.to_string()), event.changes.map(|raw| raw.to_string()));
        // What the data says of a reference is none.
        prop_assert!(envelope.data_ref.is_none() && sealed.data_ref().is_none());
    }

    #[test]
    fn members_keep_their_order_and_their_bytes(event in event()) {
        let sealed = seal(&event, GENERATED, Timestamp::EPOCH);
        let top = members(&sealed.body);
        let mut expected = vec!["id", "type", "version", "timestamp", "organization_id", "data"];
        expected.extend(event.changes.as_ref().map(|_| "changes"));
        expected.push("metadata");
        prop_assert_eq!(top.iter().map(|(name, _)| name).collect::<Vec<_>>(), expected);
        prop_assert_eq!(&top[5].1, event.data.get());

        let given = &event.metadata;
        let named = [("correlation_id", &given.correlation_id), ("source", &given.source)];
        let mut expected = Vec::new();
        for (name, value) in named {
            let value = value.as_ref().map(|text| serde_json::to_string(text).expect("JSON"));
            expected.extend(value.map(|value| (name.to_owned(), value)));
        }
        expected.extend(given.other.iter().map(|(name, raw)| (name.clone(), raw.get().to_owned())));
        prop_assert_eq!(members(top.last().expect("metadata").1.as_bytes()), expected);
    }

    #[test]
    fn an_envelope_grows_by_its_data_and_by_nothing_else(event in event()) {
        let mut empty = event.clone();
        empty.data = raw("0");
        let [with, without] = [&event, &empty].map(|event| seal(event, GENERATED, Timestamp::EPOCH).body.len());
        prop_assert_eq!(with - event.data.get().len(), without - 1);
    }

    #[test]
    fn a_reference_is_found_and_given_another_link(
        event in event(),
        uri in any::<String>(),
        other_uri in any::<String>(),
        with_changes in any::<bool>(),
    ) {
        let reference = DataRef::to_blob(event.data.get().as_bytes(), uri.clone(), Timestamp::EPOCH);
        let sealed = seal_with_reference(&event, GENERATED, Timestamp::EPOCH, &reference, with_changes);
        let (found, place) = data_ref(&sealed.body).expect("a reference");
        prop_assert_eq!(&found, &reference);
        let written: DataRef = serde_json::from_slice(&sealed.body[place]).expect("a reference");
        prop_assert_eq!(written, found);
        let other = relinked(&sealed.body, other_uri.clone(), Timestamp::MAX);
        let envelope: Envelope = serde_json::from_slice(&other).expect("an envelope");
        prop_assert_eq!(envelope.data_ref.map(|found| found.uri), Some(other_uri));
        prop_assert_eq!(relinked(&other, uri, Timestamp::EPOCH), sealed.body);
    }

    #[test]
    fn an_erased_envelope_depends_on_nothing_that_was_said(event in event()) {
        let mut other = NewEvent::from_raw(event.organization, event.event_type.clone(), raw("0"));
        other.id = event.id;
        let [one, other] = [&event, &other].map(|event| erased(&seal(event, GENERATED, Timestamp::EPOCH)));
        prop_assert!(serde_json::from_slice::<Envelope>(&one).expect("an envelope").data.is_none());
        prop_assert_eq!(one, other);
    }
}
