//! When the database says no.

use std::time::Duration;

use esl_core::storage::{Commit, Lanes, Records, StorageErrorKind, Tenure};
use esl_sqlite::{SqliteStorage, rusqlite::Transaction, rusqlite::TransactionBehavior};

use crate::{World, text, worker_id};

#[tokio::test]
async fn a_database_that_others_hold_is_busy_and_works_again_afterwards() {
    let world = World::new().await;
    let impatient = SqliteStorage::options().busy_timeout(Duration::ZERO).open(world.path());
    let impatient = impatient.unwrap();
    let mut holder = world.connection();
    let held = Transaction::new(&mut holder, TransactionBehavior::Immediate).unwrap();
    let unit = world.unit(world.event(1, b"{}"));
    let error = impatient.commit(vec![unit.clone()]).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Busy);
    assert!(error.is_transient());
    // Reading waits for nobody.
    assert_eq!(impatient.event(world.organization, world.event(1, b"").id).await.unwrap(), None);
    held.commit().unwrap();
    let results = impatient.commit(vec![unit]).await.unwrap();
    assert_eq!(results[0].as_ref().unwrap().events[0].seq.get(), 1);
}

#[tokio::test]
async fn an_error_fails_the_whole_group_and_leaves_nothing() {
    let world = World::new().await;
    world.publish(1).await;
    // A row where the third event belongs, which ESL has not put there.
    let connection = world.connection();
    let misplace = "INSERT INTO esl_events (key, id, event_type, timestamp, deliveries, body)
        SELECT key + 2, randomblob(16), event_type, timestamp, 0, body FROM esl_events";
    connection.execute(misplace, []).unwrap();
    let units: Vec<_> = [2, 3].map(|number| world.unit(world.event(number, b"{}"))).to_vec();
    let error = world.storage.commit(units.clone()).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Corrupt, "{}", text(&error));
    let first = world.event(2, b"").id;
    assert_eq!(world.storage.event(world.organization, first).await.unwrap(), None);

    connection.execute("DELETE FROM esl_events WHERE deliveries = 0", []).unwrap();
    let results = world.storage.commit(units).await.unwrap();
    let seqs = results.iter().map(|result| result.as_ref().unwrap().events[0].seq.get());
    assert_eq!(seqs.collect::<Vec<_>>(), [2, 3]);
}

#[tokio::test]
async fn a_damaged_row_is_an_error_and_not_a_panic() {
    let world = World::new().await;
    let accepted = world.publish(1).await;
    let (worker, _) = world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
    let damage = "UPDATE esl_events SET event_type = 'no type'";
    world.connection().execute(damage, []).unwrap();
    let error = world.storage.event(world.organization, accepted.id).await.unwrap_err();
    assert_eq!(error.kind(), StorageErrorKind::Corrupt);
    // The threads that met it are there still.
    for _ in 0..8 {
        world.storage.event(world.organization, accepted.id).await.unwrap_err();
    }
    world.storage.check().await.unwrap();
    world.storage.resign(&worker).await.unwrap();
}
