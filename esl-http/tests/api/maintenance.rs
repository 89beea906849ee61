//! Announcing maintenance.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::World;

const MAINTENANCE: &str = "/api/admin/maintenance";

fn window() -> Value {
    json!({
        "starts_at": "2024-01-15T20:00:00.000Z",
        "ends_at": "2024-01-15T21:00:00.000Z",
        "message": "The disks are exchanged.",
    })
}

fn at(announce_at: &str) -> Value {
    let mut window = window();
    window["announce_at"] = announce_at.into();
    window
}

async fn announced(world: &World) -> Vec<Value> {
    let uri = "/api/v1/events?type=system.maintenance.scheduled";
    let list = world.get(uri).send().await;
    let mut events = Vec::new();
    for listed in list.body["data"].as_array().expect("a list") {
        events.push(listed["envelope"].clone());
    }
    events
}

#[tokio::test]
async fn an_announcement_for_now_is_an_event_at_once() {
    let world = World::new().await;
    world.subscribe(&["system.*"]).await;
    let reply = world.post(MAINTENANCE).header("x-request-id", "r-1").json(&window()).send().await;
    assert_eq!(reply.status, StatusCode::ACCEPTED, "{}", reply.text);
    assert_eq!((&reply.body["seq"], &reply.body["deliveries"]), (&json!(1), &json!(1)));
    // One whose time has passed is for now, too.
    let past = world.post(MAINTENANCE).json(&at("2024-01-15T14:00:00Z")).send().await;
    assert_eq!(past.body["seq"], 2);
    let events = announced(&world).await;
    assert_eq!((&events[1]["id"], &events[1]["data"]), (&reply.body["id"], &window()));
    let metadata = json!({
        "correlation_id": "r-1", "triggered_by": "acme-client", "source": "api",
    });
    assert_eq!(events[1]["metadata"], metadata);
}

#[tokio::test]
async fn an_announcement_for_later_is_listed_can_be_taken_back_and_comes_at_its_time() {
    let world = World::new().await;
    let later = async |time: &str| world.post(MAINTENANCE).json(&at(time)).send().await;
    let (first, second) =
        (later("2024-01-15T18:00:00Z").await, later("2024-01-15T15:00:00+00:00").await);
    assert_eq!((first.status, second.status), (StatusCode::ACCEPTED, StatusCode::ACCEPTED));
    assert_eq!(second.body["announce_at"], "2024-01-15T15:00:00.000Z");
    let mut listed = at("2024-01-15T18:00:00.000Z");
    listed["id"] = first.body["id"].clone();
    let list = world.get(&format!("{MAINTENANCE}?limit=1")).send().await;
    assert_eq!(list.body["data"], json!([listed]));
    assert!(list.body["next_cursor"].is_string());

    let uri = format!("{MAINTENANCE}/{}", first.body["id"].as_str().expect("an id"));
    let strangers = world.call(Method::DELETE, &uri).token(&world.stranger_token).send().await;
    assert_eq!(strangers.status, StatusCode::NOT_FOUND);
    let list = world.get(MAINTENANCE).token(&world.stranger_token).send().await;
    assert_eq!(list.body["data"], json!([]));
    let back = world.call(Method::DELETE, &uri).send().await;
    assert_eq!(back.status, StatusCode::NO_CONTENT);
    assert_eq!(world.call(Method::DELETE, &uri).send().await.status, StatusCode::NOT_FOUND);

    world.clock.advance(Duration::from_secs(28 * 60));
    while announced(&world).await.is_empty() {
        tokio::task::yield_now().await;
    }
    let events = announced(&world).await;
    assert_eq!((&events[0]["id"], events.len()), (&second.body["id"], 1));
    assert_eq!(events[0]["timestamp"], "2024-01-15T15:00:00.000Z");
    assert_eq!(world.get(MAINTENANCE).send().await.body["data"], json!([]));
}

#[tokio::test]
async fn what_is_wrong_with_an_announcement_is_named() {
    let world = World::new().await;
    for (member, value, places) in [
        ("starts_at", json!("2024-01-15T21:00:00Z"), &["/ends_at"][..]),
        ("starts_at", json!("tonight"), &["/starts_at"]),
        ("ends_at", json!("2024-01-15T14:31:00Z"), &["/ends_at"]),
        ("announce_at", json!("2024-01-15T21:00:00Z"), &["/ends_at"]),
        ("announce_at", json!(17), &["/announce_at"]),
        ("announce_at", json!("2025-01-16T14:32:00.001Z"), &["/announce_at", "/ends_at"]),
        ("message", json!(" "), &["/message"]),
        ("message", json!(null), &["/message"]),
        ("until", json!(""), &["/until"]),
    ] {
        let mut body = window();
        body[member] = value;
        let reply = world.post(MAINTENANCE).json(&body).send().await;
        assert_eq!(reply.places(), places, "{body}");
    }
    let reply = world.post(MAINTENANCE).json(&json!({})).send().await;
    assert_eq!(reply.places(), ["/starts_at", "/ends_at", "/message"]);
    let token = world.token_for("acme-client", world.organization, "events:publish").await;
    let reply = world.post(MAINTENANCE).token(&token).json(&window()).send().await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    assert_eq!(announced(&world).await, Vec::<Value>::new());
}
