//! What a replay may open next: one statement, which looks at a bounded number of rows.

use esl_core::{
    DeliveryState, EventType, Replay, ReplayOf, Timestamp,
    storage::{Candidates, StorageError, encoding::Ending},
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage,
    error::Damage,
    id::Id16,
    parameters::parameters,
    rows::{get, limit_number, parsed, seq, seq_number, whole},
};

pub(crate) async fn candidates(
    storage: &PostgresStorage,
    replay: &Replay,
    limit: usize,
) -> Result<Candidates, StorageError> {
    let operation = "look for what a replay is of";
    let endings = [Ending::Exhausted, Ending::Expired, Ending::Delivered];
    let endings = endings.into_iter().filter(|ending| replay.of.includes(ending.state()));
    let endings: Vec<i16> = endings.map(|ending| ending.number().into()).collect();
    let values = parameters![
        Id16::from(replay.organization),
        Id16::from(replay.subscription),
        seq_number(replay.position),
        seq_number(replay.range.to),
        replay.range.since.map(Timestamp::as_millis),
        replay.range.until.map(Timestamp::as_millis),
        limit_number(limit),
        endings,
    ];
    let rows = storage.database().query(operation, &candidates_sql(&replay.of), values).await?;
    whole(operation, found(&rows, replay, limit))
}

fn found(rows: &[Row], replay: &Replay, limit: usize) -> Result<Candidates, Damage> {
    let mut found = Candidates { position: replay.position, ..Candidates::default() };
    let Some(first) = rows.first() else {
        // There is no such subscription any more.
        found.is_end = true;
        return Ok(found);
    };
    // What is old is not opened any more.
    found.position = seq(first, 0)?;
    for row in rows {
        if get::<Option<i64>>(row, 3)?.is_some() {
            found.events.push((seq(row, 3)?, parsed::<EventType>(row, 4)?));
        }
    }
    let seen_to = if found.events.len() == limit {
        found.events.last().map_or(found.position, |(seq, _)| *seq)
    } else {
        let cut = get::<Option<i64>>(first, 2)?;
        seq(first, if cut.is_some() { 2 } else { 1 })?
    };
    found.position = found.position.max(seen_to);
    found.is_end = found.position >= replay.range.to;
    Ok(found)
}

/// A row for each event, and one without if there is none. Each says above which seq there is something to
/// look at, up to which, and, if that is too much for one call, up to which was looked.
fn candidates_sql(of: &ReplayOf) -> String {
    let among_events = |condition| {
        format!(
            "SELECT e.* FROM ({EVENTS}) e WHERE e.erased_at IS NULL AND {IS_FOR_IT} AND {condition}"
        )
    };
    let (looked_at, found) = match of {
        ReplayOf::Missing => (EVENTS.to_owned(), among_events(IS_MISSING)),
        _ if of.includes(DeliveryState::Delivered) => (EVENTS.to_owned(), among_events(HAS_ENDED)),
        // Of what was not delivered there is an index.
        _ => {
            let undelivered = undelivered_sql();
            let found = format!(
                "SELECT t.seq, e.event_type, e.timestamp
                 FROM ({undelivered}) t CROSS JOIN LATERAL ({EVENT}) e"
            );
            (undelivered, found)
        }
    };
    format!(
        "SELECT b.above, b.up_to, cut.seq, found.seq, found.event_type
         FROM ({BOUNDS}) b
         LEFT JOIN LATERAL (
             SELECT t.seq FROM ({looked_at}) t ORDER BY t.seq OFFSET {LOOKED_AT_MAX} - 1 LIMIT 1
         ) cut ON true
         LEFT JOIN LATERAL (
             SELECT t.seq, t.event_type FROM ({found}) t
             WHERE ($5 IS NULL OR t.timestamp >= $5) AND ($6 IS NULL OR t.timestamp <= $6)
             ORDER BY t.seq LIMIT $7
         ) found ON true
         ORDER BY found.seq"
    )
}

/// The first ones of each way to end, merged.
fn undelivered_sql() -> String {
    let ended = |ending: Ending| {
        let state = ending.number();
        format!(
            "(SELECT c.seq FROM esl.closed c
              WHERE c.lane = b.lane AND c.state = {state} AND c.state <> 0
                  AND c.seq > b.above AND c.seq <= b.up_to AND {state}::smallint = ANY ($8)
              ORDER BY c.seq LIMIT {LOOKED_AT_MAX})"
        )
    };
    let [exhausted, expired] = [Ending::Exhausted, Ending::Expired].map(ended);
    format!("{exhausted} UNION ALL {expired} ORDER BY seq LIMIT {LOOKED_AT_MAX}")
}

/// The range of a replay, as far as all deliveries of its events have come to be.
const BOUNDS: &str = "
SELECT g.key, s.lane, greatest($3, g.removed_to) AS above,
    least($4, (
        SELECT f.seq - 1 FROM esl.fan_outs f WHERE f.organization = g.key ORDER BY f.seq LIMIT 1
    )) AS up_to
FROM esl.organizations g JOIN esl.subscriptions s ON s.organization = g.key
WHERE g.id = $1 AND g.deleted_at IS NULL AND s.id = $2
OFFSET 0";

const EVENTS: &str = "
SELECT n.* FROM (
    SELECT e.* FROM esl.events e
    WHERE e.organization = b.key AND e.seq > b.above ORDER BY e.seq LIMIT 1000
) n
WHERE n.seq <= b.up_to";

const EVENT: &str = "
SELECT e.* FROM esl.events e
WHERE e.organization = b.key AND e.seq = t.seq AND e.erased_at IS NULL LIMIT 1";

/// As `Audience::includes` has it.
const IS_FOR_IT: &str = "
(e.audience IS NULL OR e.audience = -b.lane OR (e.audience > 0 AND e.audience <> b.lane))";

// Each a search of its own, whatever the planner thinks of how much there is.

const HAS_ENDED: &str = "
(SELECT c.state FROM esl.closed c WHERE c.lane = b.lane AND c.seq = e.seq) = ANY ($8)";

const IS_MISSING: &str = "
(SELECT c.state FROM esl.closed c WHERE c.lane = b.lane AND c.seq = e.seq) IS NULL
AND (
    SELECT a.attempts FROM esl.open a WHERE a.lane = b.lane AND a.due_at = 0 AND a.seq = e.seq
) IS NULL
AND (
    SELECT a.attempts FROM esl.open a WHERE a.lane = b.lane AND a.seq = e.seq AND a.due_at > 0
) IS NULL";

/// Rows that are looked at in one call: some milliseconds' worth. [`EVENTS`] has it, too.
const LOOKED_AT_MAX: i64 = 1000;
