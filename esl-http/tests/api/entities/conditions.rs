//! `If-Match` and `If-None-Match`.

use axum::http::{Method, StatusCode};
use serde_json::json;

use super::{AUTHORS, CARDS, code, create, path_of, put};
use crate::world::World;

#[tokio::test]
async fn what_is_known_already_is_not_sent_again() {
    let world = World::new().await;
    let path = path_of(AUTHORS, &create(&world, AUTHORS, &json!({ "name": "Ada" })).await);
    let read = world.get(&path).send().await;
    let etag = read.header("etag").expect("a tag");
    for tags in [etag, "*", &format!("\"a\", {etag}"), &format!("W/{etag}")] {
        for method in [Method::GET, Method::HEAD] {
            let reply = world.call(method, &path).header("if-none-match", tags).send().await;
            assert_eq!((reply.status, &*reply.text), (StatusCode::NOT_MODIFIED, ""), "{tags}");
            assert_eq!(reply.header("etag"), Some(etag));
        }
    }
    let other = world.get(&path).header("if-none-match", "\"a\"").send().await;
    assert_eq!((other.status, &other.text), (StatusCode::OK, &read.text));
    let stale = world.get(&path).header("if-match", "\"a\"").send().await;
    assert_eq!(code(&stale, StatusCode::PRECONDITION_FAILED), "precondition_failed");
    let ranged = world.get(&path).header("range", "bytes=0-1").send().await;
    assert_eq!((ranged.status, &ranged.text), (StatusCode::OK, &read.text), "it has no parts");
}

#[tokio::test]
async fn a_write_goes_by_the_version_that_was_read() {
    let world = World::new().await;
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        let path = path_of(AUTHORS, &create(&world, AUTHORS, &json!({ "name": "Ada" })).await);
        let read = world.get(&path).send().await;
        let etag = read.header("etag").expect("a tag");
        let call = |name, tags: &str| {
            let call = world.call(method.clone(), &path).json(&json!({ "name": "Bob" }));
            call.header(name, tags)
        };
        for (name, tags) in [
            ("if-match", "\"a\""),
            ("if-match", "nonsense"),
            ("if-match", &*format!("W/{etag}")),
            ("if-none-match", "*"),
            ("if-none-match", etag),
        ] {
            let refused = call(name, tags).send().await;
            let code = code(&refused, StatusCode::PRECONDITION_FAILED);
            assert_eq!(code, "precondition_failed", "{method} {name}: {tags}");
        }
        assert_eq!(world.get(&path).send().await.text, read.text);
        let done = call("if-match", etag).send().await;
        assert!(done.status.is_success(), "{method}: {}", done.text);
        if method != Method::DELETE {
            let stale = call("if-match", etag).send().await;
            assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED, "{method}");
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_no_version() {
    let world = World::new().await;
    for (path, tags) in [
        (format!("{AUTHORS}/author_01HM6QTXJ0CZ5Q3S0VZJY5T8N7"), "*"),
        (format!("{AUTHORS}/author_01HM6QTXJ0CZ5Q3S0VZJY5T8N7"), "\"a\""),
        (format!("{CARDS}/card-1"), "*"),
    ] {
        for method in [Method::PUT, Method::PATCH, Method::DELETE] {
            let call = world.call(method.clone(), &path).json(&json!({ "holder": "Ada" }));
            let refused = call.header("if-match", tags).send().await;
            let code = code(&refused, StatusCode::PRECONDITION_FAILED);
            assert_eq!(code, "precondition_failed", "{method} {path}");
        }
        let read = world.get(&path).header("if-match", tags).send().await;
        assert_eq!(read.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn if_none_match_makes_and_never_replaces() {
    let world = World::new().await;
    let path = format!("{CARDS}/card-1");
    let call = |holder| {
        let call = world.call(Method::PUT, &path).json(&json!({ "holder": holder }));
        call.header("if-none-match", "*")
    };
    assert_eq!(call("Ada").send().await.status, StatusCode::CREATED);
    assert_eq!(call("Bob").send().await.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(world.get(&path).send().await.body["holder"], "Ada");
}

#[tokio::test]
async fn of_many_who_have_read_the_same_version_one_writes() {
    let world = World::new().await;
    let path = path_of(AUTHORS, &create(&world, AUTHORS, &json!({ "name": "Ada" })).await);
    let card = format!("{CARDS}/card-1");
    put(&world, &card, &json!({ "holder": "Ada" })).await;
    for (path, member) in [(&path, "name"), (&card, "holder")] {
        let read = world.get(path).send().await;
        let etag = read.header("etag").expect("a tag");
        for method in [Method::PUT, Method::PATCH] {
            let writes = (0..8).map(|number| {
                let body = json!({ member: format!("{method} {number}") });
                world.call(method.clone(), path).json(&body).header("if-match", etag).send()
            });
            let replies = futures_util::future::join_all(writes).await;
            let count = |status| replies.iter().filter(|reply| reply.status == status).count();
            let (done, failed) = (count(StatusCode::OK), count(StatusCode::PRECONDITION_FAILED));
            // All of the second method come too late.
            let expected = if method == Method::PUT { (1, 7) } else { (0, 8) };
            assert_eq!((done, failed), expected, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn of_many_who_make_one_id_one_does() {
    let world = World::new().await;
    let path = format!("{CARDS}/card-1");
    let writes = (0..8).map(|number| {
        let call = world.call(Method::PUT, &path).json(&json!({ "holder": number.to_string() }));
        call.header("if-none-match", "*").send()
    });
    let replies = futures_util::future::join_all(writes).await;
    let made = replies.iter().filter(|reply| reply.status == StatusCode::CREATED);
    assert_eq!(made.count(), 1);
}
