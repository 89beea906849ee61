//! Which keys the secrets in the database may be sealed with: a row for each, which is there before the
//! first secret is.
//!
//! So whether a keyring will do is known when the database is opened, without a look at the secrets. A
//! key that comes later is one that every running engine has: whoever would seal with another is refused.

use std::collections::BTreeSet;

use esl_core::{
    KeyId, Keyring,
    storage::{StorageError, StorageErrorKind},
};
use tokio_postgres::Row;

use crate::{
    connect::Database,
    parameters::parameters,
    rows::{bytes, get, whole},
    session::Session,
};

/// Refuses a database with secrets that this keyring does not open.
pub(crate) async fn demand_all(
    database: &Database,
    keyring: Option<&Keyring>,
    operation: &'static str,
) -> Result<(), StorageError> {
    demand(&read(operation, &database.query(operation, ALL, &[]).await?)?, keyring, operation)
}

fn demand(
    needed: &[KeyId],
    keyring: Option<&Keyring>,
    operation: &'static str,
) -> Result<(), StorageError> {
    let is_there = |id: &&KeyId| keyring.is_some_and(|keyring| keyring.has(**id));
    match needed.iter().find(|id| !is_there(id)) {
        Some(missing) => Err(key_missing(operation, *missing, keyring)),
        None => Ok(()),
    }
}

fn read(operation: &'static str, rows: &[Row]) -> Result<Vec<KeyId>, StorageError> {
    let ids = rows.iter().map(|row| bytes(row, 0).map(KeyId::from_bytes));
    whole(operation, ids.collect())
}

/// The ids of a keyring's keys as `workers.key_ids` has them: that of the one it seals with first.
pub(crate) fn ids(keyring: Option<&Keyring>) -> Option<Vec<u8>> {
    keyring.map(|keyring| keyring.ids().flat_map(KeyId::to_bytes).collect())
}

/// Refuses to seal with a key that an engine does not have, for it could not sign; and notes the key, since
/// secrets are about to be sealed with it.
///
/// Until this transaction ends no engine begins, which would not have heard of the key.
pub(crate) async fn demand_known(session: &Session<'_>) -> Result<(), StorageError> {
    let Some(keyring) = &session.storage().secrets().keyring else { return Ok(()) };
    let first = keyring.first();
    let values = parameters![session.now().as_millis(), first.to_bytes().to_vec()];
    let row = session.query_one(SEAL, values).await?;
    if whole("seal a secret", get(&row, 0))? {
        return Ok(());
    }
    let message = format!(
        "an engine runs on it, or did half a minute ago, that does not have the key {first}"
    );
    Err(session.refused(StorageErrorKind::KeyMissing).with_source(message))
}

/// Waits until nobody seals who has not committed it, and lets nobody seal, and no engine begin, until this
/// transaction ends. To be called before anything is locked that comes after the organizations.
pub(crate) async fn stop_sealing(session: &Session<'_>) -> Result<(), StorageError> {
    session.query(STOP_SEALING, &[]).await.map(drop)
}

/// As [`demand_all`], in a transaction.
pub(crate) async fn demand_all_of(session: &Session<'_>) -> Result<(), StorageError> {
    let keyring = session.storage().secrets().keyring.as_ref();
    demand(&all(session).await?, keyring, session.operation())
}

/// Marks all keys but one as unused, until somebody seals with them. Nobody must be [sealing](stop_sealing).
pub(crate) async fn unmark(session: &Session<'_>, kept: Option<KeyId>) -> Result<(), StorageError> {
    let kept = kept.map(|id| id.to_bytes().to_vec());
    session.execute(UNMARK, parameters![kept]).await.map(drop)
}

/// Forgets the keys that are marked as unused, but for some. Nobody must be [sealing](stop_sealing).
pub(crate) async fn retire(
    session: &Session<'_>,
    kept: &BTreeSet<KeyId>,
) -> Result<(), StorageError> {
    let kept: Vec<_> = kept.iter().map(|id| id.to_bytes().to_vec()).collect();
    session.execute(RETIRE, parameters![kept]).await.map(drop)
}

/// The keys that secrets may be sealed with.
pub(crate) async fn all(session: &Session<'_>) -> Result<Vec<KeyId>, StorageError> {
    read(session.operation(), &session.query(ALL, &[]).await?)
}

/// The keys that the engines which run seal with.
pub(crate) async fn of_engines(session: &Session<'_>) -> Result<BTreeSet<KeyId>, StorageError> {
    let rows = session.query(OF_ENGINES, parameters![session.now().as_millis()]).await?;
    Ok(read(session.operation(), &rows)?.into_iter().collect())
}

fn key_missing(operation: &'static str, id: KeyId, keyring: Option<&Keyring>) -> StorageError {
    let given: Vec<_> = keyring.iter().flat_map(|keyring| keyring.ids()).collect();
    let given = match &given[..] {
        [] => "none was given".to_owned(),
        given => format!("given were those with the ids {given:?}"),
    };
    let message = format!("the key with the id {id} is needed; {given}");
    StorageError::new(StorageErrorKind::KeyMissing, operation).with_source(message)
}

const ALL: &str = "SELECT id FROM esl.encryption_keys ORDER BY id";

const STOP_SEALING: &str = "SELECT pg_advisory_xact_lock(esl.class_1(), 0)";

const UNMARK: &str = "
UPDATE esl.encryption_keys SET is_used = false WHERE id IS DISTINCT FROM $1 AND is_used";

const RETIRE: &str = "DELETE FROM esl.encryption_keys WHERE NOT is_used AND id <> ALL($1)";

const OF_ENGINES: &str = "
SELECT substring(w.key_ids FROM 1 FOR 8) FROM esl.workers w
WHERE w.lapses_at > $1 AND length(w.key_ids) >= 8";

const SEAL: &str = "SELECT esl.seal_with_1($1, $2)";
