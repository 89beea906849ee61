//! Lanes in which a delivery waits for the one before it.

use std::{sync::Arc, time::Duration};

use esl_core::{
    AttemptError, Chance, Clock, DeliveryState, DisabledReason, Esl, NewSubscription, OnExhausted,
    OptionsUpdate, SendOrder, Subscription, SubscriptionOptions, SubscriptionUpdate,
    testing::{Reply, ScriptedTransport, SeededChance},
};

use crate::world::{ORGANIZATION, World, engine, event, run, sent_to, until, url};

fn strict() -> SubscriptionOptions {
    SubscriptionOptions::default().with_order(SendOrder::Strict)
}

/// A receiver that refuses two of three.
fn moody(clock: Arc<dyn Clock>, seed: u64) -> ScriptedTransport {
    let chance = SeededChance::new(seed);
    ScriptedTransport::answering(clock, move |_| {
        Reply::status(if chance.bits().is_multiple_of(3) { 200 } else { 500 })
    })
}

/// What was sent, each once: a retry follows the try before it.
fn without_retries(mut sent: Vec<u64>) -> Vec<u64> {
    sent.dedup();
    sent
}

async fn subscribe(esl: &Esl, options: SubscriptionOptions) -> Subscription {
    let new = NewSubscription::new(url("a"), vec!["*".parse().unwrap()]).with_options(options);
    esl.subscribe(ORGANIZATION, new).await.unwrap()
}

#[test]
fn order_holds_at_a_receiver_that_fails_at_random_and_over_restarts() {
    for seed in 0..20 {
        run(|world| async move {
            world.esl.shutdown().await;
            let transport = moody(Arc::new(world.clock.clone()), seed);
            let start = async |number: u64| {
                let builder = engine(seed * 100 + number, &world.storage, &world.clock, &transport);
                builder.build().await.unwrap()
            };
            let mut esl = start(1).await;
            let delays = vec![Duration::from_secs(3); 30];
            let subscription = subscribe(&esl, strict().with_retry_schedule(delays)).await;
            for round in 0..4 {
                for number in 0..10 {
                    esl.publish(event("person.updated", round * 10 + number)).await.unwrap();
                }
                // In the middle of it: cut off, with whatever is under way.
                until(&world.clock, || async {
                    let sent = sent_to(&transport, "a").len() as u64;
                    (sent > round * 12).then_some(())
                })
                .await;
                drop(esl);
                world.clock.advance(Duration::from_secs(31));
                esl = start(2 + round).await;
            }
            let list = || async {
                let deliveries = crate::world::deliveries(&esl, &subscription).await;
                deliveries.iter().all(|one| one.state == DeliveryState::Delivered).then_some(())
            };
            until(&world.clock, list).await;
            assert_eq!(
                without_retries(sent_to(&transport, "a")),
                (0..40).collect::<Vec<_>>(),
                "seed {seed}"
            );
        });
    }
}

#[test]
fn our_own_trouble_changes_nothing_of_the_order() {
    run(|world| async move {
        let subscription = subscribe(&world.esl, strict()).await;
        let unsent = || Reply::failure(AttemptError::Unsent);
        world.transport.script(&url("a"), [unsent(), unsent(), Reply::status(200), unsent()]);
        for number in 1..=5 {
            world.publish("person.updated", number).await;
        }
        world.until_delivered(&subscription, 5).await;
        assert_eq!(world.sent_to("a"), [1, 1, 1, 2, 2, 3, 4, 5]);
    });
}

#[test]
fn one_is_under_way_and_the_next_waits_for_its_commit() {
    run(|world| async move {
        let subscription = subscribe(&world.esl, strict()).await;
        world.transport.script(&url("a"), [Reply::status(200), Reply::Hang]);
        for number in 0..5 {
            world.publish("person.updated", number).await;
        }
        world.settle_down().await;
        assert_eq!((world.sent_to("a"), world.esl.in_flight()), (vec![0, 1], 1));
        let states = world.deliveries(&subscription).await;
        assert_eq!(states.last().unwrap().state, DeliveryState::Delivered);
        world.transport.release(&url("a"), &Reply::status(200));
        world.until_delivered(&subscription, 5).await;
        assert_eq!(world.sent_to("a"), [0, 1, 2, 3, 4]);
    });
}

#[test]
fn what_is_given_up_is_skipped_and_a_redelivery_comes_before_the_rest() {
    run(|world| async move {
        let options = strict().with_retry_schedule(vec![Duration::from_secs(5)]);
        let subscription = subscribe(&world.esl, options).await;
        world.transport.script(&url("a"), [Reply::status(500), Reply::status(500), Reply::Hang]);
        let first = world.publish("person.updated", 0).await;
        for number in 1..4 {
            world.publish("person.updated", number).await;
        }
        let given_up = world.until_state(&subscription, first, DeliveryState::Exhausted).await;
        world.settle_down().await;
        assert_eq!(world.sent_to("a"), [0, 0, 1], "the second is under way");
        world.esl.redeliver(ORGANIZATION, given_up.id).await.unwrap();
        world.settle_down().await;
        world.transport.release(&url("a"), &Reply::status(200));
        world.until_delivered(&subscription, 4).await;
        assert_eq!(world.sent_to("a"), [0, 0, 1, 0, 2, 3]);
    });
}

#[test]
fn what_is_given_up_can_stop_the_subscription() {
    run(|world| async move {
        let once = strict().with_retry_schedule(Vec::new()).with_on_exhausted(OnExhausted::Pause);
        let subscription = subscribe(&world.esl, once).await;
        world.transport.script(&url("a"), [Reply::status(500)]);
        let first = world.publish("person.updated", 0).await;
        let second = world.publish("person.updated", 1).await;
        let given_up = world.until_state(&subscription, first, DeliveryState::Exhausted).await;
        world.until_state(&subscription, second, DeliveryState::Held).await;
        let read = world.esl.storage().subscription(ORGANIZATION, subscription.id).await;
        let disabled_reason = read.unwrap().unwrap().disabled_reason;
        assert_eq!(disabled_reason, Some(DisabledReason::Exhausted));

        world.esl.redeliver(ORGANIZATION, given_up.id).await.unwrap();
        let mut resume = SubscriptionUpdate::default();
        resume.active = Some(true);
        world.esl.update_subscription(ORGANIZATION, subscription.id, resume).await.unwrap();
        world.until_delivered(&subscription, 2).await;
        assert_eq!(world.sent_to("a"), [0, 0, 1]);
    });
}

async fn set_order(world: &World, subscription: &Subscription, order: SendOrder) {
    let mut update = SubscriptionUpdate::default();
    let mut options = OptionsUpdate::default();
    options.order = Some(order);
    update.options = options;
    world.esl.update_subscription(ORGANIZATION, subscription.id, update).await.unwrap();
}

#[test]
fn order_can_be_changed_with_work_under_way_and_nothing_is_sent_twice() {
    run(|world| async move {
        let subscription = subscribe(&world.esl, SubscriptionOptions::default()).await;
        world.transport.script(&url("a"), vec![Reply::Hang; 4]);
        for number in 0..20 {
            world.publish("person.updated", number).await;
        }
        world.settle_down().await;
        set_order(&world, &subscription, SendOrder::Strict).await;
        world.settle_down().await;
        assert_eq!(world.sent_to("a").len(), 4, "what is under way ends first");
        world.transport.script(&url("a"), [Reply::Hang]);
        world.transport.release(&url("a"), &Reply::status(200));
        let is_hanging = || async { (world.transport.hanging_at(&url("a")) == 1).then_some(()) };
        world.until(is_hanging).await;
        set_order(&world, &subscription, SendOrder::Parallel).await;
        world.settle_down().await;
        world.transport.release(&url("a"), &Reply::status(200));
        world.until_delivered(&subscription, 20).await;
        assert_eq!(world.sent_to("a"), (0..20).collect::<Vec<_>>());
    });
}

#[test]
fn a_long_queue_goes_through_in_order() {
    run(|world| async move {
        let subscription = subscribe(&world.esl, strict()).await;
        let events = |from: u64| (from..from + 1000).map(|n| event("person.updated", n)).collect();
        for batch in 0..2 {
            world.esl.publish_batch(ORGANIZATION, events(batch * 1000), None).await.unwrap();
        }
        world.until_delivered(&subscription, 2000).await;
        assert_eq!(world.sent_to("a"), (0..2000).collect::<Vec<_>>());
    });
}
