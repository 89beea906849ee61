//! Events in the embedder's own transaction.

use std::{sync::Arc, time::Duration};

use esl_core::{
    Actor, Clock, Esl, NewEvent, Organization, OrganizationId, Prepared, SystemClock,
    storage::{Change, Lanes, StorageError, StorageErrorKind, Tenancy, Tenure},
    testing::ManualClock,
};
use esl_sqlite::{SqliteStorage, publish_in, rusqlite::Connection};

use crate::{World, text, worker_id};

pub(crate) async fn prepare(world: &World) -> Prepared {
    let data = serde_json::json!({ "name": "John" });
    let event = NewEvent::new(world.organization, "person.created".parse().unwrap(), &data);
    Esl::publisher(world.storage.clone()).prepare(event.unwrap()).await.unwrap()
}

fn assert_refused<T: std::fmt::Debug>(result: Result<T, StorageError>, why: &str) {
    let error = result.expect_err(why);
    assert_eq!(error.kind(), StorageErrorKind::Unsupported);
    assert!(text(&error).contains(why), "{}", text(&error));
}

#[tokio::test]
async fn an_event_is_there_if_and_when_the_transaction_is_committed() {
    let world = World::new().await;
    let mut connection = world.connection();
    connection.execute("CREATE TABLE people (name TEXT)", []).unwrap();
    let (lost, kept) = (prepare(&world).await, prepare(&world).await);
    let event = Arc::clone(kept.event());

    let transaction = connection.transaction().unwrap();
    transaction.execute("INSERT INTO people VALUES ('Jane')", []).unwrap();
    let receipt = world.storage.publish_in(&transaction, lost).unwrap();
    transaction.rollback().unwrap();
    receipt.notify();
    assert_eq!(world.storage.intake(None, 9, &[]).await.unwrap(), []);

    let transaction = connection.transaction().unwrap();
    transaction.execute("INSERT INTO people VALUES ('John')", []).unwrap();
    let receipt = world.storage.publish_in(&transaction, kept).unwrap();
    assert_eq!(receipt.id(), event.id);
    assert_eq!(world.storage.intake(None, 9, &[]).await.unwrap(), []);
    transaction.commit().unwrap();
    let rows = world.storage.intake(None, 9, &[]).await.unwrap();
    assert_eq!(rows.into_iter().map(|(_, event)| event).collect::<Vec<_>>(), [event]);
}

#[tokio::test]
async fn a_savepoint_and_a_process_without_storage_publish_too() {
    let world = World::new().await;
    let mut connection = world.connection();
    let mut transaction = connection.transaction().unwrap();
    let savepoint = transaction.savepoint().unwrap();
    publish_in(&savepoint, prepare(&world).await).unwrap().notify();
    savepoint.commit().unwrap();
    let mut undone = transaction.savepoint().unwrap();
    let receipt = publish_in(&undone, prepare(&world).await).unwrap();
    assert!(format!("{receipt:?}").contains(&receipt.id().to_string()));
    undone.rollback().unwrap();
    drop(undone);
    transaction.commit().unwrap();
    assert_eq!(world.storage.intake(None, 9, &[]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_engine_hears_of_it() {
    let world = World::new().await;
    world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
    let prepared = prepare(&world).await;
    let turn = world.storage.turn().await.unwrap();
    let receipt = world.storage.publish_in(&world.connection(), prepared).unwrap();
    drop(turn);
    receipt.notify();
    while !world.storage.changed().await.contains(&Change::Intake) {}
}

#[tokio::test]
async fn a_connection_that_could_lose_a_commit_is_refused() {
    let world = World::new().await;
    let connection = world.connection();
    for (level, is_right) in [("OFF", false), ("NORMAL", false), ("FULL", true), ("EXTRA", true)] {
        connection.pragma_update(None, "synchronous", level).unwrap();
        let result = world.storage.publish_in(&connection, prepare(&world).await);
        if is_right {
            result.unwrap().notify();
        } else {
            assert_refused(result, &format!("synchronous is {level}"));
        }
    }
    assert_eq!(world.storage.intake(None, 9, &[]).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_connection_to_something_else_is_refused() {
    let world = World::new().await;
    let other = Connection::open(world.folder.path().join("other.db")).unwrap();
    assert_refused(world.storage.publish_in(&other, prepare(&world).await), "is not to");
    assert_refused(publish_in(&other, prepare(&world).await), "journal_mode is delete");
    other.pragma_update(None, "journal_mode", "WAL").unwrap();
    assert_refused(publish_in(&other, prepare(&world).await), "has no ESL tables");
    // Attached, it would not be part of the same commit.
    other.execute("ATTACH ?1 AS esl", [world.path().to_str().unwrap()]).unwrap();
    assert_refused(publish_in(&other, prepare(&world).await), "has no ESL tables");
    assert_eq!(world.storage.intake(None, 9, &[]).await.unwrap(), []);
}

#[tokio::test]
async fn what_was_prepared_too_long_ago_is_refused() {
    let world = World::new().await;
    let prepared = prepare(&world).await;
    let clock = ManualClock::new(SystemClock::new().utc());
    let storage = SqliteStorage::options().clock(Arc::new(clock.clone())).open(world.path());
    let storage = storage.unwrap();
    clock.advance(Prepared::AGE_MAX + Duration::from_secs(60));
    assert_refused(storage.publish_in(&world.connection(), prepared), "prepare anew");
}

#[tokio::test]
async fn an_event_of_an_organization_that_is_not_there_waits_for_it() {
    let mut world = World::new().await;
    world.organization = OrganizationId::from_ulid(crate::ulid(77));
    let prepared = prepare(&world).await;
    let event = Arc::clone(prepared.event());
    world.storage.publish_in(&world.connection(), prepared).unwrap().notify();
    assert_eq!(world.storage.intake(None, 9, &[]).await.unwrap(), []);
    let made = Organization::new(world.organization, "made", SystemClock::new().utc());
    world.storage.create_organization(made, &Actor::APPLICATION).await.unwrap();
    let rows = world.storage.intake(None, 9, &[]).await.unwrap();
    assert_eq!(rows.into_iter().map(|(_, event)| event).collect::<Vec<_>>(), [event]);
}
