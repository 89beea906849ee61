//! `PATCH`, by merging and by operations.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{AUTHORS, BOOKS, code, create, events, path_of};
use crate::world::{Reply, World};

const MERGE: &str = "application/merge-patch+json";
const OPERATIONS: &str = "application/json-patch+json";

/// A book with these details, and the path to it.
async fn a_book(world: &World, details: &Value) -> String {
    path_of(BOOKS, &create(world, BOOKS, &json!({ "title": "Notes", "details": details })).await)
}

async fn patch(world: &World, path: &str, media_type: &str, patch: &Value) -> Reply {
    let call = world.call(Method::PATCH, path).header("content-type", media_type);
    call.body(patch.to_string()).send().await
}

#[tokio::test]
async fn a_merge_patch_does_as_its_rfc_shows() {
    let world = World::new().await;
    // RFC 7396, appendix A, but for what it says of a whole document.
    for (original, by, expected) in [
        (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
        (json!({"a":"b"}), json!({"a":null}), json!({})),
        (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
        (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
        (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
        (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
        (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
        (json!({"a":"b"}), json!(["c"]), json!(["c"])),
        (json!({"a":"foo"}), json!("bar"), json!("bar")),
        (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
        (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
        (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
    ] {
        for media_type in [MERGE, "application/json"] {
            let path = a_book(&world, &original).await;
            let done = patch(&world, &path, media_type, &json!({ "details": by })).await;
            assert_eq!(done.status, StatusCode::OK, "{}", done.text);
            assert_eq!(done.body["details"], expected, "{original} by {by}");
            let read = world.get(&path).send().await;
            assert_eq!((&read.text, read.header("etag")), (&done.text, done.header("etag")));
        }
    }
    let path = a_book(&world, &json!(1)).await;
    let done = patch(&world, &path, MERGE, &json!({ "details": null })).await;
    assert_eq!(done.body.get("details"), None);
    for whole in [json!([]), json!("a"), json!(null)] {
        assert_eq!(patch(&world, &path, MERGE, &whole).await.places(), [""]);
    }
}

#[tokio::test]
async fn a_json_patch_does_as_its_rfc_shows() {
    let world = World::new().await;
    // RFC 6902, appendix A.
    for (original, operations, expected) in [
        (
            json!({"foo":"bar"}),
            json!([{"op":"add","path":"/details/baz","value":"qux"}]),
            json!({"baz":"qux","foo":"bar"}),
        ),
        (
            json!({"foo":["bar","baz"]}),
            json!([{"op":"add","path":"/details/foo/1","value":"qux"}]),
            json!({"foo":["bar","qux","baz"]}),
        ),
        (
            json!({"baz":"qux","foo":"bar"}),
            json!([{"op":"remove","path":"/details/baz"}]),
            json!({"foo":"bar"}),
        ),
        (
            json!({"foo":["bar","qux","baz"]}),
            json!([{"op":"remove","path":"/details/foo/1"}]),
            json!({"foo":["bar","baz"]}),
        ),
        (
            json!({"baz":"qux","foo":"bar"}),
            json!([{"op":"replace","path":"/details/baz","value":"boo"}]),
            json!({"baz":"boo","foo":"bar"}),
        ),
        (
            json!({"foo":{"bar":"baz","waldo":"fred"},"qux":{"corge":"grault"}}),
            json!([{"op":"move","from":"/details/foo/waldo","path":"/details/qux/thud"}]),
            json!({"foo":{"bar":"baz"},"qux":{"corge":"grault","thud":"fred"}}),
        ),
        (
            json!({"foo":["all","grass","cows","eat"]}),
            json!([{"op":"move","from":"/details/foo/1","path":"/details/foo/3"}]),
            json!({"foo":["all","cows","eat","grass"]}),
        ),
        (
            json!({"baz":"qux","foo":["a",2,"c"]}),
            json!([
                {"op":"test","path":"/details/baz","value":"qux"},
                {"op":"test","path":"/details/foo/1","value":2},
            ]),
            json!({"baz":"qux","foo":["a",2,"c"]}),
        ),
        (
            json!({"foo":"bar"}),
            json!([{"op":"add","path":"/details/child","value":{"grandchild":{}}}]),
            json!({"foo":"bar","child":{"grandchild":{}}}),
        ),
        (
            json!({"foo":"bar"}),
            json!([{"op":"add","path":"/details/baz","value":"qux","xyz":123}]),
            json!({"foo":"bar","baz":"qux"}),
        ),
        (
            json!({"/":9,"~1":10}),
            json!([{"op":"test","path":"/details/~01","value":10}]),
            json!({"/":9,"~1":10}),
        ),
        (
            json!({"foo":["bar"]}),
            json!([{"op":"add","path":"/details/foo/-","value":["abc","def"]}]),
            json!({"foo":["bar",["abc","def"]]}),
        ),
        (
            json!({"a":1,"ab":{}}),
            json!([
                {"op":"copy","from":"/details/a","path":"/details/ab/c"},
                {"op":"move","from":"/details/a","path":"/details/ab/d"},
            ]),
            json!({"ab":{"c":1,"d":1}}),
        ),
        // Numbers are equal by their value, objects in any order.
        (
            json!({"a":1,"b":{"c":[2.0],"d":1}}),
            json!([
                {"op":"test","path":"/details/a","value":1.0},
                {"op":"test","path":"/details/b","value":{"d":1e0,"c":[2]}},
            ]),
            json!({"a":1,"b":{"c":[2.0],"d":1}}),
        ),
    ] {
        let path = a_book(&world, &original).await;
        let done = patch(&world, &path, OPERATIONS, &operations).await;
        assert_eq!(done.status, StatusCode::OK, "{operations}: {}", done.text);
        assert_eq!(done.body["details"], expected, "{operations}");
        assert_eq!(world.get(&path).send().await.text, done.text);
    }
}

#[tokio::test]
async fn a_patch_that_does_not_go_with_what_is_there_changes_nothing() {
    let world = World::new().await;
    let path = a_book(&world, &json!({ "a": [1], "b": "x" })).await;
    let before = world.get(&path).send().await.text;
    let change = json!({ "op": "replace", "path": "/title", "value": "Other" });
    for (operation, place) in [
        (json!({"op":"test","path":"/details/b","value":"y"}), "/1/value"),
        (json!({"op":"test","path":"/details/a","value":[1, 2]}), "/1/value"),
        (json!({"op":"test","path":"/details/a/0","value":"1"}), "/1/value"),
        (json!({"op":"test","path":"/nothing","value":null}), "/1/path"),
        (json!({"op":"add","path":"/details/c/d","value":1}), "/1/path"),
        (json!({"op":"add","path":"/details/a/3","value":1}), "/1/path"),
        (json!({"op":"add","path":"/details/a/01","value":1}), "/1/path"),
        (json!({"op":"add","path":"/details/b/c","value":1}), "/1/path"),
        (json!({"op":"remove","path":"/details/c"}), "/1/path"),
        (json!({"op":"remove","path":"/details/a/-"}), "/1/path"),
        (json!({"op":"remove","path":""}), "/1/path"),
        (json!({"op":"replace","path":"/details/c","value":1}), "/1/path"),
        (json!({"op":"move","from":"/details/c","path":"/details/d"}), "/1/from"),
        (json!({"op":"copy","from":"/details/a/1","path":"/details/d"}), "/1/from"),
    ] {
        let refused = patch(&world, &path, OPERATIONS, &json!([change, operation])).await;
        assert_eq!(code(&refused, StatusCode::CONFLICT), "conflict", "{operation}");
        assert_eq!(refused.body["errors"][0]["pointer"], place, "{operation}");
    }
    assert_eq!(world.get(&path).send().await.text, before);
    assert_eq!(events(&world).await.len(), 1);
}

#[tokio::test]
async fn what_is_no_patch_or_leaves_no_entity_is_refused_by_its_place() {
    let world = World::new().await;
    let path = a_book(&world, &json!({ "a": {} })).await;
    for (operations, places) in [
        (json!({}), &[""][..]),
        (json!("a"), &[""]),
        (json!([{}]), &["/0"]),
        (json!([{"op":"add","path":"/title"}, {"op":"spam","path":"/a"}, 1]), &["/0", "/1", "/2"]),
        (json!([{"op":"add","path":"title","value":1}]), &["/0"]),
        (json!([{"op":"add","path":"/~2","value":1}]), &["/0"]),
        (json!([{"op":"move","path":"/title"}]), &["/0"]),
        (json!([{"op":"move","from":"/details","path":"/details/a/b"}]), &["/0/path"]),
        (json!([{"op":"replace","path":"","value":[]}]), &[""]),
        (json!([{"op":"replace","path":"","value":{}}]), &["/title"]),
        (json!([{"op":"remove","path":"/title"}]), &["/title"]),
        (json!([{"op":"replace","path":"/title","value":7}]), &["/title"]),
        (json!([{"op":"replace","path":"/id","value":"book_1"}]), &["/id"]),
        (json!([{"op":"add","path":"/colour","value":"red"}]), &["/colour"]),
        (json!(vec![json!({"op":"test","path":"/title","value":"Notes"}); 1001]), &[""]),
    ] {
        let refused = patch(&world, &path, OPERATIONS, &operations).await;
        assert_eq!(refused.places(), places, "{operations}");
    }
    assert_eq!(
        patch(&world, &path, MERGE, &json!({ "id": "x", "title": 7 })).await.places(),
        ["/id", "/title"]
    );
    assert_eq!(patch(&world, &path, MERGE, &json!({ "title": null })).await.places(), ["/title"]);
    assert_eq!(events(&world).await.len(), 1);
}

#[tokio::test]
async fn a_small_patch_makes_nothing_huge_or_deep() {
    let world = World::new().await;
    let path = a_book(&world, &json!({ "a": ["0123456789"] })).await;
    let doubling = json!({"op":"copy","from":"/details/a","path":"/details/a/-"});
    let refused = patch(&world, &path, OPERATIONS, &json!(vec![doubling; 40])).await;
    let (place, detail) = &refused.faults()[0];
    assert!(place.ends_with("/from"), "{}", refused.text);
    assert_eq!(detail, "the copies of a patch have at most 1 MiB altogether");

    let nested = (0..60).fold(json!(1), |inner, _| json!({ "a": inner }));
    let deeper = "/a".repeat(59);
    for operations in [
        json!([
            {"op":"add","path":"/details","value":nested},
            {"op":"add","path":format!("/details{deeper}"),"value":nested},
        ]),
        json!([
            {"op":"add","path":"/details","value":nested},
            {"op":"copy","from":"/details","path":format!("/details{deeper}")},
        ]),
        json!([
            {"op":"add","path":"/details","value":nested},
            {"op":"add","path":"/other","value":nested},
            {"op":"move","from":"/other","path":format!("/details{deeper}")},
        ]),
    ] {
        let refused = patch(&world, &path, OPERATIONS, &operations).await;
        assert!(refused.places()[0].ends_with("/path"), "{}", refused.text);
    }
}

#[tokio::test]
async fn a_patch_that_changes_nothing_is_answered_and_not_published() {
    let world = World::new().await;
    let path = a_book(&world, &json!({ "a": 1 })).await;
    let before = world.get(&path).send().await;
    world.clock.advance(std::time::Duration::from_secs(1));
    for (media_type, by) in [
        (MERGE, json!({})),
        (MERGE, json!({ "title": "Notes", "details": { "b": null } })),
        (OPERATIONS, json!([])),
        (OPERATIONS, json!([{"op":"test","path":"/title","value":"Notes"}])),
    ] {
        let done = patch(&world, &path, media_type, &by).await;
        assert_eq!((done.status, &done.text), (StatusCode::OK, &before.text), "{by}");
        assert_eq!(done.header("etag"), before.header("etag"));
    }
    assert_eq!(events(&world).await.len(), 1);
}

#[tokio::test]
async fn patches_at_the_same_time_are_all_applied() {
    let world = World::new().await;
    let path = a_book(&world, &json!([])).await;
    let adds = (0..20).map(|number| {
        let add = json!([{"op":"add","path":"/details/-","value":number}]);
        let call = world.call(Method::PATCH, &path).header("content-type", OPERATIONS);
        call.body(add.to_string()).send()
    });
    for reply in futures_util::future::join_all(adds).await {
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    }
    let details = world.get(&path).send().await.body["details"].clone();
    let mut numbers: Vec<_> =
        details.as_array().expect("an array").iter().map(Value::as_u64).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..20).map(Some).collect::<Vec<_>>());
    let author = path_of(AUTHORS, &create(&world, AUTHORS, &json!({ "name": "Ada" })).await);
    let merges = [json!({ "name": "Bob" }), json!({ "born": 1 })];
    let merges = merges.iter().map(|by| patch(&world, &author, MERGE, by));
    futures_util::future::join_all(merges).await;
    let read = world.get(&author).send().await;
    assert_eq!((&read.body["name"], &read.body["born"]), (&json!("Bob"), &json!(1)));
}
