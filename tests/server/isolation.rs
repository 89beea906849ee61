//! A receiver that hangs is nobody else's trouble. How little is a bench's to say.

use std::collections::HashSet;

use serde_json::json;

use crate::support::{Api, Behaviour, CLIENT, Folder, Receiver, WITH_CLIENT};

const HUNG: usize = 100;
const EVENTS: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_receiver_gets_everything_while_100_others_hang() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    folder.json(&["org", "set", CLIENT, "--tier", "none"]).await;
    api.until("/api/v1/organization", |organization| organization["tier"].is_null()).await;
    let hung = Receiver::start(Behaviour::Hang).await;
    let mut silent = Vec::new();
    for number in 0..HUNG {
        silent.push(api.subscribe(&hung.url(&format!("/{number}")), &["*"]).await);
    }
    // Work for the hung ones first, so that they take whatever they can get.
    let first = json!(vec![json!({ "type": "person.created", "data": 0 }); 100]);
    let (status, _) = api.post("/api/v1/events", &first).await.expect("the server runs");
    assert_eq!(status, 202);
    hung.until("a request to a hung receiver", |_| true).await;

    let healthy = Receiver::start(Behaviour::Accept).await;
    api.subscribe(&healthy.url("/"), &["person.updated"]).await;
    let mut wanted = HashSet::new();
    for number in 0..EVENTS {
        wanted.insert(api.publish("person.updated", number.into()).await);
    }
    let what = "all events at the healthy receiver";
    healthy
        .until(what, |request| {
            wanted.remove(request.event()["id"].as_str().expect("an id"));
            wanted.is_empty()
        })
        .await;

    let url = format!("/api/v1/subscriptions/{}/deliveries?state=delivered", silent[0]);
    let (_, delivered) = api.get(&url).await;
    assert_eq!(delivered["data"], json!([]), "a hung receiver has accepted nothing");
    server.kill().await;
}
