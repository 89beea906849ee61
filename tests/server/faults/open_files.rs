//! The process may open no more files.

use std::{fs, process::Command};

use serde_json::json;
use tokio::net::TcpStream;

use super::{publish_or_hear_why_not, until_all_came};
use crate::support::{Api, Behaviour, Folder, Receiver, Server, WITHOUT_LIMIT};

const EVENTS: usize = 50;

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

    let most = allow(&server, open_files(&server));
    let mut acknowledged = Vec::new();
    for number in 0..EVENTS {
        acknowledged.push(api.publish("person.updated", number.into()).await);
    }
    server.logs("deliveries cannot be sent").await;
    // This one's data would become a file.
    let large = "x".repeat(500_000);
    assert_eq!(publish_or_hear_why_not(&api, large.clone().into()).await, None);
    let waiting = TcpStream::connect(server.base.trim_start_matches("http://")).await;
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

fn open_files(server: &Server) -> usize {
    fs::read_dir(format!("/proc/{}/fd", server.id())).expect("it runs").count()
}

/// Lets the server open so many files, and gives how many it might open before.
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
