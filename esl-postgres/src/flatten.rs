//! A group of units as the arrays that `esl.commit_1` takes. Everything that a server is slow at is found out
//! here: what is the same as something before it, and at which numbers a limit's thresholds are.

mod arrays;
mod entities;
mod plain;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use esl_core::{
    Attempt, AttemptError, EntityKey, EventId, LaneId, Limit, Seq, Threshold,
    storage::{
        Audience, Expand, FAN_OUT_ABOVE, Idempotency, IntakeRow, LaneState, Metering, Outcome,
        Publish, Routed, Settle, Settlement, Unit, Worker, encoding,
    },
};

use crate::{
    id::Id16,
    rows::{lane_number, saturated, seq_number},
};

pub(crate) use self::{
    arrays::{COMMIT, Flat},
    plain::{PLAIN_COMMIT, Plain, plain},
};

/// Puts units into arrays.
pub(crate) fn flatten(units: &[Unit]) -> Flat<'_> {
    let mut flattening = Flattening::new(units);
    for unit in units {
        flattening.unit(unit);
    }
    flattening.flat
}

/// A group on its way, and what was in it so far.
struct Flattening<'u> {
    flat: Flat<'u>,
    /// As the flat group has them, for finding their places.
    workers: Vec<Worker>,
    /// The last event of an id in an organization.
    events: HashMap<(i32, EventId), i32>,
    /// The last unit with a key in an organization.
    keys: HashMap<(i32, &'u str), i32>,
    /// How often a delivery was settled.
    settled: HashMap<(LaneId, Seq), i32>,
    /// The entities of an organization.
    entities: HashMap<(i32, &'u EntityKey), i32>,
}

impl<'u> Flattening<'u> {
    fn new(units: &'u [Unit]) -> Self {
        let published = units.iter().filter_map(|unit| unit.publish.as_ref());
        let expanded = units.iter().filter_map(|unit| unit.expand.as_ref());
        let organizations = published.map(|publish| publish.organization);
        let organizations = organizations.chain(expanded.map(|expand| expand.organization));
        let written = units.iter().filter_map(|unit| unit.entities.as_ref());
        let organizations = organizations.chain(written.map(|write| write.organization));
        let mut organizations: Vec<Id16> = organizations.map(Id16::from).collect();
        organizations.sort_unstable();
        organizations.dedup();

        let settled = units.iter().filter_map(|unit| unit.settle.as_ref());
        let mut workers: Vec<Worker> = settled.map(|settle| settle.worker).collect();
        workers.sort_unstable_by_key(|worker| (worker.epoch, worker.id));
        workers.dedup();

        let flat = Flat {
            organizations,
            workers: workers.iter().map(|worker| worker.id.into()).collect(),
            epochs: workers.iter().map(epoch_number).collect(),
            ..Flat::default()
        };
        Self { workers, ..Self::from(flat) }
    }

    /// Goes on with a group.
    fn from(flat: Flat<'u>) -> Self {
        Self {
            flat,
            workers: Vec::new(),
            events: HashMap::new(),
            keys: HashMap::new(),
            settled: HashMap::new(),
            entities: HashMap::new(),
        }
    }

    fn unit(&mut self, unit: &'u Unit) {
        let place = count(&self.flat.units.first) + 1;
        let publish = unit.publish.as_ref();
        let organization = publish.map(|publish| publish.organization);
        let organization = organization.or(unit.entities.as_ref().map(|write| write.organization));
        let org = organization.map(|organization| self.organization(organization.into()));
        let worker = unit.settle.as_ref().map(|settle| self.worker(&settle.worker));
        let key = publish.and_then(|publish| publish.idempotency.as_ref());
        let metering = publish.and_then(|publish| publish.metering.as_ref());
        let same = match (org, key) {
            (Some(org), Some(Idempotency { key, .. })) => self.keys.insert((org, key), place),
            _ => None,
        };
        let first = count(&self.flat.events.unit) + 1;
        if let Some((publish, org)) = publish.zip(org) {
            self.events_of(publish, org, place);
        }
        let last = count(&self.flat.events.unit);
        if let Some((metering, org)) = metering.zip(org) {
            self.notices(metering, org, place);
        }
        let last_notice = count(&self.flat.events.unit);

        let units = &mut self.flat.units;
        units.org.push(org);
        units.version.push(publish.map(|publish| publish.route_version.0.cast_signed()));
        units.worker.push(worker);
        units.first.push(first);
        units.last.push(last);
        units.last_notice.push(last_notice);
        units.key.push(key.map(|key| &*key.key));
        units.fingerprint.push(key.map(|key| &key.fingerprint[..]));
        units.same.push(same);
        units.refuses.push(metering.map(|metering| metering.refuses));
        let limit = metering.map_or(Limit::Unlimited, |metering| metering.limit);
        units.limit.push(limit.get().map(saturated));
        units.warning_at.push(Threshold::Warning.of(limit).map(saturated));
        units.exceeded_at.push(Threshold::Exceeded.of(limit).map(saturated));

        if let Some(expand) = &unit.expand {
            self.expand(expand, place);
        }
        if let Some(settle) = &unit.settle {
            self.settle(settle, place);
        }
        if let Some((write, org)) = unit.entities.as_ref().zip(org) {
            self.write(write, org, place);
        }
    }

    fn organization(&self, id: Id16) -> i32 {
        let found = self.flat.organizations.binary_search(&id);
        place_of(found.expect("the organizations of all units are there"))
    }

    fn worker(&self, worker: &Worker) -> i32 {
        let key = |worker: &Worker| (worker.epoch, worker.id);
        let found = self.workers.binary_search_by_key(&key(worker), key);
        place_of(found.expect("the workers of all units are there"))
    }

    fn events_of(&mut self, publish: &'u Publish, org: i32, unit: i32) {
        let is_large_unit = publish.is_large();
        for routed in &publish.events {
            self.event(routed, org, unit, is_large_unit);
            self.flat.events.hour.push(None);
            self.flat.events.threshold.push(None);
        }
    }

    fn notices(&mut self, metering: &'u Metering, org: i32, unit: i32) {
        for notices in &metering.notices {
            for (threshold, routed) in &notices.events {
                self.event(routed, org, unit, false);
                self.flat.events.hour.push(Some(notices.hour.number()));
                let threshold = match threshold {
                    Threshold::Warning => 1,
                    Threshold::Exceeded => 2,
                };
                self.flat.events.threshold.push(Some(threshold));
            }
        }
    }

    fn event(&mut self, routed: &'u Routed, org: i32, unit: i32, is_large_unit: bool) {
        let events = &mut self.flat.events;
        let place = count(&events.unit) + 1;
        let event = &routed.event;
        let is_large = is_large_unit || routed.lanes.len() > FAN_OUT_ABOVE;
        events.unit.push(unit);
        events.id.push(event.id.into());
        events.event_type.push(event.event_type.as_str());
        events.at.push(event.timestamp.as_millis());
        events.digest.push(event.digest.as_ref().map(|digest| &digest[..]));
        events.body.push(&event.body);
        events.changes.push(event.changes.as_deref());
        events.deliveries.push(saturated(routed.lanes.len() as u64));
        events.audience.push(encoding::audience_number(routed.audience));
        events.last_lane.push(routed.lanes.last().copied().map(lane_number));
        events.large.push(is_large);
        events.same.push(self.events.insert((org, event.id), place));
        events.intake.push(routed.intake.map(|IntakeRow(row)| row));

        let deliveries = &mut self.flat.deliveries;
        let mut owe = |lane| {
            deliveries.event.push(place);
            deliveries.lane.push(lane_number(lane));
        };
        match routed.audience {
            Audience::Only(lane) => owe(lane),
            // Owed in slices, whatever else there is.
            Audience::Matching | Audience::Except(_) if is_large => {}
            Audience::Matching | Audience::Except(_) => routed.lanes.iter().copied().for_each(owe),
        }
    }

    fn expand(&mut self, expand: &Expand, unit: i32) {
        let org = self.organization(expand.organization.into());
        let expands = &mut self.flat.expands;
        expands.unit.push(unit);
        expands.org.push(org);
        expands.seq.push(seq_number(expand.seq));
        expands.version.push(expand.route_version.0.cast_signed());
        expands.after.push(lane_number(expand.after));
        expands.next.push(expand.next.map(lane_number));
        let place = count(&expands.unit);
        for lane in &*expand.lanes {
            self.flat.expand_lanes.expand.push(place);
            self.flat.expand_lanes.lane.push(lane_number(*lane));
        }
    }

    fn settle(&mut self, settle: &'u Settle, unit: i32) {
        for settlement in &settle.settlements {
            self.settlement(settlement, unit);
        }
        for (lane, state) in &settle.lanes {
            self.lane_state(*lane, state, unit);
        }
        for switch_off in &settle.switch_offs {
            self.flat.switch_offs.unit.push(unit);
            self.flat.switch_offs.lane.push(lane_number(switch_off.lane));
            self.flat.switch_offs.reason.push(switch_off.reason.as_str());
        }
    }

    fn settlement(&mut self, settlement: &'u Settlement, unit: i32) {
        let wave = self.settled.entry((settlement.lane, settlement.seq)).or_default();
        *wave += 1;
        let (outcome, due) = match settlement.outcome {
            Outcome::RetryAt(due_at) => (0, Some(due_at.as_millis())),
            Outcome::Delivered => (1, None),
            Outcome::Exhausted => (2, None),
            _ => unreachable!("an outcome that this storage was not built for"),
        };
        let settlements = &mut self.flat.settlements;
        settlements.unit.push(unit);
        settlements.lane.push(lane_number(settlement.lane));
        settlements.seq.push(seq_number(settlement.seq));
        settlements.outcome.push(outcome);
        settlements.due.push(due);
        settlements.attempts.push(settlement.attempts.into());
        settlements.charged.push(settlement.charged.into());
        settlements.at.push(settlement.at.as_millis());
        settlements.status.push(settlement.status.map(i32::from));
        settlements.error.push(settlement.error.map(attempt_error));
        settlements.before.push(settlement.attempts_before().into());
        settlements.wave.push(*wave);
        let place = count(&settlements.unit);
        for attempt in &settlement.log {
            self.attempt(attempt, place);
        }
    }

    fn attempt(&mut self, attempt: &'u Attempt, settlement: i32) {
        let (attempts, timings) = (&mut self.flat.attempts, &attempt.timings);
        attempts.settlement.push(settlement);
        attempts.number.push(attempt.number.into());
        attempts.started_at.push(attempt.started_at.as_millis());
        attempts.status.push(attempt.status.map(i32::from));
        attempts.error.push(attempt.error.map(attempt_error));
        attempts.detail.push(attempt.detail.as_deref().map(str::as_bytes));
        attempts.probe.push(attempt.probe);
        attempts.charged.push(attempt.charged);
        attempts.resolve_ns.push(timings.resolve.map(encoding::duration_number));
        attempts.connect_ns.push(timings.connect.map(encoding::duration_number));
        attempts.tls_ns.push(timings.tls.map(encoding::duration_number));
        attempts.first_byte_ns.push(timings.first_byte.map(encoding::duration_number));
        attempts.total_ns.push(encoding::duration_number(timings.total));
    }

    fn lane_state(&mut self, lane: LaneId, state: &LaneState, unit: i32) {
        let states = &mut self.flat.lane_states;
        let millis = |time: Option<esl_core::Timestamp>| time.map(|time| time.as_millis());
        states.unit.push(unit);
        states.lane.push(lane_number(lane));
        states.failures.push(state.failures.into());
        states.failed_deliveries.push(state.failed_deliveries.into());
        states.failing_since.push(millis(state.failing_since));
        states.open_probes.push(state.open_probes.map(i64::from));
        states.not_before.push(millis(state.not_before));
        states.last_success_at.push(millis(state.last_success_at));
        states.exhaustion_told_at.push(millis(state.exhaustion_told_at));
    }
}

/// An epoch that is none of this storage's has a number that none has.
pub(crate) fn epoch_number(worker: &Worker) -> i32 {
    i32::try_from(worker.epoch).unwrap_or(-1)
}

/// The place of what comes at an index.
fn attempt_error(error: AttemptError) -> i16 {
    encoding::attempt_error_number(error).into()
}

fn place_of(index: usize) -> i32 {
    i32::try_from(index + 1).expect("a group is bounded")
}

fn count<T>(rows: &[T]) -> i32 {
    i32::try_from(rows.len()).expect("a group is bounded")
}
