//! Entities over the API.

mod bodies;
mod conditions;
mod crud;
mod lists;
mod patches;
mod writers;

use axum::http::StatusCode;
use esl_core::{EntityKind, Kinds, OnDelete};
use serde_json::{Value, json};

use crate::world::{Reply, World};

pub(crate) const AUTHORS: &str = "/api/authors";
pub(crate) const BOOKS: &str = "/api/books";
/// Their ids are chosen.
pub(crate) const CARDS: &str = "/api/library/cards";

/// Authors with their books in them, and cards that hold a book fast.
pub(crate) fn kinds() -> Kinds {
    let author = EntityKind::new(
        "author",
        "authors",
        json!({
            "type": "object",
            "properties": {
                "name": { "type": "string", "minLength": 1 },
                "born": { "type": ["integer", "null"], "default": null },
            },
            "required": ["name"],
            "additionalProperties": false,
        }),
    );
    let book = EntityKind::new(
        "book",
        "books",
        json!({
            "type": "object",
            "properties": {
                "title": { "type": "string", "minLength": 1 },
                "author_id": { "type": ["string", "null"], "default": null },
                "is_lent": { "type": "boolean", "default": false },
                "details": {},
            },
            "required": ["title"],
            "additionalProperties": false,
        }),
    );
    let card = EntityKind::new(
        "library.card",
        "library/cards",
        json!({
            "type": "object",
            "properties": {
                "holder": { "type": "string" },
                "book_id": { "type": ["string", "null"], "default": null },
            },
            "required": ["holder"],
            "additionalProperties": false,
        }),
    );
    let author = author.expect("a kind").indexed("name").indexed("born");
    let author = author.with_example(json!({ "name": "Mary Shelley" }));
    let book = book.expect("a kind").indexed("title").indexed("is_lent");
    let card = card.expect("a kind").with_chosen_ids();
    Kinds::new([
        author.embeds("books", "book", "author_id", &["id", "title"]),
        book.refers("author_id", "author", OnDelete::Clear),
        card.refers("book_id", "book", OnDelete::Restrict),
    ])
    .expect("they go together")
}

/// Makes an entity of the first organization; gives what is shown of it.
pub(crate) async fn create(world: &World, path: &str, body: &Value) -> Value {
    let reply = world.post(path).json(body).send().await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text);
    reply.body
}

/// The same at a path that was chosen.
pub(crate) async fn put(world: &World, path: &str, body: &Value) -> Value {
    let reply = world.call(http::Method::PUT, path).json(body).send().await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text);
    reply.body
}

pub(crate) fn path_of(plural: &str, entity: &Value) -> String {
    format!("{plural}/{}", entity["id"].as_str().expect("an id"))
}

/// The code of a problem of that status.
#[track_caller]
pub(crate) fn code(reply: &Reply, status: StatusCode) -> &str {
    assert_eq!(reply.status, status, "{}", reply.text);
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    reply.body["code"].as_str().expect("a code")
}

/// The envelopes of the first organization's events, oldest first.
pub(crate) async fn events(world: &World) -> Vec<Value> {
    let list = world.get("/api/v1/events?limit=100").send().await;
    let list = list.body["data"].as_array().expect("a list").iter().rev();
    list.map(|event| event["envelope"].clone()).collect()
}
