//! Rewriting the secrets that were stored in plain text, or with a key that is to be given up, beside as many
//! engines as there are.
//!
//! It goes from row to row in slices. Each first looks, and locks nothing; what is not as it should be is read
//! once more under its lock and written in the same short transaction, so that no change of anybody else is
//! lost. What somebody else has in hand it comes back to, one by one: who waits for a row holds no other, so
//! nobody waits in a circle.
//!
//! Which keys are in use afterwards is known without another look at the rows. When it begins, the other keys
//! are marked as unused, under the lock that whoever seals with one shares: so what was sealed before is
//! there to be found. Whoever seals with one from then on marks it as used again. At the end, under the same
//! lock, a key that is still unmarked is of no row, unless it is of one that could not be read. Of several
//! who do this at once, the one that has begun last retires keys: the others' marks are gone.

use std::collections::BTreeSet;

use esl_core::{
    KeyId, OrganizationId, SealedPlace, SecretField,
    storage::{Reencrypted, Resealing, SecretForm, StorageError, StorageErrorKind},
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage, encryption_keys,
    error::Damage,
    id::Id16,
    link_keys,
    parameters::parameters,
    rows::{self, get, limit_number, whole},
    secrets::Holder,
    subscription_row::{HEADERS, OLD_SECRET, SECRET},
    vacuum::{may_vacuum, vacuum},
};

const REENCRYPT: &str = "re-encrypt the secrets";
const COUNT: &str = "count secrets";

impl PostgresStorage {
    /// Rewrites all secrets that are stored in another form, or with another key than the first, and has the
    /// server free the rows in which they stood before.
    ///
    /// Engines on the database go on meanwhile, in this process or others. Each has to have the key that is
    /// encrypted with; it may encrypt with another one itself. The server overwrites what was freed when it
    /// needs the place; its log, standbys and backups have it for longer.
    ///
    /// [`is_clean`](Reencrypted::is_clean) says whether the tables could be vacuumed: their owner may, and
    /// the database's. If not, the server does it in its own time.
    ///
    /// # Errors
    /// [`KeyMissing`](StorageErrorKind::KeyMissing) if there is no keyring, if an engine runs without the key,
    /// or if a key came meanwhile that the keyring does not have; [`Busy`](StorageErrorKind::Busy) if somebody
    /// holds a row for long. What was rewritten stays so.
    ///
    /// # Cancellation
    /// What was rewritten stays so; another call goes on.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use esl_core::{Keyring, storage::SecretForm};
    /// use esl_postgres::PostgresStorage;
    /// let keyring: Keyring = std::env::var("ESL_ENCRYPTION_KEY")?.parse()?;
    /// let storage = PostgresStorage::options().keyring(keyring).open("postgres://u@/app?host=/run").await?;
    /// let done = storage.reencrypt(SecretForm::Encrypted).await?;
    /// println!("{} subscriptions; needed from now on: {:?}", done.subscriptions, done.keys_in_use);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reencrypt(&self, form: SecretForm) -> Result<Reencrypted, StorageError> {
        let mut resealing = Resealing::new(self.secrets().keyring.as_ref(), form)?;
        let number = begin(self, &resealing).await?;
        let (mut after, mut subscriptions) = (Some(0), 0);
        while let Some(lane) = after {
            let looked = look(self, REENCRYPT, resealing.key(), lane, SLICE).await?;
            subscriptions += rewrite(self, &mut resealing, looked.lanes).await?;
            after = looked.next;
        }
        let link_keys = rewrite_link_keys(self, &mut resealing).await?;
        let mut done = finish(self, number, &resealing).await?;
        done.subscriptions = subscriptions;
        done.link_keys = link_keys;
        done.damaged = resealing.damaged();
        done.is_clean = clean_up(self).await;
        Ok(done)
    }

    /// How many secrets in the database are not encrypted with the first key: in plain text, or with
    /// another one. Without a keyring, how many are not in plain text. It looks at all of them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn secrets_to_reencrypt(&self) -> Result<u64, StorageError> {
        let key = self.secrets().keyring.as_ref().map(|keyring| keyring.first());
        let (mut after, mut secrets) = (Some(0), 0);
        while let Some(lane) = after {
            let looked = look(self, COUNT, key, lane, COUNTED_AT_ONCE).await?;
            secrets += looked.secrets_alive;
            after = looked.next;
        }
        Ok(secrets)
    }
}

/// Marks the keys as unused that are not to be; says the number of this run.
async fn begin(storage: &PostgresStorage, resealing: &Resealing) -> Result<i64, StorageError> {
    let mut lease = storage.database().lease(REENCRYPT).await?;
    let session = storage.begin(&mut lease, REENCRYPT).await?;
    encryption_keys::stop_sealing(&session).await?;
    let row = session.query_one(NEXT, &[]).await?;
    let number = whole(REENCRYPT, get(&row, 0))?;
    encryption_keys::demand_all_of(&session).await?;
    let kept = resealing.key();
    if kept.is_some() {
        encryption_keys::demand_known(&session).await?;
    }
    encryption_keys::unmark(&session, kept).await?;
    session.commit().await?;
    Ok(number)
}

/// Retires the keys that are still unmarked, unless this was begun once more since.
async fn finish(
    storage: &PostgresStorage,
    number: i64,
    resealing: &Resealing,
) -> Result<Reencrypted, StorageError> {
    let mut lease = storage.database().lease(REENCRYPT).await?;
    let session = storage.begin(&mut lease, REENCRYPT).await?;
    encryption_keys::stop_sealing(&session).await?;
    let last = session.query_one(LAST, &[]).await?;
    if whole(REENCRYPT, get::<i64>(&last, 0))? == number {
        encryption_keys::retire(&session, resealing.keys_left()).await?;
    }
    let mut done = Reencrypted::default();
    done.keys_in_use = encryption_keys::all(&session).await?;
    let of_engines: BTreeSet<KeyId> = encryption_keys::of_engines(&session).await?;
    done.engine_keys = of_engines.into_iter().filter(|id| Some(*id) != resealing.key()).collect();
    session.commit().await?;
    Ok(done)
}

const NEXT: &str = "SELECT nextval('esl.reencryptions')";

/// After a crash of the server it may be higher than any that was drawn, and then nobody retires keys who has
/// begun before.
const LAST: &str = "SELECT last_value FROM esl.reencryptions";

/// What a look at some subscriptions has found that is not as it should be.
#[derive(Debug, Default)]
struct Looked {
    lanes: Vec<i64>,
    /// Of subscriptions that are not deleted.
    secrets_alive: u64,
    /// The last lane that was looked at, unless there are no more.
    next: Option<i64>,
}

async fn look(
    storage: &PostgresStorage,
    operation: &'static str,
    key: Option<KeyId>,
    after: i64,
    limit: usize,
) -> Result<Looked, StorageError> {
    let values = parameters![after, limit_number(limit)];
    let found = storage.database().query(operation, LOOK, values).await?;
    let mut looked = Looked::default();
    for row in &found {
        let (lane, wrong) =
            whole(operation, get(row, 0).and_then(|lane| Ok((lane, wrong(row, key)?))))?;
        if wrong > 0 {
            looked.lanes.push(lane);
        }
        if whole(operation, get(row, 5))? {
            looked.secrets_alive += wrong;
        }
        looked.next = (found.len() == limit).then_some(lane);
    }
    Ok(looked)
}

/// How many secrets of a row of [`LOOK`] are not as they should be.
fn wrong(row: &Row, key: Option<KeyId>) -> Result<u64, Damage> {
    let sealed: i16 = get(row, 1)?;
    let mut wrong = 0;
    for (column, (bit, _)) in (2..).zip(FIELDS) {
        let stored = get::<Option<&[u8]>>(row, column)?.unwrap_or_default();
        if !stored.is_empty() && !Resealing::is_right(key, stored, sealed & bit != 0) {
            wrong += 1;
        }
    }
    Ok(wrong)
}

/// The secrets of a subscription, in the order of the columns that are read and written here.
const FIELDS: [(i16, SecretField); 3] = [
    (SECRET, SecretField::Current),
    (OLD_SECRET, SecretField::Retiring),
    (HEADERS, SecretField::Headers),
];

/// As much of each secret as says what it is sealed with.
const LOOK: &str = "
SELECT s.lane, s.sealed, substring(s.secret FROM 1 FOR 33), substring(s.old_secret FROM 1 FOR 33),
    substring(s.headers FROM 1 FOR 33), s.deleted_at IS NULL
FROM esl.subscriptions s WHERE s.lane > $1 ORDER BY s.lane LIMIT $2";

/// Rewrites the secrets of some subscriptions, and says of how many there was something to rewrite.
async fn rewrite(
    storage: &PostgresStorage,
    resealing: &mut Resealing,
    mut lanes: Vec<i64>,
) -> Result<u64, StorageError> {
    if lanes.is_empty() {
        return Ok(0);
    }
    let mut rewritten = rewrite_at_once(storage, resealing, &mut lanes, SKIPPING).await?;
    for lane in lanes {
        let mut tries = 1;
        rewritten += loop {
            match rewrite_at_once(storage, resealing, &mut vec![lane], WAITING).await {
                Err(error) if error.kind() == StorageErrorKind::Busy && tries < TRIES_MAX => {
                    tries += 1;
                }
                rewritten => break rewritten?,
            }
        };
    }
    Ok(rewritten)
}

/// Takes from the lanes those that it comes to lock.
async fn rewrite_at_once(
    storage: &PostgresStorage,
    resealing: &mut Resealing,
    lanes: &mut Vec<i64>,
    lock: &str,
) -> Result<u64, StorageError> {
    let mut lease = storage.database().lease(REENCRYPT).await?;
    let session = storage.begin(&mut lease, REENCRYPT).await?;
    let locked = session.query(&subscriptions_sql(lock), parameters![*lanes]).await?;
    // What is damaged is counted once, also if this has to be repeated.
    let mut resealed = resealing.clone();
    let mut changed = Changed::default();
    for row in &locked {
        let subscription = whole(REENCRYPT, Stored::read(row))?;
        changed.add(&subscription, &mut resealed)?;
        lanes.retain(|lane| *lane != subscription.lane);
    }
    let count = changed.lanes.len() as u64;
    if count > 0 {
        if resealed.key().is_some() {
            encryption_keys::demand_known(&session).await?;
        }
        let Changed { lanes, secrets: [secrets, old_secrets, headers], sealed } = changed;
        let values = parameters![lanes, secrets, old_secrets, headers, sealed];
        session.execute(UPDATE_SUBSCRIPTIONS, values).await?;
    }
    session.commit().await?;
    *resealing = resealed;
    Ok(count)
}

/// The secrets of a subscription, as they are stored.
struct Stored<'r> {
    lane: i64,
    /// `None` if its organization is deleted: nobody reads them any more.
    holder: Option<Holder>,
    sealed: i16,
    secrets: [Option<&'r [u8]>; 3],
}

impl<'r> Stored<'r> {
    fn read(row: &'r Row) -> Result<Self, Damage> {
        let organization = get::<Option<Id16>>(row, 6)?.map(OrganizationId::from);
        let subscription = rows::id(row, 1)?;
        Ok(Self {
            lane: get(row, 0)?,
            holder: organization.map(|organization| Holder { organization, subscription }),
            sealed: get(row, 2)?,
            secrets: [get(row, 3)?, get(row, 4)?, get(row, 5)?],
        })
    }
}

/// What is written of subscriptions, column by column; `None` for a secret that stays.
#[derive(Default)]
struct Changed {
    lanes: Vec<i64>,
    secrets: [Vec<Option<Vec<u8>>>; 3],
    sealed: Vec<i16>,
}

impl Changed {
    fn add(&mut self, stored: &Stored<'_>, resealing: &mut Resealing) -> Result<(), StorageError> {
        let (mut sealed, mut secrets) = (stored.sealed, [const { None }; 3]);
        for ((secret, (bit, field)), new) in stored.secrets.iter().zip(FIELDS).zip(&mut secrets) {
            let Some(secret) = secret.filter(|secret| !secret.is_empty()) else { continue };
            let is_sealed = stored.sealed & bit != 0;
            let is_sealed_anew = match stored.holder {
                None if Resealing::is_right(resealing.key(), secret, is_sealed) => continue,
                None => {
                    *new = Some(Vec::new());
                    false
                }
                Some(holder) => {
                    *new = resealing.reseal(secret, is_sealed, holder.place(field))?;
                    resealing.key().is_some()
                }
            };
            if new.is_some() {
                sealed = if is_sealed_anew { sealed | bit } else { sealed & !bit };
            }
        }
        if secrets.iter().any(Option::is_some) {
            self.lanes.push(stored.lane);
            self.sealed.push(sealed);
            for (column, new) in self.secrets.iter_mut().zip(secrets) {
                column.push(new);
            }
        }
        Ok(())
    }
}

/// Each row is looked up by itself, and locked in the order of the lanes.
fn subscriptions_sql(lock: &str) -> String {
    format!(
        "SELECT s.lane, s.id, s.sealed, s.secret, s.old_secret, s.headers,
             (
                 SELECT g.id FROM esl.organizations g
                 WHERE g.key = s.organization AND g.deleted_at IS NULL LIMIT 1
             )
         FROM unnest($1) AS t (lane)
         CROSS JOIN LATERAL (
             SELECT * FROM esl.subscriptions q WHERE q.lane = t.lane LIMIT 1 {lock}
         ) s"
    )
}

const SKIPPING: &str = "FOR NO KEY UPDATE SKIP LOCKED";
const WAITING: &str = "FOR NO KEY UPDATE";

/// Each is written at its place, where it is locked.
const UPDATE_SUBSCRIPTIONS: &str = "
UPDATE esl.subscriptions s
SET secret = coalesce(f.secret, s.secret), old_secret = coalesce(f.old_secret, s.old_secret),
    headers = coalesce(f.headers, s.headers), sealed = f.sealed
FROM (
    SELECT t.*, q.place
    FROM unnest($1, $2, $3, $4, $5) AS t (lane, secret, old_secret, headers, sealed)
    CROSS JOIN LATERAL (
        SELECT b.ctid AS place FROM esl.subscriptions b WHERE b.lane = t.lane LIMIT 1
    ) q
) f
WHERE s.ctid = f.place";

/// Rewrites the keys of links, of which there are two at most; says how many.
async fn rewrite_link_keys(
    storage: &PostgresStorage,
    resealing: &mut Resealing,
) -> Result<u64, StorageError> {
    let mut lease = storage.database().lease(REENCRYPT).await?;
    let session = storage.begin(&mut lease, REENCRYPT).await?;
    session.query(link_keys::LOCK, &[]).await?;
    let mut changed = Vec::new();
    for row in session.query(LINK_KEYS, &[]).await? {
        let read = get(&row, 0).and_then(|number| Ok((number, get(&row, 1)?, get(&row, 2)?)));
        let (number, stored, is_sealed): (i64, &[u8], bool) = whole(REENCRYPT, read)?;
        let key = resealing.reseal(stored, is_sealed, SealedPlace::LinkKey(number))?;
        changed.extend(key.map(|key| (number, key)));
    }
    let is_sealed = resealing.key().is_some();
    if is_sealed && !changed.is_empty() {
        encryption_keys::demand_known(&session).await?;
    }
    let count = changed.len() as u64;
    for (number, key) in changed {
        session.execute(UPDATE_LINK_KEY, parameters![number, key, is_sealed]).await?;
    }
    session.commit().await?;
    Ok(count)
}

const LINK_KEYS: &str = "SELECT number, key, sealed FROM esl.link_keys";

const UPDATE_LINK_KEY: &str = "UPDATE esl.link_keys SET key = $2, sealed = $3 WHERE number = $1";

/// Has the server free the rows in which secrets stood before; says whether it did. All is written by now, so
/// what keeps it from that is no error.
async fn clean_up(storage: &PostgresStorage) -> bool {
    let database = storage.database();
    let cleaned = async {
        let may = may_vacuum(database, REENCRYPT, &VACUUMED).await?;
        if may {
            vacuum(database, REENCRYPT, &VACUUMED).await?;
        }
        Ok::<_, StorageError>(may)
    };
    cleaned.await.unwrap_or_else(|error| {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "the tables of secrets could not be vacuumed");
        false
    })
}

const VACUUMED: [&str; 2] = ["esl.subscriptions", "esl.link_keys"];

/// Subscriptions of a slice: some milliseconds.
const SLICE: usize = 250;

/// Subscriptions of which so little is looked at that more go into an answer.
const COUNTED_AT_ONCE: usize = 1000;

/// Each waits for 5 s.
const TRIES_MAX: u32 = 3;
