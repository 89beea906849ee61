//! Rewriting the secrets that were stored in plain text, or with a key that is to be given up.
//!
//! It goes from row to row in slices, beside an engine or not. Which keys are in use afterwards is known
//! without another look at the rows: when it begins, the other keys are marked as unused, whoever seals
//! with one from then on marks it as used again, and a key that is still unmarked at the end is of no
//! row, unless it is of one that could not be read. Of several who do this at once, the one that has begun
//! last retires keys: the others' marks are gone.

use esl_core::{
    KeyId, LinkKey, OrganizationId, SealedPlace, SecretField, SubscriptionId,
    storage::{Reencrypted, Resealing, SecretForm, StorageError},
};
use rusqlite::{
    Row,
    types::{Value, ValueRef},
};

use crate::storage::{
    SqliteStorage, cleaning, encryption_keys, error::Stop, readers::Snapshot, secrets::Holder,
    session::Session,
};

const REENCRYPT: &str = "re-encrypt the secrets";

impl SqliteStorage {
    /// Rewrites all secrets that are stored in another form, or with another key than the first, and
    /// overwrites what stood there before in the database and its WAL.
    ///
    /// An engine on the database goes on meanwhile, in this process or another. It has to have the key
    /// that is encrypted with; it may encrypt with another one itself.
    ///
    /// # Errors
    /// [`KeyMissing`](esl_core::storage::StorageErrorKind::KeyMissing) if there is no keyring, or if an
    /// engine runs without the key.
    ///
    /// # Cancellation
    /// What was rewritten stays so; another call goes on.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("esl.db");
    /// use esl_core::{EncryptionKey, Keyring, storage::SecretForm};
    /// use esl_sqlite::SqliteStorage;
    /// let keyring = Keyring::new([EncryptionKey::from_bytes(&[7; 32])])?;
    /// let storage = SqliteStorage::options().keyring(keyring).open(path)?;
    /// let done = storage.reencrypt(SecretForm::Encrypted).await?;
    /// assert_eq!((done.subscriptions, done.damaged), (0, 0));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reencrypt(&self, form: SecretForm) -> Result<Reencrypted, StorageError> {
        let begun = self.writer().run(REENCRYPT, 1, move |session| begin(session, form));
        let mut progress = begun.await?;
        loop {
            let work = move |session: &mut Session<'_>| slice(session, progress);
            let is_last;
            (progress, is_last) = self.writer().run(REENCRYPT, SLICE, work).await?;
            if is_last {
                break;
            }
        }
        let work = move |session: &mut Session<'_>| finish(session, &progress);
        let mut done = self.writer().run(REENCRYPT, 1, work).await?;
        done.is_clean = self.clean_up().await?;
        Ok(done)
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

#[derive(Debug)]
struct Progress {
    /// Of how many that were begun this is the last.
    number: i64,
    resealing: Resealing,
    after_lane: i64,
    subscriptions: u64,
    link_keys: u64,
}

fn begin(session: &mut Session<'_>, form: SecretForm) -> Result<Progress, Stop> {
    let resealing = Resealing::new(session.secrets.keyring.as_ref(), form)?;
    let kept = resealing.key();
    if kept.is_some() {
        encryption_keys::demand_known(session, REENCRYPT)?;
    }
    let unmark = "UPDATE esl_encryption_keys SET is_used = 0 WHERE id IS NOT ?1";
    let kept = kept.map(KeyId::to_bytes);
    session.connection.prepare_cached(unmark)?.execute([kept])?;
    // As other handles do, which notice this commit.
    session.is_key_noted = false;
    let number = session.connection.prepare_cached(BEGUN)?.query_one([], |row| row.get(0))?;
    Ok(Progress { number, resealing, after_lane: 0, subscriptions: 0, link_keys: 0 })
}

const BEGUN: &str = "
UPDATE esl_engine SET reencryptions_begun = reencryptions_begun + 1 WHERE one = 1
RETURNING reencryptions_begun";

const LAST: &str = "SELECT reencryptions_begun FROM esl_engine WHERE one = 1";

/// Some subscriptions more; at the end of them, the keys of links. Says whether that was all.
fn slice(session: &mut Session<'_>, mut progress: Progress) -> Result<(Progress, bool), Stop> {
    let seals = progress.resealing.key().is_some();
    if seals {
        encryption_keys::demand_known(session, REENCRYPT)?;
    }
    let mut select = session.connection.prepare_cached(SUBSCRIPTIONS)?;
    let limit = i64::try_from(SLICE).expect("it is small");
    let mut rows = select.query((progress.after_lane, limit))?;
    let (mut changed, mut read) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        progress.after_lane = row.get(0)?;
        read += 1;
        if let Some(secrets) = resealed(&mut progress.resealing, row)? {
            changed.push((progress.after_lane, secrets));
        }
    }
    let is_last = read < SLICE;
    let link_keys = if is_last { link_keys(&mut progress.resealing, session)? } else { Vec::new() };
    if changed.is_empty() && link_keys.is_empty() {
        return Ok((progress, is_last));
    }
    if seals {
        encryption_keys::note(session)?;
        // What is overwritten may be elsewhere in the files, too.
        cleaning::demand(session)?;
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

fn finish(session: &mut Session<'_>, progress: &Progress) -> Result<Reencrypted, Stop> {
    let connection = session.connection;
    let resealing = &progress.resealing;
    let last: i64 = connection.prepare_cached(LAST)?.query_one([], |row| row.get(0))?;
    if last == progress.number {
        let unused = "DELETE FROM esl_encryption_keys WHERE id = ?1 AND is_used = 0";
        let mut unused = connection.prepare_cached(unused)?;
        for id in encryption_keys::all(connection)? {
            if !resealing.keys_left().contains(&id) {
                unused.execute([id.to_bytes()])?;
            }
        }
    }
    session.is_key_noted = false;
    let engine_key = encryption_keys::of_engine(session)?.and_then(|ids| ids.first().copied());
    let mut done = Reencrypted::default();
    done.subscriptions = progress.subscriptions;
    done.link_keys = progress.link_keys;
    done.damaged = resealing.damaged();
    done.keys_in_use = encryption_keys::all(connection)?;
    done.engine_keys.extend(engine_key.filter(|id| Some(*id) != resealing.key()));
    Ok(done)
}

/// Those secrets of a row of [`SUBSCRIPTIONS`] that are not as they should be, anew; `None` if all are.
fn resealed(resealing: &mut Resealing, row: &Row<'_>) -> Result<Option<[Option<Value>; 3]>, Stop> {
    // The organization of a deleted one has another id since, so nothing opens; nor is it read.
    let is_of_nobody: bool = row.get(3)?;
    let holder = Holder {
        organization: OrganizationId::from_bytes(row.get(2)?),
        subscription: SubscriptionId::from_bytes(row.get(1)?),
    };
    let fields = [SecretField::Current, SecretField::Retiring, SecretField::Headers];
    let mut secrets = [const { None }; 3];
    for ((index, field), secret) in (4..).zip(fields).zip(&mut secrets) {
        let place = holder.place(field);
        let (stored, is_sealed) = match row.get_ref(index)? {
            ValueRef::Null | ValueRef::Text(b"") => continue,
            _ if is_of_nobody => {
                *secret = Some(Value::from(String::new()));
                continue;
            }
            ValueRef::Blob(sealed) => (sealed, true),
            ValueRef::Text(text) => (text, false),
            ValueRef::Integer(_) | ValueRef::Real(_) => {
                resealing.note_damaged(&[]);
                continue;
            }
        };
        *secret = resealing.reseal(stored, is_sealed, place)?.map(|new| match resealing.key() {
            Some(_) => Value::from(new),
            None => Value::from(String::from_utf8(new).expect("what is made plain is a text")),
        });
    }
    Ok(secrets.iter().any(Option::is_some).then_some(secrets))
}

/// The keys of links that are not as they should be, anew.
fn link_keys(
    resealing: &mut Resealing,
    session: &Session<'_>,
) -> Result<Vec<(i64, Vec<u8>)>, Stop> {
    let mut select = session.connection.prepare_cached("SELECT number, key FROM esl_link_keys")?;
    let mut rows = select.query([])?;
    let mut changed = Vec::new();
    while let Some(row) = rows.next()? {
        let number: i64 = row.get(0)?;
        let ValueRef::Blob(stored) = row.get_ref(1)? else {
            resealing.note_damaged(&[]);
            continue;
        };
        // One in plain is shorter than any that is sealed.
        let is_sealed = stored.len() != LinkKey::BYTES;
        let key = resealing.reseal(stored, is_sealed, SealedPlace::LinkKey(number))?;
        changed.extend(key.map(|key| (number, key)));
    }
    Ok(changed)
}

const SUBSCRIPTIONS: &str = "
SELECT s.lane, s.id, o.id, o.deleted_at IS NOT NULL, s.secret, s.old_secret, s.headers
FROM esl_subscriptions s JOIN esl_organizations o ON o.key = s.organization
WHERE s.lane > ?1 ORDER BY s.lane LIMIT ?2";

const UPDATE_SUBSCRIPTION: &str = "
UPDATE esl_subscriptions SET secret = coalesce(?2, secret), old_secret = coalesce(?3, old_secret),
    headers = coalesce(?4, headers)
WHERE lane = ?1";

/// Subscriptions of a slice: a few milliseconds.
const SLICE: usize = 250;

#[cfg(test)]
mod tests {
    use esl_core::{EncryptionKey, Keyring, Timestamp};
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

    #[tokio::test]
    async fn of_two_at_once_the_one_that_has_begun_last_retires_keys() {
        let folder = tempfile::tempdir().unwrap();
        let open = |keys: [u8; 2]| {
            let keyring = Keyring::new(keys.map(|byte| EncryptionKey::from_bytes(&[byte; 32])));
            let options = SqliteStorage::options().keyring(keyring.unwrap());
            options.open(folder.path().join("esl.db")).unwrap()
        };
        let run_begin = async |storage: &SqliteStorage| {
            let work = |session: &mut Session<'_>| begin(session, SecretForm::Encrypted);
            storage.writer().run(REENCRYPT, 1, work).await.unwrap()
        };
        let run_finish = async |storage: &SqliteStorage, progress: Progress| {
            let work = move |session: &mut Session<'_>| finish(session, &progress);
            storage.writer().run(REENCRYPT, 1, work).await.unwrap().keys_in_use
        };
        let (old, one, other) = (open([1, 2]), open([2, 1]), open([2, 1]));
        let first = run_begin(&one).await;
        // Sealed behind the first one's back, and marked as unused again by the second.
        let note = |session: &mut Session<'_>| Ok(encryption_keys::note(session)?);
        old.writer().run(REENCRYPT, 1, note).await.unwrap();
        let second = run_begin(&other).await;
        assert_eq!(run_finish(&one, first).await.len(), 1, "the second one has yet to look for it");
        assert_eq!(run_finish(&other, second).await, []);
    }
}
