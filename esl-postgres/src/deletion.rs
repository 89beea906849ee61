//! Deleting an organization: at once for everybody who asks, and its rows in slices.

use esl_core::{Action, Actor, OrganizationId, storage::StorageError};
use tokio_postgres::Row;

use crate::{
    PostgresStorage, audit,
    changes::News,
    error::Damage,
    id::Id16,
    parameters::parameters,
    removal::{OPERATION, Slice, counted, named_by_heads},
    rows::{get, whole},
};

const DELETE: &str = "delete an organization";

/// Deletes an organization at once for everybody who asks.
pub(crate) async fn delete(
    storage: &PostgresStorage,
    id: OrganizationId,
    by: &Actor,
) -> Result<(), StorageError> {
    // Between the slices others have their turn with the organization.
    while !delete_slice(storage, id, by).await? {}
    Ok(())
}

/// Deletes an organization once nothing of it is left in the intake, or due at a time; before that removes some
/// of what is, and gives false. Its clients are removed, whose names are free from now on; the rest of its rows
/// are left to [`remove`], and no statement goes by them while its row says that it is deleted.
async fn delete_slice(
    storage: &PostgresStorage,
    id: OrganizationId,
    by: &Actor,
) -> Result<bool, StorageError> {
    let mut lease = storage.database().lease(DELETE).await?;
    let mut session = storage.begin(&mut lease, DELETE).await?;
    let organization = session.organization(id).await?;
    let own_id = Id16::from(id);
    for text in [INTAKE, SCHEDULED] {
        if session.execute(text, parameters![own_id, SLICE]).await? == SLICE.unsigned_abs() {
            session.commit().await?;
            return Ok(false);
        }
    }
    let due = session.execute(DUE, parameters![organization.key, SLICE]).await?;
    if due == SLICE.unsigned_abs() {
        session.commit().await?;
        return Ok(false);
    }
    let now = session.now().as_millis();
    session.execute(MARK, parameters![organization.key, now]).await?;
    session.execute(REMEMBER, parameters![own_id, now]).await?;
    session.execute(CLIENTS, parameters![organization.key]).await?;
    let subject = id.to_string();
    audit::note(&session, id, by, Action::OrganizationDeleted, &subject, &[]).await?;
    session.tell_others(News::Tenancy);
    session.tell_others(News::Subscriptions(id));
    session.commit().await?;
    Ok(true)
}

/// Rows of one table that are removed or changed in one transaction.
const SLICE: i64 = 500;

// Ranges of the indexes by organization: in the order of their numbers alone, a plan could go through everybody's.

const INTAKE: &str = "
DELETE FROM esl.intake q WHERE q.id = ANY (ARRAY(
    SELECT f.id FROM esl.intake f
    WHERE (f.organization, f.id) >= ($1, 0) AND f.organization <= $1
    ORDER BY f.organization, f.id LIMIT $2
))";

const SCHEDULED: &str = "
DELETE FROM esl.scheduled q WHERE q.number = ANY (ARRAY(
    SELECT f.number FROM esl.scheduled f
    WHERE (f.organization, f.number) >= ($1, 0) AND f.organization <= $1
    ORDER BY f.organization, f.number LIMIT $2
))";

/// Whoever looks for entities that are due goes by their time, through everybody's.
const DUE: &str = "
UPDATE esl.entities e SET due_at = NULL WHERE e.ctid = ANY (ARRAY(
    SELECT f.ctid FROM esl.entities f
    WHERE f.organization = $1 AND (f.due_at IS NOT NULL) IS TRUE
    ORDER BY f.kind, f.id LIMIT $2
))";

/// With this its id and its name are free.
const MARK: &str = "UPDATE esl.organizations SET deleted_at = $2, fan_outs = 0 WHERE key = $1";

const REMEMBER: &str = "
INSERT INTO esl.deleted_organizations (id, deleted_at) VALUES ($1, $2)
ON CONFLICT (id) DO UPDATE SET deleted_at = excluded.deleted_at";

const CLIENTS: &str = "DELETE FROM esl.clients WHERE organization = $1";

/// Removes rows of deleted organizations; true when none is left.
pub(crate) async fn remove(
    storage: &PostgresStorage,
    slice: &mut Slice,
) -> Result<bool, StorageError> {
    while slice.left > 0 {
        let values = parameters![storage.suite_time(), slice.limit()];
        let row = storage.database().query_opt(OPERATION, REMOVE, values).await?;
        let Some(row) = row else { return Ok(true) };
        whole(OPERATION, count(&row, slice))?;
    }
    Ok(false)
}

const REMOVE: &str = "
SELECT used, events, bytes, deliveries, attempts, organizations, heads
FROM esl.remove_deleted_1($1, $2)";

fn count(row: &Row, slice: &mut Slice) -> Result<(), Damage> {
    slice.use_up(counted(row, 0)?.max(1));
    slice.removed.events += counted(row, 1)?;
    slice.removed.bytes += get::<i64>(row, 2)?.unsigned_abs();
    slice.removed.deliveries += counted(row, 3)?;
    slice.removed.attempts += counted(row, 4)?;
    slice.removed.organizations += counted(row, 5)?;
    slice.removed.blobs.extend(named_by_heads(row, 6)?);
    Ok(())
}
