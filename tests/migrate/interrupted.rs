//! A file that is moved with interruptions, and what goes out afterwards.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    check::{said, seen_by},
    moving::Moving,
    support::{Api, Behaviour, Receiver, WITHOUT_LIMIT, curl, in_time},
};

/// Of each kind: those that are delivered before, and those that wait.
const EVENTS: usize = 10_000;
const ARRAY: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_delivered_is_not_sent_again_and_what_waits_is_sent_once() {
    let moving = Moving::new();
    let folder = &moving.folder;
    let (taken, waiting) =
        (Receiver::start(Behaviour::Accept).await, Receiver::start(Behaviour::Accept).await);
    let failing = Receiver::start(Behaviour::statuses([500; 64])).await;
    let server = folder.start(&WITHOUT_LIMIT).await;
    let api = Api::new(&server.base).await;
    api.subscribe(&taken.url("/"), &["person.*"]).await;
    let paused = api.subscribe(&waiting.url("/"), &["company.*"]).await;
    pause(&api, &paused, true).await;
    let retried = api.subscribe(&failing.url("/"), &["failure.*"]).await;

    publish(&api, "person.updated").await;
    let mut delivered = BTreeSet::new();
    in_time("all that is delivered", async {
        while delivered.len() < EVENTS {
            delivered.extend(taken.take().await.iter().map(id));
        }
    })
    .await;
    let pending = publish(&api, "company.updated").await;
    let failed = api.publish("failure.seen", json!({ "text": "nul \u{0} and ü" })).await;
    attempted(&api, &retried).await;
    let token = token(&server.base).await;
    let announce = ["maintenance", "announce", "--announce-at", "2098-01-01T00:00:00Z"];
    let when = ["--starts-at", "2099-01-01T00:00:00Z", "--ends-at", "2099-01-02T00:00:00Z"];
    let announced = [&announce[..], &when, &["--message", "ü"]].concat();
    assert_eq!(folder.run(&announced, &[]).await.code, Some(0));
    server.stop().await;
    let places =
        [("organizations", 0), ("events", 0), ("events", 10_000), ("open", 0), ("audit", 0)];
    for (table, rows) in places {
        moving.migrate_and_kill_in(table, rows).await;
        let refused = moving.run(&["serve"], &[]).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("that is not finished"), "{refused:?}");
        let refused = folder.run(&["serve"], &WITHOUT_LIMIT).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("it is being moved to postgres://"), "{refused:?}");
    }
    let moved = moving.migrated().await;
    assert_eq!((&moved["outcome"], &moved["resumed"]), (&json!("moved"), &json!(true)));
    let rows = |table: &str| {
        let all = moved["tables"].as_array().expect("a list");
        let one = all.iter().find(|one| one["table"] == table).expect("that table");
        one["rows"].as_u64().expect("a number")
    };
    let events = u64::try_from(EVENTS).expect("it is small");
    assert_eq!(rows("closed"), events);
    assert_eq!(rows("open"), events + 1);
    assert!(
        rows("events") > 2 * events && rows("attempts") > 0 && rows("scheduled") > 0,
        "{moved}"
    );
    let again = moving.migrated().await;
    assert_eq!(again["outcome"], "already_moved");
    let refused = folder.run(&["serve"], &WITHOUT_LIMIT).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("it was moved to postgres://"), "{refused:?}");

    let server = moving.start().await;
    let api = Api::new(&server.base).await;
    assert_eq!(curl(&["-H", &token, &server.url("/api/v1/events")]).await.status, 200);
    pause(&api, &paused, false).await;
    let sent = waiting.first_of(EVENTS).await;
    let ids: BTreeSet<String> = sent.iter().map(id).collect();
    assert_eq!(ids, pending);
    // Whoever comes last is behind all that would have been sent again.
    let last = api.publish("person.updated", json!("last")).await;
    let first = taken.first().await;
    assert_eq!(id(&first), last);
    assert!(!delivered.contains(&last) && failing.so_far().iter().all(|one| id(one) == failed));
    let left = format!("/api/v1/subscriptions/{paused}/deliveries?state=pending");
    api.until(&left, |found| found["data"] == json!([])).await;
    assert_eq!((waiting.so_far().len(), taken.so_far().len()), (EVENTS, 1));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_the_new_database_shows_what_the_old_one_showed() {
    let moving = Moving::new();
    let folder = &moving.folder;
    let failing = Receiver::start(Behaviour::statuses([500, 410])).await;
    let server = folder.start(&WITHOUT_LIMIT).await;
    let api = Api::new(&server.base).await;
    let options = json!({
        "secret": "my-secret-123", "headers": { "Authorization": "Bearer own" },
        "description": "nul \u{0}, ü, \u{1f600}", "metadata": { "a": [1, null] },
        "retry_schedule": [3_600_000, 3_600_000], "timeout_ms": 1500, "ordering": "strict",
    });
    let subscription = api.subscribe_with(&failing.url("/"), options).await;
    for text in ["", "nul \u{0}", "ü \u{1f600}", &"long".repeat(30_000)] {
        api.publish("person.updated", json!({ "text": text })).await;
    }
    attempted(&api, &subscription).await;
    pause(&api, &subscription, true).await;
    server.stop().await;

    // By a server that neither sends nor changes anything any more.
    let server = folder.start(&WITHOUT_LIMIT).await;
    let before = seen_by(&Api::new(&server.base).await).await;
    server.stop().await;
    let audit = said(&folder.run(&["audit", "--org", "shop", "--json"], &[]).await);
    let organizations = said(&folder.run(&["org", "list", "--json"], &[]).await);
    moving.migrated().await;
    let server = moving.start().await;
    let after = seen_by(&Api::new(&server.base).await).await;
    server.stop().await;
    assert_eq!(after.len(), before.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
    assert!(before.len() > 12, "{before:?}");
    assert_eq!(said(&moving.run(&["audit", "--org", "shop", "--json"], &[]).await), audit);
    assert_eq!(said(&moving.run(&["org", "list", "--json"], &[]).await), organizations);
}

/// Waits until a send to a subscription has failed.
async fn attempted(api: &Api, subscription: &str) {
    let deliveries = format!("/api/v1/subscriptions/{subscription}/deliveries");
    let has_failed = |found: &Value| {
        let all = found["data"].as_array().expect("a list");
        all.iter().any(|one| one["attempts"].as_u64().is_some_and(|attempts| attempts > 0))
    };
    api.until(&deliveries, has_failed).await;
}

async fn pause(api: &Api, subscription: &str, is_paused: bool) {
    let path = format!("/api/v1/subscriptions/{subscription}");
    let (status, changed) = api.patch(&path, &json!({ "active": !is_paused })).await;
    assert_eq!(status, 200, "{changed}");
}

/// A token as a header.
async fn token(base: &str) -> String {
    let form = "grant_type=client_credentials&client_id=shop\
                &client_secret=0123456789abcdef0123456789abcdef";
    let answer = curl(&["-d", form, &format!("{base}/oauth/token")]).await.json();
    format!("Authorization: Bearer {}", answer["access_token"].as_str().expect("a token"))
}

/// Publishes many events; gives their ids.
async fn publish(api: &Api, event_type: &str) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for first in (0..EVENTS).step_by(ARRAY) {
        let event = |number| json!({ "type": event_type, "data": number });
        let events: Value = (first..first + ARRAY).map(event).collect();
        let (status, answer) = api.post("/api/v1/events", &events).await.expect("the server runs");
        assert_eq!(status, 202, "{answer}");
        let published = answer["data"].as_array().expect("a list");
        ids.extend(published.iter().map(|one| one["id"].as_str().expect("an id").to_owned()));
    }
    ids
}

fn id(request: &crate::support::Received) -> String {
    request.event()["id"].as_str().expect("an id").to_owned()
}
