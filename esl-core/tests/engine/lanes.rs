//! Order, pause, delete, spill.

use std::time::Duration;

use esl_core::{DeliveryState, RetryPolicy, SubscriptionUpdate, testing::Reply};

use crate::world::{ORGANIZATION, START, event, run, run_with, url};

fn active(active: bool) -> SubscriptionUpdate {
    let mut update = SubscriptionUpdate::default();
    update.active = Some(active);
    update
}

#[test]
fn sends_start_in_the_order_of_publishing() {
    run(|world| async move {
        let subscription = world.subscribe("a", "*").await;
        for number in 1..=2000 {
            world.publish("person.updated", number).await;
        }
        world.until_delivered(&subscription, 2000).await;
        assert_eq!(world.sent_to("a"), (1..=2000).collect::<Vec<_>>());
    });
}

#[test]
fn a_lane_that_spills_loses_nothing_repeats_nothing_and_keeps_its_order() {
    run(|world| async move {
        let subscription = world.subscribe("a", "*").await;
        // The window is full long before the receiver answers.
        world.transport.script(&url("a"), vec![Reply::Hang; 4]);
        let events = |from: u64| (from..from + 1000).map(|n| event("person.updated", n)).collect();
        for batch in 0..3 {
            let published = world.esl.publish_batch(ORGANIZATION, events(batch * 1000), None).await;
            published.unwrap();
            world.settle_down().await;
        }
        world.transport.release(&url("a"), &Reply::status(200));
        world.settle_down().await;
        // Some more while it catches up.
        world.esl.publish_batch(ORGANIZATION, events(3000), None).await.unwrap();
        world.until_delivered(&subscription, 4000).await;
        assert_eq!(world.sent_to("a"), (0..4000).collect::<Vec<_>>());
    });
}

#[test]
fn a_paused_subscription_holds_and_then_sends_in_order() {
    run(|world| async move {
        let subscription = world.subscribe("a", "*").await;
        world.publish("person.updated", 0).await;
        world.until_delivered(&subscription, 1).await;
        // Four under way, the others in the window, when it is paused.
        world.transport.script(&url("a"), vec![Reply::Hang; 4]);
        for number in 1..=20 {
            world.publish("person.updated", number).await;
        }
        world.settle_down().await;
        world.esl.update_subscription(ORGANIZATION, subscription.id, active(false)).await.unwrap();
        world.transport.release(&url("a"), &Reply::status(200));
        for number in 21..=40 {
            world.publish("person.updated", number).await;
        }
        world.until_delivered(&subscription, 5).await;
        let held = world.deliveries(&subscription).await;
        assert_eq!(held.iter().filter(|one| one.state == DeliveryState::Held).count(), 36);

        world.esl.update_subscription(ORGANIZATION, subscription.id, active(true)).await.unwrap();
        world.until_delivered(&subscription, 41).await;
        assert_eq!(world.sent_to("a"), (0..=40).collect::<Vec<_>>());
    });
}

#[test]
fn deleting_cancels_what_is_owed_and_the_list_stays() {
    run(|world| async move {
        let subscription = world.subscribe("a", "*").await;
        world.esl.update_subscription(ORGANIZATION, subscription.id, active(false)).await.unwrap();
        let published = world.publish("person.updated", 1).await;
        world.esl.delete_subscription(ORGANIZATION, subscription.id).await.unwrap();
        let delivery = world.until_state(&subscription, published, DeliveryState::Cancelled).await;
        assert_eq!(delivery.attempts, 0);
        assert_eq!(world.publish("person.updated", 2).await.deliveries, 0);
        assert_eq!(world.sent_to("a"), [] as [u64; 0]);
    });
}

#[test]
fn a_new_url_is_used_from_the_next_send_on() {
    run(|world| async move {
        let subscription = world.subscribe("a", "*").await;
        world.transport.script(&url("a"), [Reply::status(500)]);
        world.publish("person.updated", 1).await;
        world.settle_down().await;
        let mut update = SubscriptionUpdate::default();
        update.callback_url = Some(url("b"));
        world.esl.update_subscription(ORGANIZATION, subscription.id, update).await.unwrap();
        world.until_delivered(&subscription, 1).await;
        assert_eq!((world.sent_to("a").len(), world.sent_to("b").len()), (1, 1));
    });
}

#[test]
fn a_new_url_does_not_inherit_what_the_old_receiver_asked_for() {
    run(|world| async move {
        let subscription = world.subscribe("a", "*").await;
        world.transport.script(&url("a"), [Reply::retry_after(503, "600")]);
        world.publish("person.updated", 1).await;
        world.settle_down().await;
        world.publish("person.updated", 2).await;
        let mut update = SubscriptionUpdate::default();
        update.callback_url = Some(url("b"));
        world.esl.update_subscription(ORGANIZATION, subscription.id, update).await.unwrap();
        world.until_delivered(&subscription, 2).await;
        let last = world.transport.sightings_at(&url("b")).pop().unwrap();
        assert!(last.at.since(START) < Duration::from_secs(10), "{}", last.at);
    });
}

#[test]
fn who_resumes_or_redelivers_does_not_wait_for_what_the_receiver_asked_for() {
    let no_retries = RetryPolicy::default().with_budget(0);
    run_with(
        |builder| builder.retry(no_retries),
        |world| async move {
            let subscription = world.subscribe("a", "*").await;
            world.transport.script(&url("a"), [Reply::retry_after(503, "600")]);
            let first = world.publish("person.updated", 1).await;
            let exhausted = world.until_state(&subscription, first, DeliveryState::Exhausted).await;
            world.publish("person.updated", 2).await;
            world.settle_down().await;
            assert_eq!(world.sent_to("a"), [1], "the lane waits");
            for is_active in [false, true] {
                let update = active(is_active);
                let updated =
                    world.esl.update_subscription(ORGANIZATION, subscription.id, update).await;
                updated.unwrap();
            }
            world.until_delivered(&subscription, 1).await;

            world.transport.script(&url("a"), [Reply::retry_after(503, "600")]);
            world.publish("person.updated", 3).await;
            world.settle_down().await;
            world.esl.redeliver(ORGANIZATION, exhausted.id).await.unwrap();
            world.until_delivered(&subscription, 2).await;
            assert!(world.esl.now().since(START) < Duration::from_secs(60));
        },
    );
}

#[test]
fn all_windows_together_have_a_bound_too() {
    run_with(
        |builder| builder.in_flight_max(8),
        |world| async move {
            let mut subscriptions = Vec::new();
            for lane in 0..20 {
                subscriptions.push(world.subscribe(&format!("r{lane}"), "*").await);
            }
            let events = (0..600).map(|n| event("person.updated", n)).collect();
            world.esl.publish_batch(ORGANIZATION, events, None).await.unwrap();
            for subscription in &subscriptions {
                world.until_delivered(subscription, 600).await;
            }
            for lane in 0..20 {
                assert_eq!(world.sent_to(&format!("r{lane}")), (0..600).collect::<Vec<_>>());
            }
        },
    );
}
