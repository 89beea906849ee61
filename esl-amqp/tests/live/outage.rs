//! The broker goes, and comes back.

use esl_amqp::{BrokerTrouble, INGEST_QUEUE};
use esl_core::{LaneId, Wake};

use crate::{
    proxy::Proxy,
    world::{ACME, World, connected, properties, soon},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_came_in_when_the_connection_was_lost_is_published_once() {
    let mut world = World::new().await;
    let proxy = Proxy::to(&world.url).await;
    proxy.url().clone_into(&mut world.url);
    proxy.open().await;
    let link = world.broker().ingest(world.esl.clone()).start();
    connected(&link).await;
    for round in 0..5 {
        for number in 0..100 {
            let number = round * 100 + number;
            world
                .client
                .send(properties(ACME, &format!("order-{number}")), &number.to_string())
                .await;
        }
        proxy.cut().await;
        proxy.open().await;
    }
    let mut published = world.until_published(ACME, 500).await;
    published.sort_by_key(|data| data.parse::<u32>().unwrap());
    assert_eq!(published, (0..500).map(|number: u32| number.to_string()).collect::<Vec<_>>());
    link.shutdown().await;
    world.client.left(INGEST_QUEUE).await;
    let link = world.broker().ingest(world.esl.clone()).start();
    world.client.send(properties(ACME, "order-500"), "500").await;
    assert_eq!(world.until_published(ACME, 501).await.len(), 501);
    link.shutdown().await;
    // What a lost connection had, and did not acknowledge, the broker may have given back only now.
    soon(async {
        while world.client.left(INGEST_QUEUE).await > 0 {
            let link = world.broker().ingest(world.esl.clone()).start();
            connected(&link).await;
            world.client.until_taken(INGEST_QUEUE).await;
            link.shutdown().await;
        }
    })
    .await;
    assert_eq!(world.until_published(ACME, 501).await.len(), 501, "none is published twice");
    world.esl.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_says_that_the_broker_is_away_and_why_and_no_password() {
    let mut world = World::new().await;
    let proxy = Proxy::to(&world.url).await;
    proxy.url().replace(":guest@", ":hunter2@").clone_into(&mut world.url);
    let mut broker = world.broker();
    let wake = broker.wake();
    let link = broker.start();
    let away = soon(link.until(|state| state.last_trouble.is_some())).await;
    assert_eq!(away.connected_since, None);
    let what = away.last_trouble.unwrap().what;
    assert!(what.contains("connect") && what.contains("refused"), "{what}");
    // Nobody waits for a broker.
    wake.notify(&[LaneId::new(1)]);
    proxy.open().await;
    let is_refused = |trouble: &BrokerTrouble| trouble.what.contains("ACCESS_REFUSED");
    soon(link.until(|state| state.last_trouble.as_ref().is_some_and(is_refused))).await;
    let shown = format!("{:?} {link:?}", link.state());
    assert!(!shown.contains("hunter2"), "{shown}");
    world.stop(link).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_noticed_although_nobody_uses_it() {
    let mut world = World::new().await;
    let proxy = Proxy::to(&world.url).await;
    proxy.url().clone_into(&mut world.url);
    proxy.open().await;
    let link = world.broker().start();
    connected(&link).await;
    proxy.cut().await;
    soon(link.until(|state| state.connected_since.is_none())).await;
    proxy.open().await;
    connected(&link).await;
    assert!(link.state().last_trouble.is_some(), "what was wrong stays to be read");
    world.stop(link).await;
}
