//! Many who write the same.

use std::sync::Arc;

use esl_core::{EntityError, Esl};
use serde_json::{Value, json};

use super::library::{Library, kinds, library};
use crate::world::engine;

/// Lets so many add to one author's `born`, through these engines in turn.
async fn count_up(library: &Library, engines: &[Esl], writers: usize) {
    let authors = library.entities("author");
    let author = json!({ "name": "Ada", "born": 0 });
    let author = authors.create(library.acme, author).await.unwrap().shown.entity;
    let writers = (0..writers).map(|number| {
        let authors = engines[number % engines.len()].entities("author").unwrap();
        let (acme, author) = (library.acme, Arc::clone(&author));
        tokio::spawn(async move {
            let add = |_: &_, author: &mut esl_core::Document| {
                let born = author["born"].as_u64().unwrap();
                author.insert("born".into(), (born + 1).into());
                Ok::<_, EntityError>(())
            };
            authors.update(acme, author.id(), add).await.unwrap()
        })
    });
    let writers: Vec<_> = writers.collect();
    library
        .world
        .until(|| async { writers.iter().all(|writer| writer.is_finished()).then_some(()) })
        .await;
    let mut results: Vec<u64> = Vec::new();
    for writer in writers {
        let written = writer.await.unwrap();
        results.push(written.shown.representation["born"].as_u64().unwrap());
    }
    results.sort_unstable();
    let expected: Vec<u64> = (1..=results.len() as u64).collect();
    assert_eq!(results, expected, "no update is lost");

    let mut stands = json!(0);
    for event in &library.said(expected.len() + 1).await[1..] {
        assert_eq!(event["changes"]["born"]["old"], stands, "there is no gap");
        stands = event["changes"]["born"]["new"].clone();
        assert_eq!(event["data"]["born"], stands);
    }
    assert_eq!(stands, Value::from(expected.len()));
    let shown = authors.get(library.acme, author.id()).await.unwrap().unwrap();
    assert_eq!(shown.entity.revision, expected.len() as u64 + 1);
}

#[test]
fn of_sixty_four_who_write_one_no_update_is_lost() {
    library(async |library: Library| {
        let one = std::slice::from_ref(&library.world.esl);
        count_up(&library, one, 64).await;
    });
}

#[test]
fn nor_of_those_who_write_it_through_several_engines() {
    library(async |library: Library| {
        let world = &library.world;
        let mut engines = vec![world.esl.clone()];
        for seed in 2..4 {
            let builder = engine(seed, &world.storage, &world.clock, &world.transport);
            engines.push(builder.kinds(kinds()).build().await.unwrap());
        }
        count_up(&library, &engines, 64).await;
    });
}

#[test]
fn a_transaction_holds_only_if_all_that_it_has_read_still_stands() {
    library(async |library: Library| {
        let (esl, acme) = (&library.world.esl, library.acme);
        let authors = library.entities("author");
        let [ada, eve] = ["Ada", "Eve"].map(|name| authors.create(acme, json!({ "name": name })));
        let (ada, eve) = (ada.await.unwrap().shown.entity, eve.await.unwrap().shown.entity);
        let renamed = json!({ "name": "Eve of Ada" });
        let renamed = renamed.as_object().unwrap();

        let mut transaction = esl.transaction(acme, None);
        transaction.get("author", ada.id()).await.unwrap();
        let read = transaction.get("author", eve.id()).await.unwrap().unwrap();
        transaction.update(&read, renamed.clone()).await.unwrap();
        authors
            .update(acme, ada.id(), |_, ada| {
                ada.insert("born".into(), 1815.into());
                Ok::<_, EntityError>(())
            })
            .await
            .unwrap();
        let contended = transaction.commit().await;
        assert!(matches!(contended, Err(EntityError::Contended(key)) if key == ada.key));

        let mut transaction = esl.transaction(acme, None);
        let read = transaction.get("author", eve.id()).await.unwrap().unwrap();
        let written = transaction.update(&read, renamed.clone()).await.unwrap();
        assert_eq!(transaction.get("author", eve.id()).await.unwrap(), written);
        transaction.create("shelf", None, Default::default()).await.unwrap();
        let data = json!({ "who": "Eve" }).as_object().unwrap().clone();
        transaction.publish("library.renamed".parse().unwrap(), data);
        let outcome = transaction.commit().await.unwrap();
        assert_eq!(outcome.published.len(), 2);
        let said = library.said(5).await;
        let types: Vec<_> = said[3..].iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["author.updated", "library.renamed"]);
        // Nothing at all is committed as nothing.
        let outcome = esl.transaction(acme, None).commit().await.unwrap();
        assert!(outcome.published.is_empty());
    });
}

#[test]
fn what_another_engine_has_written_is_seen_whatever_was_written_here_before() {
    library(async |library: Library| {
        let world = &library.world;
        let builder = engine(2, &world.storage, &world.clock, &world.transport);
        let other = builder.kinds(kinds()).build().await.unwrap().entities("author").unwrap();
        let authors = library.entities("author");
        let ada = authors.create(library.acme, json!({ "name": "Ada" })).await.unwrap();
        let id = ada.shown.entity.id();
        let name = |name: &'static str| {
            move |_: &_, author: &mut esl_core::Document| {
                author.insert("name".into(), name.into());
                Ok::<_, EntityError>(())
            }
        };
        // To what it was here: that changes something by now.
        other.update(library.acme, id, name("Eve")).await.unwrap();
        let back = authors.update(library.acme, id, name("Ada")).await.unwrap();
        assert!(back.has_changed);
        // What is refused for what is read is refused for what is there.
        other.update(library.acme, id, name("Eve")).await.unwrap();
        let eve = |shown: &esl_core::Shown, _: &mut esl_core::Document| match shown.representation["name"]
            == "Eve"
        {
            true => Ok(()),
            false => Err(EntityError::invalid("", "it is not Eve")),
        };
        let same = authors.update(library.acme, id, eve).await.unwrap();
        assert!(!same.has_changed && same.shown.representation["name"] == "Eve");
        other.delete(library.acme, id, |_| Ok::<_, EntityError>(())).await.unwrap();
        let gone = authors.update(library.acme, id, name("Bob")).await;
        assert!(matches!(gone, Err(EntityError::NotFound(_))));
        library.said(5).await;
    });
}
