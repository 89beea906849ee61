//! Entities, and the units that write them.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    BY,
    world::{SECOND, WORKS, World, hear},
};
use crate::{
    EntityKey, Hour, KindName, Limit, Organization, OrganizationId, SealedEvent, Seq, Timestamp,
    storage::{
        Change, EntityAction, EntityPage, EntityPosition, EntityQuery, EntityStep, EntityWrite,
        Expected, Idempotency, IndexEntry, IndexValue, Metering, PutEntity, REFERENCES_MAX,
        References, Refused, StoredEntity, Unit,
    },
};

pub(super) async fn an_entity_is_written_with_the_event_that_says_so(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let event = world.event(organization);

    let unit = saying(&world, &event, vec![create("a")]).await;
    let committed = world.commit(unit).await.expect("the unit is in order");

    assert_eq!(committed.events[0].seq, Seq::new(1));
    assert_eq!(world.deliveries(&subscription).await.len(), 1);
    let expected = StoredEntity {
        key: key("a"),
        revision: 1,
        references: References::default(),
        created_at: World::BEGINNING,
        updated_at: World::BEGINNING,
        due_at: None,
        document: Bytes::from_static(b"{}"),
    };
    assert_eq!(read(&world, organization, "a").await, Some(expected));
    // Without an event, too.
    write(&world, organization, vec![create("b")]).await.expect("the unit is in order");
    assert_eq!(revision(&world, organization, "b").await, Some(1));
    assert_eq!(world.publish_new(organization, 1).await, [Seq::new(2)]);
}

pub(super) async fn a_refused_unit_writes_neither_entities_nor_events(world: World) {
    let organization = world.organization().await;
    write(&world, organization, vec![create("a")]).await.expect("the unit is in order");

    // One of several is not as expected.
    let steps = vec![create("b"), step("a", Expected::Revision(2), put(b"{}")), create("c")];
    let unit = saying(&world, &world.event(organization), steps).await;
    assert_eq!(world.commit(unit).await, Err(Refused::Stale(key("a"))));
    // The routes are old.
    let mut unit = saying(&world, &world.event(organization), vec![create("b")]).await;
    world.subscription(organization).await;
    assert_eq!(world.commit(unit.clone()).await, Err(Refused::Rerouted));
    // The hour's events are used up.
    let publish = unit.publish.as_mut().expect("it publishes");
    publish.route_version = world.route(&[world.event(organization)]).await.route_version;
    let limit = Limit::AtMost(0);
    publish.metering = Some(Metering { limit, refuses: true, notices: Vec::new() });
    let refused = world.commit(unit).await.expect_err("there is no room");
    assert!(matches!(refused, Refused::OverLimit(usage) if usage.hour == Hour::of(world.now())));
    // The event is another one.
    let id = world.event_id();
    world.publish(&[world.event_with_id(organization, id, "1")]).await;
    let other = world.event_with_id(organization, id, "2");
    let unit = saying(&world, &other, vec![create("b")]).await;
    assert_eq!(world.commit(unit).await, Err(Refused::EventConflict(id)));

    assert_eq!(read(&world, organization, "b").await, None);
    assert_eq!(read(&world, organization, "c").await, None);
    assert_eq!(world.publish_new(organization, 1).await, [Seq::new(2)]);
    let nobody = world.organization_id();
    let refused = write(&world, nobody, vec![create("a")]).await;
    assert_eq!(refused, Err(Refused::UnknownOrganization(nobody)));
}

pub(super) async fn a_write_that_goes_by_what_is_not_so_any_more_is_refused(world: World) {
    let organization = world.organization().await;
    write(&world, organization, vec![create("a")]).await.expect("the unit is in order");
    write(&world, organization, vec![step("a", Expected::Present, EntityAction::Refer(1))])
        .await
        .expect("the unit is in order");

    for (id, expected, is_met) in [
        ("a", Expected::Absent, false),
        ("a", Expected::Present, true),
        ("a", Expected::Revision(0), false),
        ("a", Expected::Revision(1), true),
        ("a", Expected::Revision(2), false),
        ("a", Expected::Unchanged(1, 0), false),
        ("a", Expected::Unchanged(1, 1), true),
        ("a", Expected::Unchanged(2, 1), false),
        ("b", Expected::Absent, true),
        ("b", Expected::Present, false),
        ("b", Expected::Revision(0), false),
        ("b", Expected::Unchanged(0, 0), false),
    ] {
        let written =
            write(&world, organization, vec![step(id, expected, EntityAction::Check)]).await;
        let stale = Refused::Stale(key(id));
        assert_eq!(written.err(), (!is_met).then_some(stale), "{id} {expected:?}");
    }
    // A check changes nothing.
    let entity = read(&world, organization, "a").await.expect("it is there");
    assert_eq!((entity.revision, entity.references), (1, References { count: 1, version: 1 }));
}

pub(super) async fn units_of_a_group_see_what_those_before_have_written(world: World) {
    let organization = world.organization().await;
    let other = world.organization().await;
    let unit = |steps| Unit::write(EntityWrite { organization, steps });
    let units = vec![
        unit(vec![create("a")]),
        unit(vec![create("a")]),
        unit(vec![step("a", Expected::Revision(1), put(b"1"))]),
        unit(vec![step("a", Expected::Revision(1), put(b"2"))]),
        unit(vec![
            step("a", Expected::Revision(2), EntityAction::Delete),
            step("b", Expected::Absent, put(b"3")),
        ]),
        unit(vec![step("a", Expected::Absent, put(b"4"))]),
        unit(vec![step("b", Expected::Present, EntityAction::Refer(2))]),
        unit(vec![step("b", Expected::Unchanged(1, 0), put(b"5"))]),
        unit(vec![step("b", Expected::Unchanged(1, 1), put(b"6"))]),
        Unit::write(EntityWrite { organization: other, steps: vec![create("a")] }),
    ];
    let results = world.storage.commit(units).await.expect(WORKS);
    let stale: Vec<_> = results.into_iter().map(Result::err).collect();
    let is_stale = |id| Some(Refused::Stale(key(id)));
    assert_eq!(
        stale,
        [None, is_stale("a"), None, is_stale("a"), None, None, None, is_stale("b"), None, None]
    );
    let a = read(&world, organization, "a").await.expect("it is there");
    assert_eq!((a.revision, &*a.document), (1, &b"4"[..]));
    let b = read(&world, organization, "b").await.expect("it is there");
    assert_eq!((b.revision, &*b.document), (2, &b"6"[..]));
    assert_eq!(b.references, References { count: 2, version: 1 });
    assert_eq!(revision(&world, other, "a").await, Some(1));
}

pub(super) async fn of_writers_that_have_read_the_same_one_succeeds(world: World) {
    let organization = world.organization().await;
    write(&world, organization, vec![create("a")]).await.expect("the unit is in order");
    let handles = [Arc::clone(&world.storage), world.another_handle().await];
    for round in 1..=5 {
        let writers = (0..8).map(|number: usize| {
            let steps = vec![step("a", Expected::Revision(round), put(b"{}"))];
            let unit = Unit::write(EntityWrite { organization, steps });
            let storage = Arc::clone(&handles[number % 2]);
            tokio::spawn(async move { storage.commit(vec![unit]).await })
        });
        let writers: Vec<_> = writers.collect();
        let mut written = 0;
        for writer in writers {
            let results = writer.await.expect("it does not panic").expect(WORKS);
            written += usize::from(results[0].is_ok());
        }
        assert_eq!(written, 1);
    }
    assert_eq!(revision(&world, organization, "a").await, Some(6));
}

pub(super) async fn entities_belong_to_their_organization_and_kind(world: World) {
    let organization = world.organization().await;
    let other = world.organization().await;
    let mut mine = step("a", Expected::Absent, indexed(&[("name", b"x")]));
    write(&world, organization, vec![mine.clone()]).await.expect("the unit is in order");
    mine.key.kind = kind_of("pet");
    mine.action = put(b"\"pet\"");
    write(&world, organization, vec![mine]).await.expect("the unit is in order");

    assert_eq!(read(&world, other, "a").await, None);
    let having = vec![entry("name", b"x")];
    let query = EntityQuery { having, ..all() };
    assert_eq!(ids(&list(&world, organization, &query).await), ["a"]);
    assert!(list(&world, other, &query).await.items.is_empty());
    let values = [value(b"x")];
    let kind = kind_of("person");
    let refers = world.storage.referring(other, &kind, "name", &values).await.expect(WORKS);
    assert_eq!(refers, [Vec::new()]);
    let pets = EntityQuery { kind: kind_of("pet"), ..all() };
    let pets = list(&world, organization, &pets).await;
    assert_eq!(&*pets.items[0].document, b"\"pet\"");
    let nobody = world.organization_id();
    assert_eq!(read(&world, nobody, "a").await, None);
    assert!(list(&world, nobody, &all()).await.items.is_empty());
}

pub(super) async fn entities_are_listed_by_id_or_by_a_field_both_ways(world: World) {
    let organization = world.organization().await;
    for (id, name, color) in [
        ("c", &b"1"[..], &b"red"[..]),
        ("a", b"3", b"red"),
        ("B", b"2", b"blue"),
        ("d", b"2", b"red"),
        ("e", b"", b"red"),
        ("f", b"2\0", b"red"),
        ("g", b"\xff", b"blue"),
    ] {
        let action = indexed(&[("name", name), ("color", color)]);
        let created = write(&world, organization, vec![step(id, Expected::Absent, action)]).await;
        created.expect("the unit is in order");
    }
    // In no order of names it is there.
    write(&world, organization, vec![create("z")]).await.expect("the unit is in order");
    let by_name = EntityQuery { by: Some("name".into()), ..all() };
    let red = vec![entry("color", b"red")];
    let red_by_name = EntityQuery { having: red.clone(), ..by_name.clone() };
    let both = vec![entry("color", b"red"), entry("name", b"2")];
    for (query, expected) in [
        (all(), "B a c d e f g z"),
        (by_name, "e c B d f a g"),
        (EntityQuery { having: red, ..all() }, "a c d e f"),
        (red_by_name, "e c d f a"),
        (EntityQuery { having: both, ..all() }, "d"),
        (EntityQuery { having: vec![entry("color", b"re")], ..all() }, ""),
        (EntityQuery { by: Some("size".into()), ..all() }, ""),
    ] {
        let expected: Vec<_> = expected.split_whitespace().collect();
        let reversed: Vec<_> = expected.iter().rev().copied().collect();
        for (is_descending, expected) in [(false, expected), (true, reversed)] {
            let query = EntityQuery { is_descending, ..query.clone() };
            for limit in [1, 2, 3, 100] {
                let query = EntityQuery { limit, ..query.clone() };
                assert_eq!(walk(&world, organization, query.clone()).await, expected, "{query:?}");
            }
        }
    }
}

pub(super) async fn an_index_holds_what_was_written_last(world: World) {
    let organization = world.organization().await;
    let first = indexed(&[("name", b"1"), ("color", b"red")]);
    write(&world, organization, vec![step("a", Expected::Absent, first)])
        .await
        .expect("the unit is in order");
    let second = EntityAction::Put(PutEntity {
        unindexed: vec![entry("name", b"1")],
        indexed: vec![entry("name", b"2")],
        ..new()
    });
    write(&world, organization, vec![step("a", Expected::Revision(1), second)])
        .await
        .expect("the unit is in order");
    let found = async |field, value| {
        let query = EntityQuery { having: vec![entry(field, value)], ..all() };
        list(&world, organization, &query).await.items.len()
    };
    assert_eq!(found("name", b"1").await, 0);
    assert_eq!(found("name", b"2").await, 1);
    assert_eq!(found("color", b"red").await, 1);
    write(&world, organization, vec![step("a", Expected::Revision(2), EntityAction::Delete)])
        .await
        .expect("the unit is in order");
    assert_eq!(found("name", b"2").await, 0);
    // What comes under the same id has none of it.
    write(&world, organization, vec![create("a")]).await.expect("the unit is in order");
    assert_eq!(found("color", b"red").await, 0);
    assert_eq!(revision(&world, organization, "a").await, Some(1));
}

pub(super) async fn those_who_refer_to_one_are_counted_and_so_many_may(world: World) {
    let organization = world.organization().await;
    write(&world, organization, vec![create("a")]).await.expect("the unit is in order");
    let max = i32::try_from(REFERENCES_MAX).expect("it is small");
    let refer = |by| vec![step("a", Expected::Present, EntityAction::Refer(by))];

    write(&world, organization, refer(max - 1)).await.expect("the unit is in order");
    let both = [refer(1), refer(1)].concat();
    let refused = write(&world, organization, both).await;
    assert_eq!(refused, Err(Refused::TooManyReferences(key("a"))));
    write(&world, organization, refer(1)).await.expect("the unit is in order");
    write(&world, organization, refer(0)).await.expect("one of them is written");
    let refused = write(&world, organization, refer(1)).await;
    assert_eq!(refused, Err(Refused::TooManyReferences(key("a"))));
    write(&world, organization, refer(-2)).await.expect("the unit is in order");

    let entity = read(&world, organization, "a").await.expect("it is there");
    let references = References { count: REFERENCES_MAX - 2, version: 4 };
    assert_eq!((entity.revision, entity.references), (1, references));
    // Writing it leaves them as they are; a reference to what goes with it counts for nothing.
    write(&world, organization, vec![step("a", Expected::Revision(1), put(b"{}"))])
        .await
        .expect("the unit is in order");
    let entity = read(&world, organization, "a").await.expect("it is there");
    assert_eq!((entity.revision, entity.references), (2, references));
    let gone = vec![
        step("a", Expected::Unchanged(2, 4), EntityAction::Delete),
        step("a", Expected::Present, EntityAction::Refer(-1)),
    ];
    write(&world, organization, gone).await.expect("the unit is in order");
    assert_eq!(read(&world, organization, "a").await, None);
}

pub(super) async fn those_who_refer_to_one_are_found(world: World) {
    let organization = world.organization().await;
    for (id, owner) in [("c", b"1"), ("a", b"1"), ("b", b"2")] {
        let action = indexed(&[("owner", owner)]);
        let created = write(&world, organization, vec![step(id, Expected::Absent, action)]).await;
        created.expect("the unit is in order");
    }
    let kind = kind_of("person");
    let values = [value(b"2"), value(b"3"), value(b"1")];
    let found = world.storage.referring(organization, &kind, "owner", &values).await;
    let found: Vec<Vec<_>> = found
        .expect(WORKS)
        .iter()
        .map(|found| found.iter().map(|entity| entity.key.id.to_string()).collect())
        .collect();
    assert_eq!(found, [vec!["b"], vec![], vec!["a", "c"]]);
    let none = world.storage.referring(organization, &kind, "owner", &[]).await.expect(WORKS);
    assert!(none.is_empty());
}

pub(super) async fn what_is_due_is_found_by_storages_time(world: World) {
    let organization = world.organization().await;
    let other = world.organization().await;
    assert_eq!(world.storage.next_entity_due().await.expect(WORKS), None);
    let beginning = World::BEGINNING;
    for (owner, id, due_in) in
        [(organization, "a", 3), (other, "b", 1), (organization, "c", 2), (other, "d", 60)]
    {
        let action = due(Some(beginning + due_in * SECOND));
        let created = write(&world, owner, vec![step(id, Expected::Absent, action)]).await;
        created.expect("the unit is in order");
    }
    write(&world, organization, vec![create("e")]).await.expect("the unit is in order");
    let next = async || world.storage.next_entity_due().await.expect(WORKS);
    let found = async |limit| {
        let found = world.storage.due_entities(limit).await.expect(WORKS);
        let found = found.into_iter();
        let pair =
            |due: crate::storage::DueEntity| (due.organization, due.entity.key.id.to_string());
        found.map(pair).collect::<Vec<_>>()
    };
    assert_eq!(next().await, Some(beginning + SECOND));
    assert!(found(10).await.is_empty());

    world.clock.advance(3 * SECOND);
    let [a, b, c] = ["a", "b", "c"].map(ToOwned::to_owned);
    let all = [(other, b), (organization, c), (organization, a)];
    assert_eq!(found(10).await, all);
    assert_eq!(found(2).await, all[..2]);
    // Until it is written with another time, or none, or goes.
    let later = due(Some(beginning + 10 * SECOND));
    for (owner, id, action) in [
        (other, "b", later),
        (organization, "c", due(None)),
        (organization, "a", EntityAction::Delete),
    ] {
        let written = write(&world, owner, vec![step(id, Expected::Revision(1), action)]).await;
        written.expect("the unit is in order");
    }
    assert!(found(10).await.is_empty());
    assert_eq!(next().await, Some(beginning + 10 * SECOND));
    world.clock.advance(100 * SECOND);
    assert_eq!(found(10).await, [(other, "b".to_owned()), (other, "d".to_owned())]);
}

pub(super) async fn others_hear_of_what_is_to_be_done_at_a_time(world: World) {
    let organization = world.organization().await;
    let other = world.another_handle().await;
    let action = due(Some(World::BEGINNING + 60 * SECOND));
    write(&world, organization, vec![step("a", Expected::Absent, action)])
        .await
        .expect("the unit is in order");
    hear(&*other, Change::Schedule).await;
}

pub(super) async fn entities_survive_sigkill(mut world: World) {
    let organization = world.organization().await;
    let event = world.event(organization);
    let first = step("a", Expected::Absent, indexed(&[("name", b"1")]));
    let unit = saying(&world, &event, vec![first, create("b")]).await;
    world.commit(unit).await.expect("the unit is in order");
    let second = vec![
        step("a", Expected::Revision(1), due(Some(World::BEGINNING + SECOND))),
        step("b", Expected::Present, EntityAction::Refer(3)),
    ];
    write(&world, organization, second).await.expect("the unit is in order");

    world = world.kill_and_reopen().await;

    assert_eq!(revision(&world, organization, "a").await, Some(2));
    let b = read(&world, organization, "b").await.expect("it is there");
    assert_eq!(b.references, References { count: 3, version: 1 });
    let query = EntityQuery { having: vec![entry("name", b"1")], ..all() };
    assert_eq!(ids(&list(&world, organization, &query).await), ["a"]);
    let next = world.storage.next_entity_due().await.expect(WORKS);
    assert_eq!(next, Some(World::BEGINNING + SECOND));
}

pub(super) async fn a_deleted_organization_has_no_entities(world: World) {
    let id = world.organization().await;
    let kept = world.organization().await;
    for organization in [id, kept] {
        let action = due(Some(World::BEGINNING));
        let steps = vec![step("a", Expected::Absent, action), create("b")];
        write(&world, organization, steps).await.expect("the unit is in order");
    }
    world.storage.delete_organization(id, BY).await.expect(WORKS);

    assert_eq!(read(&world, id, "a").await, None);
    assert!(list(&world, id, &all()).await.items.is_empty());
    let due = world.storage.due_entities(10).await.expect(WORKS);
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].organization, kept);
    let refused = write(&world, id, vec![create("c")]).await;
    assert_eq!(refused, Err(Refused::UnknownOrganization(id)));
    // One that is made anew under its id begins with none.
    let again = Organization::new(id, "again".to_owned(), world.now());
    world.storage.create_organization(again, BY).await.expect(WORKS);
    assert!(list(&world, id, &all()).await.items.is_empty());
    write(&world, id, vec![create("a")]).await.expect("the unit is in order");
    let (worker, _) = world
        .storage
        .enlist(world.worker_id(), crate::storage::Tenure::default())
        .await
        .expect(WORKS);
    while world.storage.remove_old(&worker, None, 1).await.expect(WORKS).more {}
    assert_eq!(ids(&list(&world, id, &all()).await), ["a"]);
    assert_eq!(ids(&list(&world, kept, &all()).await), ["a", "b"]);
}

pub(super) async fn a_repetition_under_a_key_writes_no_entities(world: World) {
    let organization = world.organization().await;
    let idempotency = Idempotency { key: "once".into(), fingerprint: [7; 32] };
    for (id, is_repeated) in [("a", false), ("b", true)] {
        let mut unit = saying(&world, &world.event(organization), vec![create(id)]).await;
        unit.publish.as_mut().expect("it publishes").idempotency = Some(idempotency.clone());
        let committed = world.commit(unit).await.expect("the unit is in order");
        assert_eq!(committed.events[0].repeated, is_repeated);
    }
    assert_eq!(revision(&world, organization, "a").await, Some(1));
    assert_eq!(read(&world, organization, "b").await, None);
}

pub(super) async fn documents_and_indexes_hold_any_bytes(world: World) {
    let organization = world.organization().await;
    let document = Bytes::from(format!("\"{}\\u0000😀\"", "x".repeat(3 * 1024 * 1024)));
    let longest: Vec<u8> = (0..=u8::MAX).cycle().take(IndexValue::BYTES_MAX).collect();
    let field: Arc<str> = "f".repeat(IndexEntry::FIELD_BYTES_MAX).into();
    let first = IndexEntry { field: Arc::clone(&field), value: IndexValue(longest.into()) };
    let far = Timestamp::from_millis(-1);
    let action = EntityAction::Put(PutEntity {
        created_at: far,
        updated_at: Timestamp::MAX,
        due_at: Some(Timestamp::MAX),
        document: document.clone(),
        unindexed: Vec::new(),
        indexed: vec![first.clone(), entry("empty", b"")],
    });
    let id = "i".repeat(crate::EntityId::LENGTH_MAX);
    write(&world, organization, vec![step(&id, Expected::Absent, action)])
        .await
        .expect("the unit is in order");
    let query = EntityQuery { having: vec![first, entry("empty", b"")], by: Some(field), ..all() };
    let page = list(&world, organization, &query).await;
    let [found] = &*page.items else { panic!("{}", page.items.len()) };
    assert!(found.document == document);
    assert_eq!((found.created_at, found.due_at), (far, Some(Timestamp::MAX)));
    assert_eq!(found.updated_at, Timestamp::MAX);
}

pub(super) async fn many_entities_are_written_in_one_unit(world: World) {
    let organization = world.organization().await;
    let names: Vec<String> = (0..1000).map(|number| format!("n{number:04}")).collect();
    let created = names.iter().map(|id| step(id, Expected::Absent, indexed(&[("of", b"a")])));
    write(&world, organization, created.collect()).await.expect("the unit is in order");
    let kind = kind_of("person");
    let refers = world.storage.referring(organization, &kind, "of", &[value(b"a")]).await;
    assert_eq!(refers.expect(WORKS)[0].len(), 1000);
    let query = EntityQuery { having: vec![entry("of", b"a")], limit: 64, ..all() };
    assert_eq!(walk(&world, organization, query).await, names);
    let gone = names.iter().map(|id| step(id, Expected::Revision(1), EntityAction::Delete));
    write(&world, organization, gone.collect()).await.expect("the unit is in order");
    assert!(list(&world, organization, &all()).await.items.is_empty());
}

// What the cases are made of

fn kind_of(name: &str) -> KindName {
    name.parse().expect("a kind")
}

/// A person.
fn key(id: &str) -> EntityKey {
    EntityKey::new(kind_of("person"), id.parse().expect("an id"))
}

fn value(bytes: &[u8]) -> IndexValue {
    IndexValue(bytes.into())
}

fn entry(field: &str, bytes: &[u8]) -> IndexEntry {
    IndexEntry { field: field.into(), value: value(bytes) }
}

fn new() -> PutEntity {
    PutEntity {
        created_at: World::BEGINNING,
        updated_at: World::BEGINNING,
        due_at: None,
        document: Bytes::from_static(b"{}"),
        unindexed: Vec::new(),
        indexed: Vec::new(),
    }
}

fn put(document: &'static [u8]) -> EntityAction {
    EntityAction::Put(PutEntity { document: Bytes::from_static(document), ..new() })
}

fn indexed(entries: &[(&str, &[u8])]) -> EntityAction {
    let indexed = entries.iter().map(|(field, value)| entry(field, value)).collect();
    EntityAction::Put(PutEntity { indexed, ..new() })
}

fn due(due_at: Option<Timestamp>) -> EntityAction {
    EntityAction::Put(PutEntity { due_at, ..new() })
}

fn step(id: &str, expected: Expected, action: EntityAction) -> EntityStep {
    EntityStep { key: key(id), expected, action }
}

fn create(id: &str) -> EntityStep {
    step(id, Expected::Absent, put(b"{}"))
}

async fn write(
    world: &World,
    organization: OrganizationId,
    steps: Vec<EntityStep>,
) -> Result<(), Refused> {
    world.commit(Unit::write(EntityWrite { organization, steps })).await.map(|_| ())
}

/// A unit that publishes and writes.
async fn saying(world: &World, event: &Arc<SealedEvent>, steps: Vec<EntityStep>) -> Unit {
    let publish = world.route(std::slice::from_ref(event)).await;
    let organization = event.organization;
    let mut unit = Unit::publish(publish);
    unit.entities = Some(EntityWrite { organization, steps }.into());
    unit
}

async fn read(world: &World, organization: OrganizationId, id: &str) -> Option<StoredEntity> {
    world.storage.entity(organization, &key(id)).await.expect(WORKS)
}

async fn revision(world: &World, organization: OrganizationId, id: &str) -> Option<u64> {
    read(world, organization, id).await.map(|entity| entity.revision)
}

/// All persons.
fn all() -> EntityQuery {
    EntityQuery {
        kind: kind_of("person"),
        having: Vec::new(),
        by: None,
        is_descending: false,
        after: None,
        limit: 1000,
    }
}

async fn list(world: &World, organization: OrganizationId, query: &EntityQuery) -> EntityPage {
    world.storage.entities(organization, query).await.expect(WORKS)
}

fn ids(page: &EntityPage) -> Vec<String> {
    page.items.iter().map(|entity| entity.key.id.to_string()).collect()
}

/// The ids of all pages.
async fn walk(world: &World, organization: OrganizationId, mut query: EntityQuery) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let page = list(world, organization, &query).await;
        assert!(page.items.len() <= query.limit);
        found.extend(ids(&page));
        let next: Option<EntityPosition> = page.next;
        let Some(next) = next else { return found };
        query.after = Some(next);
    }
}
