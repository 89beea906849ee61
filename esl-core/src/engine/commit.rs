//! Committing: one group after the other, and what follows from each.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    driver::Driver,
    inbox::{CommitFailure, Group, PublishRequest, SettleRequest},
};
use crate::{
    LaneId, OrganizationId,
    storage::{
        Committed, LaneState, Outcome, Publish, Refused, Settle, StorageError, Unit, Worker,
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
    let Group { publishes, settlements } = group;
    let settles = settle_units(&settlements);
    let settle_count = settles.len();
    let mut units: Vec<Unit> = Vec::with_capacity(publishes.len() + settle_count);
    // Settlements first: a lane's state is then older than what the publishes lead to.
    units.extend(settles.into_iter().map(Unit::settle));
    units.extend(publishes.iter().map(|request| Unit::publish(request.publish.clone())));
    match driver.storage.commit(units).await {
        Ok(mut results) => {
            let committed = results.split_off(settle_count);
            for refused in results.into_iter().filter_map(Result::err) {
                // Their lanes are another worker's by now, which makes the deliveries again.
                tracing::warn!(%refused, "settlements are void");
            }
            follow_up(driver, publishes, committed, &settlements);
            Ok(())
        }
        Err(error) => {
            fail(driver, publishes, error);
            if settlements.is_empty() { Ok(()) } else { Err(settlements) }
        }
    }
}

/// One unit for each worker that settles; more than one only around the end of an epoch.
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
        settle.settlements.push(request.settlement.clone());
        settle.switch_offs.extend(request.switch_off);
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

/// Moves what was committed into the lanes, and answers the publishers.
fn follow_up(
    driver: &Arc<Driver>,
    publishes: Vec<PublishRequest>,
    results: Vec<Result<Committed, Refused>>,
    settlements: &[SettleRequest],
) {
    let now = driver.now();
    driver.update(|lanes| {
        for request in settlements {
            let settlement = &request.settlement;
            let retry_at = match settlement.outcome {
                Outcome::RetryAt(at) => Some(at),
                Outcome::Delivered | Outcome::Exhausted => None,
            };
            lanes.settled(settlement.lane, settlement.seq, retry_at, now);
            if request.switch_off.is_some() {
                lanes.wake(settlement.lane);
            }
        }
        for (request, result) in publishes.iter().zip(&results) {
            let Ok(committed) = result else { continue };
            for (accepted, routed) in committed.events.iter().zip(&request.publish.events) {
                if !accepted.repeated {
                    lanes.committed(accepted.seq, &routed.event, &routed.lanes);
                }
            }
        }
    });
    for (request, result) in publishes.into_iter().zip(results) {
        // A publisher that has gone away was served all the same.
        let _gone = request.reply.send(result.map_err(CommitFailure::Refused));
    }
}

/// Whether the group was committed is not known: its publishers are told, and the lanes look.
fn fail(driver: &Arc<Driver>, publishes: Vec<PublishRequest>, error: StorageError) {
    tracing::error!(error = &error as &dyn std::error::Error, "commit failed");
    let error = Arc::new(error);
    driver.update(|lanes| {
        for Publish { organization, events, .. } in publishes.iter().map(|one| &one.publish) {
            look_in_storage(lanes, *organization, events.iter().flat_map(|event| &*event.lanes));
        }
    });
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
