//! What was seen, in the file of an engine that runs.

use std::sync::Arc;

use esl_core::{
    Begun, EventKey, Seen,
    storage::{Lanes, Records, Tenure},
};
use esl_sqlite::{SqliteSeen, SqliteStorage};

use crate::{World, event_id, worker_id};

#[tokio::test]
async fn an_engine_and_what_was_seen_share_a_file() {
    let world = World::new().await;
    world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
    let seen = Arc::new(SqliteSeen::open(world.path()).unwrap());
    let organization = world.organization;
    let key = move |number| EventKey { organization, event: event_id(number) };
    let noted = tokio::spawn({
        let seen = Arc::clone(&seen);
        async move {
            for number in 1..=EVENTS {
                assert_eq!(seen.begin(key(number)).await.unwrap(), Begun::Now);
                seen.done(key(number)).await.unwrap();
            }
        }
    });
    for number in 1..=EVENTS {
        assert_eq!(world.publish(number).await.seq.get(), number);
    }
    noted.await.unwrap();

    drop(seen);
    let World { folder, storage, .. } = world;
    drop(storage);
    let file = folder.path().join("esl.db");
    let (storage, seen) = (SqliteStorage::open(&file).unwrap(), SqliteSeen::open(&file).unwrap());
    for number in 1..=EVENTS {
        assert!(storage.event(organization, event_id(number)).await.unwrap().is_some());
        assert_eq!(seen.begin(key(number)).await.unwrap(), Begun::Before);
    }
}

const EVENTS: u64 = 100;
