//! What a handle hears of others, whatever becomes of notifications.

use std::time::Duration;

use esl_core::{
    Actor, LaneId, Organization, OrganizationId, Timestamp, Wake, WorkerId,
    storage::{Change, Lanes, Tenancy, Tenure},
};
use esl_postgres::PostgresStorage;
use tokio::time::{Instant, timeout};

use crate::{cluster, world::by_hand};

async fn open(schema: &str, url: &str) -> PostgresStorage {
    let options = PostgresStorage::options().schema(schema).may_lose_everything();
    options.open(url).await.unwrap()
}

async fn hear(storage: &PostgresStorage, change: Change) {
    let heard = async { while !storage.changed().await.contains(&change) {} };
    timeout(Duration::from_secs(300), heard).await.expect("it is heard");
}

async fn organization(storage: &PostgresStorage, number: u8) -> OrganizationId {
    let id = OrganizationId::from_bytes([number; 16]);
    let organization = Organization::new(id, format!("{number}"), Timestamp::EPOCH);
    storage.create_organization(organization, &Actor::APPLICATION).await.unwrap();
    id
}

#[tokio::test]
async fn what_commits_late_is_heard_though_what_came_after_it_was_seen() {
    let schema = cluster::new_schema();
    let storage = open(&schema, cluster::url()).await;
    let insert = format!("INSERT INTO {schema}.changes (kind, at) VALUES ($1, 0)");
    let (mut slow, quick) = (by_hand().await, by_hand().await);
    let late = slow.transaction().await.unwrap();
    late.execute(&insert, &[&4_i16]).await.unwrap();
    // Many looks, so that the mark of what was read would go past it if it could.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(2_500) {
        quick.execute(&insert, &[&3_i16]).await.unwrap();
        hear(&storage, Change::Tenancy).await;
    }
    late.commit().await.unwrap();
    hear(&storage, Change::Replays).await;
}

#[tokio::test]
async fn a_listener_whose_connection_is_ended_has_missed_nothing() {
    let schema = cluster::new_schema();
    let url = format!("{}&application_name={schema}", cluster::url());
    let storage = open(&schema, &url).await;
    let other = open(&schema, cluster::url()).await;
    let hand = by_hand().await;
    organization(&other, 1).await;
    hear(&storage, Change::Tenancy).await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1";
    assert!(!hand.query(end, &[&schema]).await.unwrap().is_empty());
    organization(&other, 2).await;
    hear(&storage, Change::Tenancy).await;
    // It is told of what comes now, too, and needs not look for it.
    for number in 3..6 {
        organization(&other, number).await;
        hear(&storage, Change::Tenancy).await;
    }
}

#[tokio::test]
async fn whoever_cannot_listen_where_it_is_to_hears_all_the_same() {
    let schema = cluster::new_schema();
    let options = PostgresStorage::options().schema(&schema).may_lose_everything();
    // Nobody is there.
    let options = options.listen_on("postgres://esl@127.0.0.1:1/app?sslmode=disable");
    let storage = options.open(cluster::url()).await.unwrap();
    let other = open(&schema, cluster::url()).await;
    organization(&other, 1).await;
    hear(&storage, Change::Tenancy).await;
}

#[tokio::test]
async fn what_an_application_writes_into_the_intake_is_heard() {
    let schema = cluster::new_schema();
    let storage = open(&schema, cluster::url()).await;
    storage.enlist(WorkerId::from_bytes([1; 16]), Tenure::default()).await.unwrap();
    let insert = format!(
        "INSERT INTO {schema}.intake (organization, event_id, event_type, timestamp)
         VALUES (gen_random_uuid(), gen_random_uuid(), 'a.b', 0)"
    );
    let (mut slow, quick) = (by_hand().await, by_hand().await);
    let late = slow.transaction().await.unwrap();
    late.execute(&insert, &[]).await.unwrap();
    for _ in 0..3 {
        quick.execute(&insert, &[]).await.unwrap();
        hear(&storage, Change::Intake).await;
    }
    // Others that nobody moves do not hide it.
    late.commit().await.unwrap();
    hear(&storage, Change::Intake).await;
}

#[tokio::test]
async fn what_sql_publishes_late_and_commits_later_is_heard() {
    let schema = cluster::new_schema();
    let storage = open(&schema, cluster::url()).await;
    let id = organization(&storage, 1).await;
    storage.enlist(WorkerId::from_bytes([1; 16]), Tenure::default()).await.unwrap();
    let publish = format!("SELECT {schema}.publish($1, 'a.b', '{{}}')");
    let (mut slow, quick) = (by_hand().await, by_hand().await);
    // It began first, but has written nothing yet when others publish.
    let late = slow.transaction().await.unwrap();
    late.query("SELECT 1", &[]).await.unwrap();
    quick.query(&publish, &[&id.to_string()]).await.unwrap();
    hear(&storage, Change::Intake).await;
    late.query(&publish, &[&id.to_string()]).await.unwrap();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(2_500) {
        quick.query(&publish, &[&id.to_string()]).await.unwrap();
        hear(&storage, Change::Intake).await;
    }
    let before = storage.intake(None, 10_000, &[]).await.unwrap().len();
    late.commit().await.unwrap();
    hear(&storage, Change::Intake).await;
    assert_eq!(storage.intake(None, 10_000, &[]).await.unwrap().len(), before + 1);
}

#[tokio::test]
async fn what_sql_publishes_is_numbered_by_a_transaction_that_has_its_own_number() {
    let schema = cluster::new_schema();
    let storage = open(&schema, cluster::url()).await;
    let id = organization(&storage, 1).await;
    let hand = by_hand().await;
    let watch = format!(
        "CREATE FUNCTION {schema}.is_begun() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             ASSERT pg_current_xact_id_if_assigned() IS NOT NULL, 'it has no number yet';
             RETURN NEW;
         END $$;
         CREATE TRIGGER is_begun BEFORE INSERT ON {schema}.intake
             FOR EACH ROW EXECUTE FUNCTION {schema}.is_begun()"
    );
    hand.batch_execute(&watch).await.unwrap();
    let publish = format!("SELECT {schema}.publish($1, 'a.b', '{{}}')");
    hand.query(&publish, &[&id.to_string()]).await.unwrap();
    // As it would be by itself.
    let insert = format!(
        "INSERT INTO {schema}.intake (organization, event_id, event_type, timestamp)
         VALUES (gen_random_uuid(), gen_random_uuid(), 'a.b', 0)"
    );
    hand.execute(&insert, &[]).await.unwrap_err();
}

#[tokio::test]
async fn whoever_was_away_for_too_long_is_told_to_read_everything_again() {
    let schema = cluster::new_schema();
    let storage = open(&schema, cluster::url()).await;
    let other = open(&schema, cluster::url()).await;
    organization(&other, 1).await;
    let hand = by_hand().await;
    let removed = format!(
        "WITH gone AS (DELETE FROM {schema}.changes RETURNING number)
         UPDATE {schema}.settings SET changes_removed_to = (SELECT max(number) FROM gone)"
    );
    hand.execute(&removed, &[]).await.unwrap();
    hear(&storage, Change::All).await;
    let all = timeout(Duration::from_millis(1_500), storage.changed()).await;
    assert!(all.is_err(), "it is told once: {all:?}");
}

#[tokio::test]
async fn hints_name_the_lanes_to_all_others() {
    let schema = cluster::new_schema();
    let [one, other, third] = [
        open(&schema, cluster::url()).await,
        open(&schema, cluster::url()).await,
        open(&schema, cluster::url()).await,
    ];
    let [wakes, hears] = [one.wake(), other.wake()];
    let lanes = [LaneId::new(7), LaneId::new((1 << 40) - 1)];
    // Until all listen, hints are lost: as they may be.
    let mut heard = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(300);
    while heard.len() < lanes.len() && Instant::now() < deadline {
        wakes.notify(&lanes);
        if let Ok(some) = timeout(Duration::from_millis(100), hears.listen()).await {
            heard = some;
        }
    }
    heard.sort_unstable();
    heard.dedup();
    assert_eq!(heard, lanes);
    let own = timeout(Duration::from_millis(100), wakes.listen()).await;
    assert!(own.is_err(), "one's own hints are for others: {own:?}");
    // Who does not ask for hints hears that there is something.
    let mut told = tokio::spawn(async move { hear(&third, Change::Lanes).await });
    loop {
        wakes.notify(&lanes);
        if let Ok(told) = timeout(Duration::from_millis(20), &mut told).await {
            return told.unwrap();
        }
    }
}
