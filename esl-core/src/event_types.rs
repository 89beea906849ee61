//! What event types there are, described for those who subscribe.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::{CATALOGUE, EventType};

/// An event type: what it says, and what its data looks like.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EventTypeEntry {
    /// Its name.
    pub event_type: EventType,
    /// What has happened when it is published.
    pub meaning: Cow<'static, str>,
    /// A JSON Schema (draft 2020-12) of its `data`.
    pub schema: Value,
    /// Data as it may come.
    pub example: Option<Value>,
}

impl EventTypeEntry {
    /// An event type whose data this schema describes.
    #[must_use]
    pub fn new(
        event_type: EventType,
        meaning: impl Into<Cow<'static, str>>,
        schema: Value,
    ) -> Self {
        Self { event_type, meaning: meaning.into(), schema, example: None }
    }

    /// Shows data as it may come.
    #[must_use]
    pub fn with_example(mut self, data: Value) -> Self {
        self.example = Some(data);
        self
    }
}

/// What the documented types say, and otherwise what `or` says.
#[cfg(feature = "entities")]
pub(crate) fn meaning(event_type: &EventType, or: impl FnOnce() -> String) -> Cow<'static, str> {
    let entry = CATALOGUE.iter().find(|entry| entry.event_type == event_type.as_str());
    entry.map_or_else(|| or().into(), |entry| entry.meaning.into())
}

/// The types that the engine itself publishes, by name.
pub(crate) fn own() -> Vec<EventTypeEntry> {
    let documented = |name: &str| {
        let entry = CATALOGUE.iter().find(|entry| entry.event_type == name);
        entry.expect("it is documented").meaning
    };
    let (text, number) = (json!({ "type": "string" }), json!({ "type": "integer" }));
    let time = json!({ "type": "string", "format": "date-time" });
    let last_status = json!({ "type": ["integer", "null"] });
    let last_error = json!({ "type": ["string", "null"] });
    let rate_limit = [("limit", &number), ("threshold", &number), ("resets_at", &time)];
    let at = |threshold: u64| json!({ "limit": 10_000, "threshold": threshold, "resets_at": "2024-01-15T15:00:00.000Z" });
    vec![
        entry(
            "system.delivery.exhausted",
            "a delivery has used up its retries",
            &[
                ("subscription_id", &text),
                ("delivery_id", &text),
                ("event_id", &text),
                ("event_type", &text),
                ("seq", &number),
                ("attempts", &number),
                ("last_status", &last_status),
                ("last_error", &last_error),
            ],
            json!({
                "subscription_id": "sub_01HM6QTXJ0CZ5Q3S0VZJY5T8N7",
                "delivery_id": "dlv_01HM6QTXJ0000000GJ00000001",
                "event_id": "evt_01HM6QTXJ0XKGH8V6V5J3W2Q9R",
                "event_type": "person.updated",
                "seq": 1042,
                "attempts": 6,
                "last_status": 500,
                "last_error": "status",
            }),
        ),
        entry(
            "system.maintenance.scheduled",
            documented("system.maintenance.scheduled"),
            &[("starts_at", &time), ("ends_at", &time), ("message", &text)],
            json!({
                "starts_at": "2024-01-20T02:00:00.000Z",
                "ends_at": "2024-01-20T04:00:00.000Z",
                "message": "The database moves to another machine.",
            }),
        ),
        entry(
            "system.ping",
            "somebody has asked for a ping of a subscription, which alone gets it",
            &[("subscription_id", &text)],
            json!({ "subscription_id": "sub_01HM6QTXJ0CZ5Q3S0VZJY5T8N7" }),
        ),
        entry(
            "system.rate_limit.exceeded",
            documented("system.rate_limit.exceeded"),
            &rate_limit,
            at(10_000),
        ),
        entry(
            "system.rate_limit.warning",
            documented("system.rate_limit.warning"),
            &rate_limit,
            at(8_000),
        ),
        entry(
            "system.subscription.disabled",
            "the service has made a subscription inactive",
            &[
                ("subscription_id", &text),
                ("reason", &json!({ "enum": ["gone", "failing", "exhausted"] })),
                ("disabled_at", &time),
                ("failing_since", &json!({ "type": ["string", "null"], "format": "date-time" })),
                ("delivery_id", &text),
                ("last_status", &last_status),
                ("last_error", &last_error),
            ],
            json!({
                "subscription_id": "sub_01HM6QTXJ0CZ5Q3S0VZJY5T8N7",
                "reason": "gone",
                "disabled_at": "2024-01-15T14:32:00.113Z",
                "failing_since": "2024-01-15T14:32:00.113Z",
                "delivery_id": "dlv_01HM6QTXJ0000000GJ00000001",
                "last_status": 410,
                "last_error": "status",
            }),
        ),
    ]
}

/// A type whose data is an object that has all of these members. There may be more of them one day.
fn entry(
    name: &str,
    meaning: &'static str,
    members: &[(&str, &Value)],
    example: Value,
) -> EventTypeEntry {
    let properties: serde_json::Map<_, _> =
        members.iter().map(|&(name, schema)| (name.to_owned(), schema.clone())).collect();
    let required: Vec<_> = members.iter().map(|(name, _)| *name).collect();
    let schema = json!({ "type": "object", "properties": properties, "required": required });
    let event_type = name.parse().expect("our own types are types");
    EventTypeEntry::new(event_type, meaning, schema).with_example(example)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_own_types_are_all_that_are_documented_and_more() {
        let own = own();
        let has = |name| own.iter().any(|entry| entry.event_type.as_str() == name);
        let mut documented = CATALOGUE.iter().map(|entry| entry.event_type);
        assert!(documented.all(|name| has(name) == name.starts_with("system.")));
        assert!(own.is_sorted_by_key(|entry| entry.event_type.as_str()));
        assert!(own.iter().all(|entry| entry.event_type.is_system()));
    }

    #[cfg(feature = "entities")]
    #[test]
    fn every_example_is_as_its_schema_says() {
        for EventTypeEntry { event_type, schema, example, .. } in own() {
            let options = jsonschema::draft202012::options().should_validate_formats(true);
            let validator = options.build(&schema).expect("a schema");
            let example = example.expect("an example");
            assert!(validator.is_valid(&example), "{event_type}: {example}");
            let required = schema["required"].as_array().expect("members").len();
            assert_eq!(example.as_object().map(serde_json::Map::len), Some(required));
        }
    }
}
