//! Availability on an engine in memory, under a clock that is moved by hand.

mod schedules;
mod statuses;

use std::{sync::Arc, time::Duration};

use esl_core::{
    Actor, Clock, Document, EntityError, EntityId, Esl, MemoryStorage, Organization,
    OrganizationId, Timestamp, Written,
    storage::{Page, Records, Tenancy},
    testing::{ManualClock, SeededChance},
};
use serde_json::{Value, json};

use crate::entities;

const ACME: OrganizationId = OrganizationId::from_bytes([7; 16]);

/// An engine that can be ended and begun again over what it has stored.
struct World {
    clock: ManualClock,
    storage: MemoryStorage,
    esl: Option<Esl>,
    engines: u64,
}

/// Runs a test that begins at this time.
fn at(start: &str, test: impl AsyncFnOnce(World)) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let clock = ManualClock::new(start.parse().unwrap());
        let storage = MemoryStorage::with_clock(Arc::new(clock.clone()));
        let organization = Organization::new(ACME, "acme", clock.utc());
        storage.create_organization(organization, &Actor::APPLICATION).await.unwrap();
        let mut world = World { clock, storage, esl: None, engines: 0 };
        world.begin().await;
        test(world).await;
    });
}

impl World {
    /// Begins an engine.
    async fn begin(&mut self) {
        self.engines += 1;
        let esl = Esl::builder(self.storage.clone())
            .clock(Arc::new(self.clock.clone()))
            .chance(Arc::new(SeededChance::new(self.engines)))
            .kinds(entities::kinds())
            .retention(None)
            .build();
        self.esl = Some(esl.await.unwrap());
    }

    /// Ends the engine, as a process ends that is killed.
    fn kill(&mut self) {
        self.esl = None;
    }

    fn esl(&self) -> &Esl {
        self.esl.as_ref().expect("it runs")
    }

    async fn put(&self, user: &str, status: Value) -> Result<Document, EntityError> {
        let users = self.esl().entities("availability.status").unwrap();
        let status = status.as_object().unwrap();
        let put = |_: Option<&_>, written: &mut Document| {
            written.clone_from(status);
            Ok::<_, EntityError>(())
        };
        Ok(shown(&users.put(ACME, &id(user), put).await?))
    }

    async fn create(&self, kind: &str, document: Value) -> Result<Document, EntityError> {
        let entities = self.esl().entities(kind).unwrap();
        Ok(shown(&entities.create(ACME, document).await?))
    }

    async fn patch(&self, kind: &str, of: &str, changes: Value) -> Result<Document, EntityError> {
        let entities = self.esl().entities(kind).unwrap();
        let patch = |_: &_, document: &mut Document| {
            document.extend(changes.as_object().unwrap().clone());
            Ok::<_, EntityError>(())
        };
        Ok(shown(&entities.update(ACME, &id(of), patch).await?))
    }

    async fn delete(&self, kind: &str, of: &str) -> Result<(), EntityError> {
        let entities = self.esl().entities(kind).unwrap();
        entities.delete(ACME, &id(of), |_| Ok::<_, EntityError>(())).await.map(drop)
    }

    async fn read(&self, kind: &str, of: &str) -> Document {
        let entities = self.esl().entities(kind).unwrap();
        let shown = entities.get(ACME, &id(of)).await.unwrap().expect("it is there");
        (**shown.representation).clone()
    }

    /// All that was published after so many events, each with its type, data and source.
    async fn said(&self, after: usize) -> Vec<(String, Value, Value)> {
        let page = Page { after: None, limit: 1_000_000 };
        let events = self.storage.events(ACME, None, page).await.unwrap().items;
        let events = events.into_iter().rev().skip(after);
        events
            .map(|event| {
                let mut body: Value = serde_json::from_slice(&event.body).unwrap();
                let source = body["metadata"]["source"].take();
                (event.event_type.to_string(), body["data"].take(), source)
            })
            .collect()
    }

    /// Lets time pass, and the engine do what there is to do.
    async fn pass(&self, time: Duration) {
        let until = self.clock.monotonic() + time;
        loop {
            settle_down().await;
            let next = self.clock.next_deadline().filter(|next| *next < until);
            let Some(next) = next else { break };
            self.clock.advance(next.saturating_sub(self.clock.monotonic()));
        }
        self.clock.advance(until.saturating_sub(self.clock.monotonic()));
        settle_down().await;
    }

    /// Sets the clock forward at once.
    async fn leap(&self, time: Duration) {
        self.clock.advance(time);
        settle_down().await;
    }
}

fn shown(written: &Written) -> Document {
    (**written.shown.representation).clone()
}

async fn settle_down() {
    for _ in 0..300 {
        tokio::task::yield_now().await;
    }
}

fn id(text: &str) -> EntityId {
    text.parse().unwrap()
}

fn id_of(document: &Document) -> String {
    document["id"].as_str().unwrap().to_owned()
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The places at which a document is wrong.
fn wrong<T: std::fmt::Debug>(result: Result<T, EntityError>) -> Vec<String> {
    match result.unwrap_err() {
        EntityError::Invalid(faults) => faults.into_iter().map(|fault| fault.pointer).collect(),
        other => panic!("{other}"),
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
