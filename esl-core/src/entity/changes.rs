//! What an update has changed.

use serde_json::{Value, json};

use super::Document;

/// The fields whose values differ, each with what it was and what it is: `{"name": {"old": …, "new": …}}`.
///
/// A field within an object is named by its path, with dots (`address.city`); a dot or a backslash in a name
/// has a backslash before it. Anything but two objects is compared as a whole, arrays too. What is not there
/// is `null`. Nothing has changed exactly if this has no members.
///
/// ```
/// # use serde_json::json;
/// let before = json!({ "name": "Ada", "address": { "city": "London", "zip": "W1" } });
/// let after = json!({ "name": "Ada", "address": { "city": "Paris", "zip": "W1" } });
/// let changes = esl_core::changes(before.as_object().unwrap(), after.as_object().unwrap());
/// assert_eq!(json!(changes), json!({ "address.city": { "old": "London", "new": "Paris" } }));
/// ```
#[must_use]
pub fn changes(before: &Document, after: &Document) -> Document {
    let mut changes = Document::new();
    compare("", before, after, &mut changes);
    changes
}

/// Recurses as deep as a document is nested, which has a bound: the parser's.
fn compare(path: &str, before: &Document, after: &Document, changes: &mut Document) {
    let new = after.keys().filter(|name| !before.contains_key(*name));
    for name in before.keys().chain(new) {
        let path = format!("{path}{}", name.replace('\\', "\\\\").replace('.', "\\."));
        match (before.get(name), after.get(name)) {
            (Some(old), Some(new)) if old == new => {}
            (Some(Value::Object(old)), Some(Value::Object(new))) => {
                compare(&format!("{path}."), old, new, changes);
            }
            (old, new) => _ = changes.insert(path, json!({ "old": old, "new": new })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_what_differs_is_listed_by_its_path() {
        for (before, after, expected) in [
            (json!({}), json!({}), json!({})),
            (json!({"a": 1, "b": 2}), json!({"b": 2, "a": 1}), json!({})),
            (json!({"a": 1}), json!({"a": 2}), json!({"a": {"old": 1, "new": 2}})),
            (json!({"a": 1}), json!({}), json!({"a": {"old": 1, "new": null}})),
            (json!({}), json!({"a": 1}), json!({"a": {"old": null, "new": 1}})),
            (json!({}), json!({"a": null}), json!({"a": {"old": null, "new": null}})),
            (json!({"a": "1"}), json!({"a": 1}), json!({"a": {"old": "1", "new": 1}})),
            (
                json!({"a": {"b": {"c": 1, "d": [1]}, "e": 2}}),
                json!({"a": {"b": {"c": 2, "d": [1]}, "e": 2}}),
                json!({"a.b.c": {"old": 1, "new": 2}}),
            ),
            (
                json!({"a": [{"b": 1}, {"c": 2}]}),
                json!({"a": [{"b": 1}, {"c": 3}]}),
                json!({"a": {"old": [{"b": 1}, {"c": 2}], "new": [{"b": 1}, {"c": 3}]}}),
            ),
            (
                json!({"a": {"b": 1}}),
                json!({"a": null}),
                json!({"a": {"old": {"b": 1}, "new": null}}),
            ),
            (json!({"a": {"b": 1}}), json!({"a": {}}), json!({"a.b": {"old": 1, "new": null}})),
            (json!({"a": {}}), json!({}), json!({"a": {"old": {}, "new": null}})),
            (
                json!({"a.b": 1, "a": {"b": 1}, "\\": 1, "": 1}),
                json!({"a.b": 2, "a": {"b": 3}, "\\": 4, "": 5}),
                json!({
                    "a\\.b": {"old": 1, "new": 2},
                    "a.b": {"old": 1, "new": 3},
                    "\\\\": {"old": 1, "new": 4},
                    "": {"old": 1, "new": 5},
                }),
            ),
        ] {
            let object = |value: &Value| value.as_object().expect("an object").clone();
            let found = changes(&object(&before), &object(&after));
            assert_eq!(Value::Object(found), expected, "{before} to {after}");
        }
    }
}
