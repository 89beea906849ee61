//! Entities are made, read, written and deleted, each with its event.

use std::{sync::Arc, time::Duration};

use axum::http::{Method, StatusCode};
use esl_core::{Esl, Limit, Plan, Tier};
use esl_http::api::{self, ApiConfig};
use serde_json::{Value, json};

use super::{AUTHORS, BOOKS, CARDS, code, create, events, kinds, path_of, put};
use crate::world::World;

const AT: &str = "2024-01-15T14:32:00.000Z";

#[tokio::test]
async fn an_entity_is_made_and_read_as_it_was_made() {
    let world = World::new().await;
    let made = world.post(AUTHORS).json(&json!({ "name": "Ada" })).send().await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let id = made.body["id"].as_str().expect("an id");
    assert!(id.starts_with("author_"), "{id}");
    let expected = json!({
        "id": id, "name": "Ada", "born": null, "created_at": AT, "updated_at": AT, "books": [],
    });
    assert_eq!(made.body, expected);
    let path = path_of(AUTHORS, &made.body);
    assert_eq!(made.header("location"), Some(&*path));
    let etag = made.header("etag").expect("a tag");
    assert!(etag.starts_with('"') && etag.ends_with('"'), "it is strong: {etag}");

    let read = world.get(&path).send().await;
    assert_eq!((read.status, &read.text), (StatusCode::OK, &made.text));
    assert_eq!(read.header("etag"), Some(etag));
    let head = world.call(Method::HEAD, &path).send().await;
    assert_eq!((head.status, &*head.text), (StatusCode::OK, ""));
    assert_eq!(head.header("etag"), Some(etag));
}

#[tokio::test]
async fn every_change_is_an_event_that_says_who_made_it() {
    let world = World::new().await;
    let call = |method, path: &str, id| world.call(method, path).header("x-request-id", id);
    let made = call(Method::POST, AUTHORS, "make").json(&json!({ "name": "Ada" })).send().await;
    let path = path_of(AUTHORS, &made.body);
    let whole = json!({ "name": "Ada", "born": 1815 });
    call(Method::PUT, &path, "put").json(&whole).send().await;
    call(Method::PATCH, &path, "patch").json(&json!({ "name": "Ada L." })).send().await;
    let shown = world.get(&path).send().await.body;
    let deleted = call(Method::DELETE, &path, "delete").send().await;
    assert_eq!((deleted.status, &*deleted.text), (StatusCode::NO_CONTENT, ""));
    assert_eq!(code(&world.get(&path).send().await, StatusCode::NOT_FOUND), "not_found");

    let events = events(&world).await;
    let said: Vec<_> = events
        .iter()
        .map(|event| {
            let (metadata, changes) = (&event["metadata"], event.get("changes").cloned());
            assert_eq!(metadata["triggered_by"], "acme-client");
            assert_eq!(metadata["source"], "api");
            (event["type"].as_str(), metadata["correlation_id"].as_str(), changes)
        })
        .collect();
    let name = json!({ "name": { "old": "Ada", "new": "Ada L." } });
    let born = json!({ "born": { "old": null, "new": 1815 } });
    assert_eq!(
        said,
        [
            (Some("author.created"), Some("make"), None),
            (Some("author.updated"), Some("put"), Some(born)),
            (Some("author.updated"), Some("patch"), Some(name)),
            (Some("author.deleted"), Some("delete"), None),
        ]
    );
    assert_eq!(events[0]["data"], made.body);
    assert_eq!(events[3]["data"], shown, "what is deleted is shown as it was");
}

#[tokio::test]
async fn put_takes_the_representation_or_just_the_properties() {
    let world = World::new().await;
    let made = create(&world, AUTHORS, &json!({ "name": "Ada", "born": 1815 })).await;
    let path = path_of(AUTHORS, &made);
    let before = world.get(&path).send().await;
    let same = world.call(Method::PUT, &path).json(&made).send().await;
    assert_eq!((same.status, &same.body), (StatusCode::OK, &made), "nothing has changed");
    assert_eq!(same.header("etag"), before.header("etag"));
    assert_eq!(events(&world).await.len(), 1);

    world.clock.advance(Duration::from_secs(1));
    let replaced = world.call(Method::PUT, &path).json(&json!({ "name": "Ada" })).send().await;
    assert_eq!(replaced.status, StatusCode::OK, "{}", replaced.text);
    assert_eq!(replaced.body["born"], Value::Null, "what is left out is its default");
    assert_eq!(replaced.body["updated_at"], "2024-01-15T14:32:01.000Z");
    assert_ne!(replaced.header("etag"), before.header("etag"));
    let read = world.get(&path).send().await;
    assert_eq!((&read.text, read.header("etag")), (&replaced.text, replaced.header("etag")));

    let mut others = made.clone();
    others["id"] = "author_1".into();
    others["created_at"] = json!(1);
    others["books"] = json!([{ "id": "book_1" }]);
    let refused = world.call(Method::PUT, &path).json(&others).send().await;
    assert_eq!(refused.places(), ["/id", "/created_at", "/updated_at", "/books"]);
}

#[tokio::test]
async fn where_ids_are_chosen_put_makes_and_replaces_and_post_does_not_exist() {
    let world = World::new().await;
    let path = format!("{CARDS}/card-1");
    let put = async |body: &Value| world.call(Method::PUT, &path).json(body).send().await;
    let made = put(&json!({ "holder": "Ada" })).await;
    assert_eq!((made.status, &made.body["id"]), (StatusCode::CREATED, &json!("card-1")));
    let replaced = put(&json!({ "holder": "Bob" })).await;
    assert_eq!((replaced.status, &replaced.body["holder"]), (StatusCode::OK, &json!("Bob")));
    let same = put(&replaced.body).await;
    assert_eq!((same.status, &same.text), (StatusCode::OK, &replaced.text));
    let types: Vec<_> = events(&world).await.iter().map(|event| event["type"].clone()).collect();
    assert_eq!(types, ["library.card.created", "library.card.updated"]);

    let post = world.post(CARDS).json(&json!({ "holder": "Ada" })).send().await;
    assert_eq!(code(&post, StatusCode::METHOD_NOT_ALLOWED), "method_not_allowed");
    assert_eq!(post.header("allow"), Some("GET,HEAD"));
    // Where it is new, the id may stand in the body if it is that of the path.
    let other = |id: &str| json!({ "id": id, "holder": "Ada" });
    let call = |path: &str| world.call(Method::PUT, path);
    let path = format!("{CARDS}/card-2");
    assert_eq!(call(&path).json(&other("card-1")).send().await.places(), ["/id"]);
    assert_eq!(call(&path).json(&other("card-2")).send().await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn whoever_chooses_what_is_no_id_is_told_what_one_is() {
    let world = World::new().await;
    let expected = "expected 1 to 100 characters of A-Z, a-z, 0-9, _ and -";
    for id in ["a@b", "a.b", "a%20b", "%2e%2e", "%ff", &"a".repeat(101)] {
        let path = format!("{CARDS}/{id}");
        let refused = world.call(Method::PUT, &path).json(&json!({ "holder": "Ada" })).send().await;
        assert_eq!(code(&refused, StatusCode::UNPROCESSABLE_ENTITY), "invalid", "{id}");
        assert_eq!(refused.body["detail"], expected, "{id}");
        assert_eq!(refused.faults(), [("/id".into(), expected.into())]);
    }
    let longest = format!("{CARDS}/{}", "a".repeat(100));
    put(&world, &longest, &json!({ "holder": "Ada" })).await;
    // Who may not write learns nothing.
    let call = world.anonymous(Method::PUT, &format!("{CARDS}/a.b"));
    assert_eq!(call.send().await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn what_is_not_there_is_called_as_people_call_it() {
    let world = World::new().await;
    let gone = world.get(&format!("{CARDS}/card-1")).send().await;
    assert_eq!(gone.body["detail"], "there is no such card");
    let gone = world.call(Method::DELETE, &format!("{CARDS}/card-1")).send().await;
    assert_eq!(gone.body["detail"], "there is no such card");
}

#[tokio::test]
async fn an_id_that_was_chosen_anew_has_another_tag() {
    let world = World::new().await;
    let path = format!("{CARDS}/card-1");
    let mut tags = Vec::new();
    for holder in ["Ada", "Bob"] {
        put(&world, &path, &json!({ "holder": holder })).await;
        tags.push(world.get(&path).send().await.header("etag").expect("a tag").to_owned());
        world.call(Method::DELETE, &path).send().await;
    }
    assert_ne!(tags[0], tags[1]);
}

#[tokio::test]
async fn what_is_not_there_is_not_found_whatever_it_is_called() {
    let world = World::new().await;
    let mine = path_of(AUTHORS, &create(&world, AUTHORS, &json!({ "name": "Ada" })).await);
    let paths = [
        format!("{AUTHORS}/author_01HM6QTXJ0CZ5Q3S0VZJY5T8N7"),
        format!("{AUTHORS}/nobody"),
        format!("{AUTHORS}/a%20b"),
        format!("{AUTHORS}/%2e%2e"),
        format!("{AUTHORS}/{}", "a".repeat(101)),
        format!("{CARDS}/card-1"),
        format!("{CARDS}/a.b"),
    ];
    for path in &paths {
        for method in [Method::GET, Method::DELETE, Method::PATCH, Method::PUT] {
            // Which makes one, or says why not.
            if method == Method::PUT && path.starts_with(CARDS) {
                continue;
            }
            let reply = world.call(method.clone(), path).json(&json!({ "name": "x" })).send().await;
            assert_eq!(code(&reply, StatusCode::NOT_FOUND), "not_found", "{method} {path}");
        }
    }
    for method in [Method::GET, Method::DELETE, Method::PATCH, Method::PUT] {
        let call = world.anonymous(method, &mine).token(&world.stranger_token);
        let theirs = call.json(&json!({ "name": "x" })).send().await;
        assert_eq!(code(&theirs, StatusCode::NOT_FOUND), "not_found");
    }
    for path in ["/api/nothings", "/api/nothings/1", "/api/library", "/api/author", "/api/"] {
        assert_eq!(
            code(&world.get(path).send().await, StatusCode::NOT_FOUND),
            "not_found",
            "{path}"
        );
    }
    assert_eq!(world.get(&mine).send().await.body["name"], "Ada");
}

#[tokio::test]
async fn the_same_chosen_id_is_each_organizations_own() {
    let world = World::new().await;
    let path = format!("{CARDS}/card-1");
    put(&world, &path, &json!({ "holder": "Ada" })).await;
    let stranger = |method| world.anonymous(method, &path).token(&world.stranger_token);
    let theirs = stranger(Method::PUT).json(&json!({ "holder": "Bob" })).send().await;
    assert_eq!(theirs.status, StatusCode::CREATED, "{}", theirs.text);
    assert_eq!(stranger(Method::DELETE).send().await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.get(&path).send().await.body["holder"], "Ada");
}

#[tokio::test]
async fn what_refers_is_shown_and_is_cleared_or_holds_fast() {
    let world = World::new().await;
    let author = create(&world, AUTHORS, &json!({ "name": "Ada" })).await;
    let path = path_of(AUTHORS, &author);
    let before = world.get(&path).send().await;
    let book = json!({ "title": "Notes", "author_id": author["id"] });
    let book = create(&world, BOOKS, &book).await;
    let after = world.get(&path).send().await;
    assert_eq!(after.body["books"], json!([{ "id": book["id"], "title": "Notes" }]));
    assert_ne!(after.header("etag"), before.header("etag"));
    assert_eq!(after.body["updated_at"], before.body["updated_at"]);

    let card = format!("{CARDS}/card-1");
    put(&world, &card, &json!({ "holder": "Bob", "book_id": book["id"] })).await;
    let book_path = path_of(BOOKS, &book);
    let held = world.call(Method::DELETE, &book_path).send().await;
    assert_eq!(code(&held, StatusCode::CONFLICT), "conflict");
    assert_eq!(held.body["detail"], "the book is referred to by at least one card");

    let deleted = world.call(Method::DELETE, &path).send().await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT, "{}", deleted.text);
    assert_eq!(world.get(&book_path).send().await.body["author_id"], Value::Null);
    world.call(Method::DELETE, &card).send().await;
    let deleted = world.call(Method::DELETE, &book_path).send().await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT, "{}", deleted.text);

    let unknown = json!({ "title": "Notes", "author_id": author["id"] });
    let refused = world.post(BOOKS).json(&unknown).send().await;
    assert_eq!(refused.faults(), [("/author_id".into(), "there is no such author".into())]);
}

#[tokio::test]
async fn a_thousand_may_refer_to_one_and_no_more() {
    let world = World::new().await;
    let author = create(&world, AUTHORS, &json!({ "name": "Ada" })).await;
    let books = world.esl.entities("book").expect("a kind");
    let book = json!({ "title": "Notes", "author_id": author["id"] });
    for _ in 0..1000 {
        books.create(world.organization, book.clone()).await.expect("there is room");
    }
    let refused = world.post(BOOKS).json(&book).send().await;
    assert_eq!(code(&refused, StatusCode::CONFLICT), "conflict");
    assert!(refused.body["detail"].as_str().expect("a text").contains("1000"), "{}", refused.text);
}

#[tokio::test]
async fn what_is_more_than_an_hour_may_have_is_not_written() {
    let world = World::new().await;
    let mut plan = Plan::new(Tier::Free);
    plan.events_per_hour = Some(Limit::AtMost(1));
    world.esl.set_plan(world.organization, Some(plan)).await.expect("it exists");
    let made = create(&world, AUTHORS, &json!({ "name": "Ada" })).await;
    let path = path_of(AUTHORS, &made);
    let body = json!({ "name": "Bob" });
    for call in [
        world.post(AUTHORS).json(&body),
        world.call(Method::PUT, &path).json(&body),
        world.call(Method::PATCH, &path).json(&body),
        world.call(Method::DELETE, &path),
    ] {
        let refused = call.send().await;
        assert_eq!(code(&refused, StatusCode::TOO_MANY_REQUESTS), "rate_limited");
        assert_eq!(refused.header("retry-after"), Some("1680"));
        assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    }
    assert_eq!(world.get(&path).send().await.body, made);
    assert_eq!(world.get(AUTHORS).send().await.body["data"].as_array().map(Vec::len), Some(1));
    // What publishes nothing is not refused.
    let same = world.call(Method::PATCH, &path).json(&json!({ "name": "Ada" })).send().await;
    assert_eq!(same.status, StatusCode::OK, "{}", same.text);
}

#[tokio::test]
async fn what_no_hour_has_room_for_says_so_and_is_done_in_smaller_steps() {
    let world = World::new().await;
    let author = create(&world, AUTHORS, &json!({ "name": "Ada" })).await;
    let path = path_of(AUTHORS, &author);
    let mut books = Vec::new();
    for _ in 0..4 {
        let book = json!({ "title": "Notes", "author_id": author["id"] });
        books.push(path_of(BOOKS, &create(&world, BOOKS, &book).await));
    }
    let mut plan = Plan::new(Tier::Free);
    plan.events_per_hour = Some(Limit::AtMost(4));
    world.esl.set_plan(world.organization, Some(plan)).await.expect("it exists");
    world.clock.advance(Duration::from_secs(28 * 60));
    let refused = world.call(Method::DELETE, &path).send().await;
    assert_eq!(code(&refused, StatusCode::TOO_MANY_REQUESTS), "rate_limited");
    let detail = "these are 5 events, and the organization may publish 4 in an hour: no hour has \
                  room for them at once";
    assert_eq!(refused.body["detail"], detail);

    for book in &books[..2] {
        let detached = world.call(Method::PATCH, book).json(&json!({ "author_id": null }));
        assert_eq!(detached.send().await.status, StatusCode::OK);
    }
    let refused = world.call(Method::DELETE, &path).send().await;
    assert_eq!(code(&refused, StatusCode::TOO_MANY_REQUESTS), "rate_limited");
    let detail = refused.body["detail"].as_str().expect("a text");
    assert!(detail.contains("has 2 left until"), "{detail}");
    world.clock.advance(Duration::from_secs(60 * 60));
    let token = world.token_for("acme-client", world.organization, "entities:write").await;
    let deleted = world.call(Method::DELETE, &path).token(&token).send().await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT, "{}", deleted.text);
}

#[tokio::test]
async fn while_the_event_system_is_off_entities_are_written_and_nothing_is_published() {
    let world = World::new().await;
    let esl = Esl::builder(world.storage.clone())
        .clock(Arc::new(world.clock.clone()))
        .kinds(kinds())
        .enabled(false)
        .build()
        .await
        .expect("an engine");
    let off = World { router: api::router(esl.clone(), ApiConfig::default()), esl, ..world };
    let made = create(&off, AUTHORS, &json!({ "name": "Ada" })).await;
    let path = path_of(AUTHORS, &made);
    let put = off.call(Method::PUT, &path).json(&json!({ "name": "Bob" })).send().await;
    let patched = off.call(Method::PATCH, &path).json(&json!({ "born": 1 })).send().await;
    assert_eq!((put.status, patched.status), (StatusCode::OK, StatusCode::OK));
    assert_eq!(off.get(&path).send().await.body, patched.body);
    assert_eq!(off.get(AUTHORS).send().await.body["data"], json!([patched.body]));
    assert_eq!(off.call(Method::DELETE, &path).send().await.status, StatusCode::NO_CONTENT);
    assert!(events(&off).await.is_empty());
}
