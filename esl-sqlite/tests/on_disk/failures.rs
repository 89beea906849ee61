//! When the database says no.

use std::time::Duration;

use esl_core::{
    LaneId, Limit, Seq,
    storage::{
        Commit, Lanes, Publish, Records, RouteVersion, Routed, StorageErrorKind, Subscriptions,
        Unit, Want,
    },
};
use esl_sqlite::{SqliteStorage, rusqlite::Transaction, rusqlite::TransactionBehavior};

use crate::{World, subscription, text, worker_id};

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
async fn a_damaged_event_holds_up_its_own_lanes_alone() {
    let world = World::new().await;
    let other = subscription(world.organization, 2);
    let other = world.storage.create_subscription(other, Limit::Unlimited).await.unwrap().lane;
    let to = |lanes: &[LaneId], number| {
        Unit::publish(Publish {
            organization: world.organization,
            route_version: RouteVersion(2),
            events: vec![Routed::new(world.event(number, b"{}"), lanes.into())],
            idempotency: None,
            metering: None,
        })
    };
    let units = vec![to(&[world.lane], 1), to(&[world.lane, other], 2), to(&[other], 3)];
    world.storage.commit(units).await.unwrap();
    let worker = world.storage.enlist(worker_id(1)).await.unwrap();
    let lanes = [world.lane, other];
    world.storage.take(&worker, &lanes).await.unwrap();
    let claim = async || {
        let wants = lanes.map(|lane| Want {
            lane,
            room: 9,
            after: Some(Seq::ZERO),
            held: Vec::new(),
            in_order: false,
        });
        // Room for the bodies of three: what is damaged takes none of it away.
        let claimed = world.storage.claim(&worker, &wants, 6).await.unwrap();
        claimed.into_iter().map(|claimed| (claimed.lane, claimed.due.len())).collect::<Vec<_>>()
    };
    assert_eq!(claim().await, [(world.lane, 2), (other, 1)]);
    let connection = world.connection();
    for damage in [
        "UPDATE esl_events SET event_type = 'no type' WHERE key = 1 << 40 | 1",
        "DELETE FROM esl_events WHERE key = 1 << 40 | 1",
    ] {
        connection.execute(damage, []).unwrap();
        assert_eq!(claim().await, [(other, 2)]);
    }
    connection.execute("UPDATE esl_subscriptions SET send_order = '?' WHERE lane = 1", []).unwrap();
    let taken = world.storage.take(&worker, &lanes).await.unwrap();
    assert_eq!(taken.iter().map(|taken| taken.subscription.lane).collect::<Vec<_>>(), [other]);
}

#[tokio::test]
async fn a_damaged_row_is_an_error_and_not_a_panic() {
    let world = World::new().await;
    let accepted = world.publish(1).await;
    let worker = world.storage.enlist(worker_id(1)).await.unwrap();
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
