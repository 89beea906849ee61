//! `esl-server listen`: a developer whose receiver the server cannot reach.

mod troubles;

use esl_core::{Algorithm, Secret, Verifier};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    ports::free_port,
    support::{
        Api, Behaviour, CLIENT, Folder, Received, Receiver, Running, SECRET, Server, WITH_CLIENT,
    },
};

const SIGNED_WITH: &str = "my-webhook-secret-123";

/// Starts it, and waits until it knows where it begins.
async fn listen(folder: &Folder, server: &Server, to: &str, more: &[&str]) -> Running {
    let arguments = [&["listen", "--forward-to", to], more].concat();
    let listening = folder.begin(&arguments, &variables(&server.base));
    listening
        .stderr
        .find("where it begins", |line| line.contains("forwarding").then_some(()))
        .await;
    listening
}

/// An address at which a server can be twice.
fn address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// The variables of a server with a client that is there.
fn at(address: &str) -> [(&str, &str); 3] {
    [WITH_CLIENT[0], WITH_CLIENT[1], ("ESL_LISTEN", address)]
}

fn variables(base: &str) -> [(&'static str, &str); 4] {
    [
        ("ESL_SERVER_URL", base),
        ("ESL_CLIENT_ID", CLIENT),
        ("ESL_CLIENT_SECRET", SECRET),
        ("ESL_WEBHOOK_SECRET", SIGNED_WITH),
    ]
}

/// The line about an event.
async fn line_of(listening: &Running, id: &str) -> Vec<String> {
    let words = |line: &str| line.split("  ").map(str::to_owned).collect::<Vec<_>>();
    let find = |line: &str| line.contains(id).then(|| words(line));
    listening.stdout.find("the line of an event", find).await
}

/// Of its headers, in the order of the alphabet.
fn names(request: &Received) -> Vec<&str> {
    let mut names: Vec<_> = request.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    names
}

fn data(requests: &[Received]) -> Vec<Value> {
    requests.iter().map(|request| request.event()["data"].clone()).collect()
}

#[tokio::test]
async fn what_is_published_comes_signed_as_a_delivery_would_be_and_is_told_in_a_line() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    api.publish("person.created", json!("before it listens")).await;
    let subscribed = Receiver::start(Behaviour::Accept).await;
    api.subscribe(&subscribed.url("/"), &["person.*"]).await;
    let receiver = Receiver::start(Behaviour::statuses([200, 503])).await;
    let patterns = ["--events", "person.*", "--events", "order.paid"];
    let listening = listen(&folder, &server, &receiver.url("/hook"), &patterns).await;
    let person = api.publish("person.updated", json!({ "name": "Jörg", "n": 1.50 })).await;
    api.publish("pet.created", json!("not asked for")).await;
    let order = api.publish("order.paid", json!(2)).await;

    let received = receiver.first_of(2).await;
    let (first, delivered) = (&received[0], subscribed.first().await);
    assert_eq!((&*first.path, &first.body), ("/hook", &delivered.body));
    assert_eq!(names(first), names(&delivered));
    for name in ["content-type", "user-agent", "webhook-id", "x-sapien-event", "x-sapien-attempt"] {
        assert_eq!(first.header(name), delivered.header(name), "{name}");
    }
    assert!(first.header("x-sapien-delivery").unwrap().starts_with("dlv_"));
    assert_eq!(received[1].header("webhook-id"), Some(&*order));
    let secret = || [Secret::new(SIGNED_WITH).unwrap()];
    for request in &received {
        let header = |name: &str| request.header(name);
        Verifier::standard(secret()).verify_now(header, &request.body).unwrap();
        let sapien = Verifier::sapien(secret(), Algorithm::Sha256);
        sapien.verify_now(header, &request.body).unwrap();
    }

    let words = line_of(&listening, &person).await;
    let [_, event_type, _, status, duration] = &words[..] else { panic!("{words:?}") };
    assert_eq!((event_type.as_str(), status.as_str()), ("person.updated", "200"));
    assert!(duration.ends_with(" ms"), "{duration}");
    assert_eq!(line_of(&listening, &order).await[3], "503");
    let ended = listening.interrupt().await;
    assert_eq!((ended.code, ended.stdout.lines().count()), (Some(0), 2), "{ended:?}");
    assert!(!ended.stderr.contains(SECRET) && !ended.stderr.contains(SIGNED_WITH), "{ended:?}");
    // No subscription was made of it.
    assert_eq!(api.all("/api/v1/subscriptions").await.len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn however_many_come_between_two_looks_each_comes_once_and_in_order() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    let (gate, opened) = watch::channel(false);
    let receiver = Receiver::start(Behaviour::Gate(opened)).await;
    let listening = listen(&folder, &server, &receiver.url("/"), &[]).await;
    api.publish("person.updated", json!(0)).await;
    receiver.first().await;
    // While the first is held up: more than three pages.
    for batch in 0..5 {
        let events = (0..64)
            .map(|number| json!({ "type": "person.updated", "data": 1 + batch * 64 + number }));
        let published = api.post("/api/v1/events", &events.collect()).await;
        assert_eq!(published.unwrap().0, 202);
    }
    gate.send_replace(true);
    receiver.first_of(200).await;
    // And more, while these are on their way.
    let last = api.publish("person.updated", json!(321)).await;
    line_of(&listening, &last).await;
    let all: Vec<_> = (0..=321).map(|number| json!(number)).collect();
    assert_eq!(data(&receiver.so_far()), all);
    listening.interrupt().await;
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for_and_nothing_is_missed() {
    let folder = Folder::new();
    let address = address();
    let variables = at(&address);
    let server = folder.start(&variables).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    let listening = listen(&folder, &server, &receiver.url("/"), &[]).await;
    let first = Api::new(&server.base).await.publish("person.updated", json!(1)).await;
    line_of(&listening, &first).await;
    server.stop().await;
    let said = |words: &'static str| {
        listening.stderr.find(words, move |line| line.contains(words).then(|| line.to_owned()))
    };
    said("waiting for the server").await;

    let server = folder.start(&variables).await;
    let second = Api::new(&server.base).await.publish("person.updated", json!(2)).await;
    said("the server is back").await;
    line_of(&listening, &second).await;
    assert_eq!(data(&receiver.so_far()), [json!(1), json!(2)]);
    let ended = listening.interrupt().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stderr.matches("waiting for the server").count(), 1, "{}", ended.stderr);
    server.stop().await;
}

#[tokio::test]
async fn a_local_program_that_does_not_run_is_a_line_and_no_end() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    let closed = format!("http://127.0.0.1:{}/", free_port());
    let listening = listen(&folder, &server, &closed, &["--print"]).await;
    for number in 0..2 {
        let id = api.publish("person.updated", json!({ "number": number })).await;
        let words = line_of(&listening, &id).await;
        assert!(words[3].starts_with("connect"), "{words:?}");
    }
    let ended = listening.interrupt().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let bodies = ended.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let numbers: Vec<_> = bodies.map(|body| body["data"]["number"].clone()).collect();
    assert_eq!(numbers, [json!(0), json!(1)], "{}", ended.stdout);
    server.stop().await;
}

#[tokio::test]
async fn it_begins_where_it_is_told_and_makes_up_a_secret_if_there_is_none() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    let mut events = Vec::new();
    for number in 1..=3 {
        let id = api.publish("person.updated", json!(number)).await;
        events.push(api.get(&format!("/api/v1/events/{id}")).await.1);
    }
    let (seq, time) = (events[1]["seq"].to_string(), events[0]["timestamp"].as_str().unwrap());
    for (since, expected) in
        [(seq.as_str(), vec![json!(2), json!(3)]), (time, vec![json!(1), json!(2), json!(3)])]
    {
        let receiver = Receiver::start(Behaviour::Accept).await;
        let arguments = ["listen", "--forward-to", &receiver.url("/"), "--since", since];
        let [url, id, secret, _] = variables(&server.base);
        let listening = folder.begin(&arguments, &[url, id, secret]);
        let made_up = listening.stderr.find("a secret", |line| {
            let (_, rest) = line.split_once("signing with ")?;
            Some(rest.split(',').next()?.to_owned())
        });
        let verifier = Verifier::standard([Secret::new(made_up.await).unwrap()]);
        let received = receiver.first_of(expected.len()).await;
        assert_eq!(data(&received), expected, "{since}");
        let request = &received[0];
        verifier.verify_now(|name| request.header(name), &request.body).unwrap();
        listening.interrupt().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_wrong_from_the_beginning_ends_it_with_the_reason() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let to = ["listen", "--forward-to", "http://127.0.0.1:1/"];
    let [url, id, secret, _] = variables(&server.base);
    let wrong = ("ESL_CLIENT_SECRET", "hunter2");
    let ended = folder.run(&to, &[url, id, wrong]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("invalid_client"), "{ended:?}");
    assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
    let ended = folder.run(&to, &[url, id]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("ESL_CLIENT_SECRET"), "{ended:?}");
    let ended = folder.run(&to, &[("ESL_SERVER_URL", "nowhere"), id, secret]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("expected the server's URL"), "{ended:?}");
    for wrong in [
        &["listen"][..],
        &["listen", "--forward-to", "no URL"],
        &["listen", "--forward-to", "http://127.0.0.1:1/", "--events", "No Pattern"],
        &["listen", "--forward-to", "http://127.0.0.1:1/", "--since", "yesterday"],
    ] {
        assert_eq!(folder.run(wrong, &[url, id, secret]).await.code, Some(2), "{wrong:?}");
    }
    server.stop().await;
}
