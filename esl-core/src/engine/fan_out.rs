//! Fan-out: owing an event to very many lanes, a slice at a time.
//!
//! Which events are under way storage knows; nothing is remembered here from one slice to the next,
//! so that a crash, another engine or a change of the subscriptions makes no difference. Between two
//! slices the commits of others have their turn, and the organizations take turns, too.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    driver::Driver,
    inbox::{CommitFailure, ExpandRequest},
    lanes::LOOK_EVERY,
};
use crate::{
    LaneId, Monotonic, OrganizationId, Seq,
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
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Expands fan-outs until it is stopped.
pub(crate) async fn run(driver: Arc<Driver>, stop: CancellationToken) {
    let mut others = Others::default();
    loop {
        let wait = match expand_all(&driver, &mut others, &stop).await {
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
    others: &mut Others,
    stop: &CancellationToken,
) -> Result<Duration, Arc<StorageError>> {
    let (mut after, mut gets_on, mut wait) = (None, false, LOOK_EVERY);
    while !stop.is_cancelled() {
        match driver.storage.fan_outs(after, EVENTS_MAX, BYTES_MAX).await? {
            Some((organization, fan_outs)) => {
                after = Some(organization);
                if others.have(driver, organization, &fan_outs) {
                    continue;
                }
                if driver.lanes().has_enough(organization) {
                    wait = LOOK_AGAIN_AFTER;
                    continue;
                }
                match expand(driver, organization, fan_outs).await? {
                    Expanded::GetsOn => gets_on = true,
                    // Whoever it is to be goes on.
                    Expanded::OutOfTurn => gets_on |= !others.go_on(organization),
                    Expanded::Nothing => {}
                }
            }
            // Round to the first again.
            None if gets_on => (after, gets_on, wait) = (None, false, LOOK_EVERY),
            None => break,
        }
    }
    others.forget_old(driver.clock.monotonic());
    Ok(wait)
}

/// The organizations whose fan-outs are to be other engines', and where those stood when we looked.
#[derive(Default)]
struct Others(HashMap<OrganizationId, Standing>);

/// Where an organization's fan-outs stand that others are to expand.
#[derive(Clone, Copy)]
struct Standing {
    place: Option<(Seq, LaneId)>,
    since: Monotonic,
    seen_at: Monotonic,
    /// Nobody else has got on with them, so this engine does.
    is_taken_over: bool,
}

impl Others {
    /// Whether an organization's fan-outs are to be left to another engine: not if it has left them where
    /// they are for a while.
    fn have(&mut self, driver: &Driver, organization: OrganizationId, open: &[FanOut]) -> bool {
        if driver.lanes().peers().has_organization(organization) {
            self.0.remove(&organization);
            return false;
        }
        let now = driver.clock.monotonic();
        let place = open.first().map(|first| (first.seq, first.after));
        let fresh = Standing { place, since: now, seen_at: now, is_taken_over: false };
        let standing = self.0.entry(organization).or_insert(fresh);
        standing.seen_at = now;
        if standing.is_taken_over {
            return false;
        }
        if standing.place != place {
            *standing = fresh;
        }
        standing.is_taken_over = now.saturating_sub(standing.since) >= LOOK_EVERY;
        !standing.is_taken_over
    }

    /// Another engine has expanded some of an organization's; false if they are to be this one's.
    fn go_on(&mut self, organization: OrganizationId) -> bool {
        self.0.remove(&organization).is_some()
    }

    fn forget_old(&mut self, now: Monotonic) {
        self.0.retain(|_, standing| now.saturating_sub(standing.seen_at) < LOOK_EVERY * 4);
    }
}

/// What came of the slices of an organization.
enum Expanded {
    /// It goes on.
    GetsOn,
    /// There is nothing to be done now.
    Nothing,
    /// Another engine was quicker.
    OutOfTurn,
}

/// Commits one slice of an organization: a part of its first event, or several smaller ones.
async fn expand(
    driver: &Driver,
    organization: OrganizationId,
    fan_outs: Vec<FanOut>,
) -> Result<Expanded, Arc<StorageError>> {
    let routes = match driver.routes.get(&*driver.storage, organization, None).await {
        Ok(Some(routes)) => routes,
        Ok(None) => return Ok(Expanded::Nothing),
        // The others go on.
        Err(error) if error.kind() == StorageErrorKind::Corrupt => {
            driver.tell_of_damage(organization, &error);
            return Ok(Expanded::Nothing);
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
    let mut expanded = Expanded::Nothing;
    for answer in answers {
        match answer.await {
            Ok(Ok(())) => expanded = Expanded::GetsOn,
            Ok(Err(CommitFailure::Refused(Refused::Rerouted))) => {
                driver.routes.forget(organization);
                expanded = Expanded::GetsOn;
            }
            Ok(Err(CommitFailure::Refused(Refused::OutOfTurn))) => expanded = Expanded::OutOfTurn,
            // The organization is gone.
            Ok(Err(CommitFailure::Refused(_))) => {}
            Ok(Err(CommitFailure::Storage(error))) => return Err(error),
            Err(_stopped) => break,
        }
    }
    Ok(expanded)
}
