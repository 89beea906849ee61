//! Rewriting the secrets that were stored in plain text, or with a key that is to be given up.
//!
//! It goes from row to row in slices, beside an engine or not. Which keys are in use afterwards is known
//! without another look at the rows: when it begins, the other keys are marked as unused, whoever seals
//! with one from then on marks it as used again, and a key that is still unmarked at the end is of no
//! row, unless it is of one that could not be read.

use std::collections::BTreeSet;

use esl_core::{
    KeyId, OrganizationId, SealedPlace, SecretField, SubscriptionId,
    storage::{StorageError, StorageErrorKind},
};
use rusqlite::{
    Row,
    types::{Value, ValueRef},
};

use crate::storage::{
    SqliteStorage, cleaning, encryption_keys,
    error::{Stop, is_damaged_value},
    readers::Snapshot,
    secrets::{Holder, Secrets},
    session::Session,
};

/// In what form secrets are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretForm {
    /// Encrypted with the first key of the [keyring](crate::storage::SqliteOptions::keyring).
    Encrypted,
    /// As they are.
    Plain,
}

/// What [`SqliteStorage::reencrypt`] has done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reencrypted {
    /// Subscriptions whose secrets were rewritten, deleted ones included.
    pub subscriptions: u64,
    /// Keys of links that were rewritten.
    pub link_keys: u64,
    /// Secrets that were left as they are, since they are not what ESL writes there.
    pub damaged: u64,
    /// Whether nothing of what stood there before is left in the files. If not, the engine's chores
    /// empty the rest, or another call.
    pub is_clean: bool,
    /// The keys that secrets are still encrypted with. All others can be given up.
    pub keys_in_use: Vec<KeyId>,
    /// The key that an engine which runs on the database encrypts with, if it is another than this
    /// handle's first one: what it writes from now on needs that key.
    pub engine_key: Option<KeyId>,
}

const REENCRYPT: &str = "re-encrypt the secrets";

impl SqliteStorage {
    /// Rewrites all secrets that are stored in another form, or with another key than the first, and
    /// overwrites what stood there before in the database and its WAL.
    ///
    /// An engine on the database goes on meanwhile, in this process or another. It has to have the key
    /// that is encrypted with; it may encrypt with another one itself.
    ///
    /// # Errors
    /// [`KeyMissing`](StorageErrorKind::KeyMissing) if there is no keyring, or if an engine runs without
    /// the key.
    ///
    /// # Cancellation
    /// What was rewritten stays so; another call goes on.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("esl.db");
    /// use esl_core::{EncryptionKey, Keyring};
    /// use esl_sqlite::{SecretForm, SqliteStorage};
    /// let keyring = Keyring::new([EncryptionKey::from_bytes(&[7; 32])])?;
    /// let storage = SqliteStorage::options().keyring(keyring).open(path)?;
    /// let done = storage.reencrypt(SecretForm::Encrypted).await?;
    /// assert_eq!((done.subscriptions, done.damaged), (0, 0));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reencrypt(&self, form: SecretForm) -> Result<Reencrypted, StorageError> {
        self.writer().run(REENCRYPT, 1, move |session| begin(session, form)).await?;
        let mut progress = Progress::default();
        loop {
            let work = move |session: &mut Session<'_>| slice(session, form, progress);
            let is_last;
            (progress, is_last) = self.writer().run(REENCRYPT, SLICE, work).await?;
            if is_last {
                break;
            }
        }
        let work = move |session: &mut Session<'_>| finish(session, form, &progress);
        let done = self.writer().run(REENCRYPT, 1, work).await?;
        Ok(Reencrypted { is_clean: self.clean_up().await?, ..done })
    }
}

impl SqliteStorage {
    /// How many secrets in the database are not encrypted with the first key: in plain text, or with
    /// another one. Without a keyring, how many are not in plain text. It looks at all of them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn secrets_to_reencrypt(&self) -> Result<u64, StorageError> {
        let work = |snapshot: &Snapshot<'_>| {
            let keyring = snapshot.secrets.keyring.as_ref();
            let first = keyring.map(|keyring| keyring.first().to_bytes());
            let mut select = snapshot.connection.prepare_cached(&stale_sql())?;
            Ok(select.query_row([first], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)?)
        };
        self.readers().run("count secrets", work).await
    }
}

/// A text is plain; a blob has the key's id behind its version.
fn stale_sql() -> String {
    let is_stale = |column: &str| {
        format!(
            "({column} IS NOT NULL AND CASE typeof({column})
                WHEN 'text' THEN ?1 IS NOT NULL
                ELSE ?1 IS NULL OR substr({column}, 2, 8) IS NOT ?1 END)"
        )
    };
    let [secret, old, headers] = ["secret", "old_secret", "headers"].map(is_stale);
    format!(
        "SELECT coalesce(sum({secret} + {old} + {headers}), 0)
         FROM esl_subscriptions WHERE deleted_at IS NULL"
    )
}

#[derive(Debug, Default)]
struct Progress {
    after_lane: i64,
    subscriptions: u64,
    link_keys: u64,
    damaged: u64,
    /// Of what could not be read.
    keys_left: BTreeSet<KeyId>,
}

fn begin(session: &mut Session<'_>, form: SecretForm) -> Result<(), Stop> {
    let Some(keyring) = &session.secrets.keyring else {
        let error = StorageError::new(StorageErrorKind::KeyMissing, REENCRYPT);
        return Err(error.with_source("no key was given").into());
    };
    let kept = match form {
        SecretForm::Encrypted => Some(keyring.first().to_bytes()),
        SecretForm::Plain => None,
    };
    if form == SecretForm::Encrypted {
        encryption_keys::demand_known(session, REENCRYPT)?;
    }
    let unmark = "UPDATE esl_encryption_keys SET is_used = 0 WHERE id IS NOT ?1";
    session.connection.prepare_cached(unmark)?.execute([kept])?;
    // As other handles do, which notice this commit.
    session.is_key_noted = false;
    Ok(())
}

/// Some subscriptions more; at the end of them, the keys of links. Says whether that was all.
fn slice(
    session: &mut Session<'_>,
    form: SecretForm,
    mut progress: Progress,
) -> Result<(Progress, bool), Stop> {
    if form == SecretForm::Encrypted {
        encryption_keys::demand_known(session, REENCRYPT)?;
    }
    let mut resealing = Resealing::new(&session.secrets, form);
    let mut select = session.connection.prepare_cached(SUBSCRIPTIONS)?;
    let limit = i64::try_from(SLICE).expect("it is small");
    let mut rows = select.query((progress.after_lane, limit))?;
    let (mut changed, mut read) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        progress.after_lane = row.get(0)?;
        read += 1;
        if let Some(secrets) = resealing.subscription(row)? {
            changed.push((progress.after_lane, secrets));
        }
    }
    let is_last = read < SLICE;
    let link_keys = if is_last { resealing.link_keys(session)? } else { Vec::new() };
    progress.damaged += resealing.damaged;
    progress.keys_left.append(&mut resealing.keys_left);
    if changed.is_empty() && link_keys.is_empty() {
        return Ok((progress, is_last));
    }
    match form {
        SecretForm::Encrypted => {
            encryption_keys::note(session)?;
            // What is overwritten may be elsewhere in the files, too.
            cleaning::demand(session)?;
        }
        SecretForm::Plain => {}
    }
    progress.subscriptions += changed.len() as u64;
    progress.link_keys += link_keys.len() as u64;
    let mut update = session.connection.prepare_cached(UPDATE_SUBSCRIPTION)?;
    for (lane, [secret, old_secret, headers]) in changed {
        update.execute((lane, secret, old_secret, headers))?;
    }
    let mut update =
        session.connection.prepare_cached("UPDATE esl_link_keys SET key = ?2 WHERE number = ?1")?;
    for (number, key) in link_keys {
        update.execute((number, key))?;
    }
    Ok((progress, is_last))
}

fn finish(
    session: &mut Session<'_>,
    form: SecretForm,
    progress: &Progress,
) -> Result<Reencrypted, Stop> {
    let connection = session.connection;
    let unused = "DELETE FROM esl_encryption_keys WHERE id = ?1 AND is_used = 0";
    let mut unused = connection.prepare_cached(unused)?;
    for id in encryption_keys::all(connection)? {
        if !progress.keys_left.contains(&id) {
            unused.execute([id.to_bytes()])?;
        }
    }
    session.is_key_noted = false;
    let first = match form {
        SecretForm::Encrypted => session.secrets.keyring.as_ref().map(|keyring| keyring.first()),
        SecretForm::Plain => None,
    };
    let engine_key = encryption_keys::of_engine(session)?.and_then(|ids| ids.first().copied());
    Ok(Reencrypted {
        subscriptions: progress.subscriptions,
        link_keys: progress.link_keys,
        damaged: progress.damaged,
        is_clean: false,
        keys_in_use: encryption_keys::all(connection)?,
        engine_key: engine_key.filter(|id| Some(*id) != first),
    })
}

struct Resealing<'s> {
    /// What reads.
    all: &'s Secrets,
    /// What writes.
    target: Secrets,
    damaged: u64,
    keys_left: BTreeSet<KeyId>,
}

impl<'s> Resealing<'s> {
    fn new(all: &'s Secrets, form: SecretForm) -> Self {
        let target = match form {
            SecretForm::Encrypted => all.clone(),
            SecretForm::Plain => Secrets::default(),
        };
        Self { all, target, damaged: 0, keys_left: BTreeSet::new() }
    }

    /// Those secrets of a row of [`SUBSCRIPTIONS`] that are not as they should be, anew; `None` if all
    /// are.
    fn subscription(&mut self, row: &Row<'_>) -> rusqlite::Result<Option<[Option<Value>; 3]>> {
        // The organization of a deleted one has another id since, so nothing opens; nor is it read.
        let is_of_nobody: bool = row.get(3)?;
        let holder = Holder {
            organization: OrganizationId::from_bytes(row.get(2)?),
            subscription: SubscriptionId::from_bytes(row.get(1)?),
        };
        let fields = [SecretField::Current, SecretField::Retiring, SecretField::Headers];
        let mut secrets = [const { None }; 3];
        for ((index, field), secret) in (4..).zip(fields).zip(&mut secrets) {
            let (old, place) = (row.get_ref(index)?, holder.place(field));
            *secret = match old {
                ValueRef::Null | ValueRef::Text(b"") => None,
                _ if is_of_nobody => Some(Value::from(String::new())),
                _ if self.is_right(old) => None,
                _ => {
                    let target = &self.target;
                    let seal = |text: &str| target.text(text, place);
                    let new = self.all.read_text(row, index, place, seal);
                    self.unless_damaged(old, new)?.flatten()
                }
            };
        }
        Ok(secrets.iter().any(Option::is_some).then_some(secrets))
    }

    /// The keys of links that are not as they should be, anew.
    fn link_keys(&mut self, session: &Session<'_>) -> rusqlite::Result<Vec<(i64, Value)>> {
        let mut select =
            session.connection.prepare_cached("SELECT number, key FROM esl_link_keys")?;
        let mut rows = select.query([])?;
        let mut changed = Vec::new();
        while let Some(row) = rows.next()? {
            let number: i64 = row.get(0)?;
            let place = SealedPlace::LinkKey(number);
            let old = row.get_ref(1)?;
            let is_right = match old {
                ValueRef::Blob(bytes) if bytes.len() == LINK_KEY_BYTES => {
                    self.target.keyring.is_none()
                }
                _ => self.is_right(old),
            };
            if is_right {
                continue;
            }
            let read = self.all.read_bytes::<LINK_KEY_BYTES>(row, 1, place);
            let new = read.and_then(|key| self.target.bytes(&key, place));
            changed.extend(self.unless_damaged(old, new)?.map(|new| (number, new)));
        }
        Ok(changed)
    }

    /// Whether a secret has the form, and the key, that is wanted.
    fn is_right(&self, value: ValueRef<'_>) -> bool {
        match (&self.target.keyring, value) {
            (Some(keyring), ValueRef::Blob(sealed)) => {
                KeyId::of_sealed(sealed) == Some(keyring.first())
            }
            (None, ValueRef::Text(_)) => true,
            _ => false,
        }
    }

    fn unless_damaged<T>(
        &mut self,
        old: ValueRef<'_>,
        read: rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        match read {
            Err(error) if is_damaged_value(&error) => {
                self.damaged += 1;
                if let ValueRef::Blob(sealed) = old {
                    self.keys_left.extend(KeyId::of_sealed(sealed));
                }
                Ok(None)
            }
            read => read.map(Some),
        }
    }
}

const SUBSCRIPTIONS: &str = "
SELECT s.lane, s.id, o.id, o.deleted_at IS NOT NULL, s.secret, s.old_secret, s.headers
FROM esl_subscriptions s JOIN esl_organizations o ON o.key = s.organization
WHERE s.lane > ?1 ORDER BY s.lane LIMIT ?2";

const UPDATE_SUBSCRIPTION: &str = "
UPDATE esl_subscriptions SET secret = coalesce(?2, secret), old_secret = coalesce(?3, old_secret),
    headers = coalesce(?4, headers)
WHERE lane = ?1";

const LINK_KEY_BYTES: usize = 32;

/// Subscriptions of a slice: a few milliseconds.
const SLICE: usize = 250;

#[cfg(test)]
mod tests {
    use esl_core::Timestamp;
    use rusqlite::Connection;

    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn a_slice_begins_where_the_last_one_ended() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let keys = [
            "SEARCH s USING INTEGER PRIMARY KEY (rowid>?)",
            "SEARCH o USING INTEGER PRIMARY KEY (rowid=?)",
        ];
        assert_plan(&connection, SUBSCRIPTIONS, &keys);
    }
}
