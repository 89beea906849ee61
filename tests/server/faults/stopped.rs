//! The process stands still for a while: SIGSTOP and SIGCONT, a machine that is suspended.

use std::{collections::HashSet, time::Duration};

use serde_json::json;
use tokio::{task::JoinSet, time::sleep};

use super::until_all_came;
use crate::support::{Api, Behaviour, Folder, Receiver, WITHOUT_LIMIT, in_time};

const STOPS: usize = 3;
const PUBLISHERS: usize = 4;
/// So many each, between one stop and the next.
const EACH: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stood_still_goes_on_where_it_was() {
    stand_still(Duration::from_secs(1)).await;
}

/// `ESL_TEST_STOP_SECONDS` makes it longer.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "stands still for longer than an epoch lasts"]
async fn a_server_that_stood_still_for_longer_than_an_epoch_goes_on_where_it_was() {
    let seconds = std::env::var("ESL_TEST_STOP_SECONDS");
    let seconds = seconds.map_or(35, |seconds| seconds.parse().expect("so many seconds"));
    stand_still(Duration::from_secs(seconds)).await;
}

async fn stand_still(duration: Duration) {
    let folder = Folder::new();
    let server = folder.start(&WITHOUT_LIMIT).await;
    let api = Api::new(&server.base).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    let subscription = api.subscribe(&receiver.url("/"), &["person.*"]).await;
    let mut acknowledged = Vec::new();
    for _ in 0..STOPS {
        let mut publishers = JoinSet::new();
        for _ in 0..PUBLISHERS {
            let api = api.clone();
            publishers.spawn(async move {
                let mut acknowledged = Vec::new();
                while acknowledged.len() < EACH {
                    acknowledged.extend(publish(&api).await);
                }
                acknowledged
            });
        }
        // In the midst of it.
        receiver.until("deliveries", |_| true).await;
        server.signal("STOP").await;
        sleep(duration).await;
        server.signal("CONT").await;
        while let Some(published) = in_time("a publisher's last", publishers.join_next()).await {
            acknowledged.extend(published.expect("no publisher panics"));
        }
    }
    let count = acknowledged.len();
    until_all_came(&receiver, acknowledged).await;
    let owed = format!("/api/v1/subscriptions/{subscription}/deliveries?state=pending");
    api.until(&owed, |list| list["data"] == json!([])).await;
    let sent = receiver.so_far();
    let deliveries: HashSet<_> = sent.iter().map(|one| one.header("x-sapien-delivery")).collect();
    let twice = sent.len() - deliveries.len();
    println!("{STOPS} stops of {duration:?}: {count} acknowledged, 0 lost, {twice} sent twice");
    server.stop().await;
}

/// Publishes an event; gives its id if it was acknowledged. A connection on which nothing was heard
/// for too long is closed, which is as clear as a refusal.
async fn publish(api: &Api) -> Option<String> {
    let body = json!({ "type": "person.updated", "data": "x" });
    let (status, answer) = api.post("/api/v1/events", &body).await.ok()?;
    assert!(status == 202 || status == 503, "{status} {answer}");
    (status == 202).then(|| answer["id"].as_str().expect("an id").to_owned())
}
