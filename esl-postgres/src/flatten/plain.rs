//! Groups of the kind that nearly all are of, as the arrays that `esl.plain_commit_1` takes: new events under no
//! key, for the lanes that were found for them, and what became of deliveries. The server decides such a group
//! as a whole, in a few statements in place of some for each unit.

use std::{
    collections::{BTreeMap, HashSet},
    sync::LazyLock,
};

use esl_core::{
    EventId, LaneId, Limit, OrganizationId, Threshold,
    storage::{
        Audience, FAN_OUT_ABOVE, Metering, Outcome, Publish, RouteVersion, Settle, Settlement, Unit,
    },
};
use tokio_postgres::types::{ToSql, Type};

use super::{
    Flat, Flattening,
    arrays::{Argument, Deliveries, arrays, call},
    count, place_of,
};
use crate::{
    id::Id16,
    parameters::Typed,
    rows::{lane_number, saturated, seq_number},
};

/// The statement that commits a plain group, with its arguments by their names.
pub(crate) static PLAIN_COMMIT: LazyLock<String> = LazyLock::new(|| {
    let plain = Plain::default();
    let columns = "is_plain, lasts, hours, used";
    call(columns, "plain_commit_1", &plain.named(&None, &Id16([0; 16]), &0))
});

/// Puts units into arrays, if all of them are plain.
pub(crate) fn plain(units: &[Unit]) -> Option<Plain<'_>> {
    let organizations = organizations(units)?;
    let settles = || units.iter().filter_map(|unit| unit.settle.as_ref());
    let mut settled = HashSet::new();
    let mut is_first = |one: &Settlement| settled.insert((one.lane, one.seq));
    let is_plain = |settle: &Settle| settle.switch_offs.is_empty();
    if !settles().all(|settle| is_plain(settle) && settle.settlements.iter().all(&mut is_first)) {
        return None;
    }
    let mut plain = Plain { rest: Flattening::new(units).flat, ..Plain::default() };
    let places: BTreeMap<Id16, usize> = organizations.keys().copied().zip(0..).collect();
    for (id, organization) in organizations {
        plain.organizations.push(id, &organization);
    }
    let mut events = vec![0; places.len()];
    for publish in units.iter().filter_map(|unit| unit.publish.as_ref()) {
        let place = places[&Id16::from(publish.organization)];
        plain.publish(publish, place_of(place), &mut events[place]);
    }
    if plain.events.digest.iter().all(Option::is_none) {
        plain.events.digest.clear();
    }
    if plain.events.changes.iter().all(Option::is_none) {
        plain.events.changes.clear();
    }
    plain.settle(units);
    Some(plain)
}

/// The organizations that are published to; `None` if something of it is not plain.
fn organizations(units: &[Unit]) -> Option<BTreeMap<Id16, Organization>> {
    let mut organizations: BTreeMap<Id16, Organization> = BTreeMap::new();
    let mut events: HashSet<(OrganizationId, EventId)> = HashSet::new();
    for unit in units {
        if unit.expand.is_some() || unit.entities.is_some() {
            return None;
        }
        let Some(publish) = &unit.publish else { continue };
        if publish.idempotency.is_some() || publish.is_large() {
            return None;
        }
        for routed in &publish.events {
            let is_new = events.insert((publish.organization, routed.event.id));
            let is_plain = matches!(routed.audience, Audience::Matching)
                && routed.intake.is_none()
                && routed.lanes.len() <= FAN_OUT_ABOVE;
            if !is_new || !is_plain {
                return None;
            }
        }
        let entry = organizations.entry(publish.organization.into());
        let organization = entry.or_insert_with(|| Organization::new(publish.route_version));
        if !organization.add(publish) {
            return None;
        }
    }
    Some(organizations)
}

/// An organization, as a plain group has it.
struct Organization {
    version: RouteVersion,
    events: usize,
    /// Of them those that count.
    counted: usize,
    limit: Option<Limit>,
    /// Whether there is a unit that is refused if the limit is too low.
    refuses: bool,
}

impl Organization {
    const fn new(version: RouteVersion) -> Self {
        Self { version, events: 0, counted: 0, limit: None, refuses: false }
    }

    /// Adds a unit; false if it does not go with the others.
    fn add(&mut self, publish: &Publish) -> bool {
        self.events += publish.events.len();
        if let Some(Metering { limit, refuses, notices }) = &publish.metering {
            self.counted += publish.events.len();
            self.refuses |= refuses;
            let is_same = self.limit.is_none_or(|known| known == *limit);
            if !is_same || notices.iter().any(|notices| !notices.events.is_empty()) {
                return false;
            }
            self.limit = Some(*limit);
        }
        self.version == publish.route_version
    }
}

arrays! {
    Organizations, "o_" {
        id: Id16,
        version: i64,
        events: i64,
        counted: i64,
        limit: Option<i64>,
        warning_at: Option<i64>,
        exceeded_at: Option<i64>,
    }
}

arrays! {
    Events<'u>, "e_" {
        org: i32,
        place: i64,
        id: Id16,
        event_type: &'u str,
        at: i64,
        digest: Option<&'u [u8]>,
        body: &'u [u8],
        changes: Option<&'u [u8]>,
        deliveries: i64,
    }
}

arrays! {
    /// The lanes of what was delivered at its first try.
    SettledLanes, "g_" {
        lane: i64,
    }
}

arrays! {
    /// What was delivered at its first try.
    Delivered, "t_" {
        lane: i32,
        seq: i64,
        at: i64,
        status: Option<i32>,
    }
}

/// A plain group.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plain<'u> {
    pub(super) organizations: Organizations,
    pub(super) events: Events<'u>,
    pub(super) deliveries: Deliveries,
    pub(super) settled_lanes: SettledLanes,
    pub(super) delivered: Delivered,
    /// Of which there are here the workers, other settlements, and the states of lanes.
    pub(super) rest: Flat<'u>,
}

impl Organizations {
    fn push(&mut self, id: Id16, organization: &Organization) {
        let limit = organization.limit.unwrap_or(Limit::Unlimited);
        self.id.push(id);
        self.version.push(organization.version.0.cast_signed());
        self.events.push(saturated(organization.events as u64));
        self.counted.push(saturated(organization.counted as u64));
        self.limit.push(limit.get().filter(|_| organization.refuses).map(saturated));
        self.warning_at.push(Threshold::Warning.of(limit).map(saturated));
        self.exceeded_at.push(Threshold::Exceeded.of(limit).map(saturated));
    }
}

impl<'u> Plain<'u> {
    /// Adds a unit of an organization, which has so many events already.
    fn publish(&mut self, publish: &'u Publish, organization: i32, events: &mut i64) {
        for routed in &publish.events {
            let event = &routed.event;
            *events += 1;
            self.events.org.push(organization);
            self.events.place.push(*events);
            self.events.id.push(event.id.into());
            self.events.event_type.push(event.event_type.as_str());
            self.events.at.push(event.timestamp.as_millis());
            self.events.digest.push(event.digest.as_ref().map(|digest| &digest[..]));
            self.events.body.push(&event.body);
            self.events.changes.push(event.changes.as_deref());
            self.events.deliveries.push(saturated(routed.lanes.len() as u64));
            let place = count(&self.events.org);
            for lane in &*routed.lanes {
                self.deliveries.event.push(place);
                self.deliveries.lane.push(lane_number(*lane));
            }
        }
    }

    fn settle(&mut self, units: &'u [Unit]) {
        let settlements = || {
            units.iter().zip(1..).flat_map(|(unit, place)| {
                let settlements = unit.settle.iter().flat_map(|settle| &settle.settlements);
                settlements.map(move |settlement| (settlement, place))
            })
        };
        let delivered = settlements().map(|(settlement, _)| settlement).filter(|one| is_usual(one));
        let mut lanes: Vec<LaneId> = delivered.map(|settlement| settlement.lane).collect();
        lanes.sort_unstable();
        lanes.dedup();
        self.settled_lanes.lane = lanes.iter().copied().map(lane_number).collect();
        let mut rest = Flattening::from(std::mem::take(&mut self.rest));
        for (settlement, unit) in settlements() {
            if !is_usual(settlement) {
                rest.settlement(settlement, unit);
                continue;
            }
            let place = lanes.binary_search(&settlement.lane).expect("the lanes of all are there");
            self.delivered.lane.push(place_of(place));
            self.delivered.seq.push(seq_number(settlement.seq));
            self.delivered.at.push(settlement.at.as_millis());
            self.delivered.status.push(settlement.status.map(i32::from));
        }
        for (unit, place) in units.iter().zip(1..) {
            for (lane, state) in unit.settle.iter().flat_map(|settle| &settle.lanes) {
                rest.lane_state(*lane, state, place);
            }
        }
        self.rest = rest.flat;
    }

    /// The arguments of the call, in the order of [`PLAIN_COMMIT`].
    pub(crate) fn arguments<'a>(
        &'a self,
        now: &'a Option<i64>,
        handle: &'a Id16,
        number: &'a i64,
    ) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
        let named = self.named(now, handle, number);
        named.into_iter().map(|(_, value, ty)| (value, ty)).collect()
    }

    pub(super) fn named<'a>(
        &'a self,
        now: &'a Option<i64>,
        handle: &'a Id16,
        number: &'a i64,
    ) -> Vec<Argument<'a>> {
        let mut arguments: Vec<Argument<'a>> = vec![
            ("p_now", now, Type::INT8),
            ("p_handle", handle, Type::UUID),
            ("p_number", number, Type::INT8),
        ];
        self.organizations.arguments(&mut arguments);
        arguments.push(("p_workers", &self.rest.workers, Type::UUID_ARRAY));
        arguments.push(("p_epochs", &self.rest.epochs, Type::INT4_ARRAY));
        self.events.arguments(&mut arguments);
        self.deliveries.arguments(&mut arguments);
        self.settled_lanes.arguments(&mut arguments);
        self.delivered.arguments(&mut arguments);
        self.rest.settlements.arguments(&mut arguments);
        self.rest.attempts.arguments(&mut arguments);
        self.rest.lane_states.arguments(&mut arguments);
        arguments
    }
}

/// Whether it was delivered at its first try, of which nothing is kept but that.
fn is_usual(settlement: &Settlement) -> bool {
    settlement.outcome == Outcome::Delivered
        && settlement.attempts == 1
        && settlement.log.is_empty()
        && settlement.error.is_none()
}
