//! SIGKILL in the midst of publishing: what was acknowledged arrives, with its first id.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinSet};

use crate::support::{Api, Behaviour, Folder, Receiver, WITHOUT_LIMIT, in_time, kills, random};

const ROUNDS: u32 = 10;
const EVENTS: usize = 20_000;
/// So many publish at once, one half single events and the other arrays.
const PUBLISHERS: usize = 8;
const ARRAY: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_event_arrives_with_its_first_id_whenever_the_server_is_killed() {
    let mut random = random();
    let folder = Folder::new();
    let receiver = Receiver::start(Behaviour::Accept).await;
    let server = folder.start(&WITHOUT_LIMIT).await;
    Api::new(&server.base).await.subscribe(&receiver.url("/"), &["person.*"]).await;
    server.stop().await;

    let acknowledged = Arc::new(Acknowledged::default());
    let mut arrived = Arrived::default();
    let rounds = usize::try_from(kills(ROUNDS)).expect("it is small");
    // Each round is killed within another stretch of its publishes; none after the last one.
    let stretch = EVENTS / (rounds + 1);
    for round in 0..rounds {
        let kill_after = round * stretch + random.usize(1..=stretch);
        let server = folder.start(&WITHOUT_LIMIT).await;
        let api = Api::new(&server.base).await;
        let before = acknowledged.count();
        let numbers = Arc::new(AtomicUsize::new(round * EVENTS));
        let end = (round + 1) * EVENTS;
        let mut publishers = JoinSet::new();
        for publisher in 0..PUBLISHERS {
            let (api, numbers) = (api.clone(), numbers.clone());
            let size = if publisher % 2 == 0 { 1 } else { ARRAY };
            publishers.spawn(publish(api, numbers, end, size, acknowledged.clone()));
        }
        acknowledged.reach(before + kill_after).await;
        server.kill().await;
        publishers.join_all().await;
        let count = acknowledged.count() - before;
        println!("round {round}: killed at {kill_after}, {count} acknowledged of {EVENTS}");

        let server = folder.start(&WITHOUT_LIMIT).await;
        arrived.take_in(&receiver, &acknowledged.ids()).await;
        // Killed again, with nothing to do: an idle server has nothing to lose either.
        server.kill().await;
    }
}

/// Publishes numbers until they are used up or the server is gone.
async fn publish(
    api: Api,
    numbers: Arc<AtomicUsize>,
    end: usize,
    size: usize,
    acknowledged: Arc<Acknowledged>,
) {
    loop {
        let first = numbers.fetch_add(size, Ordering::Relaxed);
        let batch: Vec<usize> = (first..first + size).filter(|number| *number < end).collect();
        if batch.is_empty() {
            return;
        }
        let event = |number: &usize| json!({ "type": "person.updated", "data": number });
        let body = match &batch[..] {
            [number] => event(number),
            numbers => numbers.iter().map(event).collect(),
        };
        let Ok((status, answer)) = api.post("/api/v1/events", &body).await else { return };
        assert_eq!(status, 202, "{answer}");
        let ids: Vec<&Value> = match &answer["data"] {
            Value::Array(published) => published.iter().map(|one| &one["id"]).collect(),
            _ => vec![&answer["id"]],
        };
        assert_eq!(ids.len(), batch.len());
        let ids = ids.into_iter().map(|id| id.as_str().expect("an id").to_owned());
        acknowledged.add(batch.into_iter().zip(ids));
    }
}

/// What the receiver was sent: the id of each number.
#[derive(Debug, Default)]
struct Arrived(HashMap<usize, String>);

impl Arrived {
    /// Takes in requests until every acknowledged number is there, under the id it was answered.
    async fn take_in(&mut self, receiver: &Receiver, acknowledged: &HashMap<usize, String>) {
        let mut missing: HashSet<usize> =
            acknowledged.keys().copied().filter(|number| !self.0.contains_key(number)).collect();
        while !missing.is_empty() {
            for request in receiver.take().await {
                missing.remove(&self.note(&request.event()));
            }
        }
        for (number, id) in acknowledged {
            assert_eq!(self.0[number], *id, "number {number} has arrived as another event");
        }
    }

    /// A number that arrives again must do so under the same id.
    fn note(&mut self, event: &Value) -> usize {
        let number = event["data"].as_u64().expect("a number");
        let number = usize::try_from(number).expect("it is small");
        let id = event["id"].as_str().expect("an id");
        let first = self.0.entry(number).or_insert_with(|| id.to_owned());
        assert_eq!(first, id, "number {number} has two ids");
        number
    }
}

/// The ids that the server has answered, by the number that was published.
#[derive(Debug, Default)]
struct Acknowledged {
    ids: Mutex<HashMap<usize, String>>,
    more: Notify,
}

impl Acknowledged {
    fn add(&self, pairs: impl Iterator<Item = (usize, String)>) {
        self.ids.lock().expect("no panic").extend(pairs);
        self.more.notify_one();
    }

    fn ids(&self) -> HashMap<usize, String> {
        self.ids.lock().expect("no panic").clone()
    }

    fn count(&self) -> usize {
        self.ids.lock().expect("no panic").len()
    }

    async fn reach(&self, count: usize) {
        while self.count() < count {
            in_time("another acknowledgement", self.more.notified()).await;
        }
    }
}
