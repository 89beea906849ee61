//! A database that grows.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use esl_core::{
    Actor, Attempt, AttemptError, CallbackUrl, Client, Digest, EventId, LaneId, NewReplay,
    NewSubscription, Organization, OrganizationId, Replay, ReplayId, ReplayOf, Scopes, SealedEvent,
    Secret, Seq, Subscription, SubscriptionId, SubscriptionUpdate, Tiers, Timestamp, Timings,
    Token, TokenFamily, TokenKind, WorkerId,
    storage::{
        Accepted, Commit, Feed, Idempotency, Lanes, Outcome, Publish, Replays, Routed, Settle,
        Settlement, Subscriptions, Tenancy, Tenure, Unit, Worker,
    },
    testing::ManualClock,
};
use esl_postgres::PostgresStorage;
use tokio_postgres::{Client as Connection, NoTls};
use ulid::Ulid;

use super::plans::Watch;
use crate::{
    cluster::{self, Own},
    world::by_hand_at,
};

/// A database in which there is some of everything: the more events there are, the more of all else.
pub(super) struct World {
    pub(super) watch: Watch,
    schema: String,
    /// Whose plans nobody looks at.
    hand: Connection,
    pub(super) storage: PostgresStorage,
    /// Calls functions by hand.
    pub(super) caller: Connection,
    pub(super) worker: Worker,
    /// Everything of it is old.
    pub(super) old: Tenant,
    /// It is deleted, and nothing of it was removed yet.
    pub(super) gone: Tenant,
    pub(super) organization: OrganizationId,
    /// Another one, whose events are being fanned out.
    pub(super) beside: OrganizationId,
    /// Takes everything at once.
    pub(super) quick: Subscription,
    /// Fails: of ten deliveries the first ones are due for another try, the last one is given up, and
    /// the others wait for their time.
    pub(super) failing: Subscription,
    /// Nothing was tried yet.
    pub(super) backlog: Subscription,
    pub(super) paused: Subscription,
    /// How far replays of each kind have gone.
    pub(super) replayed_to: [Seq; 3],
    last_id: u64,
}

/// An organization with one subscription.
pub(super) struct Tenant {
    pub(super) key: i32,
    pub(super) id: OrganizationId,
    pub(super) lane: LaneId,
}

impl World {
    pub(super) async fn new(own: &'static Own) -> Self {
        let schema = cluster::new_schema();
        // What is gone from tables and indexes costs nothing once no snapshot can see it, of others in the
        // same database.
        let database = cluster::new_database().await;
        let watch = Watch::new(own, &schema, &database);
        let (storage, hand) = (open(&watch, &schema).await, by_hand_at(&database).await);
        let ids = [1, 2, 3, 4].map(|number| OrganizationId::from_ulid(ulid(number)));
        for id in ids {
            create_organization(&storage, id).await;
        }
        let [old, gone, organization, beside] = ids;
        let mut subscriptions = Vec::new();
        for (id, number) in [old, gone].into_iter().chain([organization; 4]).zip(5..) {
            subscriptions.push(subscribe(&storage, id, ulid(number)).await);
        }
        let [of_old, of_gone, quick, failing, backlog, paused] = subscriptions.try_into().unwrap();
        storage.update_subscription(organization, paused.id, pause(), BY).await.unwrap();
        storage.create_client(client(organization, "client"), BY).await.unwrap();
        let worker =
            storage.enlist(WorkerId::from_ulid(ulid(11)), Tenure::default()).await.unwrap().0;
        storage.begin_feed(&worker, "feed").await.unwrap();
        let lanes = [quick.lane, failing.lane, backlog.lane];
        storage.take(&worker, &lanes).await.unwrap();
        let world = Self {
            caller: connect(&watch).await,
            watch,
            schema,
            hand,
            storage,
            worker,
            old: Tenant { key: 1, id: old, lane: of_old.lane },
            gone: Tenant { key: 2, id: gone, lane: of_gone.lane },
            organization,
            beside,
            quick,
            failing,
            backlog,
            paused,
            replayed_to: [Seq::ZERO; 3],
            last_id: 11,
        };
        world.write(BEGIN).await;
        world
    }

    /// Adds so many events, and of all else in proportion. What is planned already stays planned.
    pub(super) async fn grow_by(&self, events: u32) {
        let Self { quick, failing, backlog, paused, old, gone, .. } = self;
        let mut sql = FILL.replace("{count}", &events.to_string());
        for (name, lane) in [
            ("quick", quick.lane),
            ("failing", failing.lane),
            ("backlog", backlog.lane),
            ("paused", paused.lane),
            ("old", old.lane),
            ("gone", gone.lane),
        ] {
            sql = sql.replace(&format!("{{{name}}}"), &lane.get().to_string());
        }
        let times = [("{noon}", NOON), ("{later}", NOON + HOUR), ("{long_ago}", NOON - AGE - HOUR)];
        for (name, time) in times {
            sql = sql.replace(name, &time.as_millis().to_string());
        }
        self.write(&sql).await;
    }

    /// New connections, on which nothing is planned yet.
    pub(super) async fn reconnect(&mut self) {
        self.storage = open(&self.watch, &self.schema).await;
        self.caller = connect(&self.watch).await;
    }

    /// The same, through something that keeps what ESL asks of the planner for itself.
    pub(super) async fn reconnect_through_a_pooler(&mut self) {
        self.watch.plans_as_usual();
        self.reconnect().await;
    }

    pub(super) async fn analyze(&self) {
        for row in self.hand.query(TABLES, &[&self.schema]).await.unwrap() {
            let table: &str = row.get(0);
            self.write(&format!("ANALYZE esl.{table}")).await;
        }
    }

    /// Nothing is left in lanes that were deleted, as after a round of removing.
    pub(super) async fn sweep(&self) {
        self.write("UPDATE esl.subscriptions SET is_swept = 2 WHERE is_swept = 1").await;
    }

    /// Calls a function of ESL's, and says how many rows came.
    pub(super) async fn call(&self, sql: &str) -> usize {
        let sql = self.sql(sql);
        self.caller.query(&sql, &[]).await.unwrap().len()
    }

    async fn write(&self, sql: &str) {
        self.hand.batch_execute(&self.sql(sql)).await.unwrap();
    }

    fn sql(&self, sql: &str) -> String {
        sql.replace("esl.", &format!("{}.", self.schema))
    }

    pub(super) fn ulid(&mut self) -> Ulid {
        self.last_id += 1;
        ulid(self.last_id)
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

    /// A unit under a key of its own: for one lane, or all.
    pub(super) async fn routed(
        &self,
        events: Vec<Arc<SealedEvent>>,
        only: Option<LaneId>,
    ) -> Vec<Unit> {
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

    /// Makes a subscription and deletes it when so much is owed to it.
    pub(super) async fn delete_one_that_is_owed(&mut self, count: usize) {
        let id = self.ulid();
        let gone = subscribe(&self.storage, self.organization, id).await;
        let events = (0..count).map(|_| self.event(self.organization)).collect();
        let units = self.routed(events, Some(gone.lane)).await;
        for committed in self.storage.commit(units).await.unwrap() {
            committed.unwrap();
        }
        self.storage.delete_subscription(self.organization, gone.id, BY).await.unwrap();
    }

    pub(super) fn settle(&self, settlements: Vec<Settlement>) -> Unit {
        let (lanes, switch_offs) = (Vec::new(), Vec::new());
        Unit::settle(Settle { worker: self.worker, settlements, lanes, switch_offs })
    }

    pub(super) fn token(&mut self, kind: TokenKind) -> Token {
        let id = self.ulid().to_bytes();
        Token {
            digest: Digest::of(&id),
            kind,
            client: "client".to_owned(),
            organization: self.organization,
            family: TokenFamily::from_bytes(id),
            scopes: Scopes::all(),
            expires_at: NOON + HOUR,
        }
    }

    pub(super) async fn replay(
        &mut self,
        of: ReplayOf,
        subscription: SubscriptionId,
        after: Seq,
    ) -> Replay {
        let id = ReplayId::from_ulid(self.ulid());
        let mut new = NewReplay::new(of);
        new.range.from = Seq::new(after.get() + 1);
        let replay = Replay::new(id, self.organization, subscription, new, NOON);
        self.storage.create_replay(replay).await.unwrap()
    }
}

async fn open(watch: &Watch, schema: &str) -> PostgresStorage {
    let clock = Arc::new(ManualClock::new(NOON));
    // One connection, so that it has called each function often.
    let options = PostgresStorage::options().schema(schema).clock(clock).connections(1);
    options.may_lose_everything().open(&watch.url()).await.unwrap()
}

async fn connect(watch: &Watch) -> Connection {
    let (client, connection) = tokio_postgres::connect(&watch.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

const TABLES: &str = "SELECT tablename::text FROM pg_tables WHERE schemaname = $1";

/// Nothing is analysed but on demand. The second organization is deleted, and some others are there.
const BEGIN: &str = "
DO $$
DECLARE
    v_table regclass;
BEGIN
    FOR v_table IN
        SELECT c.oid FROM pg_class c
        WHERE c.relkind = 'r' AND c.relnamespace = (
            SELECT o.relnamespace FROM pg_class o WHERE o.oid = 'esl.open'::regclass
        )
    LOOP
        EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', v_table);
    END LOOP;
END $$;
UPDATE esl.organizations SET deleted_at = 1 WHERE key = 2;
INSERT INTO esl.organizations (id, name, created_at)
    SELECT md5('first ' || n)::uuid, convert_to('first ' || n, 'UTF8'), 1
    FROM generate_series(1, 1500) n";

const FILL: &str = include_str!("fill.sql");

pub(super) async fn create_organization(storage: &PostgresStorage, id: OrganizationId) {
    let row = Organization::new(id, id.to_string(), NOON);
    storage.create_organization(row, BY).await.unwrap();
}

pub(super) async fn subscribe(
    storage: &PostgresStorage,
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
    let (id, scopes) = (id.to_owned(), Scopes::all());
    Client { id, organization, secret: secret(), scopes, created_at: NOON }
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
/// What is older is removed.
pub(super) const AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
