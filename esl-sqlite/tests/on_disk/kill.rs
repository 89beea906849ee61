//! SIGKILL, for real: this program runs itself as a child, and kills it.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use esl_core::{
    EventId,
    storage::{Commit, Lanes, Page, Records, Tenure},
};
use esl_sqlite::SqliteStorage;

use crate::{World, event, unit, worker_id};

const CHILD: &str = "kill::child_that_publishes_until_it_is_killed";
const DATABASE: &str = "ESL_TEST_DATABASE";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_sigkill_is_there_and_the_place_is_free() {
    let world = World::new().await;
    let World { folder, storage, organization, .. } = world;
    drop(storage);
    let path = folder.path().join("esl.db");
    let mut first_number = 1;
    for kill_after in [1, 40, 300] {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([CHILD, "--exact", "--ignored", "--nocapture"])
            .env(DATABASE, &path)
            .env("ESL_TEST_FIRST", first_number.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged: Vec<EventId> = Vec::new();
        for line in lines {
            let line = line.unwrap();
            let Some(id) = line.split("acknowledged ").nth(1) else { continue };
            acknowledged.push(id.parse().unwrap());
            if acknowledged.len() == kill_after {
                child.kill().unwrap();
            }
        }
        assert!(!child.wait().unwrap().success());
        assert!(acknowledged.len() >= kill_after);

        let storage = SqliteStorage::open(&path).unwrap();
        for id in &acknowledged {
            assert!(storage.event(organization, *id).await.unwrap().is_some(), "{id}");
        }
        let page = Page { after: None, limit: 100_000 };
        let events = storage.events(organization, None, page).await.unwrap().items;
        let seqs: Vec<_> = events.iter().rev().map(|event| event.seq.get()).collect();
        assert_eq!(seqs, (1..=u64::try_from(events.len()).unwrap()).collect::<Vec<_>>());
        storage.enlist(worker_id(kill_after.try_into().unwrap()), Tenure::default()).await.unwrap();
        first_number += u64::try_from(events.len()).unwrap() + 1_000;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of the test above"]
async fn child_that_publishes_until_it_is_killed() {
    let Ok(path) = env::var(DATABASE) else { return };
    let first: u64 = env::var("ESL_TEST_FIRST").unwrap().parse().unwrap();
    let storage = SqliteStorage::open(path).unwrap();
    let organization = esl_core::storage::Tenancy::organizations(&storage).await.unwrap()[0].id;
    let routes = esl_core::storage::Subscriptions::routes(&storage, organization).await.unwrap();
    let lane = routes.unwrap().lanes[0].0;
    storage.enlist(worker_id(9), Tenure::default()).await.unwrap();
    for number in first.. {
        let event = event(organization, number, Bytes::from_static(b"{}"));
        let results = storage.commit(vec![unit(organization, lane, Arc::clone(&event))]).await;
        results.unwrap().remove(0).unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "acknowledged {}", event.id).unwrap();
        out.flush().unwrap();
    }
}
