//! Lists of entities: order, filters, pages.

use axum::http::StatusCode;
use esl_core::MemoryBlobStore;
use esl_http::api::ApiConfig;
use serde_json::{Value, json};

use super::{AUTHORS, BOOKS, CARDS, create, path_of, put};
use crate::{blobs, world::World};

/// All pages of a list, their items in order.
async fn all(world: &World, uri: &str, limit: usize) -> Vec<Value> {
    let join = if uri.contains('?') { '&' } else { '?' };
    let mut items = Vec::new();
    let mut next = format!("{uri}{join}limit={limit}");
    loop {
        let page = world.get(&next).send().await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text);
        let data = page.body["data"].as_array().expect("a list");
        assert!(data.len() <= limit, "{}", page.text);
        items.extend(data.iter().cloned());
        let Some(cursor) = page.body["next_cursor"].as_str() else { return items };
        next = format!("{uri}{join}limit={limit}&cursor={cursor}");
    }
}

fn names(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["name"].as_str().expect("a name")).collect()
}

async fn authors(world: &World) {
    for (name, born) in [
        ("Mary", json!(1797)),
        ("Ada", json!(1815)),
        ("Sappho", json!(-630)),
        ("Homer", json!(null)),
        ("Ada", json!(2)),
    ] {
        create(world, AUTHORS, &json!({ "name": name, "born": born })).await;
        world.clock.advance(std::time::Duration::from_secs(1));
    }
}

#[tokio::test]
async fn a_list_comes_in_any_order_on_pages_of_any_size() {
    let world = World::new().await;
    authors(&world).await;
    for limit in [1, 2, 3, 100] {
        for (sort, expected) in [
            ("", ["Mary", "Ada", "Sappho", "Homer", "Ada"]),
            ("?sort=id", ["Mary", "Ada", "Sappho", "Homer", "Ada"]),
            ("?sort=-id", ["Ada", "Homer", "Sappho", "Ada", "Mary"]),
            ("?sort=created_at", ["Mary", "Ada", "Sappho", "Homer", "Ada"]),
            ("?sort=-updated_at", ["Ada", "Homer", "Sappho", "Ada", "Mary"]),
            ("?sort=name", ["Ada", "Ada", "Homer", "Mary", "Sappho"]),
            ("?sort=-name", ["Sappho", "Mary", "Homer", "Ada", "Ada"]),
            ("?sort=born", ["Homer", "Sappho", "Ada", "Mary", "Ada"]),
            ("?sort=-born", ["Ada", "Mary", "Ada", "Sappho", "Homer"]),
        ] {
            let items = all(&world, &format!("{AUTHORS}{sort}"), limit).await;
            assert_eq!(names(&items), expected, "{sort} by {limit}");
        }
    }
    let items = all(&world, AUTHORS, 100).await;
    let one = world.get(&path_of(AUTHORS, &items[0])).send().await;
    assert_eq!(items[0], one.body, "an item is what is read alone");
}

#[tokio::test]
async fn a_list_is_filtered_by_what_its_kind_says() {
    let world = World::new().await;
    authors(&world).await;
    for (filters, expected) in [
        ("name=Ada", &["Ada", "Ada"][..]),
        ("name=Ada&born=2", &["Ada"]),
        ("born=-630", &["Sappho"]),
        ("born=", &["Homer"]),
        ("name=Nobody", &[]),
        ("name=", &[]),
        ("name=Ada&sort=-id", &["Ada", "Ada"]),
    ] {
        for limit in [1, 100] {
            let items = all(&world, &format!("{AUTHORS}?{filters}"), limit).await;
            assert_eq!(names(&items), expected, "{filters}");
        }
    }
    let author = all(&world, &format!("{AUTHORS}?name=Mary"), 1).await;
    let book =
        json!({ "title": "Frankenstein, &c.", "author_id": author[0]["id"], "is_lent": true });
    let book = create(&world, BOOKS, &book).await;
    create(&world, BOOKS, &json!({ "title": "Other" })).await;
    let of_author = format!("author_id={}", author[0]["id"].as_str().expect("an id"));
    for filter in [&*of_author, "is_lent=true", "title=Frankenstein%2C+%26c."] {
        assert_eq!(
            all(&world, &format!("{BOOKS}?{filter}"), 9).await,
            std::slice::from_ref(&book),
            "{filter}"
        );
    }
}

#[tokio::test]
async fn what_a_list_does_not_know_is_a_fault() {
    let world = World::new().await;
    authors(&world).await;
    let page = world.get(&format!("{AUTHORS}?limit=1&sort=name")).send().await;
    let cursor = page.body["next_cursor"].as_str().expect("there are more");
    let clients = world.get("/api/v1/clients?limit=1").send().await;
    let of_clients = clients.body["next_cursor"].as_str().unwrap_or("Y2E");
    for (query, place) in [
        ("colour=red", "colour"),
        ("name=a&name=b", "name"),
        ("born=soon", "born"),
        ("sort=colour", "sort"),
        ("sort=--name", "sort"),
        ("sort=", "sort"),
        ("sort=name&sort=id", "sort"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("books=1", "books"),
        ("id=author_1", "id"),
        ("cursor=nonsense", "cursor"),
        (&*format!("cursor={of_clients}"), "cursor"),
        (&*format!("cursor={cursor}"), "cursor"),
        (&*format!("cursor={cursor}&sort=-name"), "cursor"),
        (&*format!("cursor={cursor}&sort=born"), "cursor"),
    ] {
        let reply = world.get(&format!("{AUTHORS}?{query}")).send().await;
        assert_eq!(reply.places(), [format!("parameter {place}")], "{query}");
    }
    let elsewhere = world.get(&format!("{BOOKS}?sort=title&cursor={cursor}")).send().await;
    assert_eq!(elsewhere.places(), ["parameter cursor"]);
    let wrong = world.get(&format!("{AUTHORS}?sort=colour")).send().await;
    let expected =
        "expected one of these, or one with - before it: id, created_at, updated_at, name, born";
    assert_eq!(wrong.faults(), [("parameter sort".into(), expected.into())]);
    let chosen = world.get(&format!("{CARDS}?sort=created_at")).send().await;
    assert_eq!(chosen.places(), ["parameter sort"], "ids that are chosen are in no order of time");
}

#[tokio::test]
async fn a_cursor_stays_where_it_is_while_others_write() {
    let world = World::new().await;
    for id in ["b", "d", "f"] {
        put(&world, &format!("{CARDS}/{id}"), &json!({ "holder": "Ada" })).await;
    }
    let page = world.get(&format!("{CARDS}?limit=2")).send().await;
    let cursor = page.body["next_cursor"].as_str().expect("there are more");
    world.call(http::Method::DELETE, &format!("{CARDS}/d")).send().await;
    for id in ["a", "e"] {
        put(&world, &format!("{CARDS}/{id}"), &json!({ "holder": "Ada" })).await;
    }
    let rest = world.get(&format!("{CARDS}?cursor={cursor}")).send().await;
    let ids: Vec<_> =
        rest.body["data"].as_array().expect("a list").iter().map(|item| &item["id"]).collect();
    assert_eq!(ids, ["e", "f"]);
    assert_eq!(rest.body["next_cursor"], Value::Null);
}

#[tokio::test]
async fn a_page_of_large_entities_ends_early() {
    // Their events go by reference.
    let world = blobs::world_with(MemoryBlobStore::new(), ApiConfig::default()).await;
    let books = world.esl.entities("book").expect("a kind");
    for number in 0..30 {
        let book = json!({ "title": number.to_string(), "details": "x".repeat(300_000) });
        books.create(world.organization, book).await.expect("there is room");
        world.clock.advance(std::time::Duration::from_millis(1));
    }
    let page = world.get(&format!("{BOOKS}?limit=100")).send().await;
    assert!(page.body["data"].as_array().is_some_and(|data| data.len() < 30));
    assert!(page.body["next_cursor"].is_string());
    let titles: Vec<_> =
        all(&world, BOOKS, 100).await.iter().map(|book| book["title"].clone()).collect();
    assert_eq!(titles, (0..30).map(|number| number.to_string()).collect::<Vec<_>>());
}
