//! What must hold when everything has come to rest.

use std::collections::BTreeMap;

use esl_core::{
    DeliveryId, DeliveryState, EventId, LaneId, OrganizationId, PublishError, Published,
    ReplayNumber, Seq,
    storage::{Lanes as _, Page, Records as _, Replays as _, Subscriptions as _},
};

use crate::{
    ledger::{Ledger, Owed, PublishCall},
    world::{World, at_once},
};

/// Whether nothing is left to be done.
pub(crate) fn is_at_rest(world: &World) -> bool {
    let open: Vec<LaneId> = {
        let ledger = world.ledger();
        if ledger.publishes.iter().any(|call| {
            call.result.is_none()
                && ledger.epochs.values().any(|it| it.node == call.node && !it.is_over)
        }) || fan_outs(&ledger) > 0
        {
            return false;
        }
        let mut open: Vec<LaneId> = ledger
            .deliveries
            .iter()
            .filter(|(_, owed)| owed.is_open)
            .map(|((lane, _), _)| *lane)
            .collect();
        open.dedup();
        open
    };
    let is_replaying = running_replays(world) > 0;
    !is_replaying && open.into_iter().all(|lane| !is_sending(world, lane))
}

fn is_sending(world: &World, lane: LaneId) -> bool {
    let (organization, id) = {
        let ledger = world.ledger();
        let lane = &ledger.lanes[&lane];
        (lane.organization, lane.id)
    };
    let found = at_once(world.truth.subscription(organization, id)).unwrap();
    found.is_some_and(|subscription| subscription.is_sending())
}

/// Those that are not expanded.
fn fan_outs(ledger: &Ledger) -> usize {
    ledger.organizations.values().map(|tenant| tenant.fan_outs.len()).sum()
}

/// Those that can go on.
fn running_replays(world: &World) -> usize {
    let running = at_once(world.truth.running_replays(ReplayNumber(0), 1000)).unwrap();
    running.iter().filter(|replay| is_sending(world, replay.lane)).count()
}

pub(crate) fn judge(world: &World, nodes: &[usize]) {
    let mut problems = Vec::new();
    let organizations: Vec<OrganizationId> = world.ledger().organizations.keys().copied().collect();
    for organization in organizations {
        let numbers = events(world, organization, &mut problems);
        publishes(world, organization, &numbers, nodes, &mut problems);
    }
    deliveries(world, &mut problems);
    let replays = running_replays(world);
    if replays > 0 {
        problems.push(format!("{replays} replays do not end"));
    }
    let fan_outs = fan_outs(&world.ledger());
    if fan_outs > 0 {
        problems.push(format!("{fan_outs} fan-outs do not end"));
    }
    let intake = at_once(world.truth.intake(None, 10, &[])).unwrap().len();
    if intake > 0 {
        problems.push(format!("{intake} rows of the intake are left"));
    }
    let under_way = world.ledger().sends.iter().filter(|send| send.is_under_way).count();
    if under_way > 0 {
        problems.push(format!("{under_way} sends do not end"));
    }
    for problem in problems {
        world.violation(format_args!("{problem}"));
    }
}

/// The numbers in the data of what is stored, and where they are.
fn events(
    world: &World,
    organization: OrganizationId,
    problems: &mut Vec<String>,
) -> BTreeMap<u64, (EventId, Seq)> {
    let page = Page { after: None, limit: 1_000_000 };
    let stored = at_once(world.truth.events(organization, None, page)).unwrap().items;
    let ledger = world.ledger();
    let tenant = &ledger.organizations[&organization];
    if stored.len() as u64 != tenant.last_seq {
        problems.push(format!("{} events are stored, not {}", stored.len(), tenant.last_seq));
    }
    let mut numbers = BTreeMap::new();
    for (event, seq) in stored.iter().rev().zip(1..) {
        if event.seq.get() != seq || tenant.committed.get(&event.id) != Some(&event.seq) {
            problems.push(format!("{} is number {}, not {seq}", event.id, event.seq.get()));
        }
        let is_erased = ledger.erased.contains(&(organization, event.id));
        if event.erased_at.is_some() != is_erased {
            problems.push(format!("{} should be erased: {is_erased}", event.id));
        }
        let body: serde_json::Value = serde_json::from_slice(&event.body).unwrap();
        if let Some(number) = body["data"]["n"].as_u64()
            && let Some((other, _)) = numbers.insert(number, (event.id, event.seq))
        {
            problems.push(format!("{} and {other} are both number {number}", event.id));
        }
    }
    numbers
}

/// What each caller was told is so.
fn publishes(
    world: &World,
    organization: OrganizationId,
    numbers: &BTreeMap<u64, (EventId, Seq)>,
    nodes: &[usize],
    problems: &mut Vec<String>,
) {
    let ledger = world.ledger();
    let mut answers: BTreeMap<&str, (&PublishCall, &Vec<Published>)> = BTreeMap::new();
    let calls = || ledger.publishes.iter().filter(|call| call.organization == organization);
    for call in calls() {
        match &call.result {
            None if nodes.contains(&call.node) => {
                problems.push(format!("a publish has never come back: {call:?}"));
            }
            None => {}
            Some(Ok(published)) => {
                for (number, one) in call.numbers.iter().zip(published) {
                    let is_erased = ledger.erased.contains(&(organization, one.id));
                    let found = numbers.get(number);
                    if found != Some(&(one.id, one.seq)) && !is_erased {
                        problems.push(format!("{one:?} was acknowledged, and there is {found:?}"));
                    }
                }
                let is_in_order = published.windows(2).all(|two| two[0].seq.next() == two[1].seq);
                let is_fresh = call.ids.iter().all(Option::is_none);
                if published.len() != call.numbers.len() || (is_fresh && !is_in_order) {
                    problems.push(format!("a batch is not one: {call:?}"));
                }
                let Some(key) = &call.idempotency else { continue };
                let (first, answer) = answers.entry(&key.key).or_insert((call, published));
                let is_same = first.idempotency == call.idempotency && *answer == published;
                if !is_same {
                    problems.push(format!("{call:?} was answered otherwise than {first:?}"));
                }
            }
            Some(Err(error)) if is_refusal(error) => {
                let may_be = |number: &u64| {
                    calls().any(|other| {
                        let refused =
                            matches!(&other.result, Some(Err(error)) if is_refusal(error));
                        other.numbers.contains(number) && !refused
                    })
                };
                let is_there = |number: &&u64| numbers.contains_key(number) && !may_be(number);
                if let Some(number) = call.numbers.iter().find(is_there) {
                    problems.push(format!("{number} was refused ({error}), and is stored"));
                }
            }
            Some(Err(_)) => {}
        }
    }
}

/// Whether it is certain that nothing was committed.
fn is_refusal(error: &PublishError) -> bool {
    !matches!(error, PublishError::Stopped | PublishError::Storage(_))
}

/// Everything that is owed has come to an end, or waits for a reason.
fn deliveries(world: &World, problems: &mut Vec<String>) {
    let owed: Vec<(LaneId, Seq, EventId)> = {
        let ledger = world.ledger();
        ledger.deliveries.iter().map(|((lane, seq), owed)| (*lane, *seq, owed.event)).collect()
    };
    for (lane, seq, event) in owed {
        let organization = world.ledger().lanes[&lane].organization;
        let id = DeliveryId::new(event, seq, lane);
        let Some((delivery, _)) = at_once(world.truth.delivery(organization, id)).unwrap() else {
            problems.push(format!("{}/{} is owed, and not there", lane.get(), seq.get()));
            continue;
        };
        let is_sending = is_sending(world, lane);
        let ledger = world.ledger();
        let owed = &ledger.deliveries[&(lane, seq)];
        let taken = |owed: &Owed| owed.sends.iter().any(|index| ledger.sends[*index].is_accepted);
        let is_deleted = ledger.lanes[&lane].is_deleted;
        let is_erased = ledger.erased.contains(&(organization, event));
        let is_right = match delivery.state {
            DeliveryState::Pending => false,
            DeliveryState::Held => !is_sending,
            DeliveryState::Delivered => taken(owed),
            DeliveryState::Exhausted => !owed.sends.is_empty(),
            DeliveryState::Cancelled => is_deleted || is_erased,
            _ => false,
        };
        if !is_right {
            problems.push(format!("{}/{} is stuck or wrong: {delivery:?}", lane.get(), seq.get()));
        }
    }
}
