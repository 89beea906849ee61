//! `ESL_ENABLED=false`: nothing is recorded or sent, and everything else goes on.

use std::time::Duration;

use esl_core::{Clock, SystemClock};
use serde_json::json;

use crate::support::{Api, Behaviour, Folder, Receiver, WITH_CLIENT};

#[tokio::test]
async fn while_it_is_off_nothing_is_recorded_or_sent_and_afterwards_all_goes_on() {
    let folder = Folder::new();
    let receiver = Receiver::start(Behaviour::statuses([500])).await;

    // One delivery is given up, and one is held.
    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    let options = json!({ "retry_schedule": [], "ordering": "strict" });
    let subscription = api.subscribe_with(&receiver.url("/"), options).await;
    let one = format!("/api/v1/subscriptions/{subscription}");
    let deliveries = format!("{one}/deliveries");
    api.publish("person.updated", 1.into()).await;
    let given_up = api.until(&deliveries, |list| list["data"][0]["state"] == "exhausted").await;
    let given_up = given_up["data"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(api.patch(&one, &json!({ "active": false })).await.0, 200);
    let held = api.publish("person.updated", 2.into()).await;
    server.stop().await;

    let off = [WITH_CLIENT[0], WITH_CLIENT[1], ("ESL_ENABLED", "false")];
    let server = folder.start(&off).await;
    let api = Api::new(&server.base).await;
    let (status, resumed) = api.patch(&one, &json!({ "active": true })).await;
    assert_eq!((status, &resumed["active"]), (200, &json!(true)));
    let second = api.subscribe(&receiver.url("/"), &["order.*"]).await;
    for (path, body) in [
        ("/api/v1/events", json!({ "type": "person.updated", "data": 3 })),
        (&format!("{one}/ping"), json!({})),
        (&format!("{one}/replay"), json!({})),
        (&format!("/api/v1/deliveries/{given_up}/redeliver"), json!({})),
    ] {
        let (status, answer) = api.post(path, &body).await.expect("the server runs");
        assert_eq!((status, &answer["code"]), (503, &json!("unavailable")), "{path}: {answer}");
    }
    let states = |list: &serde_json::Value| {
        let list = list["data"].as_array().expect("a list").iter();
        list.map(|delivery| delivery["state"].clone()).collect::<Vec<_>>()
    };
    let (_, list) = api.get(&deliveries).await;
    assert_eq!(states(&list), ["pending", "exhausted"]);
    let (_, replays) = api.get(&format!("{one}/replays")).await;
    assert_eq!(replays["data"], json!([]));
    let (status, health) = api.get("/health").await;
    assert_eq!((status, &health["status"]), (200, &json!("healthy")));
    server.stop().await;
    assert_eq!(receiver.so_far().len(), 1, "only what was sent before");

    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    let sent = receiver.first_of(2).await;
    assert_eq!(sent[1].event()["id"], json!(held));
    assert_eq!(api.get(&format!("/api/v1/subscriptions/{second}")).await.0, 200);
    let events = api.get("/api/v1/events?type=person.updated").await.1;
    assert_eq!(events["data"].as_array().map(Vec::len), Some(2));
    server.stop().await;
}

#[tokio::test]
async fn while_it_is_off_entities_are_written_and_nothing_is_published_of_them() {
    let folder = Folder::new();
    let receiver = Receiver::start(Behaviour::Accept).await;
    let off = [WITH_CLIENT[0], WITH_CLIENT[1], ("ESL_ENABLED", "false")];
    let server = folder.start(&off).await;
    let api = Api::new(&server.base).await;
    api.subscribe(&receiver.url("/"), &["*"]).await;
    let person = api.create("/api/persons", &json!({ "name": "John Smith" })).await;
    let person = format!("/api/persons/{person}");
    let (status, changed) = api.patch(&person, &json!({ "name": "John Doe" })).await;
    assert_eq!((status, &changed["name"]), (200, &json!("John Doe")));
    let toy = api.create("/api/toys", &json!({ "name": "Ball" })).await;
    assert_eq!(api.delete(&format!("/api/toys/{toy}")).await.0, 204);
    // By the clock, too.
    let soon = SystemClock::new().utc() + Duration::from_secs(2);
    let user = "/api/availability/users/user_1";
    let busy = json!({ "status": "busy", "effective_until": soon });
    assert_eq!(api.put(user, &busy).await.0, 201);
    api.until(user, |user| user["status"] == "offline").await;
    assert_eq!(api.all("/api/v1/events").await, [json!(null); 0]);
    server.stop().await;

    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    assert_eq!(api.all("/api/persons").await, [changed]);
    assert_eq!(api.all("/api/toys").await, [json!(null); 0]);
    api.patch(&person, &json!({ "name": "Jane Doe" })).await;
    let event = receiver.first().await.event();
    let changes = json!({ "name": { "old": "John Doe", "new": "Jane Doe" } });
    assert_eq!((&event["type"], &event["changes"]), (&json!("person.updated"), &changes));
    assert_eq!(api.all("/api/v1/events").await.len(), 1, "nothing of before is made up for");
    server.stop().await;
}
