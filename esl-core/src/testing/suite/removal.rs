//! Letting go of what is old.

use std::time::Duration;

use super::{
    BY,
    world::{SECOND, WORKS, World, first, kind, numbers, settle, settlement, want},
};
use crate::{
    Attempt, AttemptError, DeliveryId, LinkKey, OrganizationId, SealedEvent, Seq, Subscription,
    Timings,
    storage::{Outcome, Page, Removed, Settle, Settlement, StorageErrorKind, Tenure, Unit, Worker},
};

const AGE: Duration = Duration::from_secs(100);

pub(super) async fn what_is_old_and_settled_is_removed(world: World) {
    let (subscription, worker) = history(&world, 5).await;
    let organization = subscription.organization;
    deliver(&world, &worker, &subscription, 1..=5).await;
    world.clock.advance(AGE - SECOND);
    let young = world.publish_new(organization, 3).await;
    deliver(&world, &worker, &subscription, 6..=8).await;
    assert_eq!(remove_all(&world, &worker, 100).await, Removed::default());
    world.clock.advance(SECOND);
    let removed = remove_all(&world, &worker, 2).await;
    assert_eq!((removed.events, removed.deliveries), (5, 5));
    assert!(removed.bytes > 500, "{removed:?}");
    assert_eq!(remove_all(&world, &worker, 100).await, Removed::default());

    let page = world.storage.events(organization, None, first(100)).await.expect(WORKS);
    let left: Vec<_> = page.items.iter().rev().map(|event| event.seq).collect();
    assert_eq!(left, young);
    assert_eq!(world.deliveries(&subscription).await.len(), 3);
    // Seqs go on.
    assert_eq!(world.publish_new(organization, 1).await, numbers([9]));
}

pub(super) async fn nothing_is_removed_where_nothing_is_to_be(world: World) {
    let (subscription, worker) = history(&world, 3).await;
    deliver(&world, &worker, &subscription, 1..=3).await;
    world.clock.advance(AGE * 1000);
    let worker = anew(&world, worker, &[subscription.lane]).await;
    let removed = world.storage.remove_old(&worker, None, 100).await.expect(WORKS);
    assert_eq!(removed, Removed::default());
    world.storage.resign(&worker).await.expect(WORKS);
    let fenced = world.storage.remove_old(&worker, Some(AGE), 100).await;
    assert_eq!(kind(fenced), StorageErrorKind::Fenced);
}

pub(super) async fn an_event_that_is_still_owed_stays(world: World) {
    let (subscription, worker) = history(&world, 4).await;
    let organization = subscription.organization;
    let other = world.subscription(organization).await;
    world.publish_new(organization, 2).await;
    // Of the first lane 2 is put off and 5 was never tried; the other owes 6.
    deliver(&world, &worker, &subscription, [1, 3, 4, 6]).await;
    let put_off = settlement(
        subscription.lane,
        Seq::new(2),
        Outcome::RetryAt(world.now() + AGE * 9),
        world.now(),
    );
    // As after a try for which our own side had no way out.
    let put_off = Settlement { attempts: 0, charged: 0, ..put_off };
    world.settle(&worker, vec![put_off]).await;
    deliver(&world, &worker, &other, [5]).await;
    world.clock.advance(AGE);
    let worker = anew(&world, worker, &[subscription.lane, other.lane]).await;
    let removed = remove_all(&world, &worker, 3).await;
    assert_eq!((removed.events, removed.deliveries), (3, 5));
    let page = world.storage.events(organization, None, first(100)).await.expect(WORKS);
    let left: Vec<_> = page.items.iter().rev().map(|event| event.seq).collect();
    assert_eq!(left, numbers([2, 5, 6]));
    // What is owed is handed out as before.
    let claimed = world.claim(&worker, want(subscription.lane)).await;
    assert_eq!(super::world::seqs(&claimed), numbers([5]));

    deliver(&world, &worker, &subscription, [2, 5]).await;
    deliver(&world, &worker, &other, [6]).await;
    let removed = remove_all(&world, &worker, 100).await;
    assert_eq!((removed.events, removed.deliveries), (3, 3));
}

pub(super) async fn the_smallest_slices_leave_no_delivery_without_its_event(world: World) {
    let (subscription, worker) = history(&world, 0).await;
    let other = world.subscription(subscription.organization).await;
    let idle = world.subscription_to(subscription.organization, "pet.*").await;
    world.publish_new(subscription.organization, 4).await;
    for to in [&subscription, &other] {
        deliver(&world, &worker, to, 1..=4).await;
    }
    world.clock.advance(AGE);
    let worker = anew(&world, worker, &[]).await;
    let mut all = Removed::default();
    while step(&world, &worker, 1, &mut all).await {
        for subscription in [&subscription, &other, &idle] {
            let deliveries = world.deliveries(subscription).await;
            let page = first(100);
            let events = world.storage.events(subscription.organization, None, page).await;
            let events: Vec<_> = events.expect(WORKS).items.iter().map(|event| event.seq).collect();
            assert!(deliveries.iter().all(|delivery| events.contains(&delivery.seq)));
        }
    }
    assert_eq!((all.events, all.deliveries), (4, 8));
}

pub(super) async fn a_delivery_that_settles_while_its_event_goes_is_passed_over(world: World) {
    // At whichever step of a round it settles.
    for steps in 0..8 {
        let (subscription, worker) = history(&world, 0).await;
        let organization = subscription.organization;
        let late = world.subscription(organization).await;
        world.publish_new(organization, 3).await;
        deliver(&world, &worker, &subscription, 1..=3).await;
        world.clock.advance(AGE);
        let young = world.publish_new(organization, 2).await;
        let worker = anew(&world, worker, &[late.lane]).await;
        let mut all = Removed::default();
        while all.deliveries == 0 {
            step(&world, &worker, 1, &mut all).await;
        }
        for _ in 0..steps {
            step(&world, &worker, 1, &mut all).await;
        }
        deliver(&world, &worker, &late, 1..=3).await;
        while step(&world, &worker, 1, &mut all).await {
            // One at a time, so that what is passed over may be all of a page.
            let mut after = None;
            let mut listed = Vec::new();
            loop {
                let page = Page { after, limit: 1 };
                let page = world.storage.deliveries(organization, late.id, None, page).await;
                let page = page.expect(WORKS).expect("it exists");
                listed.extend(page.items.iter().map(|delivery| delivery.seq));
                after = listed.last().copied();
                if !page.more {
                    break;
                }
            }
            assert!(listed.iter().rev().copied().collect::<Vec<_>>().ends_with(&young));
        }
        remove_all(&world, &worker, 100).await;
        assert_eq!(world.deliveries(&late).await.len(), 2);
        let page = world.storage.events(organization, None, first(100)).await.expect(WORKS);
        assert_eq!(page.items.len(), 2);
        world.storage.delete_organization(organization, BY).await.expect(WORKS);
        remove_all(&world, &worker, 100).await;
        world.storage.resign(&worker).await.expect(WORKS);
    }
}

pub(super) async fn an_event_from_far_in_the_future_holds_up_nothing(world: World) {
    let organization = world.organization().await;
    let worker = world.worker_of(&[]).await;
    let far = world.now() + SECOND * 3600 * 24 * 3650;
    let from_the_future = || {
        let event = (*world.event(organization)).clone();
        std::sync::Arc::new(SealedEvent { timestamp: far, ..event })
    };
    // The first ones, in the middle, and the last of what is old.
    for count in [3, 1, 1] {
        for _ in 0..count {
            world.publish(&[from_the_future()]).await;
        }
        world.publish_new(organization, 4).await;
    }
    world.publish(&[from_the_future()]).await;
    assert_eq!(remove_all(&world, &worker, 100).await, Removed::default());
    world.clock.advance(AGE);
    world.publish_new(organization, 2).await;
    assert_eq!(remove_all(&world, &worker, 100).await.events, 17);
    let page = world.storage.events(organization, None, first(100)).await.expect(WORKS);
    let left: Vec<_> = page.items.iter().rev().map(|event| event.seq).collect();
    assert_eq!(left, numbers([18, 19, 20]));
    // Once those after it are old, it is, too.
    world.clock.advance(AGE);
    assert_eq!(remove_all(&world, &worker, 100).await.events, 3);
}

pub(super) async fn no_organization_waits_until_another_has_nothing_left(world: World) {
    let (large, small) = (world.organization().await, world.organization().await);
    world.publish_new(large, 60).await;
    world.publish_new(small, 3).await;
    let deleted = world.organization().await;
    world.publish_new(deleted, 60).await;
    world.storage.delete_organization(deleted, BY).await.expect(WORKS);
    world.clock.advance(AGE);
    let worker = world.worker_of(&[]).await;
    let mut all = Removed::default();
    for _ in 0..10 {
        step(&world, &worker, 10, &mut all).await;
    }
    let left = async |organization| {
        let page = world.storage.events(organization, None, first(100)).await.expect(WORKS);
        page.items.len()
    };
    assert_eq!(left(small).await, 0);
    assert!(left(large).await < 60);
    remove_all(&world, &worker, 10).await;
    assert_eq!(left(large).await, 0);
}

pub(super) async fn what_is_removed_is_counted_with_its_changes(world: World) {
    let organization = world.organization().await;
    let event = SealedEvent {
        changes: Some(vec![b' '; 5000].into()),
        ..(*world.event(organization)).clone()
    };
    let bytes = event.body.len() as u64 + 5000;
    world.publish(&[event.into()]).await;
    world.clock.advance(AGE);
    let worker = world.worker_of(&[]).await;
    assert_eq!(remove_all(&world, &worker, 100).await.bytes, bytes);
}

pub(super) async fn attempts_go_with_their_delivery(world: World) {
    let (subscription, worker) = history(&world, 2).await;
    let lane = subscription.lane;
    let log = vec![attempt(1, world.now()), attempt(2, world.now())];
    let at = world.now();
    let tried = |seq, outcome| Settlement {
        attempts: 2,
        log: log.clone(),
        ..settlement(lane, Seq::new(seq), outcome, at)
    };
    world.settle(&worker, vec![tried(1, Outcome::Exhausted), tried(2, Outcome::RetryAt(at))]).await;
    world.clock.advance(AGE);
    let worker = anew(&world, worker, &[lane]).await;
    let removed = remove_all(&world, &worker, 100).await;
    assert_eq!((removed.events, removed.deliveries, removed.attempts), (1, 1, 2));
    let owed = &world.deliveries(&subscription).await[0];
    let found = world.storage.delivery(subscription.organization, owed.id).await.expect(WORKS);
    assert_eq!(found.expect("it is owed").1.len(), 2);
}

pub(super) async fn a_delivery_of_a_removed_event_is_gone(world: World) {
    let (subscription, worker) = history(&world, 2).await;
    let (organization, lane) = (subscription.organization, subscription.lane);
    let given_up = settlement(lane, Seq::new(1), Outcome::Exhausted, world.now());
    world.settle(&worker, vec![given_up]).await;
    let id = world.deliveries(&subscription).await[0].id;
    world.clock.advance(AGE);
    let worker = anew(&world, worker, &[lane]).await;
    assert_eq!(remove_all(&world, &worker, 100).await.events, 1);
    let read = world.storage.delivery(organization, id).await;
    assert_eq!(kind(read), StorageErrorKind::Gone);
    let reopened = world.storage.reopen(organization, lane, Seq::new(1)).await;
    assert_eq!(kind(reopened), StorageErrorKind::Gone);
    let stranger = world.organization().await;
    assert_eq!(world.storage.delivery(stranger, id).await.expect(WORKS), None);
    // One that nobody ever had is not.
    let ahead = DeliveryId::new(world.event_id(), Seq::new(77), lane);
    assert_eq!(world.storage.delivery(organization, ahead).await.expect(WORKS), None);
}

pub(super) async fn the_id_of_a_removed_event_is_free(world: World) {
    let organization = world.organization().await;
    let id = world.event_id();
    world.publish(&[world.event_with_id(organization, id, "1")]).await;
    let worker = world.worker_of(&[]).await;
    world.clock.advance(AGE);
    let worker = anew(&world, worker, &[]).await;
    assert_eq!(remove_all(&world, &worker, 100).await.events, 1);
    assert_eq!(world.storage.event(organization, id).await.expect(WORKS), None);
    let again = world.publish(&[world.event_with_id(organization, id, "2")]).await;
    assert_eq!((again[0].repeated, again[0].seq), (false, Seq::new(2)));
}

pub(super) async fn a_removal_survives_a_kill(world: World) {
    let (subscription, worker) = history(&world, 4).await;
    deliver(&world, &worker, &subscription, 1..=4).await;
    world.clock.advance(AGE);
    let worker = anew(&world, worker, &[subscription.lane]).await;
    assert_eq!(remove_all(&world, &worker, 100).await.events, 4);
    let world = world.kill_and_reopen().await;
    let reopened = world.storage.reopen(subscription.organization, subscription.lane, Seq::new(4));
    assert_eq!(kind(reopened.await), StorageErrorKind::Gone);
    assert_eq!(world.publish_new(subscription.organization, 1).await, numbers([5]));
}

pub(super) async fn two_keys_of_links_are_kept(world: World) {
    let keys = async |number| {
        let fresh = LinkKey::from_bytes([number; 32]);
        let keys = world.storage.link_keys(fresh).await.expect(WORKS);
        keys.iter().map(|key| key.expose()[0]).collect::<Vec<_>>()
    };
    assert_eq!(keys(1).await, [1]);
    world.clock.advance(LinkKey::AGE_MAX - SECOND);
    assert_eq!(keys(2).await, [1], "it signs for seven days");
    world.clock.advance(SECOND);
    assert_eq!(keys(3).await, [3, 1]);
    assert_eq!(keys(4).await, [3, 1]);
    world.clock.advance(LinkKey::AGE_MAX);
    assert_eq!(keys(5).await, [5, 3]);
    let beside = world.another_handle().await;
    let seen = beside.link_keys(LinkKey::from_bytes([6; 32])).await.expect(WORKS);
    assert_eq!(seen[0].expose()[0], 5);
}

/// An active subscription with deliveries, none of them tried.
pub(super) async fn history(world: &World, count: usize) -> (Subscription, Worker) {
    let organization: OrganizationId = world.organization().await;
    let subscription = world.subscription(organization).await;
    let worker = world.worker_of(&[subscription.lane]).await;
    if count > 0 {
        world.publish_new(organization, count).await;
    }
    (subscription, worker)
}

pub(super) async fn deliver(
    world: &World,
    worker: &Worker,
    to: &Subscription,
    seqs: impl IntoIterator<Item = u64>,
) {
    let worker = anew(world, *worker, &[to.lane]).await;
    let delivered = seqs
        .into_iter()
        .map(|seq| settlement(to.lane, Seq::new(seq), Outcome::Delivered, world.now()));
    let unit = Settle { settlements: delivered.collect(), ..settle(&worker) };
    world.commit(Unit::settle(unit)).await.expect("the epoch runs");
}

/// The worker, whose epoch may have lapsed while the case's time went on.
async fn anew(world: &World, worker: Worker, lanes: &[crate::LaneId]) -> Worker {
    if world.storage.renew(&worker).await.is_ok() {
        return worker;
    }
    let (worker, _) = world.storage.enlist(worker.id, Tenure::default()).await.expect(WORKS);
    world.take(&worker, lanes).await;
    worker
}

pub(super) async fn remove_all(world: &World, worker: &Worker, limit: usize) -> Removed {
    let worker = anew(world, *worker, &[]).await;
    let mut all = Removed::default();
    for _ in 0..1000 {
        if !step(world, &worker, limit, &mut all).await {
            return all;
        }
    }
    panic!("the removal does not come to an end");
}

/// One slice, added to what was removed before; true if there is more to do.
async fn step(world: &World, worker: &Worker, limit: usize, all: &mut Removed) -> bool {
    let removed = world.storage.remove_old(worker, Some(AGE), limit).await.expect(WORKS);
    all.events += removed.events;
    all.deliveries += removed.deliveries;
    all.attempts += removed.attempts;
    all.bytes += removed.bytes;
    removed.more
}

pub(super) fn attempt(number: u32, started_at: crate::Timestamp) -> Attempt {
    Attempt {
        number,
        started_at,
        status: Some(500),
        error: Some(AttemptError::Status),
        detail: None,
        probe: false,
        charged: true,
        timings: Timings::default(),
    }
}
