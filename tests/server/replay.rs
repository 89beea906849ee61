//! A replay goes on over the death of its server.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{Api, Behaviour, Folder, Receiver, WITHOUT_LIMIT, random};

const EVENTS: usize = 50_000;
const ARRAY: usize = 1_000;
const PER_SECOND: usize = 5_000;

/// Deliveries that the server opens in one step at that pace.
const STEP: usize = 500;
/// A step is made when fewer than so many wait in the server's hand.
const IN_HAND: usize = 256;
/// Sends under way in one lane.
const IN_FLIGHT: usize = 32;
/// What was sent and is not settled arrives again: what is being settled when the server dies, and what
/// was sent since that commit began. Before it and since, each time at most what was under way, what
/// was in hand, the step that followed it, and one that storage made while it was writing already.
const TWICE_MAX: usize = 2 * (IN_FLIGHT + IN_HAND + 2 * STEP);

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_goes_on_after_a_kill_and_opens_nothing_twice() {
    let kill_after = random().usize(EVENTS / 5 * 2 - STEP..EVENTS / 5 * 2 + STEP);
    let folder = Folder::new();
    let server = folder.start(&WITHOUT_LIMIT).await;
    let api = Api::new(&server.base).await;
    publish_all(&api).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    let subscription = api.subscribe(&receiver.url("/"), &["person.*"]).await;
    let began = Instant::now();
    let replay = begin(&api, &subscription).await;

    let mut arrived = Arrived::default();
    let mut live = Live::default();
    while arrived.stored < kill_after {
        arrived.take_in(&receiver).await;
        live.publish(&api).await;
    }
    // One step comes at once, and one that was late is caught up with.
    let opened_at_least = u32::try_from(kill_after - 2 * STEP).expect("it is small");
    assert!(began.elapsed() >= Duration::from_secs(1) * opened_at_least / 5_000, "too quick");
    let before = progress(&api, &replay).await;
    server.kill().await;
    assert_eq!(before["state"], "running", "{before}");
    assert!(opened(&before) >= arrived.stored, "{before}: {} have arrived", arrived.stored);
    assert_eq!(before["position"], before["opened"], "all events are wanted: {before}");

    let server = folder.start(&WITHOUT_LIMIT).await;
    let api = Api::new(&server.base).await;
    let after = progress(&api, &replay).await;
    assert!(opened(&after) >= opened(&before), "{before}, and then {after}");
    while arrived.stored < EVENTS {
        arrived.take_in(&receiver).await;
        live.publish(&api).await;
    }
    while arrived.live < live.published {
        arrived.take_in(&receiver).await;
    }
    let path = format!("/api/v1/replays/{replay}");
    let done = api.until(&path, |replay| replay["state"] == "done").await;
    assert_eq!((opened(&done), &done["to_seq"]), (EVENTS, &json!(EVENTS)), "{done}");
    println!(
        "killed at {kill_after} of {EVENTS}: {} have arrived twice (at most {TWICE_MAX} may), and {} \
         live events; {:.1?} in all",
        arrived.again,
        live.published,
        began.elapsed()
    );
    assert!(arrived.again <= TWICE_MAX, "{} have arrived twice", arrived.again);
    server.stop().await;
}

/// Publishes what is to be replayed: each event is its number.
async fn publish_all(api: &Api) {
    for first in (0..EVENTS).step_by(ARRAY) {
        let event = |number| json!({ "type": "person.updated", "data": number });
        let events: Value = (first..first + ARRAY).map(event).collect();
        let (status, answer) = api.post("/api/v1/events", &events).await.expect("the server runs");
        assert_eq!(status, 202, "{answer}");
    }
}

/// Begins to send all that the subscription never had; gives the replay's id.
async fn begin(api: &Api, subscription: &str) -> String {
    let path = format!("/api/v1/subscriptions/{subscription}/replay");
    let body = json!({ "state": "missing", "max_per_second": PER_SECOND });
    let (status, replay) = api.post(&path, &body).await.expect("the server runs");
    assert_eq!(status, 202, "{replay}");
    replay["id"].as_str().expect("an id").to_owned()
}

async fn progress(api: &Api, replay: &str) -> Value {
    let (status, replay) = api.get(&format!("/api/v1/replays/{replay}")).await;
    assert_eq!(status, 200, "{replay}");
    replay
}

fn opened(replay: &Value) -> usize {
    usize::try_from(replay["opened"].as_u64().expect("a number")).expect("it is small")
}

/// What is published while the replay runs: the numbers after those that were stored.
#[derive(Debug, Default)]
struct Live {
    published: usize,
}

impl Live {
    async fn publish(&mut self, api: &Api) {
        api.publish("person.updated", json!(EVENTS + self.published)).await;
        self.published += 1;
    }
}

/// What the receiver was sent.
#[derive(Debug, Default)]
struct Arrived {
    times: HashMap<usize, usize>,
    /// Different ones of the stored events.
    stored: usize,
    /// Different ones of those that were published meanwhile.
    live: usize,
    /// Arrivals of what had arrived before.
    again: usize,
}

impl Arrived {
    async fn take_in(&mut self, receiver: &Receiver) {
        for request in receiver.take().await {
            let number = request.event()["data"].as_u64().expect("a number");
            let number = usize::try_from(number).expect("it is small");
            let times = self.times.entry(number).or_default();
            *times += 1;
            match (*times, number) {
                (1, 0..EVENTS) => self.stored += 1,
                (1, _) => self.live += 1,
                _ => self.again += 1,
            }
        }
    }
}
