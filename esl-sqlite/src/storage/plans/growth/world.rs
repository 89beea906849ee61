//! A database that grows.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use esl_core::{
    Actor, Attempt, AttemptError, CallbackUrl, Client, Digest, EntityKey, EventId, LaneId, Limit,
    NewReplay, NewSubscription, Organization, OrganizationId, Replay, ReplayId, ReplayOf, Scopes,
    SealedEvent, Secret, Seq, Subscription, SubscriptionId, SubscriptionUpdate, Tiers, Timestamp,
    Timings, Token, TokenFamily, TokenKind, WorkerId,
    storage::{
        Accepted, Commit, EntityAction, EntityStep, EntityWrite, Expected, Feed, Idempotency,
        IndexEntry, IndexValue, Lanes, Outcome, Publish, PutEntity, Replays, Routed, Schedule,
        Settle, Settlement, Subscriptions, Tenancy, Tenure, Unit, Worker,
    },
    testing::ManualClock,
};
use tempfile::TempDir;
use tokio::task::JoinSet;
use ulid::Ulid;

use crate::storage::SqliteStorage;

/// A database in which there is some of everything: the more events there are, the more of all else.
pub(super) struct World {
    _folder: TempDir,
    pub(super) storage: SqliteStorage,
    pub(super) worker: Worker,
    pub(super) organization: OrganizationId,
    /// Another one.
    pub(super) beside: OrganizationId,
    /// Takes everything at once.
    pub(super) quick: Subscription,
    /// Fails: of ten deliveries the first ones are due for another try, the last one is given up, and
    /// the others wait for their time.
    pub(super) failing: Subscription,
    /// Nothing was tried yet.
    pub(super) backlog: Subscription,
    pub(super) paused: Subscription,
    events: usize,
    last_id: u64,
}

impl World {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(NOON));
        let storage = SqliteStorage::options().clock(clock).open(folder.path().join("esl.db"));
        let storage = storage.unwrap();
        let [organization, beside] = [1, 2].map(|number| OrganizationId::from_ulid(ulid(number)));
        for id in [organization, beside] {
            create_organization(&storage, id).await;
        }
        let mut subscriptions = Vec::new();
        for number in 3..7 {
            subscriptions.push(subscribe(&storage, organization, ulid(number)).await);
        }
        let [quick, failing, backlog, paused] = subscriptions.try_into().unwrap();
        storage.update_subscription(organization, paused.id, pause(), BY).await.unwrap();
        let client = client(organization, "client");
        storage.create_client(client, BY).await.unwrap();
        let (worker, _) =
            storage.enlist(WorkerId::from_ulid(ulid(7)), Tenure::default()).await.unwrap();
        storage.begin_feed(&worker, "feed").await.unwrap();
        let lanes = [quick.lane, failing.lane, backlog.lane];
        storage.take(&worker, &lanes).await.unwrap();
        Self {
            _folder: folder,
            storage,
            worker,
            organization,
            beside,
            quick,
            failing,
            backlog,
            paused,
            events: 0,
            last_id: 7,
        }
    }

    pub(super) fn ulid(&mut self) -> Ulid {
        self.last_id += 1;
        ulid(self.last_id)
    }

    /// Adds what is missing.
    pub(super) async fn grow_to(&mut self, events: usize) {
        let others = (events - self.events) / 20;
        self.publish_and_settle(events - self.events).await;
        self.events = events;
        let tokens = (0..others * 20).map(|_| self.token()).collect();
        self.storage.store_tokens(&secret(), tokens).await.unwrap();
        let waiting = (0..others).map(|_| self.event(self.beside)).collect::<Vec<_>>();
        self.storage.enqueue(waiting).await.unwrap();
        let later = (0..others).map(|_| (NOON + HOUR, self.event(self.beside))).collect();
        self.storage.schedule(later, Limit::Unlimited).await.unwrap();
        for _ in 0..others {
            let steps = (0..20).map(|number| {
                let id = self.ulid().to_string();
                let due_at = (number == 0).then_some(NOON + HOUR);
                let new = put_entity(&id, "of many", due_at);
                entity_step(&id, Expected::Absent, EntityAction::Put(new))
            });
            let steps = steps.collect();
            let write = EntityWrite { organization: self.organization, steps };
            self.storage.commit(vec![Unit::write(write)]).await.unwrap().remove(0).unwrap();
        }
        for _ in 0..others / 5 + PAGE {
            self.replay().await;
        }
        // Subscriptions that are gone, and organizations with one each; all of it is in the trail.
        let mut calls = JoinSet::new();
        for _ in 0..others {
            let (storage, organization) = (self.storage.clone(), self.organization);
            let ids = [self.ulid(), self.ulid(), self.ulid()];
            calls.spawn(async move {
                let [gone, other, its] = ids;
                let gone = subscribe(&storage, organization, gone).await;
                storage.delete_subscription(organization, gone.id, BY).await.unwrap();
                let other = OrganizationId::from_ulid(other);
                create_organization(&storage, other).await;
                subscribe(&storage, other, its).await;
            });
        }
        calls.join_all().await;
        while self.storage.sweep(&self.worker, 1000).await.unwrap().more {}
    }

    async fn publish_and_settle(&mut self, count: usize) {
        for start in (0..count).step_by(GROUP) {
            let units = (start..count.min(start + GROUP)).map(|_| self.event_for_all()).collect();
            let units = self.routed(units).await;
            let committed = self.storage.commit(units).await.unwrap();
            let accepted = committed.into_iter().flat_map(|unit| unit.unwrap().events);
            let settlements = accepted.flat_map(|accepted| {
                let failed = match accepted.seq.get() % 10 {
                    0 => Outcome::Exhausted,
                    1..=DUE => Outcome::RetryAt(NOON),
                    _ => Outcome::RetryAt(NOON + HOUR),
                };
                [
                    settlement(&self.quick, accepted.seq, Outcome::Delivered),
                    settlement(&self.failing, accepted.seq, failed),
                ]
            });
            let unit = self.settle(settlements.collect());
            self.storage.commit(vec![unit]).await.unwrap().remove(0).unwrap();
        }
    }

    pub(super) fn event(&mut self, organization: OrganizationId) -> Arc<SealedEvent> {
        Arc::new(SealedEvent {
            id: EventId::from_ulid(self.ulid()),
            organization,
            event_type: "person.updated".parse().unwrap(),
            timestamp: NOON,
            digest: None,
            body: Bytes::from_static(b"{}"),
            changes: None,
        })
    }

    pub(super) fn event_for_all(&mut self) -> Arc<SealedEvent> {
        self.event(self.organization)
    }

    /// Makes a subscription and deletes it when so much is owed to it.
    pub(super) async fn delete_one_that_is_owed(&mut self, count: usize) {
        let id = self.ulid();
        let gone = subscribe(&self.storage, self.organization, id).await;
        let events = (0..count).map(|_| self.event_for_all()).collect();
        let units = self.routed_to(events, Some(gone.lane)).await;
        for committed in self.storage.commit(units).await.unwrap() {
            committed.unwrap();
        }
        self.storage.delete_subscription(self.organization, gone.id, BY).await.unwrap();
    }

    pub(super) async fn routed(&self, events: Vec<Arc<SealedEvent>>) -> Vec<Unit> {
        self.routed_to(events, None).await
    }

    /// A unit for each event, under a key of its own: to one lane, or to all.
    async fn routed_to(&self, events: Vec<Arc<SealedEvent>>, only: Option<LaneId>) -> Vec<Unit> {
        let routes = self.storage.routes(self.organization).await.unwrap().unwrap();
        let lanes = routes.lanes.iter().map(|(lane, _)| *lane);
        let lanes: Arc<[LaneId]> =
            lanes.filter(|lane| only.is_none_or(|only| only == *lane)).collect();
        let unit = |event: Arc<SealedEvent>| {
            let key = event.id.to_string();
            Unit::publish(Publish {
                organization: self.organization,
                route_version: routes.version,
                events: vec![Routed::new(event, Arc::clone(&lanes))],
                idempotency: Some(Idempotency { key, fingerprint: [0; 32] }),
                metering: None,
            })
        };
        events.into_iter().map(unit).collect()
    }

    pub(super) fn settle(&self, settlements: Vec<Settlement>) -> Unit {
        let (lanes, switch_offs) = (Vec::new(), Vec::new());
        Unit::settle(Settle { worker: self.worker, settlements, lanes, switch_offs })
    }

    pub(super) fn token(&mut self) -> Token {
        let id = self.ulid().to_bytes();
        Token {
            digest: Digest::of(&id),
            kind: TokenKind::Access,
            client: "client".to_owned(),
            organization: self.organization,
            family: TokenFamily::from_bytes(id),
            scopes: Scopes::NONE,
            expires_at: NOON + HOUR,
        }
    }

    /// One that is over at once.
    pub(super) async fn replay(&mut self) {
        let new = NewReplay::new(ReplayOf::Missing);
        let id = ReplayId::from_ulid(self.ulid());
        let replay = Replay::new(id, self.organization, self.quick.id, new, NOON);
        self.storage.create_replay(replay).await.unwrap();
        self.storage.cancel_replay(self.organization, id).await.unwrap();
    }
}

pub(super) async fn create_organization(storage: &SqliteStorage, id: OrganizationId) {
    let row = Organization::new(id, id.to_string(), NOON);
    storage.create_organization(row, BY).await.unwrap();
}

pub(super) async fn subscribe(
    storage: &SqliteStorage,
    organization: OrganizationId,
    id: Ulid,
) -> Subscription {
    let url = CallbackUrl::from_stored("https://receiver.example/");
    let new = NewSubscription::new(url, vec!["*".parse().unwrap()]);
    let (id, secret) = (SubscriptionId::from_ulid(id), Secret::new("as-documented").unwrap());
    let draft = Subscription::new(id, organization, new, secret, NOON);
    storage.create_subscription(draft, &Tiers::default(), BY).await.unwrap()
}

pub(super) fn pause() -> SubscriptionUpdate {
    let mut update = SubscriptionUpdate::default();
    update.active = Some(false);
    update
}

pub(super) fn client(organization: OrganizationId, id: &str) -> Client {
    let (id, scopes) = (id.to_owned(), Scopes::NONE);
    Client { id, organization, secret: secret(), scopes, created_at: NOON }
}

pub(super) fn entity_key(id: &str) -> EntityKey {
    EntityKey::new("person".parse().unwrap(), id.parse().unwrap())
}

pub(super) fn entity_step(id: &str, expected: Expected, action: EntityAction) -> EntityStep {
    EntityStep { key: entity_key(id), expected, action }
}

pub(super) fn entry(field: &str, value: &str) -> IndexEntry {
    IndexEntry { field: field.into(), value: IndexValue(value.as_bytes().into()) }
}

/// One that is new.
pub(super) fn put_entity(name: &str, team: &str, due_at: Option<Timestamp>) -> PutEntity {
    PutEntity {
        created_at: NOON,
        updated_at: NOON,
        due_at,
        document: Bytes::from_static(b"{}"),
        unindexed: Vec::new(),
        indexed: vec![entry("name", name), entry("team", team), entry("status", "active")],
    }
}

pub(super) fn secret() -> Digest {
    Digest::of(b"a secret")
}

/// What a first attempt came to.
pub(super) fn settlement(subscription: &Subscription, seq: Seq, outcome: Outcome) -> Settlement {
    let (status, error) = match outcome {
        Outcome::Delivered => (200, None),
        _ => (500, Some(AttemptError::Status)),
    };
    let log = error.map(|_| attempt(1)).into_iter().collect();
    let (lane, status) = (subscription.lane, Some(status));
    Settlement { lane, seq, outcome, attempts: 1, charged: 1, at: NOON, status, error, log }
}

/// What a second one came to.
pub(super) fn again(subscription: &Subscription, accepted: Accepted) -> Settlement {
    let first = settlement(subscription, accepted.seq, Outcome::Exhausted);
    Settlement { attempts: 2, log: vec![attempt(2)], ..first }
}

fn attempt(number: u32) -> Attempt {
    Attempt {
        number,
        started_at: NOON,
        status: Some(500),
        error: Some(AttemptError::Status),
        detail: None,
        probe: false,
        charged: true,
        timings: Timings::default(),
    }
}

fn ulid(number: u64) -> Ulid {
    Ulid::from_parts(NOON.as_millis_u64(), number.into())
}

pub(super) const BY: &Actor = &Actor::APPLICATION;
pub(super) const NOON: Timestamp = Timestamp::from_millis(1_705_329_120_000);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
/// So much of everything is there already when there are few.
pub(super) const PAGE: usize = 4;
/// So many of the first ten retries are due.
pub(super) const DUE: u64 = 5;
/// Units in a commit.
const GROUP: usize = 1000;
