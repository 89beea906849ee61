//! What operators do beside a running server: back up, erase, delete.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::{Value, json};

use crate::support::{Api, Behaviour, Folder, Receiver, WITH_CLIENT, in_time};

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_opens_and_holds_all_that_was_acknowledged_before() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    api.subscribe(&receiver.url("/"), &["*"]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (api, stop) = (api.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    acknowledged.push(api.publish("person.updated", json!({})).await);
                    api.create("/api/toys", &json!({ "name": "Ball" })).await;
                }
                acknowledged
            })
        })
        .collect();
    receiver.first_of(200).await;
    let mut before = Vec::new();
    for number in 0..50 {
        before.push(api.publish("person.created", json!(number)).await);
    }
    let person = api.create("/api/persons", &json!({ "name": "John Smith" })).await;
    let person = format!("/api/persons/{person}");
    let written = api.get(&person).await;
    let made = folder.json(&["backup", "copy.db"]).await;
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.expect("no panic");
    }
    assert!(made["events"].as_u64().expect("a number") >= 250, "{made}");
    server.kill().await;

    let restored = Folder::new();
    fs::copy(folder.database().with_file_name("copy.db"), restored.database()).expect("a copy");
    let server = restored.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    for id in &before {
        assert_eq!(api.get(&format!("/api/v1/events/{id}")).await.0, 200, "{id}");
    }
    assert_eq!(api.get(&person).await, written);
    // What there is under load, and what was published of it, is as of one moment.
    let created = api.all("/api/v1/events").await.into_iter();
    let created = created.filter(|event| event["type"] == "toy.created");
    let mut created: Vec<_> = created.map(|event| event["envelope"]["data"].clone()).collect();
    created.sort_by_key(|toy| toy["id"].to_string());
    assert_eq!(api.all("/api/toys").await, created);
    server.stop().await;
}

#[tokio::test]
async fn a_backup_overwrites_nothing_and_needs_a_database() {
    let folder = Folder::new();
    let missing = folder.run(&["backup", "copy.db"], &[]).await;
    assert_eq!(missing.code, Some(1), "{missing:?}");
    assert!(missing.stderr.contains("there is no database"), "{missing:?}");
    folder.json(&["org", "create", "Acme"]).await;
    let made = folder.run(&["backup", "copy.db"], &[]).await;
    assert!(made.stdout.ends_with(" bytes\n"), "{made:?}");
    let copy = folder.database().with_file_name("copy.db");
    let again = folder.run(&["backup", "copy.db"], &[]).await;
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.contains("already"), "{again:?}");
    let names: Vec<_> =
        fs::read_dir(copy.parent().expect("a folder")).expect("it is there").collect();
    assert!(
        names.iter().flatten().all(|name| !name
            .path()
            .display()
            .to_string()
            .contains("unfinished"))
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(&copy).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test]
async fn a_database_of_postgres_is_left_to_its_own_tools() {
    let folder = Folder::new();
    let postgres = [("ESL_DATABASE_URL", "postgres://esl:hunter2@127.0.0.1:1/app")];
    let ended = folder.run(&["backup", "copy.db"], &postgres).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("pg_dump"), "{ended:?}");
    assert!(!folder.path().join("copy.db").exists());
}

#[tokio::test]
async fn an_erased_event_is_gone_from_the_api_the_database_and_what_is_sent() {
    const MARKER: &str = "Jane Roe of 7 Elm Street";
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    let (gate, is_open) = tokio::sync::watch::channel(false);
    let receiver = Receiver::start(Behaviour::Gate(is_open)).await;
    let options = json!({ "max_in_flight": 1 });
    let subscription = api.subscribe_with(&receiver.url("/"), options).await;
    // The first is under way; the second waits behind it, in the server's memory.
    api.publish("person.created", json!(1)).await;
    receiver.first().await;
    let erased = api.publish("person.updated", json!({ "name": MARKER })).await;
    let last = api.publish("person.deleted", json!(3)).await;
    assert!(folder.holds(MARKER.as_bytes()).await, "the marker is what it should be");

    let said = folder.json(&["event", "erase", &erased]).await;
    assert_eq!(said["was_erased_before"], false, "{said}");
    let again = folder.json(&["event", "erase", &erased]).await;
    assert_eq!(again["was_erased_before"], true, "{again}");
    assert!(!folder.holds(MARKER.as_bytes()).await);
    let (status, event) = api.get(&format!("/api/v1/events/{erased}")).await;
    assert_eq!((status, &event["envelope"]["data"]), (200, &Value::Null));
    assert!(event["erased_at"].is_string(), "{event}");

    // The server has heard of it before it hears of this.
    let heard = async {
        loop {
            let path = format!("/api/v1/subscriptions/{subscription}/deliveries?state=cancelled");
            if api.get(&path).await.1["data"][0]["event_id"] == json!(erased) {
                return;
            }
        }
    };
    in_time("the cancelled delivery", heard).await;
    // Its own commits show it what others have committed: after some rounds of them it knows.
    let other = Receiver::start(Behaviour::Accept).await;
    api.subscribe(&other.url("/"), &["pet.*"]).await;
    for count in 1..=20 {
        api.publish("pet.created", json!(count)).await;
        other.first_of(count).await;
    }
    gate.send_replace(true);
    receiver.until("the last event", |request| request.event()["id"] == json!(last)).await;
    assert!(receiver.so_far().iter().all(|request| request.event()["id"] != json!(erased)));
    let unknown = folder.run(&["event", "erase", "evt_01J00000000000000000000000"], &[]).await;
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_deleted_organization_is_gone_for_a_running_server() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    api.subscribe(&receiver.url("/"), &["*"]).await;
    api.create("/api/persons", &json!({ "name": "John Smith" })).await;
    receiver.first().await;
    let name = folder.json(&["org", "list"]).await[0]["name"].as_str().expect("a name").to_owned();

    let asked = folder.run(&["org", "delete", &name], &[]).await;
    assert_eq!(asked.code, Some(1), "{asked:?}");
    assert!(asked.stderr.contains("--yes"), "{asked:?}");
    let deleted = folder.run(&["org", "delete", &name, "--yes"], &[]).await;
    assert_eq!(deleted.code, Some(0), "{deleted:?}");
    in_time("the end of its token", async { while api.get("/api/v1/events").await.0 != 401 {} })
        .await;
    assert_eq!(api.get("/api/persons").await.0, 401);
    let event = json!({ "type": "person.updated", "data": 2 });
    let (status, _) = api.post("/api/v1/events", &event).await.expect("the server runs");
    assert_eq!(status, 401);
    assert_eq!(folder.json(&["org", "list"]).await, json!([]));
    server.stop().await;
    // It starts again, and makes its client anew.
    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    for path in ["/api/v1/events", "/api/persons"] {
        assert_eq!(api.get(path).await.1["data"], json!([]), "{path}");
    }
    server.stop().await;
}
