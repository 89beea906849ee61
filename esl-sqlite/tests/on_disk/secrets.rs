//! Secrets that are encrypted where they are stored.

use esl_core::{
    Action, Actor, CustomHeaders, EncryptionKey, Keyring, LaneId, LinkKey, OrganizationId, Secret,
    SecretChange, Subscription, SubscriptionId, SubscriptionUpdate, Tiers, Timestamp,
    storage::{
        Lanes, Page, Records, Reencrypted, Removal, SecretForm, StorageErrorKind, Subscriptions,
        Tenure,
    },
};
use esl_sqlite::SqliteStorage;

use crate::{World, subscription, text, ulid, worker_id};

const ALL: Page<LaneId> = Page { after: None, limit: 1000 };
const SECRETS: [&str; 3] =
    ["now-signs-with-this", "signed-with-this-before", "Bearer of-a-gateway"];
const LINK_KEY: [u8; 32] = *b"thirty-two bytes that sign links";

fn keyring(keys: &[u8]) -> Keyring {
    Keyring::new(keys.iter().map(|byte| EncryptionKey::from_bytes(&[*byte; 32]))).unwrap()
}

fn open(world: &World, keys: &[u8]) -> Result<SqliteStorage, esl_core::storage::StorageError> {
    let options = SqliteStorage::options();
    let options = if keys.is_empty() { options } else { options.keyring(keyring(keys)) };
    options.open(world.path())
}

/// A subscription that is being rotated, with the secrets of above.
fn telling(organization: OrganizationId, number: u64) -> Subscription {
    let mut new = subscription(organization, number);
    new.secret = Secret::new(SECRETS[1]).unwrap();
    new.options.headers = CustomHeaders::new([("authorization", SECRETS[2])]).unwrap();
    let to = Secret::new(SECRETS[0]).unwrap();
    let mut update = SubscriptionUpdate::default();
    let grace = SecretChange::GRACE_MAX;
    update.secret = Some(SecretChange::Rotate { to, grace });
    new.with_update(update, Timestamp::from_millis(4_000_000_000_000)).unwrap()
}

impl World {
    /// A world whose storage has these keys.
    async fn with_keys(keys: &[u8]) -> Self {
        let mut world = Self::new().await;
        world.storage = open(&world, keys).unwrap();
        world
    }

    async fn subscribe(&self, number: u64) -> Subscription {
        let new = telling(self.organization, number);
        self.storage.create_subscription(new, &Tiers::default(), &Actor::APPLICATION).await.unwrap()
    }

    /// The same world, opened anew with other keys.
    fn reopened(&mut self, keys: &[u8]) {
        self.storage = open(self, keys).unwrap();
    }

    async fn secrets(&self) -> Vec<Subscription> {
        self.storage.subscriptions(self.organization, ALL).await.unwrap().items
    }

    fn holds_a_secret(&self) -> bool {
        let link_key = [LINK_KEY.as_slice()];
        SECRETS
            .iter()
            .map(|secret| secret.as_bytes())
            .chain(link_key)
            .any(|secret| self.files_hold(secret))
    }

    fn refusal(&self, keys: &[u8]) -> String {
        let error = open(self, keys).expect_err("it has not the key");
        assert_eq!(error.kind(), StorageErrorKind::KeyMissing);
        text(&error)
    }
}

async fn reencrypt(storage: &SqliteStorage) -> Reencrypted {
    storage.reencrypt(SecretForm::Encrypted).await.unwrap()
}

#[tokio::test]
async fn encrypted_secrets_are_in_no_file_and_no_backup() {
    for keys in [&[][..], &[1]] {
        let world = World::with_keys(keys).await;
        let subscription = world.subscribe(2).await;
        world.storage.link_keys(LinkKey::from_bytes(LINK_KEY)).await.unwrap();
        SqliteStorage::backup(world.path(), world.folder.path().join("copy.db")).unwrap();
        assert_eq!(world.holds_a_secret(), keys.is_empty(), "the secrets are what they should be");
        let found = world.storage.subscription(world.organization, subscription.id).await.unwrap();
        assert_eq!(found.as_ref(), Some(&subscription));
        let (worker, _) = world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
        let taken = world.storage.take(&worker, &[subscription.lane]).await.unwrap();
        assert_eq!(taken[0].subscription, subscription);
        let keys = world.storage.link_keys(LinkKey::from_bytes([9; 32])).await.unwrap();
        assert_eq!(keys, [LinkKey::from_bytes(LINK_KEY)]);
    }
}

#[tokio::test]
async fn a_database_opens_with_the_key_of_its_secrets_alone() {
    let mut world = World::with_keys(&[1]).await;
    let subscription = world.subscribe(2).await;
    let id = keyring(&[1]).first();
    let refusal = world.refusal(&[]);
    let expected = format!("the key with the id {id} is needed; none was given");
    assert!(refusal.ends_with(&expected), "{refusal}");
    let refusal = world.refusal(&[2, 3]);
    assert!(refusal.contains(&id.to_string()), "{refusal}");
    assert!(refusal.contains(&keyring(&[3]).first().to_string()), "{refusal}");
    for keys in [&[1][..], &[2, 1]] {
        world.reopened(keys);
        assert!(world.secrets().await.contains(&subscription));
    }
}

#[tokio::test]
async fn plain_secrets_are_read_and_new_ones_encrypted() {
    let mut world = World::new().await;
    let plain = world.subscribe(2).await;
    world.reopened(&[1]);
    let encrypted = world.subscribe(3).await;
    let found = world.secrets().await;
    assert!(found.contains(&plain) && found.contains(&encrypted), "{found:?}");
    let forms = "SELECT typeof(secret) || ' ' || typeof(old_secret) || ' ' || typeof(headers)
                 FROM esl_subscriptions WHERE lane = ?1";
    let connection = world.connection();
    let form = |of: &Subscription| {
        let lane = i64::try_from(of.lane.get()).unwrap();
        connection.query_row(forms, [lane], |row| row.get::<_, String>(0)).unwrap()
    };
    assert_eq!(
        (form(&plain), form(&encrypted)),
        ("text text text".into(), "blob blob blob".into())
    );
    let stale = async |world: &World| world.storage.secrets_to_reencrypt().await.unwrap();
    assert_eq!(stale(&world).await, 3 + 1, "of this one, and of the one that the world has");
    // Whatever is changed is written whole.
    let mut update = SubscriptionUpdate::default();
    update.active = Some(false);
    world
        .storage
        .update_subscription(world.organization, plain.id, update, &Actor::APPLICATION)
        .await
        .unwrap();
    assert_eq!((form(&plain), stale(&world).await), ("blob blob blob".into(), 1));
    drop(connection);
    world.reopened(&[2, 1]);
    assert_eq!(stale(&world).await, 6 + 1);
}

#[tokio::test]
async fn a_secret_that_was_moved_to_another_row_does_not_open() {
    let world = World::with_keys(&[1]).await;
    let (one, other) = (world.subscribe(2).await, world.subscribe(3).await);
    let of = |one: &Subscription| i64::try_from(one.lane.get()).unwrap();
    let connection = world.connection();
    for column in ["secret", "old_secret", "headers"] {
        let copy = format!(
            "UPDATE esl_subscriptions
             SET {column} = (SELECT {column} FROM esl_subscriptions WHERE lane = ?2)
             WHERE lane = ?1"
        );
        let kept = format!("SELECT {column} FROM esl_subscriptions WHERE lane = ?1");
        let kept: Vec<u8> = connection.query_row(&kept, [of(&one)], |row| row.get(0)).unwrap();
        connection.execute(&copy, [of(&one), of(&other)]).unwrap();
        let found = world.secrets().await;
        assert!(!found.contains(&one) && found.contains(&other), "{column}: {found:?}");
        let asked = world.storage.subscription(world.organization, one.id).await;
        assert_eq!(asked.unwrap_err().kind(), StorageErrorKind::Corrupt);
        let restore = format!("UPDATE esl_subscriptions SET {column} = ?2 WHERE lane = ?1");
        connection.execute(&restore, (of(&one), kept)).unwrap();
        assert!(world.secrets().await.contains(&one), "{column}");
    }
    // From one column into another, too.
    let swap = "UPDATE esl_subscriptions SET secret = old_secret WHERE lane = ?1";
    connection.execute(swap, [of(&one)]).unwrap();
    assert!(!world.secrets().await.contains(&one));
    // Into another organization.
    let stranger = world.beside(7).await;
    let mine = "UPDATE esl_subscriptions SET organization = organization + 1 WHERE lane = ?1";
    connection.execute(mine, [of(&other)]).unwrap();
    assert_eq!(world.storage.subscriptions(stranger, ALL).await.unwrap().items, []);
}

#[tokio::test]
async fn nothing_of_the_plain_secrets_is_left_after_re_encrypting() {
    let mut world = World::new().await;
    let mut all = world.secrets().await;
    // Many, some of them changed or deleted, so that their pages were split and packed.
    for number in 2..700 {
        all.push(world.subscribe(number).await);
    }
    for subscription in all.iter_mut().skip(1).step_by(3) {
        let mut update = SubscriptionUpdate::default();
        update.options.description = Some(Some("d".repeat(900)));
        let updated = world
            .storage
            .update_subscription(world.organization, subscription.id, update, &Actor::APPLICATION)
            .await;
        *subscription = updated.unwrap();
    }
    for gone in all.extract_if(2.., |one| one.lane.get().is_multiple_of(5)) {
        world
            .storage
            .delete_subscription(world.organization, gone.id, &Actor::APPLICATION)
            .await
            .unwrap();
    }
    world.storage.link_keys(LinkKey::from_bytes(LINK_KEY)).await.unwrap();
    world.reopened(&[1]);
    assert!(world.holds_a_secret());
    let done = reencrypt(&world.storage).await;
    assert!(!world.holds_a_secret());
    assert_eq!((done.subscriptions, done.link_keys, done.damaged), (699, 1, 0));
    assert!(done.is_clean);
    assert_eq!(done.keys_in_use, [keyring(&[1]).first()]);
    assert_eq!(world.secrets().await, all);
    assert_eq!(reencrypt(&world.storage).await.subscriptions, 0);
}

#[tokio::test]
async fn an_old_key_is_given_up_after_re_encrypting_with_a_new_one() {
    let mut world = World::with_keys(&[1]).await;
    let first = world.subscribe(2).await;
    world.storage.link_keys(LinkKey::from_bytes(LINK_KEY)).await.unwrap();
    world.reopened(&[2, 1]);
    let second = world.subscribe(3).await;
    world.refusal(&[2]);
    world.refusal(&[1]);
    let done = reencrypt(&world.storage).await;
    // One was plain, one had the old key, and one has the new one.
    assert_eq!((done.subscriptions, done.link_keys), (2, 1));
    assert_eq!(done.keys_in_use, [keyring(&[2]).first()]);
    world.reopened(&[2]);
    let found = world.secrets().await;
    assert!(found.contains(&first) && found.contains(&second), "{found:?}");
    let keys = world.storage.link_keys(LinkKey::from_bytes([9; 32])).await.unwrap();
    assert_eq!(keys, [LinkKey::from_bytes(LINK_KEY)]);
}

#[tokio::test]
async fn secrets_can_be_made_plain_again_when_that_is_asked_for() {
    let mut world = World::with_keys(&[1]).await;
    let subscription = world.subscribe(2).await;
    world.storage.link_keys(LinkKey::from_bytes(LINK_KEY)).await.unwrap();
    let done = world.storage.reencrypt(SecretForm::Plain).await.unwrap();
    assert_eq!((done.subscriptions, done.link_keys, done.keys_in_use), (1, 1, vec![]));
    world.reopened(&[]);
    assert!(world.secrets().await.contains(&subscription));
    let keyless = world.storage.reencrypt(SecretForm::Encrypted).await.unwrap_err();
    assert_eq!(keyless.kind(), StorageErrorKind::KeyMissing);
}

#[tokio::test]
async fn nothing_is_encrypted_with_a_key_that_the_engine_does_not_have() {
    let world = World::new().await;
    let (worker, _) = world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
    let beside = open(&world, &[1]).unwrap();
    let missing = StorageErrorKind::KeyMissing;
    let new = || telling(world.organization, 2);
    let refused = beside
        .create_subscription(new(), &Tiers::default(), &Actor::APPLICATION)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), missing);
    assert!(text(&refused).contains("an engine runs on it"), "{}", text(&refused));
    let id = SubscriptionId::from_ulid(ulid(1));
    let mut update = SubscriptionUpdate::default();
    update.active = Some(false);
    let refused = beside
        .update_subscription(world.organization, id, update, &Actor::APPLICATION)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), missing);
    let trail = Page { after: None, limit: 9 };
    let trail = world.storage.audit(world.organization, trail).await.unwrap().items;
    let actions: Vec<_> = trail.iter().map(|entry| entry.action).collect();
    let made = [Action::SubscriptionCreated, Action::OrganizationCreated];
    assert_eq!(actions, made, "what was refused has not happened");
    assert_eq!(beside.reencrypt(SecretForm::Encrypted).await.unwrap_err().kind(), missing);

    world.storage.resign(&worker).await.unwrap();
    beside.create_subscription(new(), &Tiers::default(), &Actor::APPLICATION).await.unwrap();
    // The engine was open before, and starts now.
    let refused = world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap_err();
    assert_eq!(refused.kind(), missing);
    // Who reads meanwhile is told of the key, and not of damage.
    let page = world.storage.subscriptions(world.organization, ALL).await.unwrap_err();
    assert_eq!(page.kind(), missing);
}

#[tokio::test]
async fn a_key_that_an_engine_goes_on_encrypting_with_is_needed_again() {
    let world = World::with_keys(&[1, 2]).await;
    world.subscribe(2).await;
    world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
    let beside = open(&world, &[2, 1]).unwrap();
    let done = reencrypt(&beside).await;
    assert_eq!(done.keys_in_use, [keyring(&[2]).first()]);
    assert_eq!(done.engine_keys, [keyring(&[1]).first()]);
    open(&world, &[2]).unwrap();
    world.subscribe(3).await;
    world.refusal(&[2]);

    assert_eq!(reencrypt(&beside).await.subscriptions, 1);
    open(&world, &[2]).unwrap();
}

#[tokio::test]
async fn a_damaged_secret_keeps_its_key_in_use() {
    let world = World::with_keys(&[1]).await;
    let lane = i64::try_from(world.subscribe(2).await.lane.get()).unwrap();
    let damage = "UPDATE esl_subscriptions SET secret = secret || x'00' WHERE lane = ?1";
    // The concatenation is a text; so is what nobody has sealed.
    world.connection().execute(damage, [lane]).unwrap();
    let shorten =
        "UPDATE esl_subscriptions SET old_secret = substr(old_secret, 1, 40) WHERE lane = ?1";
    world.connection().execute(shorten, [lane]).unwrap();
    let storage = open(&world, &[2, 1]).unwrap();
    let done = reencrypt(&storage).await;
    assert_eq!((done.subscriptions, done.damaged), (2, 2));
    assert_eq!(done.keys_in_use.len(), 2);
    world.refusal(&[2]);
}

#[tokio::test]
async fn a_deleted_organization_holds_up_neither_chores_nor_re_encrypting() {
    for keys in [&[][..], &[1]] {
        let mut world = World::with_keys(keys).await;
        let subscription = world.subscribe(2).await;
        let mut update = SubscriptionUpdate::default();
        update.active = Some(false);
        let id = subscription.id;
        world
            .storage
            .update_subscription(world.organization, id, update, &Actor::APPLICATION)
            .await
            .unwrap();
        world.storage.delete_organization(world.organization, &Actor::APPLICATION).await.unwrap();
        let (worker, _) = world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
        world.storage.sweep(&worker, 100).await.unwrap();
        world.storage.resign(&worker).await.unwrap();
        world.reopened(&[2, 1]);
        let done = reencrypt(&world.storage).await;
        assert_eq!((done.subscriptions, done.damaged), (2, 0));
        assert!(!world.holds_a_secret());
        world.reopened(&[2]);
    }
}

#[tokio::test]
async fn whoever_reads_for_long_leaves_the_cleaning_to_the_chores() {
    let mut world = World::new().await;
    world.subscribe(2).await;
    world.reopened(&[1]);
    let reader = world.connection();
    reader.execute_batch("BEGIN; SELECT count(*) FROM esl_events").unwrap();
    let mut reencrypting = Box::pin(world.storage.reencrypt(SecretForm::Encrypted));
    let plain = "SELECT 1 FROM esl_subscriptions WHERE typeof(secret) = 'text'";
    let looking = world.connection();
    while looking.prepare(plain).unwrap().exists([]).unwrap() {
        tokio::select! {
            biased;
            done = &mut reencrypting => panic!("the reader reads on: {done:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    drop(reencrypting);
    assert!(world.holds_a_secret());
    reader.execute_batch("COMMIT").unwrap();
    let (worker, _) = world.storage.enlist(worker_id(1), Tenure::default()).await.unwrap();
    while world.storage.remove_old(&worker, None, 100).await.unwrap().more {}
    assert!(!world.holds_a_secret());
}
