//! Many write one person at once: nobody's write is lost, and what was published of it is a chain.

use hyper::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Api, Folder, Server, WITHOUT_LIMIT, postgres_url};

/// So many write at once.
const CROWD: usize = 64;
/// Each adds so often to the one count.
const ADDS: usize = 2;

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_reads_adds_and_writes_with_if_match_loses_no_addition() {
    let world = World::with(json!({ "name": "0" })).await;
    let (api, person) = (&world.apis[0], &*world.person);
    let mut crowd = JoinSet::new();
    for number in 0..CROWD {
        crowd.spawn(add(world.api(number), person.to_owned()));
    }
    let refused: usize = crowd.join_all().await.into_iter().sum();
    println!("{} additions, {refused} of them tried in vain before", CROWD * ADDS);

    let sum = (CROWD * ADDS).to_string();
    assert_eq!(api.get(person).await.1["name"], sum);
    let names = chain(api, "name").await;
    let counts: Vec<_> = (0..=CROWD * ADDS).map(|count| json!(count.to_string())).collect();
    assert_eq!(names, counts, "each event adds one to what the one before has left");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_patches_different_fields_at_once_undoes_nothing_of_each_other() {
    let new = json!({ "name": "0", "email": "0@example.com", "status": "s0" });
    let world = World::with(new).await;
    let (api, person) = (&world.apis[0], &*world.person);
    let mut crowd = JoinSet::new();
    let value = |field: &str, number: usize| match field {
        "email" => format!("{number}@example.com"),
        "status" => format!("s{number}"),
        _ => number.to_string(),
    };
    const FIELDS: [&str; 3] = ["name", "email", "status"];
    for number in 1..=CROWD {
        let field = FIELDS[number % FIELDS.len()];
        let patch = json!({ field: value(field, number) });
        let (api, person) = (world.api(number), person.to_owned());
        crowd.spawn(async move { api.patch(&person, &patch).await });
    }
    for (status, answer) in crowd.join_all().await {
        assert_eq!(status, 200, "{answer}");
    }

    let person = api.get(person).await.1;
    let mut written = 0;
    for field in FIELDS {
        let chain = chain(api, field).await;
        assert_eq!(chain.last(), Some(&person[field]), "{field}");
        written += chain.len() - 1;
        let mut once = chain.iter().map(Value::to_string).collect::<Vec<_>>();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), chain.len(), "each value is written once: {chain:?}");
    }
    assert_eq!(written, CROWD, "each patch is told once");
    world.stop().await;
}

/// A person, and who serves it: two servers, where they can share a database.
struct World {
    _folder: Folder,
    servers: Vec<Server>,
    apis: Vec<Api>,
    /// Its path.
    person: String,
}

impl World {
    async fn with(person: Value) -> Self {
        let folder = Folder::new();
        let mut servers = vec![folder.start(&WITHOUT_LIMIT).await];
        if postgres_url().is_some() {
            servers.push(folder.start(&WITHOUT_LIMIT).await);
        }
        let mut apis = Vec::new();
        for server in &servers {
            apis.push(Api::new(&server.base).await);
        }
        let id = apis[0].create("/api/persons", &person).await;
        Self { _folder: folder, servers, apis, person: format!("/api/persons/{id}") }
    }

    /// Another server for each of a crowd.
    fn api(&self, number: usize) -> Api {
        self.apis[number % self.apis.len()].clone()
    }

    async fn stop(self) {
        for server in self.servers {
            server.stop().await;
        }
    }
}

/// Adds to the count; gives how often somebody else was faster.
async fn add(api: Api, person: String) -> usize {
    let (mut added, mut refused) = (0, 0);
    while added < ADDS {
        let read = api.ask(Method::GET, &person, &[], None).await;
        let (head, read) = read.expect("the server runs");
        let count: usize = read["name"].as_str().expect("a name").parse().expect("a count");
        let tag = head.headers["etag"].to_str().expect("a tag");
        let patch = json!({ "name": (count + 1).to_string() });
        let headers = [("if-match", tag)];
        let written = api.ask(Method::PATCH, &person, &headers, Some(&patch)).await;
        let (head, answer) = written.expect("the server runs");
        match head.status.as_u16() {
            200 => added += 1,
            412 => refused += 1,
            _ => panic!("{}: {answer}", head.status),
        }
    }
    refused
}

/// The values that a field of the one person has had, by the events: each begins with what the one before has left.
async fn chain(api: &Api, field: &str) -> Vec<Value> {
    let mut events = api.all("/api/v1/events").await;
    events.reverse();
    let mut values = vec![events[0]["envelope"]["data"][field].clone()];
    for event in &events[1..] {
        let event = &event["envelope"];
        let change = &event["changes"][field];
        if !change.is_null() {
            assert_eq!(Some(&change["old"]), values.last(), "{event}");
            values.push(change["new"].clone());
        }
        assert_eq!(Some(&event["data"][field]), values.last(), "{event}");
    }
    values
}
