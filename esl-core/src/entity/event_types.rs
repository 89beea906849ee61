//! What is published of the entities of a kind, described.

use serde_json::{Value, json};

use super::{Document, EntityKind, Kinds};
use crate::{EventTypeEntry, Timestamp, event_types::meaning};

impl Kinds {
    /// The event types of all of them.
    pub(crate) fn event_types(&self) -> Vec<EventTypeEntry> {
        self.iter().flat_map(|kind| self.event_types_of(kind)).collect()
    }

    fn event_types_of(&self, kind: &EntityKind) -> Vec<EventTypeEntry> {
        if let Some(own) = kind.rules().event_types() {
            return own;
        }
        let (name, schema) = (kind.name(), self.schema_of_representation(kind));
        let example = kind.example().map(Value::Object);
        [("created", "created"), ("updated", "changed"), ("deleted", "removed")]
            .map(|(action, done)| {
                let event_type = name.event_type(action);
                let meaning = meaning(&event_type, || format!("one {name} was {done}"));
                let mut entry = EventTypeEntry::new(event_type, meaning, schema.clone());
                entry.example.clone_from(&example);
                entry
            })
            .into()
    }

    /// The schema of what is read of an entity: that of its document, with what ESL adds to it.
    fn schema_of_representation(&self, kind: &EntityKind) -> Value {
        let declared = kind.schema();
        let properties = declared["properties"].as_object().cloned().unwrap_or_default();
        let with_default = properties.iter().filter(|(_, schema)| schema.get("default").is_some());
        let mut required: Vec<_> = with_default.map(|(name, _)| name.clone()).collect();
        let declared_required = declared["required"].as_array().into_iter().flatten();
        required.extend(declared_required.filter_map(|name| name.as_str().map(str::to_owned)));

        let time = json!({ "type": "string", "format": "date-time" });
        let mut added = Document::new();
        added.insert("id".to_owned(), json!({ "type": "string" }));
        added.insert("created_at".to_owned(), time.clone());
        added.insert("updated_at".to_owned(), time);
        for embedded in kind.embedded() {
            let other = self.get(embedded.kind.as_str()).map(|other| other.schema());
            let shown = embedded.shown.iter().map(|name| (name.clone(), shown(other, name)));
            let item = json!({
                "type": "object",
                "properties": shown.collect::<Document>(),
                "required": embedded.shown,
            });
            added.insert(embedded.member.clone(), json!({ "type": "array", "items": item }));
        }
        required.extend(added.keys().cloned());
        // What the rules add may be anything, and need not be there.
        for name in kind.rules().adds() {
            added.entry(*name).or_insert_with(|| json!({}));
        }

        let mut in_order = Document::new();
        in_order.extend(added.shift_remove_entry("id"));
        in_order.extend(properties);
        in_order.extend(added);
        let mut schema = declared.as_object().cloned().unwrap_or_default();
        let mut seen = std::collections::BTreeSet::new();
        required.retain(|name| seen.insert(name.clone()));
        schema.insert("properties".to_owned(), in_order.into());
        schema.insert("required".to_owned(), required.into());
        // There may be more of them one day.
        schema.shift_remove("additionalProperties");
        schema.into()
    }
}

/// The schema of what is shown of another kind's property.
fn shown(other: Option<&Value>, name: &str) -> Value {
    if name == "id" {
        return json!({ "type": "string" });
    }
    let declared = other.and_then(|other| other["properties"].get(name)).cloned();
    // What refers to another part of its schema means something else here.
    let declared = declared.filter(|schema| !schema.to_string().contains(r#""$ref""#));
    declared.unwrap_or_else(|| json!({}))
}

impl EntityKind {
    /// The kind's example as it is read.
    fn example(&self) -> Option<Document> {
        let id = format!("{}01HM6QTXJ0CZ5Q3S0VZJY5T8N7", self.id_prefix());
        let at = Timestamp::from_millis(1_705_329_120_000);
        let nothing = self.embedded().iter().map(|_| json!([])).collect();
        let id = id.parse().ok()?;
        Some(self.representation(
            &id,
            &self.completed(self.shown_example()?.clone()),
            (at, at),
            nothing,
        ))
    }
}
