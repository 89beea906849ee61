//! Events that go to very many lanes: stored at once, and owed to the lanes in slices.

use std::sync::Arc;

use esl_core::{
    LaneId, OrganizationId,
    storage::{FanOut, StorageError},
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage,
    damage::Place,
    error::Damage,
    id::Id16,
    parameters::parameters,
    rows::{self, get, lane, limit_number, sealed_event, seq, whole},
};

/// The open fan-outs of the next organization that has some, up to an event that is damaged: those after
/// it are not next until it is mended or erased.
pub(crate) async fn read(
    storage: &PostgresStorage,
    after: Option<OrganizationId>,
    limit: usize,
    bytes_max: usize,
) -> Result<Option<(OrganizationId, Vec<FanOut>)>, StorageError> {
    let operation = "read fan-outs";
    let after = after.map(Id16::from);
    let next = storage.database().query_opt(operation, NEXT, parameters![after]).await?;
    let Some(next) = next else { return Ok(None) };
    let key: i32 = whole(operation, get(&next, 0))?;
    let organization: OrganizationId = whole(operation, rows::id(&next, 1))?;
    let values = parameters![key, limit_number(limit), limit_number(bytes_max)];
    let found = storage.database().query(operation, OPEN, values).await?;
    let mut fan_outs = Vec::with_capacity(found.len());
    for row in &found {
        let seq = whole(operation, seq(row, 0))?;
        let place = Place::Event(key, seq, rows::id(row, 4).ok());
        let fan_out = storage.damages().readable(place, fan_out(row, organization));
        let Some(fan_out) = fan_out else { break };
        fan_outs.push(fan_out);
    }
    Ok(Some((organization, fan_outs)))
}

fn fan_out(row: &Row, organization: OrganizationId) -> Result<FanOut, Damage> {
    let except = match get::<Option<i64>>(row, 3)? {
        Some(_) => Some(lane(row, 3)?),
        None => None::<LaneId>,
    };
    let event = sealed_event(row, 4, organization)?;
    Ok(FanOut {
        seq: seq(row, 0)?,
        event: Arc::clone(&event),
        after: lane(row, 1)?,
        last: lane(row, 2)?,
        except,
    })
}

const NEXT: &str = "
SELECT g.key, g.id FROM esl.fan_outs f JOIN esl.organizations g ON g.key = f.organization
WHERE f.organization > coalesce(
        (SELECT a.key FROM esl.organizations a WHERE a.id = $1 AND a.deleted_at IS NULL), 0
    )
    AND g.deleted_at IS NULL
ORDER BY f.organization LIMIT 1";

/// The first one in any case, and the others while their bodies are no more than so many bytes together.
const OPEN: &str = "
SELECT t.seq, t.after_lane, t.last_lane, t.except_lane,
    e.id, e.event_type, e.timestamp, e.digest, e.body, e.changes
FROM (
    SELECT f.organization, f.seq, f.after_lane, f.last_lane, f.except_lane,
        row_number() OVER (ORDER BY f.seq) AS n,
        sum(octet_length(v.body)) OVER (ORDER BY f.seq) AS bytes
    FROM (
        SELECT * FROM esl.fan_outs WHERE organization = $1 ORDER BY seq LIMIT $2
    ) f
    LEFT JOIN esl.events v ON v.organization = f.organization AND v.seq = f.seq
) t
LEFT JOIN esl.events e ON e.organization = t.organization AND e.seq = t.seq
WHERE t.n = 1 OR t.bytes <= $3
ORDER BY t.seq";
