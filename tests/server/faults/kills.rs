//! SIGKILL at any moment, again and again on one database.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use crate::support::{
    Api, Behaviour, Folder, Received, Receiver, Server, WITHOUT_LIMIT, kills, random,
};

const ROUNDS: u32 = 100;
/// So many publish at once, one half single events and the other arrays.
const PUBLISHERS: usize = 4;
const ARRAY: u64 = 20;
/// Of these there are few: each waits for a settlement on the disk.
const STRICT: &str = "person.registered";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute or two"]
async fn over_many_sigkills_nothing_acknowledged_is_lost_and_only_a_kill_sends_again() {
    let mut random = random();
    let folder = Folder::new();
    let receiver = Receiver::start(Behaviour::Accept).await;
    let server = start(&folder, 0).await;
    let api = Api::new(&server.base).await;
    let plain = api.subscribe(&receiver.url("/plain"), &["person.*"]).await;
    let strict = subscribe_strictly(&api, &receiver.url("/strict")).await;
    server.stop().await;

    let numbers = Arc::new(AtomicU64::new(0));
    let acknowledged = Arc::new(Mutex::new(HashMap::new()));
    let mut ledger = Ledger::default();
    let rounds = kills(ROUNDS);
    for life in 1..=rounds {
        // The moment is chance, so all that is waited for here is that it comes.
        if random.u32(0..4) == 0 {
            let mut starting = folder.spawn(&[], &variables(&prefix(life)));
            sleep(Duration::from_millis(random.u64(0..80))).await;
            starting.kill().await.expect("it can be killed");
        } else {
            let server = start(&folder, life).await;
            let api = Api::new(&server.base).await;
            let mut publishers = JoinSet::new();
            for publisher in 0..PUBLISHERS {
                let size = if publisher % 2 == 0 { 1 } else { ARRAY };
                let (numbers, acknowledged) = (numbers.clone(), acknowledged.clone());
                publishers.spawn(publish(api.clone(), size, numbers, acknowledged));
            }
            sleep(Duration::from_millis(random.u64(0..400))).await;
            server.kill().await;
            publishers.join_all().await;
        }
        ledger.take_in(receiver.drain());
    }

    let server = start(&folder, rounds + 1).await;
    let api = Api::new(&server.base).await;
    let acknowledged = Arc::into_inner(acknowledged).expect("all have ended");
    let acknowledged = acknowledged.into_inner().expect("nobody panics");
    for subscription in [&plain, &strict] {
        let owed = format!("/api/v1/subscriptions/{subscription}/deliveries?state=pending");
        api.until(&owed, |list| list["data"] == json!([])).await;
    }
    ledger.take_in(receiver.drain());
    let stored = deliveries(&api, &plain).await;
    let seqs: Vec<u64> = stored.iter().map(|one| one.seq).collect();
    let last = u64::try_from(seqs.len()).expect("it is a number");
    assert_eq!(seqs, (1..=last).collect::<Vec<_>>(), "seqs have no gaps");
    let seq_of: HashMap<&str, u64> = stored.iter().map(|one| (&*one.event, one.seq)).collect();
    let is_lost = |(id, seq): &&(String, u64)| seq_of.get(&**id) != Some(seq);
    let lost = acknowledged.values().filter(is_lost).count();
    assert_eq!(lost, 0, "acknowledged and lost, of {}", acknowledged.len());

    let in_order = deliveries(&api, &strict).await;
    let owed: Vec<&Delivery> = stored.iter().chain(&in_order).collect();
    assert!(owed.iter().all(|one| one.state == "delivered"), "all is settled");
    let came: HashSet<&String> = ledger.came.iter().map(|(_, delivery)| delivery).collect();
    let unsent = owed.iter().filter(|one| !came.contains(&one.id)).count();
    assert_eq!(unsent, 0, "settled and never sent");
    let order: Vec<u64> = ledger.strict.iter().map(|event| seq_of[&**event]).collect();
    assert!(order.is_sorted(), "the first copies of strict deliveries come in order");
    for (number, (id, _)) in &acknowledged {
        assert_eq!(ledger.events[id], *number, "{id} says what was published under it");
    }
    println!(
        "{rounds} kills: {} events stored, {} acknowledged, 0 lost; {} requests for {} deliveries, \
         {} came again after a kill, 0 without one",
        stored.len(),
        acknowledged.len(),
        ledger.came.len(),
        owed.len(),
        ledger.came.len() - owed.len(),
    );
    server.stop().await;
}

/// A server whose deliveries say which life of it has sent them.
async fn start(folder: &Folder, life: u32) -> Server {
    folder.start(&variables(&prefix(life))).await
}

async fn subscribe_strictly(api: &Api, callback_url: &str) -> String {
    let body = json!({
        "callback_url": callback_url,
        "events": [STRICT],
        "ordering": "strict",
    });
    let (status, created) =
        api.post("/api/v1/subscriptions", &body).await.expect("the server runs");
    assert_eq!(status, 201, "{created}");
    created["id"].as_str().expect("an id").to_owned()
}

fn prefix(life: u32) -> String {
    format!("X-Life-{life}")
}

fn variables(prefix: &str) -> [(&str, &str); 4] {
    let [client, private, limit] = WITHOUT_LIMIT;
    [client, private, limit, ("ESL_HEADER_PREFIX", prefix)]
}

/// What was answered, by number: the event's id and seq.
type Acknowledged = HashMap<u64, (String, u64)>;

/// Publishes numbers until the server is gone.
async fn publish(
    api: Api,
    size: u64,
    numbers: Arc<AtomicU64>,
    acknowledged: Arc<Mutex<Acknowledged>>,
) {
    loop {
        let first = numbers.fetch_add(size, Ordering::Relaxed);
        let event_type = |number| if number % 40 == 0 { STRICT } else { "person.updated" };
        let event = |number| json!({ "type": event_type(number), "data": number });
        let body = match size {
            1 => event(first),
            _ => (first..first + size).map(event).collect(),
        };
        let Ok((status, answer)) = api.post("/api/v1/events", &body).await else { return };
        assert_eq!(status, 202, "{answer}");
        let one = |answer: &Value| {
            let id = answer["id"].as_str().expect("an id").to_owned();
            (id, answer["seq"].as_u64().expect("a seq"))
        };
        let answers: Vec<_> = match &answer["data"] {
            Value::Array(published) => published.iter().map(one).collect(),
            _ => vec![one(&answer)],
        };
        acknowledged.lock().expect("nobody panics").extend((first..).zip(answers));
    }
}

/// What the receiver was sent.
#[derive(Debug, Default)]
struct Ledger {
    /// Which life has sent which delivery. None sends one twice.
    came: HashSet<(String, String)>,
    /// The number that an event says.
    events: HashMap<String, u64>,
    /// The events of the strict lane, each as it came first.
    strict: Vec<String>,
    first: HashSet<String>,
}

impl Ledger {
    fn take_in(&mut self, requests: Vec<Received>) {
        for request in requests {
            let (life, delivery) = request
                .headers
                .iter()
                .find(|(name, _)| name.as_str().ends_with("-delivery"))
                .map(|(name, id)| (name.to_string(), id.to_str().expect("an id").to_owned()))
                .expect("a delivery has an id");
            let event = request.event();
            let id = event["id"].as_str().expect("an id").to_owned();
            let number = event["data"].as_u64().expect("a number");
            assert_eq!(
                *self.events.entry(id.clone()).or_insert(number),
                number,
                "{id} has changed"
            );
            if request.path == "/strict" && self.first.insert(delivery.clone()) {
                self.strict.push(id);
            }
            let is_new = self.came.insert((life.clone(), delivery.clone()));
            assert!(is_new, "{delivery} came twice without a kill in between ({life})");
        }
    }
}

struct Delivery {
    id: String,
    event: String,
    seq: u64,
    state: String,
}

/// All deliveries of a subscription, in the order of their events.
async fn deliveries(api: &Api, subscription: &str) -> Vec<Delivery> {
    let path = format!("/api/v1/subscriptions/{subscription}/deliveries?limit=100");
    let mut all = Vec::new();
    let mut page = path.clone();
    loop {
        let (status, list) = api.get(&page).await;
        assert_eq!(status, 200, "{list}");
        let text = |one: &Value, name: &str| one[name].as_str().expect("a text").to_owned();
        all.extend(list["data"].as_array().expect("a list").iter().map(|one| Delivery {
            id: text(one, "id"),
            event: text(one, "event_id"),
            seq: one["seq"].as_u64().expect("a seq"),
            state: text(one, "state"),
        }));
        let Some(cursor) = list["next_cursor"].as_str() else { break };
        page = format!("{path}&cursor={cursor}");
    }
    all.reverse();
    all
}
