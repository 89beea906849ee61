//! What a subscription says of how it wants its deliveries.

use std::{num::NonZeroU32, time::Duration};

use esl_core::{
    AttemptError, CustomHeaders, DeliveryState, OptionsUpdate, PublishError, Subscription,
    SubscriptionOptions, SubscriptionUpdate, testing::Reply,
};

use crate::world::{ORGANIZATION, START, World, event, run, run_with, url};

async fn subscribe(world: &World, path: &str, options: SubscriptionOptions) -> Subscription {
    world.subscribe_with(path, "person.*", options).await
}

#[test]
fn its_own_headers_go_with_every_delivery_and_never_in_place_of_ours() {
    run_with(
        |builder| builder.header_prefix("X-Acme"),
        |world| async move {
            // Ours under today's prefix, although nothing was wrong with it when it was stored.
            let headers = [("X-Api-Key", "k 1"), ("x-acme-signature", "forged")];
            let headers = CustomHeaders::new(headers).unwrap();
            let options = SubscriptionOptions::default().with_headers(headers);
            let subscription = subscribe(&world, "a", options).await;
            world.publish("person.updated", 1).await;
            world.until_delivered(&subscription, 1).await;
            let sent = world.transport.sightings().pop().unwrap();
            assert_eq!(sent.header("x-api-key"), Some("k 1"));
            let signatures = sent.outbound.headers.iter();
            let signatures: Vec<_> =
                signatures.filter(|(name, _)| &**name == "x-acme-signature").collect();
            assert_eq!(signatures.len(), 1);
            assert_ne!(signatures[0].1, "forged");
        },
    );
}

#[test]
fn its_own_retry_schedule_is_its_budget_too() {
    run(|world| async move {
        let delays = [7, 30].map(Duration::from_secs).to_vec();
        let options = SubscriptionOptions::default().with_retry_schedule(delays.clone());
        let patient = subscribe(&world, "a", options).await;
        let none = SubscriptionOptions::default().with_retry_schedule(Vec::new());
        let never = subscribe(&world, "b", none).await;
        for path in ["a", "b"] {
            world.transport.script(&url(path), vec![Reply::status(500); 3]);
        }
        let published = world.publish("person.updated", 1).await;
        world.until_state(&patient, published, DeliveryState::Exhausted).await;
        let sightings = world.transport.sightings_at(&url("a"));
        let waited: Vec<_> =
            sightings.windows(2).map(|pair| pair[1].at.since(pair[0].at)).collect();
        assert_eq!(waited, delays);
        world.until_state(&never, published, DeliveryState::Exhausted).await;
        assert_eq!(world.transport.sightings_at(&url("b")).len(), 1);
    });
}

#[test]
fn its_own_deadline_ends_an_attempt() {
    run(|world| async move {
        let options = SubscriptionOptions::default().with_timeout(Duration::from_secs(3));
        let subscription = subscribe(&world, "a", options).await;
        world.transport.script(&url("a"), [Reply::Hang]);
        let published = world.publish("person.updated", 1).await;
        let delivery = world.until_state(&subscription, published, DeliveryState::Delivered).await;
        let (_, log) =
            world.esl.storage().delivery(ORGANIZATION, delivery.id).await.unwrap().unwrap();
        assert_eq!(log[0].error, Some(AttemptError::Timeout));
        let sightings = world.transport.sightings();
        assert_eq!(sightings[0].outbound.timeout, Duration::from_secs(3));
        // A second's retry delay with its jitter, after the three seconds.
        let waited = sightings[1].at.since(sightings[0].at);
        assert!((3800..=4220).contains(&waited.as_millis()), "{waited:?}");
    });
}

#[test]
fn no_more_are_under_way_than_it_allows() {
    run(|world| async move {
        let in_flight = |count| NonZeroU32::new(count).unwrap();
        let narrow = SubscriptionOptions::default().with_max_in_flight(in_flight(2));
        let wide = SubscriptionOptions::default().with_max_in_flight(in_flight(100));
        let narrow = subscribe(&world, "narrow", narrow).await;
        let wide = subscribe(&world, "wide", wide).await;
        // A lane that succeeds widens, up to what it may.
        for number in 0..400 {
            world.publish("person.updated", number).await;
        }
        world.until_delivered(&wide, 400).await;
        world.until_delivered(&narrow, 400).await;
        for path in ["narrow", "wide"] {
            world.transport.script(&url(path), vec![Reply::Hang; 200]);
        }
        for number in 0..200 {
            world.publish("person.updated", number).await;
        }
        world.adapt().await;
        assert_eq!(world.transport.hanging_at(&url("narrow")), 2);
        assert_eq!(world.transport.hanging_at(&url("wide")), 100);
    });
}

#[test]
fn no_more_begin_in_a_second_than_it_allows_and_its_neighbours_do_not_wait() {
    run(|world| async move {
        let rate = NonZeroU32::new(20).unwrap();
        let options = SubscriptionOptions::default().with_max_per_second(rate);
        let slow = subscribe(&world, "slow", options).await;
        let quick = world.subscribe("quick", "*").await;
        let events = (0..100).map(|number| event("person.updated", number)).collect();
        world.esl.publish_batch(ORGANIZATION, events, None).await.unwrap();
        world.until_delivered(&slow, 100).await;
        let times: Vec<_> = world
            .transport
            .sightings_at(&url("slow"))
            .iter()
            .map(|sent| sent.at_monotonic)
            .collect();
        for (index, first) in times.iter().enumerate() {
            let within =
                times[index..].iter().take_while(|at| **at - *first < Duration::from_secs(1));
            assert!(within.count() <= 21);
        }
        let took = *times.last().unwrap() - times[0];
        assert!((4900..=5100).contains(&took.as_millis()), "{took:?}");
        world.until_delivered(&quick, 100).await;
        let last = world.transport.sightings_at(&url("quick")).pop().unwrap();
        assert!(last.at.since(START) < Duration::from_secs(1));
    });
}

#[test]
fn changed_options_hold_from_the_next_send_on() {
    run(|world| async move {
        let rate = NonZeroU32::new(1).unwrap();
        let options = SubscriptionOptions::default().with_max_per_second(rate);
        let subscription = subscribe(&world, "a", options).await;
        for number in 0..50 {
            world.publish("person.updated", number).await;
        }
        world.settle_down().await;
        assert_eq!(world.sent_to("a").len(), 1);
        let mut update = SubscriptionUpdate::default();
        let mut changed = OptionsUpdate::default();
        changed.max_per_second = Some(None);
        changed.timeout = Some(Some(Duration::from_secs(2)));
        update.options = changed;
        world.esl.update_subscription(ORGANIZATION, subscription.id, update).await.unwrap();
        world.settle_down().await;
        world.until_delivered(&subscription, 50).await;
        let last = world.transport.sightings().pop().unwrap();
        assert_eq!(last.outbound.timeout, Duration::from_secs(2));
        assert!(last.at.since(START) < Duration::from_secs(1));
    });
}

#[test]
fn an_engine_that_is_switched_off_refuses_events_and_sends_nothing() {
    run_with(
        |builder| builder.enabled(false),
        |world| async move {
            let subscription = world.subscribe("a", "*").await;
            let refused = world.esl.publish(event("person.updated", 1)).await;
            assert!(matches!(refused, Err(PublishError::Disabled)), "{refused:?}");
            let refused = world.esl.ping(ORGANIZATION, subscription.id, None).await;
            assert!(matches!(refused, Err(PublishError::Disabled)), "{refused:?}");
            let refused = world.esl.prepare(event("person.updated", 1)).await;
            assert!(matches!(refused, Err(PublishError::Disabled)));
            world.esl.shutdown().await;
            assert!(world.transport.sightings().is_empty());
        },
    );
}

#[test]
fn a_ping_goes_to_its_subscription_alone_whatever_its_patterns() {
    run(|world| async move {
        let pinged = world.subscribe("a", "pet.created").await;
        let other = world.subscribe("b", "*").await;
        let (published, delivery) = world.esl.ping(ORGANIZATION, pinged.id, None).await.unwrap();
        assert_eq!(published.deliveries, 1);
        world.until_delivered(&pinged, 1).await;
        let sent = world.transport.sightings().pop().unwrap();
        assert_eq!(sent.header("x-sapien-event"), Some("system.ping"));
        assert_eq!(sent.header("x-sapien-delivery"), Some(&*delivery.to_string()));
        let body: serde_json::Value = serde_json::from_slice(&sent.outbound.body).unwrap();
        assert_eq!(body["data"]["subscription_id"], pinged.id.to_string());
        assert_eq!(world.deliveries(&other).await.len(), 0);

        world.esl.delete_subscription(ORGANIZATION, pinged.id).await.unwrap();
        let gone = world.esl.ping(ORGANIZATION, pinged.id, None).await;
        assert!(matches!(gone, Err(PublishError::UnknownSubscription)));
    });
}

#[test]
fn how_far_behind_an_engine_is_leaves_out_what_receivers_wait_for() {
    run(|world| async move {
        let second = Duration::from_secs(1);
        let behind = || world.esl.status().behind;
        let slow = world.subscribe("slow", "slow.*").await;
        world.transport.script(&url("slow"), vec![Reply::Hang; 6]);
        for number in 0..6 {
            world.publish("slow.one", number).await;
            world.clock.advance(second);
        }
        world.settle_down().await;
        assert_eq!(world.esl.status().in_flight, 4);
        // The fifth came two seconds ago, and there is no room for it.
        assert_eq!(behind(), Some(second * 2));
        let status = world.esl.status();
        assert!(status.delivers && status.leads, "{status:?}");

        let mut pause = SubscriptionUpdate::default();
        pause.active = Some(false);
        world.esl.update_subscription(ORGANIZATION, slow.id, pause).await.unwrap();
        world.settle_down().await;
        assert_eq!(behind(), None, "it is paused");
        world.transport.release(&url("slow"), &Reply::status(200));
        world.settle_down().await;
        assert_eq!(world.esl.status().in_flight, 0);
    });
}
