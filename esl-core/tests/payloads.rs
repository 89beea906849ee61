//! The payloads of the catalogue, as docs/events shows them, are read whole.

use std::collections::HashSet;

use esl_core::{CATALOGUE, Event, payload};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

#[test]
fn every_documented_example_is_read_and_nothing_of_it_is_left_out() {
    let pages = [
        include_str!("../../docs/events/README.md"),
        include_str!("../../docs/events/user-availability.md"),
        include_str!("../../docs/events/availability-profile.md"),
    ];
    let mut seen = HashSet::new();
    for example in pages.iter().flat_map(|page| examples(page)) {
        let event_type = example["type"].as_str().unwrap().to_owned();
        let data = match event_type.rsplit_once('.').unwrap() {
            ("person", _) => read::<payload::Person>(&example),
            ("pet", _) => read::<payload::Pet>(&example),
            ("toy", _) => read::<payload::Toy>(&example),
            ("availability", "changed") => read::<payload::AvailabilityChanged>(&example),
            ("availability.profile", _) => read::<payload::AvailabilityProfile>(&example),
            ("availability.schedule", _) => {
                read::<payload::AvailabilityScheduleTriggered>(&example)
            }
            ("system.maintenance", _) => read::<payload::MaintenanceScheduled>(&example),
            ("system.rate_limit", _) => read::<payload::RateLimit>(&example),
            ("system", "ping") => read::<payload::Ping>(&example),
            ("system.subscription", _) => read::<payload::SubscriptionDisabled>(&example),
            ("system.delivery", _) => read::<payload::DeliveryExhausted>(&example),
            _ => panic!("{event_type} has no payload"),
        };
        assert_eq!(data, example["data"], "{event_type}");
        seen.insert(event_type);
    }
    for entry in CATALOGUE {
        assert!(seen.contains(entry.event_type), "{} has no example", entry.event_type);
    }
}

#[test]
fn a_status_of_a_later_version_is_read_as_it_is_written() {
    let status: payload::AvailabilityStatus = serde_json::from_str(r#""on_holiday""#).unwrap();
    assert_eq!(status, payload::AvailabilityStatus::Other("on_holiday".to_owned()));
    let known: payload::AvailabilityStatus = serde_json::from_str(r#""do_not_disturb""#).unwrap();
    assert_eq!(known, payload::AvailabilityStatus::DoNotDisturb);
}

/// The blocks of a page that are envelopes.
fn examples(page: &str) -> Vec<Value> {
    let blocks = page.split("```json\n").skip(1);
    let values = blocks.filter_map(|block| serde_json::from_str(block.split("\n```").next()?).ok());
    values.filter(|value: &Value| value["organization_id"].is_string()).collect()
}

/// Its data as the payload, and back.
fn read<T: Serialize + DeserializeOwned>(example: &Value) -> Value {
    let body = serde_json::to_vec(example).expect("JSON");
    let event =
        Event::<T>::from_slice(&body).unwrap_or_else(|error| panic!("{error:?}: {example}"));
    serde_json::to_value(event.data).expect("JSON")
}
