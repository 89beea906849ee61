//! Which keys the secrets in the database may be sealed with: a row for each, which is there before the
//! first secret is.
//!
//! So whether a keyring will do is known when the database is opened, without a look at the secrets. A
//! key that comes later is one that every running engine has: whoever would seal with another is refused.

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
    let rows = database.query(operation, ALL, &[]).await?;
    let needed: Result<Vec<_>, _> = rows.iter().map(|row| bytes(row, 0)).collect();
    let is_there = |id: &KeyId| keyring.is_some_and(|keyring| keyring.has(*id));
    let mut needed = whole(operation, needed)?.into_iter().map(KeyId::from_bytes);
    match needed.find(|id| !is_there(id)) {
        Some(missing) => Err(key_missing(operation, missing, keyring)),
        None => Ok(()),
    }
}

/// The ids of a keyring's keys as `workers.key_ids` has them: that of the one it seals with first.
pub(crate) fn ids(keyring: Option<&Keyring>) -> Option<Vec<u8>> {
    keyring.map(|keyring| keyring.ids().flat_map(KeyId::to_bytes).collect())
}

/// Refuses to seal with a key that an engine does not have: it could not sign.
pub(crate) async fn demand_known(session: &Session<'_>) -> Result<(), StorageError> {
    let Some(keyring) = &session.storage().secrets().keyring else { return Ok(()) };
    let first = keyring.first();
    let engines = session.query(ENGINES, parameters![session.now().as_millis()]).await?;
    if engines.iter().all(|engine| has(engine, first)) {
        return Ok(());
    }
    let message = format!(
        "an engine runs on it, or did half a minute ago, that does not have the key {first}"
    );
    Err(session.refused(StorageErrorKind::KeyMissing).with_source(message))
}

/// What cannot be read has no key.
fn has(engine: &Row, key: KeyId) -> bool {
    let ids = get::<Option<&[u8]>>(engine, 0).ok().flatten().unwrap_or_default();
    ids.as_chunks().0.iter().any(|id| KeyId::from_bytes(*id) == key)
}

/// Notes the key that secrets are about to be sealed with.
pub(crate) async fn note(session: &Session<'_>) -> Result<(), StorageError> {
    let Some(keyring) = &session.storage().secrets().keyring else { return Ok(()) };
    let id = keyring.first().to_bytes().to_vec();
    session.execute(NOTE, parameters![id]).await.map(drop)
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

const ALL: &str = "SELECT id FROM esl.encryption_keys";

const ENGINES: &str = "SELECT key_ids FROM esl.workers WHERE lapses_at > $1";

const NOTE: &str = "
INSERT INTO esl.encryption_keys (id, is_used) VALUES ($1, true)
ON CONFLICT (id) DO UPDATE SET is_used = true WHERE NOT encryption_keys.is_used";
