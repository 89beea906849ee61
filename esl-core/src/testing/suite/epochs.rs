//! Workers, their epochs, and who owns a lane.

use std::{sync::Arc, time::Duration};

use super::{
    Engines,
    world::{PLENTY, SECOND, WORKS, World, kind, numbers, settle, settlement, want},
};
use crate::{
    LaneId, Seq,
    storage::{EPOCH, Outcome, Refused, Settle, Storage, StorageErrorKind, Unit, Worker},
};

const MILLISECOND: Duration = Duration::from_millis(1);

pub(super) async fn an_epoch_lapses_without_renewal(world: World) {
    let (lane, worker) = owned_lane(&world).await;
    world.clock.advance(EPOCH - MILLISECOND);
    assert_eq!(world.due(&worker, lane).await, numbers([1]));
    world.clock.advance(MILLISECOND);
    assert_over(&world, &worker, lane).await;
}

pub(super) async fn a_renewed_epoch_lasts_from_its_renewal(world: World) {
    let (lane, worker) = owned_lane(&world).await;
    for _ in 0..3 {
        world.clock.advance(EPOCH - MILLISECOND);
        world.storage.renew(&worker).await.expect(WORKS);
    }
    world.clock.advance(EPOCH - MILLISECOND);
    assert_eq!(world.due(&worker, lane).await, numbers([1]));
    world.clock.advance(MILLISECOND);
    assert_over(&world, &worker, lane).await;
}

pub(super) async fn a_lapsed_epoch_frees_its_lanes(world: World) {
    let (lane, worker) = owned_lane(&world).await;
    world.clock.advance(EPOCH);
    let next = world.worker_of(&[lane]).await;
    assert_ne!(next.id, worker.id);
    assert_eq!(world.due(&next, lane).await, numbers([1]));
    assert_over(&world, &worker, lane).await;
}

pub(super) async fn resigning_frees_lanes_at_once(world: World) {
    let (lane, worker) = owned_lane(&world).await;
    world.storage.resign(&worker).await.expect(WORKS);
    assert_over(&world, &worker, lane).await;
    let next = world.worker_of(&[lane]).await;
    // Resigning again, from an epoch that is over, takes nothing from whoever came after.
    world.storage.resign(&worker).await.expect(WORKS);
    assert_eq!(world.due(&next, lane).await, numbers([1]));
}

pub(super) async fn enlisting_again_voids_the_earlier_epoch(world: World) {
    let (lane, worker) = owned_lane(&world).await;
    let again = world.storage.enlist(worker.id).await.expect(WORKS);
    assert_eq!(again.id, worker.id);
    assert!(again.epoch > worker.epoch);
    assert_over(&world, &worker, lane).await;
    // What it owned is free, and not its own by inheritance.
    let claimed = world.storage.claim(&again, &[want(lane)], PLENTY).await.expect(WORKS);
    assert!(claimed.is_empty());
    assert_eq!(world.take(&again, &[lane]).await.len(), 1);
    world.storage.resign(&worker).await.expect(WORKS);
    assert_eq!(world.due(&again, lane).await, numbers([1]));
}

pub(super) async fn epochs_grow(world: World) {
    let mut last = 0;
    for _ in 0..3 {
        let worker = world.storage.enlist(world.worker_id()).await.expect(WORKS);
        assert!(worker.epoch > last);
        last = worker.epoch;
        world.storage.resign(&worker).await.expect(WORKS);
    }
}

pub(super) async fn an_unknown_worker_is_fenced(world: World) {
    let (lane, worker) = owned_lane(&world).await;
    assert_over(&world, &Worker { id: world.worker_id(), ..worker }, lane).await;
    assert_over(&world, &Worker { epoch: worker.epoch + 1, ..worker }, lane).await;
    assert_eq!(world.due(&worker, lane).await, numbers([1]));
}

pub(super) async fn a_second_engine_is_refused_or_shares(world: World) {
    let organization = world.organization().await;
    let mut lanes = Vec::new();
    for _ in 0..2 {
        lanes.push(world.subscription(organization).await.lane);
    }
    world.publish_new(organization, 1).await;
    let one = world.worker_of(&lanes[..1]).await;
    let beside = world.another_handle().await;
    match world.engines() {
        Engines::One => {
            let refused = beside.enlist(world.worker_id()).await;
            assert_eq!(kind(refused), StorageErrorKind::Fenced);
            // Trying has done no harm, and a clean stop leaves the place.
            assert_eq!(world.due(&one, lanes[0]).await, numbers([1]));
            world.storage.resign(&one).await.expect(WORKS);
            let other = beside.enlist(world.worker_id()).await.expect("the place is free");
            assert_eq!(beside.take(&other, &lanes).await.expect(WORKS).len(), 2);
            assert_over(&world, &one, lanes[0]).await;
        }
        Engines::Many => {
            let other = beside.enlist(world.worker_id()).await.expect(WORKS);
            let taken = beside.take(&other, &lanes).await.expect(WORKS);
            assert_eq!(taken.iter().map(|it| it.subscription.lane).collect::<Vec<_>>(), lanes[1..]);
            let waiting = beside.waiting(&other, None, 9).await.expect(WORKS);
            assert_eq!(waiting.iter().map(|it| it.lane).collect::<Vec<_>>(), lanes[1..]);
            let claimed = beside.claim(&other, &[want(lanes[0])], PLENTY).await.expect(WORKS);
            assert!(claimed.is_empty());
            assert_eq!(world.due(&one, lanes[0]).await, numbers([1]));
            world.storage.resign(&one).await.expect(WORKS);
            assert_eq!(beside.take(&other, &lanes).await.expect(WORKS).len(), 2);
        }
    }
}

pub(super) async fn of_two_takers_of_a_lane_one_wins(world: World) {
    if world.engines() == Engines::One {
        return;
    }
    const ENGINES: usize = 8;
    let organization = world.organization().await;
    let lane = world.subscription(organization).await.lane;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..ENGINES {
        let storage = world.another_handle().await;
        let worker = storage.enlist(world.worker_id()).await.expect(WORKS);
        tasks.spawn(async move { storage.take(&worker, &[lane]).await.expect(WORKS).len() });
    }
    assert_eq!(tasks.join_all().await.iter().sum::<usize>(), 1);
}

pub(super) async fn a_lapsed_engine_cannot_settle_what_another_took_over(world: World) {
    let (lane, worker) = owned_lane(&world).await;
    world.clock.advance(EPOCH);
    let next = world.worker_of(&[lane]).await;
    let retry_at = Outcome::RetryAt(world.now() + SECOND);
    let late = settlement(lane, Seq::new(1), Outcome::Delivered, world.now());
    let unit = Unit::settle(Settle { settlements: vec![late], ..settle(&worker) });
    assert_eq!(world.commit(unit).await, Err(Refused::StaleEpoch));
    assert_eq!(world.due(&next, lane).await, numbers([1]));
    world.settle(&next, vec![settlement(lane, Seq::new(1), retry_at, world.now())]).await;
    assert_eq!(world.due(&next, lane).await, []);
}

pub(super) async fn a_clock_that_is_set_back_ends_no_epoch_and_prolongs_none(world: World) {
    let (lane, worker) = owned_lane(&world).await;
    let start = world.now();
    world.clock.advance(EPOCH - SECOND);
    assert_eq!(world.due(&worker, lane).await, numbers([1]));
    world.clock.set_utc(start - EPOCH);
    world.storage.renew(&worker).await.expect("the epoch runs");
    world.clock.advance(EPOCH - MILLISECOND);
    assert_eq!(world.due(&worker, lane).await, numbers([1]));
    world.clock.advance(MILLISECOND);
    assert_over(&world, &worker, lane).await;
}

/// A lane with one delivery, and the worker that owns it.
async fn owned_lane(world: &World) -> (LaneId, Worker) {
    let organization = world.organization().await;
    let lane = world.subscription(organization).await.lane;
    world.publish_new(organization, 1).await;
    (lane, world.worker_of(&[lane]).await)
}

/// Nothing that needs a running epoch works.
async fn assert_over(world: &World, worker: &Worker, lane: LaneId) {
    let storage: &Arc<dyn Storage> = &world.storage;
    let fenced = StorageErrorKind::Fenced;
    assert_eq!(kind(storage.renew(worker).await), fenced);
    assert_eq!(kind(storage.take(worker, &[lane]).await), fenced);
    assert_eq!(kind(storage.claim(worker, &[want(lane)], PLENTY).await), fenced);
    assert_eq!(kind(storage.sweep(worker, 1).await), fenced);
    let refused = world.commit(Unit::settle(settle(worker))).await;
    assert_eq!(refused, Err(Refused::StaleEpoch));
}
