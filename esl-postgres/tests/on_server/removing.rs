//! What is let go of while others write.

use std::time::Duration;

use esl_core::{
    Actor, EventId, WorkerId,
    storage::{Lanes, Removal, Removed, Tenure},
};

use crate::world::{World, by_hand};

#[tokio::test]
async fn what_a_settlement_under_way_puts_off_is_erased_all_the_same() {
    let world = World::new().await;
    world.events(1).await;
    world.owe().await;
    let mut hand = by_hand().await;
    let settlement = hand.transaction().await.unwrap();
    let put_off = "
        DELETE FROM esl.open;
        INSERT INTO esl.open (lane, due_at, seq, attempts) VALUES (1, 1000000000000000, 1, 1);
        INSERT INTO esl.attempts
            (lane, seq, number, started_at, detail, probe, charged, total_ns)
        VALUES (1, 1, 1, 1, 'Jane', false, true, 1)";
    settlement.batch_execute(&world.sql(put_off)).await.unwrap();
    let erasing = tokio::spawn({
        let (storage, organization) = (world.storage.clone(), world.organization);
        let event = EventId::from_bytes(1_u128.to_be_bytes());
        async move { storage.erase_event(organization, event).await }
    });
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity
         WHERE wait_event_type = 'Lock' AND query LIKE '%\"{}\".erase_1%'",
        world.schema
    );
    while world.numbers(&waits).await == [0] {
        assert!(!erasing.is_finished(), "it does not wait for the settlement");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    settlement.commit().await.unwrap();
    erasing.await.unwrap().unwrap();
    assert_eq!(world.numbers("SELECT count(*) FROM esl.open").await, [0]);
    assert_eq!(world.numbers("SELECT attempts FROM esl.closed WHERE state = 3").await, [1]);
    assert_eq!(world.numbers("SELECT count(detail) FROM esl.attempts").await, [0]);
}

#[tokio::test]
async fn of_two_who_remove_each_row_is_removed_by_one() {
    let world = World::new().await;
    world.events(2_000).await;
    let lane = world.lane.get();
    world
        .write(&format!(
            "INSERT INTO esl.closed (lane, seq, state, attempts, finished_at)
             SELECT {lane}, seq, 0, 1, 1 FROM esl.events"
        ))
        .await;
    let remove = async |number| {
        let storage = world.beside().await;
        let worker =
            storage.enlist(WorkerId::from_bytes([number; 16]), Tenure::default()).await.unwrap().0;
        let mut all = Removed::default();
        loop {
            let age = Some(Duration::from_secs(60));
            let removed = storage.remove_old(&worker, age, 100).await.unwrap();
            all.events += removed.events;
            all.deliveries += removed.deliveries;
            if !removed.more {
                return all;
            }
        }
    };
    let (one, other) = tokio::join!(remove(2), remove(3));
    assert_eq!(one.events + other.events, 2_000);
    assert_eq!(one.deliveries + other.deliveries, 2_000);
    assert_eq!(world.numbers("SELECT count(*) FROM esl.events").await, [0]);
    assert_eq!(world.numbers("SELECT removed_to FROM esl.organizations").await, [2_000]);
}

#[tokio::test]
async fn an_organization_that_is_deleted_twice_at_once_is_deleted_once() {
    let world = World::new().await;
    let delete = || world.storage.delete_organization(world.organization, &Actor::APPLICATION);
    let (one, other) = tokio::join!(delete(), delete());
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
}

#[tokio::test]
async fn what_was_erased_is_vacuumed_at_the_end_of_a_round() {
    let world = World::new().await;
    world.events(1).await;
    let event = EventId::from_bytes(1_u128.to_be_bytes());
    world.storage.erase_event(world.organization, event).await.unwrap();
    let worker = world.worker().await;
    let removed = world.storage.remove_old(&worker, None, 100).await.unwrap();
    assert_eq!(removed, Removed::default());
    let left = "SELECT erasures_begun - erasures_cleaned FROM esl.settings";
    assert_eq!(world.numbers(left).await, [0]);
}
