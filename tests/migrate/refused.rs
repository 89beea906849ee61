//! What is not moved, and what is said of it.

use std::fs;

use serde_json::json;

use crate::{
    moving::{MIGRATE, Moving},
    support::{Api, Ended, WITHOUT_LIMIT},
};

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn assert_refused(ended: &Ended, expected: &str) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(expected), "{expected}: {ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_moved_is_left_as_it_is() {
    let moving = Moving::new();
    let folder = &moving.folder;
    assert_refused(&moving.migrate().await, "there is no database");
    let server = folder.start(&WITHOUT_LIMIT).await;
    Api::new(&server.base).await.publish("person.updated", json!(1)).await;
    assert_refused(&moving.migrate().await, "a server runs on");
    server.stop().await;
    assert_refused(&folder.run(&MIGRATE, &[]).await, "has to name the Postgres database");

    // A target with something in it, or with a server.
    let other = Moving { folder: crate::support::Folder::new(), schema: moving.schema.clone() };
    let server = other.start().await;
    assert_refused(&moving.migrate().await, "is not empty");
    server.stop().await;
    assert_refused(&moving.migrate().await, "is not empty");
    folder.start(&WITHOUT_LIMIT).await.stop().await;
    moving.elsewhere().migrated().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_belongs_to_one_file_and_one_database() {
    let moving = Moving::new();
    moving.folder.start(&WITHOUT_LIMIT).await.stop().await;
    let other = Moving { folder: crate::support::Folder::new(), schema: moving.schema.clone() };
    other.folder.start(&WITHOUT_LIMIT).await.stop().await;

    moving.migrate_and_kill_in("clients", 0).await;
    assert_refused(&other.migrate().await, "another file is being moved to");
    other.folder.start(&WITHOUT_LIMIT).await.stop().await;
    let first = moving.schema.clone();
    let moving = moving.elsewhere();
    assert_refused(&moving.migrate().await, "is being moved to postgres://");

    let given_back = moving.run(&[&MIGRATE[..], &["--give-back"]].concat(), &[]).await;
    assert_eq!(given_back.code, Some(0), "{given_back:?}");
    assert!(given_back.stdout.contains("is open again"), "{given_back:?}");
    moving.folder.start(&WITHOUT_LIMIT).await.stop().await;
    let back = moving.run(&[&MIGRATE[..], &["--give-back"]].concat(), &[]).await;
    assert_refused(&back, "is not being moved, and was not");
    let again = Moving { folder: moving.folder, schema: first };
    assert_refused(&again.migrate().await, "another file is being moved to");
    let moving = Moving { schema: moving.schema, ..again };
    moving.migrated().await;
    assert_refused(&other.elsewhere_of(&moving).migrate().await, "is not empty");
    let moving = moving.elsewhere();
    assert_refused(&moving.migrate().await, "was moved to postgres://");

    // What was moved is given up, and the file is as it was.
    let given_back = moving.run(&[&MIGRATE[..], &["--give-back"]].concat(), &[]).await;
    assert!(given_back.stdout.contains("no server must run there"), "{given_back:?}");
    moving.folder.start(&WITHOUT_LIMIT).await.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_secrets_and_large_payloads_need_what_they_needed_before() {
    let moving = Moving::new();
    let folder = &moving.folder;
    let with_key = [&WITHOUT_LIMIT[..], &[("ESL_ENCRYPTION_KEY", KEY)]].concat();
    let server = folder.start(&with_key).await;
    let api = Api::new(&server.base).await;
    let receiver = crate::support::Receiver::start(crate::support::Behaviour::Accept).await;
    api.subscribe(&receiver.url("/"), &["*"]).await;
    let large = api.publish("person.updated", json!("x".repeat(300_000))).await;
    receiver.first().await;
    server.stop().await;

    assert_refused(&moving.migrate().await, "and ESL_ENCRYPTION_KEY is not set");
    let key = ("ESL_ENCRYPTION_KEY", KEY);
    assert_refused(&moving.run(&MIGRATE, &[key]).await, "1 events have large payloads");
    let blobs = format!("file://{}/esl.db.blobs", folder.path().display());
    let empty = format!("file://{}/empty", folder.path().display());
    fs::create_dir(folder.path().join("empty")).expect("it can be made");
    let wrong = [key, ("ESL_BLOB_STORAGE_URL", &*empty)];
    assert_refused(
        &moving.run(&MIGRATE, &wrong).await,
        "of 1 large payloads 1 are not in the store",
    );
    // Nothing was begun.
    folder.start(&with_key).await.stop().await;

    let right = [key, ("ESL_BLOB_STORAGE_URL", &*blobs)];
    let moved = moving.run(&MIGRATE, &right).await;
    assert_eq!(moved.code, Some(0), "{moved:?}");
    let refused = moving.run(&["serve"], &[right[1]]).await;
    assert_refused(&refused, "and ESL_ENCRYPTION_KEY is not set");
    let variables = moving.variables();
    let own = variables.iter().map(|(name, value)| (&**name, &**value));
    let variables: Vec<_> = own.chain(right).collect();
    let server = folder.start(&variables).await;
    let api = Api::new(&server.base).await;
    let (status, data) = api.get(&format!("/api/v1/blobs/{large}")).await;
    assert_eq!((status, data.as_str().map(str::len)), (200, Some(300_000)));
    api.publish("person.updated", json!(2)).await;
    let second = receiver.first_of(2).await.pop().expect("two");
    let secret = esl_core::Secret::new("my-secret-123").expect("a secret");
    let signer = esl_core::Signer::new(&secret, esl_core::Algorithm::Sha256);
    assert_eq!(second.header("x-sapien-signature"), Some(&*signer.sapien(&second.body)));
    server.stop().await;
}

impl Moving {
    /// This file, to where another one goes.
    fn elsewhere_of(self, other: &Self) -> Self {
        Self { schema: other.schema.clone(), ..self }
    }
}
