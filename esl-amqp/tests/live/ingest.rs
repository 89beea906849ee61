//! Events from the queue.

use std::ops::Range;

use esl_amqp::{DEAD_QUEUE, INGEST_EXCHANGE, INGEST_QUEUE, LATER_QUEUE};
use esl_core::{EventId, Limit, Plan, Tier, storage::StorageErrorKind};
use lapin::{
    BasicProperties,
    options::BasicPublishOptions,
    types::{AMQPValue, FieldTable},
};

use crate::{
    faulty::Mode,
    world::{ACME, GLOBEX, World, connected, header, next, properties, soon},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_is_published_in_its_order_and_acknowledged() {
    let world = World::new().await;
    let link = world.broker().ingest(world.esl.clone()).start();
    connected(&link).await;
    for number in 0..600 {
        let organization = if number % 3 == 0 { GLOBEX } else { ACME };
        let properties = properties(organization, &format!("order-{number}"));
        world.client.send(properties, &number.to_string()).await;
    }
    let of = |is_wanted: fn(&u32) -> bool| {
        (0..600).filter(is_wanted).map(|number| number.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(world.until_published(ACME, 400).await, of(|number| number % 3 != 0));
    assert_eq!(world.until_published(GLOBEX, 200).await, of(|number| number % 3 == 0));
    // What was not acknowledged would be there again.
    link.shutdown().await;
    assert_eq!(world.client.left(INGEST_QUEUE).await, 0);
    world.esl.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_servers_keep_the_order_also_when_one_takes_over_from_another() {
    let world = World::new().await;
    let links = [1, 2].map(|_| world.broker().ingest(world.esl.clone()).start());
    for link in &links {
        connected(link).await;
    }
    let send = async |numbers: Range<u32>| {
        for number in numbers {
            let properties = properties(ACME, &format!("order-{number}"));
            world.client.send(properties, &number.to_string()).await;
        }
    };
    send(0..300).await;
    let [first, second] = links;
    first.shutdown().await;
    send(300..600).await;
    let all: Vec<String> = (0..600).map(|number| number.to_string()).collect();
    assert_eq!(world.until_published(ACME, 600).await, all);
    world.stop(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_twice_is_one_event_and_its_id_follows_from_the_message() {
    let world = World::new().await;
    let link = world.broker().ingest(world.esl.clone()).start();
    connected(&link).await;
    let own = EventId::from_bytes([9; 16]);
    for _ in 0..2 {
        world.client.send(properties(ACME, "order-1"), r#"{"price": 1.50}"#).await;
        world.client.send(properties(ACME, &own.to_string()), "2").await;
        // In another organization it is another event.
        world.client.send(properties(GLOBEX, "order-1"), "3").await;
    }
    world.client.send(properties(ACME, "last"), "4").await;
    assert_eq!(world.until_published(ACME, 3).await, [r#"{"price": 1.50}"#, "2", "4"]);
    assert_eq!(world.until_published(GLOBEX, 1).await, ["3"]);
    assert!(world.esl.storage().event(ACME, own).await.unwrap().is_some());
    world.stop(link).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routing_key_at_the_exchange_is_the_type() {
    let world = World::new().await;
    let link = world.broker().ingest(world.esl.clone()).start();
    connected(&link).await;
    let mut headers = FieldTable::default();
    let id = ACME.to_string();
    headers.insert("esl-organization".into(), AMQPValue::LongString(id.into()));
    let properties = BasicProperties::default().with_message_id("evt".into()).with_headers(headers);
    let options = BasicPublishOptions::default();
    let (exchange, key) = (INGEST_EXCHANGE.into(), "person.created".into());
    let sent = world.client.channel.basic_publish(exchange, key, options, b"1", properties);
    sent.await.unwrap().await.unwrap();
    world.until_published(ACME, 1).await;
    let wanted = Some("person.created".parse().unwrap());
    let page = esl_core::storage::Page { after: None, limit: 10 };
    let events = world.esl.storage().events(ACME, wanted, page).await.unwrap();
    assert_eq!(events.items.len(), 1);
    world.stop(link).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_published_is_put_aside_with_the_reason_and_holds_up_nothing() {
    let world = World::new().await;
    let link = world.broker().ingest(world.esl.clone()).start();
    connected(&link).await;
    let mut dead = world.client.consume(DEAD_QUEUE).await;
    let stranger = esl_core::OrganizationId::from_bytes([7; 16]);
    world.client.send(properties(ACME, "order-1"), "1").await;
    for (properties, body, reason) in [
        (BasicProperties::default(), "1", "the header esl-organization is missing"),
        (properties(ACME, "order-2"), "{", "the body is not JSON"),
        (properties(ACME, "order-1"), "2", "exists with other content"),
        (properties(stranger, "order-1"), "1", "there is no such organization"),
        (properties(ACME, "order-3").with_type("system.ping".into()), "1", "by ESL alone"),
    ] {
        let properties = properties.with_expiration("60000".into());
        world.client.send(properties, body).await;
        let delivery = next(&mut dead).await;
        let said = header(&delivery, "esl-reason").unwrap();
        assert!(said.contains(reason), "{said}");
        assert_eq!(delivery.data, body.as_bytes());
        assert_eq!(header(&delivery, "esl-routing-key").as_deref(), Some(INGEST_QUEUE));
    }
    world.client.send(properties(ACME, "order-4"), "4").await;
    assert_eq!(world.until_published(ACME, 2).await, ["1", "4"]);
    link.shutdown().await;
    assert_eq!(world.client.left(INGEST_QUEUE).await, 0);
    world.esl.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_wrong_message_of_many_takes_none_of_the_others_with_it() {
    let world = World::new().await;
    // All of them wait, so that they come as one batch.
    let link = world.broker().ingest(world.esl.clone()).start();
    connected(&link).await;
    link.shutdown().await;
    for number in 0..50 {
        let event_type = if number == 20 { "system.ping" } else { "order.placed" };
        let properties = properties(ACME, &format!("order-{number}")).with_type(event_type.into());
        world.client.send(properties, &number.to_string()).await;
    }
    let link = world.broker().ingest(world.esl.clone()).start();
    let expected: Vec<_> = (0..50).filter(|n| *n != 20).map(|n: u32| n.to_string()).collect();
    assert_eq!(world.until_published(ACME, 49).await, expected);
    link.shutdown().await;
    assert_eq!(world.client.count(DEAD_QUEUE).await, 1);
    assert_eq!(world.client.left(INGEST_QUEUE).await, 0);
    world.esl.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organization_over_its_limit_waits_and_the_others_do_not() {
    let world = World::new().await;
    let plan = Plan { events_per_hour: Some(Limit::AtMost(2)), ..Plan::new(Tier::Free) };
    world.esl.set_plan(ACME, Some(plan)).await.unwrap();
    let link = world.broker().ingest(world.esl.clone()).start();
    connected(&link).await;
    for number in 0..5 {
        let properties = properties(ACME, &format!("order-{number}"));
        world.client.send(properties, &number.to_string()).await;
    }
    world.client.send(properties(GLOBEX, "order-1"), "1").await;
    world.until_published(GLOBEX, 1).await;
    soon(async { while world.client.count(LATER_QUEUE).await < 3 {} }).await;
    link.shutdown().await;
    assert_eq!(world.client.left(INGEST_QUEUE).await, 0);
    assert_eq!(world.client.count(DEAD_QUEUE).await, 0);
    world.esl.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_storage_is_away_nothing_is_acknowledged_or_put_aside() {
    let world = World::new().await;
    let link = world.broker().ingest(world.esl.clone()).start();
    connected(&link).await;
    world.fault.set(Mode::Fail(StorageErrorKind::Unavailable));
    for number in 0..20 {
        let properties = properties(ACME, &format!("order-{number}"));
        world.client.send(properties, &number.to_string()).await;
    }
    // All of it was handed out …
    soon(async { while world.client.count(INGEST_QUEUE).await > 0 {} }).await;
    link.shutdown().await;
    // … and is still there.
    assert_eq!(world.client.left(INGEST_QUEUE).await, 20);
    assert_eq!(world.client.count(DEAD_QUEUE).await + world.client.count(LATER_QUEUE).await, 0);
    let link = world.broker().ingest(world.esl.clone()).start();
    connected(&link).await;
    world.fault.set(Mode::None);
    let expected: Vec<_> = (0..20).map(|number: u32| number.to_string()).collect();
    assert_eq!(world.until_published(ACME, 20).await, expected);
    link.shutdown().await;
    assert_eq!(world.client.left(INGEST_QUEUE).await, 0);
    world.esl.shutdown().await;
}
