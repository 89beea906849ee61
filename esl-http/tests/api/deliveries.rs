use std::time::Duration;

use axum::http::{Method, StatusCode};
use esl_core::{
    Attempt, AttemptError, DeliveryId, OrganizationId, Timings, WorkerId,
    storage::{Commit, Lanes, Outcome, Removal, Settle, Settlement, Tenure, Unit},
};
use serde_json::{Value, json};

use crate::world::{NOON, World};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const STRANGER: OrganizationId = OrganizationId::from_bytes([2; 16]);

/// A world with one subscription and one event for it; the delivery's id.
async fn setup() -> (World, String, DeliveryId) {
    let world = World::new().await;
    let subscription = world.subscribe(&["a.b"]).await;
    world.publish("a.b").await;
    let id = first_of(&world, &subscription, "").await["id"].as_str().expect("an id").to_owned();
    (world, subscription, id.parse().expect("a delivery id"))
}

async fn first_of(world: &World, subscription: &str, query: &str) -> Value {
    let uri = format!("/api/v1/subscriptions/{subscription}/deliveries{query}");
    world.get(&uri).send().await.body["data"][0].clone()
}

/// Settles a delivery as another engine would.
async fn settle(world: &World, delivery: DeliveryId, outcome: Outcome) {
    let (worker, _) = world
        .storage
        .enlist(WorkerId::from_bytes([7; 16]), Tenure::default())
        .await
        .expect("an epoch");
    let attempt = Attempt {
        number: 1,
        started_at: NOON,
        status: Some(500),
        error: Some(AttemptError::Status),
        detail: Some("no, \"thanks\"".into()),
        probe: false,
        charged: true,
        timings: Timings {
            resolve: None,
            connect: Some(Duration::from_micros(1_500)),
            tls: None,
            first_byte: Some(Duration::from_millis(20)),
            total: Duration::from_micros(20_001),
        },
    };
    let settlement = Settlement {
        lane: delivery.lane(),
        seq: delivery.seq(),
        outcome,
        attempts: 1,
        charged: 1,
        at: NOON + Duration::from_millis(21),
        status: Some(500),
        error: Some(AttemptError::Status),
        log: vec![attempt],
    };
    let settle = Settle {
        worker,
        settlements: vec![settlement],
        lanes: Vec::new(),
        switch_offs: Vec::new(),
    };
    let results = world.storage.commit(vec![Unit::settle(settle)]).await.expect("a commit");
    results.into_iter().for_each(|result| drop(result.expect("a settlement")));
}

#[tokio::test]
async fn a_delivery_shows_where_it_stands() {
    let (world, subscription, id) = setup().await;
    let event = world.get("/api/v1/events").send().await.body["data"][0]["id"].clone();
    let mut expected = json!({
        "id": id.to_string(),
        "event_id": event,
        "event_type": "a.b",
        "subscription_id": subscription,
        "seq": 1,
        "state": "pending",
        "attempts": 0,
        "created_at": "2024-01-15T14:32:00.000Z",
        "next_attempt_at": "2024-01-15T14:32:00.000Z",
        "finished_at": null,
        "last_status": null,
        "last_error": null,
    });
    assert_eq!(first_of(&world, &subscription, "").await, expected);

    settle(&world, id, Outcome::Exhausted).await;
    for (member, value) in [
        ("state", json!("exhausted")),
        ("attempts", json!(1)),
        ("next_attempt_at", Value::Null),
        ("finished_at", json!("2024-01-15T14:32:00.021Z")),
        ("last_status", json!(500)),
        ("last_error", json!("status")),
    ] {
        expected[member] = value;
    }
    assert_eq!(first_of(&world, &subscription, "").await, expected);

    expected["attempts_log"] = json!([{
        "number": 1,
        "started_at": "2024-01-15T14:32:00.000Z",
        "status": 500,
        "error": "status",
        "detail": "no, \"thanks\"",
        "probe": false,
        "charged": true,
        "timings": {
            "resolve_ms": null,
            "connect_ms": 1.5,
            "tls_ms": null,
            "first_byte_ms": 20.0,
            "total_ms": 20.001,
        },
    }]);
    assert_eq!(world.get(&format!("/api/v1/deliveries/{id}")).send().await.body, expected);
}

#[tokio::test]
async fn deliveries_are_listed_by_state() {
    let (world, subscription, id) = setup().await;
    world.publish("a.b").await;
    settle(&world, id, Outcome::Exhausted).await;
    let of_state = async |state: &str| {
        let uri = format!("/api/v1/subscriptions/{subscription}/deliveries?state={state}");
        let body = world.get(&uri).send().await.body;
        let data = body["data"].as_array().expect("a list").clone();
        data.iter().map(|delivery| delivery["seq"].as_u64().expect("a seq")).collect::<Vec<_>>()
    };
    assert_eq!(of_state("exhausted").await, [1]);
    assert_eq!(of_state("pending").await, [2]);
    for state in ["held", "delivered", "expired", "cancelled"] {
        assert_eq!(of_state(state).await, [0; 0], "{state}");
    }
    let pause = world.call(Method::PATCH, &format!("/api/v1/subscriptions/{subscription}"));
    assert_eq!(pause.json(&json!({ "active": false })).send().await.status, StatusCode::OK);
    assert_eq!(of_state("held").await, [2]);
}

#[tokio::test]
async fn cursors_walk_all_deliveries_newest_first() {
    let (world, subscription, _) = setup().await;
    for _ in 0..4 {
        world.publish("a.b").await;
    }
    let mut walked = Vec::new();
    let base = format!("/api/v1/subscriptions/{subscription}/deliveries?limit=2");
    let mut uri = base.clone();
    loop {
        let page = world.get(&uri).send().await;
        let data = page.body["data"].as_array().expect("a list");
        walked.extend(data.iter().map(|delivery| delivery["seq"].as_u64().expect("a seq")));
        let Some(cursor) = page.body["next_cursor"].as_str() else { break };
        uri = format!("{base}&cursor={cursor}");
    }
    assert_eq!(walked, [5, 4, 3, 2, 1]);
}

#[tokio::test]
async fn a_list_of_subscriptions_has_other_cursors_than_one_of_deliveries() {
    let (world, subscription, _) = setup().await;
    world.subscribe(&["a.b"]).await;
    let page = world.get("/api/v1/subscriptions?limit=1").send().await;
    let cursor = page.body["next_cursor"].as_str().expect("a cursor");
    let uri = format!("/api/v1/subscriptions/{subscription}/deliveries?cursor={cursor}");
    assert_eq!(world.get(&uri).send().await.places(), ["parameter cursor"]);
}

#[tokio::test]
async fn an_exhausted_delivery_is_sent_again() {
    let (world, _, id) = setup().await;
    settle(&world, id, Outcome::Exhausted).await;
    let uri = format!("/api/v1/deliveries/{id}/redeliver");
    let reply = world.post(&uri).send().await;
    assert_eq!(reply.status, StatusCode::ACCEPTED, "{}", reply.text);
    assert_eq!(reply.body["id"], id.to_string());
    assert_eq!(reply.body["state"], "pending");
    assert_eq!(reply.body["attempts"], 1);
    let again = world.post(&uri).raw_json("{}").send().await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    assert_eq!(again.body["code"], "conflict");
    assert_eq!(again.body["detail"], "only an exhausted or expired delivery can be sent again");
}

#[tokio::test]
async fn that_the_subscription_is_deleted_is_said() {
    let (world, subscription, id) = setup().await;
    settle(&world, id, Outcome::Exhausted).await;
    let uri = format!("/api/v1/subscriptions/{subscription}");
    let deleted = world.call(Method::DELETE, &uri).send().await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    let reply = world.post(&format!("/api/v1/deliveries/{id}/redeliver")).send().await;
    assert_eq!((reply.status, &reply.body["code"]), (StatusCode::CONFLICT, &json!("conflict")));
    assert_eq!(reply.body["detail"], "the subscription of this delivery is deleted");
}

#[tokio::test]
async fn redelivery_takes_no_members() {
    let (world, _, id) = setup().await;
    let uri = format!("/api/v1/deliveries/{id}/redeliver");
    let reply = world.post(&uri).raw_json(r#"{"force":true}"#).send().await;
    assert_eq!(reply.places(), ["/force"]);
}

#[tokio::test]
async fn a_delivered_delivery_is_not_sent_again() {
    let (world, _, id) = setup().await;
    settle(&world, id, Outcome::Delivered).await;
    let reply = world.post(&format!("/api/v1/deliveries/{id}/redeliver")).send().await;
    assert_eq!(reply.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_delivery_whose_event_was_removed_is_gone_to_read_and_to_send_again() {
    let (world, subscription, id) = setup().await;
    settle(&world, id, Outcome::Exhausted).await;
    world.clock.advance(31 * DAY);
    let (worker, _) = world
        .storage
        .enlist(WorkerId::from_bytes([8; 16]), Tenure::default())
        .await
        .expect("an epoch");
    let removed = world.storage.remove_old(&worker, Some(30 * DAY), 100).await;
    assert_eq!(removed.expect("it removes").deliveries, 1);

    // The first tokens have expired.
    let scopes = "events:read events:subscribe";
    let token = world.token_for("acme-client", world.organization, scopes).await;
    let stranger = world.token_for("other-client", STRANGER, scopes).await;
    let uri = format!("/api/v1/deliveries/{id}");
    for (method, uri) in [(Method::GET, uri.clone()), (Method::POST, format!("{uri}/redeliver"))] {
        let reply = world.anonymous(method.clone(), &uri).token(&token).send().await;
        assert_eq!(
            (reply.status, &reply.body["code"]),
            (StatusCode::GONE, &json!("gone")),
            "{uri}"
        );
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        let reply = world.anonymous(method, &uri).token(&stranger).send().await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "to others there never was one: {uri}");
    }
    let uri = format!("/api/v1/subscriptions/{subscription}/deliveries");
    let list = world.anonymous(Method::GET, &uri).token(&token).send().await;
    assert_eq!(list.body["data"], json!([]));
}

#[tokio::test]
async fn a_delivery_whose_event_was_erased_can_be_read_and_is_not_sent_again() {
    let (world, _, id) = setup().await;
    let uri = format!("/api/v1/deliveries/{id}");
    let event = world.get(&uri).send().await.body["event_id"].clone();
    let event = event.as_str().expect("an id").parse().expect("an event's id");
    world.esl.erase_event(world.organization, event).await.expect("it is there");
    let read = world.get(&uri).send().await;
    assert_eq!((read.status, &read.body["state"]), (StatusCode::OK, &json!("cancelled")));
    let reply = world.post(&format!("{uri}/redeliver")).send().await;
    assert_eq!(reply.status, StatusCode::GONE, "{}", reply.text);
    assert_eq!(world.get(&uri).send().await.body["state"], json!("cancelled"));
}
