//! Every committed event goes to the exchange.

use std::time::Duration;

use esl_amqp::EVENTS_EXCHANGE;
use esl_core::EventId;
use lapin::{ExchangeKind, options::ExchangeDeclareOptions, types::FieldTable};

use crate::{
    proxy::Proxy,
    world::{ACME, Client, GLOBEX, World, connected, event, header, next},
};

#[tokio::test(flavor = "multi_thread")]
async fn every_event_goes_out_in_order_to_whoever_has_bound_its_type() {
    let world = World::new().await;
    world.publish(ACME, "person.early").await;
    let link = world.broker().events(world.esl.clone()).start();
    connected(&link).await;
    let mut persons = world.client.bind(EVENTS_EXCHANGE, "person.*").await;
    let mut all = world.client.bind(EVENTS_EXCHANGE, "#").await;
    // The first is from before anybody asked for it.
    opt_in(&world).await;
    for number in 0..600 {
        let event_type = if number % 3 == 0 { "pet.created" } else { "person.updated" };
        world.publish(if number % 2 == 0 { ACME } else { GLOBEX }, event_type).await;
    }
    let mut seqs = [(ACME, 1), (GLOBEX, 0)];
    for _ in 0..600 {
        let delivery = next(&mut all).await;
        let organization = header(&delivery, "esl-organization").unwrap();
        let seq: u64 = header(&delivery, "esl-seq").unwrap().parse().unwrap();
        let (_, last) = seqs.iter_mut().find(|(id, _)| id.to_string() == organization).unwrap();
        assert_eq!(seq, *last + 1, "in order");
        *last = seq;
    }
    for _ in 0..400 {
        assert_eq!(next(&mut persons).await.routing_key.as_str(), "person.updated");
    }
    world.stop(link).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_goes_out_as_its_receivers_get_it() {
    let world = World::new().await;
    let link = world.broker().events(world.esl.clone()).start();
    connected(&link).await;
    let mut all = world.client.bind(EVENTS_EXCHANGE, "#").await;
    opt_in(&world).await;
    let id = EventId::from_bytes([9; 16]);
    world.esl.publish(event(ACME, "person.updated").with_id(id)).await.unwrap();
    let stored = world.storage_event(id).await;
    let delivery = next(&mut all).await;
    assert_eq!(delivery.data, &*stored.body);
    let properties = &delivery.properties;
    let text = |it: &Option<lapin::types::ShortString>| it.as_ref().map(|it| it.to_string());
    assert_eq!(text(properties.message_id()), Some(id.to_string()));
    assert_eq!(text(properties.kind()).as_deref(), Some("person.updated"));
    assert_eq!(text(properties.content_type()).as_deref(), Some("application/json"));
    assert_eq!(*properties.delivery_mode(), Some(2), "persistent");
    assert_eq!(*properties.timestamp(), Some(stored.timestamp.as_seconds().unsigned_abs()));
    assert_eq!(header(&delivery, "esl-id"), Some(id.to_string()));
    assert_eq!(header(&delivery, "esl-organization"), Some(ACME.to_string()));
    assert_eq!(header(&delivery, "esl-seq").as_deref(), Some("1"));
    world.stop(link).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_while_the_broker_is_away_goes_out_when_it_is_back() {
    let mut world = World::new().await;
    let proxy = Proxy::to(&world.url).await;
    proxy.url().clone_into(&mut world.url);
    declare(&world.client).await;
    let mut all = world.client.bind(EVENTS_EXCHANGE, "#").await;
    let link = world.broker().events(world.esl.clone()).start();
    opt_in(&world).await;
    for _ in 0..10 {
        world.publish(ACME, "person.updated").await;
    }
    assert_eq!(link.state().connected_since, None);
    proxy.open().await;
    let mut last = 0;
    // Each cut is in the middle of something: nothing is left out, and nothing goes before its turn.
    for round in 1..=5 {
        for _ in 0..300 {
            world.publish(ACME, "person.updated").await;
        }
        proxy.cut().await;
        world.publish(ACME, "person.updated").await;
        proxy.open().await;
        while last < 10 + round * 301 {
            let delivery = next(&mut all).await;
            let seq: u64 = header(&delivery, "esl-seq").unwrap().parse().unwrap();
            assert!(seq <= last + 1, "{seq} after {last}");
            last = last.max(seq);
        }
    }
    link.shutdown().await;

    // A new link goes on where the last one was.
    world.publish(ACME, "person.created").await;
    let link = world.broker().events(world.esl.clone()).start();
    loop {
        let delivery = next(&mut all).await;
        let seq: u64 = header(&delivery, "esl-seq").unwrap().parse().unwrap();
        assert!(seq > last - 256, "only what was not confirmed comes again");
        if delivery.routing_key.as_str() == "person.created" {
            break;
        }
    }
    world.stop(link).await;
}

impl World {
    async fn storage_event(&self, id: EventId) -> esl_core::storage::StoredEvent {
        self.esl.storage().event(ACME, id).await.unwrap().unwrap()
    }
}

/// What is committed from now on goes out, as soon as the link asks for it, too.
async fn opt_in(world: &World) {
    let worker = world.esl.leads(Duration::ZERO).unwrap();
    world.esl.storage().begin_feed(&worker, EVENTS_EXCHANGE).await.unwrap();
}

async fn declare(client: &Client) {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let (kind, arguments) = (ExchangeKind::Topic, FieldTable::default());
    let declared =
        client.channel.exchange_declare(EVENTS_EXCHANGE.into(), kind, options, arguments);
    declared.await.unwrap();
}
