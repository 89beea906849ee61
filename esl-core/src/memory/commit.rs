use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    MemoryStorage, State,
    changes::HandleId,
    rows::{EventRow, FanOutRow, IdempotencyRow, OrganizationRow},
};
use crate::{
    Action, Actor, Crossed, EventId, LaneId, SealedEvent, Seq, Subscription, Timestamp, Usage,
    storage::{
        Accepted, Audience, Change, Commit, Committed, Expand, Outcome, Publish, Refused, Routed,
        Settle, Settlement, StorageError, SwitchOff, Unit,
        encoding::{Ending, Standing},
    },
};

/// For how long a repetition under an idempotency key is known as one.
pub(super) const IDEMPOTENCY_AGE: Duration = Duration::from_secs(24 * 60 * 60);

#[async_trait]
impl Commit for MemoryStorage {
    async fn commit(
        &self,
        units: Vec<Unit>,
    ) -> Result<Vec<Result<Committed, Refused>>, StorageError> {
        let mut state = self.state();
        Ok(units.into_iter().map(|unit| state.commit(unit, self.handle)).collect())
    }
}

/// Where an event of a unit belongs.
#[derive(Clone, Copy)]
enum Place {
    New(Seq),
    /// An event of that id is there already.
    Known(Accepted),
}

/// An event under an id, as far as telling it from another goes.
#[derive(Clone, Copy)]
struct Known {
    accepted: Accepted,
    digest: Option<[u8; 16]>,
}

impl State {
    fn commit(&mut self, unit: Unit, by: HandleId) -> Result<Committed, Refused> {
        let now = self.now();
        // All checks come before the first write, so a refusal leaves nothing behind.
        if let Some(publish) = &unit.publish
            && let Some(answer) = self.repeated_answer(publish, now)?
        {
            return Ok(Committed { events: answer, ..Committed::default() });
        }
        if let Some(settle) = &unit.settle
            && !self.is_running(&settle.worker, now)
        {
            return Err(Refused::StaleEpoch);
        }
        if let Some(expand) = &unit.expand {
            self.demand_turn(expand)?;
        }
        let placed =
            unit.publish.map(|publish| self.places(&publish).map(|places| (publish, places)));
        let placed = placed.transpose()?;
        if let Some(write) = &unit.entities {
            self.demand_expected(write)?;
        }
        let metered = placed.as_ref().map(|(publish, places)| self.meter(publish, places, now));
        let metered = metered.transpose()?.flatten();

        if let Some(settle) = unit.settle {
            self.settle(settle, now, by);
        }
        if let Some(write) = unit.entities {
            self.write(&write, by);
        }
        let is_cancelled = unit.expand.is_some_and(|expand| self.expand(&expand, now, by));
        let mut committed = Committed { is_cancelled, ..Committed::default() };
        if let Some((mut publish, places)) = placed {
            let organization = publish.organization;
            let metering = publish.metering.take();
            committed.events = self.store(publish, &places, now, by);
            if let (Some((usage, crossed)), Some(metering)) = (metered, metering) {
                let row = self.organizations.get_mut(&organization).expect("the unit was checked");
                row.usage = usage;
                committed.usage = Some(usage);
                for (threshold, notice) in metering.told_in(usage.hour) {
                    if crossed.has(*threshold) {
                        let seq = self.organizations[&organization].last_seq.next();
                        let accepted = self.store_event(notice, seq, (now, by), false);
                        committed.notices.push((*threshold, accepted));
                    }
                }
            }
        }
        Ok(committed)
    }

    /// What its organization has used with a unit, and the thresholds that it comes to with that.
    fn meter(
        &self,
        publish: &Publish,
        places: &[Place],
        now: Timestamp,
    ) -> Result<Option<(Usage, Crossed)>, Refused> {
        let Some(metering) = &publish.metering else { return Ok(None) };
        let before = self.organizations[&publish.organization].usage.at(now);
        let new = places.iter().filter(|place| matches!(place, Place::New(_))).count();
        metering.meter(before, new).map(Some)
    }

    /// The answer that was given under the unit's idempotency key.
    fn repeated_answer(
        &self,
        publish: &Publish,
        now: Timestamp,
    ) -> Result<Option<Vec<Accepted>>, Refused> {
        let organization = self
            .organizations
            .get(&publish.organization)
            .ok_or(Refused::UnknownOrganization(publish.organization))?;
        let Some(idempotency) = &publish.idempotency else { return Ok(None) };
        let used = organization.idempotency_keys.get(&idempotency.key);
        let Some(used) = used.filter(|used| !used.is_expired(now)) else { return Ok(None) };
        if used.fingerprint != idempotency.fingerprint {
            return Err(Refused::IdempotencyConflict);
        }
        Ok(Some(
            used.answer
                .iter()
                .map(|first| Accepted { repeated: true, fanned_out: false, ..*first })
                .collect(),
        ))
    }

    /// One place for each event of the unit.
    fn places(&self, publish: &Publish) -> Result<Vec<Place>, Refused> {
        let organization = &self.organizations[&publish.organization];
        if organization.route_version != publish.route_version {
            return Err(Refused::Rerouted);
        }
        let mut in_this_unit = BTreeMap::new();
        let mut last_seq = organization.last_seq;
        let mut places = Vec::with_capacity(publish.events.len());
        for routed in &publish.events {
            let event = &routed.event;
            let known = in_this_unit.get(&event.id).copied();
            let known = known.or_else(|| self.known(event));
            places.push(match known {
                None if routed.intake.is_some_and(|row| !self.intake.has(row, event)) => {
                    return Err(Refused::IntakeGone(event.id));
                }
                None => {
                    last_seq = last_seq.next();
                    in_this_unit.insert(event.id, Known::new(routed, last_seq));
                    Place::New(last_seq)
                }
                // Whoever committed the intake row is not there to be told of a conflict.
                Some(known) if known.is(event) || routed.intake.is_some() => {
                    Place::Known(known.accepted)
                }
                Some(_) => return Err(Refused::EventConflict(event.id)),
            });
        }
        Ok(places)
    }

    fn known(&self, event: &SealedEvent) -> Option<Known> {
        let seq = self.events_by_id.get(&(event.organization, event.id))?;
        let row = &self.organizations[&event.organization].events[seq];
        let accepted = Accepted {
            id: event.id,
            seq: *seq,
            deliveries: row.deliveries,
            repeated: true,
            fanned_out: false,
        };
        Some(Known { accepted, digest: row.event.digest })
    }

    fn store(
        &mut self,
        publish: Publish,
        places: &[Place],
        now: Timestamp,
        by: HandleId,
    ) -> Vec<Accepted> {
        let mut answer = Vec::with_capacity(places.len());
        let is_large = publish.is_large();
        for (routed, place) in publish.events.iter().zip(places) {
            if let Some(row) = routed.intake {
                self.intake.remove(row, &routed.event);
            }
            answer.push(match place {
                Place::New(seq) => self.store_event(routed, *seq, (now, by), is_large),
                Place::Known(accepted) => *accepted,
            });
        }
        if let Some(idempotency) = publish.idempotency {
            let row = IdempotencyRow {
                fingerprint: idempotency.fingerprint,
                used_at: now,
                answer: answer.clone(),
            };
            let organization = self.organizations.get_mut(&publish.organization);
            let organization = organization.expect("the unit was checked");
            organization.idempotency_keys.insert(idempotency.key, row);
        }
        answer
    }

    fn store_event(
        &mut self,
        routed: &Routed,
        seq: Seq,
        (now, by): (Timestamp, HandleId),
        is_large_unit: bool,
    ) -> Accepted {
        let event = &routed.event;
        let organization = self.organizations.get_mut(&event.organization);
        let organization = organization.expect("the unit was checked");
        let deliveries = deliveries(routed);
        organization.last_seq = seq;
        let audience = routed.audience;
        let row = EventRow { event: event.clone(), deliveries, audience, erased_at: None };
        organization.events.insert(seq, row);
        self.events_by_id.insert((event.organization, event.id), seq);
        let is_large = is_large_unit || routed.lanes.len() > self.fan_out_above;
        let fanned_out = organization.fans_out(routed, is_large);
        if let Some(row) = &fanned_out {
            let is_first = organization.fan_outs.is_empty();
            organization.fan_outs.insert(seq, *row);
            if is_first {
                self.listeners.tell_others(by, Change::FanOuts);
            }
        } else if let Audience::Only(lane) = routed.audience {
            self.owe(event, seq, &[lane], now, by);
            let row = self.lanes.get_mut(&lane).expect("it was there just now");
            row.set_standing(seq, Standing::RetryAt(now));
        } else {
            self.owe(event, seq, &routed.lanes, now, by);
        }
        let fanned_out = fanned_out.is_some();
        Accepted { id: event.id, seq, deliveries, repeated: false, fanned_out }
    }

    fn owe(
        &mut self,
        event: &SealedEvent,
        seq: Seq,
        lanes: &[LaneId],
        now: Timestamp,
        by: HandleId,
    ) {
        for lane in lanes {
            let row = self.lanes.get_mut(lane);
            let row = row.expect("a current route version names only lanes that are there");
            row.owe(seq, event.timestamp);
        }
        // Whoever owns a lane of the event cannot see what came through another handle.
        if lanes.iter().any(|lane| !self.is_owned_through(*lane, by, now)) {
            self.listeners.tell_others(by, Change::Lanes);
        }
    }

    /// Refuses a slice that is not next.
    fn demand_turn(&self, expand: &Expand) -> Result<(), Refused> {
        let organization = self.organizations.get(&expand.organization);
        let organization = organization.ok_or(Refused::UnknownOrganization(expand.organization))?;
        let first = organization.fan_outs.first_key_value();
        if first.is_none_or(|(seq, row)| *seq != expand.seq || row.after != expand.after) {
            return Err(Refused::OutOfTurn);
        }
        if organization.route_version != expand.route_version {
            return Err(Refused::Rerouted);
        }
        Ok(())
    }

    /// Owes the event to the lanes of a slice that was checked; true if it was erased, and so is not owed.
    fn expand(&mut self, expand: &Expand, now: Timestamp, by: HandleId) -> bool {
        let organization = self.organizations.get_mut(&expand.organization);
        let organization = organization.expect("the unit was checked");
        match expand.next {
            Some(next) => {
                let row = organization.fan_outs.get_mut(&expand.seq);
                row.expect("the unit was checked").after = next;
            }
            None => drop(organization.fan_outs.remove(&expand.seq)),
        }
        let is_erased = organization.is_erased(expand.seq);
        let event = Arc::clone(&organization.events[&expand.seq].event);
        self.owe(&event, expand.seq, &expand.lanes, now, by);
        if is_erased {
            for lane in &*expand.lanes {
                let row = self.lanes.get_mut(lane).expect("it was there just now");
                row.set_standing(expand.seq, Standing::Closed(Ending::Cancelled, now));
            }
        }
        is_erased
    }

    fn is_owned_through(&self, lane: LaneId, handle: HandleId, now: Timestamp) -> bool {
        let owner = self.lanes[&lane].owner.filter(|owner| self.is_running(owner, now));
        owner.is_some_and(|owner| self.workers[&owner.id].handle == handle)
    }

    fn settle(&mut self, settle: Settle, now: Timestamp, by: HandleId) {
        for settlement in settle.settlements {
            self.settle_delivery(settlement);
        }
        for (lane, state) in settle.lanes {
            if let Some(row) = self.lanes.get_mut(&lane) {
                row.state = state;
            }
        }
        for switch_off in settle.switch_offs {
            self.switch_off(switch_off, now, by);
        }
    }

    fn settle_delivery(&mut self, settlement: Settlement) {
        let Some(lane) = self.lanes.get_mut(&settlement.lane) else { return };
        let Some(row) = lane.deliveries.get_mut(&settlement.seq) else { return };
        // The deletion of its subscription has closed it, whether or not its row says so yet.
        let was_settled_before = row.attempts > settlement.attempts_before();
        if !row.is_open() || lane.deleted_at.is_some() || was_settled_before {
            return;
        }
        row.attempts = settlement.attempts;
        row.charged = settlement.charged;
        row.last_status = settlement.status.or(row.last_status);
        row.last_error = settlement.error;
        row.log.extend(settlement.log);
        let standing = match settlement.outcome {
            Outcome::Delivered => Standing::Closed(Ending::Delivered, settlement.at),
            Outcome::RetryAt(due_at) => Standing::RetryAt(due_at),
            Outcome::Exhausted => Standing::Closed(Ending::Exhausted, settlement.at),
        };
        lane.set_standing(settlement.seq, standing);
    }

    fn switch_off(&mut self, switch_off: SwitchOff, now: Timestamp, by: HandleId) {
        let lane = self.lanes.get_mut(&switch_off.lane);
        // One that a person has paused meanwhile stays paused by that person.
        let Some(lane) = lane.filter(|lane| !lane.is_deleted()) else { return };
        let updated = lane.subscription.switched_off(switch_off.reason, now);
        if updated == lane.subscription {
            return;
        }
        lane.subscription = Subscription { updated_at: now, ..updated };
        let Subscription { organization, id, .. } = lane.subscription;
        self.note(organization, &Actor::System, Action::SubscriptionUpdated, &id, &["active"]);
        self.listeners.tell_others(by, Change::Subscriptions(organization));
    }
}

impl OrganizationRow {
    /// What is kept of an event whose deliveries come to be later.
    fn fans_out(&self, routed: &Routed, is_large: bool) -> Option<FanOutRow> {
        let except = match routed.audience {
            Audience::Only(_) => return None,
            Audience::Except(lane) => Some(lane),
            Audience::Matching => None,
        };
        let last = *routed.lanes.last()?;
        let after = LaneId::new(0);
        (is_large || !self.fan_outs.is_empty()).then_some(FanOutRow { after, last, except })
    }
}

impl Known {
    fn new(routed: &Routed, seq: Seq) -> Self {
        let id: EventId = routed.event.id;
        let accepted =
            Accepted { id, seq, deliveries: deliveries(routed), repeated: true, fanned_out: false };
        Self { accepted, digest: routed.event.digest }
    }

    /// Whether it is this event, and not another one under the same id.
    fn is(&self, event: &SealedEvent) -> bool {
        self.digest == event.digest
    }
}

impl IdempotencyRow {
    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        now.since(self.used_at) >= IDEMPOTENCY_AGE
    }
}

fn deliveries(routed: &Routed) -> u32 {
    u32::try_from(routed.lanes.len()).expect("an organization has fewer lanes")
}
