//! How much a document may hold.

use serde_json::Value;

use super::{Document, EntityError};

/// The largest document that is written through [`Entities`](crate::Entities), in bytes of JSON.
pub const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;

/// So deep objects and arrays stand within each other in such a document, itself counted. Whoever reads it, in
/// an event or in storage, has a parser with a bound of its own.
pub const DOCUMENT_LEVELS_MAX: usize = 100;

/// Refuses a document that holds more.
pub(crate) fn check(document: &Document) -> Result<(), EntityError> {
    let are_deep = document.values().any(|value| is_deeper(value, DOCUMENT_LEVELS_MAX - 1));
    if are_deep {
        let detail = format!("it is nested more than {DOCUMENT_LEVELS_MAX} levels deep");
        return Err(EntityError::invalid("", detail));
    }
    let bytes = serde_json::to_vec(document).expect("a document is JSON").len();
    if bytes > DOCUMENT_BYTES_MAX {
        return Err(EntityError::TooLarge { bytes, bytes_max: DOCUMENT_BYTES_MAX });
    }
    Ok(())
}

/// Looks no deeper than it has to.
fn is_deeper(value: &Value, levels: usize) -> bool {
    match value {
        Value::Object(members) => {
            levels == 0 || members.values().any(|value| is_deeper(value, levels - 1))
        }
        Value::Array(items) => {
            levels == 0 || items.iter().any(|value| is_deeper(value, levels - 1))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
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
    }
}
