//! What belongs to another organization is not there.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn no_route_shows_or_changes_what_belongs_to_another_organization() {
    let world = World::new().await;
    let subscription = world.subscribe(&["*"]).await;
    let event = world.publish("person.updated").await;
    let list = format!("/api/v1/subscriptions/{subscription}/deliveries");
    let mine = world.get(&list).send().await;
    let delivery = mine.body["data"][0]["id"].as_str().expect("a delivery").to_owned();

    let subscription = format!("/api/v1/subscriptions/{subscription}");
    let before = world.get(&subscription).send().await;
    for (method, uri, body) in [
        (Method::GET, subscription.clone(), Value::Null),
        (Method::PATCH, subscription.clone(), json!({ "active": false })),
        (Method::DELETE, subscription.clone(), Value::Null),
        (Method::GET, list.clone(), Value::Null),
        (Method::GET, format!("/api/v1/events/{event}"), Value::Null),
        (Method::GET, format!("/api/v1/deliveries/{delivery}"), Value::Null),
        (Method::POST, format!("/api/v1/deliveries/{delivery}/redeliver"), Value::Null),
    ] {
        let mut call = world.anonymous(method.clone(), &uri).token(&world.stranger_token);
        if !body.is_null() {
            call = call.json(&body);
        }
        let reply = call.send().await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{method} {uri}");
        assert!(!reply.text.contains("a.example"), "{}", reply.text);
    }
    for uri in ["/api/v1/subscriptions", "/api/v1/events"] {
        let call = world.anonymous(Method::GET, uri).token(&world.stranger_token);
        assert_eq!(call.send().await.body, json!({ "data": [], "next_cursor": null }), "{uri}");
    }
    assert_eq!(world.get(&subscription).send().await.text, before.text);
    assert_eq!(world.get(&list).send().await.text, mine.text);
}

#[tokio::test]
async fn an_event_id_is_each_organizations_own() {
    let world = World::new().await;
    let body = json!({ "id": "evt_01J00000000000000000000000", "type": "a.b", "data": 1 });
    let mine = world.post("/api/v1/events").json(&body).send().await;
    let call = world.anonymous(Method::POST, "/api/v1/events").token(&world.stranger_token);
    // Other content: the same would not show whether it was taken for a repetition.
    let other = json!({ "id": body["id"], "type": "a.b", "data": 2 });
    let theirs = call.json(&other).send().await;
    assert_eq!((mine.status, theirs.status), (StatusCode::ACCEPTED, StatusCode::ACCEPTED));
    assert_eq!((&theirs.body["id"], &theirs.body["seq"]), (&body["id"], &json!(1)));
}

#[tokio::test]
async fn an_idempotency_key_is_each_organizations_own() {
    let world = World::new().await;
    let body = json!({ "type": "a.b", "data": 1 });
    let mine = world.post("/api/v1/events").header("idempotency-key", "k").json(&body).send().await;
    let call = world.anonymous(Method::POST, "/api/v1/events").token(&world.stranger_token);
    let theirs = call.header("idempotency-key", "k").json(&body).send().await;
    assert_eq!((mine.status, theirs.status), (StatusCode::ACCEPTED, StatusCode::ACCEPTED));
    assert_ne!(mine.body["id"], theirs.body["id"]);
}
