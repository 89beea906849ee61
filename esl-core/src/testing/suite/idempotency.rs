//! Idempotency keys.

use std::time::Duration;

use super::world::{WORKS, World, numbers};
use crate::{
    OrganizationId, Seq,
    storage::{Accepted, Committed, Idempotency, Publish, Refused, RouteVersion, Unit},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MILLISECOND: Duration = Duration::from_millis(1);

pub(super) async fn a_repetition_under_a_key_gets_the_first_answer(world: World) {
    let organization = world.organization().await;
    world.subscription(organization).await;
    let first = world.commit(keyed(&world, organization, 2, "key", 1).await).await;
    let first = first.expect("in order").events;
    assert_eq!(first.iter().map(|it| it.seq).collect::<Vec<_>>(), numbers([1, 2]));
    assert!(first.iter().all(|it| !it.repeated && it.deliveries == 1));
    // Events that chose no id get a new one with every request, and the answer names the first.
    let again = world.commit(keyed(&world, organization, 2, "key", 1).await).await;
    assert_eq!(again, Ok(repeated(&first)));
    assert_eq!(world.publish_new(organization, 1).await, numbers([3]));
}

pub(super) async fn a_key_is_repeated_within_a_group(world: World) {
    let organization = world.organization().await;
    let mut units = Vec::new();
    for fingerprint in [1, 1, 2] {
        units.push(keyed(&world, organization, 1, "key", fingerprint).await);
    }
    let results = world.storage.commit(units).await.expect(WORKS);
    let first = results[0].as_ref().expect("in order");
    assert_eq!(results[1], Ok(repeated(&first.events)));
    assert_eq!(results[2], Err(Refused::IdempotencyConflict));
}

pub(super) async fn a_key_with_another_request_is_refused(world: World) {
    let organization = world.organization().await;
    let unit = keyed(&world, organization, 1, "key", 1).await;
    world.commit(unit).await.expect("in order");
    let other = keyed(&world, organization, 1, "key", 2).await;
    assert_eq!(world.commit(other).await, Err(Refused::IdempotencyConflict));
    let other_key = keyed(&world, organization, 1, "Key", 2).await;
    assert_eq!(world.commit(other_key).await.expect("another key").events[0].seq, Seq::new(2));
}

pub(super) async fn a_key_is_known_for_24_hours(world: World) {
    let organization = world.organization().await;
    let unit = keyed(&world, organization, 1, "key", 1).await;
    world.commit(unit).await.expect("in order");
    world.clock.advance(DAY - MILLISECOND);
    let other = keyed(&world, organization, 1, "key", 2).await;
    assert_eq!(world.commit(other.clone()).await, Err(Refused::IdempotencyConflict));
    // No sweep has been here: the age decides.
    world.clock.advance(MILLISECOND);
    let committed = world.commit(other.clone()).await.expect("the key is free again");
    assert_eq!((committed.events[0].seq.get(), committed.events[0].repeated), (2, false));
    world.clock.advance(DAY - MILLISECOND);
    assert_eq!(world.commit(other).await, Ok(repeated(&committed.events)));
}

pub(super) async fn a_key_is_decided_before_everything_else(world: World) {
    let organization = world.organization().await;
    let id = world.event_id();
    let publish = world.route(&[world.event_with_id(organization, id, "1")]).await;
    let unit = Unit::publish(with_key(publish, "key", 1));
    let first = world.commit(unit).await.expect("in order").events;
    let conflicting = world.route(&[world.event_with_id(organization, id, "2")]).await;
    let mut publish = with_key(conflicting, "key", 1);
    publish.route_version = RouteVersion(publish.route_version.0 + 1);
    let again = world.commit(Unit::publish(publish.clone())).await;
    assert_eq!(again, Ok(repeated(&first)));
    let other = Unit::publish(with_key(publish, "key", 2));
    assert_eq!(world.commit(other).await, Err(Refused::IdempotencyConflict));
}

pub(super) async fn keys_of_organizations_are_apart(world: World) {
    let (one, other) = (world.organization().await, world.organization().await);
    for (organization, fingerprint) in [(one, 1), (other, 2)] {
        let unit = keyed(&world, organization, 1, "key", fingerprint).await;
        let committed = world.commit(unit).await.expect("in order");
        assert!(!committed.events[0].repeated);
    }
}

pub(super) async fn a_key_also_names_events_that_were_repeated(world: World) {
    let organization = world.organization().await;
    let event = world.event(organization);
    world.publish(std::slice::from_ref(&event)).await;
    let publish = with_key(world.route(&[event, world.event(organization)]).await, "key", 1);
    let first = world.commit(Unit::publish(publish.clone())).await.expect("in order").events;
    assert_eq!(first.iter().map(|it| it.repeated).collect::<Vec<_>>(), [true, false]);
    assert_eq!(world.commit(Unit::publish(publish)).await, Ok(repeated(&first)));
}

async fn keyed(
    world: &World,
    organization: OrganizationId,
    events: usize,
    key: &str,
    fingerprint: u8,
) -> Unit {
    let publish = world.route(&world.events(organization, events)).await;
    Unit::publish(with_key(publish, key, fingerprint))
}

fn with_key(publish: Publish, key: &str, fingerprint: u8) -> Publish {
    let idempotency = Idempotency { key: key.to_owned(), fingerprint: [fingerprint; 32] };
    Publish { idempotency: Some(idempotency), ..publish }
}

fn repeated(first: &[Accepted]) -> Committed {
    let events = first.iter().map(|accepted| Accepted { repeated: true, ..*accepted });
    Committed { events: events.collect(), is_cancelled: false }
}
