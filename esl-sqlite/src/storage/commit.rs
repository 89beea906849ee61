//! Units: what is new, in the order of their coming.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use esl_core::{
    Crossed, EventId, SealedEvent, Seq, Timestamp, Usage,
    storage::{
        Accepted, Audience, Commit, Committed, FAN_OUT_ABOVE, Idempotency, IntakeRow, Publish,
        Refused, Routed, StorageError, Unit, encoding,
    },
};
use rusqlite::{OptionalExtension, Row};

use crate::storage::{
    SqliteStorage,
    changes::News,
    entity_writes,
    error::Stop,
    fan_out,
    rows::{EventKey, lane_number, seq_number},
    session::{OrganizationRow, Session},
    settle::{self, retry_time},
};

#[async_trait]
impl Commit for SqliteStorage {
    async fn commit(
        &self,
        units: Vec<Unit>,
    ) -> Result<Vec<Result<Committed, Refused>>, StorageError> {
        if units.is_empty() {
            return Ok(Vec::new());
        }
        let weight = units.iter().map(weight).sum();
        let work = move |session: &mut Session<'_>| commit_all(session, &units);
        self.writer().run("commit", weight, work).await
    }
}

/// Roughly how many rows a unit writes.
fn weight(unit: &Unit) -> usize {
    let events = unit.publish.iter().flat_map(|publish| &publish.events);
    let settlements = unit.settle.as_ref().map_or(0, |settle| settle.settlements.len());
    let expanded = unit.expand.as_ref().map_or(0, |expand| 1 + expand.lanes.len());
    let entities = unit.entities.iter().flat_map(|write| &write.steps).map(entity_writes::weight);
    events.map(|routed| 1 + routed.lanes.len().min(FAN_OUT_ABOVE)).sum::<usize>()
        + settlements
        + expanded
        + entities.sum::<usize>()
}

fn commit_all(
    session: &mut Session<'_>,
    units: &[Unit],
) -> Result<Vec<Result<Committed, Refused>>, Stop> {
    let mut results = Vec::with_capacity(units.len());
    for unit in units {
        results.push(match commit(session, unit) {
            Ok(committed) => Ok(committed),
            Err(Declined::Refused(refused)) => Err(refused),
            Err(Declined::Failed(error)) => return Err(Stop::Failed(error)),
        });
    }
    Ok(results)
}

/// Why a unit is not committed.
pub(crate) enum Declined {
    /// It alone is refused; nothing of it was written.
    Refused(Refused),
    /// The whole transaction is rolled back.
    Failed(rusqlite::Error),
}

impl From<Refused> for Declined {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<rusqlite::Error> for Declined {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error)
    }
}

/// One unit. Every check comes before the first write, so that a refusal has nothing to undo.
fn commit(session: &mut Session<'_>, unit: &Unit) -> Result<Committed, Declined> {
    let mut checked = None;
    if let Some(publish) = &unit.publish {
        let organization = session.organization(publish.organization)?;
        let organization =
            organization.ok_or(Refused::UnknownOrganization(publish.organization))?;
        if let Some(idempotency) = &publish.idempotency
            && let Some(answer) = first_answer(session, organization, idempotency)?
        {
            return Ok(Committed { events: answer, ..Committed::default() });
        }
        checked = Some((publish, organization));
    }
    if let Some(expand) = &unit.expand {
        fan_out::demand_turn(session, expand)?;
    }
    if let Some(settle) = &unit.settle
        && !session.is_running(&settle.worker)?
    {
        return Err(Refused::StaleEpoch.into());
    }
    let entities = unit.entities.as_ref();
    let entities = entities.map(|write| entity_writes::demand_expected(session, write));
    let entities = entities.transpose()?;
    let mut committed = Committed::default();
    if let Some((publish, organization)) = checked {
        if publish.route_version != organization.route_version {
            return Err(Refused::Rerouted.into());
        }
        demand_intake(session, publish, organization)?;
        committed = store(session, publish, organization)?;
    }
    if let Some(entities) = &entities {
        entity_writes::write(session, entities)?;
    }
    if let Some(settle) = &unit.settle {
        settle::settle(session, settle)?;
    }
    if let Some(expand) = &unit.expand {
        committed.is_cancelled = fan_out::expand(session, expand)?;
    }
    Ok(committed)
}

/// Refuses a unit if an event of it was erased from the intake meanwhile.
fn demand_intake(
    session: &mut Session<'_>,
    publish: &Publish,
    organization: OrganizationRow,
) -> Result<(), Declined> {
    for routed in &publish.events {
        let Some(IntakeRow(row)) = routed.intake else { continue };
        let mut is_there = session.connection.prepare_cached(IS_IN_INTAKE)?;
        if !is_there.exists(intake_place(row, routed))?
            && find(session, &routed.event, organization)?.is_none()
        {
            return Err(Refused::IntakeGone(routed.event.id).into());
        }
    }
    Ok(())
}

const IS_IN_INTAKE: &str =
    "SELECT 1 FROM esl_intake WHERE id = ?1 AND event_id = ?2 AND organization = ?3";

fn intake_place(row: i64, routed: &Routed) -> (i64, [u8; 16], [u8; 16]) {
    (row, routed.event.id.to_bytes(), routed.event.organization.to_bytes())
}

/// Stores the events of a checked unit, and what the organization is told of its usage.
fn store(
    session: &mut Session<'_>,
    publish: &Publish,
    mut organization: OrganizationRow,
) -> Result<Committed, Declined> {
    let before = organization;
    let is_large_unit = publish.is_large();
    let mut events = Vec::with_capacity(publish.events.len());
    let metered;
    if let [routed] = &*publish.events {
        // The only event of a unit need not be looked up first: if its id is taken, the insertion
        // does nothing.
        let as_new = meter_alone(session, publish, organization)?;
        remove_intake(session, routed)?;
        let accepted = store_alone(session, &mut organization, routed, is_large_unit)?;
        metered = if accepted.repeated { None } else { as_new };
        events.push(accepted);
    } else {
        let places = places(session, publish, organization)?;
        let new = places.iter().filter(|place| matches!(place, Place::New(_))).count();
        metered = meter(session, publish, organization, new)?;
        for routed in &publish.events {
            remove_intake(session, routed)?;
        }
        for (routed, place) in publish.events.iter().zip(places) {
            events.push(match place {
                Place::Known(accepted) => accepted,
                Place::New(seq) => {
                    let accepted = insert(session, &mut organization, routed, seq, is_large_unit)?;
                    accepted.expect("the id was looked up in this transaction")
                }
            });
        }
    }
    let mut committed = Committed { events, ..Committed::default() };
    if let Some((usage, crossed)) = metered {
        organization.usage = usage;
        committed.usage = Some(usage);
        let metering = publish.metering.iter();
        for (threshold, notice) in metering.flat_map(|metering| metering.told_in(usage.hour)) {
            if crossed.has(*threshold) {
                let accepted = store_alone(session, &mut organization, notice, false)?;
                committed.notices.push((*threshold, accepted));
            }
        }
    }
    if organization != before {
        session.change_organization(publish.organization, |row| *row = organization);
    }
    if let Some(idempotency) = &publish.idempotency {
        remember(session, organization, idempotency, &committed.events)?;
    }
    let Committed { events, notices, .. } = &committed;
    let mut stored = events.iter().chain(notices.iter().map(|(_, accepted)| accepted));
    // Lanes of an engine that this handle does not have.
    if stored.any(|event| !event.repeated && event.deliveries > 0) {
        session.tell_others(News::Lanes)?;
    }
    Ok(committed)
}

/// What the organization has used with so many new events, if the unit is metered.
fn meter(
    session: &Session<'_>,
    publish: &Publish,
    organization: OrganizationRow,
    new: usize,
) -> Result<Option<(Usage, Crossed)>, Refused> {
    let Some(metering) = &publish.metering else { return Ok(None) };
    metering.meter(organization.usage.at(session.now), new).map(Some)
}

/// The same for the only event of a unit, as if it were new; if it is not, that changes nothing, but it
/// must not be refused for that either.
fn meter_alone(
    session: &mut Session<'_>,
    publish: &Publish,
    organization: OrganizationRow,
) -> Result<Option<(Usage, Crossed)>, Declined> {
    match meter(session, publish, organization, 1) {
        Ok(metered) => Ok(metered),
        Err(refused) => match find(session, &publish.events[0].event, organization)? {
            Some(_) => Ok(None),
            None => Err(refused.into()),
        },
    }
}

fn store_alone(
    session: &mut Session<'_>,
    organization: &mut OrganizationRow,
    routed: &Routed,
    is_large_unit: bool,
) -> Result<Accepted, Declined> {
    let seq = organization.last_seq.next();
    if let Some(accepted) = insert(session, organization, routed, seq, is_large_unit)? {
        return Ok(accepted);
    }
    let known = find(session, &routed.event, *organization)?;
    let known = known.expect("an id that is taken is found");
    known.repetition(routed).map_err(Declined::Refused)
}

/// Where an event of a unit belongs.
enum Place {
    New(Seq),
    /// An event of that id is there already.
    Known(Accepted),
}

/// One place for each event of the unit.
fn places(
    session: &mut Session<'_>,
    publish: &Publish,
    organization: OrganizationRow,
) -> Result<Vec<Place>, Declined> {
    let mut in_this_unit: HashMap<EventId, Known> = HashMap::with_capacity(publish.events.len());
    let mut last_seq = organization.last_seq;
    let mut places = Vec::with_capacity(publish.events.len());
    for routed in &publish.events {
        let event = &routed.event;
        let known = match in_this_unit.get(&event.id) {
            Some(known) => Some(*known),
            None => find(session, event, organization)?,
        };
        places.push(match known {
            Some(known) => Place::Known(known.repetition(routed)?),
            None => {
                last_seq = last_seq.next();
                let accepted = Accepted {
                    id: event.id,
                    seq: last_seq,
                    deliveries: deliveries(routed),
                    repeated: true,
                    fanned_out: false,
                };
                let known = Known { accepted, digest: event.digest };
                in_this_unit.insert(event.id, known);
                Place::New(last_seq)
            }
        });
    }
    Ok(places)
}

/// An event under an id, as far as telling it from another goes.
#[derive(Clone, Copy)]
struct Known {
    accepted: Accepted,
    digest: Option<[u8; 16]>,
}

impl Known {
    /// What is said of an event that comes again, if it is the same.
    fn repetition(&self, routed: &Routed) -> Result<Accepted, Refused> {
        let is_same = self.digest == routed.event.digest;
        // Whoever committed the intake row is not there to be told of a conflict.
        if is_same || routed.intake.is_some() {
            Ok(self.accepted)
        } else {
            Err(Refused::EventConflict(routed.event.id))
        }
    }
}

fn find(
    session: &mut Session<'_>,
    event: &SealedEvent,
    organization: OrganizationRow,
) -> rusqlite::Result<Option<Known>> {
    let read = |row: &Row<'_>| {
        let key = EventKey(row.get(0)?);
        let accepted = Accepted {
            id: event.id,
            seq: key.seq(),
            deliveries: row.get(2)?,
            repeated: true,
            fanned_out: false,
        };
        Ok(Known { accepted, digest: row.get(1)? })
    };
    let parameters = (event.id.to_bytes(), organization.key);
    session.statements.find_event.query_row(parameters, read).optional()
}

/// Stores an event and what is owed of it; `None`, with nothing stored, if its id is taken.
fn insert(
    session: &mut Session<'_>,
    organization: &mut OrganizationRow,
    routed: &Routed,
    seq: Seq,
    is_large_unit: bool,
) -> rusqlite::Result<Option<Accepted>> {
    let event = &routed.event;
    let inserted = session.statements.insert_event.execute((
        organization.event_key(seq).0,
        event.id.to_bytes(),
        event.event_type.as_str(),
        event.timestamp.as_millis(),
        event.digest,
        deliveries(routed),
        encoding::audience_number(routed.audience),
        &*event.body,
        event.changes.as_deref(),
    ))?;
    if inserted == 0 {
        return Ok(None);
    }
    organization.last_seq = seq;
    let fanned_out = fan_out::is_needed(organization, routed, is_large_unit);
    if fanned_out {
        fan_out::begin(session, organization, routed, seq)?;
    } else if let Audience::Only(lane) = routed.audience {
        session.statements.owe.execute((
            lane_number(lane),
            retry_time(session.now),
            seq_number(seq),
        ))?;
    } else {
        for lane in &*routed.lanes {
            session.statements.owe.execute((lane_number(*lane), 0, seq_number(seq)))?;
        }
    }
    let deliveries = deliveries(routed);
    Ok(Some(Accepted { id: event.id, seq, deliveries, repeated: false, fanned_out }))
}

fn deliveries(routed: &Routed) -> u32 {
    u32::try_from(routed.lanes.len()).expect("an organization has fewer lanes")
}

/// Removes the intake row of an event that is about to be stored. Most of what is freed is used again
/// by the event itself, which therefore comes afterwards.
fn remove_intake(session: &Session<'_>, routed: &Routed) -> rusqlite::Result<()> {
    let Some(IntakeRow(row)) = routed.intake else { return Ok(()) };
    let sql = "DELETE FROM esl_intake WHERE id = ?1 AND event_id = ?2 AND organization = ?3";
    session.connection.prepare_cached(sql)?.execute(intake_place(row, routed))?;
    Ok(())
}

/// The answer that was given under an idempotency key.
fn first_answer(
    session: &Session<'_>,
    organization: OrganizationRow,
    idempotency: &Idempotency,
) -> Result<Option<Vec<Accepted>>, Declined> {
    let sql = "SELECT fingerprint, answer FROM esl_idempotency
               WHERE organization = ?1 AND key = ?2 AND created_at > ?3";
    let mut select = session.connection.prepare_cached(sql)?;
    let expired = expired_idempotency(session.now).as_millis();
    let mut rows = select.query((organization.key, &idempotency.key, expired))?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let fingerprint: [u8; 32] = row.get(0)?;
    if fingerprint != idempotency.fingerprint {
        return Err(Refused::IdempotencyConflict.into());
    }
    Ok(Some(answer::read(row, 1)?))
}

fn remember(
    session: &Session<'_>,
    organization: OrganizationRow,
    idempotency: &Idempotency,
    answer: &[Accepted],
) -> rusqlite::Result<()> {
    // In place of one that has expired.
    let sql = "INSERT OR REPLACE INTO esl_idempotency
                   (organization, key, fingerprint, answer, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5)";
    session.connection.prepare_cached(sql)?.execute((
        organization.key,
        &idempotency.key,
        idempotency.fingerprint,
        answer::bytes(answer),
        session.now.as_millis(),
    ))?;
    Ok(())
}

/// Idempotency keys that were first used at this time or before are known no more.
pub(crate) fn expired_idempotency(now: Timestamp) -> Timestamp {
    now - IDEMPOTENCY_AGE
}

/// For how long a repetition under an idempotency key is known as one.
const IDEMPOTENCY_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// An answer as `esl_idempotency` keeps it: 28 bytes an event.
mod answer {
    use esl_core::{EventId, storage::Accepted};
    use rusqlite::{Row, types::Type};

    use crate::storage::rows::{damaged, seq_from};

    const EVENT_BYTES: usize = 16 + 8 + 4;

    pub(super) fn bytes(answer: &[Accepted]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(answer.len() * EVENT_BYTES);
        for accepted in answer {
            bytes.extend_from_slice(&accepted.id.to_bytes());
            bytes.extend_from_slice(&accepted.seq.get().to_be_bytes());
            bytes.extend_from_slice(&accepted.deliveries.to_be_bytes());
        }
        bytes
    }

    /// Reads it back; every event in it is a repetition now.
    pub(super) fn read(row: &Row<'_>, index: usize) -> rusqlite::Result<Vec<Accepted>> {
        let bytes: Vec<u8> = row.get(index)?;
        let (events, rest) = bytes.as_chunks::<EVENT_BYTES>();
        if !rest.is_empty() {
            return Err(damaged(index, Type::Blob, "an answer has 28 bytes an event"));
        }
        events.iter().map(|event| read_event(event, index)).collect()
    }

    fn read_event(event: &[u8; EVENT_BYTES], index: usize) -> rusqlite::Result<Accepted> {
        let (id, rest) = event.split_first_chunk().expect("16 of 28 bytes");
        let (seq, rest) = rest.split_first_chunk().expect("8 of 12 bytes");
        let deliveries = rest.first_chunk().expect("the last 4 bytes");
        Ok(Accepted {
            id: EventId::from_bytes(*id),
            seq: seq_from(u64::from_be_bytes(*seq), index)?,
            deliveries: u32::from_be_bytes(*deliveries),
            repeated: true,
            fanned_out: false,
        })
    }
}
