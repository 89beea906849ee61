//! How deliveries are to be made: options, rotation, ping, and how a subscription fares.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use esl_core::{
    Esl, LaneId, MemoryStorage, Seq, WorkerId,
    storage::{Commit, LaneState, Lanes, Outcome, Settle, Settlement, Subscriptions, Tenure, Unit},
};
use esl_http::api::{self, ApiConfig};
use serde_json::{Value, json};

use crate::world::{Reply, World};

const URI: &str = "/api/v1/subscriptions";

async fn create(world: &World, mut options: Value) -> Reply {
    options["callback_url"] = json!("https://a.example/");
    options["events"] = json!(["person.*"]);
    world.post(URI).json(&options).send().await
}

async fn patch(world: &World, id: &str, body: &Value) -> Reply {
    world.call(Method::PATCH, &format!("{URI}/{id}")).json(body).send().await
}

fn id(reply: &Reply) -> String {
    reply.body["id"].as_str().expect("an id").to_owned()
}

fn every_option() -> Value {
    json!({
        "description": "für die Abrechnung",
        "metadata": { "team": 7, "tags": [1.5, null] },
        "headers": { "X-Api-Key": "k-1-hidden" },
        "retry_schedule": [5000, 300_000],
        "timeout_ms": 1500,
        "max_per_second": 100,
        "max_in_flight": 256,
        "ordering": "strict",
        "on_exhausted": "pause",
    })
}

#[tokio::test]
async fn options_are_shown_as_they_were_given_but_for_the_values_of_headers() {
    let world = World::new().await;
    let created = create(&world, every_option()).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.text);
    let read = world.get(&format!("{URI}/{}", id(&created))).send().await;
    for reply in [&created, &read] {
        for (name, value) in every_option().as_object().expect("an object") {
            let expected =
                if name == "headers" { json!({ "x-api-key": "***" }) } else { value.clone() };
            assert_eq!(reply.body[name], expected, "{name}");
        }
        assert!(!reply.text.contains("k-1-hidden"));
        // Numbers stay as they were written.
        assert!(
            reply.text.contains(r#""metadata":{"team":7,"tags":[1.5,null]}"#)
                || reply.text.contains(r#""metadata":{"tags":[1.5,null],"team":7}"#)
        );
    }
}

#[tokio::test]
async fn what_stands_in_place_of_a_headers_value_is_not_taken_for_one() {
    let world = World::new().await;
    let created = create(&world, every_option()).await;
    let read = world.get(&format!("{URI}/{}", id(&created))).send().await;
    let sent_back = json!({ "headers": read.body["headers"] });
    let expected =
        ("/headers/x-api-key", "*** stands for a value that is not shown: expected the value");
    for reply in
        [patch(&world, &id(&created), &sent_back).await, create(&world, sent_back.clone()).await]
    {
        let faults = reply.faults();
        let faults: Vec<_> = faults.iter().map(|(place, what)| (&**place, &**what)).collect();
        assert_eq!(faults, [expected]);
    }
    let subscription_id = id(&created).parse().expect("an id");
    let stored = world.storage.subscription(world.organization, subscription_id).await;
    let stored = stored.expect("storage works").expect("it is there").options.headers;
    let values: Vec<_> = stored.expose().map(|(_, value)| value.to_owned()).collect();
    assert_eq!(values, ["k-1-hidden"]);
}

#[tokio::test]
async fn null_takes_an_option_back_and_what_is_not_named_stays() {
    let world = World::new().await;
    let created = create(&world, every_option()).await;
    let changed =
        patch(&world, &id(&created), &json!({ "timeout_ms": null, "ordering": null })).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.text);
    assert_eq!(
        (&changed.body["timeout_ms"], &changed.body["ordering"]),
        (&Value::Null, &json!("parallel"))
    );
    assert_eq!(changed.body["retry_schedule"], json!([5000, 300_000]));
    let all: Value = every_option()
        .as_object()
        .expect("an object")
        .keys()
        .map(|name| (name.clone(), Value::Null))
        .collect();
    let changed = patch(&world, &id(&created), &all).await;
    assert_eq!(changed.body["headers"], json!({}));
    for name in ["description", "metadata", "retry_schedule", "max_per_second", "max_in_flight"] {
        assert_eq!(changed.body[name], Value::Null, "{name}");
    }
    assert_eq!(changed.body["on_exhausted"], "skip");
    // An empty schedule is one: no retries.
    let none = patch(&world, &id(&created), &json!({ "retry_schedule": [] })).await;
    assert_eq!(none.body["retry_schedule"], json!([]));
}

#[tokio::test]
async fn each_option_is_checked_and_named_by_its_place() {
    let world = World::new().await;
    let wrong = json!({
        "description": "x".repeat(1025),
        "metadata": [1],
        "headers": { "Content-Type": "a/b", "X-Sapien-Event": "e", "ok": 7, "a/b": "", "fine": "yes" },
        "retry_schedule": [-1, 1.5, 3_600_001, "5s", 7],
        "timeout_ms": 999,
        "max_per_second": 0,
        "max_in_flight": 257,
        "ordering": "sorted",
        "on_exhausted": true,
    });
    let reply = create(&world, wrong.clone()).await;
    assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY);
    let mut places = reply.places();
    places.sort_unstable();
    assert_eq!(
        places,
        [
            "/description",
            "/headers/Content-Type",
            "/headers/X-Sapien-Event",
            "/headers/a~1b",
            "/headers/ok",
            "/max_in_flight",
            "/max_per_second",
            "/metadata",
            "/on_exhausted",
            "/ordering",
            "/retry_schedule/0",
            "/retry_schedule/1",
            "/retry_schedule/2",
            "/retry_schedule/3",
            "/timeout_ms",
        ]
    );
    let created = create(&world, json!({})).await;
    assert_eq!(patch(&world, &id(&created), &wrong).await.places().len(), 15);
    let many: Value = (0..17).map(|n| (format!("h{n}"), json!("v"))).collect();
    for (options, place) in [
        (json!({ "headers": many }), "/headers"),
        (json!({ "headers": { "B": "1", "b": "2" } }), "/headers/b"),
        (json!({ "headers": [] }), "/headers"),
        (json!({ "retry_schedule": vec![1; 101] }), "/retry_schedule"),
        (json!({ "retry_schedule": 5 }), "/retry_schedule"),
        (json!({ "metadata": { "a": "x".repeat(8192) } }), "/metadata"),
    ] {
        assert_eq!(create(&world, options).await.places(), [place]);
    }
}

#[tokio::test]
async fn a_rotation_shows_a_generated_secret_once_and_when_the_old_one_ends() {
    let world = World::new().await;
    let created = create(&world, json!({})).await;
    let uri = format!("{URI}/{}/rotate-secret", id(&created));
    let rotated = world.post(&uri).json(&json!({})).send().await;
    assert_eq!(rotated.status, StatusCode::OK, "{}", rotated.text);
    let secret = rotated.body["secret"].as_str().expect("a generated secret");
    assert!(secret.starts_with("whsec_") && secret != created.body["secret"]);
    assert_eq!(rotated.header("cache-control"), Some("no-store"));
    assert_eq!(rotated.body["rotation_ends_at"], "2024-01-16T14:32:00.000Z");
    let again = world.post(&uri).json(&json!({ "secret": "third" })).send().await;
    assert_eq!((again.status, &again.body["code"]), (StatusCode::CONFLICT, &json!("conflict")));
    let finished = world.post(&uri).json(&json!({ "finish": true })).send().await;
    assert_eq!(
        (finished.status, &finished.body["rotation_ends_at"]),
        (StatusCode::OK, &Value::Null)
    );
    assert_eq!(finished.body.get("secret"), None);

    let own = json!({ "secret": "my-own-secret", "grace_seconds": 0 });
    let own = world.post(&uri).json(&own).send().await;
    assert_eq!((own.status, &own.body["rotation_ends_at"]), (StatusCode::OK, &Value::Null));
    assert!(!own.text.contains("my-own-secret"));
    for (body, place) in [
        (json!({ "grace_seconds": 604_801 }), "/grace_seconds"),
        (json!({ "secret": "whsec_x" }), "/secret"),
        (json!({ "finish": true, "secret": "x" }), "/secret"),
        (json!({ "grace": 1 }), "/grace"),
    ] {
        assert_eq!(world.post(&uri).json(&body).send().await.places(), [place]);
    }
    let stranger = world.anonymous(Method::POST, &uri).token(&world.stranger_token);
    assert_eq!(stranger.json(&json!({})).send().await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_rotation_and_a_ping_need_no_body() {
    let world = World::new().await;
    let created = create(&world, json!({})).await;
    for (route, status) in [("rotate-secret", StatusCode::OK), ("ping", StatusCode::ACCEPTED)] {
        let uri = format!("{URI}/{}/{route}", id(&created));
        let reply = world.post(&uri).send().await;
        assert_eq!(reply.status, status, "{route}: {}", reply.text);
        if route == "rotate-secret" {
            assert!(reply.body["secret"].as_str().is_some_and(|text| text.starts_with("whsec_")));
            world.post(&uri).json(&json!({ "finish": true })).send().await;
        }
        // As curl sends it with an empty -d.
        let reply = world.post(&uri).form("").send().await;
        assert_eq!(reply.status, status, "{route}: {}", reply.text);
    }
    // What there is has to be JSON.
    let uri = format!("{URI}/{}/rotate-secret", id(&created));
    let reply = world.post(&uri).form("grace_seconds=0").send().await;
    assert_eq!(reply.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let reply = world.post(&uri).raw_json(" ").send().await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_ping_is_answered_with_its_delivery() {
    let world = World::new().await;
    let created = create(&world, json!({})).await;
    let other = create(&world, json!({})).await;
    let reply = world.post(&format!("{URI}/{}/ping", id(&created))).send().await;
    assert_eq!(reply.status, StatusCode::ACCEPTED, "{}", reply.text);
    assert_eq!((&reply.body["seq"], &reply.body["deliveries"]), (&json!(1), &json!(1)));
    let delivery = reply.body["delivery_id"].as_str().expect("a delivery");
    let delivery = world.get(&format!("/api/v1/deliveries/{delivery}")).send().await;
    assert_eq!(delivery.body["event_type"], "system.ping");
    assert_eq!(delivery.body["subscription_id"], json!(id(&created)));
    let event = world.get(&format!("/api/v1/events/{}", id(&reply))).send().await;
    assert_eq!(event.body["envelope"]["metadata"]["triggered_by"], "acme-client");
    let list = world.get(&format!("{URI}/{}/deliveries", id(&other))).send().await;
    assert_eq!(list.body["data"], json!([]));
    let stranger = world.anonymous(Method::POST, &format!("{URI}/{}/ping", id(&created)));
    let stranger = stranger.token(&world.stranger_token).send().await;
    assert_eq!(stranger.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn health_says_how_a_subscription_fares() {
    let world = World::new().await;
    let created = create(&world, json!({})).await;
    let uri = format!("{URI}/{}", id(&created));
    let health = async || world.get(&uri).send().await.body["health"].clone();
    let nothing = json!({
        "state": "healthy",
        "failing_since": null,
        "last_success_at": null,
        "next_attempt_not_before": null,
        "waiting": 0,
        "oldest_due_at": null,
    });
    assert_eq!(health().await, nothing);
    let event = json!({ "type": "person.updated", "data": {} });
    for _ in 0..3 {
        world.post("/api/v1/events").json(&event).send().await;
    }
    world.clock.advance(Duration::from_secs(1));
    let failing =
        LaneState { failures: 10, failing_since: Some(world.esl.now()), ..Default::default() };
    for (state, name) in
        [(failing, "failing"), (LaneState { open_probes: Some(0), ..failing }, "circuit_open")]
    {
        settle(&world.storage, state, world.esl.now()).await;
        let health = health().await;
        assert_eq!(health["state"], name);
        assert_eq!(health["failing_since"], "2024-01-15T14:32:01.000Z");
        assert_eq!(
            (&health["waiting"], &health["oldest_due_at"]),
            (&json!(3), &json!("2024-01-15T14:32:00.000Z"))
        );
    }
}

/// What another engine would say of the first lane.
async fn settle(storage: &MemoryStorage, state: LaneState, at: esl_core::Timestamp) {
    let (worker, _) =
        storage.enlist(WorkerId::from_bytes([9; 16]), Tenure::default()).await.expect("an epoch");
    let lane = LaneId::new(1);
    let settlement = Settlement {
        lane,
        seq: Seq::new(1),
        outcome: Outcome::RetryAt(at),
        attempts: 1,
        charged: 1,
        at,
        status: Some(500),
        error: None,
        log: Vec::new(),
    };
    let settle = Settle {
        worker,
        settlements: vec![settlement],
        lanes: vec![(lane, state)],
        switch_offs: Vec::new(),
    };
    for result in storage.commit(vec![Unit::settle(settle)]).await.expect("storage works") {
        result.expect("the epoch runs");
    }
}

#[tokio::test]
async fn while_the_event_system_is_off_publishing_is_unavailable_and_the_rest_works() {
    let world = World::new().await;
    let esl = Esl::builder(world.storage.clone())
        .clock(std::sync::Arc::new(world.clock.clone()))
        .enabled(false)
        .build()
        .await
        .expect("an engine");
    let off = World { router: api::router(esl.clone(), ApiConfig::default()), esl, ..world };
    let created = create(&off, json!({})).await;
    assert_eq!(created.status, StatusCode::CREATED);
    let event = json!({ "type": "person.updated", "data": {} });
    let uri = format!("{URI}/{}", id(&created));
    let delivery = "/api/v1/deliveries/dlv_01HM6QTXJ0000000GJ00000001";
    for (uri, body) in [
        ("/api/v1/events".to_owned(), event),
        (format!("{uri}/ping"), json!({})),
        (format!("{uri}/replay"), json!({ "state": "missing" })),
        (format!("{delivery}/redeliver"), json!({})),
    ] {
        let reply = off.post(&uri).json(&body).send().await;
        assert_eq!(
            (reply.status, &reply.body["code"]),
            (StatusCode::SERVICE_UNAVAILABLE, &json!("unavailable")),
            "{uri}"
        );
        assert_eq!(reply.header("retry-after"), Some("60"), "{uri}");
    }
    assert_eq!(off.get(&format!("{uri}/replays")).send().await.body["data"], json!([]));
    // What only counts goes on.
    let dry = json!({ "state": "missing", "dry_run": true });
    let counted = off.post(&format!("{uri}/replay")).json(&dry).send().await;
    assert_eq!((counted.status, &counted.body), (StatusCode::OK, &json!({ "count": 0 })));
    assert_eq!(off.get("/api/v1/events").send().await.body["data"], json!([]));
}
