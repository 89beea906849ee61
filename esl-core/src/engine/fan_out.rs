//! Fan-out: owing an event to very many lanes, a slice at a time.
//!
//! Which events are under way storage knows; nothing is remembered here from one slice to the next,
//! so that a crash, another engine or a change of the subscriptions makes no difference. Between two
//! slices the commits of others have their turn, and the organizations take turns, too.

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    driver::Driver,
    inbox::{CommitFailure, ExpandRequest},
};
use crate::{
    OrganizationId,
    storage::{Expand, FanOut, Refused, StorageError, StorageErrorKind},
};

/// Lanes in a slice.
pub(crate) const SLICE: usize = 250;
/// Events that are looked at for a slice …
const EVENTS_MAX: usize = 64;
/// … and the bytes of their bodies, beyond the first.
const BYTES_MAX: usize = 256 * 1024;
/// While an organization has enough in hand, it is looked at again so often.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);
/// What nobody told of is found within this time.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Expands fan-outs until it is stopped.
pub(crate) async fn run(driver: Arc<Driver>, stop: CancellationToken) {
    loop {
        let wait = match expand_all(&driver, &stop).await {
            Ok(wait) => wait,
            Err(error) => {
                tracing::error!(error = &*error as &dyn std::error::Error, "fan-out not expanded");
                AGAIN_AFTER
            }
        };
        let next = driver.clock.monotonic() + wait;
        // All arms may be dropped: they hold nothing.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = driver.fan_outs.notified() => {}
            () = driver.clock.sleep_until(next) => {}
        }
    }
}

/// Goes round the organizations that have fan-outs, a slice each, until none is left or none of them
/// gets on; says when to look again. One that has enough in hand is passed over, so that its deliveries
/// go out from memory and leave room there for those of others.
async fn expand_all(
    driver: &Driver,
    stop: &CancellationToken,
) -> Result<Duration, Arc<StorageError>> {
    let (mut after, mut gets_on, mut wait) = (None, false, LOOK_EVERY);
    while !stop.is_cancelled() {
        match driver.storage.fan_outs(after, EVENTS_MAX, BYTES_MAX).await? {
            Some((organization, fan_outs)) => {
                after = Some(organization);
                if driver.lanes().has_enough(organization) {
                    wait = LOOK_AGAIN_AFTER;
                } else {
                    gets_on |= expand(driver, organization, fan_outs).await?;
                }
            }
            // Round to the first again.
            None if gets_on => (after, gets_on, wait) = (None, false, LOOK_EVERY),
            None => break,
        }
    }
    Ok(wait)
}

/// Commits one slice of an organization: a part of its first event, or several smaller ones. Says
/// whether that is reason to go on.
async fn expand(
    driver: &Driver,
    organization: OrganizationId,
    fan_outs: Vec<FanOut>,
) -> Result<bool, Arc<StorageError>> {
    let routes = match driver.routes.get(&*driver.storage, organization, None).await {
        Ok(Some(routes)) => routes,
        Ok(None) => return Ok(false),
        // The others go on.
        Err(error) if error.kind() == StorageErrorKind::Corrupt => {
            driver.tell_of_damage(organization, &error);
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    };
    let mut room = driver.slice;
    let (mut requests, mut answers) = (Vec::new(), Vec::new());
    for fan_out in fan_outs {
        let (lanes, has_more) = routes.rest(&fan_out, room);
        room -= lanes.len();
        let (reply, answer) = oneshot::channel();
        let expand = Expand {
            organization,
            seq: fan_out.seq,
            route_version: routes.version(),
            after: fan_out.after,
            next: lanes.last().copied().filter(|_| has_more),
            lanes,
        };
        requests.push(ExpandRequest { expand, event: fan_out.event, reply });
        answers.push(answer);
        if room == 0 {
            break;
        }
    }
    driver.inbox.expand(requests);
    let mut gets_on = false;
    for answer in answers {
        match answer.await {
            Ok(Ok(())) => gets_on = true,
            Ok(Err(CommitFailure::Refused(Refused::Rerouted))) => {
                driver.routes.forget(organization);
                gets_on = true;
            }
            // Another engine was quicker, or the organization is gone.
            Ok(Err(CommitFailure::Refused(_))) => {}
            Ok(Err(CommitFailure::Storage(error))) => return Err(error),
            Err(_stopped) => break,
        }
    }
    Ok(gets_on)
}
