//! Which blobs the stored events name.

use std::{sync::Arc, time::Duration};

use super::{
    BY,
    world::{WORKS, World},
};
use crate::{
    BlobKey, DataRef, EventId, InstallationId, NewEvent, OrganizationId, PutId, SealedEvent,
    seal_with_reference,
    storage::{Refused, Removed, Storage, Tenure, Unit},
};

const AGE: Duration = Duration::from_secs(100);

pub(super) async fn the_blobs_of_removed_events_are_named(world: World) {
    let organization = world.organization().await;
    let key = key(&world, organization);
    world.publish(&[large(&world, key, "[1]")]).await;
    world.publish_new(organization, 1).await;
    let stored = world.storage.event(organization, key.event).await.expect(WORKS);
    let stored = stored.expect("it is there");
    assert_eq!(stored.changes.as_deref(), Some(&br#"{"a":1}"#[..]));
    assert!(!String::from_utf8_lossy(&stored.body).contains("changes"));
    assert_eq!(BlobKey::named_by(&stored.body), Some(key));
    assert_eq!(remove(&world, Some(AGE)).await.blobs, [key]);
    assert_eq!(unnamed(&world, &[key]).await, [key]);
}

pub(super) async fn the_blobs_of_a_deleted_organization_are_named(world: World) {
    let (organization, other) = (world.organization().await, world.organization().await);
    let (one, kept) = (key(&world, organization), key(&world, other));
    world.publish(&[large(&world, one, "[1]")]).await;
    world.publish(&[large(&world, kept, "[1]")]).await;
    world.storage.delete_organization(organization, BY).await.expect(WORKS);
    assert_eq!(unnamed(&world, &[one, kept]).await, [one]);
    assert_eq!(remove(&world, None).await.blobs, [one]);
    assert_eq!(remove(&world, None).await.blobs, []);
}

pub(super) async fn only_the_put_that_was_committed_is_named(world: World) {
    let organization = world.organization().await;
    let first = key(&world, organization);
    let [repeated, refused, free] = [2, 3, 4].map(|bits| again(first, bits));
    assert_eq!(unnamed(&world, &[first]).await, [first]);
    world.publish(&[large(&world, first, "[1]")]).await;
    assert!(world.publish(&[large(&world, repeated, "[1]")]).await[0].repeated);
    let conflict = world.route(&[large(&world, refused, "[2]")]).await;
    let conflict = world.commit(Unit::publish(conflict)).await;
    assert_eq!(conflict, Err(Refused::EventConflict(first.event)));
    let stranger = BlobKey { organization: world.organization().await, ..first };
    let all = [first, repeated, refused, stranger];
    assert_eq!(unnamed(&world, &all).await, all[1..]);
    assert_eq!(unnamed(&world, &[]).await, []);

    // Its id is free again, and whoever gets it names a blob of its own.
    assert_eq!(remove(&world, Some(AGE)).await.blobs, [first]);
    world.publish(&[large(&world, free, "[1]")]).await;
    assert_eq!(unnamed(&world, &[first, free]).await, [first]);
    let world = world.kill_and_reopen().await;
    assert_eq!(unnamed(&world, &[first, free]).await, [first]);
}

pub(super) async fn an_event_in_the_intake_names_its_blob(world: World) {
    let organization = world.organization().await;
    let (first, other) = (key(&world, organization), key(&world, organization));
    let twice = again(first, 2);
    let events = [first, twice, other].map(|key| large(&world, key, "[1]"));
    world.storage.enqueue(events.to_vec()).await.expect(WORKS);
    let never = again(first, 3);
    assert_eq!(unnamed(&world, &[first, twice, never, other]).await, [never]);
    let erased = world.storage.erase_event(organization, first.event).await.expect(WORKS);
    assert_eq!((erased.before, erased.blobs), (false, vec![first, twice]));
    assert_eq!(unnamed(&world, &[first, twice, other]).await, [first, twice]);
}

pub(super) async fn an_erased_event_names_its_blob_once_and_never_another(world: World) {
    let organization = world.organization().await;
    let first = key(&world, organization);
    let (waiting, late) = (again(first, 2), again(first, 3));
    world.publish(&[large(&world, first, "[1]")]).await;
    world.storage.enqueue(vec![large(&world, waiting, "[1]")]).await.expect(WORKS);
    let erase = async || world.storage.erase_event(organization, first.event).await.expect(WORKS);
    let mut erased = erase().await;
    erased.blobs.sort_unstable();
    assert_eq!((erased.before, erased.blobs), (false, vec![first, waiting]));
    let erased = erase().await;
    assert_eq!((erased.before, erased.blobs), (true, vec![]));
    // The same event again is known, and nothing of it comes back.
    assert!(world.publish(&[large(&world, late, "[1]")]).await[0].repeated);
    assert_eq!(unnamed(&world, &[first, waiting, late]).await, [first, waiting, late]);
    assert_eq!(remove(&world, Some(AGE)).await.blobs, []);
}

pub(super) async fn an_installation_is_the_same_for_ever(world: World) {
    let [first, second] = [1, 2].map(|number| InstallationId::from_bytes([number; 16]));
    let ask = async |storage: &dyn Storage, fresh| storage.installation(fresh).await.expect(WORKS);
    assert_eq!(ask(&*world.storage, first).await, first);
    assert_eq!(ask(&*world.storage, second).await, first);
    assert_eq!(ask(&*world.another_handle().await, second).await, first);
    let world = world.kill_and_reopen().await;
    assert_eq!(ask(&*world.storage, second).await, first);
}

fn key(world: &World, organization: OrganizationId) -> BlobKey {
    let event: EventId = world.event_id();
    BlobKey { organization, event, put: PutId::from_bits(1) }
}

fn again(first: BlobKey, bits: u128) -> BlobKey {
    BlobKey { put: PutId::from_bits(bits), ..first }
}

/// An event under an id of its own, whose data is in that blob.
fn large(world: &World, key: BlobKey, data: &str) -> Arc<SealedEvent> {
    let raw = |text| serde_json::from_str(text).expect("JSON");
    let event_type = "person.updated".parse().expect("a type");
    let new = NewEvent::from_raw(key.organization, event_type, raw(data));
    let new = new.with_changes(raw(r#"{"a":1}"#)).with_id(key.event);
    let reference = DataRef::to_blob(data.as_bytes(), key.put.to_string(), world.now());
    Arc::new(seal_with_reference(&new, key.event, world.now(), &reference, false))
}

async fn unnamed(world: &World, keys: &[BlobKey]) -> Vec<BlobKey> {
    world.storage.unnamed_blobs(keys.to_vec()).await.expect(WORKS)
}

async fn remove(world: &World, age: Option<Duration>) -> Removed {
    world.clock.advance(AGE);
    let (worker, _) =
        world.storage.enlist(world.worker_id(), Tenure::default()).await.expect(WORKS);
    let removed = world.storage.remove_old(&worker, age, 100).await.expect(WORKS);
    world.storage.resign(&worker).await.expect(WORKS);
    removed
}
