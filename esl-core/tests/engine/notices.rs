//! What ESL itself tells an organization about its subscriptions.

use std::time::Duration;

use esl_core::{
    DeliveryState, DisabledReason, EventType, HELD_MAX, NewSubscription, OnExhausted, Subscription,
    SubscriptionOptions, SubscriptionUpdate,
    storage::{Page, StoredEvent},
    testing::Reply,
};
use serde_json::Value;

use crate::world::{ORGANIZATION, World, event, run, url};

impl World {
    async fn events_of(&self, event_type: &str) -> Vec<Value> {
        let event_type: EventType = event_type.parse().unwrap();
        let page = Page { after: None, limit: 100 };
        let page = self.esl.storage().events(ORGANIZATION, Some(event_type), page).await.unwrap();
        let body = |event: StoredEvent| serde_json::from_slice(&event.body).unwrap();
        page.items.into_iter().map(body).collect()
    }

    async fn read(&self, subscription: &Subscription) -> Subscription {
        let read = self.esl.storage().subscription(ORGANIZATION, subscription.id).await;
        read.unwrap().unwrap()
    }
}

#[test]
fn a_switch_off_is_told_once_and_not_to_the_one_it_is_about() {
    run(|world| async move {
        let gone = world.subscribe("gone", "*").await;
        let watcher = world.subscribe("watcher", "system.*").await;
        world.transport.script(&url("gone"), vec![Reply::Hang; 4]);
        for number in 0..4 {
            world.publish("person.updated", number).await;
        }
        world.settle_down().await;
        // Four answers of the same kind, almost at once.
        world.transport.release(&url("gone"), &Reply::status(410));
        world.until_delivered(&watcher, 1).await;
        let told = world.events_of("system.subscription.disabled").await;
        assert_eq!(told.len(), 1);
        assert_eq!(told[0]["data"]["subscription_id"], gone.id.to_string());
        assert_eq!(told[0]["data"]["reason"], "gone");
        assert_eq!(told[0]["data"]["last_status"], 410);
        assert_eq!(told[0]["metadata"]["source"], "system");
        assert_eq!(world.read(&gone).await.disabled_reason, Some(DisabledReason::Gone));
        // Its own five would be four and the notice.
        assert_eq!(world.deliveries(&gone).await.len(), 4);
        assert_eq!(world.deliveries(&watcher).await.len(), 1);
    });
}

#[test]
fn exhaustion_is_told_at_most_once_an_hour_for_each_subscription() {
    run(|world| async move {
        let none = SubscriptionOptions::default().with_retry_schedule(Vec::new());
        let failing = world.subscribe_with("failing", "person.*", none.clone()).await;
        let other = world.subscribe_with("other", "person.*", none).await;
        let exhaust = async |number| {
            for path in ["failing", "other"] {
                world.transport.script(&url(path), [Reply::status(500)]);
            }
            let published = world.publish("person.updated", number).await;
            for subscription in [&failing, &other] {
                world.until_state(subscription, published, DeliveryState::Exhausted).await;
            }
            world.events_of("system.delivery.exhausted").await
        };
        let told = exhaust(1).await;
        assert_eq!(told.len(), 2, "one for each");
        for subscription in [&failing, &other] {
            let id = subscription.id.to_string();
            let about = told.iter().find(|event| event["data"]["subscription_id"] == *id);
            let data = &about.unwrap()["data"];
            assert_eq!((&data["attempts"], &data["last_status"]), (&1.into(), &500.into()));
            assert_eq!(data["event_type"], "person.updated");
        }
        assert_eq!(exhaust(2).await.len(), 2);
        world.clock.advance(Duration::from_secs(59 * 60));
        assert_eq!(exhaust(3).await.len(), 2);
        world.clock.advance(Duration::from_secs(60));
        assert_eq!(exhaust(4).await.len(), 4);
    });
}

#[test]
fn five_days_of_failures_switch_off_and_say_since_when() {
    run(|world| async move {
        let subscription = world.subscribe("a", "person.*").await;
        world.transport.script(&url("a"), vec![Reply::status(503); 5000]);
        // So much goes on for five days: each is given up after six attempts.
        for day in 0..5 {
            for number in 0..5 {
                world.publish("person.updated", day * 10 + number).await;
            }
            world.settle_down().await;
            for _ in 0..12 * 24 {
                world.clock.advance(Duration::from_secs(300));
                world.settle_down().await;
            }
        }
        let last = world.publish("person.updated", 99).await;
        world.until_state(&subscription, last, DeliveryState::Held).await;
        assert_eq!(world.read(&subscription).await.disabled_reason, Some(DisabledReason::Failing));
        let told = world.events_of("system.subscription.disabled").await;
        assert_eq!(told.len(), 1);
        assert_eq!(told[0]["data"]["reason"], "failing");
        assert!(told[0]["data"]["failing_since"].is_string());
    });
}

#[test]
fn a_notice_whose_routes_are_outdated_is_routed_anew() {
    run(|world| async move {
        let options = SubscriptionOptions::default()
            .with_retry_schedule(Vec::new())
            .with_on_exhausted(OnExhausted::Pause);
        let failing = world.subscribe_with("failing", "person.*", options).await;
        world.transport.script(&url("failing"), [Reply::Hang]);
        let published = world.publish("person.updated", 1).await;
        world.settle_down().await;
        // Made in another process: this engine's index does not know of it when it tells.
        let new = NewSubscription::new(url("late"), vec!["system.*".parse().unwrap()]);
        let elsewhere = crate::world::engine(9, &world.storage, &world.clock, &world.transport);
        let elsewhere = elsewhere.build().await.unwrap();
        let late = elsewhere.subscribe(ORGANIZATION, new).await.unwrap();
        world.transport.release(&url("failing"), &Reply::status(500));
        world.until_state(&failing, published, DeliveryState::Exhausted).await;
        world.until_delivered(&late, 2).await;
        assert_eq!(world.read(&failing).await.disabled_reason, Some(DisabledReason::Exhausted));
        elsewhere.shutdown().await;
    });
}

#[test]
fn after_a_late_resume_what_is_too_old_expires_and_the_rest_is_sent() {
    run(|world| async move {
        let subscription = world.subscribe("a", "*").await;
        let set_active = async |active| {
            let mut update = SubscriptionUpdate::default();
            update.active = Some(active);
            world.esl.update_subscription(ORGANIZATION, subscription.id, update).await.unwrap()
        };
        set_active(false).await;
        for number in 0..5 {
            world.publish("person.updated", number).await;
        }
        // The engine is away meanwhile, so nobody expires anything.
        world.esl.shutdown().await;
        world.clock.advance(HELD_MAX);
        let esl = crate::world::engine(2, &world.storage, &world.clock, &world.transport);
        let esl = esl.build().await.unwrap();
        esl.publish(event("person.updated", 5)).await.unwrap();
        let mut resume = SubscriptionUpdate::default();
        resume.active = Some(true);
        let resumed = esl.update_subscription(ORGANIZATION, subscription.id, resume).await.unwrap();
        assert!(!resumed.is_sending());
        world.until_delivered(&subscription, 1).await;
        assert_eq!(world.sent_to("a"), [5]);
        let states = world.deliveries(&subscription).await;
        let expired = states.iter().filter(|one| one.state == DeliveryState::Expired);
        assert_eq!(expired.count(), 5);
        esl.shutdown().await;
    });
}
