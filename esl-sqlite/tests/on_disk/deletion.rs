//! Deleting an organization while others are written to.

use esl_core::{
    Actor,
    storage::{Commit, LaneState, Lanes, Removal, Settle, Tenure, Unit},
};

use crate::{World, worker_id};

#[tokio::test]
async fn a_deletion_in_the_same_transaction_takes_nothing_from_another_organization() {
    let world = World::new().await;
    let deleted = world.beside(2).await;
    world.publish(10).await;
    let units = vec![world.unit(world.event(11, b"{}"))];
    // Both wait in line when the writer comes back, so they share its next transaction.
    let turn = world.storage.turn().await.unwrap();
    let (committed, gone, ()) = tokio::join!(
        world.storage.commit(units),
        world.storage.delete_organization(deleted, &Actor::APPLICATION),
        async { drop(turn) },
    );
    assert!(committed.unwrap()[0].is_ok());
    gone.unwrap();
    assert_eq!(world.publish(12).await.seq.get(), 3);
}

#[tokio::test]
async fn what_is_settled_late_leaves_nothing_of_a_deleted_organization() {
    let world = World::new().await;
    world.publish(10).await;
    let (worker, _) = world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
    world.storage.take(&worker, &[world.lane]).await.unwrap();
    // With the rows of the lane that are still there, and without them.
    for are_removed in [false, true] {
        if are_removed {
            while world.storage.remove_old(&worker, None, 100).await.unwrap().more {}
        } else {
            world
                .storage
                .delete_organization(world.organization, &Actor::APPLICATION)
                .await
                .unwrap();
        }
        let lanes = vec![(world.lane, LaneState { failures: 1, ..LaneState::default() })];
        let settle = Settle { worker, settlements: Vec::new(), lanes, switch_offs: Vec::new() };
        world.storage.commit(vec![Unit::settle(settle)]).await.unwrap().remove(0).unwrap();
        let rows: i64 = world
            .connection()
            .query_row("SELECT count(*) FROM esl_lanes", [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows, 0, "removed: {are_removed}");
    }
}
