//! Who is available: the statuses of users, the profiles they are taken from, and the schedules that
//! change them.
//!
//! All three are entities whose kinds have rules of their own. A status goes back, and a schedule fires, when
//! the engine finds that they are due.

mod profile;
mod recurrence;
mod schedule;
mod status;
#[cfg(test)]
mod tests;

use esl_core::{CATALOGUE, Document, EntityKind, EventTypeEntry, KindError, Timestamp};
use serde_json::{Value, json};

/// The kinds.
pub(crate) fn kinds() -> Result<[EntityKind; 3], KindError> {
    Ok([profile::kind()?, schedule::kind()?, status::kind()?])
}

/// The schema of a status.
fn status_schema(types: &Value) -> Value {
    let mut schema = json!({
        "description": "How available the user is.",
        "type": types,
        "enum": ["available", "busy", "away", "offline", "do_not_disturb"]
    });
    if types.is_array() {
        schema["enum"].as_array_mut().expect("it is one").push(Value::Null);
    }
    schema
}

/// The schema of a reason.
fn reason_schema() -> Value {
    json!({
        "description": "Why, for people to read.",
        "type": ["string", "null"],
        "maxLength": 500
    })
}

/// The schema of how long a status lasts.
fn duration_schema() -> Value {
    json!({
        "description": "For how many seconds a status lasts that is taken from this; for good if there is none.",
        "type": ["integer", "null"],
        "minimum": 60,
        "maximum": 31_536_000
    })
}

/// The schema of a member that is there, and may be nothing.
fn nullable(mut schema: Value) -> Value {
    schema["type"] = json!([schema["type"].take(), "null"]);
    schema
}

/// A documented event type, whose data has all of these members. There may be more of them one day.
fn event_type(name: &str, members: &[(&str, Value)], example: Value) -> EventTypeEntry {
    let entry = CATALOGUE.iter().find(|entry| entry.event_type == name);
    let meaning = entry.expect("it is documented").meaning;
    let properties: Document =
        members.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    let required: Vec<_> = members.iter().map(|(name, _)| *name).collect();
    let schema = json!({ "type": "object", "properties": properties, "required": required });
    let event_type = name.parse().expect("it is a type");
    EventTypeEntry::new(event_type, meaning, schema).with_example(example)
}

/// The time of a member.
fn time(document: &Document, member: &str) -> Option<Timestamp> {
    document.get(member)?.as_str()?.parse().ok()
}

/// The text of a member.
fn text<'a>(document: &'a Document, member: &str) -> Option<&'a str> {
    document.get(member)?.as_str()
}

/// A member, or nothing.
fn value(document: &Document, member: &str) -> Value {
    document.get(member).cloned().unwrap_or_default()
}

/// So long after a time.
fn lasting(from: Timestamp, seconds: &Value) -> Option<Timestamp> {
    seconds.as_u64().map(|seconds| from + std::time::Duration::from_secs(seconds))
}
