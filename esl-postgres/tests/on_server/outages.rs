//! Connections that end in the midst of a commit.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use esl_core::{
    Seq,
    storage::{Lanes, StorageErrorKind, Tenure, Unit},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    task::JoinHandle,
};

use crate::{
    cluster::{self, Observer, Own},
    publishing::{CommitAll, Publisher, publish, worker_id},
};

/// Stands between ESL and the server, and can lose an answer.
struct Between {
    folder: TempDir,
    port: u16,
    /// The next answer to a commit is lost, and its connection with it.
    loses: Arc<AtomicBool>,
    lost: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Between {
    fn new(own: &Own) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let name = format!(".s.PGSQL.{}", own.port);
        let listener = UnixListener::bind(folder.path().join(&name)).expect("a socket");
        let (loses, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let state = (Arc::clone(&loses), Arc::clone(&lost));
        let server = own.socket.join(name);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&server).await.expect("the server is there");
                tokio::spawn(pass(client, server, state.clone()));
            }
        });
        Self { folder, port: own.port, loses, lost, task }
    }

    fn url(&self) -> String {
        let folder: &Path = self.folder.path();
        format!("postgres://postgres@/postgres?host={}&port={}", folder.display(), self.port)
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    client: UnixStream,
    server: UnixStream,
    (loses, lost): (Arc<AtomicBool>, Arc<AtomicUsize>),
) {
    let (mut from_client, to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let is_commit = Arc::new(AtomicBool::new(false));
    let sees = Arc::clone(&is_commit);
    let there = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            let bytes = &buffer[..count];
            if bytes.windows(8).any(|window| window == b"commit_1") {
                sees.store(true, Ordering::SeqCst);
            }
            if to_server.write_all(bytes).await.is_err() {
                break;
            }
        }
    };
    let back = async move {
        let mut to_client: OwnedWriteHalf = to_client;
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            if is_commit.load(Ordering::SeqCst) && loses.swap(false, Ordering::SeqCst) {
                lost.fetch_add(1, Ordering::SeqCst);
                break;
            }
            if to_client.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
    };
    // Whichever ends takes the other with it.
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_answered_and_committed_once() {
    let Some(own) = cluster::own() else { return };
    let between = Between::new(own);
    let world = Publisher::through(&between.url()).await;
    let organization = world.organization().await;
    let lanes = [world.lane(organization).await];
    let version = world.version(organization).await;
    for round in 0..5 {
        between.loses.store(true, Ordering::SeqCst);
        let unit = Unit::publish(publish(organization, version, 2, &lanes));
        let committed = world.commit(unit).await.unwrap();
        assert_eq!(between.lost.load(Ordering::SeqCst), round + 1);
        // As whoever hears it for the first time is told.
        let seqs: Vec<_> = committed.events.iter().map(|accepted| accepted.seq.get()).collect();
        let first = 2 * round as u64 + 1;
        assert_eq!(seqs, [first, first + 1]);
        assert!(committed.events.iter().all(|it| !it.repeated && it.deliveries == 1));
    }
}

#[tokio::test]
async fn a_commit_whose_connection_is_ended_while_it_waits_is_committed_all_the_same() {
    let world = Publisher::new().await;
    let organization = world.organization().await;
    let version = world.version(organization).await;
    let mut observer = Observer::connect().await;
    let lock = format!("SELECT FROM {}.organizations FOR UPDATE", world.schema);
    let other = Observer::connect().await;
    let held = observer.client.transaction().await.unwrap();
    held.query(&lock, &[]).await.unwrap();
    let storage = world.storage.clone();
    let committing = tokio::spawn(async move {
        let unit = Unit::publish(publish(organization, version, 1, &[]));
        storage.commit_all(vec![unit]).await
    });
    // Whoever waits for the lock, twice: the second is the one that comes again.
    for _ in 0..2 {
        end_waiting(&other, &world.schema).await;
    }
    held.rollback().await.unwrap();
    let results = committing.await.unwrap();
    let accepted = &results[0].as_ref().unwrap().events[0];
    assert_eq!((accepted.seq, accepted.repeated), (Seq::new(1), false));
}

/// Ends the connection whose commit in this schema waits for a lock, once there is one.
async fn end_waiting(observer: &Observer, schema: &str) {
    let waits = "SELECT coalesce(max(pid), 0)::bigint FROM pg_stat_activity
                 WHERE wait_event_type = 'Lock' AND query LIKE $1";
    let query = format!("%{schema}\".%commit_1%");
    let pid = loop {
        let pid = observer.number(waits, &[&query]).await;
        if pid > 0 {
            break pid;
        }
        tokio::task::yield_now().await;
    };
    let end = "SELECT pg_terminate_backend($1::bigint::int)::int::bigint";
    observer.number(end, &[&pid]).await;
    let is_there = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1::bigint::int";
    while observer.number(is_there, &[&pid]).await > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn while_connections_are_ended_nothing_is_lost_and_nothing_comes_twice() {
    let world = Publisher::new().await;
    let organization = world.organization().await;
    let lanes = [world.lane(organization).await];
    let version = world.version(organization).await;
    let published = Arc::new(AtomicUsize::new(0));
    let publishing: Vec<_> = (0..4)
        .map(|_| {
            let (storage, published) = (world.storage.clone(), Arc::clone(&published));
            tokio::spawn(async move {
                let mut seqs = Vec::new();
                for _ in 0..50 {
                    let unit = Unit::publish(publish(organization, version, 1, &lanes));
                    let results = storage.commit_all(vec![unit]).await;
                    let accepted = results[0].as_ref().unwrap().events[0];
                    assert!(!accepted.repeated);
                    seqs.push(accepted.seq.get());
                    published.fetch_add(1, Ordering::SeqCst);
                }
                seqs
            })
        })
        .collect();
    let observer = Observer::connect().await;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE $1";
    let query = format!("%{}\".%commit_1%", world.schema);
    // Each time that something went through, or it would be a question of patience.
    let (mut ended, mut next) = (0, 5);
    while !publishing.iter().all(JoinHandle::is_finished) {
        let count = published.load(Ordering::SeqCst);
        if count >= next {
            ended += observer.number(end, &[&query]).await;
            next = count + 5;
        }
        tokio::task::yield_now().await;
    }
    let mut seqs = Vec::new();
    for one in publishing {
        seqs.extend(one.await.unwrap());
    }
    seqs.sort_unstable();
    assert!(ended > 0);
    assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_lane_is_taken_over_only_when_what_was_begun_for_it_is_over() {
    let world = Publisher::new().await;
    let organization = world.organization().await;
    let lane = world.lane(organization).await;
    let worker = world.storage.enlist(worker_id(), Tenure::default()).await.unwrap().0;
    world.storage.take(&worker, &[lane]).await.unwrap();
    let successor = world.storage.enlist(worker_id(), Tenure::default()).await.unwrap().0;
    // A commit of the first is under way when its epoch lapses.
    let mut observer = Observer::connect().await;
    let under_way = observer.client.transaction().await.unwrap();
    let schema = &world.schema;
    let shares = format!("SELECT pg_advisory_xact_lock_shared({schema}.class_1(), $1)");
    let epoch = i32::try_from(worker.epoch).unwrap();
    under_way.query(&shares, &[&epoch]).await.unwrap();
    let other = Observer::connect().await;
    let lapse = format!("UPDATE {schema}.workers SET lapses_at = 0 WHERE epoch = $1");
    other.client.execute(&lapse, &[&epoch]).await.unwrap();

    let storage = world.storage.clone();
    let taking = tokio::spawn(async move { storage.take(&successor, &[lane]).await });
    let waits = "SELECT count(*) FROM pg_stat_activity
                 WHERE wait_event_type = 'Lock' AND query LIKE $1";
    let query = format!("%{schema}\".take_1%");
    while other.number(waits, &[&query]).await == 0 {
        assert!(!taking.is_finished(), "it does not wait");
        tokio::task::yield_now().await;
    }
    under_way.commit().await.unwrap();
    assert_eq!(taking.await.unwrap().unwrap().len(), 1);
    let late = world.storage.take(&worker, &[lane]).await.unwrap_err();
    assert_eq!(late.kind(), StorageErrorKind::Fenced);
}

#[tokio::test]
async fn letting_go_that_comes_late_leaves_what_was_taken_since() {
    let world = Publisher::new().await;
    let organization = world.organization().await;
    let lane = world.lane(organization).await;
    let worker = world.storage.enlist(worker_id(), Tenure::default()).await.unwrap().0;
    world.storage.take(&worker, &[lane]).await.unwrap();
    world.storage.release(&worker, &[lane]).await.unwrap();
    world.storage.take(&worker, &[lane]).await.unwrap();
    // The release once more, from a connection that was given up.
    let observer = Observer::connect().await;
    let release = format!(
        "SELECT {}.release_1(NULL, '00000000-0000-0000-0000-000000000001', $1, ARRAY[$2::bigint], 2)",
        world.schema
    );
    let epoch = i32::try_from(worker.epoch).unwrap();
    let number = i64::try_from(lane.get()).unwrap();
    let late = observer.client.query_one(&release, &[&epoch, &number]).await.unwrap();
    assert!(!late.get::<_, bool>(0));
    let other = world.storage.enlist(worker_id(), Tenure::default()).await.unwrap().0;
    assert_eq!(world.storage.take(&other, &[lane]).await.unwrap().len(), 0, "it is not free");
    world.storage.release(&worker, &[lane]).await.unwrap();
    assert_eq!(world.storage.take(&other, &[lane]).await.unwrap().len(), 1);
}
