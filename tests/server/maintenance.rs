//! The command `maintenance`, beside a running server.

use std::time::Duration;

use esl_core::{Clock, SystemClock};
use serde_json::json;

use crate::support::{Api, Behaviour, CLIENT, Folder, Receiver, WITH_CLIENT};

#[tokio::test]
async fn maintenance_reaches_whoever_subscribed_to_it_at_its_time_over_a_kill() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    api.subscribe(&receiver.url("/"), &["system.maintenance.*"]).await;
    folder.json(&["org", "create", "Other"]).await;
    let window = ["maintenance", "announce", "--starts-at", "2100-01-01T00:00:00Z", "--ends-at"];
    let announce = |ends_at: &'static str, rest: &[&'static str]| {
        let mut arguments = window.to_vec();
        arguments.extend([ends_at, "--message", "The disks are exchanged."]);
        arguments.extend(rest);
        arguments
    };
    let told = folder.json(&announce("2100-01-01T01:00:00Z", &[])).await;
    assert_eq!(told["organizations"], 2, "{told}");
    let event = receiver.take().await[0].event();
    assert_eq!(told["id"], event["id"]);
    assert_eq!(event["type"], "system.maintenance.scheduled");
    let data = json!({
        "starts_at": "2100-01-01T00:00:00.000Z",
        "ends_at": "2100-01-01T01:00:00.000Z",
        "message": "The disks are exchanged.",
    });
    assert_eq!(event["data"], data);

    // Two seconds from now, and nobody there when they are over.
    let at = SystemClock::new().utc() + Duration::from_secs(2);
    let mut body = data.clone();
    body["announce_at"] = json!(at);
    let (status, later) = api.post("/api/admin/maintenance", &body).await.expect("it runs");
    assert_eq!((status, &later["announce_at"]), (202, &json!(at)));
    server.kill().await;
    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    // The first one may come again: it was perhaps not settled before the kill.
    let event = loop {
        let mut events = receiver.take().await.into_iter().map(|request| request.event());
        if let Some(event) = events.find(|event| event["id"] == later["id"]) {
            break event;
        }
    };
    assert_eq!(event["timestamp"], json!(at));

    for wrong in [
        announce("2099-01-01T00:00:00Z", &[]),
        announce("2100-01-01T01:00:00Z", &["--announce-at", "2101-01-01T00:00:00Z"]),
        announce("2100-01-01T01:00:00Z", &["--org", "Nobody"]),
    ] {
        assert_eq!(folder.run(&wrong, &[]).await.code, Some(1), "{wrong:?}");
    }
    let later = ["--org", CLIENT, "--announce-at", "2099-01-01T00:00:00Z"];
    let one = folder.json(&announce("2100-01-01T01:00:00Z", &later)).await;
    let waits = json!([{
        "id": one["id"], "announce_at": "2099-01-01T00:00:00.000Z", "organizations": 1,
    }]);
    let list = ["maintenance", "list"];
    assert_eq!(folder.json(&list).await, waits);
    let (_, seen) = api.get("/api/admin/maintenance").await;
    assert_eq!(seen["data"][0]["id"], one["id"]);
    let cancel = ["maintenance", "cancel", one["id"].as_str().expect("an id")];
    assert_eq!(folder.run(&cancel, &[]).await.code, Some(0));
    assert_eq!(folder.run(&cancel, &[]).await.code, Some(1));
    assert_eq!(folder.json(&list).await, json!([]));
    server.stop().await;
}
