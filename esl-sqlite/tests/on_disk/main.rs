//! What only a file can promise: who may open it, what survives SIGKILL, and getting on with others.

#![expect(clippy::unwrap_used, reason = "in a test, the panic says enough")]

mod damage;
mod deletion;
mod engines;
mod entities;
mod erasure;
mod failures;
mod foreign;
mod kill;
mod leaving;
mod opening;
mod outbox;
mod remnants;
mod removal;
mod secrets;
mod seen;
mod set_back;
mod wal;

use std::{error::Error, path::PathBuf, sync::Arc};

use bytes::Bytes;
use esl_core::{
    Actor, CallbackUrl, EventId, LaneId, NewSubscription, Organization, OrganizationId,
    SealedEvent, Secret, Subscription, SubscriptionId, Tiers, Timestamp, WorkerId,
    storage::{
        Accepted, Commit, Publish, RouteVersion, Routed, StorageError, Subscriptions, Tenancy, Unit,
    },
};
use esl_sqlite::{SqliteStorage, rusqlite::Connection};
use tempfile::TempDir;
use ulid::Ulid;

const NOON: Timestamp = Timestamp::from_millis(1_705_329_120_000);

/// A folder, and in it a database with one organization and one subscription to everything.
struct World {
    folder: TempDir,
    storage: SqliteStorage,
    organization: OrganizationId,
    lane: LaneId,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let storage = SqliteStorage::open(folder.path().join("esl.db")).unwrap();
        let organization = OrganizationId::from_ulid(ulid(1));
        let row = Organization::new(organization, "one", NOON);
        storage.create_organization(row, &Actor::APPLICATION).await.unwrap();
        let lane = storage
            .create_subscription(
                subscription(organization, 1),
                &Tiers::default(),
                &Actor::APPLICATION,
            )
            .await
            .unwrap()
            .lane;
        Self { folder, storage, organization, lane }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("esl.db")
    }

    /// A connection as an embedder opens one for the outbox.
    fn connection(&self) -> Connection {
        let connection = Connection::open(self.path()).unwrap();
        connection.pragma_update(None, "synchronous", "FULL").unwrap();
        connection
    }

    fn event(&self, number: u64, body: &'static [u8]) -> Arc<SealedEvent> {
        event(self.organization, number, Bytes::from_static(body))
    }

    fn unit(&self, event: Arc<SealedEvent>) -> Unit {
        unit(self.organization, self.lane, event)
    }

    /// Another organization.
    async fn beside(&self, number: u64) -> OrganizationId {
        let id = OrganizationId::from_ulid(ulid(number));
        let row = Organization::new(id, format!("number {number}"), NOON);
        self.storage.create_organization(row, &Actor::APPLICATION).await.unwrap();
        id
    }

    async fn publish(&self, number: u64) -> Accepted {
        self.publish_saying(number, b"{}").await
    }

    async fn publish_saying(&self, number: u64, body: &'static [u8]) -> Accepted {
        let results = self.storage.commit(vec![self.unit(self.event(number, body))]).await;
        results.unwrap().remove(0).unwrap().events[0]
    }
}

fn ulid(number: u64) -> Ulid {
    Ulid::from_parts(NOON.as_millis_u64(), number.into())
}

fn worker_id(number: u64) -> WorkerId {
    WorkerId::from_ulid(ulid(number))
}

fn event_id(number: u64) -> EventId {
    EventId::from_ulid(ulid(number))
}

fn event(organization: OrganizationId, number: u64, body: Bytes) -> Arc<SealedEvent> {
    Arc::new(SealedEvent {
        id: event_id(number),
        organization,
        event_type: "person.updated".parse().unwrap(),
        timestamp: NOON,
        digest: None,
        body,
        changes: None,
    })
}

/// Publishes to the one lane of [`World`], whose creation was the first change of routes.
fn unit(organization: OrganizationId, lane: LaneId, event: Arc<SealedEvent>) -> Unit {
    Unit::publish(Publish {
        organization,
        route_version: RouteVersion(1),
        events: vec![Routed::new(event, [lane].into())],
        idempotency: None,
        metering: None,
    })
}

fn subscription(organization: OrganizationId, number: u64) -> Subscription {
    let callback_url = CallbackUrl::from_stored("https://receiver.example/");
    let new = NewSubscription::new(callback_url, vec!["*".parse().unwrap()]);
    let secret = Secret::new("as-documented").unwrap();
    Subscription::new(SubscriptionId::from_ulid(ulid(number)), organization, new, secret, NOON)
}

/// What a person reads: an error with its cause.
fn text(error: &StorageError) -> String {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    format!("{error}: {cause}")
}
