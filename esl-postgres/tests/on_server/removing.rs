//! What is let go of while others write.

use std::{sync::Arc, time::Duration};

use esl_core::{
    Actor, CallbackUrl, EventId, LaneId, NewEvent, NewSubscription, Organization, OrganizationId,
    Secret, Subscription, SubscriptionId, Tiers, Timestamp, seal,
    storage::{Commit, Publish, Removal, Routed, Subscriptions, Tenancy, Unit},
};
use esl_postgres::PostgresStorage;
use tokio_postgres::{Client, NoTls};

use crate::cluster;

const ORGANIZATION: OrganizationId = OrganizationId::from_bytes([1; 16]);
const EVENT: EventId = EventId::from_bytes([2; 16]);

/// A storage with an event that is owed to a lane, and somebody who writes into its tables by hand.
async fn owing(schema: &str) -> (PostgresStorage, LaneId, Client) {
    let url = format!("{}&application_name={schema}", cluster::url());
    let options = PostgresStorage::options().schema(schema).may_lose_everything();
    let storage = options.open(&url).await.unwrap();
    let organization = Organization::new(ORGANIZATION, "Acme", Timestamp::EPOCH);
    storage.create_organization(organization, &Actor::APPLICATION).await.unwrap();
    let url = CallbackUrl::from_stored("https://receiver.example/");
    let new = NewSubscription::new(url, vec!["*".parse().unwrap()]);
    let secret = Secret::new("as-documented").unwrap();
    let id = SubscriptionId::from_bytes([3; 16]);
    let draft = Subscription::new(id, ORGANIZATION, new, secret, Timestamp::EPOCH);
    let created = storage.create_subscription(draft, &Tiers::default(), &Actor::APPLICATION).await;
    let lane = created.unwrap().lane;

    let event = NewEvent::new(ORGANIZATION, "person.updated".parse().unwrap(), &"Jane").unwrap();
    let event = Arc::new(seal(&event, EVENT, Timestamp::from_millis(1)));
    let publish = Publish {
        organization: ORGANIZATION,
        route_version: storage.routes(ORGANIZATION).await.unwrap().unwrap().version,
        events: vec![Routed::new(event, vec![lane].into())],
        idempotency: None,
        metering: None,
    };
    storage.commit(vec![Unit::publish(publish)]).await.unwrap().remove(0).unwrap();

    let (client, connection) = tokio_postgres::connect(cluster::url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    (storage, lane, client)
}

#[tokio::test]
async fn what_a_settlement_under_way_puts_off_is_erased_all_the_same() {
    let schema = cluster::new_schema();
    let (storage, _, mut hand) = owing(&schema).await;
    let settlement = hand.transaction().await.unwrap();
    let put_off = format!(
        "WITH gone AS (DELETE FROM {schema}.open RETURNING lane, seq),
         tried AS (
             INSERT INTO {schema}.attempts
                 (lane, seq, number, started_at, detail, probe, charged, total_ns)
             SELECT lane, seq, 1, 1, 'Jane', false, true, 1 FROM gone
         )
         INSERT INTO {schema}.open (lane, due_at, seq, attempts)
         SELECT lane, 1000000000000000, seq, 1 FROM gone"
    );
    assert_eq!(settlement.execute(&put_off, &[]).await.unwrap(), 1);
    let erasing = tokio::spawn({
        let storage = storage.clone();
        async move { storage.erase_event(ORGANIZATION, EVENT).await }
    });
    let waits = "SELECT 1 FROM pg_stat_activity
                 WHERE application_name = $1 AND wait_event_type = 'Lock' AND query LIKE '%erase_1%'";
    while settlement.query_opt(waits, &[&schema]).await.unwrap().is_none() {
        assert!(!erasing.is_finished(), "it does not wait for the settlement");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    settlement.commit().await.unwrap();
    erasing.await.unwrap().unwrap();
    let left = format!(
        "SELECT (SELECT count(*) FROM {schema}.open),
             (SELECT count(*) FROM {schema}.closed WHERE state = 3 AND attempts = 1),
             (SELECT count(detail) FROM {schema}.attempts)"
    );
    let row = hand.query_one(&left, &[]).await.unwrap();
    let left: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
    assert_eq!(left, [0, 1, 0]);
}

#[tokio::test]
async fn an_organization_that_is_deleted_twice_at_once_is_deleted_once() {
    let schema = cluster::new_schema();
    let (storage, ..) = owing(&schema).await;
    let delete = || storage.delete_organization(ORGANIZATION, &Actor::APPLICATION);
    let (one, other) = tokio::join!(delete(), delete());
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
}
