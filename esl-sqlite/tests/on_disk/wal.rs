//! The WAL does not grow for ever.

use std::fs;

use bytes::Bytes;
use esl_core::storage::Commit;
use esl_sqlite::SqliteStorage;

use crate::{World, event, unit};

const MEBIBYTE: usize = 1 << 20;

#[tokio::test]
async fn the_wal_starts_over_while_the_writer_never_pauses() {
    let world = World::new().await;
    let wal = world.folder.path().join("esl.db-wal");
    let body = Bytes::from(vec![b'x'; MEBIBYTE]);
    let mut longest = 0;
    for number in 1..=256 {
        let event = event(world.organization, number, body.clone());
        let units = vec![unit(world.organization, world.lane, event)];
        world.storage.commit(units).await.unwrap().remove(0).unwrap();
        longest = longest.max(fs::metadata(&wal).unwrap().len());
    }
    let longest = usize::try_from(longest).unwrap() / MEBIBYTE;
    // It starts over after 64 MiB if the two sides keep pace, and soon after twice that in any case.
    assert!(longest < 160, "{longest} MiB of 256");
}

#[tokio::test]
async fn a_clean_close_leaves_all_in_the_database_and_nothing_beside_it() {
    let world = World::new().await;
    world.publish(1).await;
    let beside = SqliteStorage::open(world.path()).unwrap();
    let World { folder, storage, .. } = world;
    let wal = folder.path().join("esl.db-wal");
    drop(storage);
    assert_eq!(fs::metadata(&wal).unwrap().len(), 0, "emptied beside another handle");
    drop(beside);
    assert!(!wal.exists());
}
