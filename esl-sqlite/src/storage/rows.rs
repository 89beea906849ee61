//! What a value looks like in a row, and back.

use std::{error::Error, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;
use esl_core::{
    Attempt, AttemptError, EventId, EventPattern, LaneId, OrganizationId, SealedEvent, Seq,
    Timestamp, Timings,
    storage::{
        Audience, LaneState, StoredEvent,
        encoding::{self, Ending},
    },
};
use rusqlite::{
    Row,
    types::{FromSqlError, Type},
};

/// The place of an event among the events of all organizations: one key, so that neither the events
/// of an organization nor a delivery's event need an index of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct EventKey(pub(crate) i64);

impl EventKey {
    const SEQ_BITS: u32 = 40;

    pub(crate) const fn new(organization: i64, seq: Seq) -> Self {
        Self(organization << Self::SEQ_BITS | seq.get().cast_signed())
    }

    pub(crate) const fn organization(self) -> i64 {
        self.0 >> Self::SEQ_BITS
    }

    pub(crate) const fn seq(self) -> Seq {
        Seq::new(self.0.cast_unsigned() & Seq::MAX.get())
    }
}

pub(crate) const fn lane_number(lane: LaneId) -> i64 {
    lane.get().cast_signed()
}

/// As `esl_events.audience` says it.
pub(crate) fn audience(row: &Row<'_>, index: usize) -> rusqlite::Result<Audience> {
    row.get(index).map(encoding::audience)
}

pub(crate) const fn seq_number(seq: Seq) -> i64 {
    seq.get().cast_signed()
}

pub(crate) fn lane(row: &Row<'_>, index: usize) -> rusqlite::Result<LaneId> {
    Ok(LaneId::new(forty_bits(row, index)?))
}

pub(crate) fn seq(row: &Row<'_>, index: usize) -> rusqlite::Result<Seq> {
    Ok(Seq::new(forty_bits(row, index)?))
}

/// A seq that was found in column `index`.
pub(crate) fn seq_from(number: u64, index: usize) -> rusqlite::Result<Seq> {
    Ok(Seq::new(demand_forty_bits(number, index)?))
}

fn forty_bits(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    demand_forty_bits(row.get::<_, i64>(index)?.cast_unsigned(), index)
}

fn demand_forty_bits(number: u64, index: usize) -> rusqlite::Result<u64> {
    if number <= Seq::MAX.get() {
        Ok(number)
    } else {
        Err(damaged(index, Type::Integer, "not a number of 40 bits"))
    }
}

pub(crate) fn time(row: &Row<'_>, index: usize) -> rusqlite::Result<Timestamp> {
    row.get(index).map(Timestamp::from_millis)
}

pub(crate) fn optional_time(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<Timestamp>> {
    let millis: Option<i64> = row.get(index)?;
    Ok(millis.map(Timestamp::from_millis))
}

/// Parses a text without copying it first.
pub(crate) fn parsed<T>(row: &Row<'_>, index: usize) -> rusqlite::Result<T>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    let text = row.get_ref(index)?.as_str().map_err(|error| mistyped(index, error))?;
    text.parse().map_err(|error: T::Err| damaged(index, Type::Text, error))
}

fn body(row: &Row<'_>, index: usize) -> rusqlite::Result<Bytes> {
    let bytes = row.get_ref(index)?.as_blob().map_err(|error| mistyped(index, error))?;
    Ok(Bytes::copy_from_slice(bytes))
}

fn changes(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<Bytes>> {
    let bytes = row.get_ref(index)?.as_blob_or_null().map_err(|error| mistyped(index, error))?;
    Ok(bytes.map(Bytes::copy_from_slice))
}

/// How a delivery has ended, as `esl_closed.state` says it.
pub(crate) fn ending(row: &Row<'_>, index: usize) -> rusqlite::Result<Ending> {
    let known = Ending::from_number(row.get(index)?);
    known.ok_or_else(|| damaged(index, Type::Integer, "not a state of a closed delivery"))
}

pub(crate) fn attempt_error(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<AttemptError>> {
    let Some(number) = row.get(index)? else { return Ok(None) };
    let known = encoding::attempt_error(number);
    known.map(Some).ok_or_else(|| damaged(index, Type::Integer, "not an error of an attempt"))
}

/// The columns that [`sealed_event`] reads after the organization.
pub(crate) const SEALED_EVENT: &str = "id, event_type, timestamp, digest, body, changes";

/// Reads [`SEALED_EVENT`], beginning at column `first`.
pub(crate) fn sealed_event(
    row: &Row<'_>,
    first: usize,
    organization: OrganizationId,
) -> rusqlite::Result<Arc<SealedEvent>> {
    Ok(Arc::new(SealedEvent {
        id: EventId::from_bytes(row.get(first)?),
        organization,
        event_type: parsed(row, first + 1)?,
        timestamp: time(row, first + 2)?,
        digest: row.get(first + 3)?,
        body: body(row, first + 4)?,
        changes: changes(row, first + 5)?,
    }))
}

/// The columns that [`stored_event`] reads.
pub(crate) const STORED_EVENT: &str =
    "key, id, event_type, timestamp, deliveries, body, erased_at, changes";

pub(crate) fn stored_event(row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    Ok(StoredEvent {
        seq: EventKey(row.get(0)?).seq(),
        id: EventId::from_bytes(row.get(1)?),
        event_type: parsed(row, 2)?,
        timestamp: time(row, 3)?,
        deliveries: row.get(4)?,
        body: body(row, 5)?,
        erased_at: optional_time(row, 6)?,
        changes: changes(row, 7)?,
    })
}

pub(crate) fn patterns(row: &Row<'_>, index: usize) -> rusqlite::Result<Vec<EventPattern>> {
    let text = row.get_ref(index)?.as_str().map_err(|error| mistyped(index, error))?;
    encoding::patterns(text).map_err(|error| damaged(index, Type::Text, error))
}

/// The columns that [`lane_state`] reads.
pub(crate) const LANE_STATE: &str = "l.failures, l.failed_deliveries, l.failing_since, \
     l.open_probes, l.not_before, l.last_success_at, l.exhaustion_told_at";

/// How many columns [`LANE_STATE`] has.
pub(crate) const LANE_STATE_COLUMNS: usize = 7;

/// Reads [`LANE_STATE`], beginning at column `first`, of a lane that may have no row yet.
pub(crate) fn lane_state(row: &Row<'_>, first: usize) -> rusqlite::Result<LaneState> {
    Ok(LaneState {
        failures: row.get::<_, Option<u32>>(first)?.unwrap_or_default(),
        failed_deliveries: row.get::<_, Option<u32>>(first + 1)?.unwrap_or_default(),
        failing_since: optional_time(row, first + 2)?,
        open_probes: row.get(first + 3)?,
        not_before: optional_time(row, first + 4)?,
        last_success_at: optional_time(row, first + 5)?,
        exhaustion_told_at: optional_time(row, first + 6)?,
    })
}

/// The columns that [`attempt`] reads.
pub(crate) const ATTEMPT: &str = "number, started_at, status, error, detail, probe, charged, \
     resolve_ns, connect_ns, tls_ns, first_byte_ns, total_ns";

pub(crate) fn attempt(row: &Row<'_>) -> rusqlite::Result<Attempt> {
    Ok(Attempt {
        number: row.get(0)?,
        started_at: time(row, 1)?,
        status: row.get(2)?,
        error: attempt_error(row, 3)?,
        detail: row.get(4)?,
        probe: row.get(5)?,
        charged: row.get(6)?,
        timings: Timings {
            resolve: duration(row, 7)?,
            connect: duration(row, 8)?,
            tls: duration(row, 9)?,
            first_byte: duration(row, 10)?,
            total: duration(row, 11)?.unwrap_or_default(),
        },
    })
}

fn duration(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<Duration>> {
    let nanos: Option<i64> = row.get(index)?;
    Ok(nanos.map(|nanos| Duration::from_nanos(nanos.unsigned_abs())))
}

/// A column that does not hold what ESL puts there.
pub(crate) fn damaged(
    index: usize,
    found: Type,
    error: impl Into<Box<dyn Error + Send + Sync>>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, found, error.into())
}

pub(crate) fn mistyped(index: usize, error: FromSqlError) -> rusqlite::Error {
    damaged(index, Type::Null, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_holds_organization_and_seq() {
        for (organization, seq) in [(1, 1), (1, Seq::MAX.get()), ((1 << 23) - 1, 77)] {
            let key = EventKey::new(organization, Seq::new(seq));
            assert!(key.0 > 0);
            assert_eq!((key.organization(), key.seq().get()), (organization, seq));
        }
    }
}
