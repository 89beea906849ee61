//! Nobody encrypts with a key that a running engine does not have, and no engine runs without a key.

use esl_core::{
    Actor, CallbackUrl, EncryptionKey, Keyring, NewSubscription, Organization, OrganizationId,
    Secret, Subscription, SubscriptionId, Tiers, Timestamp, WorkerId,
    storage::{Lanes, StorageError, StorageErrorKind, Subscriptions, Tenancy, Tenure, Worker},
};
use esl_postgres::PostgresStorage;

use crate::cluster;

const ORGANIZATION: OrganizationId = OrganizationId::from_bytes([1; 16]);

/// A handle whose keyring has these keys; of none, there is no keyring.
async fn open(schema: &str, keys: &[u8]) -> PostgresStorage {
    let mut options = PostgresStorage::options().schema(schema).may_lose_everything();
    if !keys.is_empty() {
        let keys = keys.iter().map(|byte| EncryptionKey::from_bytes(&[*byte; 32]));
        options = options.keyring(Keyring::new(keys).unwrap());
    }
    options.open(cluster::url()).await.unwrap()
}

async fn create_organization(storage: &PostgresStorage) {
    let organization = Organization::new(ORGANIZATION, "Acme", Timestamp::EPOCH);
    storage.create_organization(organization, &Actor::APPLICATION).await.unwrap();
}

async fn subscribe(storage: &PostgresStorage, number: u8) -> Result<Subscription, StorageError> {
    let url = CallbackUrl::from_stored("https://receiver.example/");
    let new = NewSubscription::new(url, vec!["*".parse().unwrap()]);
    let id = SubscriptionId::from_bytes([number; 16]);
    let secret = Secret::new("as-documented").unwrap();
    let draft = Subscription::new(id, ORGANIZATION, new, secret, Timestamp::EPOCH);
    storage.create_subscription(draft, &Tiers::default(), &Actor::APPLICATION).await
}

async fn enlist(storage: &PostgresStorage, number: u8) -> Result<Worker, StorageError> {
    Ok(storage.enlist(WorkerId::from_bytes([number; 16]), Tenure::default()).await?.0)
}

#[tokio::test]
async fn a_secret_is_encrypted_with_a_key_that_every_engine_has() {
    let schema = cluster::new_schema();
    let [plain, old, both, new] = [&[][..], &[1], &[1, 2], &[2, 1]];
    let (old, both) = (open(&schema, old).await, open(&schema, both).await);
    let (plain, new) = (open(&schema, plain).await, open(&schema, new).await);
    create_organization(&plain).await;
    let first = enlist(&both, 1).await.unwrap();
    subscribe(&new, 1).await.unwrap();
    // One of the engines does not have the key, and may run no longer than it does.
    let (kind, refused) = (StorageErrorKind::KeyMissing, enlist(&old, 2).await);
    assert_eq!(refused.unwrap_err().kind(), kind);
    assert_eq!(enlist(&plain, 3).await.unwrap_err().kind(), kind);
    enlist(&new, 4).await.unwrap();
    both.resign(&first).await.unwrap();
}

#[tokio::test]
async fn while_an_engine_runs_without_the_key_nothing_is_encrypted_with_it() {
    let schema = cluster::new_schema();
    let (plain, keyed) = (open(&schema, &[]).await, open(&schema, &[1]).await);
    create_organization(&plain).await;
    let worker = enlist(&plain, 1).await.unwrap();
    enlist(&keyed, 2).await.unwrap();
    let refused = subscribe(&keyed, 1).await.unwrap_err();
    assert_eq!(refused.kind(), StorageErrorKind::KeyMissing);
    subscribe(&plain, 1).await.unwrap();
    plain.resign(&worker).await.unwrap();
    subscribe(&keyed, 2).await.unwrap();
}

#[tokio::test]
async fn of_an_engine_that_begins_and_a_key_that_comes_at_once_one_is_refused() {
    for round in 1..=12 {
        let schema = cluster::new_schema();
        let (plain, keyed) = (open(&schema, &[]).await, open(&schema, &[1]).await);
        create_organization(&plain).await;
        let (began, sealed) = tokio::join!(enlist(&plain, round), subscribe(&keyed, round));
        assert!(began.is_ok() != sealed.is_ok(), "{began:?} {sealed:?}");
    }
}
