//! What an erased event leaves in the files.

use std::{fs, time::Duration};

use esl_core::{
    DeliveryId, DeliveryState, EventId, Seq,
    storage::{
        Commit, Lanes, Publish, Records, Removal, RouteVersion, Routed, StoredEvent, Tenure, Unit,
        Want,
    },
};
use esl_sqlite::SqliteStorage;
use tokio::time::timeout;

use crate::{World, worker_id};

/// Longer than any commit, and ends a test that would wait for what never comes.
const PATIENCE: Duration = Duration::from_secs(60);

const SAID: &[u8] = br#"{"name":"Jane Roe of 1 Main Street"}"#;

#[tokio::test]
async fn whoever_reads_for_long_delays_an_erasure_and_nobody_else() {
    let mut world = World::new().await;
    // One that would wait for the reader for as long as this test may take.
    let patient = SqliteStorage::options().busy_timeout(Duration::from_secs(600));
    world.storage = patient.open(world.path()).unwrap();
    let event = world.publish_saying(1, SAID).await.id;
    let reader = world.connection();
    reader.execute_batch("BEGIN; SELECT count(*) FROM esl_events").unwrap();
    let mut erasing = Box::pin(world.storage.erase_event(world.organization, event));
    for number in 2..40 {
        tokio::select! {
            biased;
            erased = &mut erasing => panic!("the reader reads on: {erased:?}"),
            published = timeout(PATIENCE, world.publish(number)) => {
                published.expect("the writer waits for no reader");
            }
        }
    }
    reader.execute_batch("COMMIT").unwrap();
    erasing.await.unwrap();
    assert!(!world.files_hold(SAID));
}

impl World {
    async fn stored(&self, event: EventId) -> StoredEvent {
        self.storage.event(self.organization, event).await.unwrap().unwrap()
    }

    /// Whether one of the files has these bytes.
    pub(crate) fn files_hold(&self, bytes: &[u8]) -> bool {
        let files = fs::read_dir(self.folder.path()).unwrap();
        files
            .map(|file| fs::read(file.unwrap().path()).unwrap())
            .any(|file| file.windows(bytes.len()).any(|window| window == bytes))
    }
}

#[tokio::test]
async fn an_event_that_came_through_the_intake_leaves_nothing_there() {
    for (organization, length) in (2..).zip([40, 900, 3_000, 20_000, 300_000]) {
        let mut world = World::new().await;
        world.organization = world.beside(organization).await;
        let mut body = SAID.repeat(length / SAID.len() + 1);
        body.truncate(length);
        // Others around it, so that its pages are not the only ones.
        let events: Vec<_> = (10..20)
            .map(|number| {
                let body = if number == 15 { body.clone() } else { vec![b' '; length] };
                crate::event(world.organization, number, body.into())
            })
            .collect();
        world.storage.enqueue(events).await.unwrap();
        for (row, event) in world.storage.intake(None, 100, &[]).await.unwrap() {
            let routed = Routed { intake: Some(row), ..Routed::new(event, [].into()) };
            let publish = Publish {
                organization: world.organization,
                route_version: RouteVersion(0),
                events: vec![routed],
                idempotency: None,
                metering: None,
            };
            world.storage.commit(vec![Unit::publish(publish)]).await.unwrap().remove(0).unwrap();
        }
        assert!(world.files_hold(&body[..30]));
        world.storage.erase_event(world.organization, world.event(15, b"").id).await.unwrap();
        assert!(!world.files_hold(&body[..30]), "{length} bytes");
    }
}

#[tokio::test]
async fn an_erasure_that_was_cut_off_is_finished_with_the_chores() {
    let world = World::new().await;
    let accepted = world.publish_saying(1, SAID).await;
    let (worker, _) = world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
    world.storage.take(&worker, &[world.lane]).await.unwrap();
    let mut erasing = Box::pin(world.storage.erase_event(world.organization, accepted.id));
    // Asked once, it waits in line for its first transaction, and a publish behind it.
    let turn = world.storage.turn().await.unwrap();
    tokio::select! {
        biased;
        erased = &mut erasing => panic!("the writer is not there: {erased:?}"),
        () = std::future::ready(()) => {}
    }
    tokio::join!(world.publish(2), async { drop(turn) });
    drop(erasing);
    let due = async |in_order| {
        let want =
            Want { lane: world.lane, room: 9, after: Some(Seq::ZERO), held: Vec::new(), in_order };
        let claimed = world.storage.claim(&worker, &[want], usize::MAX).await.unwrap();
        claimed[0].due.iter().map(|due| due.seq.get()).collect::<Vec<_>>()
    };
    // It is owed still, and not handed out.
    assert_eq!((due(false).await, due(true).await), (vec![2], vec![2]));
    let id = DeliveryId::new(accepted.id, accepted.seq, world.lane);
    let state = async || {
        let found = world.storage.delivery(world.organization, id).await.unwrap();
        found.unwrap().0.state
    };
    assert_eq!(state().await, DeliveryState::Pending);
    while world.storage.remove_old(&worker, None, 100).await.unwrap().more {}
    assert_eq!(state().await, DeliveryState::Cancelled);
    assert_eq!((due(false).await, due(true).await), (vec![2], vec![2]));
}

#[tokio::test]
async fn what_another_process_left_in_the_files_goes_with_the_chores() {
    // A server that was running, and one that is started again.
    for is_restarted in [false, true] {
        let mut world = World::new().await;
        let event = world.publish_saying(1, SAID).await.id;
        let beside = SqliteStorage::open(world.path()).unwrap();
        let reader = world.connection();
        reader.execute_batch("BEGIN; SELECT count(*) FROM esl_events").unwrap();
        let mut erasing = Box::pin(beside.erase_event(world.organization, event));
        // As long as somebody reads, it waits.
        while world.stored(event).await.erased_at.is_none() {
            tokio::select! {
                biased;
                erased = &mut erasing => panic!("the reader reads on: {erased:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
        drop(erasing);
        drop(beside);
        reader.execute_batch("COMMIT").unwrap();
        if is_restarted {
            // Beside it, so that closing the database does not empty the WAL.
            let kept = world.connection();
            kept.execute_batch("BEGIN; SELECT count(*) FROM esl_events").unwrap();
            world.storage = SqliteStorage::open(world.path()).unwrap();
        }
        assert!(world.files_hold(SAID));
        let (worker, _) = world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
        while world.storage.remove_old(&worker, None, 100).await.unwrap().more {}
        assert!(!world.files_hold(SAID), "restarted: {is_restarted}");
    }
}
