//! Deliveries that were held for too long.

use std::time::Duration;

use super::{
    BY, Engines,
    world::{PLENTY, WORKS, World, hear, kind, numbers, settlement, want},
};
use crate::{
    DeliveryState, HELD_MAX, LaneId, NewReplay, Replay, ReplayId, ReplayOf, Seq, Subscription,
    SubscriptionUpdate,
    storage::{Change, Outcome, StorageErrorKind, Tenure, Unit, Worker},
};

const HOUR: Duration = Duration::from_secs(60 * 60);

pub(super) async fn what_was_held_for_seven_days_expires(world: World) {
    let (subscription, worker) = lane_with(&world, 3).await;
    let lane = subscription.lane;
    let retry = settlement(lane, Seq::new(2), Outcome::RetryAt(world.now()), world.now());
    world.settle(&worker, vec![retry]).await;
    set_active(&world, &subscription, false).await;
    world.clock.advance(HOUR);
    // Committed during the pause, so its seven days begin an hour later.
    world.publish_new(subscription.organization, 1).await;

    world.clock.advance(HELD_MAX - HOUR - Duration::from_millis(1));
    assert_eq!(sweep_all(&world, 100).await, (0, vec![]));
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(sweep_all(&world, 100).await, (3, vec![]));
    assert_eq!(states(&world, &subscription).await, "expired expired expired held");
    let expired = &world.deliveries(&subscription).await[1];
    assert_eq!((expired.finished_at, expired.attempts), (Some(world.now()), 1));
    world.clock.advance(HOUR);
    assert_eq!(sweep_all(&world, 100).await, (1, vec![]));
    assert_eq!(sweep_all(&world, 100).await, (0, vec![]));
}

pub(super) async fn what_expires_is_not_sent_after_a_late_resume(world: World) {
    let (subscription, _) = lane_with(&world, 5).await;
    let lane = subscription.lane;
    set_active(&world, &subscription, false).await;
    world.clock.advance(HELD_MAX);
    world.publish_new(subscription.organization, 2).await;

    // Nobody has swept. A resume answers at once, and what is to expire is held back.
    let resumed = set_active(&world, &subscription, true).await;
    assert!(resumed.active && !resumed.is_sending());
    let worker = world.worker_of(&[lane]).await;
    let claimed = world.storage.claim(&worker, &[want(lane)], PLENTY).await.expect(WORKS);
    assert!(claimed.is_empty());
    assert_eq!(world.storage.waiting(&worker, None, 9).await.expect(WORKS), []);
    world.storage.resign(&worker).await.expect(WORKS);

    assert_eq!(sweep_all(&world, 2).await, (5, vec![lane]));
    let worker = world.worker_of(&[lane]).await;
    assert_eq!(world.due(&worker, lane).await, numbers([6, 7]));
    let found = world.storage.subscription(subscription.organization, subscription.id).await;
    assert!(found.expect(WORKS).expect("it is there").is_sending());
}

pub(super) async fn a_pause_of_less_than_seven_days_expires_nothing(world: World) {
    let (subscription, _) = lane_with(&world, 2).await;
    for _ in 0..3 {
        set_active(&world, &subscription, false).await;
        world.clock.advance(HELD_MAX / 2);
        assert!(set_active(&world, &subscription, true).await.is_sending());
    }
    assert_eq!(sweep_all(&world, 100).await, (0, vec![]));
    let worker = world.worker_of(&[subscription.lane]).await;
    assert_eq!(world.due(&worker, subscription.lane).await, numbers([1, 2]));
}

pub(super) async fn an_expired_delivery_can_be_reopened(world: World) {
    let (subscription, _) = lane_with(&world, 2).await;
    let (organization, lane) = (subscription.organization, subscription.lane);
    set_active(&world, &subscription, false).await;
    world.clock.advance(HELD_MAX);
    assert_eq!(sweep_all(&world, 100).await, (2, vec![]));
    world.storage.reopen(organization, lane, Seq::new(2)).await.expect(WORKS);
    assert_eq!(states(&world, &subscription).await, "expired held");
    // Its seven days begin anew.
    assert_eq!(sweep_all(&world, 100).await, (0, vec![]));
    set_active(&world, &subscription, true).await;
    sweep_all(&world, 100).await;
    let worker = world.worker_of(&[lane]).await;
    assert_eq!(world.due(&worker, lane).await, numbers([2]));
}

pub(super) async fn an_expired_delivery_of_an_erased_event_stays_so(world: World) {
    let (subscription, _) = lane_with(&world, 2).await;
    let (organization, lane) = (subscription.organization, subscription.lane);
    set_active(&world, &subscription, false).await;
    world.clock.advance(HELD_MAX);
    assert_eq!(sweep_all(&world, 100).await, (2, vec![]));
    let id = world.deliveries(&subscription).await[1].event_id;
    world.storage.erase_event(organization, id).await.expect(WORKS);
    let reopened = world.storage.reopen(organization, lane, Seq::new(2)).await;
    assert_eq!(kind(reopened), StorageErrorKind::Gone);
    let new = NewReplay::new(ReplayOf::UNDELIVERED);
    let replay = ReplayId::from_ulid(id.as_ulid());
    let mut replay = Replay::new(replay, organization, subscription.id, new, world.now());
    replay.lane = lane;
    replay.range.to = Seq::new(2);
    let found = world.storage.candidates(&replay, 9).await.expect(WORKS);
    let seqs: Vec<_> = found.events.iter().map(|(seq, _)| *seq).collect();
    assert_eq!((seqs, found.is_end), (numbers([1]), true));
    assert_eq!(states(&world, &subscription).await, "expired expired");
}

pub(super) async fn every_paused_subscription_has_its_turn(world: World) {
    let organization = world.organization().await;
    let mut paused = Vec::new();
    for _ in 0..7 {
        let subscription = world.subscription(organization).await;
        paused.push(set_active(&world, &subscription, false).await);
    }
    world.publish_new(organization, 3).await;
    world.clock.advance(HELD_MAX);
    assert_eq!(sweep_all(&world, 2).await, (21, vec![]));
    for subscription in &paused {
        assert_eq!(states(&world, subscription).await, "expired expired expired");
    }
}

pub(super) async fn that_a_resumed_lane_is_ready_is_heard_by_others(world: World) {
    if world.engines() == Engines::One {
        return;
    }
    let (subscription, _) = lane_with(&world, 1).await;
    set_active(&world, &subscription, false).await;
    world.clock.advance(HELD_MAX);
    set_active(&world, &subscription, true).await;
    let beside = world.another_handle().await;
    assert_eq!(sweep_all(&world, 100).await, (1, vec![subscription.lane]));
    hear(&*beside, Change::Subscriptions(subscription.organization)).await;
}

async fn lane_with(world: &World, deliveries: usize) -> (Subscription, Worker) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let worker = world.worker_of(&[subscription.lane]).await;
    world.publish_new(organization, deliveries).await;
    (subscription, worker)
}

async fn set_active(world: &World, subscription: &Subscription, active: bool) -> Subscription {
    let update = SubscriptionUpdate { active: Some(active), ..SubscriptionUpdate::default() };
    let (organization, id) = (subscription.organization, subscription.id);
    world.storage.update_subscription(organization, id, update, BY).await.expect(WORKS)
}

async fn states(world: &World, subscription: &Subscription) -> String {
    let deliveries = world.deliveries(subscription).await;
    let states: Vec<_> = deliveries.iter().map(|delivery| delivery.state.as_str()).collect();
    assert!(
        deliveries.iter().all(|one| {
            one.finished_at.is_some() == matches!(one.state, DeliveryState::Expired)
        })
    );
    states.join(" ")
}

/// Sweeps until there is nothing left to do: what expired, and what is ready.
async fn sweep_all(world: &World, limit: usize) -> (usize, Vec<LaneId>) {
    // The world's time has gone on for longer than any epoch.
    let (worker, _) =
        world.storage.enlist(world.worker_id(), Tenure::default()).await.expect(WORKS);
    let (mut expired, mut ready) = (0, Vec::new());
    for _ in 0..1000 {
        let swept = world.storage.sweep(&worker, limit).await.expect(WORKS);
        assert!(swept.expired <= limit);
        expired += swept.expired;
        ready.extend(swept.ready);
        if !swept.more {
            world.storage.resign(&worker).await.expect(WORKS);
            return (expired, ready);
        }
    }
    panic!("the sweep does not come to an end");
}

pub(super) async fn an_expiry_settles_nothing_twice(world: World) {
    let (subscription, _) = lane_with(&world, 1).await;
    let lane = subscription.lane;
    set_active(&world, &subscription, false).await;
    world.clock.advance(HELD_MAX);
    sweep_all(&world, 100).await;
    // What was under way when it was paused comes in very late.
    let worker = world.worker_of(&[lane]).await;
    let delivered = settlement(lane, Seq::new(1), Outcome::Delivered, world.now());
    let unit =
        crate::storage::Settle { settlements: vec![delivered], ..super::world::settle(&worker) };
    world.commit(Unit::settle(unit)).await.expect("the epoch runs");
    assert_eq!(states(&world, &subscription).await, "expired");
}
