//! The intake: what others have committed, in its order.
//!
//! An application may commit very many rows for an organization that does not exist. So it is not the
//! rows that are gone through but the organizations that have some, each found by one search; the rows
//! of those that exist are merged.

use std::sync::Arc;

use esl_core::{
    OrganizationId, SealedEvent,
    storage::{Change, IntakeRow, StorageError},
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage,
    damage::Place,
    error::Damage,
    id::Id16,
    parameters::parameters,
    rows::{self, SealedEvents, get, limit_number, sealed_event, whole},
    unsealed::{self, UNSEALED},
};

/// The first rows after `after` of organizations that exist.
pub(crate) async fn read(
    storage: &PostgresStorage,
    after: Option<IntakeRow>,
    limit: usize,
    left_out: &[OrganizationId],
) -> Result<Vec<(IntakeRow, Arc<SealedEvent>)>, StorageError> {
    let operation = "read the intake";
    let left_out: Vec<Id16> = left_out.iter().copied().map(Id16::from).collect();
    let mut after = after.map_or(i64::MIN, |IntakeRow(row)| row);
    let (mut found, text) = (Vec::new(), read_sql());
    while found.len() < limit {
        let wanted = limit - found.len();
        let values = parameters![after, limit_number(wanted), left_out];
        let rows = storage.database().query(operation, &text, values).await?;
        for row in &rows {
            after = whole(operation, get(row, 0))?;
            // A damaged one stays where it is, and those after it pass it: nobody knows when it is mended.
            let event = storage.damages().readable(Place::Intake(after), event(row));
            found.extend(event.map(|event| (IntakeRow(after), event)));
        }
        if rows.len() < wanted {
            break;
        }
    }
    Ok(found)
}

fn event(row: &Row) -> Result<Arc<SealedEvent>, Damage> {
    let organization = rows::id(row, 1)?;
    match get::<Option<&[u8]>>(row, 6)? {
        Some(_body) => sealed_event(row, 2, organization),
        None => unsealed::sealed(row, 2, organization),
    }
}

fn read_sql() -> String {
    format!("{READ} {UNSEALED} FROM next JOIN esl.intake q ON q.id = next.id ORDER BY q.id")
}

/// What an organization has is a range of the index by organization: in the order of their ids alone, a plan
/// could go through everybody's. Ends where the columns follow that only what `esl.publish` wrote has.
const READ: &str = "
WITH RECURSIVE named AS (
    (SELECT q.organization FROM esl.intake q ORDER BY q.organization LIMIT 1)
    UNION ALL
    SELECT f.organization FROM named CROSS JOIN LATERAL (
        SELECT q.organization FROM esl.intake q
        WHERE q.organization > named.organization ORDER BY q.organization LIMIT 1
    ) f
),
next AS (
    SELECT f.id FROM named
    CROSS JOIN LATERAL (
        SELECT FROM esl.organizations g
        WHERE g.id = named.organization AND g.deleted_at IS NULL LIMIT 1
    ) g
    CROSS JOIN LATERAL (
        SELECT q.id FROM esl.intake q
        WHERE (q.organization, q.id) > (named.organization, $1)
            AND q.organization <= named.organization
        ORDER BY q.organization, q.id LIMIT $2
    ) f
    WHERE named.organization <> ALL ($3)
    ORDER BY f.id LIMIT $2
)
SELECT q.id, q.organization, q.event_id, q.event_type, q.timestamp, q.digest, q.body, q.changes,";

/// Adds rows, all or none.
pub(crate) async fn enqueue(
    storage: &PostgresStorage,
    events: &[Arc<SealedEvent>],
) -> Result<(), StorageError> {
    if events.is_empty() {
        return Ok(());
    }
    let columns = SealedEvents::of(events.iter().map(AsRef::as_ref));
    let values = parameters![
        storage.suite_time(),
        columns.organizations,
        columns.ids,
        columns.types,
        columns.times,
        columns.digests,
        columns.bodies,
        columns.changes,
    ];
    storage.database().execute("enqueue events", ENQUEUE, values).await?;
    storage.changes().tell(Change::Intake);
    storage.notifier().look();
    Ok(())
}

const ENQUEUE: &str = "
INSERT INTO esl.intake (organization, event_id, event_type, timestamp, digest, body, changes)
SELECT t.organization, t.id, t.type, t.at, t.digest, t.body, t.changes
FROM (SELECT esl.begin_1($1)) begun
CROSS JOIN unnest($2, $3, $4, $5, $6, $7, $8)
    WITH ORDINALITY AS t (organization, id, type, at, digest, body, changes, n)
ORDER BY t.n";
