//! What a value looks like in a row, and back.

use std::{error::Error, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;
use esl_core::{
    Attempt, AttemptError, EventId, EventPattern, LaneId, OrganizationId, SealedEvent, Seq,
    Timestamp, Timings,
    storage::{Audience, LaneState, StoredEvent},
};
use rusqlite::{
    Row,
    types::{FromSqlError, Type},
};

/// How a closed delivery ended, as `esl_closed.state` says it. Numbers are never given anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Ending {
    Delivered = 0,
    Exhausted = 1,
    Expired = 2,
    Cancelled = 3,
}

impl Ending {
    const ALL: [Self; 4] = [Self::Delivered, Self::Exhausted, Self::Expired, Self::Cancelled];

    pub(crate) const fn number(self) -> u8 {
        self as u8
    }
}

/// The numbers that stand for [`AttemptError`]s in rows. They are never given anew.
const ATTEMPT_ERRORS: [(u8, AttemptError); 10] = [
    (1, AttemptError::Status),
    (2, AttemptError::RefusedAddress),
    (3, AttemptError::Dns),
    (4, AttemptError::Connect),
    (5, AttemptError::Tls),
    (6, AttemptError::Timeout),
    (7, AttemptError::Reset),
    (8, AttemptError::StaleConnection),
    (9, AttemptError::TooLarge),
    (10, AttemptError::Unsent),
];

pub(crate) fn attempt_error_number(error: AttemptError) -> u8 {
    let known = ATTEMPT_ERRORS.iter().find(|(_, known)| *known == error);
    known.expect("a test holds the table against AttemptError::ALL").0
}

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

/// As `esl_events.audience` says it: nothing for all, a lane for all but that one, and the lane below
/// zero for that one alone.
pub(crate) fn audience_number(audience: Audience) -> Option<i64> {
    match audience {
        Audience::Matching => None,
        Audience::Except(lane) => Some(lane_number(lane)),
        Audience::Only(lane) => Some(-lane_number(lane)),
    }
}

pub(crate) fn audience(row: &Row<'_>, index: usize) -> rusqlite::Result<Audience> {
    let number: Option<i64> = row.get(index)?;
    Ok(match number {
        None => Audience::Matching,
        Some(number) => {
            let lane = LaneId::new(number.unsigned_abs());
            if number < 0 { Audience::Only(lane) } else { Audience::Except(lane) }
        }
    })
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

pub(crate) fn ending(row: &Row<'_>, index: usize) -> rusqlite::Result<Ending> {
    let number: u8 = row.get(index)?;
    let known = Ending::ALL.into_iter().find(|ending| ending.number() == number);
    known.ok_or_else(|| damaged(index, Type::Integer, "not a state of a closed delivery"))
}

pub(crate) fn attempt_error(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<AttemptError>> {
    let Some(number) = row.get::<_, Option<u8>>(index)? else { return Ok(None) };
    let known = ATTEMPT_ERRORS.iter().find(|(known, _)| *known == number);
    known
        .map(|(_, error)| Some(*error))
        .ok_or_else(|| damaged(index, Type::Integer, "not an error of an attempt"))
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

/// Patterns hold no spaces, so a space keeps them apart.
pub(crate) fn patterns_text(patterns: &[EventPattern]) -> String {
    let mut text = String::new();
    for pattern in patterns {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&pattern.to_string());
    }
    text
}

pub(crate) fn patterns(row: &Row<'_>, index: usize) -> rusqlite::Result<Vec<EventPattern>> {
    let text = row.get_ref(index)?.as_str().map_err(|error| mistyped(index, error))?;
    let patterns: Result<_, _> = text.split_ascii_whitespace().map(str::parse).collect();
    patterns.map_err(|error| damaged(index, Type::Text, error))
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

/// In nanoseconds; 292 years at most.
pub(crate) fn duration_number(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
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
    fn every_error_has_a_number_of_its_own() {
        let mut numbers: Vec<_> = AttemptError::ALL.map(attempt_error_number).to_vec();
        numbers.dedup();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        for (number, ending) in (0..).zip(Ending::ALL) {
            assert_eq!(ending.number(), number);
        }
    }

    #[test]
    fn a_key_holds_organization_and_seq() {
        for (organization, seq) in [(1, 1), (1, Seq::MAX.get()), ((1 << 23) - 1, 77)] {
            let key = EventKey::new(organization, Seq::new(seq));
            assert!(key.0 > 0);
            assert_eq!((key.organization(), key.seq().get()), (organization, seq));
        }
    }

    #[test]
    fn patterns_come_back_as_they_were() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let all: Vec<EventPattern> =
            ["*", "a.*", "a.b"].map(|pattern| pattern.parse().unwrap()).to_vec();
        let back = connection
            .query_row("SELECT ?1", [patterns_text(&all)], |row| patterns(row, 0))
            .unwrap();
        assert_eq!(back, all);
    }
}
