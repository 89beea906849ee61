//! Committing: one group after the other, and what follows from each.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    driver::Driver,
    inbox::{CommitFailure, ExpandRequest, Group, PublishRequest, SettleRequest},
    lanes::Owed,
    publish::{PublishError, Terms, route},
};
use crate::{
    LaneId, OrganizationId,
    storage::{
        Accepted, Audience, Committed, LaneState, Outcome, Publish, Refused, Routed, Settle,
        StorageError, Unit, Worker,
    },
};

/// After a failed commit, settlements wait this long for the next try.
const SETTLE_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// So often a last commit is tried while the engine stops.
const LAST_TRIES: u32 = 3;

/// Commits what comes into the inbox, until it is closed and empty.
pub(crate) async fn run(driver: Arc<Driver>) {
    let _guard = AbandonOnDrop(Arc::clone(&driver));
    let mut failures = 0;
    while let Some(group) = driver.inbox.next(&*driver.clock).await {
        match commit(&driver, group).await {
            Ok(()) => failures = 0,
            Err(open) => {
                failures += 1;
                let is_stopping = driver.abort.is_cancelled();
                if is_stopping && failures >= LAST_TRIES {
                    // They are made again by whoever has the lanes next.
                    tracing::error!(count = open.len(), "stopping with settlements not committed");
                    continue;
                }
                let now = driver.clock.monotonic();
                driver.clock.sleep_until(now + SETTLE_AGAIN_AFTER).await;
                driver.inbox.settle_again(open, driver.clock.monotonic());
            }
        }
    }
}

/// Without a committer nobody may wait for one, however it ended.
struct AbandonOnDrop(Arc<Driver>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.inbox.abandon();
    }
}

/// Commits a group; gives back the settlements that are still open when storage failed.
async fn commit(driver: &Arc<Driver>, group: Group) -> Result<(), Vec<SettleRequest>> {
    let Group { publishes, expands, settlements } = group;
    let told = match tell(driver, &settlements).await {
        Ok(told) => told,
        Err(error) => {
            fail(driver, publishes, expands, &[], error);
            return Err(settlements);
        }
    };
    let settles = settle_units(&settlements);
    let settle_count = settles.len();
    let count = told.len() + settle_count + expands.len() + publishes.len();
    let mut units: Vec<Unit> = Vec::with_capacity(count);
    // Settlements first: a lane's state is then older than what the publishes lead to.
    units.extend(told.iter().map(|told| told.unit.clone()));
    units.extend(settles.into_iter().map(Unit::settle));
    units.extend(expands.iter().map(|request| Unit::expand(request.expand.clone())));
    units.extend(publishes.iter().map(PublishRequest::unit));
    let has_events = !publishes.is_empty() || !told.is_empty();
    // In this order, so that whoever sees what it leads to sees that it has begun.
    let number = driver.commits.fetch_add(1, Ordering::SeqCst) + 1;
    match driver.storage.commit(units).await {
        Ok(mut results) => {
            if has_events {
                driver.committed.notify_one();
            }
            driver.lanes().answer(number);
            let committed = results.split_off(told.len() + settle_count + expands.len());
            let expanded = results.split_off(told.len() + settle_count);
            for refused in results.iter().filter_map(|result| result.as_ref().err()) {
                if *refused != Refused::Rerouted {
                    // Their lanes are another worker's by now, which makes the deliveries again.
                    tracing::warn!(%refused, "settlements are void");
                }
            }
            results.truncate(told.len());
            expanded_all(driver, expands, expanded);
            let again = follow_up(driver, publishes, committed, settlements, (told, results));
            if !again.is_empty() {
                driver.inbox.settle_again(again, driver.clock.monotonic());
            }
            Ok(())
        }
        Err(error) => {
            fail(driver, publishes, expands, &told, error);
            if settlements.is_empty() { Ok(()) } else { Err(settlements) }
        }
    }
}

/// Moves slices that were committed into the lanes, and answers whoever waits for them.
fn expanded_all(
    driver: &Arc<Driver>,
    requests: Vec<ExpandRequest>,
    results: Vec<Result<Committed, Refused>>,
) {
    if requests.is_empty() {
        return;
    }
    driver.update(|lanes| {
        for (request, result) in requests.iter().zip(&results) {
            if let Ok(committed) = result {
                lanes.expanded(&request.expand, &request.event, committed.is_cancelled);
            }
        }
    });
    for (request, result) in requests.into_iter().zip(results) {
        let result = result.map(drop).map_err(CommitFailure::Refused);
        // Whoever asked may have stopped; the slice stands all the same.
        let _gone = request.reply.send(result);
    }
}

/// A settlement that ESL tells an organization of: both are one unit.
struct Told {
    /// Which of the settlements.
    index: usize,
    unit: Unit,
}

/// Routes what organizations are to be told.
async fn tell(driver: &Driver, requests: &[SettleRequest]) -> Result<Vec<Told>, Arc<StorageError>> {
    let mut told = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        let Some(first) = request.notices.first() else { continue };
        let organization = first.event.organization;
        let events: Vec<_> =
            request.notices.iter().map(|notice| (Arc::clone(&notice.event), None)).collect();
        let publish = match route(driver, organization, &events, Terms::FREE, None).await {
            Ok(mut publish) => {
                for (routed, notice) in publish.events.iter_mut().zip(&request.notices) {
                    let others = routed.lanes.iter().filter(|lane| **lane != notice.about);
                    routed.lanes = others.copied().collect();
                    routed.audience = Audience::Except(notice.about);
                }
                Some(publish)
            }
            Err(PublishError::Storage(error)) => return Err(error),
            // The organization was deleted: nobody is left to be told.
            Err(_) => None,
        };
        let settle = Settle {
            worker: request.worker,
            settlements: vec![request.settlement.clone()],
            lanes: Vec::new(),
            switch_offs: request.switch_off.into_iter().collect(),
        };
        let mut unit = Unit::settle(settle);
        unit.publish = publish;
        told.push(Told { index, unit });
    }
    Ok(told)
}

/// One unit for each worker that settles; more than one only around the end of an epoch. The states
/// of all lanes are in it, also where a settlement is told of in a unit of its own.
fn settle_units(requests: &[SettleRequest]) -> Vec<Settle> {
    let mut units: Vec<(Settle, HashMap<LaneId, LaneState>)> = Vec::new();
    let find = |units: &[(Settle, _)], worker: Worker| {
        units.iter().rposition(|(settle, _)| settle.worker == worker)
    };
    for request in requests {
        let index = find(&units, request.worker).unwrap_or_else(|| {
            let settlements = Vec::with_capacity(requests.len());
            let worker = request.worker;
            let settle = Settle { worker, settlements, lanes: Vec::new(), switch_offs: Vec::new() };
            units.push((settle, HashMap::new()));
            units.len() - 1
        });
        let (settle, states) = &mut units[index];
        if request.notices.is_empty() {
            settle.settlements.push(request.settlement.clone());
            settle.switch_offs.extend(request.switch_off);
        }
        if let Some(state) = request.lane_state {
            states.insert(request.settlement.lane, state);
        }
    }
    let with_lanes = |(mut settle, states): (Settle, HashMap<_, _>)| {
        settle.lanes = states.into_iter().collect();
        settle.lanes.sort_unstable_by_key(|(lane, _)| *lane);
        settle
    };
    units.into_iter().map(with_lanes).collect()
}

/// Moves what was committed into the lanes, and answers the publishers. Gives back the settlements
/// whose notices are to be routed anew.
fn follow_up(
    driver: &Arc<Driver>,
    publishes: Vec<PublishRequest>,
    results: Vec<Result<Committed, Refused>>,
    settlements: Vec<SettleRequest>,
    (told, told_results): (Vec<Told>, Vec<Result<Committed, Refused>>),
) -> Vec<SettleRequest> {
    let now = driver.now();
    let told_of = || told.iter().zip(&told_results);
    let rerouted: HashSet<usize> = told_of()
        .filter(|(_, result)| matches!(result, Err(Refused::Rerouted)))
        .map(|(told, _)| told.index)
        .collect();
    let mut again = Vec::new();
    let mut fans_out = false;
    driver.update(|lanes| {
        for (index, request) in settlements.into_iter().enumerate() {
            if rerouted.contains(&index) {
                driver.routes.forget(request.notices[0].event.organization);
                again.push(request);
                continue;
            }
            let settlement = &request.settlement;
            let retry_at = match settlement.outcome {
                Outcome::RetryAt(at) => Some(at),
                Outcome::Delivered | Outcome::Exhausted => None,
            };
            let delivery = (settlement.lane, settlement.seq, request.hold);
            lanes.settled(&request.worker, delivery, retry_at, now);
            if request.switch_off.is_some() {
                lanes.switched_off(settlement.lane);
            }
        }
        let units =
            told_of().filter_map(|(told, result)| Some((told.unit.publish.as_ref()?, result)));
        let units = units.chain(publishes.iter().map(|request| &request.publish).zip(&results));
        for (publish, result) in units {
            let Ok(committed) = result else { continue };
            if let Some(usage) = committed.usage {
                driver.usages.committed(publish.organization, usage);
            }
            let events = committed.events.iter().zip(&publish.events);
            for (accepted, routed) in events.chain(notices_of(publish, committed)) {
                if accepted.repeated {
                    continue;
                }
                let owed = match routed.audience {
                    Audience::Only(_) => Owed::Aside,
                    Audience::Matching | Audience::Except(_) if accepted.fanned_out => {
                        Owed::InSlices
                    }
                    Audience::Matching | Audience::Except(_) => Owed::Now(&routed.lanes),
                };
                lanes.committed(accepted.seq, &routed.event, owed);
                if let Audience::Only(lane) = routed.audience {
                    lanes.wake_retries(lane);
                }
                fans_out |= accepted.fanned_out;
            }
        }
    });
    if fans_out {
        driver.fan_outs.notify_one();
    }
    for (request, result) in publishes.into_iter().zip(results) {
        // A publisher that has gone away was served all the same.
        let _gone = request.reply.send(result.map_err(CommitFailure::Refused));
    }
    again
}

/// What was stored of a unit's notices.
fn notices_of<'a>(
    publish: &'a Publish,
    committed: &'a Committed,
) -> impl Iterator<Item = (&'a Accepted, &'a Routed)> {
    committed.notices.iter().filter_map(move |(threshold, accepted)| {
        let metering = publish.metering.as_ref()?;
        let (_, routed) =
            metering.told_in(committed.usage?.hour).find(|(carried, _)| carried == threshold)?;
        Some((accepted, routed))
    })
}

/// Whether the group was committed is not known: its publishers are told, and the lanes look.
fn fail(
    driver: &Arc<Driver>,
    publishes: Vec<PublishRequest>,
    expands: Vec<ExpandRequest>,
    told: &[Told],
    error: impl Into<Arc<StorageError>>,
) {
    let error = error.into();
    tracing::error!(error = &*error as &dyn std::error::Error, "commit failed");
    let told = told.iter().filter_map(|told| told.unit.publish.as_ref());
    driver.update(|lanes| {
        let publishes = publishes.iter().map(|one| &one.publish);
        for Publish { organization, events, metering, .. } in publishes.chain(told) {
            let notices = metering.iter().flat_map(|metering| &metering.notices);
            let notices = notices.flat_map(|notices| &notices.events).map(|(_, notice)| notice);
            let events = events.iter().chain(notices);
            look_in_storage(lanes, *organization, events.flat_map(|event| &*event.lanes));
        }
        for ExpandRequest { expand, .. } in &expands {
            look_in_storage(lanes, expand.organization, expand.lanes.iter());
        }
    });
    for request in expands {
        let _gone = request.reply.send(Err(CommitFailure::Storage(Arc::clone(&error))));
    }
    // What was committed after all may have begun fan-outs.
    driver.fan_outs.notify_one();
    for request in publishes {
        let _gone = request.reply.send(Err(CommitFailure::Storage(Arc::clone(&error))));
    }
}

fn look_in_storage<'a>(
    lanes: &mut super::lanes::Lanes,
    organization: OrganizationId,
    routed: impl Iterator<Item = &'a LaneId>,
) {
    lanes.spill_organization(organization);
    for lane in routed {
        lanes.wake(*lane);
    }
}
