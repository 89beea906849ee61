use std::time::Duration;

use axum::http::{Method, StatusCode};
use esl_core::CallbackPolicy;
use esl_http::api::ApiConfig;
use serde_json::{Value, json};

use crate::world::{Reply, World};

const URI: &str = "/api/v1/subscriptions";

async fn create(world: &World, body: &Value) -> Reply {
    world.post(URI).json(body).send().await
}

async fn patch(world: &World, id: &str, body: &Value) -> Reply {
    world.call(Method::PATCH, &format!("{URI}/{id}")).json(body).send().await
}

#[tokio::test]
async fn the_documented_request_makes_a_subscription() {
    let world = World::new().await;
    let body = json!({
        "callback_url": "https://your-app.com/webhooks/sapien",
        "events": ["person.created", "person.updated", "availability.changed"],
        "secret": "your-webhook-secret-for-signature-verification",
        "active": true,
    });
    let reply = create(&world, &body).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text);
    let id = reply.body["id"].as_str().expect("an id").to_owned();
    assert!(id.starts_with("sub_"));
    assert_eq!(reply.header("location"), Some(&*format!("{URI}/{id}")));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let expected = json!({
        "id": id,
        "callback_url": "https://your-app.com/webhooks/sapien",
        "events": ["person.created", "person.updated", "availability.changed"],
        "active": true,
        "disabled_reason": null,
        "rotation_ends_at": null,
        "description": null,
        "metadata": null,
        "headers": {},
        "retry_schedule": null,
        "timeout_ms": null,
        "max_per_second": null,
        "max_in_flight": null,
        "ordering": "parallel",
        "on_exhausted": "skip",
        "created_at": "2024-01-15T14:32:00.000Z",
        "updated_at": "2024-01-15T14:32:00.000Z",
    });
    assert_eq!(reply.body, expected);
    let mut read = world.get(&format!("{URI}/{id}")).send().await.body;
    let health = read.as_object_mut().expect("an object").remove("health");
    assert_eq!(health.expect("health")["state"], "healthy");
    assert_eq!(read, expected);
    let list = world.get(URI).send().await.body;
    assert_eq!(list["data"], json!([expected]));
}

#[tokio::test]
async fn a_secret_that_was_left_out_is_generated_and_shown_once() {
    let world = World::new().await;
    let body = json!({ "callback_url": "https://a.example/", "events": ["*"] });
    let reply = create(&world, &body).await;
    let secret = reply.body["secret"].as_str().expect("a secret");
    assert!(secret.starts_with("whsec_") && secret.len() == 50, "{secret}");
    let id = reply.body["id"].as_str().expect("an id");
    for reply in [
        world.get(URI).send().await,
        world.get(&format!("{URI}/{id}")).send().await,
        patch(&world, id, &json!({ "active": false })).await,
    ] {
        assert_eq!(reply.status, StatusCode::OK);
        assert!(!reply.text.contains("secret") && !reply.text.contains(secret), "{}", reply.text);
    }
}

#[tokio::test]
async fn patterns_stand_there_once_and_in_their_order() {
    let world = World::new().await;
    let events = ["b.*", "a.b", "b.*", "*", "a.b"];
    let body = json!({ "callback_url": "https://a.example/", "events": events });
    let reply = create(&world, &body).await;
    assert_eq!(reply.body["events"], json!(["b.*", "a.b", "*"]));
}

#[tokio::test]
async fn everything_that_is_wrong_is_named_at_once() {
    let world = World::new().await;
    let reply = create(
        &world,
        &json!({
            "callback_url": "ftp://a.example/",
            "events": ["a.b", "nonsense", 7, "a.*.b"],
            "secret": "",
            "active": "yes",
            "colour": "red",
        }),
    )
    .await;
    assert_eq!(
        reply.places(),
        ["/callback_url", "/events/1", "/events/2", "/events/3", "/secret", "/active", "/colour"]
    );
    let pattern =
        "expected an event type (person.updated), everything below a name (person.*), or *";
    let details: Vec<_> = reply.faults().into_iter().map(|(_, detail)| detail).collect();
    assert_eq!(details[1], pattern);
    assert_eq!(
        details[2..],
        [
            "expected a string",
            pattern,
            "expected 1 to 256 bytes",
            "expected true or false",
            "there is no such member"
        ]
    );
}

#[tokio::test]
async fn each_member_is_checked() {
    let world = World::new().await;
    let too_many: Vec<_> = (0..101).map(|number| format!("a.b{number}")).collect();
    let whole = json!({ "callback_url": "https://a.example/", "events": ["*"] });
    for (member, value, place) in [
        ("callback_url", Value::Null, "/callback_url"),
        ("callback_url", json!("not a url"), "/callback_url"),
        ("callback_url", json!("https://user:password@a.example/"), "/callback_url"),
        ("events", Value::Null, "/events"),
        ("events", json!("*"), "/events"),
        ("events", json!([]), "/events"),
        ("events", json!(too_many), "/events"),
        ("secret", Value::Null, "/secret"),
        ("secret", json!(1), "/secret"),
        ("secret", json!("whsec_short"), "/secret"),
        ("secret", json!("x".repeat(257)), "/secret"),
        ("active", Value::Null, "/active"),
        ("active", json!(1), "/active"),
        ("id", json!("sub_01J00000000000000000000000"), "/id"),
        ("a/b~c", json!(1), "/a~1b~0c"),
    ] {
        let mut body = whole.clone();
        body[member] = value.clone();
        assert_eq!(create(&world, &body).await.places(), [place], "{member}: {value}");
    }
    for member in ["callback_url", "events"] {
        let mut body = whole.clone();
        body.as_object_mut().expect("an object").remove(member);
        let expected = [(format!("/{member}"), "this member is missing".to_owned())];
        assert_eq!(create(&world, &body).await.faults(), expected);
    }
    let body =
        r#"{"callback_url":"https://a.example/","events":["*"],"active":true,"active":false}"#;
    let reply = world.post(URI).raw_json(body).send().await;
    assert_eq!(
        reply.faults(),
        [("/active".to_owned(), "this member stands there more than once".to_owned())]
    );
    assert_eq!(world.get(URI).send().await.body["data"], json!([]));
}

#[tokio::test]
async fn a_private_callback_is_refused_with_the_name_of_what_allows_it() {
    let closed = World::new().await;
    let open = World::with(ApiConfig::default(), CallbackPolicy::allow_private()).await;
    for url in
        ["http://127.0.0.1/hook", "https://127.0.0.1/hook", "https://[::1]/", "https://localhost/"]
    {
        let body = json!({ "callback_url": url, "events": ["*"] });
        let refused = create(&closed, &body).await;
        let faults = refused.faults();
        let [(place, detail)] = &faults[..] else { panic!("{faults:?}") };
        assert_eq!(place, "/callback_url");
        assert!(detail.contains("ESL_ALLOW_PRIVATE_CALLBACKS=true"), "{detail}");
        assert_eq!(create(&open, &body).await.status, StatusCode::CREATED, "{url}");
    }
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_nothing_else() {
    let world = World::new().await;
    let id = world.subscribe(&["a.b"]).await;
    world.clock.advance(Duration::from_secs(60));
    let mut expected = world.get(URI).send().await.body["data"][0].clone();

    let unchanged = patch(&world, &id, &json!({})).await;
    assert_eq!((unchanged.status, &unchanged.body), (StatusCode::OK, &expected));

    expected["updated_at"] = json!("2024-01-15T14:33:00.000Z");
    for (member, value) in [
        ("active", json!(false)),
        ("events", json!(["c.d", "e.*"])),
        ("callback_url", json!("https://b.example/hook")),
        ("active", json!(true)),
    ] {
        expected[member] = value.clone();
        let reply = patch(&world, &id, &json!({ member: value })).await;
        assert_eq!((reply.status, &reply.body), (StatusCode::OK, &expected), "{member}");
        assert_eq!(world.get(URI).send().await.body["data"][0], expected);
    }
}

#[tokio::test]
async fn a_merge_patch_is_not_taken_for_json_since_members_are_replaced_and_not_merged() {
    let world = World::new().await;
    let id = world.subscribe(&["a.b"]).await;
    for (method, uri, accept_patch) in [
        (Method::PATCH, format!("{URI}/{id}"), Some("application/json")),
        (Method::POST, URI.to_owned(), None),
        (Method::POST, "/api/v1/events".to_owned(), None),
    ] {
        let call = world.call(method.clone(), &uri).raw_json(r#"{"metadata":{"a":null}}"#);
        let reply = call.header("content-type", "application/merge-patch+json").send().await;
        assert_eq!(reply.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{method} {uri}");
        assert_eq!(reply.body["code"], "unsupported_media_type");
        assert_eq!(reply.header("accept-patch"), accept_patch, "{method} {uri}");
    }
    let read = world.get(&format!("{URI}/{id}")).send().await;
    assert_eq!(read.body["metadata"], json!(null));
}

#[tokio::test]
async fn a_patch_that_is_wrong_changes_nothing() {
    let world = World::new().await;
    let id = world.subscribe(&["a.b"]).await;
    let before = world.get(&format!("{URI}/{id}")).send().await.text;
    for (body, places) in [
        (json!({ "active": false, "events": [] }), &["/events"][..]),
        (json!({ "active": null, "callback_url": null }), &["/callback_url", "/active"]),
        (json!({ "active": false, "created_at": "x", "id": "y" }), &["/created_at", "/id"]),
        (json!({ "active": false, "callback_url": "http://127.0.0.1/" }), &["/callback_url"]),
    ] {
        assert_eq!(patch(&world, &id, &body).await.places(), places, "{body}");
    }
    let reply = patch(&world, &id, &json!({ "secret": "another", "active": false })).await;
    let detail = "a secret is not changed by PATCH but by rotation (rotate-secret)";
    assert_eq!(reply.faults(), [("/secret".to_owned(), detail.to_owned())]);
    assert_eq!(world.get(&format!("{URI}/{id}")).send().await.text, before);
}

#[tokio::test]
async fn a_deleted_subscription_is_gone_but_for_its_deliveries() {
    let world = World::new().await;
    let id = world.subscribe(&["a.b"]).await;
    world.publish("a.b").await;
    let uri = format!("{URI}/{id}");
    let deleted = world.call(Method::DELETE, &uri).send().await;
    assert_eq!((deleted.status, &*deleted.text), (StatusCode::NO_CONTENT, ""));
    assert_eq!(world.get(&uri).send().await.status, StatusCode::NOT_FOUND);
    assert_eq!(patch(&world, &id, &json!({})).await.status, StatusCode::NOT_FOUND);
    let again = world.call(Method::DELETE, &uri).send().await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
    assert_eq!(again.body["detail"], "there is no such subscription");
    assert_eq!(world.get(URI).send().await.body["data"], json!([]));
    let deliveries = world.get(&format!("{uri}/deliveries")).send().await;
    assert_eq!(deliveries.body["data"][0]["state"], "cancelled", "{}", deliveries.text);
}

#[tokio::test]
async fn cursors_walk_the_whole_list_in_the_order_of_creation() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(world.subscribe(&["a.b"]).await);
    }
    for limit in [1, 3, 7, 100] {
        let mut walked = Vec::new();
        let mut uri = format!("{URI}?limit={limit}");
        loop {
            let page = world.get(&uri).send().await;
            let data = page.body["data"].as_array().expect("a list");
            assert!(data.len() <= limit);
            walked.extend(data.iter().map(|item| item["id"].as_str().expect("an id").to_owned()));
            let Some(cursor) = page.body["next_cursor"].as_str() else { break };
            uri = format!("{URI}?limit={limit}&cursor={cursor}");
        }
        assert_eq!(walked, ids, "{limit}");
    }
}

#[tokio::test]
async fn a_list_has_50_items_unless_asked_otherwise() {
    let world = World::new().await;
    for _ in 0..51 {
        world.subscribe(&["a.b"]).await;
    }
    let reply = world.get(URI).send().await;
    assert_eq!(reply.body["data"].as_array().map(Vec::len), Some(50));
    assert!(reply.body["next_cursor"].is_string());
}
