//! Opening a delivery again that was given up.

use esl_core::{
    LaneId, OrganizationId, Seq,
    storage::{StorageError, StorageErrorKind, encoding::Ending},
};

use crate::{
    PostgresStorage,
    changes::News,
    parameters::parameters,
    rows::{ending, get, lane_number, retry_time, seq_number, whole},
};

/// Opens it, if it is exhausted or has expired, and its event is kept.
pub(crate) async fn reopen(
    storage: &PostgresStorage,
    organization: OrganizationId,
    lane: LaneId,
    seq: Seq,
) -> Result<(), StorageError> {
    let mut lease = storage.database().lease(OPERATION).await?;
    let mut session = storage.begin(&mut lease, OPERATION).await?;
    let organization = session.organization(organization).await?;
    let (lane, seq_number) = (lane_number(lane), seq_number(seq));
    let values = parameters![lane, seq_number, organization.key];
    let found = session.query_opt(STANDING, values).await?;
    let found = found.ok_or_else(|| session.refused(StorageErrorKind::NotFound))?;
    if seq > Seq::ZERO && seq <= organization.removed_to {
        return Err(session.refused(StorageErrorKind::Gone));
    }
    let is_deleted: bool = whole(OPERATION, get(&found, 0))?;
    let is_erased: Option<bool> = whole(OPERATION, get(&found, 1))?;
    let is_erased = is_erased.ok_or_else(|| session.refused(StorageErrorKind::NotFound))?;
    let is_closed = whole(OPERATION, get::<Option<i16>>(&found, 2))?.is_some();
    let is_open: bool = whole(OPERATION, get(&found, 3))?;
    if !is_closed {
        let kind = if is_open { StorageErrorKind::Conflict } else { StorageErrorKind::NotFound };
        return Err(session.refused(kind));
    }
    if is_erased {
        return Err(session.refused(StorageErrorKind::Gone));
    }
    match whole(OPERATION, ending(&found, 2))? {
        Ending::Exhausted | Ending::Expired if !is_deleted => {}
        Ending::Exhausted | Ending::Expired | Ending::Delivered | Ending::Cancelled => {
            return Err(session.refused(StorageErrorKind::Conflict));
        }
    }
    let due_at = retry_time(session.now());
    session.execute(OPEN_AGAIN, parameters![lane, seq_number, organization.key, due_at]).await?;
    session.tell_others(News::Lanes);
    session.commit().await
}

const OPERATION: &str = "open a delivery again";

/// Whether the subscription is deleted, the event erased (NULL: there is none), how the delivery ended (NULL:
/// it did not), and whether it is open. A delivery's id says its lane, and anybody can make one up: no row if
/// it is not the organization's.
const STANDING: &str = "
SELECT s.deleted_at IS NOT NULL,
    (
        SELECT e.erased_at IS NOT NULL FROM esl.events e
        WHERE e.organization = s.organization AND e.seq = $2
    ),
    (SELECT c.state FROM esl.closed c WHERE c.lane = s.lane AND c.seq = $2),
    EXISTS (SELECT FROM esl.open a WHERE a.lane = s.lane AND a.due_at = 0 AND a.seq = $2)
        OR EXISTS (SELECT FROM esl.open a WHERE a.lane = s.lane AND a.seq = $2 AND a.due_at > 0)
FROM esl.subscriptions s
WHERE s.lane = $1 AND s.organization = $3";

const OPEN_AGAIN: &str = "
WITH gone AS (
    DELETE FROM esl.closed c USING esl.subscriptions s
    WHERE c.lane = $1 AND c.seq = $2 AND s.lane = c.lane AND s.organization = $3
    RETURNING c.lane, c.seq, c.attempts, c.created_at, c.last_status, c.last_error
)
INSERT INTO esl.open (lane, due_at, seq, attempts, charged, created_at, last_status, last_error)
SELECT g.lane, $4, g.seq, g.attempts, 0, g.created_at, g.last_status, g.last_error FROM gone g";
