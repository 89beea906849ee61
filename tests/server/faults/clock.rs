//! The machine's clock is set back, while the server runs and across a restart. libfaketime is the
//! clock; what counts time that never goes back is left alone.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde_json::json;

use super::until_all_came;
use crate::support::{Api, Behaviour, CLIENT, Folder, Receiver, WITH_CLIENT};

const HOUR: i64 = 3600;

#[tokio::test]
#[ignore = "needs libfaketime"]
async fn an_hour_that_comes_again_delays_nothing_sends_nothing_early_and_counts_once() {
    let folder = Folder::new();
    let clock = folder.path().join("clock");
    let begin = into_an_hour();
    set(&clock, begin);
    let library = library();
    let library = library.to_str().expect("UTF-8");
    let variables = [
        &WITH_CLIENT[..],
        &[
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", clock.to_str().expect("UTF-8")),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ],
    ]
    .concat();
    let server = folder.start(&variables).await;
    folder.json(&["org", "set", CLIENT, "--events-per-hour", "10"]).await;
    let api = Api::new(&server.base).await;
    api.until("/api/v1/organization", |organization| {
        organization["limits"]["events_per_hour"] == 10
    })
    .await;
    let prompt = Receiver::start(Behaviour::statuses([500])).await;
    let (soon, later) =
        (json!({ "retry_schedule": [3000] }), json!({ "retry_schedule": [600_000] }));
    let prompted = api.subscribe_with(&prompt.url("/"), soon).await;
    let patient = Receiver::start(Behaviour::statuses([500])).await;
    api.subscribe_with(&patient.url("/"), later).await;

    let mut ids = vec![api.publish("person.updated", 1.into()).await];
    prompt.first().await;
    patient.first().await;
    set(&clock, begin - HOUR);
    let again = prompt.first_of(2).await;
    assert_eq!(again[1].header("x-sapien-attempt"), Some("2"), "its retry has come");
    for number in 2..=5 {
        ids.push(api.publish("person.updated", number.into()).await);
    }
    until_all_came(&prompt, ids.clone()).await;
    // A token from before is good, and so is one of now.
    let api = Api::new(&server.base).await;
    ids.push(api.publish("person.updated", 6.into()).await);
    let waiting = Receiver::start(Behaviour::statuses([500])).await;
    let soon = json!({ "retry_schedule": [3000] });
    let subscription = api.subscribe_with(&waiting.url("/"), soon).await;
    ids.push(api.publish("person.updated", 7.into()).await);
    let deliveries = format!("/api/v1/subscriptions/{subscription}/deliveries");
    api.until(&deliveries, |list| list["data"][0]["attempts"] != 0).await;
    server.kill().await;
    let times: Vec<&str> = ids.iter().map(|id| &id["evt_".len()..][..10]).collect();
    assert!(times.is_sorted(), "the time in an id does not go back: {ids:?}");

    // Only now does the server's own time go back.
    let server = folder.start(&variables).await;
    let api = Api::new(&server.base).await;
    waiting.first_of(2).await;
    for number in 8..=10 {
        ids.push(api.publish("person.updated", number.into()).await);
    }
    until_all_came(&prompt, ids.clone()).await;
    let (_, list) = api.get(&format!("/api/v1/subscriptions/{prompted}/deliveries")).await;
    let in_order: Vec<_> = list["data"].as_array().expect("a list").iter().rev().collect();
    let seqs: Vec<_> = in_order.iter().map(|one| one["seq"].as_u64().expect("a seq")).collect();
    assert!(seqs.is_sorted(), "{seqs:?}");
    assert!(in_order.iter().zip(&ids).all(|(one, id)| one["event_id"] == **id), "{list}");
    let body = json!({ "type": "person.updated", "data": 11 });
    let (status, answer) = api.post("/api/v1/events", &body).await.expect("the server runs");
    assert_eq!((status, &answer["code"]), (429, &json!("rate_limited")), "{answer}");
    let early = patient.so_far().iter().filter(|request| request.event()["data"] == 1).count();
    assert_eq!(early, 1, "what is due in ten minutes is not sent early");
    server.stop().await;
}

/// Ten minutes into some hour, so that none ends while the case runs: by how much the clock is moved.
fn into_an_hour() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970");
    let now = i64::try_from(now.as_secs()).expect("it is before the end of time");
    600 - now % HOUR
}

fn set(clock: &Path, offset: i64) {
    // All at once: the server reads it whenever it looks at the clock.
    let fresh = clock.with_extension("new");
    fs::write(&fresh, format!("{offset:+}")).expect("it can be written");
    fs::rename(fresh, clock).expect("it can be replaced");
}

/// Debian's package `faketime` has it, in a folder that is named after the machine.
fn library() -> PathBuf {
    let libraries = fs::read_dir("/usr/lib").expect("it is there").flatten();
    let mut paths = libraries.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    paths.find(|path| path.exists()).expect("libfaketime is installed: this case needs it")
}
