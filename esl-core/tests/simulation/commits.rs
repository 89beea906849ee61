//! What the oracle says of each commit, at the moment when it takes place.

use std::collections::BTreeMap;

use esl_core::{
    DeliveryId, LaneId, Seq,
    storage::{
        Accepted, Audience, Committed, Expand, Outcome, Publish, Records as _, Refused, Routed,
        Settlement, Unit,
    },
};

use crate::{
    ledger::{FanOutSeen, Ledger},
    world::{World, at_once},
};

/// How deliveries stand before a commit that settles them.
pub(crate) type Before = Vec<Option<Standing>>;

/// A delivery, as far as settling changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    is_open: bool,
    attempts: u32,
    logged: Vec<(u32, bool)>,
}

fn settlements(units: &[Unit]) -> impl Iterator<Item = (usize, &Settlement)> {
    units.iter().enumerate().flat_map(|(index, unit)| {
        unit.settle
            .iter()
            .flat_map(move |settle| settle.settlements.iter().map(move |one| (index, one)))
    })
}

pub(crate) fn before(world: &World, units: &[Unit]) -> Before {
    settlements(units).map(|(_, one)| standing(world, one.lane, one.seq)).collect()
}

fn standing(world: &World, lane: LaneId, seq: Seq) -> Option<Standing> {
    let (organization, event) = {
        let ledger = world.ledger();
        (ledger.lanes.get(&lane)?.organization, ledger.deliveries.get(&(lane, seq))?.event)
    };
    let id = DeliveryId::new(event, seq, lane);
    let (delivery, log) = at_once(world.truth.delivery(organization, id)).ok()??;
    let logged = log.iter().map(|attempt| (attempt.number, attempt.charged)).collect();
    Some(Standing { is_open: delivery.state.is_open(), attempts: delivery.attempts, logged })
}

/// Looks at what a commit has made of its units.
pub(crate) fn look(
    world: &World,
    units: &[Unit],
    before: &Before,
    results: &[Result<Committed, Refused>],
) {
    for (unit, result) in units.iter().zip(results) {
        if let (Some(expand), Ok(committed)) = (&unit.expand, result) {
            expanded(world, expand, committed);
        }
        let Some(publish) = &unit.publish else { continue };
        match result {
            Ok(committed) => published(world, publish, committed),
            Err(refused) => refused_rightly(world, publish, refused),
        }
    }
    // A group may settle a delivery twice: its first attempt, whose commit has failed, and its second.
    let mut expected: BTreeMap<(LaneId, Seq), Standing> = BTreeMap::new();
    for ((index, settlement), before) in settlements(units).zip(before) {
        let delivery = (settlement.lane, settlement.seq);
        let Some(before) = expected.get(&delivery).or(before.as_ref()).cloned() else {
            world.violation(format_args!("settled what nobody owes: {settlement:?}"));
            continue;
        };
        let is_settled = results[index].is_ok()
            && before.is_open
            && before.attempts <= settlement.attempts_before()
            && !world.ledger().lanes[&settlement.lane].is_deleted;
        let after = if is_settled { settled(world, settlement, before) } else { before };
        expected.insert(delivery, after);
    }
    for ((lane, seq), expected) in expected {
        let after = standing(world, lane, seq);
        if after.as_ref() != Some(&expected) {
            world.violation(format_args!(
                "{}/{} should be {expected:?}, and is {after:?}",
                lane.get(),
                seq.get()
            ));
        }
    }
}

fn published(world: &World, publish: &Publish, committed: &Committed) {
    let organization = publish.organization;
    for (routed, accepted) in publish.events.iter().zip(&committed.events) {
        if accepted.repeated {
            let known =
                world.ledger().organizations[&organization].committed.get(&accepted.id).copied();
            if known != Some(accepted.seq) {
                world.violation(format_args!(
                    "{accepted:?} repeats what was never there: {known:?}"
                ));
            }
        } else {
            stored(world, publish, routed, accepted);
        }
    }
    let new = committed.events.iter().filter(|accepted| !accepted.repeated).count() as u64;
    if let Some(metering) = &publish.metering {
        for (threshold, accepted) in &committed.notices {
            let notice = committed.usage.and_then(|usage| {
                metering.told_in(usage.hour).find(|(carried, _)| carried == threshold)
            });
            match notice {
                Some((_, routed)) => stored(world, publish, routed, accepted),
                None => {
                    world.violation(format_args!("a notice that nobody has sealed: {accepted:?}"))
                }
            }
        }
    }
    let limit = world.ledger().organizations[&organization].limit;
    let counts = publish.events.iter().any(|routed| !routed.event.event_type.is_system());
    if let (Some(limit), true, true) = (limit, counts, new > 0) {
        let Some(usage) = committed.usage else {
            return world.violation(format_args!("{new} events of {organization} do not count"));
        };
        let used = {
            let mut ledger = world.ledger();
            let tenant = ledger.organizations.get_mut(&organization).unwrap();
            let used = tenant.used.entry(usage.hour).or_default();
            *used += new;
            *used
        };
        let refuses = publish.metering.as_ref().is_some_and(|metering| metering.refuses);
        if used != usage.events {
            world.violation(format_args!("{organization} has used {used}, not {usage:?}"));
        } else if used > limit && refuses {
            world.violation(format_args!("{organization} has published {used} of {limit}"));
        }
    }
}

fn stored(world: &World, publish: &Publish, routed: &Routed, accepted: &Accepted) {
    let organization = publish.organization;
    let event_type = &routed.event.event_type;
    world.count("events");
    let mut problems = Vec::new();
    let mut fanned_out = false;
    {
        let mut ledger = world.ledger();
        let mut expected = ledger.routed(organization, event_type);
        match routed.audience {
            Audience::Matching => {}
            Audience::Except(other) => expected.retain(|lane| *lane != other),
            Audience::Only(lane) => expected = vec![lane],
        }
        if *routed.lanes != *expected {
            problems.push(format!("{event_type} goes to {:?}, not {expected:?}", routed.lanes));
        }
        let tenant = ledger.organizations.get_mut(&organization).unwrap();
        tenant.last_seq += 1;
        if accepted.seq.get() != tenant.last_seq {
            problems.push(format!("{accepted:?} should be number {}", tenant.last_seq));
        }
        tenant.ids.insert(accepted.seq, accepted.id);
        if tenant.committed.insert(accepted.id, accepted.seq).is_some() {
            problems.push(format!("{accepted:?} was stored twice"));
        }
        let is_large = publish.is_large() || routed.lanes.len() > world.fan_out_above;
        let except = match routed.audience {
            Audience::Except(lane) => Some(lane),
            Audience::Matching | Audience::Only(_) => None,
        };
        match routed.lanes.last() {
            Some(last) if !is_only(routed) && (is_large || !tenant.fan_outs.is_empty()) => {
                let fan_out = FanOutSeen {
                    event: accepted.id,
                    event_type: event_type.clone(),
                    last: *last,
                    except,
                    after: LaneId::new(0),
                };
                tenant.fan_outs.insert(accepted.seq, fan_out);
                fanned_out = true;
            }
            Some(_) | None => {
                // One that passes open fan-outs has no place in the order of the others.
                let generation = u32::from(!tenant.fan_outs.is_empty());
                for lane in &*routed.lanes {
                    ledger.owe(*lane, accepted.seq, accepted.id, generation);
                }
            }
        }
    }
    if accepted.fanned_out != fanned_out {
        problems.push(format!("{accepted:?} is to be fanned out: {fanned_out}"));
    }
    world.count(if fanned_out { "fan-outs" } else { "events owed at once" });
    if !fanned_out {
        routed.lanes.iter().for_each(|_| world.count("deliveries"));
    }
    problems.into_iter().for_each(|problem| world.violation(format_args!("{problem}")));
}

fn is_only(routed: &Routed) -> bool {
    matches!(routed.audience, Audience::Only(_))
}

/// A slice is of the first fan-out that is open, and for the lanes that are next there.
fn expanded(world: &World, slice: &Expand, committed: &Committed) {
    world.count("slices");
    let mut problems = Vec::new();
    let mut ledger = world.ledger();
    let fan_outs = &ledger.organizations[&slice.organization].fan_outs;
    let Some((seq, fan_out)) = fan_outs.first_key_value().map(|(seq, it)| (*seq, it.clone()))
    else {
        drop(ledger);
        return world.violation(format_args!("nothing is open for {slice:?}"));
    };
    let mut left = ledger.routed(slice.organization, &fan_out.event_type);
    left.retain(|lane| {
        *lane > fan_out.after && *lane <= fan_out.last && Some(*lane) != fan_out.except
    });
    let next = left.get(..slice.lanes.len());
    let has_more = left.len() > slice.lanes.len();
    let is_right = (seq, fan_out.after) == (slice.seq, slice.after)
        && next == Some(&*slice.lanes)
        && slice.next == slice.lanes.last().copied().filter(|_| has_more);
    if !is_right {
        problems.push(format!("{slice:?} of {fan_out:?}, with {left:?} left"));
    }
    let is_erased = ledger.erased.contains(&(slice.organization, fan_out.event));
    if committed.is_cancelled != is_erased {
        problems.push(format!("{slice:?} should be cancelled: {is_erased}"));
    }
    for lane in &*slice.lanes {
        ledger.owe(*lane, seq, fan_out.event, 0);
        let owed = ledger.deliveries.get_mut(&(*lane, seq)).unwrap();
        owed.is_open = !is_erased;
    }
    let fan_outs = &mut ledger.organizations.get_mut(&slice.organization).unwrap().fan_outs;
    match slice.next {
        Some(next) => fan_outs.get_mut(&seq).unwrap().after = next,
        None => drop(fan_outs.remove(&seq)),
    }
    drop(ledger);
    slice.lanes.iter().for_each(|_| world.count("deliveries"));
    problems.into_iter().for_each(|problem| world.violation(format_args!("{problem}")));
}

fn refused_rightly(world: &World, publish: &Publish, refused: &Refused) {
    let Refused::OverLimit(usage) = refused else { return };
    let ledger = world.ledger();
    let tenant = &ledger.organizations[&publish.organization];
    let used = tenant.used.get(&usage.hour).copied().unwrap_or_default();
    let asked = publish.events.len() as u64;
    let is_right = tenant.limit.is_some_and(|limit| used + asked > limit) && used == usage.events;
    drop(ledger);
    if !is_right {
        world.violation(format_args!("refused {asked} events with {used} used, {usage:?}"));
    }
}

/// Says how a delivery stands after a settlement.
fn settled(world: &World, settlement: &Settlement, before: Standing) -> Standing {
    let tries = u32::try_from(settlement.log.len()).unwrap();
    let is_first = tries == 0 && settlement.outcome == Outcome::Delivered;
    let charged = settlement.log.iter().filter(|attempt| attempt.charged).count();
    // Of a success at the first try nothing is logged; only if it was a probe it is not charged.
    let charged = u32::try_from(charged).unwrap() + settlement.charged.min(u32::from(is_first));
    let mut ledger = world.ledger();
    let problems = tally(&mut ledger, settlement, &before, (tries + u32::from(is_first), charged));
    drop(ledger);
    for problem in problems {
        world.violation(format_args!("{problem}: {settlement:?} after {before:?}"));
    }
    let mut after = before;
    after.is_open = matches!(settlement.outcome, Outcome::RetryAt(_));
    after.attempts = settlement.attempts;
    after.logged.extend(settlement.log.iter().map(|attempt| (attempt.number, attempt.charged)));
    let is_numbered = after.logged.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0);
    let last = after.logged.last().map_or(after.attempts, |(number, _)| *number);
    if !is_numbered || last != after.attempts {
        world.violation(format_args!("attempts are not numbered one after the other: {after:?}"));
    }
    after
}

/// Counts a settlement; says what is wrong with it.
fn tally(
    ledger: &mut Ledger,
    settlement: &Settlement,
    before: &Standing,
    (tries, charged): (u32, u32),
) -> Vec<String> {
    let mut problems = Vec::new();
    let retries = ledger.lanes[&settlement.lane].retries;
    let owed = ledger.deliveries.get_mut(&(settlement.lane, settlement.seq)).unwrap();
    owed.charged += charged;
    owed.gone += u32::from(settlement.status == Some(410));
    if settlement.attempts != before.attempts + tries {
        problems.push(format!("{tries} more attempts are not {}", settlement.attempts));
    }
    if settlement.charged != owed.charged {
        problems.push(format!("{} attempts were charged", owed.charged));
    }
    let most = 1 + retries.1 + owed.gone;
    let too_few = settlement.outcome == Outcome::Exhausted && owed.charged <= retries.0;
    if owed.charged > most || too_few {
        problems.push(format!("{} attempts of {retries:?} retries", owed.charged));
    }
    owed.is_open = matches!(settlement.outcome, Outcome::RetryAt(_));
    let sends = owed.sends.clone();
    for attempt in &settlement.log {
        let was_sent = sends.iter().any(|index| ledger.sends[*index].attempt == attempt.number);
        if !was_sent {
            problems.push(format!("attempt {} was never made", attempt.number));
        }
    }
    if settlement.outcome == Outcome::Delivered {
        let accepted = sends.iter().rev().copied().find(|index| {
            let send = &ledger.sends[*index];
            send.attempt == settlement.attempts && send.is_accepted
        });
        match accepted {
            Some(index) => ledger.sends[index].is_settled = true,
            None => problems.push("delivered, and nobody has taken it".to_owned()),
        }
    }
    problems
}
