//! What the tests write: authors, their books, and shelves.

use std::time::Duration;

use esl_core::{
    Entities, EntityKind, EslBuilder, Kinds, OnDelete, OrganizationId,
    storage::{Entities as _, EntityQuery, Page, Records},
};
use serde_json::{Value, json};

use crate::world::{ORGANIZATION, World, run_with};

pub(super) struct Library {
    pub(super) world: World,
    pub(super) acme: OrganizationId,
}

pub(super) fn library(test: impl AsyncFnOnce(Library)) {
    library_with(|builder| builder, test);
}

pub(super) fn library_with(
    configure: impl FnOnce(EslBuilder) -> EslBuilder,
    test: impl AsyncFnOnce(Library),
) {
    run_with(
        |builder| configure(builder.kinds(kinds())),
        |world| async move { test(Library { world, acme: ORGANIZATION }).await },
    );
}

pub(super) fn kinds() -> Kinds {
    let author = EntityKind::new(
        "author",
        "authors",
        json!({
            "type": "object",
            "properties": {
                "name": { "type": "string", "minLength": 1 },
                "born": { "type": ["integer", "null"], "default": null },
                "address": { "type": "object", "properties": { "city": { "type": "string" } } },
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
                "title": { "type": "string" },
                "author_id": { "type": ["string", "null"], "default": null },
                "shelf_id": { "type": ["string", "null"], "default": null },
            },
            "required": ["title"],
        }),
    );
    let shelf = EntityKind::new("shelf", "shelves", json!({ "type": "object" }));
    Kinds::new([
        author.unwrap().indexed("name").indexed("born").embeds(
            "books",
            "book",
            "author_id",
            &["id", "title"],
        ),
        book.unwrap().indexed("title").refers("author_id", "author", OnDelete::Clear).refers(
            "shelf_id",
            "shelf",
            OnDelete::Restrict,
        ),
        shelf.unwrap().with_rules(Silent),
    ])
    .unwrap()
}

/// Nothing is published of them.
#[derive(Debug)]
struct Silent;

impl esl_core::Rules for Silent {
    fn says(
        &self,
        _: Option<&esl_core::Entity>,
        _: Option<&esl_core::Entity>,
    ) -> Option<Vec<esl_core::Said>> {
        Some(Vec::new())
    }
}

impl Library {
    pub(super) fn entities(&self, kind: &str) -> Entities {
        self.world.esl.entities(kind).unwrap()
    }

    /// Lets a second pass.
    pub(super) fn later(&self) {
        self.world.clock.advance(Duration::from_secs(1));
    }

    /// The envelopes of all events, in their order; there must be so many.
    pub(super) async fn said(&self, count: usize) -> Vec<Value> {
        let stored = self.stored().await;
        assert_eq!(stored.len(), count);
        stored
    }

    pub(super) async fn stored(&self) -> Vec<Value> {
        let page = Page { after: None, limit: 100_000 };
        let events = self.world.storage.events(self.acme, None, page).await.unwrap().items;
        let events = events.into_iter().rev();
        events.map(|event| serde_json::from_slice(&event.body).unwrap()).collect()
    }

    pub(super) async fn count(&self, kind: &str) -> usize {
        self.world.storage.entities(self.acme, &all(kind)).await.unwrap().items.len()
    }
}

pub(super) fn all(kind: &str) -> EntityQuery {
    EntityQuery {
        kind: kind.parse().unwrap(),
        having: Vec::new(),
        by: None,
        is_descending: false,
        after: None,
        limit: 10_000,
    }
}

/// The names of those that a query finds.
pub(super) async fn names(library: &Library, query: &EntityQuery) -> Vec<Value> {
    let found = library.entities(query.kind.as_str()).list(library.acme, query).await.unwrap();
    found.items.iter().map(|shown| shown.representation["name"].clone()).collect()
}
