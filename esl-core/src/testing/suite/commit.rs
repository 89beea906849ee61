//! Units, seqs, routes and the ids of events.

use std::sync::Arc;

use super::{
    BY,
    world::{WORKS, World, first, numbers, settle, settlement, want},
};
use crate::{
    OrganizationId, SealedEvent, Seq, SubscriptionUpdate,
    storage::{
        Accepted, Committed, Idempotency, Outcome, Publish, Refused, RouteVersion, Routed, Settle,
        Unit,
    },
};

pub(super) async fn seqs_have_no_gaps(world: World) {
    let organization = world.organization().await;
    assert_eq!(world.publish_new(organization, 3).await, numbers(1..=3));
    let mut units = Vec::new();
    for count in [1, 4, 2] {
        units.push(Unit::publish(world.route(&world.events(organization, count)).await));
    }
    // One in the midst is refused, and one has nothing new.
    let mut stale = world.route(&world.events(organization, 1)).await;
    stale.route_version = RouteVersion(stale.route_version.0 + 1);
    units.insert(1, Unit::publish(stale));
    units.insert(2, units[0].clone());
    let results = world.storage.commit(units).await.expect(WORKS);
    assert_eq!(results[1], Err(Refused::Rerouted));
    let seqs = results.into_iter().flatten().flat_map(|committed| committed.events);
    let seqs: Vec<_> = seqs.map(|accepted| accepted.seq).collect();
    assert_eq!(seqs, numbers([4, 4, 5, 6, 7, 8, 9, 10]));
    assert_eq!(last_seq(&world, organization).await, Seq::new(10));
}

pub(super) async fn organizations_count_their_seqs_apart(world: World) {
    let (one, other) = (world.organization().await, world.organization().await);
    let mut units = Vec::new();
    for organization in [one, other, one, one, other] {
        units.push(Unit::publish(world.route(&world.events(organization, 1)).await));
    }
    let results = world.storage.commit(units).await.expect(WORKS);
    let committed = results.into_iter().map(|result| result.expect("in order").events[0].seq);
    assert_eq!(committed.collect::<Vec<_>>(), numbers([1, 1, 2, 3, 2]));
    assert_eq!(last_seq(&world, one).await, Seq::new(3));
    assert_eq!(last_seq(&world, other).await, Seq::new(2));
}

pub(super) async fn concurrent_commits_have_no_gaps(world: World) {
    const TASKS: usize = 32;
    const COMMITS: usize = 8;
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        let publish = world.route(&world.events(organization, COMMITS)).await;
        let storage = Arc::clone(&world.storage);
        tasks.spawn(async move {
            let mut seqs = Vec::new();
            for routed in publish.events.clone() {
                let publish = Publish { events: vec![routed], ..publish.clone() };
                let results = storage.commit(vec![Unit::publish(publish)]).await.expect(WORKS);
                seqs.push(results[0].as_ref().expect("in order").events[0].seq);
            }
            assert!(seqs.is_sorted(), "one task's commits follow each other");
            seqs
        });
    }
    let mut seqs = tasks.join_all().await.concat();
    seqs.sort_unstable();
    let all = numbers(1..=u64::try_from(TASKS * COMMITS).expect("a small number"));
    assert_eq!(seqs, all);
    let worker = world.worker_of(&[subscription.lane]).await;
    assert_eq!(world.due(&worker, subscription.lane).await, all);
}

pub(super) async fn a_refused_unit_leaves_nothing_behind_and_the_others_stand(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let taken = world.event_id();
    world.publish(&[world.event_with_id(organization, taken, "1")]).await;

    let new = world.event(organization);
    let conflicting = world.event_with_id(organization, taken, "2");
    world.storage.enqueue(vec![world.event(organization)]).await.expect(WORKS);
    let intake = world.storage.intake(None, 1, &[]).await.expect(WORKS).remove(0);
    let mut refused = world.route(&[Arc::clone(&new), Arc::clone(&intake.1), conflicting]).await;
    refused.events[1].intake = Some(intake.0);
    let idempotency = Idempotency { key: "key".into(), fingerprint: [7; 32] };
    refused.idempotency = Some(idempotency.clone());
    let before = world.route(&world.events(organization, 2)).await;
    let after = world.route(&world.events(organization, 1)).await;
    let units = [before, refused.clone(), after].map(Unit::publish);
    let results = world.storage.commit(units.to_vec()).await.expect(WORKS);

    assert_eq!(results[1], Err(Refused::EventConflict(taken)));
    assert_eq!(seqs_of(&results[0]), numbers([2, 3]));
    assert_eq!(seqs_of(&results[2]), numbers([4]));
    assert_eq!(world.storage.event(organization, new.id).await.expect(WORKS), None);
    assert_eq!(world.storage.intake(None, 10, &[]).await.expect(WORKS), [intake]);
    assert_eq!(world.deliveries(&subscription).await.len(), 4);
    // Its idempotency key is as free as if it had never come.
    refused.events.truncate(2);
    let committed = world.commit(Unit::publish(refused)).await;
    assert_eq!(seqs_of(&committed), numbers([5, 6]));
}

pub(super) async fn a_unit_routed_with_another_version_is_refused(world: World) {
    let organization = world.organization().await;
    let publish = world.route(&world.events(organization, 1)).await;
    world.subscription(organization).await;
    assert_eq!(world.commit(Unit::publish(publish.clone())).await, Err(Refused::Rerouted));
    let current = world.route(&[Arc::clone(&publish.events[0].event)]).await;
    let ahead = RouteVersion(current.route_version.0 + 1);
    let too_new = Publish { route_version: ahead, ..current.clone() };
    assert_eq!(world.commit(Unit::publish(too_new)).await, Err(Refused::Rerouted));
    let committed = world.commit(Unit::publish(current)).await.expect("routed again");
    assert_eq!((committed.events[0].seq.get(), committed.events[0].deliveries), (1, 1));
}

pub(super) async fn a_stale_route_is_refused_before_ids_are_looked_at(world: World) {
    let organization = world.organization().await;
    let id = world.event_id();
    let publish = world.route(&[world.event_with_id(organization, id, "1")]).await;
    world.commit(Unit::publish(publish.clone())).await.expect("in order");
    let mut conflicting = world.route(&[world.event_with_id(organization, id, "2")]).await;
    world.subscription(organization).await;
    assert_eq!(world.commit(Unit::publish(publish)).await, Err(Refused::Rerouted));
    assert_eq!(world.commit(Unit::publish(conflicting.clone())).await, Err(Refused::Rerouted));
    conflicting.route_version = version(&world, organization).await;
    let refused = world.commit(Unit::publish(conflicting)).await;
    assert_eq!(refused, Err(Refused::EventConflict(id)));
}

pub(super) async fn what_routing_must_know_raises_the_route_version_and_nothing_else(world: World) {
    let (organization, other) = (world.organization().await, world.organization().await);
    let mut last = version(&world, organization).await;
    let mut moved = async |expected: bool, what: &str| {
        let now = version(&world, organization).await;
        assert_eq!(now > last, expected, "{what}");
        assert!(now >= last, "{what}");
        last = now;
    };
    let update = |update: SubscriptionUpdate, id| {
        world.storage.update_subscription(organization, id, update, BY)
    };

    let subscription = world.subscription_to(organization, "person.*").await;
    moved(true, "a subscription is created").await;
    let id = subscription.id;
    let events = Some(vec!["pet.*".parse().expect("a pattern")]);
    update(SubscriptionUpdate { events: events.clone(), ..Default::default() }, id)
        .await
        .expect(WORKS);
    moved(true, "patterns change").await;
    update(SubscriptionUpdate { events, ..Default::default() }, id).await.expect(WORKS);
    moved(false, "the same patterns are set").await;
    for active in [false, true] {
        let pause = SubscriptionUpdate { active: Some(active), ..Default::default() };
        update(pause, id).await.expect(WORKS);
        moved(false, "a pause and its end").await;
    }
    let callback_url = Some(world.draft(organization, "*").callback_url);
    update(SubscriptionUpdate { callback_url, ..Default::default() }, id).await.expect(WORKS);
    moved(false, "another address").await;
    world.publish_new(organization, 1).await;
    moved(false, "a publish").await;
    let foreign = world.subscription(other).await;
    world.storage.delete_subscription(other, foreign.id, BY).await.expect(WORKS);
    moved(false, "another organization's subscriptions").await;
    world.storage.delete_subscription(organization, id, BY).await.expect(WORKS);
    moved(true, "a subscription is deleted").await;
}

pub(super) async fn a_repeated_event_is_the_first_one(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    world.publish_new(organization, 1).await;
    let event = world.event_with_id(organization, world.event_id(), "1");
    // Sealed later, it is still what its publisher said.
    world.clock.advance(super::world::SECOND);
    let again = world.event_with_id(organization, event.id, "1");
    assert_ne!(event.body, again.body);

    let [accepted] = world.publish(&[Arc::clone(&event)]).await.try_into().expect("one event");
    let first = Accepted {
        id: event.id,
        seq: Seq::new(2),
        deliveries: 1,
        repeated: false,
        fanned_out: false,
    };
    assert_eq!(accepted, first);
    // What it goes to is decided once.
    world.subscription(organization).await;
    let repeated = Accepted { repeated: true, ..first };
    assert_eq!(world.publish(&[Arc::clone(&again)]).await, [repeated]);
    let mixed = world.publish(&[world.event(organization), again]).await;
    assert_eq!(mixed[0].seq, Seq::new(3));
    assert_eq!(mixed[1], repeated);
    let stored = world.storage.event(organization, event.id).await.expect(WORKS);
    assert_eq!(stored.expect("it is stored").body, event.body);
    assert_eq!(world.deliveries(&subscription).await.len(), 3);
}

pub(super) async fn an_event_can_be_repeated_within_a_unit_and_within_a_group(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let event = world.event_with_id(organization, world.event_id(), "1");
    let new = world.event(organization);
    let unit = world.publish(&[Arc::clone(&event), Arc::clone(&event), new]).await;
    let seqs: Vec<_> = unit.iter().map(|it| (it.seq.get(), it.repeated)).collect();
    assert_eq!(seqs, [(1, false), (1, true), (2, false)]);
    assert_eq!(unit[1].deliveries, 1);

    let event = world.event_with_id(organization, world.event_id(), "2");
    let publish = Unit::publish(world.route(&[event]).await);
    let results = world.storage.commit(vec![publish.clone(), publish]).await.expect(WORKS);
    let of = |index: usize| results[index].as_ref().expect("in order").events[0];
    assert_eq!((of(0).seq.get(), of(0).repeated), (3, false));
    assert_eq!(of(1), Accepted { repeated: true, ..of(0) });
    assert_eq!(world.deliveries(&subscription).await.len(), 3);
}

pub(super) async fn an_event_id_with_other_content_is_refused(world: World) {
    let organization = world.organization().await;
    let with_digest = world.event_with_id(organization, world.event_id(), "1");
    let without = world.event(organization);
    world.publish(&[Arc::clone(&with_digest), Arc::clone(&without)]).await;
    for (id, other) in [
        (with_digest.id, world.event_with_id(organization, with_digest.id, "2")),
        (with_digest.id, Arc::new(SealedEvent { digest: None, ..(*with_digest).clone() })),
        (without.id, world.event_with_id(organization, without.id, "{}")),
    ] {
        assert_eq!(refusal(&world, &[other]).await, Refused::EventConflict(id));
    }

    // Within one unit, all of it is refused; within a group, the second unit is.
    let id = world.event_id();
    let [one, two] = ["1", "2"].map(|data| world.event_with_id(organization, id, data));
    let unit = [Arc::clone(&one), Arc::clone(&two)];
    assert_eq!(refusal(&world, &unit).await, Refused::EventConflict(id));
    assert_eq!(world.storage.event(organization, id).await.expect(WORKS), None);
    let units = vec![
        Unit::publish(world.route(&[Arc::clone(&one)]).await),
        Unit::publish(world.route(&[two]).await),
    ];
    let results = world.storage.commit(units).await.expect(WORKS);
    assert_eq!(seqs_of(&results[0]), numbers([3]));
    assert_eq!(results[1], Err(Refused::EventConflict(id)));
    let stored = world.storage.event(organization, id).await.expect(WORKS);
    assert_eq!(stored.expect("the first one is stored").body, one.body);
}

pub(super) async fn events_without_a_digest_are_the_same_under_one_id(world: World) {
    let organization = world.organization().await;
    let event = world.event(organization);
    assert_eq!(event.digest, None);
    world.publish(&[Arc::clone(&event)]).await;
    let [again] = world.publish(&[event]).await.try_into().expect("one event");
    assert_eq!((again.seq.get(), again.repeated), (1, true));
}

pub(super) async fn an_event_id_belongs_to_its_organization(world: World) {
    let (one, other) = (world.organization().await, world.organization().await);
    for event in [world.event_with_id(one, world.event_id(), "1"), world.event(one)] {
        world.publish(&[Arc::clone(&event)]).await;
        assert_eq!(world.storage.event(other, event.id).await.expect(WORKS), None);
        // Nobody is told that another organization has it, or kept from having it.
        let body = bytes::Bytes::from_static(b"{}");
        let same = Arc::new(SealedEvent { organization: other, body, ..(*event).clone() });
        let [accepted] = world.publish(&[same]).await.try_into().expect("one event");
        assert!(!accepted.repeated);
        for (organization, body) in [(one, &*event.body), (other, b"{}")] {
            let stored = world.storage.event(organization, event.id).await.expect(WORKS);
            assert_eq!(stored.expect("each has its own").body, body);
        }
    }
    assert_eq!(last_seq(&world, other).await, Seq::new(2));
}

pub(super) async fn an_unknown_organization_is_refused(world: World) {
    let organization = world.organization_id();
    assert_eq!(world.storage.routes(organization).await.expect(WORKS), None);
    let publish = routed_nowhere(organization, vec![world.event(organization)]);
    let refused = world.commit(Unit::publish(publish)).await;
    assert_eq!(refused, Err(Refused::UnknownOrganization(organization)));
}

pub(super) async fn nothing_to_do_is_done(world: World) {
    assert_eq!(world.storage.commit(Vec::new()).await.expect(WORKS), []);
    assert_eq!(world.commit(Unit::default()).await, Ok(Committed::default()));
}

pub(super) async fn a_unit_publishes_and_settles_or_does_neither(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let lane = subscription.lane;
    let worker = world.worker_of(&[lane]).await;
    world.publish_new(organization, 1).await;
    let settled = settlement(lane, Seq::new(1), Outcome::Delivered, world.now());
    let both = Unit {
        publish: Some(world.route(&world.events(organization, 1)).await),
        settle: Some(Settle { settlements: vec![settled], ..settle(&worker) }),
        ..Unit::default()
    };

    let mut rerouted = both.clone();
    rerouted.publish.as_mut().expect("set").route_version = RouteVersion(u64::MAX >> 1);
    assert_eq!(world.commit(rerouted).await, Err(Refused::Rerouted));
    let mut stale = both.clone();
    stale.settle.as_mut().expect("set").worker.epoch += 1;
    assert_eq!(world.commit(stale).await, Err(Refused::StaleEpoch));
    assert_eq!(world.due(&worker, lane).await, numbers([1]));

    assert_eq!(seqs_of(&world.commit(both).await), numbers([2]));
    assert_eq!(world.due(&worker, lane).await, numbers([2]));
}

pub(super) async fn an_event_goes_to_the_lanes_it_was_routed_to(world: World) {
    let organization = world.organization().await;
    let persons = world.subscription_to(organization, "person.*").await;
    let pets = world.subscription_to(organization, "pet.created").await;
    let all = world.subscription(organization).await;
    let accepted = world
        .publish(
            &["person.updated", "pet.created", "pet.deleted"]
                .map(|event_type| world.event_of(organization, event_type, "{}")),
        )
        .await;
    let deliveries: Vec<_> = accepted.iter().map(|accepted| accepted.deliveries).collect();
    assert_eq!(deliveries, [2, 2, 1]);
    let worker = world.worker_of(&[persons.lane, pets.lane, all.lane]).await;
    for (subscription, expected) in [(persons, vec![1]), (pets, vec![2]), (all, vec![1, 2, 3])] {
        let claimed = world.claim(&worker, want(subscription.lane)).await;
        assert_eq!(super::world::seqs(&claimed), numbers(expected));
    }
    let events = world.storage.events(organization, None, first(10)).await.expect(WORKS);
    assert_eq!(events.items.len(), 3);
}

pub(super) async fn a_dropped_commit_has_committed_all_or_nothing(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    for _ in 0..10 {
        let events = world.events(organization, 3);
        let unit = Unit::publish(world.route(&events).await);
        // Polled once, then dropped, wherever it stands.
        tokio::select! {
            biased;
            _ = world.storage.commit(vec![unit.clone()]) => {}
            () = std::future::ready(()) => {}
        }
        // Trying again with the same ids is safe.
        let committed = world.commit(unit).await.expect("in order").events;
        assert!(committed.iter().all(|accepted| accepted.repeated == committed[0].repeated));
    }
    let seqs: Vec<_> = world.deliveries(&subscription).await.iter().map(|it| it.seq).collect();
    assert_eq!(seqs, numbers(1..=30));
}

fn routed_nowhere(organization: OrganizationId, events: Vec<Arc<SealedEvent>>) -> Publish {
    let events = events.into_iter().map(|event| Routed::new(event, [].into()));
    Publish {
        organization,
        route_version: RouteVersion::default(),
        events: events.collect(),
        idempotency: None,
        metering: None,
    }
}

async fn refusal(world: &World, events: &[Arc<SealedEvent>]) -> Refused {
    let publish = world.route(events).await;
    world.commit(Unit::publish(publish)).await.expect_err("the unit is refused")
}

async fn version(world: &World, organization: OrganizationId) -> RouteVersion {
    let routes = world.storage.routes(organization).await.expect(WORKS);
    routes.expect("the organization exists").version
}

async fn last_seq(world: &World, organization: OrganizationId) -> Seq {
    let routes = world.storage.routes(organization).await.expect(WORKS);
    routes.expect("the organization exists").last_seq
}

fn seqs_of(result: &Result<Committed, Refused>) -> Vec<Seq> {
    let committed = result.as_ref().expect("the unit is in order");
    committed.events.iter().map(|accepted| accepted.seq).collect()
}
