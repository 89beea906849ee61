//! The plan of every statement.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use async_trait::async_trait;
use esl_core::{
    Actor, CallbackUrl, Clock, EncryptionKey, Keyring, LinkKey, NewSubscription, Organization,
    OrganizationId, Secret, Subscription, SubscriptionId, Tiers, Timestamp, WorkerId,
    storage::{Lanes, Removal, SecretForm, Storage, Subscriptions, Tenancy, Tenure},
    testing::{
        Engines, Harness, ManualClock,
        suite::{cases, run},
    },
};
use rusqlite::Connection;
use tempfile::TempDir;
use ulid::Ulid;

use super::{source, steps, watch};
use crate::storage::{SqliteStorage, connection::keep_plans, schema::migrate};

#[test]
fn no_statement_reads_more_the_more_there_is() {
    run_the_suite();
    run_what_the_suite_does_not();
    let connection = Connection::open_in_memory().unwrap();
    migrate(&connection, Timestamp::EPOCH).unwrap();
    keep_plans(&connection).unwrap();
    let (run, mut wrong, mut used) = (watch::in_databases_named(FILE), Vec::new(), BTreeSet::new());
    for (sql, runs) in &run {
        if runs.replans > 0 {
            wrong.push(format!("planned anew, {} times: {sql}", runs.replans));
        }
        for step in steps(&connection, sql).into_iter().filter(|step| grows(step)) {
            let excuse = EXCUSES.iter().position(|excuse| excuse.is_for(sql, &step));
            match excuse {
                Some(excuse) => _ = used.insert(excuse),
                None => wrong.push(format!("{step}: {sql}")),
            }
        }
    }
    let mut parts = BTreeSet::from(PARTS);
    for written in source::statements() {
        let is_part = parts.remove(&*written.text);
        let mut run = run.keys();
        let is_run = run.any(|sql| if is_part { written.begins(sql) } else { written.is(sql) });
        if !is_run && !UNWATCHED.contains(&&*written.file) {
            wrong.push(format!("never run, {}: {}", written.file, written.text));
        }
    }
    wrong.extend(parts.into_iter().map(|part| format!("in no file: {part}")));
    for (number, Excuse { sql, step, why }) in EXCUSES.iter().enumerate() {
        if !used.contains(&number) {
            wrong.push(format!("needs no excuse ({why}): {step}: {sql}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// The databases of this test, beside which those of others may be at the same time.
const FILE: &str = "every.db";

/// Whether a step of a plan takes longer the more rows there are.
fn grows(step: &str) -> bool {
    let scanned = step.strip_prefix("SCAN ");
    let is_scan = scanned.is_some_and(|scanned| {
        let table = scanned.split(' ').next().unwrap_or_default();
        !SMALL.contains(&table) && !scanned.starts_with("(subquery")
    });
    is_scan || step.contains("TEMP B-TREE") || step.contains("AUTOMATIC")
}

/// What has a few rows in every database, or one.
const SMALL: [&str; 7] = [
    "CONSTANT",
    "esl_encryption_keys",
    "esl_engine",
    "esl_link_keys",
    "main.sqlite_schema",
    "pragma_module_list",
    "sqlite_sequence",
];

/// Files whose statements read everything, a backup and a move to another database; and what is no part of
/// storage, whose plans are looked at where they are.
const UNWATCHED: [&str; 6] =
    ["backup.rs", "export.rs", "exported_rows.rs", "leaving.rs", "seen_thread.rs", "taken.rs"];

/// Texts that are only how statements begin.
const PARTS: [&str; 1] = [
    // Of one organization, or of all.
    "SELECT id, name, created_at, tier, subscriptions_max, events_per_hour, retries, key FROM \
     esl_organizations",
];

/// Why a step may be there that looks as if it grew.
struct Excuse {
    /// The statement, with single spaces; or how it begins, up to `…`.
    sql: &'static str,
    /// How the step begins.
    step: &'static str,
    why: &'static str,
}

impl Excuse {
    fn is_for(&self, sql: &str, step: &str) -> bool {
        let sql = source::spaced(sql);
        let is_it = match self.sql.strip_suffix('…') {
            Some(beginning) => sql.starts_with(beginning),
            None => sql == self.sql,
        };
        is_it && step.starts_with(self.step)
    }
}

const fn excuse(why: &'static str, sql: &'static str, step: &'static str) -> Excuse {
    Excuse { sql, step, why }
}

const FIRST: &str = "it ends with the first row";
const CLEANING: &str = "an erasure reads the whole file once";
const SET_BACK: &str = "once, after the clock was set back";

const EXCUSES: &[Excuse] = &[
    excuse(FIRST, "SELECT 1 FROM esl_erasures", "SCAN esl_erasures"),
    excuse(FIRST, "SELECT event FROM esl_erasures ORDER BY event LIMIT 1", "SCAN esl_erasures"),
    excuse(FIRST, "SELECT 1 FROM esl_intake", "SCAN esl_intake USING COVERING INDEX"),
    excuse(
        FIRST,
        "SELECT due_at FROM esl_scheduled ORDER BY due_at LIMIT 1",
        "SCAN esl_scheduled USING COVERING INDEX esl_scheduled_by_due",
    ),
    excuse(
        FIRST,
        "SELECT key FROM esl_organizations WHERE deleted_at IS NOT NULL ORDER BY key LIMIT 1",
        "SCAN esl_organizations USING INDEX esl_organizations_deleted",
    ),
    excuse(
        FIRST,
        "SELECT lane, deleted_at FROM esl_subscriptions WHERE deleted_at IS NOT NULL AND is_swept = 0 …",
        "SCAN esl_subscriptions USING INDEX esl_subscriptions_to_sweep",
    ),
    excuse(
        FIRST,
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM esl_idempotency WHERE created_at <= ?1) OR …",
        "SCAN esl_subscriptions USING INDEX esl_subscriptions_to_sweep",
    ),
    excuse(
        "a list of all, for whoever operates the server",
        "SELECT id, name, created_at, tier, subscriptions_max, events_per_hour, retries, key FROM \
         esl_organizations WHERE deleted_at IS NULL ORDER BY key",
        "SCAN esl_organizations",
    ),
    excuse(
        "as many as have an event of that id",
        "SELECT o.id FROM esl_events e JOIN esl_organizations o …",
        "USE TEMP B-TREE",
    ),
    excuse(
        "once, when a feed begins",
        "INSERT INTO esl_feed_cursors (organization, feed, seq) SELECT key, ?1, last_seq FROM \
         esl_organizations WHERE deleted_at IS NULL",
        "SCAN esl_organizations",
    ),
    excuse(CLEANING, "SELECT pgno, data FROM sqlite_dbpage WHERE pgno > 1", "SCAN sqlite_dbpage"),
    excuse(
        "one page, by its number",
        "SELECT data FROM sqlite_dbpage WHERE pgno = ?1",
        "SCAN sqlite_dbpage VIRTUAL TABLE INDEX 1",
    ),
    excuse(
        "one page, by its number",
        "UPDATE sqlite_dbpage SET data = ?2 WHERE pgno = ?1",
        "SCAN sqlite_dbpage VIRTUAL TABLE INDEX 1",
    ),
    excuse(
        SET_BACK,
        "UPDATE esl_open INDEXED BY esl_open_tried …",
        "SCAN esl_open USING INDEX esl_open_tried",
    ),
    excuse(SET_BACK, "UPDATE esl_lanes SET not_before = …", "SCAN esl_lanes"),
    excuse(
        "a command looks at every secret",
        "SELECT coalesce(sum((secret IS NOT NULL …",
        "SCAN esl_subscriptions",
    ),
];

/// Every case, several at a time, since they mostly wait for the disk.
fn run_the_suite() {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(case) = cases::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    run::<Watched>(*case);
                }
            });
        }
    });
}

/// What only a file has, and so no other storage.
fn run_what_the_suite_does_not() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(NOON);
        let options = || SqliteStorage::options().clock(Arc::new(clock.clone()));
        let path = folder.path().join(FILE);

        // Secrets in plain text, which are encrypted then.
        let storage = options().open(&path).unwrap();
        let organization = OrganizationId::from_ulid(Ulid::from_parts(NOON.as_millis_u64(), 1));
        let row = Organization::new(organization, "one", NOON);
        storage.create_organization(row, &Actor::APPLICATION).await.unwrap();
        let url = CallbackUrl::from_stored("https://receiver.example/");
        let new = NewSubscription::new(url, vec!["*".parse().unwrap()]);
        let id = SubscriptionId::from_ulid(Ulid::from_parts(NOON.as_millis_u64(), 2));
        let secret = Secret::new("as-documented").unwrap();
        let draft = Subscription::new(id, organization, new, secret, NOON);
        let tiers = Tiers::default();
        storage.create_subscription(draft, &tiers, &Actor::APPLICATION).await.unwrap();
        storage.link_keys(LinkKey::from_bytes([7; 32])).await.unwrap();
        let worker = WorkerId::from_ulid(Ulid::from_parts(NOON.as_millis_u64(), 3));
        let (enlisted, _) = storage.enlist(worker, Tenure::default()).await.unwrap();
        storage.resign(&enlisted).await.unwrap();
        drop(storage);
        let storage = options().keyring(keyring()).open(&path).unwrap();
        assert_eq!(storage.secrets_to_reencrypt().await.unwrap(), 1);
        let done = storage.reencrypt(SecretForm::Encrypted).await.unwrap();
        assert_eq!((done.subscriptions, done.link_keys), (1, 1));
        drop(storage);

        // An engine that begins when it is earlier than before.
        clock.set_utc(NOON - Duration::from_secs(60 * 60));
        let storage = options().keyring(keyring()).open(&path).unwrap();
        storage.enlist(worker, Tenure::default()).await.unwrap();
    });
}

const NOON: Timestamp = Timestamp::from_millis(1_705_329_120_000);

fn keyring() -> Keyring {
    Keyring::new([EncryptionKey::from_bytes(&[7; 32])]).unwrap()
}

/// A database whose secrets are encrypted: so what is only run for these is run, too.
struct Watched(TempDir);

#[async_trait]
impl Harness for Watched {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn engines(&self) -> Engines {
        Engines::One
    }

    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Storage> {
        let options = SqliteStorage::options().clock(clock).keyring(keyring());
        Arc::new(options.open(self.0.path().join(FILE)).unwrap())
    }

    /// What survives is not what is looked at here.
    async fn reopen_after_kill(
        &mut self,
        killed: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
    ) -> Arc<dyn Storage> {
        drop(killed);
        self.open(clock).await
    }
}
