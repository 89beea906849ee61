//! An organization with a subscription, whose rows are written by hand.

use esl_core::{
    Actor, CallbackUrl, LaneId, NewSubscription, Organization, OrganizationId, Secret,
    Subscription, SubscriptionId, Tiers, Timestamp, WorkerId,
    storage::{Lanes, Subscriptions, Tenancy, Tenure, Worker},
};
use esl_postgres::PostgresStorage;
use tokio_postgres::{Client, NoTls};

use crate::cluster;

pub(crate) struct World {
    pub(crate) schema: String,
    pub(crate) storage: PostgresStorage,
    pub(crate) organization: OrganizationId,
    pub(crate) subscription: SubscriptionId,
    pub(crate) lane: LaneId,
    hand: Client,
}

impl World {
    pub(crate) async fn new() -> Self {
        let schema = cluster::new_schema();
        let storage = open(&schema).await;
        let organization = OrganizationId::from_bytes([1; 16]);
        let new = Organization::new(organization, "Acme", Timestamp::EPOCH);
        storage.create_organization(new, &Actor::APPLICATION).await.unwrap();
        let Subscription { id: subscription, lane, .. } =
            subscribe(&storage, organization, 1).await;
        let hand = by_hand().await;
        Self { schema, storage, organization, subscription, lane, hand }
    }

    /// Another handle, as another process has one.
    pub(crate) async fn beside(&self) -> PostgresStorage {
        open(&self.schema).await
    }

    /// Does something by hand, in which `esl.` stands for this world's schema.
    pub(crate) async fn write(&self, sql: &str) {
        self.hand.batch_execute(&self.sql(sql)).await.unwrap();
    }

    /// Reads numbers by hand.
    pub(crate) async fn numbers(&self, sql: &str) -> Vec<i64> {
        let rows = self.hand.query(&self.sql(sql), &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        sql.replace("esl.", &format!("{}.", self.schema))
    }

    /// Events 1 to `count`, owed to nobody.
    pub(crate) async fn events(&self, count: u32) {
        self.write(&format!(
            "INSERT INTO esl.events
                 (organization, seq, id, event_type, timestamp, deliveries, body)
             SELECT 1, n, lpad(to_hex(n), 32, '0')::uuid, 'person.updated', n, 1, '{{}}'
             FROM generate_series(1, {count}) n;
             UPDATE esl.organizations SET last_seq = {count}"
        ))
        .await;
    }

    /// They are owed to the lane, and were never tried.
    pub(crate) async fn owe(&self) {
        let lane = self.lane.get();
        let owe = "INSERT INTO esl.open (lane, due_at, seq) SELECT";
        self.write(&format!("{owe} {lane}, 0, seq FROM esl.events")).await;
    }

    pub(crate) async fn worker(&self) -> Worker {
        self.storage.enlist(WorkerId::from_bytes([1; 16]), Tenure::default()).await.unwrap().0
    }
}

/// Somebody who writes into the tables by hand.
pub(crate) async fn by_hand() -> Client {
    by_hand_at(cluster::url()).await
}

pub(crate) async fn by_hand_at(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn open(schema: &str) -> PostgresStorage {
    let options = PostgresStorage::options().schema(schema).may_lose_everything();
    options.open(cluster::url()).await.unwrap()
}

async fn subscribe(
    storage: &PostgresStorage,
    organization: OrganizationId,
    number: u8,
) -> Subscription {
    let url = CallbackUrl::from_stored("https://receiver.example/");
    let new = NewSubscription::new(url, vec!["*".parse().unwrap()]);
    let secret = Secret::new("as-documented").unwrap();
    let id = SubscriptionId::from_bytes([number; 16]);
    let draft = Subscription::new(id, organization, new, secret, Timestamp::EPOCH);
    let tiers = Tiers::default();
    storage.create_subscription(draft, &tiers, &Actor::APPLICATION).await.unwrap()
}
