//! Storage's time, which is the server's.

use esl_core::{
    WorkerId,
    storage::{Lanes, Tenure},
};
use esl_postgres::PostgresStorage;
use ulid::Ulid;

use crate::cluster::{self, Observer};

const SECOND: i64 = 1000;
const HOUR: i64 = 3600 * SECOND;

async fn open(schema: &str) -> PostgresStorage {
    let options = PostgresStorage::options().schema(schema).may_lose_everything();
    options.open(cluster::url()).await.expect("the database can be opened")
}

async fn number(observer: &Observer, statement: &str) -> i64 {
    observer.number(statement, &[]).await
}

#[tokio::test]
async fn time_never_goes_back_and_what_it_is_ahead_by_melts() {
    let schema = cluster::new_schema();
    drop(open(&schema).await);
    let observer = Observer::connect().await;
    let noon = 12 * HOUR;
    for (raw, ahead, latest, expected) in [
        // Five seconds after the last renewal.
        (noon, 0, noon - 5 * SECOND, 0),
        // Set forward, or a server took over whose clock is ahead: time follows.
        (noon + HOUR, 0, noon, 0),
        // Set back by two seconds, and by an hour: it stands still.
        (noon, 0, noon + 2 * SECOND, 2 * SECOND),
        (noon, 0, noon + HOUR, HOUR),
        // Set back once more.
        (noon, HOUR, noon + 2 * HOUR, 2 * HOUR),
        // It gives up 50 ms while it goes on, and less where that would lead back.
        (noon + 5 * SECOND, HOUR, noon + HOUR, HOUR - 50),
        (noon, HOUR, noon + HOUR - 20, HOUR - 20),
        // The rest is given up as a whole.
        (noon + 5 * SECOND, 30, noon, 0),
    ] {
        let statement = format!("SELECT {schema}.clock_ahead_1({raw}, {ahead}, {latest})");
        assert_eq!(number(&observer, &statement).await, expected, "{raw} {ahead} {latest}");
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_ends_no_epoch() {
    let schema = cluster::new_schema();
    let storage = open(&schema).await;
    let observer = Observer::connect().await;
    let set = async |ahead: i64| {
        let set = format!("UPDATE {schema}.settings SET clock_ahead_ms = {ahead}");
        observer.client.batch_execute(&set).await.unwrap();
    };
    let time = format!("SELECT {schema}.now_1(NULL)");
    // As if the server's clock were an hour ahead, and then set right.
    set(HOUR).await;
    let id = |number| WorkerId::from_ulid(Ulid::from_parts(1, number));
    let before = storage.enlist(id(1), Tenure::default()).await.unwrap().0;
    let ahead = number(&observer, &time).await;
    set(0).await;
    // Whoever comes now goes by the time that there was, and so does who was there.
    let after = storage.enlist(id(2), Tenure::default()).await.unwrap().0;
    assert!(number(&observer, &time).await >= ahead - SECOND);
    storage.renew(&after).await.unwrap();
    storage.renew(&before).await.unwrap();
}
