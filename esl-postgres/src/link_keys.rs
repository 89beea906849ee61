//! The keys that links to large payloads are signed with.

use esl_core::{LinkKey, SealedPlace, storage::StorageError};
use tokio_postgres::Row;

use crate::{
    PostgresStorage, encryption_keys,
    error::{Damage, without_randomness},
    parameters::parameters,
    rows::{bytes, get, time, whole},
    secrets::Secrets,
};

const READ: &str = "read the keys of links";

/// The keys, the newest first; after a new one was added, if it was time.
pub(crate) async fn link_keys(
    storage: &PostgresStorage,
    fresh: &LinkKey,
) -> Result<Vec<LinkKey>, StorageError> {
    let mut lease = storage.database().lease(READ).await?;
    let session = storage.begin(&mut lease, READ).await?;
    let mut rows = session.query(KEYS, &[]).await?;
    if is_time(&rows, &session)? {
        // Of two who find that it is, one adds a key.
        session.query(LOCK, &[]).await?;
        rows = session.query(KEYS, &[]).await?;
    }
    if is_time(&rows, &session)? {
        encryption_keys::demand_known(&session).await?;
        // The newest one is never forgotten, so no number comes twice.
        let newest = rows.first().map(|row| get::<i64>(row, 0)).transpose();
        let number = whole(READ, newest)?.map_or(1, |number| number + 1);
        let secrets = storage.secrets();
        let key = secrets.bytes(fresh.expose(), SealedPlace::LinkKey(number));
        let key = key.map_err(|error| without_randomness(READ, error))?;
        let values = parameters![number, key, secrets.seals(), session.now().as_millis()];
        session.execute(INSERT, values).await?;
        session.execute(FORGET, parameters![number - 1]).await?;
        rows = session.query(KEYS, &[]).await?;
    }
    let keys = rows.iter().map(|row| read(row, storage.secrets())).collect();
    let keys = whole(READ, keys)?;
    session.commit().await?;
    Ok(keys)
}

/// Whether there is none yet, or the newest has signed for long enough.
fn is_time(rows: &[Row], session: &crate::session::Session<'_>) -> Result<bool, StorageError> {
    let Some(newest) = rows.first() else { return Ok(true) };
    let made_at = whole(READ, time(newest, 3))?;
    Ok(session.now().since(made_at) >= LinkKey::AGE_MAX)
}

fn read(row: &Row, secrets: &Secrets) -> Result<LinkKey, Damage> {
    if !get::<bool>(row, 2)? {
        return bytes(row, 1).map(LinkKey::from_bytes);
    }
    let place = SealedPlace::LinkKey(get(row, 0)?);
    let opened = secrets.open(get(row, 1)?, 1, place)?;
    let key = opened.as_slice().try_into().map_err(|error| Damage::new(1, error))?;
    Ok(LinkKey::from_bytes(key))
}

const KEYS: &str = "
SELECT number, key, sealed, made_at FROM esl.link_keys ORDER BY number DESC LIMIT 2";

/// Whoever adds a key, or rewrites them, does so one after the other.
pub(crate) const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('esl.link_keys', 0))";

const INSERT: &str = "
INSERT INTO esl.link_keys (number, key, sealed, made_at) VALUES ($1, $2, $3, $4)";

const FORGET: &str = "DELETE FROM esl.link_keys WHERE number < $1";
