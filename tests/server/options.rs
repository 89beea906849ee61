//! What a subscription says of its deliveries, at a real receiver.

use std::time::Duration;

use esl_core::{Algorithm, Secret, Verifier};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::{Api, Behaviour, Folder, Received, Receiver, Server, WITH_CLIENT};

struct World {
    server: Server,
    api: Api,
    receiver: Receiver,
    _folder: Folder,
}

impl World {
    async fn new(behaviour: Behaviour) -> Self {
        let folder = Folder::new();
        let server = folder.start(&WITH_CLIENT).await;
        let api = Api::new(&server.base).await;
        let receiver = Receiver::start(behaviour).await;
        Self { server, api, receiver, _folder: folder }
    }

    async fn subscribe(&self, options: Value) -> String {
        self.api.subscribe_with(&self.receiver.url("/"), options).await
    }

    async fn publish(&self, count: u64) {
        for number in 0..count {
            self.api.publish("person.updated", number.into()).await;
        }
    }
}

fn numbers(received: &[Received]) -> Vec<u64> {
    let number = |request: &Received| request.event()["data"].as_u64().expect("a number");
    received.iter().map(number).collect()
}

#[tokio::test]
async fn its_own_headers_arrive() {
    let world = World::new(Behaviour::Accept).await;
    world
        .subscribe(json!({ "headers": { "X-Api-Key": "k 1", "Authorization": "Basic eDp5" } }))
        .await;
    world.publish(1).await;
    let request = world.receiver.first().await;
    assert_eq!(request.header("x-api-key"), Some("k 1"));
    assert_eq!(request.header("authorization"), Some("Basic eDp5"));
    world.server.stop().await;
}

#[tokio::test]
async fn its_own_retry_schedule_is_kept() {
    let world = World::new(Behaviour::statuses([500; 10])).await;
    let subscription = world.subscribe(json!({ "retry_schedule": [100, 300] })).await;
    world.publish(1).await;
    let path = format!("/api/v1/subscriptions/{subscription}/deliveries?state=exhausted");
    let list = world.api.until(&path, |list| list["data"] != json!([])).await;
    assert_eq!(list["data"][0]["attempts"], 3);
    let requests = world.receiver.so_far();
    assert_eq!(requests.len(), 3);
    for (pair, delay) in requests.windows(2).zip([100, 300]) {
        assert!(pair[1].at - pair[0].at >= Duration::from_millis(delay));
    }
    world.server.stop().await;
}

#[tokio::test]
async fn its_own_deadline_is_kept() {
    let world = World::new(Behaviour::Hang).await;
    let subscription = world.subscribe(json!({ "timeout_ms": 1000, "retry_schedule": [] })).await;
    world.publish(1).await;
    let path = format!("/api/v1/subscriptions/{subscription}/deliveries?state=exhausted");
    let list = world.api.until(&path, |list| list["data"] != json!([])).await;
    let id = list["data"][0]["id"].as_str().expect("an id");
    let (_, delivery) = world.api.get(&format!("/api/v1/deliveries/{id}")).await;
    let attempt = &delivery["attempts_log"][0];
    assert_eq!(
        (&attempt["error"], &attempt["detail"]),
        (&json!("timeout"), &json!("no answer within 1s"))
    );
    assert!(attempt["timings"]["total_ms"].as_f64().expect("a number") >= 1000.0);
    world.server.stop().await;
}

#[tokio::test]
async fn no_more_than_it_allows_are_under_way() {
    let (gate, is_open) = watch::channel(false);
    let world = World::new(Behaviour::Gate(is_open)).await;
    world.subscribe(json!({ "max_in_flight": 2 })).await;
    let other = Receiver::start(Behaviour::Accept).await;
    world.api.subscribe_with(&other.url("/"), json!({})).await;
    world.publish(20).await;
    // The neighbour has everything, so this one had time to be sent too much.
    other.first_of(20).await;
    world.receiver.first_of(2).await;
    assert_eq!(world.receiver.so_far().len(), 2);
    gate.send_replace(true);
    world.receiver.first_of(20).await;
    world.server.stop().await;
}

#[tokio::test]
async fn no_more_than_it_allows_begin_in_a_second() {
    let world = World::new(Behaviour::Accept).await;
    world.subscribe(json!({ "max_per_second": 50 })).await;
    world.publish(101).await;
    let requests = world.receiver.first_of(101).await;
    // One at once, and then fifty a second.
    let took = requests[100].at - requests[0].at;
    assert!(took >= Duration::from_millis(1900), "{took:?}");
    world.server.stop().await;
}

#[tokio::test]
async fn strict_order_holds_at_a_receiver_that_fails_and_over_a_restart() {
    const SEED: u64 = 7;
    let mut random = fastrand::Rng::with_seed(SEED);
    let statuses = (0..300).map(|_| if random.bool() { 200 } else { 503 });
    let folder = Folder::new();
    let receiver = Receiver::start(Behaviour::statuses(statuses)).await;
    let mut server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    let options = json!({ "ordering": "strict", "retry_schedule": vec![1; 100] });
    api.subscribe_with(&receiver.url("/"), options).await;
    let mut next = 0;
    for _ in 0..3 {
        let api = Api::new(&server.base).await;
        for _ in 0..40 {
            api.publish("person.updated", next.into()).await;
            next += 1;
        }
        receiver.until("some of them", |request| request.event()["data"] == next - 20).await;
        server.kill().await;
        server = folder.start(&WITH_CLIENT).await;
    }
    receiver.until("the last", |request| request.event()["data"] == next - 1).await;
    let mut sent = numbers(&receiver.so_far());
    // A retry, and what was under way at a kill, is the same event again.
    sent.dedup();
    assert_eq!(sent, (0..next).collect::<Vec<_>>(), "seed {SEED}");
    server.stop().await;
}

#[tokio::test]
async fn what_is_given_up_can_switch_it_off_and_the_organization_is_told() {
    let world = World::new(Behaviour::statuses([500])).await;
    let watcher = Receiver::start(Behaviour::Accept).await;
    world.api.subscribe(&watcher.url("/"), &["system.*"]).await;
    let options = json!({ "on_exhausted": "pause", "retry_schedule": [] });
    let subscription = world.subscribe(options).await;
    world.publish(1).await;
    let path = format!("/api/v1/subscriptions/{subscription}");
    let read = world.api.until(&path, |read| read["active"] == false).await;
    assert_eq!(read["disabled_reason"], "exhausted");
    let told = watcher.first_of(2).await;
    let mut types: Vec<_> =
        told.iter().map(|request| request.header("x-sapien-event").expect("a type")).collect();
    types.sort_unstable();
    assert_eq!(types, ["system.delivery.exhausted", "system.subscription.disabled"]);
    for request in &told {
        assert_eq!(request.event()["data"]["subscription_id"], json!(subscription));
    }
    world.server.stop().await;
}

#[tokio::test]
async fn during_a_rotation_receivers_with_either_secret_or_both_verify() {
    let world = World::new(Behaviour::Accept).await;
    let subscription = world.subscribe(json!({ "secret": "the-old-secret" })).await;
    let path = format!("/api/v1/subscriptions/{subscription}/rotate-secret");
    let rotate = async |body: Value| {
        let (status, answer) = world.api.post(&path, &body).await.expect("the server runs");
        assert_eq!(status, 200, "{answer}");
    };
    rotate(json!({ "secret": "the-new-secret", "grace_seconds": 3600 })).await;
    world.publish(1).await;
    let during = world.receiver.first().await;
    rotate(json!({ "finish": true })).await;
    world.publish(1).await;
    let after = world.receiver.first_of(2).await.remove(1);

    let (old, new, both) =
        (vec!["the-old-secret"], vec!["the-new-secret"], vec!["the-new-secret", "the-old-secret"]);
    for (request, secrets, is_right) in [
        (&during, &old, true),
        (&during, &new, true),
        (&during, &both, true),
        (&after, &old, false),
        (&after, &new, true),
        (&after, &both, true),
    ] {
        let secrets = || secrets.iter().map(|text| Secret::new(*text).expect("a secret"));
        for verifier in
            [Verifier::standard(secrets()), Verifier::sapien(secrets(), Algorithm::Sha256)]
        {
            let verified = verifier.verify_now(|name| request.header(name), &request.body);
            assert_eq!(verified.is_ok(), is_right, "{verified:?}");
        }
    }
    world.server.stop().await;
}

#[tokio::test]
async fn a_ping_arrives_whatever_the_patterns_are() {
    let world = World::new(Behaviour::Accept).await;
    let subscription = world.subscribe(json!({})).await;
    let path = format!("/api/v1/subscriptions/{subscription}/ping");
    let (status, answer) = world.api.post(&path, &json!({})).await.expect("the server runs");
    assert_eq!(status, 202, "{answer}");
    let request = world.receiver.first().await;
    assert_eq!(request.header("x-sapien-event"), Some("system.ping"));
    assert_eq!(request.header("x-sapien-delivery"), answer["delivery_id"].as_str());
    world.server.stop().await;
}
