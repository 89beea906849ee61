//! What a value looks like in a row, and back.

use std::{error::Error, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;
use esl_core::{
    Attempt, AttemptError, EventPattern, LaneId, OrganizationId, ReplayOf, SealedEvent, Seq,
    Timestamp, Timings, TokenKind,
    storage::{
        LaneState, StorageError, StoredEvent,
        encoding::{self, Ending},
    },
};
use tokio_postgres::{Row, types::FromSql};

use crate::{error::Damage, id::Id16};

pub(crate) const fn lane_number(lane: LaneId) -> i64 {
    lane.get().cast_signed()
}

pub(crate) const fn seq_number(seq: Seq) -> i64 {
    seq.get().cast_signed()
}

/// A number that may be larger than the database's largest, which then stands for it.
pub(crate) fn saturated(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// How many rows to ask for.
pub(crate) fn limit_number(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// A due time as `open` says it, where 0 means that there was no attempt yet.
pub(crate) fn retry_time(due_at: Timestamp) -> i64 {
    due_at.as_millis().max(1)
}

/// A column, as the type that it has.
pub(crate) fn get<'r, T: FromSql<'r>>(row: &'r Row, column: usize) -> Result<T, Damage> {
    row.try_get(column).map_err(|error| Damage::new(column, error))
}

/// What was read of all rows, of which a damaged one is an error.
pub(crate) fn whole<T>(
    operation: &'static str,
    read: Result<T, Damage>,
) -> Result<T, StorageError> {
    read.map_err(|damage| damage.into_error(operation))
}

pub(crate) fn id<T: From<Id16>>(row: &Row, column: usize) -> Result<T, Damage> {
    get::<Id16>(row, column).map(T::from)
}

pub(crate) fn lane(row: &Row, column: usize) -> Result<LaneId, Damage> {
    lane_from(get(row, column)?, column)
}

/// A lane that was found in a column.
pub(crate) fn lane_from(number: i64, column: usize) -> Result<LaneId, Damage> {
    forty_bits(number, column).map(LaneId::new)
}

pub(crate) fn seq(row: &Row, column: usize) -> Result<Seq, Damage> {
    seq_from(get(row, column)?, column)
}

/// A seq that was found in a column.
pub(crate) fn seq_from(number: i64, column: usize) -> Result<Seq, Damage> {
    forty_bits(number, column).map(Seq::new)
}

fn forty_bits(number: i64, column: usize) -> Result<u64, Damage> {
    let number = u64::try_from(number).ok().filter(|number| *number <= Seq::MAX.get());
    number.ok_or_else(|| Damage::new(column, "not a number of 40 bits"))
}

/// A number of 32 bits, which the database knows with a sign only.
pub(crate) fn count(row: &Row, column: usize) -> Result<u32, Damage> {
    count_from(get(row, column)?, column)
}

pub(crate) fn optional_count(row: &Row, column: usize) -> Result<Option<u32>, Damage> {
    get::<Option<i64>>(row, column)?.map(|number| count_from(number, column)).transpose()
}

pub(crate) fn count_from(number: i64, column: usize) -> Result<u32, Damage> {
    u32::try_from(number).map_err(|error| Damage::new(column, error))
}

pub(crate) fn time(row: &Row, column: usize) -> Result<Timestamp, Damage> {
    get(row, column).map(Timestamp::from_millis)
}

pub(crate) fn optional_time(row: &Row, column: usize) -> Result<Option<Timestamp>, Damage> {
    Ok(get::<Option<i64>>(row, column)?.map(Timestamp::from_millis))
}

/// An HTTP status.
pub(crate) fn status(row: &Row, column: usize) -> Result<Option<u16>, Damage> {
    let status: Option<i32> = get(row, column)?;
    status.map(u16::try_from).transpose().map_err(|error| Damage::new(column, error))
}

/// Parses a text without copying it first.
pub(crate) fn parsed<T>(row: &Row, column: usize) -> Result<T, Damage>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    get::<&str>(row, column)?.parse().map_err(|error: T::Err| Damage::new(column, error))
}

/// A text of strangers, which is kept as bytes.
pub(crate) fn strangers_text(row: &Row, column: usize) -> Result<String, Damage> {
    text_of(get::<&[u8]>(row, column)?, column)
}

pub(crate) fn optional_strangers_text(row: &Row, column: usize) -> Result<Option<String>, Damage> {
    get::<Option<&[u8]>>(row, column)?.map(|bytes| text_of(bytes, column)).transpose()
}

fn text_of(bytes: &[u8], column: usize) -> Result<String, Damage> {
    let text = std::str::from_utf8(bytes).map_err(|error| Damage::new(column, error))?;
    Ok(text.to_owned())
}

pub(crate) fn body(row: &Row, column: usize) -> Result<Bytes, Damage> {
    get::<&[u8]>(row, column).map(Bytes::copy_from_slice)
}

pub(crate) fn optional_body(row: &Row, column: usize) -> Result<Option<Bytes>, Damage> {
    Ok(get::<Option<&[u8]>>(row, column)?.map(Bytes::copy_from_slice))
}

/// A value of exactly so many bytes.
pub(crate) fn bytes<const LENGTH: usize>(row: &Row, column: usize) -> Result<[u8; LENGTH], Damage> {
    exactly(get(row, column)?, column)
}

pub(crate) fn optional_bytes<const LENGTH: usize>(
    row: &Row,
    column: usize,
) -> Result<Option<[u8; LENGTH]>, Damage> {
    get::<Option<&[u8]>>(row, column)?.map(|bytes| exactly(bytes, column)).transpose()
}

fn exactly<const LENGTH: usize>(bytes: &[u8], column: usize) -> Result<[u8; LENGTH], Damage> {
    bytes.try_into().map_err(|error| Damage::new(column, error))
}

/// Reads a number that stands for something.
fn numbered<T>(
    number: i16,
    column: usize,
    read: impl FnOnce(u8) -> Option<T>,
    what: &'static str,
) -> Result<T, Damage> {
    let known = u8::try_from(number).ok().and_then(read);
    known.ok_or_else(|| Damage::new(column, what))
}

/// How a delivery has ended, as `closed.state` says it.
pub(crate) fn ending(row: &Row, column: usize) -> Result<Ending, Damage> {
    numbered(get(row, column)?, column, Ending::from_number, "not a state of a closed delivery")
}

pub(crate) fn attempt_error(row: &Row, column: usize) -> Result<Option<AttemptError>, Damage> {
    let number: Option<i16> = get(row, column)?;
    let read =
        |number| numbered(number, column, encoding::attempt_error, "not an error of an attempt");
    number.map(read).transpose()
}

/// A token's kind, as `tokens.kind` says it.
pub(crate) fn token_kind(row: &Row, column: usize) -> Result<TokenKind, Damage> {
    numbered(get(row, column)?, column, encoding::token_kind, "not a kind of token")
}

/// What a replay is of, as `replays.kind` says it.
pub(crate) fn replay_of(row: &Row, column: usize) -> Result<ReplayOf, Damage> {
    numbered(get(row, column)?, column, encoding::replay_of, "not a kind of replay")
}

/// The columns that [`sealed_event`] reads after the organization.
pub(crate) const SEALED_EVENT: &str = "id, event_type, timestamp, digest, body, changes";

/// Reads [`SEALED_EVENT`], beginning at column `first`.
pub(crate) fn sealed_event(
    row: &Row,
    first: usize,
    organization: OrganizationId,
) -> Result<Arc<SealedEvent>, Damage> {
    Ok(Arc::new(SealedEvent {
        id: id(row, first)?,
        organization,
        event_type: parsed(row, first + 1)?,
        timestamp: time(row, first + 2)?,
        digest: optional_bytes(row, first + 3)?,
        body: body(row, first + 4)?,
        changes: optional_body(row, first + 5)?,
    }))
}

/// Events as columns, for statements that write many.
#[derive(Debug, Default)]
pub(crate) struct SealedEvents<'e> {
    pub(crate) organizations: Vec<Id16>,
    pub(crate) ids: Vec<Id16>,
    pub(crate) types: Vec<&'e str>,
    pub(crate) times: Vec<i64>,
    pub(crate) digests: Vec<Option<&'e [u8]>>,
    pub(crate) bodies: Vec<&'e [u8]>,
    pub(crate) changes: Vec<Option<&'e [u8]>>,
}

impl<'e> SealedEvents<'e> {
    pub(crate) fn of(events: impl IntoIterator<Item = &'e SealedEvent>) -> Self {
        let mut columns = Self::default();
        for event in events {
            columns.organizations.push(event.organization.into());
            columns.ids.push(event.id.into());
            columns.types.push(event.event_type.as_str());
            columns.times.push(event.timestamp.as_millis());
            columns.digests.push(event.digest.as_ref().map(|digest| &digest[..]));
            columns.bodies.push(&event.body);
            columns.changes.push(event.changes.as_deref());
        }
        columns
    }
}

/// The columns that [`stored_event`] reads.
pub(crate) const STORED_EVENT: &str =
    "seq, id, event_type, timestamp, deliveries, body, erased_at, changes";

pub(crate) fn stored_event(row: &Row) -> Result<StoredEvent, Damage> {
    Ok(StoredEvent {
        seq: seq(row, 0)?,
        id: id(row, 1)?,
        event_type: parsed(row, 2)?,
        timestamp: time(row, 3)?,
        deliveries: count(row, 4)?,
        body: body(row, 5)?,
        erased_at: optional_time(row, 6)?,
        changes: optional_body(row, 7)?,
    })
}

pub(crate) fn patterns(row: &Row, column: usize) -> Result<Vec<EventPattern>, Damage> {
    patterns_from(get(row, column)?, column)
}

pub(crate) fn patterns_from(text: &str, column: usize) -> Result<Vec<EventPattern>, Damage> {
    encoding::patterns(text).map_err(|error| Damage::new(column, error))
}

/// The columns that [`lane_state`] reads.
pub(crate) const LANE_STATE: &str = "l.failures, l.failed_deliveries, l.failing_since, \
     l.open_probes, l.not_before, l.last_success_at, l.exhaustion_told_at";

/// How many columns [`LANE_STATE`] has.
pub(crate) const LANE_STATE_COLUMNS: usize = 7;

/// Reads [`LANE_STATE`], beginning at column `first`, of a lane that may have no row yet.
pub(crate) fn lane_state(row: &Row, first: usize) -> Result<LaneState, Damage> {
    Ok(LaneState {
        failures: optional_count(row, first)?.unwrap_or_default(),
        failed_deliveries: optional_count(row, first + 1)?.unwrap_or_default(),
        failing_since: optional_time(row, first + 2)?,
        open_probes: optional_count(row, first + 3)?,
        not_before: optional_time(row, first + 4)?,
        last_success_at: optional_time(row, first + 5)?,
        exhaustion_told_at: optional_time(row, first + 6)?,
    })
}

/// The columns that [`attempt`] reads.
pub(crate) const ATTEMPT: &str = "number, started_at, status, error, detail, probe, charged, \
     resolve_ns, connect_ns, tls_ns, first_byte_ns, total_ns";

/// Reads [`ATTEMPT`], beginning at column `first`.
pub(crate) fn attempt(row: &Row, first: usize) -> Result<Attempt, Damage> {
    Ok(Attempt {
        number: count(row, first)?,
        started_at: time(row, first + 1)?,
        status: status(row, first + 2)?,
        error: attempt_error(row, first + 3)?,
        detail: optional_strangers_text(row, first + 4)?,
        probe: get(row, first + 5)?,
        charged: get(row, first + 6)?,
        timings: Timings {
            resolve: duration(row, first + 7)?,
            connect: duration(row, first + 8)?,
            tls: duration(row, first + 9)?,
            first_byte: duration(row, first + 10)?,
            total: duration(row, first + 11)?.unwrap_or_default(),
        },
    })
}

fn duration(row: &Row, column: usize) -> Result<Option<Duration>, Damage> {
    let nanos: Option<i64> = get(row, column)?;
    Ok(nanos.map(|nanos| Duration::from_nanos(nanos.unsigned_abs())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_seq_is_damage() {
        for wrong in [-1, 1 << 40, i64::MAX] {
            assert!(seq_from(wrong, 0).is_err(), "{wrong}");
        }
        assert_eq!(seq_from((1 << 40) - 1, 0).unwrap(), Seq::MAX);
    }
}
