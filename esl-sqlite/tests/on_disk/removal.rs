//! Removing what is old when the database says no in between.

use std::time::Duration;

use esl_core::{
    Actor,
    storage::{
        Commit, Lanes, Outcome, Records, Removal, Settle, Settlement, Subscriptions, Tenure, Unit,
        Worker,
    },
};

use crate::{Tiers, World, subscription, worker_id};

/// [`NOON`](crate::NOON) is long ago.
const AGE: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test]
async fn a_slice_that_was_rolled_back_is_done_again() {
    let world = World::new().await;
    let (worker, _) = world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
    let mut settlements = Vec::new();
    for number in 1..=4 {
        let accepted = world.publish(number).await;
        settlements.push(Settlement {
            lane: world.lane,
            seq: accepted.seq,
            outcome: Outcome::Delivered,
            attempts: 1,
            charged: 1,
            at: crate::NOON,
            status: Some(200),
            error: None,
            log: Vec::new(),
        });
    }
    let settle = Settle { worker, settlements, lanes: Vec::new(), switch_offs: Vec::new() };
    world.storage.commit(vec![Unit::settle(settle)]).await.unwrap();
    // A row where the next event belongs, which ESL has not put there.
    let connection = world.connection();
    let misplace = "INSERT INTO esl_events (key, id, event_type, timestamp, deliveries, body)
        SELECT key + 1, randomblob(16), event_type, timestamp, 0, body
        FROM esl_events ORDER BY key DESC LIMIT 1";
    connection.execute(misplace, []).unwrap();

    // Both wait in line when the writer comes back, so they share a transaction, which fails.
    let turn = world.storage.turn().await.unwrap();
    let (removed, failed, ()) = tokio::join!(
        world.storage.remove_old(&worker, Some(AGE), 8),
        world.storage.commit(vec![world.unit(world.event(5, b"{}"))]),
        async { drop(turn) },
    );
    removed.unwrap_err();
    failed.unwrap_err();

    connection.execute("DELETE FROM esl_events WHERE deliveries = 0", []).unwrap();
    let mut deliveries = 0;
    loop {
        let removed = world.storage.remove_old(&worker, Some(AGE), 8).await.unwrap();
        deliveries += removed.deliveries;
        if !removed.more {
            break;
        }
    }
    assert_eq!(deliveries, 4);
    let id = world.event(1, b"").id;
    assert_eq!(world.storage.event(world.organization, id).await.unwrap(), None);
}

#[tokio::test]
async fn a_deleted_subscription_that_has_nothing_left_is_not_visited_again() {
    const DELETED: u64 = 20;
    let world = World::new().await;
    world.publish(1).await;
    for number in 100..100 + DELETED {
        let made = subscription(world.organization, number);
        let made = world
            .storage
            .create_subscription(made, &Tiers::default(), &Actor::APPLICATION)
            .await
            .unwrap();
        world
            .storage
            .delete_subscription(world.organization, made.id, &Actor::APPLICATION)
            .await
            .unwrap();
    }
    let (worker, _) = world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
    world.storage.sweep(&worker, 100).await.unwrap();
    assert!(visits(&world, &worker).await > DELETED);
    assert!(visits(&world, &worker).await < DELETED);
}

/// How many of the smallest slices a round is.
async fn visits(world: &World, worker: &Worker) -> u64 {
    let mut visits = 1;
    while world.storage.remove_old(worker, Some(AGE), 1).await.unwrap().more {
        visits += 1;
    }
    visits
}
