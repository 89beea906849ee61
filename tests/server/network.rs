//! What lies between the server and its receivers: certificates, addresses, a proxy.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use hyper::Version;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::support::{Api, Authority, Behaviour, Folder, Receiver, WITH_CLIENT};

#[tokio::test]
async fn a_listed_receiver_of_a_private_authority_is_delivered_to_without_the_systems_roots() {
    let folder = Folder::new();
    let authority = Authority::new();
    let ca_file = folder.database().with_file_name("ca.pem");
    fs::write(&ca_file, authority.pem()).expect("it can be written");
    let nothing = folder.database().with_file_name("nothing");
    fs::create_dir(&nothing).expect("it can be made");
    let nothing = nothing.to_str().expect("UTF-8");
    let variables = [
        WITH_CLIENT[0],
        ("ESL_ALLOWED_CALLBACKS", "127.0.0.1"),
        ("ESL_CA_FILE", ca_file.to_str().expect("UTF-8")),
        // So it is in an image without certificates.
        ("SSL_CERT_FILE", nothing),
        ("SSL_CERT_DIR", nothing),
    ];
    let server = folder.start(&variables).await;
    let api = Api::new(&server.base).await;
    let receiver = Receiver::start_tls(authority.acceptor("127.0.0.1"), Behaviour::Accept).await;
    api.subscribe(&format!("https://{}/hook", receiver.address()), &["person.*"]).await;
    for url in ["https://127.0.0.2/hook", "http://127.0.0.1/hook"] {
        let body = json!({ "callback_url": url, "events": ["person.*"] });
        let (status, refused) =
            api.post("/api/v1/subscriptions", &body).await.expect("the server runs");
        assert_eq!(status, 422, "{url}: {refused}");
    }
    let id = api.publish("person.updated", json!({ "name": "Ada" })).await;
    let received = receiver.first().await;
    assert_eq!(received.version, Version::HTTP_2);
    assert_eq!(received.header("webhook-id"), Some(&*id));
    server.logs("this machine has no root certificates").await;
    server.stop().await;
}

#[tokio::test]
async fn deliveries_leave_through_the_proxy_whose_password_is_not_logged() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let proxy = listener.local_addr().expect("an address");
    let tunnels = Arc::new(AtomicUsize::new(0));
    let asked = Arc::new(Mutex::new(String::new()));
    let seen = (Arc::clone(&tunnels), Arc::clone(&asked));
    tokio::spawn(async move {
        let mut clients = JoinSet::new();
        loop {
            let (client, _) = listener.accept().await.expect("a client");
            let (tunnels, asked) = seen.clone();
            clients.spawn(async move {
                let mut client = BufReader::new(client);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    client.read_line(&mut head).await.expect("a head");
                }
                let target = head.split(' ').nth(1).expect("a target").to_owned();
                asked.lock().expect("nobody panics").push_str(&head);
                client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.expect("it listens");
                let mut target = TcpStream::connect(target).await.expect("a receiver");
                tunnels.fetch_add(1, Ordering::SeqCst);
                drop(copy_bidirectional(&mut client.into_inner(), &mut target).await);
            });
        }
    });
    let url = format!("http://esl:hunter2@{proxy}");
    let folder = Folder::new();
    let variables = [&WITH_CLIENT[..], &[("ESL_EGRESS_PROXY", &url)]].concat();
    let server = folder.start(&variables).await;
    let api = Api::new(&server.base).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    api.subscribe(&receiver.url("/hook"), &["person.*"]).await;
    for number in 1..=3 {
        api.publish("person.updated", json!({ "number": number })).await;
        receiver.first_of(number).await;
    }
    assert!((1..=3).contains(&tunnels.load(Ordering::SeqCst)));
    let asked = asked.lock().expect("nobody panics").clone();
    assert!(asked.starts_with(&format!("CONNECT {} HTTP/1.1\r\n", receiver.address())), "{asked}");
    assert!(asked.contains("Proxy-Authorization: Basic ZXNsOmh1bnRlcjI="), "{asked}");
    let ended = server.stop().await;
    assert!(ended.stderr.contains("(hidden)@") && !ended.stderr.contains("hunter2"));
}
