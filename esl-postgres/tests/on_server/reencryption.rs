//! Secrets are rewritten beside whoever else works on the database, and no key is given up that is needed.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    time::Duration,
};

use esl_core::{
    Actor, CallbackUrl, CustomHeaders, EncryptionKey, KeyId, Keyring, LaneId, LinkKey,
    NewSubscription, Organization, OrganizationId, Secret, SecretChange, Subscription,
    SubscriptionId, SubscriptionUpdate, Tiers, Timestamp, WorkerId,
    storage::{
        Lanes, Page, Reencrypted, Removal, SecretForm, StorageError, StorageErrorKind,
        Subscriptions, Tenancy, Tenure,
    },
};
use esl_postgres::PostgresStorage;
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::{
    cluster,
    growth::plans::Watch,
    world::{by_hand, by_hand_at},
};

const ORGANIZATION: OrganizationId = OrganizationId::from_bytes([1; 16]);
const ALL: Page<LaneId> = Page { after: None, limit: 10_000 };
const SECRETS: [&str; 3] =
    ["now-signs-with-this", "signed-with-this-before", "Bearer of-a-gateway"];
const LINK_KEY: [u8; 32] = *b"thirty-two bytes that sign links";
/// Re-encrypting locks rows so.
const ROW: &str = "FOR NO KEY UPDATE";
/// Subscriptions that are more than two slices.
const MANY: u64 = 620;

/// A schema with an organization, and somebody who looks into it by hand.
struct World {
    schema: String,
    hand: Client,
}

impl World {
    async fn new(keys: &[u8]) -> (Self, PostgresStorage) {
        let world = Self { schema: cluster::new_schema(), hand: by_hand().await };
        let storage = world.open(keys).await.unwrap();
        let organization = Organization::new(ORGANIZATION, "Acme", Timestamp::EPOCH);
        storage.create_organization(organization, &Actor::APPLICATION).await.unwrap();
        (world, storage)
    }

    /// A handle whose keyring has these keys; of none, there is no keyring.
    async fn open(&self, keys: &[u8]) -> Result<PostgresStorage, StorageError> {
        let mut options = PostgresStorage::options().schema(&self.schema).may_lose_everything();
        if !keys.is_empty() {
            options = options.keyring(keyring(keys));
        }
        options.open(cluster::url()).await
    }

    /// Whether a handle with these keys alone is refused for want of another.
    async fn refuses(&self, keys: &[u8]) -> bool {
        let opened = self.open(keys).await;
        opened.is_err_and(|error| error.kind() == StorageErrorKind::KeyMissing)
    }

    fn sql(&self, sql: &str) -> String {
        sql.replace("esl.", &format!("{}.", self.schema))
    }

    async fn write(&self, sql: &str) {
        self.hand.batch_execute(&self.sql(sql)).await.unwrap();
    }

    async fn number(&self, sql: &str) -> i64 {
        self.hand.query_one(&self.sql(sql), &[]).await.unwrap().get(0)
    }

    /// Waits until a statement by hand says yes, while a call is under way that must not end before.
    async fn until<T: std::fmt::Debug>(
        &self,
        sql: &str,
        call: &mut (impl Future<Output = T> + Unpin),
    ) {
        let sql = self.sql(sql);
        let looking =
            async { while !self.hand.query_one(&sql, &[]).await.unwrap().get::<_, bool>(0) {} };
        tokio::select! {
            biased;
            ended = call => panic!("it ended too early: {ended:?}"),
            looked = timeout(Duration::from_secs(300), looking) => looked.expect("it becomes so"),
        }
    }

    /// Whether somebody waits for a lock in a statement of this schema.
    fn waits_for(&self, statement: &str) -> String {
        format!(
            "SELECT EXISTS (
                SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                WHERE NOT l.granted AND a.query LIKE '%{}%' AND a.query LIKE '%{statement}%'
            )",
            self.schema
        )
    }

    /// The keys that something is sealed with.
    async fn sealed_with(&self) -> BTreeSet<KeyId> {
        let sealed = "
            SELECT secret FROM esl.subscriptions WHERE sealed & 1 <> 0
            UNION ALL SELECT old_secret FROM esl.subscriptions
                WHERE sealed & 2 <> 0 AND old_secret IS NOT NULL
            UNION ALL SELECT headers FROM esl.subscriptions
                WHERE sealed & 4 <> 0 AND headers IS NOT NULL
            UNION ALL SELECT key FROM esl.link_keys WHERE sealed";
        let rows = self.hand.query(&self.sql(sealed), &[]).await.unwrap();
        rows.iter().map(|row| KeyId::of_sealed(row.get(0)).unwrap()).collect()
    }

    async fn noted(&self) -> BTreeSet<KeyId> {
        let noted = self.sql("SELECT id FROM esl.encryption_keys");
        let rows = self.hand.query(&noted, &[]).await.unwrap();
        let id = |id: &[u8]| KeyId::from_bytes(id.try_into().unwrap());
        rows.iter().map(|row| id(row.get(0))).collect()
    }

    /// Whether a row says a secret in plain text.
    async fn shows_a_secret(&self) -> bool {
        let shown = "
            SELECT count(*) FROM (
                SELECT row::text FROM esl.subscriptions AS row
                UNION ALL SELECT row::text FROM esl.link_keys AS row
            ) AS t (text)
            WHERE strpos(t.text, encode($1, 'hex')) > 0";
        for secret in SECRETS.map(str::as_bytes).into_iter().chain([&LINK_KEY[..]]) {
            let row = self.hand.query_one(&self.sql(shown), &[&secret]).await.unwrap();
            if row.get::<_, i64>(0) > 0 {
                return true;
            }
        }
        false
    }
}

fn keyring(keys: &[u8]) -> Keyring {
    Keyring::new(keys.iter().map(|byte| EncryptionKey::from_bytes(&[*byte; 32]))).unwrap()
}

fn key(byte: u8) -> KeyId {
    keyring(&[byte]).first()
}

/// A subscription that is being rotated, with the secrets of above.
fn telling(organization: OrganizationId, number: u64) -> Subscription {
    let url = CallbackUrl::from_stored("https://receiver.example/");
    let mut new = NewSubscription::new(url, vec!["*".parse().unwrap()]);
    new.options.headers = CustomHeaders::new([("authorization", SECRETS[2])]).unwrap();
    let id = SubscriptionId::from_bytes(u128::from(number).to_be_bytes());
    let secret = Secret::new(SECRETS[1]).unwrap();
    let draft = Subscription::new(id, organization, new, secret, Timestamp::EPOCH);
    draft.with_update(rotation(SECRETS[0]), Timestamp::from_millis(4_000_000_000_000)).unwrap()
}

fn rotation(to: &str) -> SubscriptionUpdate {
    let mut update = SubscriptionUpdate::default();
    let (to, grace) = (Secret::new(to).unwrap(), SecretChange::GRACE_MAX);
    update.secret = Some(SecretChange::Rotate { to, grace });
    update
}

async fn subscribe(storage: &PostgresStorage, number: u64) -> Result<Subscription, StorageError> {
    let draft = telling(ORGANIZATION, number);
    storage.create_subscription(draft, &Tiers::default(), &Actor::APPLICATION).await
}

async fn subscribe_many(storage: &PostgresStorage) -> Vec<Subscription> {
    let mut all = Vec::new();
    for number in 1..=MANY {
        all.push(subscribe(storage, number).await.unwrap());
    }
    all
}

async fn all(storage: &PostgresStorage) -> Vec<Subscription> {
    storage.subscriptions(ORGANIZATION, ALL).await.unwrap().items
}

async fn link_keys(storage: &PostgresStorage) -> Vec<LinkKey> {
    storage.link_keys(LinkKey::from_bytes(LINK_KEY)).await.unwrap()
}

async fn reencrypt(storage: &PostgresStorage) -> Reencrypted {
    storage.reencrypt(SecretForm::Encrypted).await.unwrap()
}

async fn stale(storage: &PostgresStorage) -> u64 {
    storage.secrets_to_reencrypt().await.unwrap()
}

async fn enlist(
    storage: &PostgresStorage,
    number: u8,
) -> Result<esl_core::storage::Worker, StorageError> {
    Ok(storage.enlist(WorkerId::from_bytes([number; 16]), Tenure::default()).await?.0)
}

#[tokio::test]
async fn what_is_plain_is_encrypted_then_with_another_key_and_then_plain_again() {
    let (world, plain) = World::new(&[]).await;
    let subscriptions = subscribe_many(&plain).await;
    let links = link_keys(&plain).await;
    let gone = subscriptions[300].id;
    plain.delete_subscription(ORGANIZATION, gone, &Actor::APPLICATION).await.unwrap();
    let expected: Vec<_> = subscriptions.into_iter().filter(|one| one.id != gone).collect();
    assert!(world.shows_a_secret().await);

    let first = world.open(&[1]).await.unwrap();
    assert_eq!(stale(&first).await, 3 * (MANY - 1), "of those that are not deleted");
    let done = reencrypt(&first).await;
    assert_eq!((done.subscriptions, done.link_keys, done.damaged), (MANY, 1, 0));
    assert_eq!((done.is_clean, done.keys_in_use), (true, vec![key(1)]));
    assert!(!world.shows_a_secret().await);
    assert_eq!((all(&first).await, link_keys(&first).await), (expected.clone(), links.clone()));
    assert_eq!(stale(&first).await, 0);
    assert!(world.refuses(&[]).await);
    let again = reencrypt(&first).await;
    assert_eq!((again.subscriptions, again.link_keys), (0, 0));

    let both = world.open(&[2, 1]).await.unwrap();
    assert_eq!(stale(&both).await, 3 * (MANY - 1));
    let done = reencrypt(&both).await;
    assert_eq!((done.subscriptions, done.link_keys, done.damaged), (MANY, 1, 0));
    assert_eq!(done.keys_in_use, [key(2)]);
    assert_eq!(world.sealed_with().await, BTreeSet::from([key(2)]));
    assert!(world.refuses(&[1]).await);
    let second = world.open(&[2]).await.unwrap();
    assert_eq!((all(&second).await, link_keys(&second).await), (expected.clone(), links.clone()));

    let done = second.reencrypt(SecretForm::Plain).await.unwrap();
    assert_eq!((done.subscriptions, done.link_keys, done.damaged), (MANY, 1, 0));
    assert_eq!((done.keys_in_use, world.sealed_with().await), (vec![], BTreeSet::new()));
    let plain = world.open(&[]).await.unwrap();
    assert_eq!((all(&plain).await, link_keys(&plain).await), (expected, links));
    let keyless = plain.reencrypt(SecretForm::Encrypted).await.unwrap_err();
    assert_eq!(keyless.kind(), StorageErrorKind::KeyMissing);
}

#[tokio::test]
async fn re_encrypting_loses_no_change_that_is_made_beside_it() {
    let (world, storage) = World::new(&[1]).await;
    let mut subscriptions = subscribe_many(&storage).await;
    link_keys(&storage).await;
    let both = world.open(&[2, 1]).await.unwrap();
    let writers = [world.open(&[1, 2]).await.unwrap(), world.open(&[2, 1]).await.unwrap()];
    let mut reencrypting = Box::pin(both.reencrypt(SecretForm::Encrypted));
    let (mut turn, mut is_done) = (0_usize, false);
    // Here and there, also in the slice that is being rewritten, and so that both keys are sealed with.
    while !is_done || turn < 100 {
        let subscription = &mut subscriptions[turn * 97 % usize::try_from(MANY).unwrap()];
        let update = rotation(&format!("rotated-in-turn-{turn}"));
        let mut end = SubscriptionUpdate::default();
        end.secret = Some(SecretChange::Finish);
        let (writer, id) = (&writers[turn % 2], subscription.id);
        let changing = async {
            let by = Actor::APPLICATION;
            writer.update_subscription(ORGANIZATION, id, end, &by).await.unwrap();
            writer.update_subscription(ORGANIZATION, id, update, &by).await.unwrap()
        };
        let mut changing = Box::pin(changing);
        *subscription = loop {
            tokio::select! {
                changed = &mut changing => break changed,
                done = &mut reencrypting, if !is_done => {
                    assert_eq!(done.unwrap().damaged, 0);
                    is_done = true;
                }
            }
        };
        turn += 1;
    }
    drop(reencrypting);
    assert!(world.sealed_with().await.is_subset(&world.noted().await));
    assert_eq!(all(&both).await, subscriptions);
    let done = reencrypt(&both).await;
    assert_eq!((done.keys_in_use, done.damaged), (vec![key(2)], 0));
    assert_eq!(all(&world.open(&[2]).await.unwrap()).await, subscriptions);
}

#[tokio::test]
async fn a_change_between_reading_and_writing_waits_and_is_not_lost() {
    let (world, storage) = World::new(&[1]).await;
    let lane = subscribe(&storage, 1).await.unwrap().lane.get();
    let both = world.open(&[2, 1]).await.unwrap();
    let hands = [by_hand().await, by_hand().await, by_hand().await];
    let hold =
        format!("BEGIN; SELECT FROM esl.subscriptions WHERE lane = {lane} FOR NO KEY UPDATE");
    hands[0].batch_execute(&world.sql(&hold)).await.unwrap();
    let mut reencrypting = Box::pin(both.reencrypt(SecretForm::Encrypted));
    world.until(&world.waits_for(ROW), &mut reencrypting).await;
    // It is stopped again once it has read the row: before it may seal.
    let hold = "BEGIN; SELECT FROM esl.encryption_keys FOR UPDATE";
    hands[1].batch_execute(&world.sql(hold)).await.unwrap();
    hands[0].batch_execute("COMMIT").await.unwrap();
    world.until(&world.waits_for("seal_with"), &mut reencrypting).await;
    let change = format!(
        "UPDATE esl.subscriptions SET secret = 'changed', sealed = sealed & ~1 WHERE lane = {lane}"
    );
    let change = world.sql(&change);
    let mut changing = Box::pin(hands[2].batch_execute(&change));
    world.until(&world.waits_for("SET secret = ''changed''"), &mut changing).await;
    hands[1].batch_execute("COMMIT").await.unwrap();
    assert_eq!(reencrypting.await.unwrap().subscriptions, 1);
    changing.await.unwrap();
    let changed = all(&both).await.remove(0);
    assert_eq!(changed.secret.expose(), "changed");
    assert_eq!(changed.options.headers, telling(ORGANIZATION, 1).options.headers);
}

#[tokio::test]
async fn re_encrypting_that_is_cut_off_harms_nothing_and_goes_on() {
    let (world, storage) = World::new(&[1]).await;
    let mut subscriptions = subscribe_many(&storage).await;
    let links = link_keys(&storage).await;
    let both = world.open(&[2, 1]).await.unwrap();
    // Somebody holds a row of the second slice, so it is cut off there.
    let lane = subscriptions[400].lane.get();
    let other = by_hand().await;
    let hold =
        format!("BEGIN; SELECT FROM esl.subscriptions WHERE lane = {lane} FOR NO KEY UPDATE");
    other.batch_execute(&world.sql(&hold)).await.unwrap();
    let mut cut_off = Box::pin(both.reencrypt(SecretForm::Encrypted));
    let first = format!(r"substring(secret FROM 2 FOR 8) = '\x{}'", key(2));
    let rewritten = format!("SELECT count(*) FROM esl.subscriptions WHERE {first}");
    world.until(&format!("SELECT ({rewritten}) = 499"), &mut cut_off).await;
    drop(cut_off);
    drop(both);
    assert_eq!(world.number(&rewritten).await, 499);
    assert_eq!(world.noted().await, BTreeSet::from([key(1), key(2)]));
    assert!(world.refuses(&[1]).await && world.refuses(&[2]).await);
    let both = world.open(&[2, 1]).await.unwrap();
    assert_eq!((all(&both).await, stale(&both).await), (subscriptions.clone(), 3 * (MANY - 499)));

    // It goes on, waits for what somebody holds, and takes it as it is then.
    let mut going_on = Box::pin(both.reencrypt(SecretForm::Encrypted));
    world.until(&world.waits_for(ROW), &mut going_on).await;
    let pause = format!("UPDATE esl.subscriptions SET active = false WHERE lane = {lane}; COMMIT");
    other.batch_execute(&world.sql(&pause)).await.unwrap();
    subscriptions[400].active = false;
    let done = going_on.await;
    let done = done.unwrap();
    assert_eq!((done.keys_in_use, done.damaged), (vec![key(2)], 0));
    let second = world.open(&[2]).await.unwrap();
    assert_eq!((all(&second).await, link_keys(&second).await), (subscriptions, links));
}

#[tokio::test]
async fn while_a_node_has_the_old_key_alone_nothing_is_encrypted_with_another() {
    let (world, old) = World::new(&[1]).await;
    let expected = vec![subscribe(&old, 1).await.unwrap()];
    let worker = enlist(&old, 1).await.unwrap();
    let new = world.open(&[2, 1]).await.unwrap();
    let refused = new.reencrypt(SecretForm::Encrypted).await.unwrap_err();
    assert_eq!(refused.kind(), StorageErrorKind::KeyMissing);
    assert_eq!(
        (world.sealed_with().await, world.noted().await),
        ([key(1)].into(), [key(1)].into())
    );
    assert_eq!(all(&old).await, expected);

    // It reads what is plain, and goes on encrypting.
    let done = new.reencrypt(SecretForm::Plain).await.unwrap();
    assert_eq!((done.subscriptions, done.keys_in_use, done.engine_keys), (1, vec![], vec![key(1)]));
    assert_eq!(all(&old).await, expected);
    subscribe(&old, 2).await.unwrap();
    assert!(world.refuses(&[]).await);

    old.resign(&worker).await.unwrap();
    let done = reencrypt(&new).await;
    assert_eq!((done.subscriptions, done.keys_in_use), (2, vec![key(2)]));
    // The handle of before can neither begin an engine nor take what it does not read for damage.
    assert_eq!(enlist(&old, 2).await.unwrap_err().kind(), StorageErrorKind::KeyMissing);
    let unread = old.subscription(ORGANIZATION, expected[0].id).await.unwrap_err();
    assert_eq!(unread.kind(), StorageErrorKind::KeyMissing);
}

#[tokio::test]
async fn a_key_that_a_node_goes_on_encrypting_with_is_needed_again() {
    let (world, node) = World::new(&[1, 2]).await;
    subscribe(&node, 1).await.unwrap();
    enlist(&node, 1).await.unwrap();
    let beside = world.open(&[2, 1]).await.unwrap();
    enlist(&beside, 2).await.unwrap();
    let done = reencrypt(&beside).await;
    assert_eq!((done.keys_in_use, done.engine_keys), (vec![key(2)], vec![key(1)]));
    assert!(!world.refuses(&[2]).await);
    subscribe(&node, 2).await.unwrap();
    assert!(world.refuses(&[2]).await);
    assert_eq!(reencrypt(&beside).await.subscriptions, 1);
    assert!(!world.refuses(&[2]).await);
}

#[tokio::test]
async fn of_two_that_re_encrypt_at_once_the_first_retires_no_key() {
    let (world, storage) = World::new(&[1, 2]).await;
    let held = subscribe(&storage, 1).await.unwrap().lane.get();
    let [first, second] = [world.open(&[2, 1]).await.unwrap(), world.open(&[2, 1]).await.unwrap()];
    let hands = [by_hand().await, by_hand().await];
    let hold = async |hand: &Client, lane: u64| {
        let hold =
            format!("BEGIN; SELECT FROM esl.subscriptions WHERE lane = {lane} FOR NO KEY UPDATE");
        hand.batch_execute(&world.sql(&hold)).await.unwrap();
    };
    hold(&hands[0], held).await;
    let mut one = Box::pin(first.reencrypt(SecretForm::Encrypted));
    world.until(&world.waits_for(ROW), &mut one).await;
    // What the first one comes by no more is sealed with the old key, and then the marks are gone.
    let behind = subscribe(&storage, 2).await.unwrap().lane.get();
    hold(&hands[1], behind).await;
    let mut other = Box::pin(second.reencrypt(SecretForm::Encrypted));
    let begun = "SELECT last_value = 2 FROM esl.reencryptions";
    world.until(begun, &mut other).await;
    let unmarked =
        format!(r"SELECT NOT is_used FROM esl.encryption_keys WHERE id = '\x{}'", key(1));
    world.until(&unmarked, &mut other).await;
    hands[0].batch_execute("COMMIT").await.unwrap();
    let done = one.await.unwrap();
    assert_eq!(done.keys_in_use.len(), 2);
    assert!(world.refuses(&[2]).await, "something is sealed with the old key");
    hands[1].batch_execute("COMMIT").await.unwrap();
    assert_eq!(other.await.unwrap().keys_in_use, [key(2)]);
    assert_eq!(all(&world.open(&[2]).await.unwrap()).await.len(), 2);
}

#[tokio::test]
async fn a_damaged_secret_is_left_and_keeps_its_key_in_use() {
    let (world, storage) = World::new(&[1]).await;
    let lane = subscribe(&storage, 1).await.unwrap().lane.get();
    world
        .write(&format!(
            "UPDATE esl.subscriptions SET old_secret = substring(old_secret FROM 1 FOR 40),
                 headers = substring(headers FROM 1 FOR 5) WHERE lane = {lane}"
        ))
        .await;
    let both = world.open(&[2, 1]).await.unwrap();
    for rewritten in [1, 0] {
        let done = reencrypt(&both).await;
        assert_eq!((done.subscriptions, done.damaged), (rewritten, 2));
        assert_eq!(done.keys_in_use.len(), 2);
    }
    assert!(world.refuses(&[2]).await);
}

#[tokio::test]
async fn of_a_deleted_organization_nothing_is_left_to_re_encrypt() {
    for keys in [&[][..], &[1]] {
        let (world, storage) = World::new(keys).await;
        subscribe(&storage, 1).await.unwrap();
        storage.delete_organization(ORGANIZATION, &Actor::APPLICATION).await.unwrap();
        let done = reencrypt(&world.open(&[2, 1]).await.unwrap()).await;
        assert_eq!((done.subscriptions, done.damaged), (1, 0));
        assert_eq!(done.keys_in_use, [key(2)]);
        assert!(!world.shows_a_secret().await);
        let storage = world.open(&[2]).await.unwrap();
        let worker = enlist(&storage, 1).await.unwrap();
        while storage.sweep(&worker, 100).await.unwrap().more {}
        while storage.remove_old(&worker, None, 100).await.unwrap().more {}
        assert_eq!(world.number("SELECT count(*) FROM esl.subscriptions").await, 0);
    }
}

#[tokio::test]
async fn the_tables_are_vacuumed_by_whoever_may() {
    let (world, plain) = World::new(&[]).await;
    subscribe(&plain, 1).await.unwrap();
    let done = reencrypt(&world.open(&[1]).await.unwrap()).await;
    assert!(done.is_clean);
    let vacuumed = format!(
        "SELECT count(*) FROM pg_stat_all_tables WHERE schemaname = '{}' AND last_vacuum IS NOT NULL
             AND relname IN ('subscriptions', 'link_keys')",
        world.schema
    );
    // Before PostgreSQL 15 the statistics come a moment later.
    let looking = async { while world.number(&vacuumed).await < 2 {} };
    timeout(Duration::from_secs(300), looking).await.expect("both were vacuumed");

    // Somebody to whom everything was granted, but who owns nothing.
    let role = format!("{}_user", world.schema);
    world
        .write(&format!(
            "CREATE ROLE {role}; GRANT USAGE ON SCHEMA {schema} TO {role};
             GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role};
             GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO {role}",
            schema = world.schema
        ))
        .await;
    let version = world.number("SELECT current_setting('server_version_num')::bigint").await;
    if version >= 170_000 {
        world
            .write(&format!("REVOKE MAINTAIN ON ALL TABLES IN SCHEMA {} FROM {role}", world.schema))
            .await;
    }
    let options = PostgresStorage::options().schema(&world.schema).may_lose_everything();
    let separator = if cluster::url().contains('?') { '&' } else { '?' };
    let url = format!("{}{separator}options=-c%20role%3D{role}", cluster::url());
    let granted = options.keyring(keyring(&[2, 1])).open(&url).await.unwrap();
    let done = reencrypt(&granted).await;
    assert_eq!((done.subscriptions, done.is_clean), (1, false));
    drop(granted);
    world.write(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn no_statement_of_re_encrypting_reads_more_the_more_there_is() {
    const FEW: i64 = 1_200;
    const MANY: i64 = 20_000;
    let Some(own) = cluster::own() else { return };
    let (schema, database) = (cluster::new_schema(), cluster::new_database().await);
    let mut watch = Watch::new(own, &schema, &database);
    let hand = by_hand_at(&database).await;
    let open = async |watch: &Watch, key| {
        let options = PostgresStorage::options().schema(&schema).may_lose_everything();
        options.keyring(keyring(&[key])).open(&watch.url()).await.unwrap()
    };
    let organization = Organization::new(ORGANIZATION, "Acme", Timestamp::EPOCH);
    open(&watch, 1).await.create_organization(organization, &Actor::APPLICATION).await.unwrap();
    // What the server knows of the table is as old as the case says, and not as autovacuum has it by chance.
    let alone = format!("ALTER TABLE {schema}.subscriptions SET (autovacuum_enabled = false)");
    hand.batch_execute(&alone).await.unwrap();
    // What each statement cost at most.
    let costs = async |watch: &mut Watch, count: i64| {
        let fill = format!(
            r"INSERT INTO {schema}.subscriptions (id, organization, created_at, callback_url, events,
                 secret, sealed, active, send_order, on_exhausted, updated_at)
             SELECT md5(n::text)::uuid, 1, 1, '\x00', '*', convert_to('secret ' || n, 'UTF8'), 0, true,
                 '', '', 1
             FROM generate_series(1, {count}) n ON CONFLICT DO NOTHING;
             UPDATE {schema}.subscriptions SET sealed = 0, secret = convert_to('secret', 'UTF8')"
        );
        hand.batch_execute(&fill).await.unwrap();
        let storage = open(watch, 1).await;
        watch.look();
        let count = u64::try_from(count).unwrap();
        assert_eq!(stale(&storage).await, count);
        assert_eq!(reencrypt(&storage).await.subscriptions, count);
        let mut costs = BTreeMap::new();
        for ran in watch.look() {
            assert!(
                ran.widest.0 <= 2_000,
                "{} rows in {}: {}",
                ran.widest.0,
                ran.widest.1,
                ran.text
            );
            let cost = costs.entry(ran.text).or_insert(0);
            *cost = ran.blocks.max(*cost);
        }
        costs
    };
    let few = costs(&mut watch, FEW).await;
    assert!(few.len() > 10, "nobody has looked: {few:?}");
    let mut many = vec![("without statistics", costs(&mut watch, MANY).await)];
    hand.batch_execute(&format!("ANALYZE {schema}.subscriptions")).await.unwrap();
    watch.plans_as_usual();
    many.push(("with statistics, through a pooler", costs(&mut watch, MANY).await));
    for (when, many) in many {
        for (text, pages) in many {
            let of_few = few.get(&text).copied().unwrap_or_default();
            assert!(pages <= of_few * 2 + 20, "{when}: {of_few} pages, then {pages}: {text}");
        }
    }
}
