//! Who has changed what.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::World;

const AUDIT: &str = "/api/v1/audit";

#[tokio::test]
async fn changes_are_told_to_admins_with_who_made_them_and_from_where() {
    let world = World::new().await;
    let id = world.subscribe(&["*"]).await;
    let uri = format!("/api/v1/subscriptions/{id}");
    let body = json!({ "active": false, "description": "mine" });
    let call = world.call(Method::PATCH, &uri).json(&body).from("192.0.2.7");
    assert_eq!(call.send().await.status, StatusCode::OK);
    let rotate = world.post(&format!("{uri}/rotate-secret")).send().await;
    assert_eq!(rotate.status, StatusCode::OK);
    assert_eq!(world.call(Method::DELETE, &uri).send().await.status, StatusCode::NO_CONTENT);

    let client = |address: Option<&str>| json!({ "kind": "client", "name": "acme-client", "address": address });
    let nothing: [&str; 0] = [];
    let entry = |action: &str, fields: &[&str], address: Option<&str>| {
        json!({
            "at": "2024-01-15T14:32:00.000Z",
            "action": action,
            "subject": id,
            "fields": fields,
            "actor": client(address),
        })
    };
    let reply = world.get(AUDIT).send().await;
    assert_eq!(reply.status, StatusCode::OK);
    let of_it: Vec<&Value> = reply.body["data"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|entry| entry["subject"] == *id)
        .collect();
    let expected = [
        entry("subscription.deleted", &nothing, None),
        entry("subscription.secret_rotated", &["secret"], None),
        entry("subscription.updated", &["active", "description"], Some("192.0.2.7")),
        entry("subscription.created", &nothing, None),
    ];
    assert_eq!(of_it, expected.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn the_trail_is_an_admins_own_and_comes_in_pages() {
    let world = World::new().await;
    for _ in 0..3 {
        world.subscribe(&["*"]).await;
    }
    let first = world.get(&format!("{AUDIT}?limit=2")).send().await;
    let cursor = first.body["next_cursor"].as_str().expect("there is more");
    let second = world.get(&format!("{AUDIT}?limit=2&cursor={cursor}")).send().await;
    let data = |reply: &crate::world::Reply| reply.body["data"].as_array().map(Vec::len);
    assert_eq!((data(&first), data(&second)), (Some(2), Some(2)));
    assert_ne!(first.body["data"][1], second.body["data"][0]);

    let strangers = world.get(AUDIT).token(&world.stranger_token).send().await;
    assert!(!strangers.text.contains("subscription"), "{}", strangers.text);
    let token = world.token_for("acme-client", world.organization, "events:read events:subscribe");
    let reply = world.get(AUDIT).token(&token.await).send().await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    let challenge = reply.header("www-authenticate").expect("a challenge");
    assert!(challenge.contains(r#"scope="events:admin""#), "{challenge}");
}
