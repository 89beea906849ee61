//! How a server stops.

use tokio::sync::watch;

use crate::support::{Api, Behaviour, Folder, Receiver, WITH_CLIENT};

#[tokio::test]
async fn sigterm_lets_what_is_being_sent_arrive_and_exits_with_0() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let (gate, is_open) = watch::channel(false);
    let receiver = Receiver::start(Behaviour::Gate(is_open)).await;
    let api = Api::new(&server.base).await;
    let subscription = api.subscribe(&receiver.url("/"), &["*"]).await;
    api.publish("person.updated", 1.into()).await;
    receiver.first().await;

    server.signal("TERM").await;
    server.logs("finishing deliveries").await;
    gate.send_replace(true);
    let ended = server.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("stopped"), "{}", ended.stderr);

    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    let (_, deliveries) =
        api.get(&format!("/api/v1/subscriptions/{subscription}/deliveries")).await;
    assert_eq!(deliveries["data"][0]["state"], "delivered", "{deliveries}");
    assert_eq!(receiver.so_far().len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn with_a_delay_it_is_not_ready_and_goes_on_until_others_have_seen_that() {
    let folder = Folder::new();
    let with = |delay| [WITH_CLIENT[0], WITH_CLIENT[1], ("ESL_SHUTDOWN_DELAY", delay)];
    let server = folder.start(&with("10m")).await;
    let receiver = Receiver::start(Behaviour::Accept).await;
    let api = Api::new(&server.base).await;
    api.subscribe(&receiver.url("/"), &["*"]).await;
    assert_eq!(api.get("/health/ready").await.0, 200);
    server.signal("TERM").await;
    server.logs("not ready; going on until others have seen it").await;
    let (status, ready) = api.get("/health/ready").await;
    assert_eq!((status, &ready["status"]), (503, &"not ready".into()), "{ready}");
    assert_eq!(api.get("/health").await.0, 200, "it works as before");
    let event = api.publish("person.updated", 1.into()).await;
    assert_eq!(receiver.first().await.event()["id"], event);
    // Who has no time for that says so once more.
    server.signal("TERM").await;
    assert_eq!(server.ended().await.code, Some(143));

    let server = folder.start(&with("100ms")).await;
    server.signal("TERM").await;
    let ended = server.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("not ready; going on"), "{}", ended.stderr);
}

#[tokio::test]
async fn sigint_stops_it_just_so() {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    server.signal("INT").await;
    assert_eq!(server.ended().await.code, Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once_and_loses_nothing() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let folder = Folder::new();
        let server = folder.start(&[WITH_CLIENT[0], WITH_CLIENT[1], ("ESL_SHUTDOWN_GRACE", "10m")]);
        let server = server.await;
        let receiver = Receiver::start(Behaviour::Hang).await;
        let api = Api::new(&server.base).await;
        let subscription = api.subscribe(&receiver.url("/"), &["*"]).await;
        api.publish("person.updated", 1.into()).await;
        receiver.first().await;

        server.signal("TERM").await;
        server.logs("finishing deliveries").await;
        server.signal(signal).await;
        let ended = server.ended().await;
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);

        let server = folder.start(&WITH_CLIENT).await;
        let api = Api::new(&server.base).await;
        let (_, deliveries) =
            api.get(&format!("/api/v1/subscriptions/{subscription}/deliveries")).await;
        assert_eq!(deliveries["data"][0]["state"], "pending", "{deliveries}");
        server.kill().await;
    }
}
