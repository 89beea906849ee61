//! Receivers that do everything wrong, each in its own way, beside one that does nothing wrong.

use std::{collections::HashSet, fs};

use serde_json::json;

use super::wrong::{Wrong, receivers};
use crate::support::{Api, Authority, Behaviour, Folder, Receiver, WITHOUT_LIMIT, memory_peak_kib};

const EVENTS: u64 = 200;
/// Far more than is needed, and far less than the gigabytes that are sent.
const MEMORY_KIB_MAX: u64 = 256 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_receivers_do_wrong_is_named_and_bounded_and_costs_a_healthy_one_nothing() {
    let folder = Folder::new();
    let authority = Authority::new();
    let ca_file = folder.database().with_file_name("ca.pem");
    fs::write(&ca_file, authority.pem()).expect("it can be written");
    let ca_file = ca_file.to_str().expect("UTF-8");
    let server = folder.start(&[&WITHOUT_LIMIT[..], &[("ESL_CA_FILE", ca_file)]].concat()).await;
    let api = Api::new(&server.base).await;

    let all = receivers(&authority).await;
    let mut subscriptions = Vec::new();
    for wrong in &all {
        let options = json!({ "timeout_ms": 1000, "retry_schedule": [] });
        subscriptions.push(api.subscribe_with(&wrong.url, options).await);
    }
    let healthy = Receiver::start(Behaviour::Accept).await;
    api.subscribe(&healthy.url("/"), &["person.*"]).await;
    let mut wanted = HashSet::new();
    for number in 0..EVENTS {
        wanted.insert(api.publish("person.updated", number.into()).await);
    }
    healthy
        .until("all events at the healthy receiver", |request| {
            wanted.remove(request.event()["id"].as_str().expect("an id"));
            wanted.is_empty()
        })
        .await;

    for (wrong, subscription) in all.iter().zip(&subscriptions) {
        says(&api, wrong, subscription).await;
    }
    let peak = memory_peak_kib(server.id());
    println!("{} bad receivers, {EVENTS} events: {} MiB at most", all.len(), peak / 1024);
    assert!(peak < MEMORY_KIB_MAX, "{peak} KiB");
    assert_eq!(api.get("/health").await.0, 200);
    server.stop().await;
}

/// Waits for an attempt's end, and for its being told as it should.
async fn says(api: &Api, wrong: &Wrong, subscription: &str) {
    let what = wrong.what;
    let state = if wrong.error.is_empty() { "delivered" } else { "exhausted" };
    let path = format!("/api/v1/subscriptions/{subscription}/deliveries?state={state}");
    let list = api.until(&path, |list| list["data"] != json!([])).await;
    let id = list["data"][0]["id"].as_str().expect("an id");
    let (_, delivery) = api.get(&format!("/api/v1/deliveries/{id}")).await;
    assert_eq!(delivery["attempts"], 1, "{what}: {delivery}");
    assert_eq!(delivery["last_status"], json!(wrong.status), "{what}: {delivery}");
    if state == "delivered" {
        assert_eq!(delivery["last_error"], json!(null), "{what}: {delivery}");
        return;
    }
    assert_eq!(delivery["last_error"], wrong.error, "{what}: {delivery}");
    let attempt = &delivery["attempts_log"][0];
    let detail = attempt["detail"].as_str().unwrap_or_default();
    assert!(detail.contains(wrong.detail), "{what}: {attempt}");
    assert!(detail.len() <= 1024, "{what}: {attempt}");
}
