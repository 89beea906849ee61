use std::sync::Arc;

use esl_core::{
    NewEvent, OrganizationId, SealedEvent, Timestamp, WorkerId, seal,
    storage::{
        EntityAction, EntityStep, EntityWrite, Expected, Idempotency, IndexEntry, IndexValue,
        PutEntity, RouteVersion,
    },
};

use super::{arrays::Deliveries, *};

fn organization(number: u8) -> OrganizationId {
    OrganizationId::from_bytes([number; 16])
}

fn event(of: OrganizationId, id: u8) -> Arc<SealedEvent> {
    let data = serde_json::value::to_raw_value(&1).unwrap();
    let event = NewEvent::from_raw(of, "person.updated".parse().unwrap(), data);
    Arc::new(seal(&event, EventId::from_bytes([id; 16]), Timestamp::EPOCH))
}

fn lanes(count: usize) -> Arc<[LaneId]> {
    (1..=count as u64).map(LaneId::new).collect()
}

fn publish(of: u8, events: impl IntoIterator<Item = (u8, usize)>) -> Publish {
    let of = organization(of);
    let routed = |(id, count)| Routed::new(event(of, id), lanes(count));
    Publish {
        organization: of,
        route_version: RouteVersion(7),
        events: events.into_iter().map(routed).collect(),
        idempotency: None,
        metering: None,
    }
}

fn with_key(of: u8, id: u8, key: &str) -> Unit {
    let idempotency = Idempotency { key: key.to_owned(), fingerprint: [0; 32] };
    Unit::publish(Publish { idempotency: Some(idempotency), ..publish(of, [(id, 0)]) })
}

fn worker(number: u8, epoch: u64) -> Worker {
    Worker { id: WorkerId::from_bytes([number; 16]), epoch }
}

fn settle(worker: Worker, settled: impl IntoIterator<Item = (u64, u64)>) -> Unit {
    let settlement = |(lane, seq)| Settlement {
        lane: LaneId::new(lane),
        seq: Seq::new(seq),
        outcome: Outcome::Delivered,
        attempts: 1,
        charged: 1,
        at: Timestamp::EPOCH,
        status: Some(200),
        error: None,
        log: Vec::new(),
    };
    let settlements = settled.into_iter().map(settlement).collect();
    Unit::settle(Settle { worker, settlements, lanes: Vec::new(), switch_offs: Vec::new() })
}

#[test]
fn organizations_and_workers_are_named_by_their_place_in_their_order() {
    let units = [
        Unit::publish(publish(9, [(1, 0)])),
        settle(worker(1, 5), []),
        Unit::publish(publish(3, [(1, 0)])),
        settle(worker(2, 4), []),
        Unit::publish(publish(9, [(2, 0)])),
    ];
    let flat = flatten(&units);
    assert_eq!(flat.organizations, [Id16([3; 16]), Id16([9; 16])]);
    assert_eq!(flat.units.org, [Some(2), None, Some(1), None, Some(2)]);
    assert_eq!(flat.epochs, [4, 5]);
    assert_eq!(flat.units.worker, [None, Some(2), None, Some(1), None]);
}

#[test]
fn what_comes_again_names_what_came_before() {
    let units = [
        Unit::publish(publish(1, [(1, 0), (2, 0), (1, 0)])),
        Unit::publish(publish(2, [(1, 0)])),
        Unit::publish(publish(1, [(1, 0)])),
    ];
    assert_eq!(flatten(&units).events.same, [None, None, Some(1), None, Some(3)]);

    let units = [
        with_key(1, 1, "a"),
        with_key(1, 2, "b"),
        with_key(2, 3, "a"),
        with_key(1, 4, "a"),
        with_key(1, 5, "a"),
    ];
    assert_eq!(flatten(&units).units.same, [None, None, None, Some(1), Some(4)]);

    let units =
        [settle(worker(1, 1), [(1, 1), (1, 2), (1, 1)]), settle(worker(1, 1), [(2, 1), (1, 1)])];
    assert_eq!(flatten(&units).settlements.wave, [1, 1, 2, 1, 3]);
}

#[test]
fn a_units_events_and_its_notices_are_next_to_each_other() {
    let mut metered = publish(1, [(1, 0), (2, 0)]);
    let notice = Routed::new(event(organization(1), 3), lanes(1));
    let notices = esl_core::storage::Notices {
        hour: esl_core::Hour::from_number(5),
        events: vec![(Threshold::Exceeded, notice)],
    };
    metered.metering =
        Some(Metering { limit: Limit::AtMost(10), refuses: true, notices: vec![notices] });
    let units = [Unit::default(), Unit::publish(metered), Unit::publish(publish(1, [(4, 0)]))];
    let flat = flatten(&units);
    assert_eq!(flat.units.first, [1, 1, 4]);
    assert_eq!(flat.units.last, [0, 2, 4]);
    assert_eq!(flat.units.last_notice, [0, 3, 4]);
    assert_eq!(flat.events.hour, [None, None, Some(5), None]);
    assert_eq!(flat.events.threshold, [None, None, Some(2), None]);
    assert_eq!(flat.units.limit, [None, Some(10), None]);
    assert_eq!(flat.units.warning_at, [None, Some(8), None]);
    assert_eq!(flat.units.exceeded_at, [None, Some(10), None]);
}

#[test]
fn deliveries_that_come_in_slices_are_not_sent() {
    let mut only = publish(1, [(3, 1)]);
    only.events[0].audience = Audience::Only(LaneId::new(8));
    let units = [Unit::publish(publish(1, [(1, 2), (2, FAN_OUT_ABOVE + 1)])), Unit::publish(only)];
    let flat = flatten(&units);
    assert_eq!(flat.events.large, [false, true, false]);
    assert_eq!(flat.events.deliveries, [2, 1001, 1]);
    assert_eq!(flat.events.last_lane, [Some(2), Some(1001), Some(1)]);
    assert_eq!(flat.deliveries, Deliveries { event: vec![1, 1, 3], lane: vec![1, 2, 8] });
}

#[test]
fn an_entity_is_there_once_and_its_index_goes_with_its_steps() {
    let step = |id: &str, expected, action| EntityStep {
        key: EntityKey::new("person".parse().unwrap(), id.parse().unwrap()),
        expected,
        action,
    };
    let entry = |value: u8| IndexEntry { field: "name".into(), value: IndexValue([value].into()) };
    let put = EntityAction::Put(PutEntity {
        created_at: Timestamp::from_millis(1),
        updated_at: Timestamp::from_millis(2),
        due_at: Some(Timestamp::from_millis(3)),
        document: "{}".into(),
        unindexed: vec![entry(1)],
        indexed: vec![entry(2)],
    });
    let write = |of, steps| Unit::write(EntityWrite { organization: organization(of), steps });
    let check = || EntityAction::Check;
    let mut both = write(3, vec![step("a", Expected::Unchanged(4, 5), put)]);
    both.publish = Some(publish(3, [(1, 0)]));
    let units = [
        write(9, vec![step("a", Expected::Absent, EntityAction::Delete)]),
        both,
        write(3, vec![]),
        write(3, vec![step("b", Expected::Present, EntityAction::Refer(-1))]),
        write(3, vec![step("a", Expected::Revision(6), check())]),
    ];
    let flat = flatten(&units);
    assert_eq!(flat.organizations, [Id16([3; 16]), Id16([9; 16])]);
    assert_eq!(flat.units.org, [Some(2), Some(1), Some(1), Some(1), Some(1)]);
    assert_eq!(flat.units.version, [None, Some(7), None, None, None]);
    assert_eq!(
        (&flat.entities.org[..], &flat.entities.id[..]),
        (&[2, 1, 1][..], &["a", "a", "b"][..])
    );
    assert_eq!(
        (&flat.steps.unit[..], &flat.steps.entity[..]),
        (&[1, 2, 4, 5][..], &[1, 2, 3, 2][..])
    );
    assert_eq!(flat.steps.expected, [0, 3, 1, 2]);
    assert_eq!(flat.steps.revision, [None, Some(4), None, Some(6)]);
    assert_eq!(flat.steps.version, [None, Some(5), None, None]);
    assert_eq!(
        (&flat.steps.action[..], &flat.steps.by[..]),
        (&[2, 1, 3, 0][..], &[0, 0, -1, 0][..])
    );
    assert_eq!(flat.steps.due_at, [None, Some(3), None, None]);
    assert_eq!(flat.index_entries.step, [2, 2]);
    assert_eq!(flat.index_entries.value, [&[1], &[2]]);
    assert_eq!(flat.index_entries.is_in, [false, true]);
}

#[test]
fn a_group_is_plain_if_nothing_in_it_is_out_of_the_ordinary() {
    let metered = |limit, notices: Vec<esl_core::storage::Notices>| {
        let metering = Metering { limit, refuses: true, notices };
        Unit::publish(Publish { metering: Some(metering), ..publish(1, [(9, 1)]) })
    };
    let unlike_the_first = |change: fn(&mut Publish)| {
        let mut other = publish(1, [(2, 1)]);
        change(&mut other);
        vec![Unit::publish(publish(1, [(1, 1)])), Unit::publish(other)]
    };
    let hour = esl_core::Hour::from_number(5);
    let notice = (Threshold::Warning, Routed::new(event(organization(1), 3), lanes(1)));
    let told = esl_core::storage::Notices { hour, events: vec![notice] };
    let groups = [
        (true, vec![]),
        (true, vec![Unit::publish(publish(1, [(1, 1), (2, 3)])), settle(worker(1, 1), [(1, 1)])]),
        (true, vec![Unit::publish(publish(1, [(1, 1)])), Unit::publish(publish(2, [(1, 1)]))]),
        (true, vec![metered(Limit::AtMost(5), vec![])]),
        // A key, an id that comes twice, a fan-out, an audience, an intake row.
        (false, vec![with_key(1, 1, "a")]),
        (false, vec![Unit::publish(publish(1, [(1, 1), (1, 1)]))]),
        (false, vec![Unit::publish(publish(1, [(1, FAN_OUT_ABOVE + 1)]))]),
        (
            false,
            unlike_the_first(|other| other.events[0].audience = Audience::Only(LaneId::new(1))),
        ),
        (false, unlike_the_first(|other| other.events[0].intake = Some(IntakeRow(1)))),
        // Other routes, another limit, notices.
        (false, unlike_the_first(|other| other.route_version = RouteVersion(8))),
        (false, vec![metered(Limit::AtMost(5), vec![]), metered(Limit::AtMost(6), vec![])]),
        (false, vec![metered(Limit::AtMost(5), vec![told])]),
        // Entities.
        (
            false,
            vec![Unit::write(EntityWrite { organization: organization(1), steps: Vec::new() })],
        ),
        // Of two settlements of one delivery the order counts.
        (false, vec![settle(worker(1, 1), [(1, 1), (1, 1)])]),
    ];
    for (place, (expected, units)) in groups.into_iter().enumerate() {
        assert_eq!(plain(&units).is_some(), expected, "group {place}");
    }
}

#[test]
fn of_a_plain_group_it_is_counted_by_organization() {
    let metered = |of, events: &[(u8, usize)], refuses| {
        let metering = Metering { limit: Limit::AtMost(10), refuses, notices: Vec::new() };
        let publish = publish(of, events.iter().copied());
        Unit::publish(Publish { metering: Some(metering), ..publish })
    };
    let mut retried = settle(worker(1, 1), [(7, 5)]);
    retried.settle.as_mut().unwrap().settlements[0].outcome = Outcome::Exhausted;
    let units = [
        metered(9, &[(1, 1), (2, 0)], true),
        Unit::publish(publish(3, [(3, 2)])),
        settle(worker(1, 1), [(8, 1), (4, 2), (8, 3)]),
        metered(9, &[(4, 1)], false),
        Unit::publish(publish(9, [(5, 0)])),
        retried,
    ];
    let group = plain(&units).unwrap();
    let organizations = &group.organizations;
    assert_eq!(organizations.id, [Id16([3; 16]), Id16([9; 16])]);
    assert_eq!((&organizations.events[..], &organizations.counted[..]), (&[1, 4][..], &[0, 3][..]));
    assert_eq!(organizations.limit, [None, Some(10)]);
    assert_eq!(organizations.warning_at, [None, Some(8)]);
    assert_eq!(group.events.org, [2, 2, 1, 2, 2]);
    assert_eq!(group.events.place, [1, 2, 1, 3, 4]);
    assert_eq!(group.deliveries, Deliveries { event: vec![1, 3, 3, 4], lane: vec![1, 1, 2, 1] });
    assert_eq!(group.settled_lanes.lane, [4, 8]);
    assert_eq!(
        (&group.delivered.lane[..], &group.delivered.seq[..]),
        (&[2, 1, 2][..], &[1, 2, 3][..])
    );
    // What is out of the ordinary goes the other way, in the same call.
    assert_eq!(
        (&group.rest.settlements.lane[..], &group.rest.settlements.unit[..]),
        (&[7][..], &[6][..])
    );
}

#[test]
fn the_arguments_are_those_of_the_functions() {
    let (id, number) = (Id16([0; 16]), 0);
    let (flat, plain) = (Flat::default(), Plain::default());
    for (text, function, given) in [
        (include_str!("../sql/commit.sql"), "esl.commit_1(", flat.named(&None, &id, &number)),
        (include_str!("../sql/plain.sql"), "esl.plain_commit_1(", plain.named(&None, &id, &number)),
    ] {
        let (_, text) = text.split_once(function).unwrap();
        let (text, _) = text.split_once("\n)\nRETURNS").unwrap();
        let declared = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let declared = declared.filter(|line| !line.starts_with("--"));
        let declared: Vec<_> = declared.map(|line| line.trim_end_matches(',').to_owned()).collect();
        let given: Vec<_> =
            given.iter().map(|(name, _, ty)| format!("{name} {}", spelled(ty))).collect();
        assert_eq!(given, declared);
    }
}

fn spelled(ty: &tokio_postgres::types::Type) -> String {
    if let tokio_postgres::types::Kind::Array(one) = ty.kind() {
        return format!("{}[]", spelled(one));
    }
    let names = [("int8", "bigint"), ("int4", "int"), ("int2", "smallint")];
    let known = names.iter().find(|(name, _)| *name == ty.name());
    known.map_or(ty.name(), |(_, spelled)| spelled).to_owned()
}
