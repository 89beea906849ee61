//! Entities: groups of writes are decided and written as a whole, and come to what they come to one by one; and
//! what lists show of what is far down, or damaged.

use std::sync::Arc;

use esl_core::{
    Actor, EntityKey, KindName, MemoryStorage, Organization, OrganizationId, Timestamp,
    storage::{
        Commit, Entities, EntityAction, EntityQuery, EntityStep, EntityWrite, Expected, IndexEntry,
        IndexValue, PutEntity, RouteVersion, StorageErrorKind, StoredEntity, Tenancy, Unit,
    },
};

use crate::{
    metering::Draw,
    publishing::{CommitAll, Publisher, publish},
    world::World,
};

#[tokio::test]
async fn groups_that_write_come_to_the_same_as_in_memory() {
    let world = Publisher::new().await;
    for seed in 0..60 {
        let mut draw = Draw(seed);
        let model = MemoryStorage::new();
        let organizations = [world.organization().await, world.organization().await];
        for id in organizations {
            let organization = Organization::new(id, id.to_string(), Timestamp::EPOCH);
            model.create_organization(organization, &Actor::System).await.unwrap();
        }
        for group in 0..8 {
            let mut units = Vec::new();
            for _ in 0..1 + draw.below(6) {
                let organization = organizations[usize::from(draw.below(3) == 0)];
                units.push(unit(&mut draw, &model, organization).await);
            }
            let expected = model.commit(units.clone()).await.unwrap();
            let results = world.storage.commit_all(units.clone()).await;
            for (unit, (expected, result)) in units.iter().zip(expected.into_iter().zip(results)) {
                // If there are several reasons, any of them is given.
                let publish = unit.publish.as_ref();
                if publish.is_some_and(|publish| publish.route_version != RouteVersion(0)) {
                    assert!(expected.is_err() && result.is_err(), "seed {seed}, group {group}");
                } else {
                    assert_eq!(result, expected, "seed {seed}, group {group}: {units:?}");
                }
            }
            for organization in organizations {
                let (found, expected) =
                    (all(&world.storage, organization).await, all(&model, organization).await);
                assert_eq!(found, expected, "seed {seed}, group {group}: {units:?}");
            }
        }
    }
}

/// Steps that are often as whoever writes them may have read it, and now and then with an event.
async fn unit(draw: &mut Draw, model: &MemoryStorage, organization: OrganizationId) -> Unit {
    let mut steps = Vec::new();
    for _ in 0..draw.below(5) {
        let id = ["a", "b", "c"][usize::try_from(draw.below(3)).unwrap()];
        let key = key(["person", "pet"][usize::from(draw.below(3) == 0)], id);
        let known = model.entity(organization, &key).await.unwrap();
        let (revision, version) = known.as_ref().map_or((draw.below(3), draw.below(3)), |known| {
            (known.revision, known.references.version)
        });
        let expected = match draw.below(8) {
            0 => Expected::Absent,
            1 => Expected::Present,
            2 => Expected::Revision(draw.below(3)),
            _ if known.is_none() => Expected::Absent,
            3 | 4 => Expected::Present,
            5 => Expected::Unchanged(revision, version),
            _ => Expected::Revision(revision),
        };
        let action = match draw.below(8) {
            0 => EntityAction::Check,
            1 => EntityAction::Delete,
            2 => EntityAction::Refer([-2, 0, 1, 998][usize::try_from(draw.below(4)).unwrap()]),
            _ => EntityAction::Put(put(draw)),
        };
        steps.push(EntityStep { key, expected, action });
    }
    let mut unit = Unit::write(EntityWrite { organization, steps });
    if draw.below(2) == 0 {
        let version = RouteVersion(u64::from(draw.below(5) == 0));
        unit.publish = Some(publish(organization, version, 1, &[]));
    }
    unit
}

fn put(draw: &mut Draw) -> PutEntity {
    let (mut unindexed, mut indexed) = (Vec::new(), Vec::new());
    for entry in entries() {
        match draw.below(3) {
            0 => unindexed.push(entry),
            1 => indexed.push(entry),
            _ => {}
        }
    }
    let time = Timestamp::from_millis(i64::try_from(draw.below(1000)).unwrap());
    PutEntity {
        created_at: time,
        updated_at: time,
        due_at: (draw.below(3) == 0).then_some(time),
        document: draw.below(1000).to_string().into(),
        unindexed,
        indexed,
    }
}

fn entries() -> impl Iterator<Item = IndexEntry> {
    let pairs = [("name", "x"), ("name", "y"), ("color", "x"), ("color", "y")];
    pairs.into_iter().map(|(field, value)| entry(field, value))
}

/// All that can be read of an organization's entities.
async fn all(
    storage: &impl Entities,
    organization: OrganizationId,
) -> (Vec<Vec<StoredEntity>>, Vec<StoredEntity>) {
    let mut found = Vec::new();
    for kind in ["person", "pet"] {
        let having = entries().map(|entry| vec![entry]).chain([Vec::new()]);
        for having in having {
            let query = EntityQuery { having, ..query(kind) };
            found.push(storage.entities(organization, &query).await.unwrap().items);
        }
    }
    let due = storage.due_entities(10_000).await.unwrap().into_iter();
    let due = due.filter(|due| due.organization == organization);
    let mut due: Vec<_> = due.map(|due| due.entity).collect();
    due.sort_by_key(|entity| (entity.due_at, entity.key.clone()));
    (found, due)
}

#[tokio::test]
async fn entities_that_are_few_are_found_however_many_are_passed_over() {
    let world = World::new().await;
    world
        .write(
            "INSERT INTO esl.entities (organization, kind, id, revision, reference_count,
                     reference_version, created_at, updated_at, document)
                 SELECT 1, 'person', 'id_' || lpad(n::text, 6, '0'), 1, 0, 0, 0, 0, '{}'
                 FROM generate_series(1, 25000) n;
             INSERT INTO esl.entity_index (organization, kind, field, value, id)
                 SELECT 1, 'person', 'color'::bytea, 'red'::bytea, id FROM esl.entities
                 UNION ALL SELECT 1, 'person', 'size', 'small', id FROM esl.entities
                     WHERE id IN ('id_000002', 'id_024000', 'id_024001')",
        )
        .await;
    let having = vec![entry("color", "red"), entry("size", "small")];
    let of_few = EntityQuery { having, ..query("person") };
    let by_color = EntityQuery { by: Some("color".into()), ..of_few.clone() };
    for of_few in [of_few, by_color] {
        for is_descending in [false, true] {
            let mut query = EntityQuery { is_descending, ..of_few.clone() };
            let (mut found, mut calls) = (Vec::new(), 0);
            loop {
                let page = world.storage.entities(world.organization, &query).await.unwrap();
                found.extend(page.items.iter().map(|entity| entity.key.id.to_string()));
                calls += 1;
                let Some(next) = page.next else { break };
                query.after = Some(next);
            }
            if is_descending {
                found.reverse();
            }
            assert_eq!(found, ["id_000002", "id_024000", "id_024001"]);
            assert_eq!(calls, 3);
        }
    }
}

#[tokio::test]
async fn an_entity_that_is_damaged_is_left_out_and_is_an_error_by_its_id() {
    let world = World::new().await;
    let (storage, organization) = (&world.storage, world.organization);
    let steps = ["a", "b", "c", "d"].map(|id| {
        let action = EntityAction::Put(PutEntity {
            created_at: Timestamp::EPOCH,
            updated_at: Timestamp::EPOCH,
            due_at: Some(Timestamp::EPOCH),
            document: "{}".into(),
            unindexed: Vec::new(),
            indexed: vec![entry("name", "x")],
        });
        EntityStep { key: key("person", id), expected: Expected::Absent, action }
    });
    let write = EntityWrite { organization, steps: steps.into() };
    storage.commit_all(vec![Unit::write(write)]).await.remove(0).unwrap();
    world.write("UPDATE esl.entities SET revision = -1, due_at = -1 WHERE id = 'b'").await;
    world.write("UPDATE esl.entities SET reference_count = -1 WHERE id = 'c'").await;

    let damaged = storage.entity(organization, &key("person", "b")).await.unwrap_err();
    assert_eq!(damaged.kind(), StorageErrorKind::Corrupt);
    let ids = |entities: &[StoredEntity]| {
        entities.iter().map(|entity| entity.key.id.to_string()).collect::<Vec<_>>()
    };
    for having in [vec![], vec![entry("name", "x")]] {
        let mut query = EntityQuery { having, limit: 2, ..query("person") };
        let first = storage.entities(organization, &query).await.unwrap();
        assert_eq!(ids(&first.items), ["a"]);
        query.after = first.next;
        let second = storage.entities(organization, &query).await.unwrap();
        assert_eq!(ids(&second.items), ["d"]);
        assert_eq!(second.next, None);
    }
    let values = [IndexValue(b"x".as_slice().into())];
    let kind = query("person").kind;
    let found = storage.referring(organization, &kind, "name", &values).await.unwrap();
    assert_eq!(ids(&found[0]), ["a", "d"]);
    // The one that has been due for longest keeps none of the others back.
    for limit in 1..=3 {
        let due = storage.due_entities(limit).await.unwrap();
        assert_eq!(due.len(), limit.min(2));
    }
    world.write("UPDATE esl.entities SET id = 'no id' WHERE id = 'b'").await;
    assert_eq!(storage.due_entities(3).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_field_may_be_called_whatever_somebody_calls_it() {
    let world = Publisher::new().await;
    let organization = world.organization().await;
    let field: Arc<str> = "a\0b".into();
    let mut put = put(&mut Draw(1));
    put.indexed.push(IndexEntry { field: Arc::clone(&field), value: IndexValue([0xff].into()) });
    let (key, expected) = (key("person", "a"), Expected::Absent);
    let steps = vec![EntityStep { key, expected, action: EntityAction::Put(put) }];
    world.commit(Unit::write(EntityWrite { organization, steps })).await.unwrap();
    let by_field = EntityQuery { by: Some(field), ..query("person") };
    let page = world.storage.entities(organization, &by_field).await.unwrap();
    assert_eq!(page.items.len(), 1);
}

fn key(kind: &str, id: &str) -> EntityKey {
    EntityKey::new(kind.parse().unwrap(), id.parse().unwrap())
}

fn entry(field: &str, value: &str) -> IndexEntry {
    IndexEntry { field: field.into(), value: IndexValue(value.as_bytes().into()) }
}

fn query(kind: &str) -> EntityQuery {
    EntityQuery {
        kind: kind.parse::<KindName>().unwrap(),
        having: Vec::new(),
        by: None,
        is_descending: false,
        after: None,
        limit: 1000,
    }
}
