//! Rotations over the API, beside what a rotation shows at first (`options`).

use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};

use crate::world::World;

/// A subscription of the world's organization, as the path to it.
async fn subscribe(world: &World) -> String {
    format!("/api/v1/subscriptions/{}", world.subscribe(&["person.*"]).await)
}

#[tokio::test]
async fn a_rotation_is_shown_until_its_grace_is_over_and_no_longer() {
    let world = World::new().await;
    let uri = subscribe(&world).await;
    let rotation = json!({ "grace_seconds": 2 });
    let rotated = world.post(&format!("{uri}/rotate-secret")).json(&rotation).send().await;
    let end = json!("2024-01-15T14:32:02.000Z");
    assert_eq!(rotated.body["rotation_ends_at"], end, "{}", rotated.text);

    let shown = async || {
        let one = world.get(&uri).send().await;
        let list = world.get("/api/v1/subscriptions").send().await;
        let patched = world.call(Method::PATCH, &uri).json(&json!({ "active": true })).send().await;
        let bodies = [&one.body, &list.body["data"][0], &patched.body];
        bodies.map(|body| body["rotation_ends_at"].clone())
    };
    world.clock.advance(Duration::from_millis(1999));
    assert_eq!(shown().await, [end.clone(), end.clone(), end]);
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(shown().await, [Value::Null, Value::Null, Value::Null]);
}

#[tokio::test]
async fn finish_is_true_or_not_there_and_stands_alone() {
    let world = World::new().await;
    let uri = subscribe(&world).await;
    let not_true = "expected true; left out, a rotation begins";
    let not_alone = "this member does not go together with finish";
    for (body, faults) in [
        (json!({ "finish": false }), vec![("/finish", not_true)]),
        (json!({ "finish": null }), vec![("/finish", not_true)]),
        (
            json!({ "finish": false, "grace_seconds": 3 }),
            vec![("/finish", not_true), ("/grace_seconds", not_alone)],
        ),
        (json!({ "finish": true, "grace_seconds": 3 }), vec![("/grace_seconds", not_alone)]),
        (
            json!({ "finish": true, "secret": "x", "grace": 3 }),
            vec![("/secret", not_alone), ("/grace", "there is no such member")],
        ),
    ] {
        let reply = world.post(&format!("{uri}/rotate-secret")).json(&body).send().await;
        let faults: Vec<_> =
            faults.into_iter().map(|(place, detail)| (place.into(), detail.into())).collect();
        assert_eq!(reply.faults(), faults, "{body}");
    }
    let one = world.get(&uri).send().await;
    assert_eq!(one.body["rotation_ends_at"], Value::Null, "nothing has begun");
}
