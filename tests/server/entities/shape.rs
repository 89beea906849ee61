//! What two documents have in common if one is an example of the other.

use esl_core::Timestamp;
use serde_json::Value;

/// A document with each value replaced by its kind: two have the same shape, as text, if they have the same
/// members, in the same order, of the same kinds. Arrays are as their first item.
pub(super) fn shape(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "boolean".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(text) => of_text(text),
        Value::Array(items) => format!("[{}]", items.first().map(shape).unwrap_or_default()),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| format!("{name}: {}", shape(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
    }
}

/// A time in the one spelling that we have for it, an id with what it begins with, or some text.
fn of_text(text: &str) -> String {
    if text.parse::<Timestamp>().is_ok_and(|time| time.to_string() == text) {
        return "time".to_owned();
    }
    match text.split_once('_') {
        Some((prefix, rest)) if is_id(prefix, rest) => format!("{prefix}_…"),
        _ => "text".to_owned(),
    }
}

fn is_id(prefix: &str, rest: &str) -> bool {
    let is_prefix = prefix.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_rest = rest.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    is_prefix && is_rest && !rest.is_empty()
}

#[test]
fn names_order_and_kinds_make_a_shape_and_values_do_not() {
    let of = |text: &str| shape(&serde_json::from_str(text).expect("JSON"));
    let one =
        of(r#"{"id":"evt_01H8XYZ","at":"2024-01-15T14:32:00.000Z","list":[1,2],"none":null}"#);
    assert_eq!(one, "{id: evt_…, at: time, list: [number], none: null}");
    assert_eq!(of(r#"{"a":"evt_01","b":[3]}"#), of(r#"{"a":"evt_7Z","b":[1,2]}"#));
    for (one, other) in [
        (r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#),
        (r#"{"a":1}"#, r#"{"a":"1"}"#),
        (r#"{"a":null}"#, r#"{}"#),
        (r#"{"a":"evt_01"}"#, r#"{"a":"sub_01"}"#),
        (r#"{"a":"2024-01-15T14:32:00.000Z"}"#, r#"{"a":"2024-01-15T14:32:00Z"}"#),
        (r#"{"a":[{"b":1}]}"#, r#"{"a":[]}"#),
    ] {
        assert_ne!(of(one), of(other));
    }
}
