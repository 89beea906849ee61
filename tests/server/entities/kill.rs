//! SIGKILL in the midst of writing entities: what there is, and what was published of it, is the same story.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
};

use fastrand::Rng;
use hyper::Method;
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

use super::story::Story;
use crate::support::{
    Api, Behaviour, Broken, Folder, Received, Receiver, WITHOUT_LIMIT, in_time, kills, random,
};

const KILLS: u32 = 6;
const WRITES: usize = 10_000;
/// So many write at once.
const WRITERS: usize = 24;
/// So many there are of each kind at most: few enough that writers meet at the same ones.
const ENTITIES: usize = 100;
const PATHS: [&str; 3] = ["/api/persons", "/api/pets", "/api/toys"];

#[tokio::test(flavor = "multi_thread")]
async fn entities_and_their_events_tell_the_same_story_whenever_the_server_is_killed() {
    let mut random = random();
    let folder = Folder::new();
    let receiver = Receiver::start(Behaviour::Accept).await;
    let mut server = folder.start(&WITHOUT_LIMIT).await;
    let api = Api::new(&server.base).await;
    api.subscribe(&receiver.url("/"), &["person.*", "pet.*", "toy.*"]).await;

    let (lives, life) = watch::channel((0, api));
    let world = Arc::new(World::default());
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let random = Rng::with_seed(random.u64(..));
        writers.spawn(write_on(Arc::clone(&world), random, life.clone()));
    }
    let kills = kills(KILLS);
    let stretch = WRITES / (usize::try_from(kills).expect("it is small") + 1);
    for number in 1..=kills {
        // Each kill is somewhere in another stretch of the writes; none in the last one.
        let begin = (usize::try_from(number).expect("it is small") - 1) * stretch;
        world.reach(begin + random.usize(1..=stretch)).await;
        server.kill().await;
        server = folder.start(&WITHOUT_LIMIT).await;
        lives.send_replace((number, Api::new(&server.base).await));
    }
    writers.join_all().await;

    let api = life.borrow().1.clone();
    let mut history = api.all("/api/v1/events").await;
    history.reverse();
    let seqs = history.iter().map(|event| event["seq"].as_u64().expect("a seq"));
    assert!(seqs.eq(1..=history.len() as u64), "seqs have no gaps");
    let story = Story::of(&history);
    for (path, prefix) in PATHS.into_iter().zip(["person_", "pet_", "toy_"]) {
        let mut listed = api.all(path).await;
        listed.sort_by_key(|one| one["id"].to_string());
        assert_eq!(listed, story.list(prefix), "{path}");
    }
    let world = Arc::into_inner(world).expect("all writers have ended");
    let acknowledged = world.acknowledged.into_inner().expect("nobody panics");
    let again = are_told(&acknowledged, &history);
    all_came(&receiver, &history).await;
    println!(
        "{kills} kills: {} writes acknowledged, {again} of them at a later try; {} events",
        acknowledged.len(),
        history.len(),
    );
    server.stop().await;
}

/// What the writers know.
#[derive(Debug, Default)]
struct World {
    /// The ids at each path.
    ids: Mutex<BTreeMap<&'static str, Vec<String>>>,
    acknowledged: Mutex<Vec<Acknowledged>>,
    more: Notify,
}

/// A write that the server says it has made.
#[derive(Debug)]
struct Acknowledged {
    request: String,
    is_first_try: bool,
    answer: Value,
}

/// One that is to be made.
#[derive(Debug)]
struct Request {
    method: Method,
    path: &'static str,
    /// Unless it is to be made.
    entity: Option<String>,
    body: Option<Value>,
}

/// Writes whatever chance says until there is enough of it. What breaks off is tried again, with the same id.
async fn write_on(world: Arc<World>, mut random: Rng, mut life: watch::Receiver<(u32, Api)>) {
    while world.count() < WRITES {
        let name = format!("{:016x}", random.u64(..));
        let request = world.request(&mut random, &name);
        let mut is_first_try = true;
        let (status, answer) = loop {
            let (number, api) = life.borrow_and_update().clone();
            match request.send(&api, &name).await {
                Ok((503, _)) => {}
                Ok(answer) => break answer,
                Err(Broken) => {
                    let next = life.wait_for(|(now, _)| *now > number);
                    in_time("another server", next).await.expect("the case goes on");
                }
            }
            is_first_try = false;
        };
        match status {
            200 | 201 | 204 => {
                let made = Acknowledged { request: name, is_first_try, answer };
                world.note(&request, made);
            }
            // It was deleted meanwhile; so was what it would refer to.
            404 | 422 => {}
            _ => panic!("{request:?}: {status} {answer}"),
        }
    }
}

impl Request {
    async fn send(&self, api: &Api, id: &str) -> Result<(u16, Value), Broken> {
        let path = match &self.entity {
            Some(entity) => format!("{}/{entity}", self.path),
            None => self.path.to_owned(),
        };
        let headers = [("x-request-id", id)];
        let (head, answer) =
            api.ask(self.method.clone(), &path, &headers, self.body.as_ref()).await?;
        Ok((head.status.as_u16(), answer))
    }
}

impl World {
    fn request(&self, random: &mut Rng, name: &str) -> Request {
        let ids = self.ids.lock().expect("nobody panics");
        let at = |path: &str| ids.get(path).map(Vec::as_slice).unwrap_or_default();
        let path = PATHS[random.usize(..PATHS.len())];
        let method = match random.u8(0..10) {
            _ if at(path).len() < ENTITIES / 10 => Method::POST,
            0..4 if at(path).len() < ENTITIES => Method::POST,
            0..5 => Method::DELETE,
            5..8 => Method::PATCH,
            _ => Method::PUT,
        };
        let entity = (method != Method::POST)
            .then(|| random.choice(at(path)).expect("there are some").clone());
        let chosen = random.usize(..ENTITIES);
        // Some belong to nobody.
        let other = |path: &str| json!(at(path).get(chosen));
        let status = random.choice(&["active", "away"]).expect("there are some");
        // Each write has a name of its own, so each changes something.
        let whole = match path {
            "/api/persons" => json!({ "name": name, "status": *status }),
            "/api/pets" => {
                json!({ "name": name, "type": "dog", "owner_id": other("/api/persons") })
            }
            _ => json!({ "name": name, "pet_id": other("/api/pets") }),
        };
        let body = match method {
            Method::DELETE => None,
            Method::PATCH if random.bool() => Some(json!({ "name": name })),
            _ => Some(whole),
        };
        Request { method, path, entity, body }
    }

    fn note(&self, request: &Request, made: Acknowledged) {
        let mut ids = self.ids.lock().expect("nobody panics");
        let ids = ids.entry(request.path).or_default();
        match &request.entity {
            None => ids.push(made.answer["id"].as_str().expect("an id").to_owned()),
            Some(gone) if request.method == Method::DELETE => ids.retain(|id| id != gone),
            Some(_) => {}
        }
        self.acknowledged.lock().expect("nobody panics").push(made);
        self.more.notify_one();
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().expect("nobody panics").len()
    }

    async fn reach(&self, count: usize) {
        while self.count() < count {
            in_time("another write", self.more.notified()).await;
        }
    }
}

/// Each acknowledged write is told by an event that says what was answered; gives how many needed several tries.
fn are_told(acknowledged: &[Acknowledged], history: &[Value]) -> usize {
    let mut told: HashMap<&str, Vec<&Value>> = HashMap::new();
    for event in history {
        let event = &event["envelope"];
        let request = event["metadata"]["correlation_id"].as_str().expect("an id");
        told.entry(request).or_default().push(&event["data"]);
    }
    let mut again = 0;
    for Acknowledged { request, is_first_try, answer } in acknowledged {
        let told = told.get(&**request).unwrap_or_else(|| panic!("{request} is lost: {answer}"));
        match is_first_try {
            // A deletion has no answer, and more than one event if others have referred to what is gone.
            true if answer.is_null() => {}
            true => assert_eq!(told[..], [answer], "{request}"),
            // Another may have written it between two tries.
            false => again += 1,
        }
    }
    again
}

/// Waits until the receiver has got all events as the history has them, and no other one.
async fn all_came(receiver: &Receiver, history: &[Value]) {
    let history: HashMap<&Value, &Value> =
        history.iter().map(|event| (&event["id"], &event["envelope"])).collect();
    let mut missing: HashSet<&Value> = history.keys().copied().collect();
    let is_all = |request: &Received| {
        let event = request.event();
        assert_eq!(history.get(&event["id"]), Some(&&event), "it is in the history");
        missing.remove(&event["id"]);
        missing.is_empty()
    };
    receiver.until("each event", is_all).await;
}
