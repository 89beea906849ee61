//! What an organization may use.

use std::time::Duration;

use esl_core::{
    Esl, Hour, Limit, NewSubscription, Plan, PublishError, RetryPolicy, SubscriptionOptions, Tier,
    storage::{Page, Records, StorageErrorKind},
    testing::Reply,
};

use crate::world::{ORGANIZATION, START, World, event, run, run_with, url};

fn plan(events_per_hour: u64) -> Plan {
    let mut plan = Plan::new(Tier::Free);
    plan.events_per_hour = Some(Limit::AtMost(events_per_hour));
    plan
}

impl World {
    /// The types of all that was stored, in its order.
    async fn stored(&self) -> Vec<String> {
        let page = Page { after: None, limit: 10_000 };
        let events = self.storage.events(ORGANIZATION, None, page).await.unwrap().items;
        let mut types: Vec<_> = events.iter().map(|one| one.event_type.to_string()).collect();
        types.reverse();
        types
    }
}

#[test]
fn a_thousand_events_an_hour_are_exactly_a_thousand() {
    run(|world| async move {
        world.esl.set_plan(ORGANIZATION, Some(Plan::new(Tier::Free))).await.unwrap();
        let subscription = world.subscribe("a", "system.rate_limit.*").await;
        let mut publishers = tokio::task::JoinSet::new();
        for publisher in 0..64 {
            let esl = world.esl.clone();
            publishers.spawn(async move {
                let mut accepted = 0;
                for number in 0..20 {
                    match esl.publish(event("person.updated", publisher * 100 + number)).await {
                        Ok(_) => accepted += 1,
                        Err(PublishError::OverLimit { limit, usage, .. }) => {
                            assert_eq!((limit, usage.events), (Limit::AtMost(1000), 1000));
                            assert_eq!(usage.hour, Hour::of(START));
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                accepted
            });
        }
        let accepted: u32 = publishers.join_all().await.into_iter().sum();
        assert_eq!(accepted, 1000);
        let stored = world.stored().await;
        assert_eq!(stored.len(), 1002);
        // Each right behind the event that came to it.
        assert_eq!(stored[800], "system.rate_limit.warning");
        assert_eq!(stored[1001], "system.rate_limit.exceeded");
        world.until_delivered(&subscription, 2).await;
        let standing = world.esl.standing(ORGANIZATION).await.unwrap().unwrap();
        assert_eq!((standing.usage.events, standing.remaining()), (1000, Some(0)));

        world.clock.advance(Hour::of(START).end().since(START));
        world.publish("person.updated", 1).await;
        let standing = world.esl.standing(ORGANIZATION).await.unwrap().unwrap();
        assert_eq!((standing.usage.events, standing.remaining()), (1, Some(999)));
    });
}

#[test]
fn what_the_notices_say_is_what_is_so() {
    run(|world| async move {
        world.esl.set_plan(ORGANIZATION, Some(plan(5))).await.unwrap();
        world.subscribe("a", "system.rate_limit.*").await;
        let events = (0..5).map(|number| event("person.updated", number)).collect();
        world.esl.publish_batch(ORGANIZATION, events, None).await.unwrap();
        let mut bodies = Vec::new();
        world
            .until(|| async { (world.transport.sightings_at(&url("a")).len() == 2).then_some(()) })
            .await;
        for sent in world.transport.sightings_at(&url("a")) {
            let body: serde_json::Value = serde_json::from_slice(&sent.outbound.body).unwrap();
            bodies.push((body["type"].clone(), body["data"].clone()));
        }
        let resets_at = Hour::of(START).end();
        let expected = [("system.rate_limit.warning", 4), ("system.rate_limit.exceeded", 5)];
        let expected = expected.map(|(name, threshold)| {
            let data = serde_json::json!({
                "limit": 5, "threshold": threshold, "resets_at": resets_at,
            });
            (name.into(), data)
        });
        assert_eq!(bodies, expected);
    });
}

#[test]
fn the_outbox_keeps_its_order_beside_publishers_that_come_to_the_thresholds() {
    run(|world| async move {
        world.esl.set_plan(ORGANIZATION, Some(plan(100))).await.unwrap();
        let subscription = world.subscribe("a", "person.updated").await;
        let publisher = Esl::publisher(world.storage.clone());
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..60 {
            publisher.publish(event("person.updated", number)).await.unwrap();
            let esl = world.esl.clone();
            tasks.spawn(async move { esl.publish(event("person.created", number)).await.is_ok() });
        }
        let published = tasks.join_all().await.into_iter().filter(|is_ok| *is_ok).count();
        world.until_delivered(&subscription, 60).await;
        assert_eq!(world.sent_to("a"), (0..60).collect::<Vec<_>>());
        let stored = world.stored().await;
        let notices = stored.iter().filter(|name| name.starts_with("system.")).count();
        assert_eq!((notices, stored.len()), (2, 60 + published + 2));
    });
}

#[test]
fn the_outbox_is_counted_and_never_refused() {
    run(|world| async move {
        world.esl.set_plan(ORGANIZATION, Some(plan(5))).await.unwrap();
        let subscription = world.subscribe("a", "person.*").await;
        let publisher = Esl::publisher(world.storage.clone());
        for number in 0..20 {
            publisher.publish(event("person.updated", number)).await.unwrap();
        }
        world.until_delivered(&subscription, 20).await;
        assert_eq!(world.sent_to("a"), (0..20).collect::<Vec<_>>());
        let stored = world.stored().await;
        let notices: Vec<_> = stored.iter().filter(|name| name.starts_with("system.")).collect();
        assert_eq!(notices, ["system.rate_limit.warning", "system.rate_limit.exceeded"]);
        let refused = world.esl.publish(event("person.updated", 20)).await.unwrap_err();
        assert!(matches!(refused, PublishError::OverLimit { .. }), "{refused}");
        assert!(refused.is_transient());
        // What is ESL's own is published all the same.
        world.esl.ping(ORGANIZATION, subscription.id, None).await.unwrap();
    });
}

#[test]
fn another_plan_holds_at_once() {
    run(|world| async move {
        assert_eq!(world.esl.standing(ORGANIZATION).await.unwrap(), None);
        world.publish("person.updated", 1).await;
        world.esl.set_plan(ORGANIZATION, Some(plan(1))).await.unwrap();
        world.publish("person.updated", 2).await;
        world.esl.publish(event("person.updated", 3)).await.unwrap_err();
        world.esl.set_plan(ORGANIZATION, Some(plan(2))).await.unwrap();
        world.publish("person.updated", 3).await;
        world.esl.set_plan(ORGANIZATION, None).await.unwrap();
        for number in 4..9 {
            world.publish("person.updated", number).await;
        }
    });
}

#[test]
fn no_more_subscriptions_than_the_plan_allows() {
    run(|world| async move {
        world.esl.set_plan(ORGANIZATION, Some(Plan::new(Tier::Free))).await.unwrap();
        let mut creators = tokio::task::JoinSet::new();
        for number in 0..64 {
            let esl = world.esl.clone();
            let new = NewSubscription::new(url(&number.to_string()), vec!["*".parse().unwrap()]);
            creators.spawn(async move { esl.subscribe(ORGANIZATION, new).await });
        }
        let created = creators.join_all().await;
        let refused = created.iter().filter_map(|one| one.as_ref().err());
        assert!(refused.clone().all(|error| error.kind() == StorageErrorKind::OverLimit));
        assert_eq!((created.len(), refused.count()), (64, 59));
    });
}

#[test]
fn a_delivery_is_tried_again_as_often_as_the_plan_allows() {
    run_with(
        |builder| builder.retry(RetryPolicy::default().with_budget(9)),
        |world| async move {
            world.esl.set_plan(ORGANIZATION, Some(Plan::new(Tier::Free))).await.unwrap();
            let mut options = SubscriptionOptions::default();
            options.retry_schedule = Some(vec![Duration::from_secs(1)]);
            let usual = world.subscribe("usual", "*").await;
            let short = world.subscribe_with("short", "*", options.clone()).await;
            options.retry_schedule = Some(vec![Duration::from_secs(1); 8]);
            let long = world.subscribe_with("long", "*", options).await;
            for path in ["usual", "short", "long"] {
                world.transport.script(&url(path), vec![Reply::status(500); 10]);
            }
            let event = world.publish("person.updated", 1).await;
            for (subscription, attempts) in [(usual, 4), (short, 2), (long, 4)] {
                let state = esl_core::DeliveryState::Exhausted;
                let delivery = world.until_state(&subscription, event, state).await;
                assert_eq!(delivery.attempts, attempts, "{}", subscription.callback_url);
            }
        },
    );
}
