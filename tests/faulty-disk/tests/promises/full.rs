//! A disk that is full, or cannot read, and then can again.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use esl_core::{
    Actor, CallbackUrl, Clock, DeliveryState, Esl, EventId, NewEvent, Organization, OrganizationId,
    PublishError, Subscription, SystemClock, Tiers,
    storage::{Page, Records, StorageError, Subscriptions, Tenancy},
    testing::{ManualClock, Reply, ScriptedTransport},
};
use esl_faulty_disk::{Full, Image, Machine, Tally};
use esl_sqlite::SqliteStorage;
use fastrand::Rng;

use crate::{
    check::{Found, check, note_the_hour},
    database,
    ledger::Ledger,
    life::{Life, subscription, ulid},
    random, rounds, seeds,
};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn settlements_wait_for_room_and_nothing_is_sent_twice_for_it() {
    for kind in [Full::Growing, Full::Writing] {
        let engine = Engine::start(1, Reply::Hang).await;
        let before = engine.publish().await.unwrap();
        engine.transport.wait_for_hanging_at(engine.url(), 1).await;
        engine.machine.fill(kind);
        // Even where files are overwritten in place, the WAL is as long as it is.
        assert_no_room(&engine.publish_until_it_fails().await);
        engine.transport.release(engine.url(), &Reply::status(200));
        for _ in 0..20 {
            assert_no_room(&engine.publish().await.unwrap_err());
            engine.clock.advance(SECOND / 4);
        }
        assert!(engine.esl.unsettled() > 0, "what was sent is not settled");
        engine.is_hanging.store(false, Ordering::Relaxed);
        engine.machine.make_room();
        engine.settled(before).await;
        let after = engine.publish().await.unwrap();
        engine.settled(after).await;
        for event in [before, after] {
            assert_eq!(engine.times_sent(event), 1);
        }
        engine.stop().await;
    }
}

#[tokio::test]
async fn the_engine_goes_on_by_itself_after_a_disk_was_full_for_longer_than_its_epoch() {
    let engine = Engine::start(2, Reply::status(200)).await;
    let before = engine.publish().await.unwrap();
    engine.settled(before).await;
    engine.machine.fill(Full::Writing);
    for _ in 0..600 {
        assert_no_room(&engine.publish().await.unwrap_err());
        engine.clock.advance(SECOND);
    }
    engine.machine.make_room();
    let after = engine.publish().await.unwrap();
    engine.settled(after).await;
    assert_eq!(engine.times_sent(before), 1);
    engine.stop().await;
}

#[tokio::test]
async fn the_engine_goes_on_by_itself_after_reads_have_failed() {
    let engine = Engine::start(3, Reply::status(200)).await;
    let mut accepted = BTreeSet::new();
    for _ in 0..5 {
        engine.machine.fail_reads(2);
        for _ in 0..50 {
            if let Ok(event) = engine.publish().await {
                accepted.insert(event);
            }
            engine.clock.advance(SECOND / 4);
        }
        engine.machine.mend();
        accepted.insert(engine.publish().await.unwrap());
    }
    for event in accepted {
        engine.settled(event).await;
    }
    engine.stop().await;
}

#[test]
fn nothing_acknowledged_is_lost_on_a_full_disk_and_all_goes_on_when_there_is_room() {
    note_the_hour();
    let (mut found, mut full, mut failed_reads, mut episodes) = (Found::default(), 0, 0, 0);
    for (one, tally) in rounds(seeds(8), life_without_room) {
        found += one;
        full += tally.full;
        failed_reads += tally.failed_reads;
        episodes += EPISODES;
    }
    println!(
        "{episodes} times without room, or with reads that fail ({full} writes and {failed_reads} \
         reads): {} events were acknowledged and 0 of those lost, {} were found though not \
         acknowledged",
        found.acknowledged, found.unacknowledged
    );
    assert!(full > 0 && failed_reads > 0);
}

const EPISODES: u64 = 3;

async fn life_without_room(seed: u64) -> (Found, Tally) {
    let mut draws = random(seed, 400);
    let ledger = Ledger::default();
    let machine = Machine::start(&Image::new(), draws.u64(..));
    let living = Life::open(database(&machine), &ledger).unwrap();
    for _ in 0..EPISODES {
        let failures = living.run(draws.u64(..)).await;
        assert!(failures.is_empty(), "all goes on: {failures:?}");
        match draws.u8(0..3) {
            0 => machine.fill(Full::Growing),
            1 => machine.fill(Full::Writing),
            _ => machine.fail_reads(draws.u32(2..100)),
        }
        for failure in living.run(draws.u64(..)).await {
            let error = failure.downcast::<StorageError>();
            // What else there is comes from the embedder's own connection.
            assert!(error.as_ref().map_or(true, |error| error.is_transient()), "{error:?}");
        }
        machine.make_room();
        machine.mend();
    }
    let failures = living.run(draws.u64(..)).await;
    assert!(failures.is_empty(), "all goes on: {failures:?}");
    machine.cut();
    drop(living);
    let again = Machine::start(&machine.survivor(), draws.u64(..));
    let living = Life::open(database(&again), &ledger).unwrap();
    (check(&living, &mut draws).await, machine.tally())
}

#[track_caller]
fn assert_no_room(error: &PublishError) {
    let PublishError::Storage(error) = error else { panic!("{error}") };
    assert!(error.is_transient(), "{error}");
}

/// An engine with one subscription.
struct Engine {
    machine: Arc<Machine>,
    esl: Esl,
    storage: SqliteStorage,
    clock: ManualClock,
    transport: ScriptedTransport,
    is_hanging: Arc<AtomicBool>,
    organization: OrganizationId,
    subscription: Subscription,
}

impl Engine {
    async fn start(seed: u64, reply: Reply) -> Self {
        let mut random = Rng::with_seed(seed);
        let machine = Machine::start(&Image::new(), seed);
        let clock = ManualClock::new(SystemClock::new().utc());
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let storage = SqliteStorage::options().clock(Arc::clone(&shared)).open(database(&machine));
        let storage = storage.unwrap();
        let (by, now) = (&Actor::APPLICATION, clock.utc());
        let organization = OrganizationId::from_ulid(ulid(&mut random));
        storage.create_organization(Organization::new(organization, "one", now), by).await.unwrap();
        let subscription = subscription(organization, &mut random, now);
        let subscription = storage.create_subscription(subscription, &Tiers::default(), by).await;
        let is_hanging = Arc::new(AtomicBool::new(reply == Reply::Hang));
        let hangs = Arc::clone(&is_hanging);
        let transport = ScriptedTransport::answering(Arc::clone(&shared), move |_| {
            if hangs.load(Ordering::Relaxed) { Reply::Hang } else { Reply::status(200) }
        });
        let builder = Esl::builder(storage.clone()).clock(shared).transport(transport.clone());
        let esl = builder.build().await.unwrap();
        let subscription = subscription.unwrap();
        Self { machine, esl, storage, clock, transport, is_hanging, organization, subscription }
    }

    fn url(&self) -> &CallbackUrl {
        &self.subscription.callback_url
    }

    async fn publish(&self) -> Result<EventId, PublishError> {
        let data = serde_json::json!({ "name": "John" });
        let event_type = "person.created".parse().unwrap();
        let event = NewEvent::new(self.organization, event_type, &data).unwrap();
        self.esl.publish(event).await.map(|published| published.id)
    }

    async fn publish_until_it_fails(&self) -> PublishError {
        for _ in 0..100_000 {
            if let Err(error) = self.publish().await {
                return error;
            }
        }
        panic!("there is room")
    }

    fn times_sent(&self, event: EventId) -> usize {
        let id = event.to_string();
        let sightings = self.transport.sightings();
        sightings.iter().filter(|sighting| sighting.header("webhook-id") == Some(&*id)).count()
    }

    /// Waits until an event is delivered, and storage knows.
    async fn settled(&self, event: EventId) {
        for _ in 0..10_000 {
            let page = Page { after: None, limit: 1000 };
            let state = Some(DeliveryState::Delivered);
            let id = self.subscription.id;
            let found = self.storage.deliveries(self.organization, id, state, page).await.unwrap();
            if found.unwrap().items.iter().any(|delivery| delivery.event_id == event) {
                return;
            }
            self.clock.advance(SECOND / 10);
        }
        panic!("it is not delivered");
    }

    async fn stop(self) {
        let clock = self.clock.clone();
        let stopped = AtomicBool::new(false);
        let stop = async {
            self.esl.shutdown().await;
            stopped.store(true, Ordering::Relaxed);
        };
        let time = async {
            while !stopped.load(Ordering::Relaxed) {
                clock.advance(SECOND / 10);
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(stop, time);
    }
}
