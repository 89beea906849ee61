//! Deleting an organization while others are written to.

use esl_core::storage::{Commit, Removal};

use crate::World;

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
        world.storage.delete_organization(deleted),
        async { drop(turn) },
    );
    assert!(committed.unwrap()[0].is_ok());
    gone.unwrap();
    assert_eq!(world.publish(12).await.seq.get(), 3);
}
