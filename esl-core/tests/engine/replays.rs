//! Replays: pace, back-pressure, restarts.

use std::{num::NonZeroU32, time::Duration};

use esl_core::{
    DeliveryState, NewReplay, Replay, ReplayOf, ReplayState, SendOrder, Subscription,
    SubscriptionOptions, SubscriptionUpdate, storage::StorageErrorKind, testing::Reply,
};

use crate::world::{ORGANIZATION, World, engine, event, run, sent_to, until, url};

fn at(per_second: u32, of: ReplayOf) -> NewReplay {
    NewReplay::new(of).with_max_per_second(NonZeroU32::new(per_second).unwrap())
}

async fn publish(world: &World, count: u64) {
    let events = (0..count).map(|number| event("person.updated", number)).collect();
    world.esl.publish_batch(ORGANIZATION, events, None).await.unwrap();
}

async fn read(world: &World, replay: &Replay) -> Replay {
    world.esl.storage().replay(ORGANIZATION, replay.id).await.unwrap().unwrap()
}

async fn until_done(world: &World, replay: &Replay) -> Replay {
    world
        .until(|| async {
            let replay = read(world, replay).await;
            (replay.state == ReplayState::Done).then_some(replay)
        })
        .await
}

async fn replay(world: &World, to: &Subscription, new: NewReplay) -> Replay {
    world.esl.replay(ORGANIZATION, to.id, new).await.unwrap()
}

#[test]
fn a_new_endpoint_catches_up_with_what_matches_at_its_pace() {
    run(|world| async move {
        publish(&world, 300).await;
        for number in 300..310 {
            world.publish("pet.created", number).await;
        }
        let late = world.subscribe("late", "person.*").await;
        let new = at(100, ReplayOf::Missing);
        let count = world.esl.count_replay(ORGANIZATION, late.id, new).await.unwrap();
        assert_eq!(count, Some(300));
        assert_eq!(world.deliveries(&late).await.len(), 0, "counting opens nothing");
        let made = replay(&world, &late, new).await;
        let done = until_done(&world, &made).await;
        assert_eq!(done.opened, 300);
        world.until_delivered(&late, 300).await;
        assert_eq!(world.sent_to("late"), (0..300).collect::<Vec<_>>());
        let sightings = world.transport.sightings_at(&url("late"));
        let took = sightings[299].at.since(sightings[0].at);
        assert!((2800..=3200).contains(&took.as_millis()), "{took:?}");
        let count = world.esl.count_replay(ORGANIZATION, late.id, new).await.unwrap();
        assert_eq!(count, Some(0));
    });
}

#[test]
fn a_replay_brings_what_an_open_circuit_is_probed_with() {
    run(|world| async move {
        let once = SubscriptionOptions::default().with_retry_schedule(Vec::new());
        let subscription = world.subscribe_with("a", "person.*", once).await;
        // Just enough to open the circuit, and then nothing is left that could close it.
        world.transport.script(&url("a"), vec![Reply::status(500); 10]);
        publish(&world, 10).await;
        world
            .until(|| async {
                let deliveries = world.deliveries(&subscription).await;
                deliveries.iter().all(|one| one.state == DeliveryState::Exhausted).then_some(())
            })
            .await;
        let made = replay(&world, &subscription, at(1000, ReplayOf::UNDELIVERED)).await;
        assert_eq!(until_done(&world, &made).await.opened, 10);
        world.until_delivered(&subscription, 10).await;
    });
}

#[test]
fn what_was_given_up_is_sent_again() {
    run(|world| async move {
        let once = SubscriptionOptions::default().with_retry_schedule(Vec::new());
        let subscription = world.subscribe_with("a", "person.*", once).await;
        // Fewer than open the circuit.
        world.transport.script(&url("a"), vec![Reply::status(500); 7]);
        publish(&world, 20).await;
        world.until_delivered(&subscription, 13).await;
        let made = replay(&world, &subscription, at(1000, ReplayOf::UNDELIVERED)).await;
        assert_eq!(until_done(&world, &made).await.opened, 7);
        world.until_delivered(&subscription, 20).await;
        assert_eq!(world.sent_to("a").len(), 27);
    });
}

#[test]
fn a_receiver_that_does_not_keep_up_is_given_no_more_and_new_events_go_on() {
    run(|world| async move {
        publish(&world, 5000).await;
        let late = world.subscribe("late", "person.*").await;
        world.transport.script(&url("late"), vec![Reply::Hang; 4]);
        let made = replay(&world, &late, at(5000, ReplayOf::Missing)).await;
        for _ in 0..100 {
            world.clock.advance(Duration::from_millis(50));
            world.settle_down().await;
        }
        let stuck = read(&world, &made).await;
        assert!(stuck.opened <= 1000, "{} are open", stuck.opened);
        world.transport.release(&url("late"), &Reply::status(200));
        world.settle_down().await;
        world.publish("person.updated", 9999).await;
        until_done(&world, &made).await;
        world.until_delivered(&late, 5001).await;
        let sent = world.sent_to("late");
        let place = sent.iter().position(|number| *number == 9999).unwrap();
        assert!(place < 1100, "new events wait for no replay, but this one came as number {place}");
    });
}

#[test]
fn a_replay_goes_on_after_a_crash_and_sends_each_once_but_for_what_was_under_way() {
    run(|world| async move {
        publish(&world, 1000).await;
        let late = world.subscribe("late", "person.*").await;
        let made = replay(&world, &late, at(1000, ReplayOf::Missing)).await;
        world.until(|| async { (world.sent_to("late").len() > 400).then_some(()) }).await;
        let World { clock, storage, transport, esl } = world;
        let under_way = u64::from(esl.in_flight()) + esl.unsettled() as u64;
        drop(esl);
        clock.advance(Duration::from_secs(31));
        let esl = engine(2, &storage, &clock, &transport).build().await.unwrap();
        until(&clock, || async {
            let replay = esl.storage().replay(ORGANIZATION, made.id).await.unwrap().unwrap();
            let is_over = esl.in_flight() == 0 && esl.unsettled() == 0;
            let mut sent = sent_to(&transport, "late");
            sent.sort_unstable();
            sent.dedup();
            (replay.state == ReplayState::Done && is_over && sent.len() == 1000).then_some(())
        })
        .await;
        let sent = sent_to(&transport, "late").len() as u64;
        assert!(sent <= 1000 + under_way, "{sent} sent, {under_way} were under way");
        esl.shutdown().await;
    });
}

#[test]
fn a_cancelled_replay_opens_nothing_more() {
    run(|world| async move {
        publish(&world, 1000).await;
        let late = world.subscribe("late", "person.*").await;
        let made = replay(&world, &late, at(100, ReplayOf::Missing)).await;
        let again = world.esl.replay(ORGANIZATION, late.id, at(1, ReplayOf::Missing)).await;
        assert_eq!(again.unwrap_err().kind(), StorageErrorKind::Conflict);
        world.until(|| async { (world.sent_to("late").len() > 100).then_some(()) }).await;
        let cancelled = world.esl.cancel_replay(ORGANIZATION, made.id).await.unwrap();
        assert_eq!(cancelled.state, ReplayState::Cancelled);
        world.clock.advance(Duration::from_secs(60));
        world.settle_down().await;
        let opened = usize::try_from(cancelled.opened).unwrap();
        world.until_delivered(&late, opened).await;
        assert_eq!(world.deliveries(&late).await.len(), opened);
    });
}

#[test]
fn a_paused_subscription_is_given_nothing_until_it_is_resumed() {
    run(|world| async move {
        publish(&world, 50).await;
        let late = world.subscribe("late", "person.*").await;
        let set_active = async |active| {
            let mut update = SubscriptionUpdate::default();
            update.active = Some(active);
            world.esl.update_subscription(ORGANIZATION, late.id, update).await.unwrap();
        };
        set_active(false).await;
        let made = replay(&world, &late, at(1000, ReplayOf::Missing)).await;
        for _ in 0..20 {
            world.clock.advance(Duration::from_millis(100));
            world.settle_down().await;
        }
        assert_eq!(read(&world, &made).await.opened, 0);
        set_active(true).await;
        until_done(&world, &made).await;
        world.until_delivered(&late, 50).await;
    });
}

#[test]
fn a_strict_lane_gets_a_replay_in_order() {
    run(|world| async move {
        publish(&world, 200).await;
        let strict = SubscriptionOptions::default().with_order(SendOrder::Strict);
        let late = world.subscribe_with("late", "person.*", strict).await;
        let made = replay(&world, &late, at(1000, ReplayOf::Missing)).await;
        until_done(&world, &made).await;
        world.until_delivered(&late, 200).await;
        assert_eq!(world.sent_to("late"), (0..200).collect::<Vec<_>>());
    });
}
