//! What events tell of entities, told again: each is applied to what the ones before it have left.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

type Document = Map<String, Value>;

/// The entities that there are after so many events, by id.
#[derive(Debug, Default)]
pub(super) struct Story(BTreeMap<String, Document>);

impl Story {
    /// Tells it from the history, which begins with the oldest event.
    pub(super) fn of(history: &[Value]) -> Self {
        let mut story = Self::default();
        history.iter().for_each(|event| story.apply(&event["envelope"]));
        story
    }

    /// What has an id that begins like this, as it is shown.
    pub(super) fn list(&self, prefix: &str) -> Vec<Value> {
        let ids = self.0.keys().filter(|id| id.starts_with(prefix));
        ids.map(|id| self.shown(id).into()).collect()
    }

    fn apply(&mut self, event: &Value) {
        let id = id(event);
        let mut data = event["data"].as_object().expect("an object").clone();
        match action(event) {
            "created" => {
                data.shift_remove("pets");
                assert!(self.0.insert(id.to_owned(), data).is_none(), "it was there: {event}");
            }
            "updated" => {
                let stands = self.0.get_mut(id).expect("what is updated was created");
                let changes = event["changes"].as_object().expect("an update has changes");
                assert!(!changes.is_empty(), "{event}");
                for (name, change) in changes {
                    assert_eq!(stands[name], change["old"], "{name} was something else: {event}");
                    stands[name] = change["new"].clone();
                }
                stands["updated_at"] = data["updated_at"].clone();
            }
            "deleted" => {
                assert_eq!(event["data"], Value::Object(self.shown(id)), "it is told as it is");
                self.0.remove(id).expect("it was there just now");
                let refers =
                    |one: &Document| one.values().any(|value| *value == event["data"]["id"]);
                assert!(!self.0.values().any(refers), "somebody still refers to it: {event}");
                return;
            }
            other => panic!("{other} is not expected here: {event}"),
        }
        for name in ["owner_id", "pet_id"] {
            if let Some(other) = event["data"][name].as_str() {
                assert!(self.0.contains_key(other), "the {name} is not there: {event}");
            }
        }
        assert_eq!(event["data"], Value::Object(self.shown(id)), "it is told as it is");
    }

    fn shown(&self, id: &str) -> Document {
        let mut shown = self.0.get(id).unwrap_or_else(|| panic!("{id} is not there")).clone();
        if id.starts_with("person_") {
            let pets = self.0.values().filter(|one| one.get("owner_id").is_some_and(|it| it == id));
            let short = |pet: &Document| {
                let member = |name: &str| (name.to_owned(), pet[name].clone());
                Value::Object(["id", "name", "type"].map(member).into_iter().collect())
            };
            shown.insert("pets".to_owned(), pets.map(short).collect());
        }
        shown
    }
}

fn id(event: &Value) -> &str {
    event["data"]["id"].as_str().expect("an entity has an id")
}

fn action(event: &Value) -> &str {
    let event_type = event["type"].as_str().expect("a type");
    event_type.rsplit_once('.').expect("types have dots").1
}
