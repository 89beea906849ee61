//! Entities, where a file alone can promise it: what is left of them, and what is damaged.

use std::sync::Arc;

use bytes::Bytes;
use esl_core::{
    Actor, EntityKey, InstallationId, KindName, OrganizationId, Timestamp,
    storage::{
        Commit, ENTRIES_MAX, Entities, EntityAction, EntityPage, EntityQuery, EntityStep,
        EntityWrite, Expected, IndexEntry, IndexValue, Lanes, PutEntity, Refused, Removal,
        StorageErrorKind, Tenure, Unit,
        transfer::{Destination, Table, TransferId, Value},
    },
    testing::ManualClock,
};
use esl_sqlite::{Export, SqliteStorage};

use crate::{NOON, World, worker_id};

#[tokio::test]
async fn nothing_is_left_of_the_entities_of_a_deleted_organization() {
    let world = World::new().await;
    let kept = world.beside(2).await;
    for organization in [world.organization, kept] {
        let steps = (0..50).map(|number| create(&format!("e{number}"), &[("color", b"red")]));
        world.write(organization, steps.collect()).await.unwrap();
    }
    let (worker, _) = world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
    world.storage.delete_organization(world.organization, &Actor::APPLICATION).await.unwrap();
    let mut slices = 0;
    while world.storage.remove_old(&worker, None, 10).await.unwrap().more {
        slices += 1;
    }
    assert!(slices >= 10, "{slices}");
    assert_eq!(world.rows_of_entities(), (50, 50));
    assert_eq!(world.list(kept, &reds()).await.items.len(), 50);
}

#[tokio::test]
async fn what_waits_to_be_removed_is_due_for_nobody() {
    let mut world = World::new().await;
    let clock = Arc::new(ManualClock::new(NOON));
    world.storage = SqliteStorage::options().clock(clock).open(world.path()).unwrap();
    let kept = world.beside(2).await;
    let due = |at| {
        let put = PutEntity { due_at: Some(at), ..put(&[]) };
        vec![step("a", Expected::Absent, EntityAction::Put(put))]
    };
    world.write(world.organization, due(Timestamp::EPOCH)).await.unwrap();
    world.write(kept, due(NOON)).await.unwrap();
    world.storage.delete_organization(world.organization, &Actor::APPLICATION).await.unwrap();
    assert_eq!(world.rows_of_entities().0, 2);
    assert_eq!(world.storage.next_entity_due().await.unwrap(), Some(NOON));
    let due = world.storage.due_entities(1).await.unwrap();
    assert_eq!(due[0].organization, kept);
}

#[tokio::test]
async fn an_entity_takes_its_index_along_whatever_was_made_of_it() {
    let world = World::new().await;
    let revise = |indexed: &[(&str, &[u8])], unindexed: &[(&str, &[u8])]| {
        let unindexed = unindexed.iter().map(|(field, value)| entry(field, value)).collect();
        EntityAction::Put(PutEntity { unindexed, ..put(indexed) })
    };
    let any = Expected::Present;
    for (actions, expected) in [
        (vec![revise(&[("a", b"1"), ("b", b"")], &[])], 2),
        (vec![revise(&[("a", b"2")], &[("a", b"1")]), EntityAction::Refer(1)], 2),
        (vec![revise(&[("c", b"3")], &[]), revise(&[], &[("c", b"3")])], 2),
        // What is said to come and is there, or to go and is not.
        (vec![revise(&[("b", b"")], &[("a", b"1")])], 2),
        (vec![EntityAction::Delete, revise(&[("d", b"4")], &[("a", b"2")])], 1),
        (vec![EntityAction::Delete], 0),
    ] {
        let is_there = world.rows_of_entities().0 > 0;
        let expectation = if is_there { any } else { Expected::Absent };
        let steps = actions.into_iter().map(|action| step("a", expectation, action)).collect();
        world.write(world.organization, steps).await.unwrap();
        assert_eq!(world.rows_of_entities().1, expected);
    }
    assert_eq!(world.rows_of_entities(), (0, 0));
}

#[tokio::test]
async fn a_list_looks_at_a_bounded_number_and_says_where_to_go_on() {
    let world = World::new().await;
    let last = ENTRIES_MAX + 1;
    for first in (0..=last).step_by(1000) {
        let steps = (first..(first + 1000).min(last + 1)).map(|number| {
            let color: &[u8] = if number == last { b"red" } else { b"blue" };
            create(&format!("e{number:05}"), &[("color", color), ("all", b"")])
        });
        world.write(world.organization, steps.collect()).await.unwrap();
    }
    let having = vec![entry("all", b""), entry("color", b"red")];
    for by in [None, Some("color".into()), Some("all".into())] {
        let query = EntityQuery { having: having.clone(), by, ..all() };
        let page = world.list(world.organization, &query).await;
        assert!(page.items.is_empty());
        let after = page.next;
        assert_eq!(after.as_ref().unwrap().id.as_str(), format!("e{:05}", ENTRIES_MAX - 1));
        let page = world.list(world.organization, &EntityQuery { after, ..query }).await;
        assert_eq!((ids(&page), page.next), (vec![format!("e{last:05}")], None));
    }
}

#[tokio::test]
async fn a_damaged_entity_is_left_out_of_lists_and_is_an_error_by_its_id() {
    let world = World::new().await;
    let clock = Arc::new(ManualClock::new(NOON));
    let storage = SqliteStorage::options().clock(clock).open(world.path()).unwrap();
    let steps = ["a", "b", "c", "d"].map(|id| {
        let put = PutEntity { due_at: Some(NOON), ..put(&[("color", b"red")]) };
        step(id, Expected::Absent, EntityAction::Put(put))
    });
    world.write(world.organization, steps.into()).await.unwrap();
    let connection = world.connection();
    for damage in [
        "revision = -1",
        "reference_count = 'two'",
        "reference_version = x'00'",
        "created_at = 'noon'",
        "updated_at = 'noon'",
        "due_at = 'noon'",
        "document = 'text'",
    ] {
        // The one that is due first, if its time can be read.
        let keep = "CREATE TEMP TABLE kept AS SELECT * FROM esl_entities WHERE id = 'b'";
        connection.execute(keep, []).unwrap();
        let update = format!("UPDATE esl_entities SET due_at = 0, {damage} WHERE id = 'b'");
        connection.execute(&update.replace("due_at = 0, due_at", "due_at"), []).unwrap();
        for query in [all(), reds(), EntityQuery { by: Some("color".into()), ..all() }] {
            // Pages of two: what is left out leaves no gap in them, and ends none.
            let mut query = EntityQuery { limit: 2, ..query };
            let page = world.list(world.organization, &query).await;
            assert_eq!(ids(&page), ["a", "c"], "{damage}");
            query.after = page.next;
            let page = world.list(world.organization, &query).await;
            assert_eq!((ids(&page), page.next), (vec!["d".to_owned()], None), "{damage}");
        }
        let error = world.storage.entity(world.organization, &key("b")).await.unwrap_err();
        assert_eq!(error.kind(), StorageErrorKind::Corrupt, "{damage}");
        let values = [IndexValue((*b"red").into())];
        let kind = all().kind;
        let referring = storage.referring(world.organization, &kind, "color", &values).await;
        assert_eq!(referring.unwrap()[0].len(), 3, "{damage}");
        // Nobody looks for it again and again.
        assert_eq!(storage.next_entity_due().await.unwrap(), Some(NOON), "{damage}");
        assert_eq!(storage.due_entities(9).await.unwrap().len(), 3, "{damage}");
        let mend = "INSERT OR REPLACE INTO esl_entities SELECT * FROM kept; DROP TABLE kept";
        connection.execute_batch(mend).unwrap();
        assert_eq!(world.list(world.organization, &all()).await.items.len(), 4, "{damage}");
    }
    let damage = "UPDATE esl_entity_index SET value = 'text' WHERE id = 'a';
                  UPDATE esl_entity_index SET id = 'no id' WHERE id = 'c';";
    connection.execute_batch(damage).unwrap();
    assert_eq!(ids(&world.list(world.organization, &reds()).await), ["b", "d"]);
    let by_color = EntityQuery { by: Some("color".into()), ..all() };
    assert_eq!(ids(&world.list(world.organization, &by_color).await), ["b", "d"]);
}

#[tokio::test]
async fn a_damaged_entity_fails_those_who_write_it_and_nobody_else() {
    let world = World::new().await;
    let steps = vec![create("a", &[("color", b"red")]), create("b", &[])];
    world.write(world.organization, steps).await.unwrap();
    let connection = world.connection();
    for damage in ["revision = 'one'", "reference_count = -1", "indexed = x'07'", "indexed = ''"] {
        let keep = "CREATE TEMP TABLE kept AS SELECT * FROM esl_entities WHERE id = 'a'";
        connection.execute(keep, []).unwrap();
        let update = format!("UPDATE esl_entities SET {damage} WHERE id = 'a'");
        connection.execute(&update, []).unwrap();
        let unit = |id| {
            let steps = vec![step(id, Expected::Present, EntityAction::Refer(1))];
            Unit::write(EntityWrite { organization: world.organization, steps })
        };
        let results = world.storage.commit(vec![unit("b"), unit("a"), unit("b")]).await.unwrap();
        let results: Vec<_> = results.into_iter().map(Result::err).collect();
        assert_eq!(results, [None, Some(Refused::Stale(key("a"))), None], "{damage}");
        let mend = "INSERT OR REPLACE INTO esl_entities SELECT * FROM kept; DROP TABLE kept";
        connection.execute_batch(mend).unwrap();
    }
    // Entries of a row that somebody has removed by hand are nobody's, and in nobody's way.
    connection.execute("DELETE FROM esl_entities WHERE id = 'a'", []).unwrap();
    assert!(world.list(world.organization, &reds()).await.items.is_empty());
    world.write(world.organization, vec![create("a", &[("color", b"red")])]).await.unwrap();
    assert_eq!(ids(&world.list(world.organization, &reds()).await), ["a"]);
}

#[tokio::test]
async fn entities_and_their_index_are_moved_in_the_order_of_their_keys() {
    let world = World::new().await;
    let other = world.beside(2).await;
    world.write(other, vec![create("a", &[])]).await.unwrap();
    let steps = vec![create("b", &[("f", b"2"), ("f", b"1")]), create("B", &[("e", b"")])];
    world.write(world.organization, steps).await.unwrap();
    let mut export = Export::open(world.path(), SqliteStorage::options()).await.unwrap();
    let to = Destination { identity: [8; 16], name: "postgres://db/app".into() };
    let fresh = InstallationId::from_bytes([9; 16]);
    export.close(TransferId::from_bytes([7; 16]), to, fresh).await.unwrap();

    let entities = Table::of("entities").unwrap();
    let text = |text: &str| Value::Bytes(text.into());
    let row = |organization, id| {
        let noon = || Value::Number(NOON.as_millis());
        let number = Value::Number;
        vec![
            number(organization),
            text("person"),
            text(id),
            number(1),
            number(0),
            number(0),
            noon(),
            noon(),
            Value::Null,
            text("{}"),
        ]
    };
    let expected = [row(1, "B"), row(1, "b"), row(2, "a")];
    assert_eq!(export.read(entities, None).await.unwrap(), expected);
    let after = expected[1][..entities.key].to_vec();
    assert_eq!(export.read(entities, Some(after)).await.unwrap(), expected[2..]);

    let index = Table::of("entity_index").unwrap();
    let row = |field, value, id| {
        vec![Value::Number(1), text("person"), text(field), text(value), text(id)]
    };
    let expected = [row("e", "", "B"), row("f", "1", "b"), row("f", "2", "b")];
    assert_eq!(export.read(index, None).await.unwrap(), expected);
    let after = Some(expected[1].clone());
    assert_eq!(export.read(index, after).await.unwrap(), expected[2..]);
}

impl World {
    async fn write(
        &self,
        organization: OrganizationId,
        steps: Vec<EntityStep>,
    ) -> Result<(), Refused> {
        let unit = Unit::write(EntityWrite { organization, steps });
        self.storage.commit(vec![unit]).await.unwrap().remove(0).map(|_| ())
    }

    async fn list(&self, organization: OrganizationId, query: &EntityQuery) -> EntityPage {
        self.storage.entities(organization, query).await.unwrap()
    }

    /// How many entities there are, and entries of their index.
    fn rows_of_entities(&self) -> (i64, i64) {
        let connection = self.connection();
        let count = |table| {
            let sql = format!("SELECT count(*) FROM {table}");
            connection.query_row(&sql, [], |row| row.get(0)).unwrap()
        };
        (count("esl_entities"), count("esl_entity_index"))
    }
}

fn key(id: &str) -> EntityKey {
    EntityKey::new(all().kind, id.parse().unwrap())
}

fn entry(field: &str, value: &[u8]) -> IndexEntry {
    IndexEntry { field: field.into(), value: IndexValue(value.into()) }
}

fn put(indexed: &[(&str, &[u8])]) -> PutEntity {
    PutEntity {
        created_at: NOON,
        updated_at: NOON,
        due_at: None,
        document: Bytes::from_static(b"{}"),
        unindexed: Vec::new(),
        indexed: indexed.iter().map(|(field, value)| entry(field, value)).collect(),
    }
}

fn step(id: &str, expected: Expected, action: EntityAction) -> EntityStep {
    EntityStep { key: key(id), expected, action }
}

fn create(id: &str, indexed: &[(&str, &[u8])]) -> EntityStep {
    step(id, Expected::Absent, EntityAction::Put(put(indexed)))
}

fn all() -> EntityQuery {
    let kind: KindName = "person".parse().unwrap();
    let (having, by, after) = (Vec::new(), None, None);
    EntityQuery { kind, having, by, is_descending: false, after, limit: 1000 }
}

fn reds() -> EntityQuery {
    EntityQuery { having: vec![entry("color", b"red")], ..all() }
}

fn ids(page: &EntityPage) -> Vec<String> {
    page.items.iter().map(|entity| entity.key.id.to_string()).collect()
}
