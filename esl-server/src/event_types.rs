//! The event types that the server describes, held to what is documented: docs/events.

use std::fs;

use esl_core::{CATALOGUE, Esl, EventTypeEntry, MemoryStorage};
use serde_json::Value;

use crate::entities;

#[test]
fn every_documented_type_is_served_with_a_schema_and_an_example_of_it() {
    let served = served();
    for entry in CATALOGUE {
        let served = served.iter().find(|served| served.event_type.as_str() == entry.event_type);
        let served = served.unwrap_or_else(|| panic!("{} is not served", entry.event_type));
        assert_eq!(served.meaning, entry.meaning);
    }
    for entry in &served {
        let example = entry.example.as_ref().unwrap_or_else(|| panic!("{}", entry.event_type));
        assert_eq!(wrong(entry, example), Vec::<String>::new(), "{}", entry.event_type);
        // All that may be there is shown.
        assert_eq!(members(example), members(&entry.schema["properties"]), "{}", entry.event_type);
    }
}

#[test]
fn the_list_in_docs_has_every_type_that_is_served() {
    let list = page("README.md");
    for EventTypeEntry { event_type, meaning, .. } in served() {
        let rows: Vec<_> =
            list.lines().filter(|line| line.starts_with(&format!("| [`{event_type}`]("))).collect();
        assert_eq!(rows.len(), 1, "{event_type} is in docs/events/README.md once");
        assert!(rows[0].contains(&format!("| {meaning} |")), "{event_type}: {meaning}");
    }
    let rows = list.lines().filter(|line| line.starts_with("| [`")).count();
    assert_eq!(rows, served().len(), "docs/events/README.md lists no other");
}

#[test]
fn the_pages_in_docs_describe_all_data_and_show_an_example_of_each_type() {
    let text = PAGES.map(page).concat();
    let examples: Vec<Value> = text
        .split("```json\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .map(|example| serde_json::from_str(example).unwrap_or_else(|_| panic!("{example}")))
        .collect();
    for entry in served() {
        let event_type = &entry.event_type;
        let examples = examples.iter().filter(|example| example["type"] == event_type.as_str());
        let examples: Vec<_> = examples.collect();
        assert!(!examples.is_empty(), "no example of {event_type}");
        for example in examples {
            assert_eq!(wrong(&entry, &example["data"]), Vec::<String>::new(), "{event_type}");
            let described = members(&entry.schema["properties"]);
            assert_eq!(members(&example["data"]), described, "{event_type}");
            let is_update = event_type.as_str().ends_with(".updated");
            assert_eq!(example.get("changes").is_some(), is_update, "{event_type}");
        }
        for member in members(&entry.schema["properties"]) {
            let is_row = |line: &str| {
                let first = line.strip_prefix("| ").and_then(|line| line.split(" |").next());
                first.is_some_and(|names| {
                    names.split(", ").any(|name| name == format!("`{member}`"))
                })
            };
            assert!(text.lines().any(is_row), "{event_type}: `{member}` is not described");
        }
    }
}

/// The pages about events.
const PAGES: [&str; 3] = ["README.md", "user-availability.md", "availability-profile.md"];

fn page(name: &str) -> String {
    let path = format!("{}/../docs/events/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What the server's engine describes.
fn served() -> Vec<EventTypeEntry> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let esl = Esl::builder(MemoryStorage::new()).kinds(entities::kinds()).build();
        esl.await.unwrap().event_types().to_vec()
    })
}

/// What is wrong with data, by the schema of its type.
fn wrong(entry: &EventTypeEntry, data: &Value) -> Vec<String> {
    let options = jsonschema::draft202012::options().should_validate_formats(true);
    let validator = options.build(&entry.schema).expect("a schema");
    validator.iter_errors(data).map(|error| error.to_string()).collect()
}

fn members(object: &Value) -> Vec<&str> {
    let object = object.as_object().unwrap_or_else(|| panic!("{object} is an object"));
    object.keys().map(String::as_str).collect()
}
