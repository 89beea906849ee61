//! Entities, and what is published of them.

mod due;
mod library;
mod references;
mod writers;

use esl_core::{EntityError, Limit, OnDelete, Plan, PublishError, Tier};
use serde_json::{Value, json};

use self::library::{Library, library, library_with};

#[test]
fn every_change_is_an_event_that_says_what_has_changed() {
    library(async |library: Library| {
        let authors = library.entities("author");
        let created = authors.create(library.acme, json!({ "name": "Ada" })).await.unwrap();
        let id = created.shown.entity.id().clone();
        library.later();
        let updated = authors
            .update(library.acme, &id, |_, author| {
                author.insert("name".into(), "Ada L.".into());
                author.insert("address".into(), json!({ "city": "Paris" }));
                Ok::<_, EntityError>(())
            })
            .await
            .unwrap();
        library.later();
        authors.delete(library.acme, &id, |_| Ok::<_, EntityError>(())).await.unwrap();

        let [first, second, third] = &*library.said(3).await else { panic!("three events") };
        let data = json!({
            "id": id.as_str(),
            "name": "Ada",
            "born": null,
            "created_at": "2024-01-15T14:32:00.000Z",
            "updated_at": "2024-01-15T14:32:00.000Z",
            "books": [],
        });
        assert_eq!((&first["type"], &first["data"]), (&json!("author.created"), &data));
        assert_eq!(first.get("changes"), None);
        assert_eq!(first["timestamp"], first["data"]["updated_at"]);
        let data = json!({
            "id": id.as_str(),
            "name": "Ada L.",
            "born": null,
            "address": { "city": "Paris" },
            "created_at": "2024-01-15T14:32:00.000Z",
            "updated_at": "2024-01-15T14:32:01.000Z",
            "books": [],
        });
        assert_eq!((&second["type"], &second["data"]), (&json!("author.updated"), &data));
        let changes = json!({
            "name": { "old": "Ada", "new": "Ada L." },
            "address": { "old": null, "new": { "city": "Paris" } },
        });
        assert_eq!(second["changes"], changes);
        assert_eq!(second["timestamp"], second["data"]["updated_at"]);
        assert_eq!((&third["type"], &third["data"]), (&json!("author.deleted"), &data));
        assert_eq!(third.get("changes"), None);

        // In the order of the schema.
        let names: Vec<_> = created.shown.representation.keys().collect();
        assert_eq!(names, ["id", "name", "born", "created_at", "updated_at", "books"]);
        assert_eq!(Value::Object((**updated.shown.representation).clone()), data);
        assert!(authors.get(library.acme, &id).await.unwrap().is_none());
    });
}

#[test]
fn members_keep_their_order_those_of_the_schema_first() {
    library(async |library: Library| {
        let books = library.entities("book");
        let book: Value =
            serde_json::from_str(r#"{"z":1,"shelf_id":null,"b":2,"title":"Notes","a":3}"#).unwrap();
        let written = books.create(library.acme, book).await.unwrap();
        let order = |shown: &esl_core::Shown| {
            shown.representation.keys().cloned().collect::<Vec<_>>().join(" ")
        };
        let expected = "id title author_id shelf_id z b a created_at updated_at";
        assert_eq!(order(&written.shown), expected);
        let put = |_: &_, book: &mut esl_core::Document| {
            book.insert("title".into(), "More".into());
            Ok::<_, EntityError>(())
        };
        let written = books.update(library.acme, written.shown.entity.id(), put).await.unwrap();
        assert_eq!(order(&written.shown), expected);
    });
}

#[test]
fn an_update_that_changes_nothing_writes_nothing_and_publishes_nothing() {
    library(async |library: Library| {
        let authors = library.entities("author");
        let created = authors.create(library.acme, json!({ "name": "Ada" })).await.unwrap();
        library.later();
        for _ in 0..2 {
            let written = authors
                .update(library.acme, created.shown.entity.id(), |_, author| {
                    author.insert("name".into(), "Ada".into());
                    Ok::<_, EntityError>(())
                })
                .await
                .unwrap();
            assert!(!written.has_changed && written.outcome.published.is_empty());
            assert_eq!(written.shown, created.shown);
        }
        assert_eq!(library.said(1).await.len(), 1);
    });
}

#[test]
fn all_that_is_wrong_with_a_document_is_told_by_its_place_and_nothing_of_it() {
    library(async |library: Library| {
        let authors = library.entities("author");
        let hidden = "hunter2";
        let wrong = json!({ "born": hidden, "address": { "city": 7 }, "x/y": hidden, "id": "a" });
        let error = authors.create(library.acme, wrong).await.unwrap_err();
        let EntityError::Invalid(faults) = &error else { panic!("{error}") };
        let pointers = |faults: &[esl_core::Fault]| {
            let mut pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.clone()).collect();
            pointers.sort();
            pointers
        };
        assert_eq!(pointers(faults), ["/address/city", "/born", "/id", "/name", "/x~1y"]);
        let wrong = json!({ "born": hidden, "address": { "city": 7 }, "x/y": hidden });
        let error = authors.create(library.acme, wrong).await.unwrap_err();
        let EntityError::Invalid(faults) = &error else { panic!("{error}") };
        assert_eq!(pointers(faults), ["/address/city", "/born", "/name", "/x~1y"]);
        assert!(!error.to_string().contains(hidden), "{error}");
        for wrong in [json!(null), json!([]), json!("a")] {
            let error = authors.create(library.acme, wrong).await.unwrap_err();
            assert!(matches!(error, EntityError::Invalid(faults) if faults[0].pointer.is_empty()));
        }
        assert!(library.said(0).await.is_empty());
    });
}

#[test]
fn what_is_refused_for_the_hours_events_is_not_written_either() {
    library(async |library: Library| {
        let authors = library.entities("author");
        let mut plan = Plan::new(Tier::Free);
        plan.events_per_hour = Some(Limit::AtMost(1));
        library.world.esl.set_plan(library.acme, Some(plan)).await.unwrap();
        let created = authors.create(library.acme, json!({ "name": "Ada" })).await.unwrap();
        let id = created.shown.entity.id();
        let error = authors.create(library.acme, json!({ "name": "Eve" })).await.unwrap_err();
        assert!(matches!(error, EntityError::Publish(PublishError::OverLimit { .. })), "{error}");
        let deleted = authors.delete(library.acme, id, |_| Ok::<_, EntityError>(())).await;
        assert!(matches!(deleted, Err(EntityError::Publish(PublishError::OverLimit { .. }))));
        assert_eq!(authors.get(library.acme, id).await.unwrap(), Some(created.shown));
        assert_eq!(library.count("author").await, 1);
        // What publishes nothing is not refused.
        library.entities("shelf").create(library.acme, json!({})).await.unwrap();
    });
}

#[test]
fn while_the_event_system_is_off_entities_are_written_and_nothing_is_said() {
    library_with(
        |builder| builder.enabled(false),
        async |library: Library| {
            let authors = library.entities("author");
            let ada = authors.create(library.acme, json!({ "name": "Ada" })).await.unwrap();
            assert!(ada.outcome.published.is_empty());
            let id = ada.shown.entity.id();
            let books = library.entities("book");
            let book = json!({ "title": "Notes", "author_id": id.as_str() });
            books.create(library.acme, book).await.unwrap();
            authors.delete(library.acme, id, |_| Ok::<_, EntityError>(())).await.unwrap();
            assert_eq!((library.count("author").await, library.count("book").await), (0, 1));
            assert!(library.stored().await.is_empty());
        },
    );
}

#[test]
fn kinds_that_do_not_hold_together_are_refused() {
    use esl_core::{EntityKind, KindError, Kinds};
    let schema = || json!({ "type": "object", "properties": { "a": { "type": "string" } } });
    let kind = |name: &str| EntityKind::new(name, name, schema());
    assert!(matches!(kind("System"), Err(KindError::Name(_))));
    assert!(matches!(EntityKind::new("a", "/a", schema()), Err(KindError::Plural(_))));
    assert!(matches!(EntityKind::new("a", "a", json!({ "type": 7 })), Err(KindError::Schema(_))));
    let remote = json!({ "$ref": "https://example.com/schema" });
    assert!(matches!(EntityKind::new("a", "a", remote), Err(KindError::Schema(_))));
    let reserved = json!({ "properties": { "updated_at": {} } });
    assert!(matches!(EntityKind::new("a", "a", reserved), Err(KindError::Reserved(_))));
    let twice = Kinds::new([kind("a").unwrap(), kind("a").unwrap()]);
    assert!(matches!(twice, Err(KindError::Twice(_))));
    let none = Kinds::new([kind("a").unwrap().indexed("b")]);
    assert!(matches!(none, Err(KindError::NoProperty { .. })));
    let nobody = Kinds::new([kind("a").unwrap().refers("a", "b", OnDelete::Clear)]);
    assert!(matches!(nobody, Err(KindError::NoKind { .. })));
    let not_referring = kind("a").unwrap().embeds("bs", "b", "a", &["id"]);
    let not_referring = Kinds::new([not_referring, kind("b").unwrap()]);
    assert!(matches!(not_referring, Err(KindError::NoKind { .. })));
}
