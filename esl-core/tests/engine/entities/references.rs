//! Entities that refer to each other.

use esl_core::{EntityError, Fault, storage::REFERENCES_MAX};
use serde_json::{Value, json};

use super::library::{Library, all, library, names};

#[test]
fn those_who_refer_to_one_are_shown_in_it_and_change_without_it() {
    library(async |library: Library| {
        let (authors, books) = (library.entities("author"), library.entities("book"));
        let author = authors.create(library.acme, json!({ "name": "Ada" })).await.unwrap();
        let id = author.shown.entity.id().as_str().to_owned();
        let tag = author.shown.tag();
        let book = json!({ "title": "Notes", "author_id": id, "pages": 66 });
        let book = books.create(library.acme, book).await.unwrap().shown.entity;
        let shown = authors.get(library.acme, author.shown.entity.id()).await.unwrap().unwrap();
        let expected = json!([{ "id": book.id().as_str(), "title": "Notes" }]);
        assert_eq!(shown.representation["books"], expected);
        assert_eq!(shown.entity.revision, 1);
        assert_ne!(shown.tag(), tag);

        books
            .update(library.acme, book.id(), |_, book| {
                book.insert("title".into(), "More notes".into());
                Ok::<_, EntityError>(())
            })
            .await
            .unwrap();
        let again = authors.get(library.acme, author.shown.entity.id()).await.unwrap().unwrap();
        assert_eq!(again.representation["books"][0]["title"], "More notes");
        assert_ne!(again.tag(), shown.tag());
        let listed = authors.list(library.acme, &all("author")).await.unwrap();
        assert_eq!(listed.items, [again]);
        // With what is shown in it, it is updated when it is itself.
        authors
            .update(library.acme, author.shown.entity.id(), |_, author| {
                author.insert("born".into(), 1815.into());
                Ok::<_, EntityError>(())
            })
            .await
            .unwrap();
        let said = library.said(4).await;
        let types: Vec<_> = said.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["author.created", "book.created", "book.updated", "author.updated"]);
        assert_eq!(said[3]["data"]["books"][0]["title"], "More notes");
        assert_eq!(said[3]["changes"], json!({ "born": { "old": null, "new": 1815 } }));
    });
}

#[test]
fn whoever_goes_leaves_nobody_who_refers_to_it() {
    library(async |library: Library| {
        let (authors, books) = (library.entities("author"), library.entities("book"));
        let author = authors.create(library.acme, json!({ "name": "Ada" })).await.unwrap();
        let id = author.shown.entity.id();
        for title in ["One", "Two"] {
            let book = json!({ "title": title, "author_id": id.as_str() });
            books.create(library.acme, book).await.unwrap();
        }
        let outcome = authors.delete(library.acme, id, |_| Ok::<_, EntityError>(())).await.unwrap();
        // One unit: they follow each other.
        let seqs: Vec<_> = outcome.published.iter().map(|one| one.seq.get()).collect();
        assert_eq!(seqs, [4, 5, 6]);
        let said = library.said(6).await;
        for event in &said[3..5] {
            assert_eq!(event["type"], "book.updated");
            let changes = json!({ "author_id": { "old": id.as_str(), "new": null } });
            assert_eq!(event["changes"], changes);
            assert_eq!(event["data"]["author_id"], Value::Null);
        }
        assert_eq!(said[5]["type"], "author.deleted");
        // As it was at the end.
        assert_eq!(said[5]["data"]["books"], json!([]));
    });
}

#[test]
fn what_others_need_is_not_deleted() {
    library(async |library: Library| {
        let (shelves, books) = (library.entities("shelf"), library.entities("book"));
        let shelf = shelves.create(library.acme, json!({})).await.unwrap().shown.entity;
        let book = json!({ "title": "Notes", "shelf_id": shelf.id().as_str() });
        let book = books.create(library.acme, book).await.unwrap().shown.entity;
        let delete =
            async |id| shelves.delete(library.acme, id, |_| Ok::<_, EntityError>(())).await;
        let refused = delete(shelf.id()).await;
        assert!(matches!(refused, Err(EntityError::InUse { by, .. }) if by.as_str() == "book"));
        books.delete(library.acme, book.id(), |_| Ok::<_, EntityError>(())).await.unwrap();
        delete(shelf.id()).await.unwrap();
        assert!(matches!(delete(shelf.id()).await, Err(EntityError::NotFound(_))));
    });
}

#[test]
fn what_is_referred_to_is_there() {
    library(async |library: Library| {
        let books = library.entities("book");
        for nobody in ["author_01J00000000000000000000000", "../x", ""] {
            let book = json!({ "title": "Notes", "author_id": nobody });
            let error = books.create(library.acme, book).await.unwrap_err();
            let EntityError::Invalid(faults) = error else { panic!("{error}") };
            let fault = Fault::member("", "author_id", "there is no such author");
            assert_eq!(faults, [fault]);
        }
        assert!(library.said(0).await.is_empty());
    });
}

#[test]
fn no_more_refer_to_one_than_can_be_written_at_once() {
    library(async |library: Library| {
        let (authors, books) = (library.entities("author"), library.entities("book"));
        let author = authors.create(library.acme, json!({ "name": "Ada" })).await.unwrap();
        let id = author.shown.entity.id();
        let book = json!({ "title": "Notes", "author_id": id.as_str() });
        for _ in 0..REFERENCES_MAX {
            books.create(library.acme, book.clone()).await.unwrap();
        }
        let error = books.create(library.acme, book).await.unwrap_err();
        assert!(matches!(error, EntityError::TooManyReferences(_)), "{error}");
        let gone = authors.delete(library.acme, id, |_| Ok::<_, EntityError>(())).await.unwrap();
        assert_eq!(gone.published.len(), REFERENCES_MAX as usize + 1);
    });
}

#[test]
fn lists_are_filtered_and_sorted_by_what_is_indexed() {
    library(async |library: Library| {
        let authors = library.entities("author");
        for (name, born) in
            [("Eve", Some(1920)), ("Ada", Some(1815)), ("Bob", None), ("ada", Some(9))]
        {
            let author = json!({ "name": name, "born": born });
            authors.create(library.acme, author).await.unwrap();
            library.later();
        }
        let kind = authors.kind();
        for (filters, sort, expected) in [
            (vec![], "id", json!(["Eve", "Ada", "Bob", "ada"])),
            (vec![], "created_at", json!(["Eve", "Ada", "Bob", "ada"])),
            (vec![], "updated_at", json!(["Eve", "Ada", "Bob", "ada"])),
            (vec![], "name", json!(["Ada", "Bob", "Eve", "ada"])),
            (vec![], "born", json!(["Bob", "ada", "Ada", "Eve"])),
            (vec![("name", "Ada")], "id", json!(["Ada"])),
            (vec![("born", "1815")], "name", json!(["Ada"])),
            (vec![("born", "")], "name", json!(["Bob"])),
            (vec![("born", "1815"), ("name", "Eve")], "id", json!([])),
        ] {
            let having = filters.iter().map(|(name, text)| kind.filter(name, text).unwrap());
            let query = esl_core::storage::EntityQuery {
                having: having.collect(),
                by: kind.sort(sort).unwrap(),
                ..all("author")
            };
            assert_eq!(json!(names(&library, &query).await), expected, "{filters:?} {sort}");
        }
        assert!(kind.sort("address").is_err() && kind.filter("address", "x").is_err());
        assert_eq!(kind.filter("born", "x"), Err("expected a number"));
    });
}
