//! How a database is opened, or refused.

use std::error::Error;

use esl_core::{
    Actor, EncryptionKey, Keyring, NewSubscription, Organization, OrganizationId, Secret,
    Subscription, SubscriptionId, Tiers, Timestamp,
    storage::{StorageError, StorageErrorKind, Subscriptions, Tenancy},
};
use esl_postgres::{PostgresOptions, PostgresStorage};
use tokio::task::JoinSet;

use crate::cluster;

fn options(schema: &str) -> PostgresOptions {
    PostgresStorage::options().schema(schema).may_lose_everything()
}

fn refused(result: Result<PostgresStorage, StorageError>) -> (StorageErrorKind, String) {
    let error = result.expect_err("it is refused");
    let source = error.source().map(ToString::to_string);
    (error.kind(), source.unwrap_or_default())
}

#[tokio::test]
async fn engines_that_start_at_once_find_one_schema() {
    let schema = cluster::new_schema();
    let open = || {
        let options = options(&schema);
        async move { options.open(cluster::url()).await.map(drop) }
    };
    let mut opened: JoinSet<_> = (0..8).map(|_| open()).collect();
    while let Some(one) = opened.join_next().await {
        one.expect("nobody panics").expect("it is opened");
    }
}

#[tokio::test]
async fn a_server_that_can_lose_what_it_acknowledges_is_refused() {
    let options = PostgresStorage::options().schema(cluster::new_schema());
    let (kind, why) = refused(options.open(cluster::url()).await);
    assert_eq!(kind, StorageErrorKind::Unsupported);
    assert!(why.contains("`fsync` is off"), "{why}");
}

#[tokio::test]
async fn whether_a_schema_is_there_is_asked_without_making_it() {
    let schema = cluster::new_schema();
    for _ in 0..2 {
        assert!(!options(&schema).is_there(cluster::url()).await.expect("it can be made"));
    }
    drop(options(&schema).open(cluster::url()).await.expect("it is made"));
    assert!(options(&schema).is_there(cluster::url()).await.expect("it opens"));
    let can_lose = PostgresStorage::options().schema(cluster::new_schema());
    let error = can_lose.is_there(cluster::url()).await.expect_err("it would not be opened");
    assert_eq!(error.kind(), StorageErrorKind::Unsupported);
}

/// A user who may make no schema, and the URL by which everything is done in its name.
async fn reader(schema: &str) -> (String, String) {
    let role = format!("{schema}_reader");
    let observer = cluster::Observer::connect().await;
    let made = observer.client.batch_execute(&format!("CREATE ROLE {role}")).await;
    made.expect("the tests may make roles");
    let separator = if cluster::url().contains('?') { '&' } else { '?' };
    let url = format!("{}{separator}options=-c%20role%3D{role}", cluster::url());
    (role, url)
}

#[tokio::test]
async fn a_schema_that_was_made_for_the_user_is_enough() {
    let schema = cluster::new_schema();
    let (role, url) = reader(&schema).await;
    let observer = cluster::Observer::connect().await;
    let make = format!("CREATE SCHEMA {schema} AUTHORIZATION {role}");
    observer.client.batch_execute(&make).await.expect("the tests may make schemas");
    assert!(!options(&schema).is_there(&url).await.expect("it can be filled"));
    options(&schema).open(&url).await.expect("it opens");
    assert!(options(&schema).is_there(&url).await.expect("it opens"));
}

#[tokio::test]
async fn a_schema_that_the_user_may_not_make_is_refused_before_it_is_tried() {
    let schema = cluster::new_schema();
    let (_, url) = reader(&schema).await;
    let error = options(&schema).is_there(&url).await.expect_err("it may not");
    assert_eq!(error.kind(), StorageErrorKind::Unavailable);
    let why = error.source().expect("a reason").to_string();
    assert_eq!(why, format!("the user may not make the schema {schema}"));
}

#[tokio::test]
async fn where_no_further_connection_can_be_had_calls_share_those_that_there_are() {
    const ALLOWED: usize = 6;
    const CALLS: usize = 64;
    let schema = cluster::new_schema();
    let role = format!("{schema}_few");
    let observer = cluster::Observer::connect().await;
    let make = format!(
        "CREATE ROLE {role} LOGIN CONNECTION LIMIT {ALLOWED};
         CREATE SCHEMA {schema} AUTHORIZATION {role}"
    );
    observer.client.batch_execute(&make).await.expect("the tests may make roles");
    let separator = if cluster::url().contains('?') { '&' } else { '?' };
    let url = format!("{}{separator}user={role}", cluster::url());
    let storage = options(&schema).connections(CALLS).open(&url).await.expect("it opens");
    let mut calls: JoinSet<_> = (0..CALLS)
        .map(|_| {
            let storage = storage.clone();
            async move { storage.count_subscriptions(OrganizationId::from_bytes([1; 16])).await }
        })
        .collect();
    while let Some(count) = calls.join_next().await {
        assert_eq!(count.expect("nobody panics").expect("it waits"), 0);
    }
    let count = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1";
    let connections = observer.number(count, &[&role]).await;
    assert_eq!(usize::try_from(connections), Ok(ALLOWED), "there were too few for all");
}

#[tokio::test]
async fn what_cannot_be_reached_is_unavailable() {
    for url in [
        "postgres://u@127.0.0.1:1/app?sslmode=disable",
        "postgres://u@/app?host=/nowhere",
        &cluster::url().replace("/postgres?", "/nowhere?"),
    ] {
        let (kind, _) = refused(options("esl").open(url).await);
        assert_eq!(kind, StorageErrorKind::Unavailable, "{url}");
    }
}

#[tokio::test]
async fn without_the_key_of_its_secrets_a_database_is_refused() {
    let schema = cluster::new_schema();
    let keyring = |byte| Keyring::new([EncryptionKey::from_bytes(&[byte; 32])]).unwrap();
    let storage = options(&schema).keyring(keyring(1)).open(cluster::url()).await.unwrap();
    let id: OrganizationId = "org_01J00000000000000000000000".parse().unwrap();
    let organization = Organization::new(id, "Acme", Timestamp::EPOCH);
    storage.create_organization(organization, &Actor::APPLICATION).await.unwrap();
    // Nothing is encrypted yet.
    options(&schema).open(cluster::url()).await.unwrap();

    let url = esl_core::CallbackUrl::from_stored("https://receiver.example/");
    let new = NewSubscription::new(url, vec!["*".parse().unwrap()]);
    let subscription: SubscriptionId = "sub_01J00000000000000000000000".parse().unwrap();
    let secret = Secret::new("as-documented").unwrap();
    let draft = Subscription::new(subscription, id, new, secret, Timestamp::EPOCH);
    let tiers = Tiers::default();
    storage.create_subscription(draft, &tiers, &Actor::APPLICATION).await.unwrap();
    for keyring in [None, Some(keyring(2))] {
        let mut options = options(&schema);
        if let Some(keyring) = keyring {
            options = options.keyring(keyring);
        }
        let (kind, _) = refused(options.open(cluster::url()).await);
        assert_eq!(kind, StorageErrorKind::KeyMissing);
    }
    let again = options(&schema).keyring(keyring(1)).open(cluster::url()).await.unwrap();
    let read = again.subscription(id, subscription).await.unwrap().unwrap();
    assert_eq!(read.secret.expose(), "as-documented");
}
