//! Which keys the secrets in the database may be sealed with: a row for each, which is there before the
//! first secret is.
//!
//! So whether a keyring will do is known when the database is opened, without a look at the secrets. A
//! key that comes later is one that every running engine has: whoever would seal with another is refused.

use esl_core::{
    KeyId, Keyring,
    storage::{StorageError, StorageErrorKind},
};

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

const SEAL: &str = "SELECT esl.seal_with_1($1, $2)";
