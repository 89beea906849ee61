//! Which keys the secrets in the database may be sealed with: a row for each, which is there before the
//! first secret is.
//!
//! So whether a keyring will do is known when the database is opened, without a look at the secrets. A
//! key that comes later is one that the engine has: whoever would seal with another is refused while an
//! engine runs without it.

use esl_core::{
    KeyId, Keyring,
    storage::{StorageError, StorageErrorKind},
};
use rusqlite::{Connection, OptionalExtension};

use crate::storage::{
    config::OPEN,
    error::{Stop, translate},
    session::Session,
};

/// Refuses a database with secrets that this keyring does not open.
pub(crate) fn demand_all(
    connection: &Connection,
    keyring: Option<&Keyring>,
) -> Result<(), StorageError> {
    let needed = all(connection).map_err(|error| translate(OPEN, error))?;
    missing(&needed, keyring).map_or(Ok(()), |id| Err(key_missing(OPEN, id, keyring)))
}

/// As [`demand_all`], of an engine that starts, with a note for others of the keys that it has.
pub(crate) fn enlist(session: &Session<'_>, operation: &'static str) -> Result<(), Stop> {
    let keyring = session.secrets.keyring.as_ref();
    if let Some(id) = missing(&all(session.connection)?, keyring) {
        return Err(Stop::Refused(key_missing(operation, id, keyring)));
    }
    let ids = keyring.map(|keyring| keyring.ids().flat_map(KeyId::to_bytes).collect::<Vec<_>>());
    let note = "UPDATE esl_engine SET key_ids = ?1 WHERE one = 1";
    session.connection.prepare_cached(note)?.execute([ids])?;
    Ok(())
}

/// Refuses to seal with a key that an engine, which runs elsewhere, does not have: it could not sign.
pub(crate) fn demand_known(session: &Session<'_>, operation: &'static str) -> Result<(), Stop> {
    let Some(keyring) = &session.secrets.keyring else { return Ok(()) };
    if session.is_key_noted || session.lock.is_held() {
        return Ok(());
    }
    let first = keyring.first();
    match of_engine(session)? {
        Some(ids) if !ids.contains(&first) => {
            let message = format!(
                "an engine runs on it, or did half a minute ago, that does not have the key {first}"
            );
            let error = StorageError::new(StorageErrorKind::KeyMissing, operation);
            Err(Stop::Refused(error.with_source(message)))
        }
        _ => Ok(()),
    }
}

/// Notes the key that secrets are about to be sealed with.
pub(crate) fn note(session: &mut Session<'_>) -> rusqlite::Result<()> {
    let Some(keyring) = &session.secrets.keyring else { return Ok(()) };
    if !session.is_key_noted {
        let note = "INSERT INTO esl_encryption_keys (id, is_used) VALUES (?1, 1)
                    ON CONFLICT (id) DO UPDATE SET is_used = 1";
        session.connection.prepare_cached(note)?.execute([keyring.first().to_bytes()])?;
        session.is_key_noted = true;
    }
    Ok(())
}

/// The keys of the engine that runs, the one that it encrypts with first; `None` if none runs.
pub(crate) fn of_engine(session: &Session<'_>) -> rusqlite::Result<Option<Vec<KeyId>>> {
    let running = "SELECT key_ids FROM esl_engine WHERE worker IS NOT NULL AND lapses_at > ?1";
    let mut running = session.connection.prepare_cached(running)?;
    let ids = running.query_row([session.now.as_millis()], |row| {
        let ids: Vec<u8> = row.get::<_, Option<_>>(0)?.unwrap_or_default();
        Ok(ids.as_chunks().0.iter().copied().map(KeyId::from_bytes).collect())
    });
    ids.optional()
}

pub(crate) fn all(connection: &Connection) -> rusqlite::Result<Vec<KeyId>> {
    let mut select = connection.prepare_cached("SELECT id FROM esl_encryption_keys")?;
    let ids = select.query_map([], |row| row.get(0).map(KeyId::from_bytes))?;
    ids.collect()
}

fn missing(needed: &[KeyId], keyring: Option<&Keyring>) -> Option<KeyId> {
    let is_there = |id: &&KeyId| keyring.is_some_and(|keyring| keyring.has(**id));
    needed.iter().find(|id| !is_there(id)).copied()
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
