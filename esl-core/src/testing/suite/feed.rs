//! Feeds: all that is committed, for something outside.

use std::{sync::Arc, time::Duration};

use super::{
    BY,
    world::{PLENTY, SECOND, WORKS, World, kind, numbers},
};
use crate::{
    Organization, OrganizationId, SealedEvent, Seq,
    storage::{EPOCH, Fed, FeedBatch, FeedStep, StorageErrorKind, Worker},
};

const FEED: &str = "feed";

pub(super) async fn a_feed_begins_with_what_comes_after_it_was_begun(world: World) {
    let organization = world.organization().await;
    world.publish_new(organization, 3).await;
    let worker = world.worker_of(&[]).await;
    // Not begun yet.
    assert_eq!(fed(&world, 10).await, Fed::default());
    advance(&world, &worker, organization, 0, 3).await;
    assert_eq!(fed(&world, 10).await, Fed::default());

    begin(&world, &worker).await;
    assert_eq!(fed(&world, 10).await, Fed::default());
    let events = world.events(organization, 2);
    world.publish(&events).await;
    // Begun already.
    begin(&world, &worker).await;
    let fed = fed(&world, 10).await;
    assert_eq!(fed.after, None);
    let [batch] = &fed.batches[..] else { panic!("{fed:?}") };
    assert_eq!(batch.organization, organization);
    assert_eq!((batch.from, batch.to, batch.passed()), (Seq::new(3), Seq::new(5), 0));
    assert_eq!(seqs(batch), numbers([4, 5]));
    let read: Vec<_> = batch.events.iter().map(|event| (event.id, event.body.clone())).collect();
    let sealed: Vec<_> = events.iter().map(|event| (event.id, event.body.clone())).collect();
    assert_eq!(read, sealed);
}

pub(super) async fn an_organization_made_later_is_fed_from_its_beginning(world: World) {
    let worker = world.worker_of(&[]).await;
    begin(&world, &worker).await;
    let organization = world.organization().await;
    assert_eq!(fed(&world, 10).await, Fed::default());
    world.publish_new(organization, 2).await;
    assert_eq!(fed_seqs(&world, organization).await, numbers([1, 2]));
    advance(&world, &worker, organization, 0, 2).await;
    assert_eq!(fed(&world, 10).await, Fed::default());
}

pub(super) async fn a_feed_goes_on_behind_its_cursor_also_after_a_kill(world: World) {
    let organization = world.organization().await;
    let worker = world.worker_of(&[]).await;
    begin(&world, &worker).await;
    world.publish_new(organization, 5).await;
    advance(&world, &worker, organization, 0, 3).await;
    assert_eq!(fed_seqs(&world, organization).await, numbers([4, 5]));
    let world = world.kill_and_reopen().await;
    assert_eq!(fed_seqs(&world, organization).await, numbers([4, 5]));
    let worker = world.worker_of(&[]).await;
    begin(&world, &worker).await;
    assert_eq!(fed_seqs(&world, organization).await, numbers([4, 5]));
    advance(&world, &worker, organization, 3, 5).await;
    let world = world.kill_and_reopen().await;
    assert_eq!(fed(&world, 10).await, Fed::default());
}

pub(super) async fn a_cursor_moves_from_where_it_stands_and_in_a_running_epoch_only(world: World) {
    let [organization, other] = [world.organization().await, world.organization().await];
    let worker = world.worker_of(&[]).await;
    begin(&world, &worker).await;
    world.publish_new(organization, 4).await;
    world.publish_new(other, 1).await;
    // From elsewhere, beyond the end and backwards.
    for (from, to) in [(1, 3), (0, 5)] {
        advance(&world, &worker, organization, from, to).await;
        assert_eq!(fed_seqs(&world, organization).await, numbers(1..=4), "{from} to {to}");
    }
    advance(&world, &worker, organization, 0, 2).await;
    advance(&world, &worker, organization, 2, 1).await;
    assert_eq!(fed_seqs(&world, organization).await, numbers([3, 4]));
    // One that cannot be done leaves the others.
    let steps =
        vec![step(world.organization_id(), 0, 1), step(organization, 0, 4), step(other, 0, 1)];
    world.storage.advance_feed(&worker, FEED, steps).await.expect(WORKS);
    assert_eq!(fed_seqs(&world, organization).await, numbers([3, 4]));
    assert_eq!(fed_seqs(&world, other).await, numbers([]));

    world.clock.advance(EPOCH);
    let late = world.storage.advance_feed(&worker, FEED, vec![step(organization, 2, 4)]).await;
    assert_eq!(kind(late), StorageErrorKind::Fenced);
    assert_eq!(kind(world.storage.begin_feed(&worker, "late").await), StorageErrorKind::Fenced);
    assert_eq!(fed_seqs(&world, organization).await, numbers([3, 4]));
}

pub(super) async fn feeds_of_two_names_are_apart(world: World) {
    let organization = world.organization().await;
    let worker = world.worker_of(&[]).await;
    begin(&world, &worker).await;
    world.publish_new(organization, 1).await;
    world.storage.begin_feed(&worker, "other").await.expect(WORKS);
    world.publish_new(organization, 1).await;
    assert_eq!(fed_seqs(&world, organization).await, numbers([1, 2]));
    let other = world.storage.feed("other", None, 10, PLENTY).await.expect(WORKS);
    assert_eq!(seqs(&other.batches[0]), numbers([2]));
    advance(&world, &worker, organization, 0, 2).await;
    assert_eq!(world.storage.feed("other", None, 10, PLENTY).await.expect(WORKS), other);
}

pub(super) async fn what_was_removed_is_passed_over_by_a_feed(world: World) {
    const AGE: Duration = Duration::from_secs(10);
    let organization = world.organization().await;
    let worker = world.worker_of(&[]).await;
    begin(&world, &worker).await;
    world.publish_new(organization, 2).await;
    world.clock.advance(AGE - SECOND);
    world.publish_new(organization, 1).await;
    world.clock.advance(SECOND);
    while world.storage.remove_old(&worker, Some(AGE), 100).await.expect(WORKS).more {}
    let fed_before = fed(&world, 10).await;
    let batch = &fed_before.batches[0];
    assert_eq!((batch.from, batch.to, seqs(batch)), (Seq::ZERO, Seq::new(3), numbers([3])));
    assert_eq!(batch.passed(), 2);
    world.clock.advance(AGE);
    while world.storage.remove_old(&worker, Some(AGE), 100).await.expect(WORKS).more {}
    // Nothing is left, and all the same it is to go on.
    let fed_after = fed(&world, 10).await;
    let batch = &fed_after.batches[0];
    assert_eq!((batch.from, batch.to, seqs(batch)), (Seq::ZERO, Seq::new(3), numbers([])));
    advance(&world, &worker, organization, 0, 3).await;
    assert_eq!(fed(&world, 10).await, Fed::default());
}

pub(super) async fn no_organization_waits_for_the_feed_of_another(world: World) {
    let worker = world.worker_of(&[]).await;
    begin(&world, &worker).await;
    let mut organizations = Vec::new();
    for count in [5, 1, 0, 7] {
        let organization = world.organization().await;
        organizations.push(organization);
        if count > 0 {
            world.publish_new(organization, count).await;
        }
    }
    let mut looks = Vec::new();
    let mut after = None;
    loop {
        let fed = world.storage.feed(FEED, after, 3, PLENTY).await.expect(WORKS);
        let count: usize = fed.batches.iter().map(|batch| batch.events.len()).sum();
        assert!(count <= 3, "{fed:?}");
        looks.extend(fed.batches.iter().map(|batch| (batch.organization, seqs(batch))));
        after = fed.after;
        if after.is_none() {
            break;
        }
    }
    organizations.remove(2);
    for organization in organizations {
        let seen: Vec<_> = looks.iter().filter(|(of, _)| *of == organization).collect();
        let [(_, seqs)] = &seen[..] else { panic!("{organization} is seen {} times", seen.len()) };
        assert_eq!(seqs[0], Seq::new(1));
    }
}

pub(super) async fn a_feeds_bytes_are_bounded(world: World) {
    let organization = world.organization().await;
    let worker = world.worker_of(&[]).await;
    begin(&world, &worker).await;
    let events: Vec<Arc<SealedEvent>> = world.events(organization, 4);
    world.publish(&events).await;
    let bytes = events[0].body.len();
    for (bytes_max, expected) in [(0, 1), (bytes, 1), (bytes * 2, 2), (bytes * 3 - 1, 2)] {
        let fed = world.storage.feed(FEED, None, 10, bytes_max).await.expect(WORKS);
        let batch = &fed.batches[0];
        assert_eq!(seqs(batch), numbers(1..=expected), "{bytes_max} bytes");
        assert_eq!((batch.to, batch.passed()), (Seq::new(expected), 0));
        assert_eq!(fed.after, Some(organization));
    }
}

pub(super) async fn a_deleted_organization_is_fed_no_more_and_a_new_one_from_its_beginning(
    world: World,
) {
    let organization = world.organization().await;
    world.publish_new(organization, 2).await;
    let worker = world.worker_of(&[]).await;
    begin(&world, &worker).await;
    world.publish_new(organization, 3).await;
    world.storage.delete_organization(organization, BY).await.expect(WORKS);
    assert_eq!(fed(&world, 10).await.batches, []);
    advance(&world, &worker, organization, 2, 3).await;
    while world.storage.remove_old(&worker, None, 100).await.expect(WORKS).more {}

    let again = Organization::new(organization, "again", world.now());
    world.storage.create_organization(again, BY).await.expect(WORKS);
    world.publish_new(organization, 1).await;
    assert_eq!(fed_seqs(&world, organization).await, numbers([1]));
}

async fn begin(world: &World, worker: &Worker) {
    world.storage.begin_feed(worker, FEED).await.expect(WORKS);
}

async fn fed(world: &World, limit: usize) -> Fed {
    world.storage.feed(FEED, None, limit, PLENTY).await.expect(WORKS)
}

async fn fed_seqs(world: &World, organization: OrganizationId) -> Vec<Seq> {
    let fed = fed(world, 100).await;
    let batch = fed.batches.iter().find(|batch| batch.organization == organization);
    batch.map(seqs).unwrap_or_default()
}

fn seqs(batch: &FeedBatch) -> Vec<Seq> {
    batch.events.iter().map(|event| event.seq).collect()
}

async fn advance(world: &World, worker: &Worker, organization: OrganizationId, from: u64, to: u64) {
    let steps = vec![step(organization, from, to)];
    world.storage.advance_feed(worker, FEED, steps).await.expect(WORKS);
}

const fn step(organization: OrganizationId, from: u64, to: u64) -> FeedStep {
    FeedStep { organization, from: Seq::new(from), to: Seq::new(to) }
}
