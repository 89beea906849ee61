//! What goes wrong while it listens, or was asked for wrongly.

use std::{
    collections::{HashMap, HashSet},
    fs,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Query, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use esl_core::{EventId, Timestamp};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, copy_bidirectional},
    net::{TcpListener, TcpStream, unix::pipe},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use super::{address, at, data, line_of, listen, variables};
use crate::support::{
    Api, Authority, Behaviour, CLIENT, Folder, Receiver, Running, SECRET, Server, WITH_CLIENT,
    in_time,
};

async fn said(listening: &Running, words: &'static str) -> String {
    listening.stderr.find(words, |line| line.contains(words).then(|| line.to_owned())).await
}

/// A history of 60 events, none of whose pages may be of more than 25, and of more than 6 when it is asked for
/// again.
async fn large_history() -> String {
    let event = |seq: u64| {
        let id = EventId::from_bytes(u128::from(seq).to_be_bytes());
        json!({
            "id": id,
            "type": "person.updated",
            "seq": seq,
            "timestamp": Timestamp::from_millis(1_705_329_120_000),
            "deliveries": 0,
            "envelope": { "data": seq },
        })
    };
    let events: Vec<_> = (1..=60).rev().map(event).collect();
    let token = Json(json!({ "access_token": "token", "token_type": "Bearer", "expires_in": 600 }));
    let router = Router::new()
        .route("/oauth/token", post(async || token))
        .route("/api/v1/events", get(part))
        .with_state(Arc::new(History { events, given: Mutex::default() }));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it has one");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

struct History {
    events: Vec<Value>,
    given: Mutex<HashSet<usize>>,
}

async fn part(
    State(history): State<Arc<History>>,
    Query(parameters): Query<HashMap<String, usize>>,
) -> Response {
    let (limit, begin) = (parameters["limit"], parameters.get("cursor").copied().unwrap_or(0));
    let History { events, given } = &*history;
    if limit > 25 || limit > 6 && !given.lock().expect("no other panics").insert(begin) {
        // It says how much it is, so hardly anything of it is sent.
        return Bytes::from(vec![0; 256 * 1024 * 1024 + 1]).into_response();
    }
    let end = (begin + limit).min(events.len());
    let next = (end < events.len()).then(|| end.to_string());
    Json(json!({ "data": events[begin..end], "next_cursor": next })).into_response()
}

#[tokio::test]
async fn a_history_whose_pages_are_too_large_comes_in_smaller_ones() {
    let folder = Folder::new();
    let receiver = Receiver::start(Behaviour::Accept).await;
    let base = large_history().await;
    let to = receiver.url("/");
    let arguments = ["listen", "--forward-to", &to, "--since", "1"];
    let listening = folder.begin(&arguments, &variables(&base));
    let all: Vec<_> = (1..=60).map(|seq| json!(seq)).collect();
    assert_eq!(data(&receiver.first_of(60).await), all);
    let ended = listening.interrupt().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.stderr.contains("waiting"), "{ended:?}");
}

/// Where a server is reached over TLS, as behind a proxy.
async fn over_tls(server: &Server, acceptor: TlsAcceptor) -> String {
    // The server behind it speaks HTTP/1.1.
    let mut config = ServerConfig::clone(acceptor.config());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it has one").port();
    let server = server.base.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, server) = (acceptor.clone(), server.clone());
            tokio::spawn(async move {
                let mut near = acceptor.accept(stream).await?;
                let mut far = TcpStream::connect(server).await?;
                copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    format!("https://localhost:{port}")
}

#[tokio::test]
async fn a_server_of_an_authority_of_ones_own_is_believed_when_that_is_given() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    let authority = Authority::new();
    let base = over_tls(&server, authority.acceptor("localhost")).await;
    fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    Api::new(&server.base).await.publish("person.updated", json!(1)).await;
    let to = receiver.url("/");
    let arguments = ["listen", "--forward-to", &to, "--since", "1", "--ca-file", "ca.pem"];

    let ended = folder.run(&arguments[..5], &variables(&base)).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("certificate was refused"), "{ended:?}");
    let absent = [&arguments[..6], &["absent.pem"]].concat();
    let ended = folder.run(&absent, &variables(&base)).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("absent.pem cannot be read"), "{ended:?}");

    let listening = folder.begin(&arguments, &variables(&base));
    assert_eq!(data(&receiver.first_of(1).await), [json!(1)]);
    assert_eq!(listening.interrupt().await.code, Some(0));
    server.stop().await;
}

#[tokio::test]
async fn a_signal_ends_it_also_when_nobody_reads_what_it_prints() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    for signal in ["INT", "TERM"] {
        let fifo = folder.path().join(signal);
        let made = tokio::process::Command::new("mkfifo").arg(&fifo).status().await;
        assert!(made.unwrap().success());
        let mut reader = pipe::OpenOptions::new().open_receiver(&fifo).unwrap();
        let program = ["sh", "-c", "exec \"$@\" > \"$0\"", signal];
        let arguments = ["listen", "--forward-to", &receiver.url("/"), "--print"];
        let listening = folder.begin_by(&program, &arguments, &variables(&server.base));
        said(&listening, "forwarding").await;
        // More than a pipe holds, and less than goes by reference.
        let long = "long ".repeat(40_000);
        Api::new(&server.base).await.publish("person.updated", json!(long)).await;
        let begin = async { while reader.read_u8().await.unwrap() != b'{' {} };
        in_time("the beginning of the body", begin).await;
        let ended = listening.end_by(signal).await;
        assert_eq!(ended.code, Some(0), "{signal}: {ended:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn after_a_restored_backup_it_says_so_and_goes_on_with_what_is_new() {
    let folder = Folder::new();
    let address = address();
    let server = folder.start(&at(&address)).await;
    // What the server has after it: the beginning of the same history.
    let restored = Folder::new();
    let before = restored.start(&WITH_CLIENT).await;
    Api::new(&before.base).await.publish("person.updated", json!("old")).await;
    before.stop().await;

    let receiver = Receiver::start(Behaviour::Accept).await;
    let listening = listen(&folder, &server, &receiver.url("/"), &[]).await;
    let api = Api::new(&server.base).await;
    api.publish("person.updated", json!("lost")).await;
    let lost = api.publish("person.updated", json!("lost, too")).await;
    line_of(&listening, &lost).await;
    server.stop().await;
    said(&listening, "waiting for the server").await;
    let server = restored.start(&at(&address)).await;
    said(&listening, "the server has another history").await;
    let new = Api::new(&server.base).await.publish("person.updated", json!("new")).await;
    line_of(&listening, &new).await;
    let received = data(&receiver.so_far());
    assert_eq!(received, [json!("lost"), json!("lost, too"), json!("new")]);
    let ended = listening.interrupt().await;
    assert_eq!(ended.stderr.matches("another history").count(), 1, "{ended:?}");
    server.stop().await;
}

#[tokio::test]
async fn what_is_new_in_an_empty_history_comes_from_its_first_event_on() {
    let folder = Folder::new();
    let address = address();
    let server = folder.start(&at(&address)).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    let listening = listen(&folder, &server, &receiver.url("/"), &[]).await;
    let api = Api::new(&server.base).await;
    api.publish("person.updated", json!(1)).await;
    let last = api.publish("person.updated", json!(2)).await;
    line_of(&listening, &last).await;
    server.stop().await;
    said(&listening, "waiting for the server").await;
    let new = Folder::new();
    let server = new.start(&at(&address)).await;
    said(&listening, "the server is back").await;
    let first = Api::new(&server.base).await.publish("person.updated", json!("first")).await;
    line_of(&listening, &first).await;
    said(&listening, "the server has another history").await;
    listening.interrupt().await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_is_deleted_meanwhile_ends_it() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    folder.json(&["org", "create", "Acme"]).await;
    let made = folder.json(&["client", "create", "--org", "Acme", "--id", "till"]).await;
    let secret = made["client_secret"].as_str().unwrap();
    let [url, _, _, signed_with] = variables(&server.base);
    let variables = [url, ("ESL_CLIENT_ID", "till"), ("ESL_CLIENT_SECRET", secret), signed_with];
    let to = ["listen", "--forward-to", "http://127.0.0.1:1/"];
    let listening = folder.begin(&to, &variables);
    said(&listening, "forwarding").await;
    let delete = ["client", "delete", "--org", "Acme", "till"];
    assert_eq!(folder.run(&delete, &[]).await.code, Some(0));
    let ended = listening.end().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("invalid_client"), "{ended:?}");
    server.stop().await;
}

#[tokio::test]
async fn nothing_comes_before_the_event_that_it_is_to_begin_with() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    api.publish("person.updated", json!(1)).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    let by_seq = listen(&folder, &server, &receiver.url("/"), &["--since", "3"]).await;
    let never = Receiver::start(Behaviour::Accept).await;
    let far = ["--since", "2999-01-01T00:00:00Z"];
    let by_time = listen(&folder, &server, &never.url("/"), &far).await;
    api.publish("person.updated", json!(2)).await;
    let third = api.publish("person.updated", json!(3)).await;
    line_of(&by_seq, &third).await;
    let fourth = api.publish("person.updated", json!(4)).await;
    line_of(&by_seq, &fourth).await;
    assert_eq!(data(&receiver.so_far()), [json!(3), json!(4)]);
    let ended = by_time.interrupt().await;
    assert_eq!((ended.stdout.as_str(), never.so_far().len()), ("", 0), "{ended:?}");
    by_seq.interrupt().await;
    server.stop().await;
}

#[tokio::test]
async fn a_secret_that_is_not_there_is_told_by_its_place() {
    let folder = Folder::new();
    let base = "http://127.0.0.1:1";
    let to = ["listen", "--forward-to", "http://127.0.0.1:1/"];
    for (option, text) in [
        ("--secret-file", ""),
        ("--secret-file", "\nhunter2"),
        ("--client-secret-file", "  \nhunter2"),
    ] {
        fs::write(folder.path().join("secret.txt"), text).unwrap();
        let arguments = [&to[..], &[option, "secret.txt"]].concat();
        let ended = folder.run(&arguments, &variables(base)).await;
        assert_eq!(ended.code, Some(1), "{option} {text:?}: {ended:?}");
        assert!(ended.stderr.contains("there is no secret in secret.txt"), "{ended:?}");
        assert!(!ended.stderr.contains("signing with"), "{ended:?}");
    }
    for variable in ["ESL_WEBHOOK_SECRET", "ESL_CLIENT_SECRET"] {
        let script = format!("export {variable}=\"$(printf 'hunter2\\377')\"; exec \"$@\"");
        let ended = folder.run_by(&["sh", "-c", &script, "sh"], &to, &variables(base)).await;
        assert_eq!(ended.code, Some(1), "{variable}: {ended:?}");
        assert!(ended.stderr.contains(&format!("{variable} is not UTF-8")), "{ended:?}");
        assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
    }
}

#[tokio::test]
async fn what_is_asked_for_wrongly_is_refused_with_what_is_expected() {
    let folder = Folder::new();
    let variables = [("ESL_CLIENT_ID", CLIENT), ("ESL_CLIENT_SECRET", SECRET)];
    for (to, prefix, expected) in [
        ("ftp://x/", "X-Sapien", "expected an http or https URL"),
        ("http://x/", "bad prefix", "letters, digits and inner hyphens"),
        ("http://x/", "ö", "letters, digits and inner hyphens"),
        ("http://x/", "", "letters, digits and inner hyphens"),
        ("http://x/", "Webhook", "expected another beginning"),
    ] {
        let prefix = format!("--prefix={prefix}");
        let ended = folder.run(&["listen", "--forward-to", to, &prefix], &variables).await;
        assert_eq!(ended.code, Some(2), "{to} {prefix}: {ended:?}");
        assert!(ended.stderr.contains(expected), "{ended:?}");
        assert!(!ended.stderr.contains("ESL_ALLOW_PRIVATE_CALLBACKS"), "{ended:?}");
    }
}
