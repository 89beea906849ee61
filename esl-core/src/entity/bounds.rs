//! What a document may hold, whatever its kind is.

use serde_json::Value;

use super::{Document, EntityError};

/// The largest document that is written through [`Entities`](crate::Entities), in bytes of JSON.
pub const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;

/// So deep objects and arrays stand within each other in such a document, itself counted. Whoever reads it, in
/// an event or in storage, has a parser with a bound of its own.
pub const DOCUMENT_LEVELS_MAX: usize = 100;

/// No member of such a document is called so: where it is read from storage, it would be taken for what it has
/// as JSON in a text.
#[doc(hidden)]
pub const FORBIDDEN_NAME: &str = "$serde_json::private::RawValue";

/// Refuses a document that holds something else.
pub(crate) fn check(document: &Document) -> Result<(), EntityError> {
    members(document, DOCUMENT_LEVELS_MAX - 1)
        .map_err(|detail| EntityError::invalid("", detail))?;
    let bytes = serde_json::to_vec(document).expect("a document is JSON").len();
    if bytes > DOCUMENT_BYTES_MAX {
        return Err(EntityError::TooLarge { bytes, bytes_max: DOCUMENT_BYTES_MAX });
    }
    Ok(())
}

/// Looks no deeper than so many levels.
fn members(members: &Document, levels: usize) -> Result<(), &'static str> {
    if members.contains_key(FORBIDDEN_NAME) {
        return Err("it has a member of a name that none can have");
    }
    members.values().try_for_each(|value| within(value, levels))
}

fn within(value: &Value, levels: usize) -> Result<(), &'static str> {
    match value {
        Value::Object(_) | Value::Array(_) if levels == 0 => Err("it is nested too deeply"),
        Value::Object(object) => members(object, levels - 1),
        Value::Array(items) => items.iter().try_for_each(|item| within(item, levels - 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(value: Value) -> Document {
        Document::from_iter([("a".to_owned(), value)])
    }

    #[test]
    fn a_document_is_refused_exactly_beyond_its_bounds() {
        let bytes = DOCUMENT_BYTES_MAX - r#"{"a":""}"#.len();
        assert!(check(&document("x".repeat(bytes).into())).is_ok());
        let refused = check(&document("x".repeat(bytes + 1).into()));
        assert!(
            matches!(refused, Err(EntityError::TooLarge { bytes, bytes_max }) if bytes == bytes_max + 1)
        );

        let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        assert!(check(&document(nested(DOCUMENT_LEVELS_MAX - 1))).is_ok());
        let refused = check(&document(nested(DOCUMENT_LEVELS_MAX)));
        assert!(matches!(refused, Err(EntityError::Invalid(_))));

        let refused = check(&document(json!([{ FORBIDDEN_NAME: "1" }])));
        assert!(matches!(refused, Err(EntityError::Invalid(_))));
    }
}
