//! Somebody else holds the database's lock: publishing waits, then says so, and goes on afterwards.

use std::{path::Path, time::Duration};

use esl_sqlite::rusqlite::Connection;

use super::{publish_or_hear_why_not, until_all_came, until_health};
use crate::support::{Api, Behaviour, Folder, Receiver, WITH_CLIENT};

#[tokio::test]
async fn while_another_program_holds_the_lock_publishing_is_503_and_then_goes_on() {
    hold_until(async |api| refuses(api).await).await;
}

#[tokio::test]
#[ignore = "longer than an epoch lasts"]
async fn a_lock_that_is_held_longer_than_an_epoch_loses_nothing_either() {
    hold_until(async |api| {
        refuses(api).await;
        tokio::time::sleep(Duration::from_secs(35)).await;
        refuses(api).await;
    })
    .await;
}

#[tokio::test]
async fn a_database_that_is_locked_at_the_start_is_named() {
    let folder = Folder::new();
    folder.start(&WITH_CLIENT).await.stop().await;
    let lock = Lock::take(&folder.database());
    let served = folder.run(&["serve"], &WITH_CLIENT).await;
    assert_eq!(served.code, Some(1), "{served:?}");
    let path = folder.database().display().to_string();
    for words in [&*path, "ESL_DATABASE_URL", "another program has locked it"] {
        assert!(served.stderr.contains(words), "{words}: {served:?}");
    }
    lock.free();
    folder.start(&WITH_CLIENT).await.stop().await;
}

async fn refuses(api: &Api) {
    assert_eq!(publish_or_hear_why_not(api, "while it is locked".into()).await, None);
    until_health(api, 503).await;
}

/// Has the lock held until `done`: what was acknowledged before comes, and so does what is
/// published afterwards.
async fn hold_until(done: impl AsyncFnOnce(&Api)) {
    let folder = Folder::new();
    let server = folder.start(&WITH_CLIENT).await;
    let api = Api::new(&server.base).await;
    let (gate, is_open) = tokio::sync::watch::channel(false);
    let receiver = Receiver::start(Behaviour::Gate(is_open)).await;
    let subscription = api.subscribe(&receiver.url("/"), &["*"]).await;
    let before = api.publish("person.updated", "before".into()).await;
    receiver.first().await;
    let lock = Lock::take(&folder.database());
    // Answered while nothing can be written, so that its settlement has to wait.
    gate.send_replace(true);
    done(&api).await;
    lock.free();

    until_health(&api, 200).await;
    let after = publish_or_hear_why_not(&api, "after".into()).await.expect("it is free");
    until_all_came(&receiver, [before, after]).await;
    let all = format!("/api/v1/subscriptions/{subscription}/deliveries");
    api.until(&all, |list| {
        let list = list["data"].as_array().expect("a list");
        list.len() == 2 && list.iter().all(|delivery| delivery["state"] == "delivered")
    })
    .await;
    let ended = server.stop().await;
    assert!(ended.stderr.contains("commit failed"), "it is in the log: {}", ended.stderr);
}

/// What another program holds.
struct Lock(Connection);

impl Lock {
    fn take(path: &Path) -> Self {
        let connection = Connection::open(path).expect("it opens");
        connection.busy_timeout(Duration::from_secs(60)).expect("it can be set");
        connection.execute_batch("BEGIN EXCLUSIVE").expect("it is free in between");
        Self(connection)
    }

    fn free(self) {
        self.0.execute_batch("ROLLBACK").expect("it is held");
    }
}
