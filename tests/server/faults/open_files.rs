//! The process may open no more files.

use std::{fs, process::Command};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::until_all_came;
use crate::support::{Api, Behaviour, Folder, Receiver, Server, WITHOUT_LIMIT, in_time};

const EVENTS: usize = 50;
/// Its input, its output and its log: however many others are closed, none can be opened.
const OPEN_ALWAYS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn without_a_file_to_spare_nothing_is_lost_or_charged_and_clients_come_in_again() {
    let folder = Folder::new();
    let server = folder.start(&WITHOUT_LIMIT).await;
    let api = Api::new(&server.base).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    // A name takes files to look up, an address a socket.
    let by_name = format!("http://localhost:{}/name", receiver.address().port());
    let by_name = api.subscribe(&by_name, &["person.*"]).await;
    let by_address = api.subscribe(&receiver.url("/address"), &["person.*"]).await;

    // Sent to nobody. What publishing needs is open from here on: this connection, and the storage's.
    let mut connection = Connection::open(&server, &api).await;
    let (status, answer) = connection.publish("pet.updated", "first", &json!({})).await;
    assert_eq!(status, 202, "{answer}");
    let most = allow(&server, OPEN_ALWAYS);
    let mut acknowledged = Vec::new();
    for number in 0..EVENTS {
        acknowledged.push(connection.publish_in_the_end(number).await);
    }
    server.logs("deliveries cannot be sent").await;
    // This one's data would become a file.
    let large = "x".repeat(500_000);
    let (status, answer) = connection.publish("person.updated", "large", &json!(large)).await;
    assert_eq!((status, &answer["code"]), (503, &json!("unavailable")), "{answer}");
    let waiting = TcpStream::connect(address(&server)).await;
    server.logs("could not accept a connection").await;

    allow(&server, most);
    drop(waiting);
    let later = Api::new(&server.base).await;
    acknowledged.push(later.publish("person.updated", large.into()).await);
    until_all_came(&receiver, acknowledged).await;
    for subscription in [by_name, by_address] {
        let all = format!("/api/v1/subscriptions/{subscription}/deliveries?limit=100");
        later.until(&format!("{all}&state=pending"), |list| list["data"] == json!([])).await;
        let (_, list) = later.get(&all).await;
        let deliveries = list["data"].as_array().expect("a list");
        assert_eq!(deliveries.len(), EVENTS + 1);
        for delivery in deliveries {
            let outcome = (&delivery["state"], &delivery["attempts"]);
            assert_eq!(outcome, (&json!("delivered"), &json!(1)), "{delivery}");
        }
    }
    server.stop().await;
}

/// One connection, and never another: a client's pool makes a further one whenever an answer's end is not seen in
/// time, and nobody would accept it here.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    authorization: String,
}

impl Connection {
    async fn open(server: &Server, api: &Api) -> Self {
        let stream = TcpStream::connect(address(server)).await.expect("it listens");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("no bytes yet");
        tokio::spawn(connection);
        Self { sender, authorization: format!("Bearer {}", api.token().await) }
    }

    /// Publishes an event under a key; gives the status and the answer.
    async fn publish(&mut self, event_type: &str, key: &str, data: &Value) -> (u16, Value) {
        let event = json!({ "type": event_type, "data": data }).to_string();
        let request = Request::post("/api/v1/events")
            .header("host", "localhost")
            .header("authorization", &self.authorization)
            .header("content-type", "application/json")
            .header("idempotency-key", key)
            .body(Full::from(event))
            .expect("a request");
        self.sender.ready().await.expect("the connection lasts");
        let answer = self.sender.send_request(request).await.expect("an answer");
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("its end").to_bytes();
        (status, serde_json::from_slice(&body).expect("JSON"))
    }

    /// Publishes an event; gives its id. What has to do with a database can be told to come again.
    async fn publish_in_the_end(&mut self, number: usize) -> String {
        let publish = async {
            loop {
                let key = number.to_string();
                let (status, answer) = self.publish("person.updated", &key, &number.into()).await;
                if status != 503 {
                    assert_eq!(status, 202, "{answer}");
                    return answer["id"].as_str().expect("an id").to_owned();
                }
            }
        };
        in_time("an acknowledgement", publish).await
    }
}

fn address(server: &Server) -> &str {
    server.base.trim_start_matches("http://")
}

/// Lets the server have files with numbers below this alone, but for those that it has open; gives what held
/// before.
fn allow(server: &Server, files: usize) -> usize {
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.id())).expect("it runs");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let before = line.split_whitespace().nth(3).expect("a number").parse().expect("a number");
    let status = Command::new("prlimit")
        .args([format!("--pid={}", server.id()), format!("--nofile={files}:")])
        .status();
    assert!(status.expect("prlimit is installed").success());
    before
}
