//! Getting on with others who write to the same file.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use esl_core::storage::{Commit, Page, Records};
use esl_sqlite::{
    SqliteStorage,
    rusqlite::{Transaction, TransactionBehavior},
};
use tokio::task::JoinSet;

use crate::{World, event, ulid, unit};

const TASKS: u64 = 8;
const COMMITS: usize = 50;

/// Publishes as fast as it can until it is told to stop, and then says how many events it were.
struct Publishers {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<usize>,
}

impl Publishers {
    fn start(world: &World) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let (storage, stop) = (world.storage.clone(), Arc::clone(&stop));
            let (organization, lane) = (world.organization, world.lane);
            tasks.spawn(async move {
                let mut published = 0;
                while !stop.load(Ordering::Relaxed) {
                    let number = (task + 1) << 32 | u64::try_from(published).unwrap();
                    let event = event(organization, number, Bytes::from_static(b"{}"));
                    let results = storage.commit(vec![unit(organization, lane, event)]).await;
                    results.unwrap().remove(0).unwrap();
                    published += 1;
                }
                published
            });
        }
        Self { stop, tasks }
    }

    async fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await.into_iter().sum()
    }
}

async fn assert_all_there(world: &World, published: usize) {
    let page = Page { after: None, limit: 1_000_000 };
    let events = world.storage.events(world.organization, None, page).await.unwrap().items;
    assert_eq!(events.len(), published);
    assert_eq!(events.first().map(|event| event.seq.get()), u64::try_from(published).ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_meets_no_busy_database_while_others_publish_at_full_rate() {
    let world = World::new().await;
    let mut connection = world.connection();
    // Without any patience: the turn is all it takes.
    connection.busy_timeout(std::time::Duration::ZERO).unwrap();
    connection.execute("CREATE TABLE people (name TEXT)", []).unwrap();
    let publishers = Publishers::start(&world);
    for _ in 0..COMMITS {
        let turn = world.storage.turn().await.unwrap();
        let transaction = Transaction::new(&mut connection, TransactionBehavior::Immediate);
        let transaction = transaction.unwrap();
        transaction.execute("INSERT INTO people VALUES ('John')", []).unwrap();
        transaction.commit().unwrap();
        drop(turn);
    }
    let published = publishers.stop().await;
    assert_all_there(&world, published).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_handle_commits_while_others_publish_at_full_rate() {
    let world = World::new().await;
    let beside = SqliteStorage::open(world.path()).unwrap();
    let publishers = Publishers::start(&world);
    for number in 0..COMMITS {
        let event = event(world.organization, u64::try_from(number).unwrap(), Bytes::new());
        let results = beside.commit(vec![unit(world.organization, world.lane, event)]).await;
        results.unwrap().remove(0).unwrap();
    }
    let published = publishers.stop().await;
    assert_all_there(&world, published + COMMITS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_that_nobody_waits_for_any_more_is_passed_over() {
    let world = World::new().await;
    let held = world.storage.turn().await.unwrap();
    let (storage, event) = (world.storage.clone(), world.event(1, b"{}"));
    let abandoned = tokio::spawn(async move { storage.turn().await });
    tokio::task::yield_now().await;
    abandoned.abort();
    drop(abandoned.await);
    let unit = world.unit(event);
    let storage = world.storage.clone();
    let commit = tokio::spawn(async move { storage.commit(vec![unit]).await });
    drop(held);
    commit.await.unwrap().unwrap().remove(0).unwrap();
    assert_eq!(ulid(1), world.event(1, b"").id.as_ulid());
}
