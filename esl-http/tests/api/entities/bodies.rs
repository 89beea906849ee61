//! What a body of an entity may be.

use axum::http::{Method, StatusCode};
use esl_core::{DOCUMENT_BYTES_MAX, MemoryBlobStore};
use esl_http::api::ApiConfig;
use serde_json::json;

use super::{AUTHORS, BOOKS, code, create, events, path_of};
use crate::{
    blobs,
    faulty::Mode,
    world::{Reply, World},
};

async fn post(world: &World, body: &str) -> Reply {
    world.post(BOOKS).raw_json(body).send().await
}

#[tokio::test]
async fn everything_that_is_wrong_is_named_by_its_place() {
    let world = World::new().await;
    for (body, places) in [
        (r#"{}"#, &["/title"][..]),
        (
            r#"{"title":7,"author_id":7,"colour":"red","a/b~":1}"#,
            &["/title", "/author_id", "/colour", "/a~1b~0"],
        ),
        (r#"{"title":""}"#, &["/title"]),
        (r#"{"title":"a","title":"b"}"#, &["/title"]),
        (r#"{"title":"a","details":[{"b":1,"\u0062":2}]}"#, &["/details/0/b"]),
        (r#"{"title":"\ud800"}"#, &["/title"]),
        (r#"{"title":"a","details":{"\ud800":1}}"#, &["/details"]),
        (r#"{"title":"a","details":1e999}"#, &["/details"]),
        // Which the parser of what is stored would take for something else.
        (
            r#"{"title":"a","details":{"$serde_json::private::RawValue":"1"}}"#,
            &["/details/$serde_json::private::RawValue"],
        ),
        (
            r#"{"title":"a","details":[18446744073709551617,{"x":0.12345678901234567890}]}"#,
            &["/details/0", "/details/1/x"],
        ),
        ("[]", &[""]),
        ("1", &[""]),
        ("null", &[""]),
    ] {
        let mut found = post(&world, body).await.places();
        let mut places = places.to_vec();
        found.sort();
        places.sort_unstable();
        assert_eq!(found, places, "{body}");
    }
    let added = json!({ "title": "a", "id": "book_1", "created_at": 1, "updated_at": null });
    let refused = world.post(BOOKS).json(&added).send().await;
    assert_eq!(refused.places(), ["/id", "/created_at", "/updated_at"]);
    assert!(events(&world).await.is_empty());
}

#[tokio::test]
async fn what_is_no_json_is_malformed() {
    let world = World::new().await;
    let deep = format!(r#"{{"title":"a","details":{}1{}}}"#, "[".repeat(101), "]".repeat(101));
    let path = path_of(BOOKS, &create(&world, BOOKS, &json!({ "title": "a" })).await);
    for body in
        ["", " ", "{", r#"{"title":}"#, r#"{"title":"a"} x"#, "{\"title\":\"\u{1}\"}", &deep]
    {
        for (method, path) in [(Method::POST, BOOKS), (Method::PUT, &path), (Method::PATCH, &path)]
        {
            let reply = world.call(method, path).raw_json(body).send().await;
            assert_eq!(code(&reply, StatusCode::BAD_REQUEST), "malformed", "{body}");
        }
    }
}

#[tokio::test]
async fn what_json_can_say_is_kept_as_it_is() {
    let world = World::new().await;
    let deep = format!("{}1{}", "[".repeat(99), "]".repeat(99));
    for details in [
        r#"{"z":1,"a":[1.5,-0.0,1e-7,18446744073709551615,-9223372036854775808],"":{"":null}}"#,
        r#"{"__proto__":{"a":1},"$serde_json::private::Number":"1"}"#,
        r#"[0.1,2.638344616030823e-256,1.7976931348623157e+308,5e-324,9007199254740993]"#,
        "\"\u{feff}\u{202e}\u{2028}\u{10ffff}</script>\"",
        r#""\u0000\u001f""#,
        "[]",
        "null",
        &deep,
    ] {
        let made = post(&world, &format!(r#"{{"title":"a","details":{details}}}"#)).await;
        assert_eq!(made.status, StatusCode::CREATED, "{details}: {}", made.text);
        assert!(made.text.contains(&format!(r#""details":{details}"#)), "{}", made.text);
        let read = world.get(&path_of(BOOKS, &made.body)).send().await;
        assert_eq!(read.text, made.text);
        assert_eq!(read.header("etag"), made.header("etag"));
    }
}

#[tokio::test]
async fn an_entity_has_at_most_a_mebibyte_however_it_grows() {
    // Its events go by reference.
    let world = blobs::world_with(MemoryBlobStore::new(), ApiConfig::default()).await;
    let framing = r#"{"title":"","author_id":null,"is_lent":false}"#.len();
    let largest = json!({
        "title": "x".repeat(DOCUMENT_BYTES_MAX - framing), "author_id": null, "is_lent": false,
    });
    let made = create(&world, BOOKS, &largest).await;
    let path = path_of(BOOKS, &made);
    assert_eq!(world.get(&path).send().await.body, made);
    let mut more = largest.clone();
    more["is_lent"] = true.into();
    let smaller = world.call(Method::PUT, &path).json(&more).send().await;
    assert_eq!(smaller.status, StatusCode::OK, "{}", smaller.text);
    more["details"] = 1.into();
    let refused = world.post(BOOKS).json(&more).send().await;
    assert_eq!(code(&refused, StatusCode::PAYLOAD_TOO_LARGE), "too_large");
    assert_eq!(refused.body["detail"], "a body here has at most 1048576 bytes");

    let merge = json!({ "details": "x" });
    let refused = world.call(Method::PATCH, &path).json(&merge).send().await;
    assert_eq!(code(&refused, StatusCode::PAYLOAD_TOO_LARGE), "too_large");
    let detail = refused.body["detail"].as_str().expect("a text");
    assert!(detail.starts_with("the document would have 10485"), "{detail}");
    // What counts is what comes of it.
    let operations = json!([
        { "op": "add", "path": "/details", "value": "x".repeat(500_000) },
        { "op": "replace", "path": "/title", "value": "a" },
    ]);
    let call = world.call(Method::PATCH, &path);
    let call = call.header("content-type", "application/json-patch+json");
    let done = call.body(operations.to_string()).send().await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.body["detail"]);
}

#[tokio::test]
async fn an_entity_is_replaced_by_what_was_read_however_much_others_put_into_it() {
    let world = blobs::world_with(MemoryBlobStore::new(), ApiConfig::default()).await;
    let author = create(&world, AUTHORS, &json!({ "name": "Ada" })).await;
    let title = "x".repeat(60_000);
    for _ in 0..40 {
        create(&world, BOOKS, &json!({ "title": title, "author_id": author["id"] })).await;
    }
    let path = path_of(AUTHORS, &author);
    let mut read = world.get(&path).send().await;
    assert!(read.text.len() > 2 * DOCUMENT_BYTES_MAX);
    read.body["name"] = "Ada L.".into();
    let replaced = world.call(Method::PUT, &path).json(&read.body).send().await;
    assert_eq!(replaced.status, StatusCode::OK, "{}", replaced.body["detail"]);
    assert_eq!(replaced.body["name"], "Ada L.");

    // Its own part is bounded as ever.
    for (bytes, expected) in [
        (DOCUMENT_BYTES_MAX, "the document would have 10485"),
        (4 * DOCUMENT_BYTES_MAX, "a body here has at most 4194304 bytes"),
    ] {
        let body = json!({ "name": "x".repeat(bytes) });
        let refused = world.call(Method::PUT, &path).json(&body).send().await;
        assert_eq!(code(&refused, StatusCode::PAYLOAD_TOO_LARGE), "too_large");
        let detail = refused.body["detail"].as_str().expect("a text");
        assert!(detail.starts_with(expected), "{detail}");
    }
}

#[tokio::test]
async fn a_body_is_json_and_says_so() {
    let world = World::new().await;
    let path = path_of(AUTHORS, &create(&world, AUTHORS, &json!({ "name": "Ada" })).await);
    for media_type in [
        "",
        "text/plain",
        "application/jso",
        "application/json; charset=latin1",
        "application/merge-patch",
    ] {
        for (method, path) in
            [(Method::POST, AUTHORS), (Method::PUT, &*path), (Method::PATCH, &path)]
        {
            let call = world.call(method.clone(), path).header("content-type", media_type);
            let reply = call.body(r#"{"name":"Bob"}"#).send().await;
            let code = code(&reply, StatusCode::UNSUPPORTED_MEDIA_TYPE);
            assert_eq!(code, "unsupported_media_type", "{method} {media_type}");
            let accepted =
                "application/merge-patch+json, application/json-patch+json, application/json";
            let expected = (method == Method::PATCH).then_some(accepted);
            assert_eq!(reply.header("accept-patch"), expected);
        }
    }
    for method in [Method::POST, Method::PUT] {
        let path = if method == Method::POST { AUTHORS } else { &path };
        let call = world.call(method, path).header("content-type", "application/merge-patch+json");
        let reply = call.body(r#"{"name":"Bob"}"#).send().await;
        assert_eq!(reply.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    assert_eq!(world.get(&path).send().await.body["name"], "Ada");
}

#[tokio::test]
async fn parameters_that_there_are_not_are_named() {
    let world = World::new().await;
    let path = path_of(AUTHORS, &create(&world, AUTHORS, &json!({ "name": "Ada" })).await);
    for (method, path) in [
        (Method::POST, AUTHORS),
        (Method::GET, &*path),
        (Method::PUT, &path),
        (Method::PATCH, &path),
        (Method::DELETE, &path),
    ] {
        let call = world.call(method, &format!("{path}?force=1"));
        assert_eq!(call.json(&json!({ "name": "Bob" })).send().await.places(), ["parameter force"]);
    }
}

#[tokio::test]
async fn storage_that_fails_is_unavailable_and_says_no_more() {
    use esl_core::storage::StorageErrorKind::{Busy, Corrupt, Unavailable};
    let world = World::new().await;
    let path = path_of(AUTHORS, &create(&world, AUTHORS, &json!({ "name": "Ada" })).await);
    // So that the token is known.
    assert_eq!(world.get(&path).send().await.status, StatusCode::OK);
    for (kind, status, retry_after) in [
        (Busy, StatusCode::SERVICE_UNAVAILABLE, Some("1")),
        (Unavailable, StatusCode::SERVICE_UNAVAILABLE, Some("5")),
        (Corrupt, StatusCode::INTERNAL_SERVER_ERROR, None),
    ] {
        world.fault.set(Mode::Fail(kind));
        for (method, path) in [
            (Method::GET, AUTHORS),
            (Method::GET, &*path),
            (Method::PUT, &path),
            (Method::PATCH, &path),
            (Method::DELETE, &path),
        ] {
            let reply = world.call(method, path).json(&json!({ "name": "Bob" })).send().await;
            assert_eq!(reply.status, status, "{}", reply.text);
            assert_eq!(reply.header("retry-after"), retry_after);
            assert!(!reply.text.contains("the-operators-secret-detail"), "{}", reply.text);
        }
        world.fault.set(Mode::None);
    }
    assert_eq!(world.get(&path).send().await.body["name"], "Ada");
}
