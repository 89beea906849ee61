//! What stored envelopes say of blobs, and whose the blob store is.

use std::collections::HashSet;

use esl_core::{BlobKey, InstallationId, storage::StorageError};

use crate::{
    PostgresStorage,
    id::Id16,
    parameters::parameters,
    rows::{self, get, whole},
};

/// Which installation this is.
pub(crate) async fn installation(
    storage: &PostgresStorage,
    fresh: InstallationId,
) -> Result<InstallationId, StorageError> {
    let operation = "read which installation it is";
    let values = parameters![storage.suite_time(), Id16::from(fresh)];
    let row = storage.database().query_one(operation, INSTALLATION, values).await?;
    whole(operation, rows::id(&row, 0))
}

const INSTALLATION: &str = "
UPDATE esl.settings SET installation = coalesce(installation, $2)
FROM (SELECT esl.begin_1($1)) begun
RETURNING installation";

/// Those that no envelope names.
pub(crate) async fn unnamed(
    storage: &PostgresStorage,
    mut keys: Vec<BlobKey>,
) -> Result<Vec<BlobKey>, StorageError> {
    let operation = "look for the events of blobs";
    if keys.is_empty() {
        return Ok(keys);
    }
    let events: Vec<Id16> = keys.iter().map(|key| key.event.into()).collect();
    let organizations: Vec<Id16> = keys.iter().map(|key| key.organization.into()).collect();
    let rows =
        storage.database().query(operation, NAMED, parameters![events, organizations]).await?;
    let mut named = HashSet::new();
    for row in &rows {
        let head = whole(operation, get::<Option<&[u8]>>(row, 0))?;
        named.extend(head.and_then(BlobKey::named_by));
    }
    keys.retain(|key| !named.contains(key));
    Ok(keys)
}

/// The beginnings of these events' envelopes, stored and in the intake, as of one moment: so one that is moved
/// meanwhile is in one of them.
const NAMED: &str = "
SELECT substring(f.body FROM 1 FOR 1024)
FROM unnest($1, $2) AS t (event, organization)
CROSS JOIN LATERAL (
    SELECT e.body FROM esl.organizations g
    JOIN esl.events e ON e.id = t.event AND e.organization + 0 = g.key
    WHERE g.id = t.organization AND g.deleted_at IS NULL
    UNION ALL
    SELECT q.body FROM esl.intake q
    WHERE q.event_id = t.event AND q.organization = t.organization
) f";
