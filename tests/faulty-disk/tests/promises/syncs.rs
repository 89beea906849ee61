//! Syncs that fail, and lose what they should have made durable while the next one says that all is
//! well.

use std::{error::Error, sync::Arc, time::Duration};

use bytes::Bytes;
use esl_core::{
    Actor, Clock, EventId, LaneId, Organization, OrganizationId, SealedEvent, SystemClock, Tiers,
    WorkerId,
    storage::{
        Accepted, Commit, Lanes, Publish, Records, RouteVersion, Routed, StorageError,
        StorageErrorKind, Subscriptions, Tenancy, Tenure, Unit,
    },
};
use esl_faulty_disk::{Image, Machine, SyncFault, Tally};
use esl_sqlite::{
    SqliteStorage,
    rusqlite::{Connection, Row},
};
use fastrand::Rng;

use crate::{
    check::{Found, check, note_the_hour},
    database,
    ledger::Ledger,
    life::{Life, subscription, ulid},
    random, rounds, seeds,
};

const MEBIBYTE: usize = 1 << 20;

#[tokio::test]
async fn a_publish_whose_sync_failed_is_not_acknowledged_and_the_next_ones_are_kept() {
    let world = World::new(1).await;
    let first = world.publish(1000).await.unwrap();
    world.machine.fail_syncs(SyncFault::Once(0, "-wal"));
    let refused = world.publish(1000).await.unwrap_err();
    assert_eq!(refused.kind(), StorageErrorKind::Unavailable);
    assert!(refused.is_transient());
    let next = world.publish(1000).await.unwrap();
    assert_eq!(next.seq, first.seq.next(), "the seq of the one that failed");
    world.machine.forget_cache();
    let last = world.publish(1000).await.unwrap();
    assert_kept(world, &[first, next, last]).await;
}

/// Killed before its next commit, it leaves a WAL that looks whole as long as the system has it in memory. An
/// engine that follows adds nothing to that: on the disk, what it commits would stand behind a gap.
#[tokio::test]
async fn what_an_engine_commits_after_a_kill_does_not_stand_behind_what_a_failed_sync_has_lost() {
    for seed in 0..20 {
        let world = World::new(seed).await;
        let worker = WorkerId::from_ulid(ulid(&mut Rng::with_seed(seed)));
        world.storage.enlist(worker, Tenure::default()).await.unwrap();
        let mut accepted = vec![world.publish(1000).await.unwrap()];
        world.machine.fail_syncs(SyncFault::Once(0, "-wal"));
        world.publish(20_000).await.unwrap_err();
        let machine = world.machine.after_kill();
        drop(world.storage);
        let storage = SqliteStorage::open(database(&machine)).unwrap();
        storage.enlist(worker, Tenure::default()).await.unwrap();
        let wal = machine.folder().join("esl.db-wal");
        // It is emptied behind the engine's start, and nobody tells of that.
        let emptied = async {
            while std::fs::metadata(&wal).unwrap().len() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(60), emptied).await;
        in_time.expect("the WAL is emptied");
        let World { organization, lane, .. } = world;
        let world = World { machine, storage, organization, lane };
        accepted.push(world.publish(1000).await.unwrap());
        accepted.push(world.publish(1000).await.unwrap());
        assert_kept(world, &accepted).await;
    }
}

#[tokio::test]
async fn while_syncs_fail_nothing_is_acknowledged() {
    let world = World::new(2).await;
    let first = world.publish(1000).await.unwrap();
    world.machine.fail_syncs(SyncFault::From(0, "-wal"));
    for _ in 0..20 {
        let refused = world.publish(10_000).await.unwrap_err();
        assert_eq!(refused.kind(), StorageErrorKind::Unavailable);
    }
    world.machine.mend();
    let next = world.publish(1000).await.unwrap();
    assert_kept(world, &[first, next]).await;
}

/// A checkpoint that was held up by a reader is not synced, and counts all the same: the next one goes on
/// behind it. When the sync of that one fails, what the first has written is gone, too.
#[tokio::test]
async fn what_is_in_the_wal_stays_there_when_a_checkpoint_was_not_synced() {
    let world = World::new(3).await;
    let accepted = held_up(&world).await;
    world.machine.fail_syncs(SyncFault::Once(0, "esl.db"));
    let World { machine, storage, organization, lane } = world;
    // Closing makes a checkpoint.
    drop(storage);
    machine.forget_cache();
    let storage = SqliteStorage::open(database(&machine)).unwrap();
    assert_kept(World { machine, storage, organization, lane }, &accepted).await;
}

#[tokio::test]
async fn after_a_failed_sync_of_the_database_it_must_be_opened_anew() {
    let world = World::new(4).await;
    let mut accepted = held_up(&world).await;
    world.machine.fail_syncs(SyncFault::Once(0, "esl.db"));
    // From here on the writer, or the thread beside it, makes checkpoints as it grows.
    let refused = loop {
        assert!(accepted.len() < 200, "it goes on as if nothing had happened");
        match world.publish(MEBIBYTE).await {
            Ok(one) => accepted.push(one),
            Err(error) => break error,
        }
    };
    world.machine.forget_cache();
    assert_refused(&refused);
    assert_refused(&world.publish(10).await.unwrap_err());
    assert_refused(&world.storage.check().await.unwrap_err());
    let read = world.storage.event(world.organization, accepted[0].id).await;
    assert_refused(&read.unwrap_err());
    assert!(world.storage.turn().await.is_err());
    let World { machine, storage, organization, lane } = world;
    drop(storage);
    let storage = SqliteStorage::open(database(&machine)).unwrap();
    let world = World { machine, storage, organization, lane };
    accepted.push(world.publish(10).await.unwrap());
    assert_kept(world, &accepted).await;
}

#[tokio::test]
async fn a_command_beside_a_handle_that_refuses_takes_nothing_from_the_wal() {
    let world = World::new(5).await;
    let mut accepted = held_up(&world).await;
    world.machine.fail_syncs(SyncFault::Once(0, "esl.db"));
    while let Ok(one) = world.publish(MEBIBYTE).await {
        accepted.push(one);
        assert!(accepted.len() < 200, "it goes on as if nothing had happened");
    }
    let World { machine, storage, organization, lane } = world;
    let beside = SqliteStorage::open(database(&machine)).unwrap();
    let beside = World { machine: Arc::clone(&machine), storage: beside, organization, lane };
    accepted.push(beside.publish(10).await.unwrap());
    // Its last checkpoint gets nowhere.
    drop(beside);
    assert_kept(World { machine, storage, organization, lane }, &accepted).await;
}

#[track_caller]
fn assert_refused(error: &StorageError) {
    assert_eq!(error.kind(), StorageErrorKind::Unavailable);
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains("opened anew"), "{error}: {cause}");
}

#[test]
fn nothing_acknowledged_is_lost_when_syncs_fail_and_then_the_power() {
    note_the_hour();
    let (mut found, mut failed, mut cuts) = (Found::default(), 0, 0);
    for (one, tally) in rounds(seeds(8), life_with_failing_syncs) {
        found += one;
        failed += tally.failed_syncs;
        cuts += 1;
    }
    println!(
        "{cuts} power cuts after {failed} failed syncs: {} events were acknowledged and 0 of those \
         lost, {} were found though not acknowledged",
        found.acknowledged, found.unacknowledged
    );
    assert!(failed > 0);
}

async fn life_with_failing_syncs(seed: u64) -> (Found, Tally) {
    let mut draws = random(seed, 300);
    let ledger = Ledger::default();
    let machine = Machine::start(&Image::new(), draws.u64(..));
    // Checkpoints are ESL's alone here: of those that an embedder makes it is not told.
    let mut living = Life::open(database(&machine), &ledger).unwrap();
    living.has_own_checkpoints = false;
    living.run(draws.u64(..)).await;
    for _ in 0..2 {
        let end = draws.choice(["-wal", "esl.db", ""]).unwrap();
        let after = draws.u32(0..60);
        let once = draws.bool();
        let fault = if once { SyncFault::Once(after, end) } else { SyncFault::From(after, end) };
        machine.fail_syncs(fault);
        for failure in living.run(draws.u64(..)).await {
            let error = failure.downcast::<StorageError>().map(|error| error.is_transient());
            // What else there is comes from the embedder's own connection.
            assert!(error.unwrap_or(true));
        }
        machine.mend();
        machine.forget_cache();
        if draws.bool() {
            drop(living);
            machine.forget_cache();
            living = Life::open(database(&machine), &ledger).unwrap();
            living.has_own_checkpoints = false;
        }
        living.run(draws.u64(..)).await;
    }
    machine.cut();
    drop(living);
    let again = Machine::start(&machine.survivor(), draws.u64(..));
    let living = Life::open(database(&again), &ledger).unwrap();
    (check(&living, &mut draws).await, machine.tally())
}

/// A database with one organization and one subscription.
struct World {
    machine: Arc<Machine>,
    storage: SqliteStorage,
    organization: OrganizationId,
    lane: LaneId,
}

impl World {
    async fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let machine = Machine::start(&Image::new(), seed);
        let storage = SqliteStorage::open(database(&machine)).unwrap();
        let (by, now) = (&Actor::APPLICATION, SystemClock::new().utc());
        let organization = OrganizationId::from_ulid(ulid(&mut random));
        storage.create_organization(Organization::new(organization, "one", now), by).await.unwrap();
        let subscription = subscription(organization, &mut random, now);
        let subscription = storage.create_subscription(subscription, &Tiers::default(), by).await;
        Self { machine, storage, organization, lane: subscription.unwrap().lane }
    }

    async fn publish(&self, bytes: usize) -> Result<Accepted, StorageError> {
        let event = SealedEvent {
            id: EventId::from_ulid(ulid(&mut Rng::new())),
            organization: self.organization,
            event_type: "person.updated".parse().unwrap(),
            timestamp: SystemClock::new().utc(),
            digest: None,
            body: Bytes::from(vec![b'x'; bytes]),
            changes: None,
        };
        let publish = Publish {
            organization: self.organization,
            route_version: RouteVersion(1),
            events: vec![Routed::new(Arc::new(event), [self.lane].into())],
            idempotency: None,
            metering: None,
        };
        let committed = self.storage.commit(vec![Unit::publish(publish)]).await?.remove(0);
        Ok(committed.unwrap().events[0])
    }
}

/// Publishes until a checkpoint has begun and was held up by a reader, which then goes.
async fn held_up(world: &World) -> Vec<Accepted> {
    let mut accepted = Vec::new();
    for _ in 0..10 {
        accepted.push(world.publish(MEBIBYTE).await.unwrap());
    }
    let reader = Connection::open(database(&world.machine)).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM esl_events").unwrap();
    let before = world.machine.tally();
    for _ in 0..7 {
        accepted.push(world.publish(MEBIBYTE).await.unwrap());
    }
    // The thread that checkpoints syncs the WAL beforehand, which no publish does.
    while world.machine.tally().syncs <= before.syncs + 7 {
        accepted.push(world.publish(10).await.unwrap());
    }
    // It has let go of its lock when another checkpoint is not turned away.
    let is_busy = |row: &Row<'_>| row.get::<_, bool>(0);
    let beside = Connection::open(database(&world.machine)).unwrap();
    while beside.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], is_busy).unwrap() {}
    reader.execute_batch("COMMIT").unwrap();
    accepted
}

/// What was accepted is there, and whole, whatever is left after a power cut.
async fn assert_kept(world: World, accepted: &[Accepted]) {
    world.machine.cut();
    drop(world.storage);
    for seed in 0..4 {
        let again = Machine::start(&world.machine.survivor(), seed);
        let storage = SqliteStorage::open(database(&again)).unwrap();
        for one in accepted {
            let found = storage.event(world.organization, one.id).await.unwrap();
            assert_eq!(found.map(|event| event.seq), Some(one.seq));
        }
        let connection = Connection::open(database(&again)).unwrap();
        let verdict: String =
            connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(verdict, "ok");
    }
}
