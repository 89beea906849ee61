//! A storage in use: publishers, a settler, tenants, an embedder and chores, all at once, until they
//! are done or the storage fails them.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use esl_core::{
    Actor, CallbackUrl, Client, Clock, Digest, Esl, EventId, LaneId, Limit, NewEvent,
    NewSubscription, Organization, OrganizationId, Scopes, SealedEvent, Secret, Seq, Subscription,
    SubscriptionId, SystemClock, Tiers, Timestamp, Token, TokenFamily, TokenKind, WorkerId,
    storage::{
        Commit, Idempotency, Lanes, Metering, Outcome, Publish, Refused, Removal, Routed, Settle,
        Settlement, StorageError, StorageErrorKind, Subscriptions, Tenancy, Tenure, Unit, Want,
        Worker,
    },
};
use esl_sqlite::{SqliteStorage, rusqlite, rusqlite::Connection};
use fastrand::Rng;
use tokio::{runtime::Handle, task::JoinSet};
use ulid::Ulid;

use crate::{
    ledger::{Ledger, Subscribed},
    random,
};

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Everything that is done, and noted in the ledger.
#[derive(Clone)]
pub(crate) struct Life {
    pub(crate) storage: SqliteStorage,
    pub(crate) ledger: Ledger,
    pub(crate) path: PathBuf,
    /// Whether the embedder makes checkpoints of its own.
    pub(crate) has_own_checkpoints: bool,
}

impl Life {
    pub(crate) fn open(path: PathBuf, ledger: &Ledger) -> Result<Self, StorageError> {
        let storage = SqliteStorage::open(&path)?;
        Ok(Self { storage, ledger: ledger.clone(), path, has_own_checkpoints: true })
    }

    /// Everybody at once; comes back when all have done what they do, or what they got in place of it.
    pub(crate) async fn run(&self, seed: u64) -> Vec<Failure> {
        let mut all = JoinSet::new();
        for number in 0..3 {
            let (life, random) = (self.clone(), random(seed, number));
            all.spawn(async move { life.publish_on(random).await });
        }
        let (life, draws) = (self.clone(), random(seed, 3));
        all.spawn(async move { life.settle_on(draws).await });
        let (life, draws) = (self.clone(), random(seed, 4));
        all.spawn(async move { life.rent(draws).await });
        let (life, draws) = (self.clone(), random(seed, 5));
        // An embedder has threads of its own, which may wait for the database.
        let runtime = Handle::current();
        all.spawn_blocking(move || runtime.block_on(life.embed(draws)));
        let (life, draws) = (self.clone(), random(seed, 6));
        // Whoever erases waits until the WAL is empty, which a disk without power will never do.
        let erasing = tokio::spawn(async move { life.erase(draws).await });
        let results = all.join_all().await;
        erasing.abort();
        let erased = erasing.await.unwrap_or(Ok(()));
        results.into_iter().chain([erased]).filter_map(Result::err).collect()
    }

    async fn publish_on(&self, mut random: Rng) -> Result<(), Failure> {
        self.found(&mut random).await?;
        for _ in 0..random.u32(1..40) {
            let organizations = self.ledger.book().acknowledged_organizations();
            let organization = random.choice(organizations).unwrap();
            self.publish(organization, &mut random).await?;
        }
        Ok(())
    }

    /// One unit, of some events, with or without an idempotency key.
    pub(crate) async fn publish(
        &self,
        organization: OrganizationId,
        random: &mut Rng,
    ) -> Result<(), Failure> {
        let routes = self.storage.routes(organization).await?.expect("it was acknowledged");
        let lanes: Arc<[LaneId]> = routes.lanes.iter().map(|(lane, _)| *lane).collect();
        let events = (0..random.usize(1..4))
            .map(|_| Routed::new(event(organization, random), Arc::clone(&lanes)))
            .collect();
        let key = random.bool().then(|| Idempotency {
            key: ulid(random).to_string(),
            fingerprint: std::array::from_fn(|_| random.u8(..)),
        });
        let publish = Publish {
            organization,
            route_version: routes.version,
            events,
            idempotency: key,
            metering: Some(Metering {
                limit: Limit::Unlimited,
                refuses: true,
                notices: Vec::new(),
            }),
        };
        self.ledger.book().tries(&publish);
        let results = self.storage.commit(vec![Unit::publish(publish.clone())]).await;
        match results?.remove(0) {
            Ok(committed) => self.ledger.book().accepts(&committed.events),
            // A subscription came or went meanwhile.
            Err(Refused::Rerouted) => self.ledger.book().refuses(&publish),
            Err(refused) => panic!("{refused}"),
        }
        Ok(())
    }

    async fn settle_on(&self, mut random: Rng) -> Result<(), Failure> {
        let worker = match self
            .storage
            .enlist(WorkerId::from_ulid(ulid(&mut random)), Tenure::default())
            .await
        {
            Ok((worker, _)) => worker,
            // One that has not come so far as to resign.
            Err(error) if error.kind() == StorageErrorKind::Fenced => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for _ in 0..random.u32(1..15) {
            let organizations = self.ledger.book().acknowledged_organizations();
            let Some(organization) = random.choice(organizations) else {
                tokio::task::yield_now().await;
                continue;
            };
            self.settle(worker, organization, &mut random).await?;
            self.storage.sweep(&worker, random.usize(1..50)).await?;
            self.storage.remove_old(&worker, Some(DAY), random.usize(1..50)).await?;
        }
        self.storage.resign(&worker).await?;
        Ok(())
    }

    async fn settle(
        &self,
        worker: Worker,
        organization: OrganizationId,
        random: &mut Rng,
    ) -> Result<(), Failure> {
        let mut settlements = Vec::new();
        for (lane, seq) in self.claim(worker, organization).await? {
            if random.u8(0..4) > 0 {
                settlements.push(settlement(lane, seq, random.u8(0..4) == 0));
            }
        }
        let tried: Vec<_> = settlements.iter().map(|it| ((it.lane, it.seq), it.outcome)).collect();
        for (delivery, outcome) in &tried {
            self.ledger.book().settled.insert(*delivery, (*outcome, false));
        }
        let settle = Settle { worker, settlements, lanes: Vec::new(), switch_offs: Vec::new() };
        self.storage.commit(vec![Unit::settle(settle)]).await?.remove(0)?;
        for (delivery, outcome) in tried {
            self.ledger.book().settled.insert(delivery, (outcome, true));
        }
        Ok(())
    }

    /// What is owed now to all subscriptions of an organization.
    pub(crate) async fn claim(
        &self,
        worker: Worker,
        organization: OrganizationId,
    ) -> Result<Vec<(LaneId, Seq)>, Failure> {
        let routes = self.storage.routes(organization).await?.expect("it was acknowledged");
        let lanes: Vec<_> = routes.lanes.iter().map(|(lane, _)| *lane).collect();
        self.storage.take(&worker, &lanes).await?;
        let want = |lane| Want {
            lane,
            room: 10_000,
            after: Some(Seq::ZERO),
            held: Vec::new(),
            in_order: false,
        };
        let wants: Vec<_> = lanes.into_iter().map(want).collect();
        let claimed = self.storage.claim(&worker, &wants, usize::MAX).await?;
        let due = claimed.iter().flat_map(|it| it.due.iter().map(|due| (it.lane, due.seq)));
        Ok(due.collect())
    }

    async fn rent(&self, mut random: Rng) -> Result<(), Failure> {
        for _ in 0..random.u32(1..12) {
            self.found(&mut random).await?;
            let subscriptions: Vec<_> = {
                let book = self.ledger.book();
                let all = book.subscriptions.iter();
                let live = all.filter(|(_, it)| it.is_created && it.is_deleted.is_none());
                live.map(|(id, it)| (*id, it.organization)).collect()
            };
            if random.u8(0..3) == 0
                && let Some((id, organization)) = random.choice(subscriptions)
            {
                let mark = |is_deleted| {
                    let mut book = self.ledger.book();
                    book.subscriptions.get_mut(&id).unwrap().is_deleted = Some(is_deleted);
                };
                mark(false);
                self.storage.delete_subscription(organization, id, &Actor::APPLICATION).await?;
                mark(true);
            }
        }
        Ok(())
    }

    /// An organization with a subscription and a client with a token.
    async fn found(&self, random: &mut Rng) -> Result<(), Failure> {
        let (by, now) = (&Actor::APPLICATION, SystemClock::new().utc());
        let id = OrganizationId::from_ulid(ulid(random));
        self.ledger.book().organizations.insert(id, false);
        self.storage.create_organization(Organization::new(id, id.to_string(), now), by).await?;
        self.ledger.book().organizations.insert(id, true);

        for _ in 0..random.usize(1..4) {
            let subscription = subscription(id, random, now);
            let number = subscription.id;
            let mut subscribed =
                Subscribed { organization: id, is_created: false, is_deleted: None };
            self.ledger.book().subscriptions.insert(number, subscribed);
            self.storage.create_subscription(subscription, &Tiers::default(), by).await?;
            subscribed = Subscribed { organization: id, is_created: true, is_deleted: None };
            self.ledger.book().subscriptions.insert(number, subscribed);
        }

        let client = id.to_string();
        let secret = Digest::of(client.as_bytes());
        let row = Client {
            id: client.clone(),
            organization: id,
            secret,
            scopes: Scopes::all(),
            created_at: now,
        };
        self.storage.create_client(row, by).await?;
        let token = Token {
            digest: Digest::of(ulid(random).to_string().as_bytes()),
            kind: TokenKind::Access,
            client,
            organization: id,
            family: TokenFamily::from_bytes([7; 16]),
            scopes: Scopes::all(),
            expires_at: now + DAY,
        };
        let place = {
            let mut book = self.ledger.book();
            book.tokens.push((token.digest, false));
            book.tokens.len() - 1
        };
        self.storage.store_tokens(&secret, vec![token]).await?;
        self.ledger.book().tokens[place].1 = true;
        Ok(())
    }

    /// The application's own transactions in the same file, with its own habits of checkpointing.
    async fn embed(&self, mut random: Rng) -> Result<(), Failure> {
        let mut connection = Connection::open(&self.path)?;
        connection.busy_timeout(PATIENCE)?;
        let every = if self.has_own_checkpoints { random.u8(1..40) } else { 0 };
        connection.execute_batch(&format!(
            "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = {every};
             CREATE TABLE IF NOT EXISTS people (event BLOB NOT NULL)"
        ))?;
        let publisher = Esl::publisher(self.storage.clone());
        for _ in 0..random.u32(1..20) {
            let organization = OrganizationId::from_ulid(ulid(&mut random));
            let data = serde_json::json!({ "name": "John" });
            let event = NewEvent::new(organization, "person.created".parse()?, &data)?;
            let prepared = publisher.prepare(event).await?;
            let id = prepared.id();
            let turn = self.storage.turn().await?;
            let behavior = rusqlite::TransactionBehavior::Immediate;
            let transaction = connection.transaction_with_behavior(behavior)?;
            transaction.execute("INSERT INTO people VALUES (?1)", [id.to_bytes()])?;
            let receipt = self.storage.publish_in(&transaction, prepared)?;
            self.ledger.book().people.insert(id, false);
            transaction.commit()?;
            self.ledger.book().people.insert(id, true);
            drop(turn);
            receipt.notify();
            let mode = random.choice(["PASSIVE", "FULL", "RESTART", "TRUNCATE"]).unwrap();
            if self.has_own_checkpoints && random.u8(0..4) == 0 {
                // As far as it gets without waiting for anybody.
                connection.busy_timeout(Duration::ZERO)?;
                let checkpoint = format!("PRAGMA wal_checkpoint({mode})");
                connection.query_row(&checkpoint, [], |_| Ok(()))?;
                connection.busy_timeout(PATIENCE)?;
            }
        }
        Ok(())
    }

    async fn erase(&self, mut random: Rng) -> Result<(), Failure> {
        for _ in 0..random.u32(0..4) {
            let events: Vec<_> = {
                let book = self.ledger.book();
                let accepted = book.events.iter().filter(|(_, told)| told.accepted.is_some());
                accepted.map(|(id, told)| (*id, told.event.organization)).collect()
            };
            let Some((id, organization)) = random.choice(events) else {
                tokio::task::yield_now().await;
                continue;
            };
            let mark = |is_erased| {
                self.ledger.book().events.get_mut(&id).unwrap().is_erased = Some(is_erased);
            };
            mark(false);
            match self.storage.erase_event(organization, id).await {
                Ok(_) => mark(true),
                // Retention was quicker.
                Err(error) if !error.is_transient() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

pub(crate) fn settlement(lane: LaneId, seq: Seq, is_put_off: bool) -> Settlement {
    let at = SystemClock::new().utc();
    let outcome = if is_put_off { Outcome::RetryAt(at + HOUR) } else { Outcome::Delivered };
    Settlement {
        lane,
        seq,
        outcome,
        attempts: 1,
        charged: 1,
        at,
        status: Some(if is_put_off { 500 } else { 200 }),
        error: None,
        log: Vec::new(),
    }
}

pub(crate) fn ulid(random: &mut Rng) -> Ulid {
    Ulid::from_parts(random.u64(..1 << 48), random.u128(..))
}

/// Some are as old as what retention removes.
fn event(organization: OrganizationId, random: &mut Rng) -> Arc<SealedEvent> {
    let length = if random.u8(0..8) == 0 { random.usize(..20_000) } else { random.usize(..900) };
    let body: Bytes = (0..length).map(|_| random.alphanumeric() as u8).collect();
    let now = SystemClock::new().utc();
    let is_old = organization.to_bytes()[15].is_multiple_of(4);
    Arc::new(SealedEvent {
        id: EventId::from_ulid(ulid(random)),
        organization,
        event_type: "person.updated".parse().unwrap(),
        timestamp: if is_old { now - 2 * DAY } else { now },
        digest: None,
        body,
        changes: None,
    })
}

pub(crate) fn subscription(
    organization: OrganizationId,
    random: &mut Rng,
    now: Timestamp,
) -> Subscription {
    let callback_url = CallbackUrl::from_stored("https://receiver.example/");
    let new = NewSubscription::new(callback_url, vec!["*".parse().unwrap()]);
    let secret = Secret::new("as-documented").unwrap();
    let id = SubscriptionId::from_ulid(ulid(random));
    Subscription::new(id, organization, new, secret, now)
}

pub(crate) const DAY: Duration = Duration::from_secs(86_400);
const PATIENCE: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(3600);
