//! Events that wait for their time.

use std::sync::Arc;

use super::{
    BY,
    world::{SECOND, WORKS, World, first, hear, kind},
};
use crate::{
    EventId, Limit, OrganizationId, SealedEvent, Timestamp,
    storage::{Change, Page, StorageErrorKind},
};

const FIVE: Limit = Limit::AtMost(5);

pub(super) async fn what_is_scheduled_waits_for_its_time_and_comes_once(world: World) {
    let organization = world.organization().await;
    let storage = &world.storage;
    assert_eq!(storage.next_due().await.expect(WORKS), None);
    // In another order than they are due in.
    let events = world.events(organization, 3);
    let due = [3, 1, 2].map(|seconds| world.now() + SECOND * seconds);
    schedule(&world, &[(due[0], &events[0]), (due[1], &events[1])]).await;
    schedule(&world, &[(due[2], &events[2])]).await;
    hear(&**storage, Change::Schedule).await;
    assert_eq!(
        waiting(&world, organization).await,
        [(due[0], events[0].id), (due[1], events[1].id), (due[2], events[2].id),]
    );
    assert_eq!(storage.next_due().await.expect(WORKS), Some(due[1]));
    assert_eq!(storage.release_due(10).await.expect(WORKS), 0);
    world.clock.advance(SECOND * 2);
    assert_eq!(storage.release_due(1).await.expect(WORKS), 1);
    assert_eq!(storage.release_due(10).await.expect(WORKS), 1);
    assert_eq!(storage.release_due(10).await.expect(WORKS), 0);
    hear(&**storage, Change::Intake).await;
    assert_eq!(intake(&world).await, [events[1].clone(), events[2].clone()]);
    assert_eq!(waiting(&world, organization).await, [(due[0], events[0].id)]);
    assert_eq!(storage.next_due().await.expect(WORKS), Some(due[0]));
}

pub(super) async fn what_is_scheduled_survives_a_kill(world: World) {
    let organization = world.organization().await;
    let event = world.event(organization);
    let due_at = world.now() + SECOND;
    schedule(&world, &[(due_at, &event)]).await;
    let world = world.kill_and_reopen().await;
    assert_eq!(waiting(&world, organization).await, [(due_at, event.id)]);
    world.clock.advance(SECOND);
    assert_eq!(world.storage.release_due(10).await.expect(WORKS), 1);
    let world = world.kill_and_reopen().await;
    assert_eq!(world.storage.release_due(10).await.expect(WORKS), 0);
    assert_eq!(intake(&world).await, [event]);
}

pub(super) async fn what_is_unscheduled_never_comes(world: World) {
    let [organization, other] = [world.organization().await, world.organization().await];
    let (event, due_at) = (world.event(organization), world.now() + SECOND);
    schedule(&world, &[(due_at, &event)]).await;
    let storage = &world.storage;
    assert_eq!(waiting(&world, other).await, []);
    let strangers = storage.unschedule(other, event.id).await;
    assert_eq!(kind(strangers), StorageErrorKind::NotFound);
    storage.unschedule(organization, event.id).await.expect(WORKS);
    let again = storage.unschedule(organization, event.id).await;
    assert_eq!(kind(again), StorageErrorKind::NotFound);
    let deleted = world.event(other);
    schedule(&world, &[(due_at, &deleted)]).await;
    storage.delete_organization(other, BY).await.expect(WORKS);
    assert_eq!(storage.next_due().await.expect(WORKS), None);
    world.clock.advance(SECOND);
    assert_eq!(storage.release_due(10).await.expect(WORKS), 0);
    assert_eq!(intake(&world).await, []);
}

pub(super) async fn all_or_none_are_scheduled_and_not_too_many(world: World) {
    let organization = world.organization().await;
    let now = world.now();
    let storage = &world.storage;
    let event = world.event(organization);
    let unknown = world.event(world.organization_id());
    let refused = storage.schedule(vec![(now, event.clone()), (now, unknown)], FIVE).await;
    assert_eq!(kind(refused), StorageErrorKind::NotFound);
    let refused = storage.schedule(vec![(now, event.clone()), (now, event.clone())], FIVE).await;
    assert_eq!(kind(refused), StorageErrorKind::Conflict);
    assert_eq!(waiting(&world, organization).await, []);

    let most = world.events(organization, 4);
    let rows: Vec<_> = most.iter().map(|event| (now + SECOND, event)).collect();
    schedule(&world, &rows).await;
    let two = world.events(organization, 2);
    let refused = storage.schedule(two.iter().map(|it| (now, it.clone())).collect(), FIVE).await;
    assert_eq!(kind(refused), StorageErrorKind::OverLimit);
    schedule(&world, &[(now, &event)]).await;
    let refused = storage.schedule(vec![(now, event)], FIVE).await;
    assert_eq!(kind(refused), StorageErrorKind::Conflict);
    // Another one's are its own.
    let other = world.organization().await;
    schedule(&world, &[(now, &world.event(other))]).await;
    let page = storage.scheduled(organization, first(4)).await.expect(WORKS);
    assert!(page.more);
    let after = page.items.last().map(|last| last.number);
    let rest = storage.scheduled(organization, Page { after, limit: 10 }).await.expect(WORKS);
    assert_eq!((rest.items.len(), rest.more), (1, false));
}

async fn schedule(world: &World, events: &[(Timestamp, &Arc<SealedEvent>)]) {
    let events = events.iter().map(|(at, event)| (*at, Arc::clone(event))).collect();
    world.storage.schedule(events, FIVE).await.expect(WORKS);
}

async fn waiting(world: &World, organization: OrganizationId) -> Vec<(Timestamp, EventId)> {
    let page = world.storage.scheduled(organization, first(10)).await.expect(WORKS);
    page.items.iter().map(|it| (it.due_at, it.event.id)).collect()
}

async fn intake(world: &World) -> Vec<Arc<SealedEvent>> {
    let rows = world.storage.intake(None, 100, &[]).await.expect(WORKS);
    rows.into_iter().map(|(_, event)| event).collect()
}
