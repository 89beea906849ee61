//! What `esl.commit_1` and `esl.plain_commit_1` say of a group, unit by unit.

use std::collections::{BTreeSet, HashMap};

use esl_core::{
    EntityKey, EventId, Hour, Usage,
    storage::{Accepted, Committed, Publish, Refused, Routed, Unit},
};
use tokio_postgres::Row;

use crate::{
    error::Damage,
    id::Id16,
    rows::{count_from, get, seq_from},
};

/// What a unit came to.
pub(crate) type Outcome = Result<Committed, Refused>;

/// What each unit came to.
pub(crate) fn decode(units: &[Unit], row: &Row) -> Result<Vec<Outcome>, Damage> {
    let answer = Answer::read(row)?;
    if answer.codes.len() != units.len() {
        return Err(Damage::new(0, "not an answer for each unit"));
    }
    let mut places = Places::default();
    let firsts: Vec<_> = units.iter().map(|unit| places.of(unit)).collect();
    let all = Decoding { units, answer: &answer, firsts: &firsts };
    (0..units.len()).map(|index| all.unit(index)).collect()
}

/// What each unit of a plain group came to; `None` if it was not plain after all, and nothing was written.
pub(crate) fn decode_plain(units: &[Unit], row: &Row) -> Result<Option<Vec<Outcome>>, Damage> {
    if !get::<bool>(row, 0)? {
        return Ok(None);
    }
    let (lasts, hours, used): (Vec<i64>, Vec<i64>, Vec<i64>) =
        (get(row, 1)?, get(row, 2)?, get(row, 3)?);
    let ids = units.iter().filter_map(|unit| unit.publish.as_ref());
    let ids: BTreeSet<Id16> = ids.map(|publish| publish.organization.into()).collect();
    if [lasts.len(), hours.len(), used.len()] != [ids.len(); 3] {
        return Err(unlike());
    }
    let usages = hours.into_iter().zip(used);
    let mut standings: HashMap<Id16, (i64, (i64, i64))> =
        ids.into_iter().zip(lasts.into_iter().zip(usages)).collect();
    let mut outcomes = Vec::with_capacity(units.len());
    for unit in units {
        let mut committed = Committed::default();
        if let Some(publish) = &unit.publish {
            let standing = standings.get_mut(&publish.organization.into());
            let (last, (hour, used)) = standing.expect("all organizations are there");
            for routed in &publish.events {
                *last += 1;
                committed.events.push(Accepted {
                    id: routed.event.id,
                    seq: seq_from(*last, 1)?,
                    deliveries: u32::try_from(routed.lanes.len()).unwrap_or(u32::MAX),
                    repeated: false,
                    fanned_out: false,
                });
            }
            if publish.metering.is_some() {
                *used = used.saturating_add_unsigned(publish.events.len() as u64);
                let events = used.cast_unsigned();
                committed.usage = Some(Usage { hour: Hour::from_number(*hour), events });
            }
        }
        outcomes.push(Ok(committed));
    }
    Ok(Some(outcomes))
}

/// The columns, each an array.
struct Answer {
    codes: Vec<i16>,
    details: Vec<Option<i32>>,
    seqs: Vec<Option<i64>>,
    counts: Vec<i64>,
    flags: Vec<i16>,
    hours: Vec<Option<i64>>,
    used: Vec<Option<i64>>,
    firsts: Vec<Option<Vec<u8>>>,
    cancelled: Vec<bool>,
}

impl Answer {
    fn read(row: &Row) -> Result<Self, Damage> {
        Ok(Self {
            codes: get(row, 0)?,
            details: get(row, 1)?,
            seqs: get(row, 2)?,
            counts: get(row, 3)?,
            flags: get(row, 4)?,
            hours: get(row, 5)?,
            used: get(row, 6)?,
            firsts: get(row, 7)?,
            cancelled: get(row, 8)?,
        })
    }
}

/// Where what belongs to a unit begins in the arrays.
#[derive(Debug, Clone, Copy, Default)]
struct Places {
    event: usize,
    expand: usize,
    step: usize,
}

impl Places {
    /// Those of the next unit.
    fn of(&mut self, unit: &Unit) -> Self {
        let place = *self;
        self.event += unit.publish.as_ref().map_or(0, events_of);
        self.expand += usize::from(unit.expand.is_some());
        self.step += unit.entities.as_ref().map_or(0, |write| write.steps.len());
        place
    }
}

/// How many events a publish has, with its notices.
fn events_of(publish: &Publish) -> usize {
    let notices = publish.metering.iter().flat_map(|metering| &metering.notices);
    publish.events.len() + notices.map(|notices| notices.events.len()).sum::<usize>()
}

/// The flags of an event.
const REPEATED: i16 = 1;
const FANNED_OUT: i16 = 2;

struct Decoding<'a> {
    units: &'a [Unit],
    answer: &'a Answer,
    firsts: &'a [Places],
}

impl Decoding<'_> {
    fn unit(&self, index: usize) -> Result<Outcome, Damage> {
        let publish = self.units[index].publish.as_ref();
        let expand = self.units[index].expand.as_ref();
        let entities = self.units[index].entities.as_ref();
        Ok(match self.answer.codes[index] {
            0 => Ok(self.committed(index)?),
            1 => Ok(Committed { events: self.first_answer(index)?, ..Committed::default() }),
            2 => {
                let organization = publish.map(|publish| publish.organization);
                let organization = organization.or(expand.map(|expand| expand.organization));
                let organization = organization.or(entities.map(|write| write.organization));
                Err(Refused::UnknownOrganization(organization.ok_or_else(unlike)?))
            }
            3 => Err(Refused::Rerouted),
            4 => Err(Refused::EventConflict(self.refused_event(index)?)),
            5 => Err(Refused::IdempotencyConflict),
            6 => Err(Refused::IntakeGone(self.refused_event(index)?)),
            7 => Err(Refused::OverLimit(self.usage(index)?)),
            8 => Err(Refused::OutOfTurn),
            9 => Err(Refused::StaleEpoch),
            10 => Err(Refused::Crosses(self.usage(index)?)),
            11 => Err(Refused::Stale(self.refused_entity(index)?)),
            12 => Err(Refused::TooManyReferences(self.refused_entity(index)?)),
            _ => return Err(unlike()),
        })
    }

    fn committed(&self, index: usize) -> Result<Committed, Damage> {
        let mut committed = Committed::default();
        if self.units[index].expand.is_some() {
            let cancelled = self.answer.cancelled.get(self.firsts[index].expand);
            committed.is_cancelled = *cancelled.ok_or_else(unlike)?;
        }
        let Some(publish) = &self.units[index].publish else { return Ok(committed) };
        let mut place = self.firsts[index].event;
        for routed in &publish.events {
            let accepted = self.accepted(routed, place)?;
            committed.events.push(accepted.ok_or_else(unlike)?);
            place += 1;
        }
        let Some(metering) = &publish.metering else { return Ok(committed) };
        committed.usage = Some(self.usage(index)?);
        for (threshold, routed) in metering.notices.iter().flat_map(|notices| &notices.events) {
            let accepted = self.accepted(routed, place)?;
            committed.notices.extend(accepted.map(|accepted| (*threshold, accepted)));
            place += 1;
        }
        Ok(committed)
    }

    /// An event that is stored; `None` if it is a notice that was not called for.
    fn accepted(&self, routed: &Routed, place: usize) -> Result<Option<Accepted>, Damage> {
        let answer = self.answer;
        let seq = *answer.seqs.get(place).ok_or_else(unlike)?;
        let (Some(count), Some(flags)) = (answer.counts.get(place), answer.flags.get(place)) else {
            return Err(unlike());
        };
        let Some(seq) = seq else { return Ok(None) };
        Ok(Some(Accepted {
            id: routed.event.id,
            seq: seq_from(seq, 2)?,
            deliveries: count_from(*count, 3)?,
            repeated: flags & REPEATED != 0,
            fanned_out: flags & FANNED_OUT != 0,
        }))
    }

    /// The answer that was given under the unit's key, in this group or before it.
    fn first_answer(&self, index: usize) -> Result<Vec<Accepted>, Damage> {
        if let Some(Some(bytes)) = self.answer.firsts.get(index) {
            return stored_answer(bytes);
        }
        let first = self.detail(index)?;
        let first = first.checked_sub(1).filter(|first| *first < index).ok_or_else(unlike)?;
        let events = self.committed(first)?.events;
        let repeated = |accepted| Accepted { repeated: true, fanned_out: false, ..accepted };
        Ok(events.into_iter().map(repeated).collect())
    }

    fn refused_event(&self, index: usize) -> Result<EventId, Damage> {
        let publish = self.units[index].publish.as_ref().ok_or_else(unlike)?;
        let place = self.detail(index)?.checked_sub(self.firsts[index].event + 1);
        let routed = place.and_then(|place| publish.events.get(place));
        routed.map(|routed| routed.event.id).ok_or_else(unlike)
    }

    fn refused_entity(&self, index: usize) -> Result<EntityKey, Damage> {
        let write = self.units[index].entities.as_ref().ok_or_else(unlike)?;
        let place = self.detail(index)?.checked_sub(self.firsts[index].step + 1);
        let step = place.and_then(|place| write.steps.get(place));
        step.map(|step| step.key.clone()).ok_or_else(unlike)
    }

    fn detail(&self, index: usize) -> Result<usize, Damage> {
        let detail = self.answer.details.get(index).copied().flatten();
        detail.and_then(|detail| usize::try_from(detail).ok()).ok_or_else(unlike)
    }

    fn usage(&self, index: usize) -> Result<Usage, Damage> {
        let hour = self.answer.hours.get(index).copied().flatten();
        let used = self.answer.used.get(index).copied().flatten();
        let (hour, events) = hour.zip(used).ok_or_else(unlike)?;
        Ok(Usage { hour: Hour::from_number(hour), events: events.cast_unsigned() })
    }
}

/// An answer as `idempotency` keeps it, in which every event is a repetition now.
fn stored_answer(bytes: &[u8]) -> Result<Vec<Accepted>, Damage> {
    let (events, rest) = bytes.as_chunks::<EVENT_BYTES>();
    if !rest.is_empty() {
        return Err(Damage::new(7, "an answer has 28 bytes an event"));
    }
    events.iter().map(stored_event).collect()
}

fn stored_event(event: &[u8; EVENT_BYTES]) -> Result<Accepted, Damage> {
    let (id, rest) = event.split_first_chunk().expect("16 of 28 bytes");
    let (seq, rest) = rest.split_first_chunk().expect("8 of 12 bytes");
    let deliveries = rest.first_chunk().expect("the last 4 bytes");
    Ok(Accepted {
        id: EventId::from_bytes(*id),
        seq: seq_from(i64::from_be_bytes(*seq), 7)?,
        deliveries: u32::from_be_bytes(*deliveries),
        repeated: true,
        fanned_out: false,
    })
}

const EVENT_BYTES: usize = 16 + 8 + 4;

fn unlike() -> Damage {
    Damage::new(0, "not an answer to what was asked")
}
