//! Replays over the API.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    faulty::Mode,
    world::{Reply, World},
};

async fn publish(world: &World, count: u64) {
    for number in 0..count {
        let event = json!({ "type": "person.updated", "data": number });
        assert_eq!(
            world.post("/api/v1/events").json(&event).send().await.status,
            StatusCode::ACCEPTED
        );
        world.clock.advance(Duration::from_secs(1));
    }
}

async fn replay(world: &World, subscription: &str, body: &Value) -> Reply {
    let uri = format!("/api/v1/subscriptions/{subscription}/replay");
    world.post(&uri).json(body).send().await
}

#[tokio::test]
async fn a_dry_run_counts_and_opens_nothing() {
    let world = World::new().await;
    publish(&world, 5).await;
    let id = world.subscribe(&["person.*"]).await;
    for (body, count) in [
        (json!({ "state": "missing" }), 5),
        (json!({ "state": "missing", "from_seq": 2, "to_seq": 4 }), 3),
        (json!({ "state": ["missing"], "from_time": "2024-01-15T14:32:01Z" }), 4),
        (json!({ "state": "missing", "to_time": "2024-01-15T14:32:01.000Z" }), 2),
        (json!({}), 0),
        (json!({ "state": ["exhausted", "expired", "delivered"] }), 0),
    ] {
        let mut asked = body.clone();
        asked["dry_run"] = json!(true);
        let reply = replay(&world, &id, &asked).await;
        assert_eq!(
            (reply.status, &reply.body),
            (StatusCode::OK, &json!({ "count": count })),
            "{body}"
        );
    }
    let list = world.get(&format!("/api/v1/subscriptions/{id}/replays")).send().await;
    assert_eq!(list.body["data"], json!([]));
}

#[tokio::test]
async fn a_replay_is_made_read_listed_and_cancelled() {
    let world = World::new().await;
    publish(&world, 3).await;
    let id = world.subscribe(&["person.*"]).await;
    // Paused, so that it is not over before the first look.
    let uri = format!("/api/v1/subscriptions/{id}");
    world.call(Method::PATCH, &uri).json(&json!({ "active": false })).send().await;
    let body = json!({ "state": "missing", "from_seq": 2, "max_per_second": 50 });
    let made = replay(&world, &id, &body).await;
    assert_eq!(made.status, StatusCode::ACCEPTED, "{}", made.text);
    let replay_id = made.body["id"].as_str().expect("an id").to_owned();
    let uri = format!("/api/v1/replays/{replay_id}");
    assert!(replay_id.starts_with("rpl_"));
    assert_eq!(made.header("location"), Some(&*uri));
    let expected = json!({
        "id": replay_id,
        "subscription_id": id,
        "state": "running",
        "of": ["missing"],
        "from_seq": 2,
        "to_seq": 3,
        "from_time": null,
        "to_time": null,
        "max_per_second": 50,
        "position": 1,
        "opened": 0,
        "created_at": "2024-01-15T14:32:03.000Z",
        "finished_at": null,
    });
    assert_eq!(made.body, expected);
    let again = replay(&world, &id, &json!({})).await;
    assert_eq!((again.status, &again.body["code"]), (StatusCode::CONFLICT, &json!("conflict")));

    let cancelled = world.post(&format!("{uri}/cancel")).send().await;
    assert_eq!((cancelled.status, &cancelled.body["state"]), (StatusCode::OK, &json!("cancelled")));
    assert_eq!(world.get(&uri).send().await.body, cancelled.body);
    let second = replay(&world, &id, &json!({ "state": ["delivered", "expired"] })).await;
    assert_eq!(second.body["of"], json!(["expired", "delivered"]));
    let list = async |query: &str| {
        world.get(&format!("/api/v1/subscriptions/{id}/replays{query}")).send().await.body
    };
    let all = list("").await;
    assert_eq!(all["data"][0]["id"], second.body["id"]);
    assert_eq!(all["data"][1], cancelled.body);
    let page = list("?limit=1").await;
    let cursor = page["next_cursor"].as_str().expect("more").to_owned();
    assert_eq!(list(&format!("?limit=1&cursor={cursor}")).await["data"], json!([cancelled.body]));

    for uri in [uri.clone(), format!("/api/v1/subscriptions/{id}/replays")] {
        let stranger = world.anonymous(Method::GET, &uri).token(&world.stranger_token);
        assert_eq!(stranger.send().await.status, StatusCode::NOT_FOUND, "{uri}");
    }
    for uri in [format!("{uri}/cancel"), format!("/api/v1/subscriptions/{id}/replay")] {
        let stranger = world.anonymous(Method::POST, &uri).token(&world.stranger_token);
        let reply = stranger.json(&json!({})).send().await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{uri}");
    }
}

#[tokio::test]
async fn everything_that_is_wrong_is_named() {
    let world = World::new().await;
    let id = world.subscribe(&["person.*"]).await;
    let many = json!({ "state": ["exhausted", "exhausted", "expired", "expired", "delivered"] });
    let refused = replay(&world, &id, &many).await;
    assert_eq!(refused.faults(), [("/state".to_owned(), "expected 1 to 4 states".to_owned())]);
    for (body, places) in [
        (json!({ "state": "pending" }), vec!["/state"]),
        (json!({ "state": [] }), vec!["/state"]),
        (json!({ "state": ["exhausted", 7, "held"] }), vec!["/state/1", "/state/2"]),
        (json!({ "state": ["missing", "expired"] }), vec!["/state"]),
        (json!({ "from_seq": 0, "to_seq": "7" }), vec!["/from_seq", "/to_seq"]),
        (json!({ "from_seq": 5, "to_seq": 4 }), vec!["/to_seq"]),
        (
            json!({ "from_time": "2024-01-15T14:32:01Z", "to_time": "2024-01-15T14:32:00Z" }),
            vec!["/to_time"],
        ),
        (json!({ "from_time": "yesterday" }), vec!["/from_time"]),
        (json!({ "max_per_second": 100_001 }), vec!["/max_per_second"]),
        (json!({ "dry_run": 1, "speed": 1 }), vec!["/dry_run", "/speed"]),
    ] {
        let reply = replay(&world, &id, &body).await;
        assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert_eq!(reply.places(), places, "{body}");
    }
}

#[tokio::test]
async fn a_replay_needs_no_body() {
    let world = World::new().await;
    let id = world.subscribe(&["person.*"]).await;
    let uri = format!("/api/v1/subscriptions/{id}/replay");
    // The second as curl sends it with an empty -d.
    for call in [world.post(&uri), world.post(&uri).form("")] {
        let reply = call.send().await;
        assert_eq!(reply.status, StatusCode::ACCEPTED, "{}", reply.text);
        assert_eq!(reply.body["of"], json!(["exhausted", "expired"]));
        let replay = reply.body["id"].as_str().expect("an id");
        world.post(&format!("/api/v1/replays/{replay}/cancel")).send().await;
    }
    // What there is has to be JSON.
    let reply = world.post(&uri).form("dry_run=true").send().await;
    assert_eq!(reply.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let reply = world.post(&uri).raw_json(" ").send().await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn a_count_that_takes_too_long_says_so_and_what_to_do() {
    let world = World::new().await;
    // The caller is known from this on, so that what hangs is the count.
    let id = world.subscribe(&["person.*"]).await;
    world.fault.set(Mode::Hang);
    let reply = replay(&world, &id, &json!({ "state": "missing", "dry_run": true })).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.body["code"], "timeout");
    let detail = "counting took too long, and was given up; count a narrower range (from_seq, \
                  to_seq, from_time, to_time), or begin the replay without counting";
    assert_eq!(reply.body["detail"], detail);
    assert_eq!(reply.header("retry-after"), None, "the same count takes as long again");
}
