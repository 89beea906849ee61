//! What can be subscribed to.

use std::sync::Arc;

use axum::http::StatusCode;
use esl_core::{Esl, EventTypeEntry};
use esl_http::api::{self, ApiConfig};
use serde_json::{Value, json};

use crate::{entities, world::World};

const URI: &str = "/api/v1/event-types";

async fn types(world: &World) -> Vec<Value> {
    let list = world.get(URI).send().await;
    assert_eq!(list.status, StatusCode::OK, "{}", list.text);
    list.body["data"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn the_events_of_kinds_and_the_services_own_are_listed_by_name() {
    let world = World::new().await;
    let types = types(&world).await;
    let names: Vec<_> = types.iter().map(|entry| entry["type"].as_str().expect("a name")).collect();
    let expected = [
        "author.created",
        "author.deleted",
        "author.updated",
        "book.created",
        "book.deleted",
        "book.updated",
        "library.card.created",
        "library.card.deleted",
        "library.card.updated",
        "system.delivery.exhausted",
        "system.maintenance.scheduled",
        "system.ping",
        "system.rate_limit.exceeded",
        "system.rate_limit.warning",
        "system.subscription.disabled",
    ];
    assert_eq!(names, expected);
    for entry in &types {
        assert!(entry["description"].as_str().is_some_and(|text| !text.is_empty()), "{entry}");
        assert_eq!(entry["schema"]["type"], "object", "{entry}");
    }
}

#[tokio::test]
async fn a_schema_describes_what_is_read_of_an_entity() {
    let world = World::new().await;
    let types = types(&world).await;
    let time = json!({ "type": "string", "format": "date-time" });
    let title = json!({ "type": "string", "minLength": 1 });
    let expected = json!({
        "type": "author.created",
        "description": "one author was created",
        "schema": {
            "type": "object",
            "properties": {
                "id": { "type": "string" },
                "name": { "type": "string", "minLength": 1 },
                "born": { "type": ["integer", "null"], "default": null },
                "created_at": time,
                "updated_at": time,
                "books": { "type": "array", "items": {
                    "type": "object",
                    "properties": { "id": { "type": "string" }, "title": title },
                    "required": ["id", "title"],
                } },
            },
            "required": ["born", "name", "id", "created_at", "updated_at", "books"],
        },
        "example": {
            "id": "author_01HM6QTXJ0CZ5Q3S0VZJY5T8N7",
            "name": "Mary Shelley",
            "born": null,
            "created_at": "2024-01-15T14:32:00.000Z",
            "updated_at": "2024-01-15T14:32:00.000Z",
            "books": [],
        },
    });
    assert_eq!(types[0], expected);
    assert_eq!(types[3].get("example"), None, "a book has none");
}

#[tokio::test]
async fn an_application_describes_its_own_types_and_the_engines_anew() {
    let world = World::new().await;
    let entry =
        |name: &str, schema| EventTypeEntry::new(name.parse().expect("a type"), "our own", schema);
    let esl = Esl::builder(world.storage.clone())
        .clock(Arc::new(world.clock.clone()))
        .kinds(entities::kinds())
        .event_types(vec![
            entry("order.shipped", json!({})),
            entry("book.deleted", json!({ "a": 1 })).with_example(json!({ "a": 2 })),
        ])
        .build()
        .await
        .expect("an engine");
    let world = World { router: api::router(esl.clone(), ApiConfig::default()), esl, ..world };
    let types = types(&world).await;
    let named = |name| types.iter().filter(|entry| entry["type"] == name).collect::<Vec<_>>();
    let shipped = json!({ "type": "order.shipped", "description": "our own", "schema": {} });
    assert_eq!(named("order.shipped"), [&shipped]);
    let deleted = json!({
        "type": "book.deleted", "description": "our own", "schema": { "a": 1 }, "example": { "a": 2 },
    });
    assert_eq!(named("book.deleted"), [&deleted]);
}

#[tokio::test]
async fn all_types_come_on_one_page() {
    let world = World::new().await;
    assert_eq!(world.get(&format!("{URI}?limit=1")).send().await.places(), ["parameter limit"]);
}
