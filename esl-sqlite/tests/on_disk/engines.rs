//! One engine at a time.

use esl_core::storage::{Lanes, StorageErrorKind, Tenure};
use esl_sqlite::SqliteStorage;

use crate::{World, text, worker_id};

#[tokio::test]
async fn a_second_engine_is_refused_by_the_name_of_the_file() {
    let world = World::new().await;
    world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
    let beside = SqliteStorage::open(world.path()).unwrap();
    let refused = beside.enlist(worker_id(2), Tenure::default()).await.unwrap_err();
    assert_eq!(refused.kind(), StorageErrorKind::Fenced);
    let expected = format!("another engine has {} open", world.storage.path().display());
    assert!(text(&refused).contains(&expected), "{}", text(&refused));
}

#[cfg(unix)]
#[tokio::test]
async fn another_name_of_the_file_leads_to_the_same_lock() {
    let world = World::new().await;
    world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
    let link = world.folder.path().join("link.db");
    std::os::unix::fs::symlink(world.path(), &link).unwrap();
    let beside = SqliteStorage::open(&link).unwrap();
    assert_eq!(
        beside.enlist(worker_id(2), Tenure::default()).await.unwrap_err().kind(),
        StorageErrorKind::Fenced
    );
}

#[tokio::test]
async fn a_second_engine_on_a_clone_is_refused_while_the_first_is_alive() {
    let world = World::new().await;
    let (first, _) = world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
    let clone = world.storage.clone();
    let refused = clone.enlist(worker_id(2), Tenure::default()).await.unwrap_err();
    assert_eq!(refused.kind(), StorageErrorKind::Fenced);
    world.storage.renew(&first).await.unwrap();
    world.storage.resign(&first).await.unwrap();
    clone.enlist(worker_id(2), Tenure::default()).await.unwrap();
}

#[tokio::test]
async fn dropping_the_storage_frees_the_place_at_once() {
    let world = World::new().await;
    let (first, _) = world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
    let World { folder, storage, .. } = world;
    drop(storage);
    let storage = SqliteStorage::open(folder.path().join("esl.db")).unwrap();
    let (second, _) = storage.enlist(worker_id(2), Tenure::default()).await.unwrap();
    assert!(second.epoch > first.epoch);
    let fenced = storage.renew(&first).await.unwrap_err();
    assert_eq!(fenced.kind(), StorageErrorKind::Fenced);
}
