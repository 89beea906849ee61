//! Events on their way from somebody else's transaction into ordinary commits.

use std::{sync::Arc, time::Duration};

use super::{
    BY,
    world::{WORKS, World, hear, numbers},
};
use crate::{
    Organization, SealedEvent,
    storage::{Change, Committed, IntakeRow, Publish, Refused, RouteVersion, Routed, Unit, Worker},
};

pub(super) async fn intake_rows_come_in_their_order(world: World) {
    let (one, other) = (world.organization().await, world.organization().await);
    let mut events = Vec::new();
    for group in [&[one, other][..], &[one], &[other, one]] {
        let group: Vec<_> = group.iter().map(|organization| world.event(*organization)).collect();
        world.storage.enqueue(group.clone()).await.expect(WORKS);
        events.extend(group);
    }
    let rows = world.storage.intake(None, 100, &[]).await.expect(WORKS);
    assert!(rows.is_sorted_by_key(|(row, _)| row.0));
    assert_eq!(
        rows.iter().map(|(_, event)| event).collect::<Vec<_>>(),
        events.iter().collect::<Vec<_>>()
    );
    let others = world.storage.intake(None, 3, &[other]).await.expect(WORKS);
    assert_eq!(others, [rows[0].clone(), rows[2].clone(), rows[4].clone()]);
    // They stay, and a page begins where the last one ended.
    assert_eq!(world.storage.intake(None, 2, &[]).await.expect(WORKS), rows[..2]);
    assert_eq!(world.storage.intake(Some(rows[1].0), 2, &[]).await.expect(WORKS), rows[2..4]);
    assert_eq!(world.storage.intake(Some(rows[4].0), 2, &[]).await.expect(WORKS), []);
}

pub(super) async fn an_intake_event_keeps_what_its_publisher_said(world: World) {
    let organization = world.organization().await;
    let chosen = world.event_with_id(organization, world.event_id(), r#"{"a":1.0}"#);
    assert!(chosen.digest.is_some());
    let generated = world.event(organization);
    world.storage.enqueue(vec![Arc::clone(&chosen), Arc::clone(&generated)]).await.expect(WORKS);
    let rows = world.storage.intake(None, 9, &[]).await.expect(WORKS);
    assert_eq!(rows.into_iter().map(|(_, event)| event).collect::<Vec<_>>(), [chosen, generated]);
}

pub(super) async fn a_committed_unit_removes_its_intake_rows(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let rows = enqueued(&world, &world.events(organization, 3)).await;
    let committed = world.commit(moving(&world, &rows[..2]).await).await.expect("in order");
    let seqs: Vec<_> = committed.events.iter().map(|accepted| accepted.seq).collect();
    assert_eq!(seqs, numbers([1, 2]));
    assert_eq!(world.storage.intake(None, 9, &[]).await.expect(WORKS), rows[2..]);
    assert_eq!(world.deliveries(&subscription).await.len(), 2);
}

pub(super) async fn a_repeated_intake_event_is_dropped(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let event = world.event(organization);
    let [first] = world.publish(&[Arc::clone(&event)]).await.try_into().expect("one event");
    let rows = enqueued(&world, &[Arc::clone(&event), event]).await;
    // Both at once, and the same unit again: its rows are gone, and it is no error.
    let unit = moving(&world, &rows).await;
    for _ in 0..2 {
        let committed = world.commit(unit.clone()).await.expect("in order");
        assert_eq!(committed.events.len(), 2);
        for accepted in committed.events {
            assert_eq!((accepted.seq, accepted.repeated), (first.seq, true));
        }
        assert_eq!(world.storage.intake(None, 9, &[]).await.expect(WORKS), []);
    }
    assert_eq!(world.deliveries(&subscription).await.len(), 1);
}

pub(super) async fn a_conflicting_intake_event_is_dropped(world: World) {
    let (organization, other) = (world.organization().await, world.organization().await);
    let event = world.event_with_id(organization, world.event_id(), "1");
    let foreign = world.event(other);
    world.publish(&[Arc::clone(&event)]).await;
    world.publish(&[Arc::clone(&foreign)]).await;
    let conflicting = world.event_with_id(organization, event.id, "2");
    let taken = Arc::new(SealedEvent { organization, ..(*foreign).clone() });
    let new = world.event(organization);
    let rows = enqueued(&world, &[conflicting, taken, Arc::clone(&new)]).await;
    let committed = world.commit(moving(&world, &rows).await).await.expect("in order");
    let accepted: Vec<_> = committed.events.iter().map(|it| (it.id, it.repeated)).collect();
    // An id that another organization has, too, is no conflict.
    assert_eq!(accepted, [(event.id, true), (foreign.id, false), (new.id, false)]);
    assert_eq!(world.storage.intake(None, 9, &[]).await.expect(WORKS), []);
    let stored = world.storage.event(organization, event.id).await.expect(WORKS);
    assert_eq!(stored.expect("the first one stays").body, event.body);
    let stored = world.storage.event(organization, foreign.id).await.expect(WORKS);
    assert_eq!(stored.expect("it is stored here, too").body, foreign.body);
}

pub(super) async fn a_refused_unit_leaves_its_intake_rows(world: World) {
    let (organization, unknown) = (world.organization().await, world.organization_id());
    let rows = enqueued(&world, &world.events(organization, 1)).await;
    let publish = |row: &(IntakeRow, Arc<SealedEvent>), organization, version| Publish {
        organization,
        route_version: RouteVersion(version),
        events: vec![Routed { intake: Some(row.0), ..Routed::new(Arc::clone(&row.1), [].into()) }],
        idempotency: None,
        metering: None,
    };
    let stale = Unit::publish(publish(&rows[0], organization, 77));
    assert_eq!(world.commit(stale).await, Err(Refused::Rerouted));
    let nobodys = Unit::publish(publish(&rows[0], unknown, 0));
    assert_eq!(world.commit(nobodys).await, Err(Refused::UnknownOrganization(unknown)));
    assert_eq!(world.storage.intake(None, 9, &[]).await.expect(WORKS), rows);
}

pub(super) async fn an_intake_row_is_removed_only_for_its_own_event(world: World) {
    let organization = world.organization().await;
    let rows = enqueued(&world, &world.events(organization, 2)).await;
    let mut publish = world.route(&[world.event(organization), world.event(organization)]).await;
    let ids = [0, 1].map(|index: usize| publish.events[index].event.id);
    // Another event's row, and one that never was: these events are not in the intake.
    for (index, row) in [(0, rows[0].0), (1, IntakeRow(i64::MAX))] {
        let before = publish.events[index].intake.replace(row);
        let refused = world.commit(Unit::publish(publish.clone())).await;
        assert_eq!(refused, Err(Refused::IntakeGone(ids[index])));
        publish.events[index].intake = before;
    }
    let stored = world.storage.event(organization, ids[0]).await.expect(WORKS);
    assert_eq!(stored, None, "a unit stores all or nothing");
    // Known already, they are repetitions, and the row is still not theirs.
    world.commit(Unit::publish(publish.clone())).await.expect("in order");
    publish.events[0].intake = Some(rows[0].0);
    let committed = world.commit(Unit::publish(publish)).await.expect("in order");
    assert!(committed.events.iter().all(|accepted| accepted.repeated));
    assert_eq!(world.storage.intake(None, 9, &[]).await.expect(WORKS), rows);
}

pub(super) async fn what_is_erased_from_the_intake_while_it_is_moved_is_not_stored(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let rows = enqueued(&world, &world.events(organization, 3)).await;
    // An engine has read them all, and then one is erased.
    let units = [
        moving(&world, &rows[..1]).await,
        moving(&world, &rows[1..2]).await,
        moving(&world, &rows[1..]).await,
        moving(&world, &rows[2..]).await,
    ];
    let erased = rows[1].1.id;
    world.storage.erase_event(organization, erased).await.expect(WORKS);
    let results = world.storage.commit(units.to_vec()).await.expect(WORKS);
    let gone = Err(Refused::IntakeGone(erased));
    assert_eq!((&results[1], &results[2]), (&gone, &gone));
    let seqs = [&results[0], &results[3]]
        .map(|result| result.as_ref().expect("the others are moved").events[0].seq);
    assert_eq!(seqs.to_vec(), numbers([1, 2]));
    assert_eq!(world.storage.event(organization, erased).await.expect(WORKS), None);
    assert_eq!(world.deliveries(&subscription).await.len(), 2);
}

pub(super) async fn what_waits_for_an_organization_comes_when_it_is_made(world: World) {
    let organization = world.organization().await;
    let [unknown, other] = [world.organization_id(), world.organization_id()];
    let events = [other, unknown, organization, unknown, other, organization];
    let events = events.map(|organization| world.event(organization));
    world.storage.enqueue(events.to_vec()).await.expect(WORKS);
    hear(&*world.storage, Change::Intake).await;
    let intake = async || {
        let rows = world.storage.intake(None, 9, &[]).await.expect(WORKS);
        assert!(rows.is_sorted_by_key(|(row, _)| row.0));
        rows.into_iter().map(|(_, event)| event).collect::<Vec<_>>()
    };
    let of = |numbers: &[usize]| -> Vec<_> {
        numbers.iter().map(|number| Arc::clone(&events[*number])).collect()
    };
    // A page is full of what can be moved, and ends where that ends.
    assert_eq!(intake().await, of(&[2, 5]));
    let page = world.storage.intake(None, 1, &[]).await.expect(WORKS);
    assert_eq!(page[0].1, events[2]);
    let page = world.storage.intake(Some(page[0].0), 2, &[]).await.expect(WORKS);
    assert_eq!(page.into_iter().map(|(_, event)| event).collect::<Vec<_>>(), of(&[5]));
    // Nobody else can tell the engine of this process.
    let made = Organization::new(unknown, "made", world.now());
    world.storage.create_organization(made, BY).await.expect(WORKS);
    hear(&*world.storage, Change::Intake).await;
    assert_eq!(intake().await, of(&[1, 2, 3, 5]));
}

pub(super) async fn what_waits_for_an_organization_that_is_not_there_goes_when_it_is_old(
    world: World,
) {
    const AGE: Duration = Duration::from_secs(100);
    let (organization, unknown) = (world.organization().await, world.organization_id());
    let events = [unknown, organization, unknown, world.organization_id()];
    let events = events.map(|organization| world.event(organization));
    world.storage.enqueue(events.to_vec()).await.expect(WORKS);
    world.clock.advance(AGE);
    let young = world.event(unknown);
    world.storage.enqueue(vec![Arc::clone(&young)]).await.expect(WORKS);
    let worker = world.worker_of(&[]).await;
    assert_eq!(removed(&world, &worker, None).await, 0);
    assert_eq!(removed(&world, &worker, Some(AGE)).await, 3);
    let made = Organization::new(unknown, "made", world.now());
    world.storage.create_organization(made, BY).await.expect(WORKS);
    let left = world.storage.intake(None, 9, &[]).await.expect(WORKS);
    let left: Vec<_> = left.into_iter().map(|(_, event)| event).collect();
    assert_eq!(left, [Arc::clone(&events[1]), young]);
}

pub(super) async fn what_comes_to_the_intake_for_a_deleted_organization_goes_at_once(world: World) {
    let (organization, gone) = (world.organization().await, world.organization().await);
    let named = world.storage.organization(gone).await.expect(WORKS).expect("it is there");
    world.storage.delete_organization(gone, BY).await.expect(WORKS);
    // Committed by an application that has not heard of it; another one may be made yet.
    let events = [gone, organization, gone, world.organization_id(), gone];
    let events = events.map(|organization| world.event(organization));
    world.storage.enqueue(events.to_vec()).await.expect(WORKS);
    let worker = world.worker_of(&[]).await;
    assert_eq!(removed(&world, &worker, None).await, 3);
    // Made anew, it is an organization like any other.
    world.storage.create_organization(named, BY).await.expect(WORKS);
    let event = world.event(gone);
    world.storage.enqueue(vec![Arc::clone(&event)]).await.expect(WORKS);
    assert_eq!(removed(&world, &worker, None).await, 0);
    let left = world.storage.intake(None, 9, &[]).await.expect(WORKS);
    let left: Vec<_> = left.into_iter().map(|(_, event)| event).collect();
    assert_eq!(left, [Arc::clone(&events[1]), event]);
}

/// How many events a whole round of removing removes, in small slices.
async fn removed(world: &World, worker: &Worker, age: Option<Duration>) -> usize {
    let mut events = 0;
    loop {
        let removed = world.storage.remove_old(worker, age, 2).await.expect(WORKS);
        events += removed.events;
        if !removed.more {
            return events;
        }
    }
}

pub(super) async fn an_empty_intake_is_nothing(world: World) {
    assert_eq!(world.storage.intake(None, 9, &[]).await.expect(WORKS), []);
    world.storage.enqueue(Vec::new()).await.expect(WORKS);
    assert_eq!(world.storage.intake(None, 9, &[]).await.expect(WORKS), []);
    assert_eq!(world.commit(Unit::default()).await, Ok(Committed::default()));
}

async fn enqueued(
    world: &World,
    events: &[Arc<SealedEvent>],
) -> Vec<(IntakeRow, Arc<SealedEvent>)> {
    world.storage.enqueue(events.to_vec()).await.expect(WORKS);
    let rows = world.storage.intake(None, 1_000, &[]).await.expect(WORKS);
    assert_eq!(rows.len(), events.len());
    rows
}

/// The unit that moves intake rows of one organization into its events.
async fn moving(world: &World, rows: &[(IntakeRow, Arc<SealedEvent>)]) -> Unit {
    let events: Vec<_> = rows.iter().map(|(_, event)| Arc::clone(event)).collect();
    let mut publish = world.route(&events).await;
    for (routed, (row, _)) in publish.events.iter_mut().zip(rows) {
        routed.intake = Some(*row);
    }
    Unit::publish(publish)
}
