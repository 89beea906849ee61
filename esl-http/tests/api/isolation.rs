//! What an organization names itself is its own. (That it sees nothing of another: `access`.)

use axum::http::{Method, StatusCode};
use serde_json::json;

use crate::world::World;

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
