//! A clock that was set back while no engine ran.

use std::{sync::Arc, time::Duration};

use esl_core::{
    Timestamp,
    storage::{Lanes, Tenure},
    testing::ManualClock,
};
use esl_sqlite::{SqliteStorage, rusqlite::Connection};

use crate::{NOON, World, worker_id};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn retries_and_lanes_that_wait_move_with_a_clock_that_was_set_back() {
    for (set_back, expected) in [
        (MINUTE * 60, NOON - MINUTE * 49),
        (MINUTE * 60 * 24 * 365, NOON - MINUTE * 60 * 24 * 365 + MINUTE * 11),
        (Duration::from_millis(900), NOON + MINUTE * 11),
        (Duration::ZERO, NOON + MINUTE * 11),
    ] {
        let world = World::new().await;
        world.publish(1).await;
        let World { folder, storage, .. } = world;
        drop(storage);
        let path = folder.path().join("esl.db");
        let clock = ManualClock::new(NOON);
        let open = || SqliteStorage::options().clock(Arc::new(clock.clone())).open(&path).unwrap();
        let storage = open();
        let (worker, _) = storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
        clock.advance(MINUTE / 4);
        storage.renew(&worker).await.unwrap();
        let connection = Connection::open(&path).unwrap();
        let due = (NOON + MINUTE * 11).as_millis();
        connection.execute("UPDATE esl_open SET due_at = ?1", [due]).unwrap();
        let lane = "INSERT INTO esl_lanes (lane, failures, failed_deliveries, not_before)
                    SELECT lane, 1, 1, ?1 FROM esl_subscriptions";
        connection.execute(lane, [due]).unwrap();
        drop(storage);

        clock.set_utc(NOON + MINUTE / 4 - set_back);
        open().enlist(worker_id(2), Tenure::default()).await.unwrap();
        for sql in ["SELECT due_at FROM esl_open", "SELECT not_before FROM esl_lanes"] {
            let found = connection.query_row(sql, [], |row| row.get(0)).unwrap();
            assert_eq!(Timestamp::from_millis(found), expected, "{sql} {set_back:?}");
        }
    }
}
