use std::{fmt, sync::Arc};

use serde_json::value::RawValue;

/// A JSON object that is kept as it was written.
///
/// ```
/// use esl_core::JsonObject;
/// let object: JsonObject = r#"{"team": 7}"#.parse()?;
/// assert_eq!(object.as_str(), r#"{"team": 7}"#);
/// assert!("[1]".parse::<JsonObject>().is_err());
/// # Ok::<(), esl_core::JsonObjectError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct JsonObject(Arc<str>);

/// The text is not a JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a JSON object")]
pub struct JsonObjectError;

impl JsonObject {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As JSON that goes into other JSON.
    #[must_use]
    pub fn to_raw(&self) -> Box<RawValue> {
        RawValue::from_string(self.0.to_string()).expect("it was parsed before")
    }
}

impl std::str::FromStr for JsonObject {
    type Err = JsonObjectError;

    fn from_str(text: &str) -> Result<Self, JsonObjectError> {
        let raw: &RawValue = serde_json::from_str(text).map_err(|_| JsonObjectError)?;
        if raw.get().starts_with('{') { Ok(Self(raw.get().into())) } else { Err(JsonObjectError) }
    }
}

impl fmt::Debug for JsonObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
