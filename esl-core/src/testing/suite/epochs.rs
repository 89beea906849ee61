//! Workers, their epochs, and who owns a lane.

use std::{sync::Arc, time::Duration};

use super::{
    Engines,
    world::{PLENTY, SECOND, WORKS, World, hear, heard, kind, numbers, settle, settlement, want},
};
use crate::{
    LaneId, Seq,
    storage::{
        Change, EPOCH, Outcome, Refused, Settle, Storage, StorageErrorKind, Tenure, Unit, Worker,
    },
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
    let (again, _) = world.storage.enlist(worker.id, Tenure::default()).await.expect(WORKS);
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
        let (worker, _) =
            world.storage.enlist(world.worker_id(), Tenure::default()).await.expect(WORKS);
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
            let refused = beside.enlist(world.worker_id(), Tenure::default()).await;
            assert_eq!(kind(refused), StorageErrorKind::Fenced);
            // Trying has done no harm, and a clean stop leaves the place.
            assert_eq!(world.due(&one, lanes[0]).await, numbers([1]));
            world.storage.resign(&one).await.expect(WORKS);
            let (other, _) = beside
                .enlist(world.worker_id(), Tenure::default())
                .await
                .expect("the place is free");
            assert_eq!(beside.take(&other, &lanes).await.expect(WORKS).len(), 2);
            assert_over(&world, &one, lanes[0]).await;
        }
        Engines::Many => {
            let (other, _) =
                beside.enlist(world.worker_id(), Tenure::default()).await.expect(WORKS);
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
        let (worker, _) = storage.enlist(world.worker_id(), Tenure::default()).await.expect(WORKS);
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

pub(super) async fn renewing_says_the_time_and_who_is_alive(world: World) {
    let (one, enlisted) =
        world.storage.enlist(world.worker_id(), Tenure::default()).await.expect(WORKS);
    assert_eq!((enlisted.at, &enlisted.peers[..]), (world.now(), &[one.id][..]));
    world.clock.advance(SECOND * 7);
    let renewed = world.storage.renew(&one).await.expect(WORKS);
    assert_eq!((renewed.at, &renewed.peers[..]), (world.now(), &[one.id][..]));
    // Not by the clock, which may be set back.
    let before = world.now();
    world.clock.set_utc(before - EPOCH);
    world.clock.advance(SECOND);
    assert_eq!(world.storage.renew(&one).await.expect(WORKS).at, before + SECOND);
    if world.engines() == Engines::One {
        return;
    }
    let beside = world.another_handle().await;
    let apart = Tenure { takes_lanes: false, leads: None };
    let (_, seen) = beside.enlist(world.worker_id(), apart).await.expect(WORKS);
    assert_eq!(seen.peers, [one.id], "one that takes no lanes is none of them");
    let (other, seen) = beside.enlist(world.worker_id(), Tenure::default()).await.expect(WORKS);
    let mut both = vec![one.id, other.id];
    both.sort_unstable();
    assert_eq!(seen.peers, both);
    assert_eq!(world.storage.renew(&one).await.expect(WORKS).peers, both);
    world.clock.advance(EPOCH - SECOND);
    assert_eq!(beside.renew(&other).await.expect(WORKS).peers, both);
    // One is not heard of for the length of an epoch, the other goes.
    world.clock.advance(SECOND);
    assert_eq!(beside.renew(&other).await.expect(WORKS).peers, [other.id]);
    let (third, _) = world.storage.enlist(world.worker_id(), Tenure::default()).await.expect(WORKS);
    beside.resign(&other).await.expect(WORKS);
    assert_eq!(world.storage.renew(&third).await.expect(WORKS).peers, [third.id]);
}

pub(super) async fn a_released_lane_is_free(world: World) {
    let organization = world.organization().await;
    let mut lanes = Vec::new();
    for _ in 0..2 {
        lanes.push(world.subscription(organization).await.lane);
    }
    world.publish_new(organization, 1).await;
    let one = world.worker_of(&lanes).await;
    world.storage.release(&one, &lanes[..1]).await.expect(WORKS);
    assert_eq!(world.storage.claim(&one, &[want(lanes[0])], PLENTY).await.expect(WORKS).len(), 0);
    assert_eq!(world.due(&one, lanes[1]).await, numbers([1]));
    if world.engines() == Engines::One {
        assert_eq!(world.take(&one, &lanes[..1]).await.len(), 1);
        assert_eq!(world.due(&one, lanes[0]).await, numbers([1]));
        return;
    }
    let beside = world.another_handle().await;
    let (other, _) = beside.enlist(world.worker_id(), Tenure::default()).await.expect(WORKS);
    let taken = beside.take(&other, &lanes).await.expect(WORKS);
    assert_eq!(taken.iter().map(|it| it.subscription.lane).collect::<Vec<_>>(), lanes[..1]);
    let claimed = beside.claim(&other, &[want(lanes[0])], PLENTY).await.expect(WORKS);
    assert_eq!(claimed[0].due.len(), 1);
    // What is another's nobody else lets go of.
    world.storage.release(&one, &lanes[..1]).await.expect(WORKS);
    assert_eq!(beside.claim(&other, &[want(lanes[0])], PLENTY).await.expect(WORKS).len(), 1);
    heard(&*world.storage).await;
    beside.release(&other, &lanes).await.expect(WORKS);
    hear(&*world.storage, Change::Lanes).await;
    assert_eq!(world.take(&one, &lanes).await.len(), 2);
}

pub(super) async fn of_two_leaders_one_leads(world: World) {
    let leads = Tenure { leads: Some("chores"), ..Tenure::default() };
    let (one, renewed) = world.storage.enlist(world.worker_id(), leads).await.expect(WORKS);
    assert!(renewed.leads);
    if world.engines() == Engines::One {
        assert!(world.storage.renew(&one).await.expect(WORKS).leads);
        return;
    }
    let beside = world.another_handle().await;
    let (_, renewed) = beside.enlist(world.worker_id(), Tenure::default()).await.expect(WORKS);
    assert!(!renewed.leads, "it has not asked for it");
    let elsewhere = Tenure { leads: Some("something else"), ..Tenure::default() };
    assert!(beside.enlist(world.worker_id(), elsewhere).await.expect(WORKS).1.leads);
    let (other, renewed) = beside.enlist(world.worker_id(), leads).await.expect(WORKS);
    assert!(!renewed.leads);
    world.clock.advance(EPOCH - MILLISECOND);
    assert!(!beside.renew(&other).await.expect(WORKS).leads);
    assert!(world.storage.renew(&one).await.expect(WORKS).leads);
    world.storage.resign(&one).await.expect(WORKS);
    assert!(beside.renew(&other).await.expect(WORKS).leads);
    // It is not heard of for the length of an epoch.
    world.clock.advance(EPOCH);
    let (third, renewed) = world.storage.enlist(world.worker_id(), leads).await.expect(WORKS);
    assert!(renewed.leads);
    assert!(!beside.enlist(other.id, leads).await.expect(WORKS).1.leads);
    assert!(world.storage.renew(&third).await.expect(WORKS).leads);
}

/// Storage either refuses the settlement, and whoever takes the lane gets the delivery; or it accepts
/// it, and nobody does.
pub(super) async fn a_settlement_under_way_is_over_before_its_lane_is_taken(world: World) {
    const ROUNDS: u64 = 20;
    let organization = world.organization().await;
    let lane = world.subscription(organization).await.lane;
    let mut worker = world.worker_of(&[lane]).await;
    for round in 1..=ROUNDS {
        world.publish_new(organization, 1).await;
        let seq = Seq::new(round);
        assert_eq!(world.due(&worker, lane).await, [seq]);
        let delivered = settlement(lane, seq, Outcome::Delivered, world.now());
        let unit = Unit::settle(Settle { settlements: vec![delivered], ..settle(&worker) });
        let storage = Arc::clone(&world.storage);
        let settling = tokio::spawn(async move { storage.commit(vec![unit]).await });
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        world.storage.resign(&worker).await.expect(WORKS);
        worker = world.worker_of(&[lane]).await;
        let due = world.due(&worker, lane).await;
        let settled = settling.await.expect("no panic").expect(WORKS).remove(0);
        match settled {
            Ok(_) => assert_eq!(due, [], "it was settled"),
            Err(refused) => {
                assert_eq!((refused, &due[..]), (Refused::StaleEpoch, &[seq][..]));
                let delivered = settlement(lane, seq, Outcome::Delivered, world.now());
                world.settle(&worker, vec![delivered]).await;
            }
        }
    }
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
