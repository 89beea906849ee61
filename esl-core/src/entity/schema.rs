//! What a document may look like: a JSON Schema (draft 2020-12), and what is read from it.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use super::{Document, Fault, KindError};

/// A JSON Schema of an object.
#[derive(Debug)]
pub(crate) struct Schema {
    text: Value,
    validator: Validator,
    /// Its properties, in the order in which they stand there, each with its default.
    properties: Vec<(String, Option<Value>)>,
}

impl Schema {
    /// Reads a schema. It refers to nothing but itself; `format` is checked; patterns are such as take time
    /// that is linear in the text.
    pub(crate) fn new(text: Value) -> Result<Self, KindError> {
        let validator = jsonschema::draft202012::options()
            .should_validate_formats(true)
            .with_pattern_options(PatternOptions::regex())
            .offline()
            .build(&text)
            .map_err(|error| KindError::Schema(error.to_string()))?;
        let properties = text.get("properties").and_then(Value::as_object);
        let properties = properties.into_iter().flatten();
        let properties = properties
            .map(|(name, property)| (name.clone(), property.get("default").cloned()))
            .collect();
        Ok(Self { text, validator, properties })
    }

    /// As it was written.
    pub(crate) const fn text(&self) -> &Value {
        &self.text
    }

    pub(crate) fn has_property(&self, name: &str) -> bool {
        self.properties.iter().any(|(property, _)| property == name)
    }

    /// Puts the properties of a document into the schema's order, with defaults for what is not there. What
    /// is no property comes after them, as it is.
    pub(crate) fn completed(&self, mut document: Document) -> Document {
        let mut completed = Document::new();
        for (name, default) in &self.properties {
            if let Some(value) = document.shift_remove(name).or_else(|| default.clone()) {
                completed.insert(name.clone(), value);
            }
        }
        completed.extend(document);
        completed
    }

    /// A document that is as it says.
    ///
    /// # Errors
    /// Everything that is wrong with it, each at its place, and nothing of the values.
    pub(crate) fn checked(&self, document: Document) -> Result<Document, Vec<Fault>> {
        use jsonschema::error::ValidationErrorKind::{
            AdditionalProperties, Enum, Format, Required, UnevaluatedProperties,
        };
        let document = Value::Object(document);
        let mut faults = Vec::new();
        for error in self.validator.iter_errors(&document) {
            let at = error.instance_path().as_str();
            match error.kind() {
                Required { property } => {
                    let name = property.as_str().unwrap_or_default();
                    faults.push(Fault::member(at, name, "this member is missing"));
                }
                AdditionalProperties { unexpected } | UnevaluatedProperties { unexpected } => {
                    let unexpected = unexpected.iter();
                    faults.extend(
                        unexpected.map(|name| Fault::member(at, name, "there is no such member")),
                    );
                }
                // Of a value, one thing at a time.
                _ if faults.iter().any(|fault: &Fault| fault.pointer == at) => {}
                Enum { options } => {
                    let options = options.as_array().into_iter().flatten();
                    let options: Vec<_> = options.map(Value::to_string).collect();
                    let detail = format!("expected one of {}", options.join(", "));
                    faults.push(Fault { pointer: at.to_owned(), detail });
                }
                Format { format } => {
                    let detail = format!("expected the format {format}");
                    faults.push(Fault { pointer: at.to_owned(), detail });
                }
                _ => faults
                    .push(Fault { pointer: at.to_owned(), detail: error.masked().to_string() }),
            }
        }
        match document {
            Value::Object(document) if faults.is_empty() => Ok(document),
            _ => Err(faults),
        }
    }

    /// A text as a value of a property: as a number or a truth where it is declared as such, as nothing where
    /// it is empty and may be nothing.
    pub(crate) fn value_of(&self, property: &str, text: &str) -> Result<Value, &'static str> {
        let declared = &self.text["properties"][property]["type"];
        let is = |name: &str| match declared {
            Value::Array(types) => types.iter().any(|one| one == name),
            one => one == name,
        };
        if text.is_empty() && is("null") {
            return Ok(Value::Null);
        }
        if is("boolean") {
            return text.parse().map(Value::Bool).map_err(|_| "expected true or false");
        }
        if is("integer") || is("number") {
            let number: Result<Value, _> = serde_json::from_str(text);
            return number.ok().filter(Value::is_number).ok_or("expected a number");
        }
        Ok(Value::String(text.to_owned()))
    }
}
