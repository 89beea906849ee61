//! Many subscribers.

use std::{num::NonZeroU32, time::Duration};

use esl_core::{
    Actor, DeliveryState, NewSubscription, Organization, OrganizationId, Subscription,
    SubscriptionOptions, SubscriptionUpdate, storage::Tenancy, testing::Reply,
};

use crate::world::{
    ORGANIZATION, START, World, engine, event, run, run_with, sent_to_each, until, url,
};

const CROWD: usize = 2500;

async fn crowd(world: &World, count: usize) -> Vec<Subscription> {
    let mut subscriptions = Vec::with_capacity(count);
    for number in 0..count {
        subscriptions.push(world.subscribe(&number.to_string(), "person.*").await);
    }
    subscriptions
}

async fn until_sent(world: &World, count: usize) {
    world.until(|| async { (world.transport.sends() >= count).then_some(()) }).await;
}

#[test]
fn everybody_gets_an_event_and_those_behind_it_in_order() {
    run(|world| async move {
        let subscriptions = crowd(&world, CROWD).await;
        let published = world.publish("person.updated", 0).await;
        assert_eq!(published.deliveries, 2500);
        for number in 1..4 {
            world.publish("person.updated", number).await;
        }
        until_sent(&world, CROWD * 4).await;
        let sent = sent_to_each(&world.transport);
        for subscription in &subscriptions {
            assert_eq!(sent[&subscription.callback_url], [0, 1, 2, 3]);
        }
        world.settle_down().await;
        assert_eq!(world.transport.sends(), CROWD * 4);
    });
}

#[test]
fn a_crash_in_the_middle_loses_nothing_and_repeats_only_what_was_under_way() {
    run(|world| async move {
        crowd(&world, CROWD).await;
        // Four at a time in every lane, and none of them ends.
        for number in 0..CROWD {
            world.transport.script(&url(&number.to_string()), [Reply::Hang]);
        }
        world.publish("person.updated", 0).await;
        until_sent(&world, 700).await;
        let under_way = world.transport.sends();
        let World { clock, storage, transport, esl } = world;
        drop(esl);
        clock.advance(Duration::from_secs(31));
        let esl = engine(2, &storage, &clock, &transport).build().await.unwrap();
        until(&clock, || async {
            // Looking at all that was sent takes long, so the quick questions come first.
            let is_quiet = esl.in_flight() == 0 && esl.unsettled() == 0;
            (is_quiet && sent_to_each(&transport).len() == CROWD).then_some(())
        })
        .await;
        let sent = transport.sends();
        assert!(sent >= CROWD && sent <= CROWD + 2 * under_way, "{sent} for {under_way} under way");
        esl.shutdown().await;
    });
}

#[test]
fn subscriptions_that_change_during_a_fan_out_follow_their_present_state() {
    run(|world| async move {
        // None of them ends at first, so memory has enough of the event before its last slice.
        const MANY: usize = 6000;
        let subscriptions = crowd(&world, MANY).await;
        for number in 0..MANY {
            world.transport.script(&url(&number.to_string()), [Reply::Hang]);
        }
        world.publish("person.updated", 0).await;
        world.settle_down().await;
        let mut elsewhere = SubscriptionUpdate::default();
        elsewhere.events = Some(vec!["pet.*".parse().unwrap()]);
        let [first, .., changed, deleted] = &subscriptions[..] else { panic!("a crowd") };
        let owed = [first, changed, deleted].map(|subscription| world.deliveries(subscription));
        let [first, last @ ..] = owed;
        assert_eq!(first.await.len(), 1);
        for owed in last {
            assert_eq!(owed.await.len(), 0, "its slice is yet to come");
        }
        world.esl.update_subscription(ORGANIZATION, changed.id, elsewhere).await.unwrap();
        world.esl.delete_subscription(ORGANIZATION, deleted.id).await.unwrap();
        let late = world.subscribe("late", "person.*").await;
        let second = world.publish("person.updated", 1).await;
        assert_eq!(second.deliveries, 5999);
        world.until_delivered(&late, 1).await;
        assert_eq!(world.sent_to("late"), [1], "it came after the first");
        assert_eq!(world.deliveries(changed).await.len(), 0);
        assert_eq!(world.deliveries(deleted).await.len(), 0);
    });
}

#[test]
fn an_event_that_is_erased_during_its_fan_out_is_cancelled_for_the_rest() {
    run(|world| async move {
        // None but the last ends at first, so memory has enough of the event before its last slice.
        const MANY: usize = 6000;
        let subscriptions = crowd(&world, MANY).await;
        let last = subscriptions.last().unwrap();
        // From now on their lanes take commits directly.
        world.publish("person.updated", 0).await;
        until_sent(&world, MANY).await;
        for number in 0..MANY - 1 {
            world.transport.script(&url(&number.to_string()), [Reply::Hang]);
        }
        let erased = world.publish("person.updated", 1).await;
        world.settle_down().await;
        assert_eq!(world.deliveries(last).await.len(), 1, "its slice is yet to come");
        world.esl.erase_event(ORGANIZATION, erased.id).await.unwrap();
        world.publish("person.updated", 2).await;
        world.until_delivered(last, 2).await;
        world.until_state(last, erased, DeliveryState::Cancelled).await;
        assert_eq!(world.sent_to(&(MANY - 1).to_string()), [0, 2]);
    });
}

#[test]
fn another_organization_does_not_wait_for_a_fan_out() {
    run_with(
        |builder| builder.in_flight_max(64),
        |world| async move {
            crowd(&world, CROWD).await;
            // None of them ends, so they would take every place there is.
            for number in 0..CROWD {
                world.transport.script(&url(&number.to_string()), [Reply::Hang]);
            }
            world.publish("person.updated", 0).await;
            world.adapt().await;
            assert_eq!(world.esl.in_flight(), 48, "three quarters for one organization");

            let id = OrganizationId::from_bytes([8; 16]);
            let other = Organization::new(id, "other", START);
            world.storage.create_organization(other, &Actor::APPLICATION).await.unwrap();
            let new = NewSubscription::new(url("other"), vec!["*".parse().unwrap()]);
            world.esl.subscribe(id, new).await.unwrap();
            for number in 0..20 {
                let mut event = event("person.updated", number);
                event.organization = id;
                world.esl.publish(event).await.unwrap();
            }
            world.settle_down().await;
            assert_eq!(world.sent_to("other"), (0..20).collect::<Vec<_>>());
            assert!(world.esl.in_flight() <= 48);
        },
    );
}

#[test]
fn receivers_that_hang_hold_up_no_fan_out_of_their_organization() {
    run(|world| async move {
        crowd(&world, 100).await;
        for number in 0..100 {
            world.transport.script(&url(&number.to_string()), vec![Reply::Hang; 100]);
        }
        // Ten thousand deliveries together: each event is fanned out.
        let events = (0..100).map(|number| event("person.updated", number)).collect();
        world.esl.publish_batch(ORGANIZATION, events, None).await.unwrap();
        world.subscribe("well", "person.*").await;
        for number in 100..120 {
            world.publish("person.updated", number).await;
        }
        world.adapt().await;
        assert_eq!(world.sent_to("well"), (100..120).collect::<Vec<_>>());
    });
}

#[test]
fn lanes_that_were_forgotten_come_back() {
    // More lanes than are remembered, each with a rate of its own that outlives nothing.
    run(|world| async move {
        let per_second = NonZeroU32::new(1000).unwrap();
        let options = SubscriptionOptions::default().with_max_per_second(per_second);
        const MANY: usize = 17_000;
        for number in 0..MANY {
            let pattern = format!("crowd.n{}", number % 17);
            world.subscribe_with(&number.to_string(), &pattern, options.clone()).await;
        }
        for round in 0..2 {
            for group in 0..17 {
                world.publish(&format!("crowd.n{group}"), round).await;
            }
            until_sent(&world, MANY * (1 + usize::try_from(round).unwrap())).await;
            world.clock.advance(Duration::from_secs(10));
            world.settle_down().await;
        }
        assert_eq!(world.transport.sends(), 2 * MANY);
        assert_eq!(world.sent_to("16999"), [0, 1]);
    });
}
