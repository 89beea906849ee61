//! Replays: opening many deliveries, step by step, at a pace and no quicker than they go out.
//!
//! Where a replay stands is storage's to know; a step opens its deliveries and moves the position in
//! one transaction, so a crash, or a second engine, repeats none of them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{driver::Driver, turn::Turn};
use crate::{
    EventType, LaneId, Monotonic, NewReplay, OrganizationId, Replay, ReplayNumber, ReplayOf,
    ReplayState, Seq, Subscription, SubscriptionId,
    storage::{Candidates, ReplayStep, StorageError, StorageErrorKind, Worker},
};

/// Deliveries opened in one step.
const STEP_MAX: u32 = 500;
/// Steps follow each other so quickly, at any pace that allows it.
const STEPS_PER_SECOND: u32 = 10;
/// Candidates that are asked for at once …
const LOOK: usize = 500;
/// … and how often in one step, where few of them are wanted.
const LOOKS_MAX: u32 = 8;
/// After a step that found nothing to open, so long until the next.
const REST: Duration = Duration::from_millis(20);
/// While a receiver does not keep up, it is looked at again after this, and then ever later …
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// … up to this.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(1);
/// What nobody told of is found within this time.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const PAGE: usize = 100;

/// Goes on with replays until it is stopped.
pub(crate) async fn run(driver: Arc<Driver>, stop: CancellationToken) {
    let mut running = Running::default();
    let mut look_at = driver.clock.monotonic();
    loop {
        let now = driver.clock.monotonic();
        if look_at <= now {
            look_at = now + LOOK_EVERY;
            if let Err(error) = running.look(&driver, now).await {
                tracing::error!(error = &error as &dyn std::error::Error, "replays not read");
                look_at = now + AGAIN_AFTER;
            }
        }
        if let Some(standing) = running.next(now) {
            running.put(step(&driver, standing, now).await);
            if !stop.is_cancelled() {
                continue;
            }
        }
        let wake_at = running.first_due().map_or(look_at, |due| due.min(look_at));
        // All arms may be dropped: they hold nothing.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = driver.replays.notified() => look_at = driver.clock.monotonic(),
            () = driver.clock.sleep_until(wake_at) => {}
        }
    }
}

/// The replays that are running, and when each makes its next step. There is one to a lane at most.
#[derive(Default)]
struct Running {
    replays: HashMap<LaneId, Standing>,
    alarms: BTreeSet<(Monotonic, LaneId)>,
    /// Those that are due: organizations take turns.
    due: Turn,
}

/// Where a replay stands.
struct Standing {
    replay: Replay,
    due: Monotonic,
    /// How long it waits if its receiver does not keep up.
    patience: Duration,
}

impl Running {
    /// Takes up what was begun since, and lets go of what is over.
    async fn look(&mut self, driver: &Driver, now: Monotonic) -> Result<(), StorageError> {
        let mut before = std::mem::take(&mut self.replays);
        self.alarms.clear();
        self.due.clear();
        let mut after = ReplayNumber(0);
        loop {
            let page = match driver.storage.running_replays(after, PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    // As far as it is known, it goes on.
                    before.into_values().for_each(|standing| self.put(Some(standing)));
                    return Err(error);
                }
            };
            let is_last = page.len() < PAGE;
            for replay in page {
                after = replay.number;
                let known =
                    before.remove(&replay.lane).filter(|known| known.replay.id == replay.id);
                let due = known.as_ref().map_or(now, |known| known.due);
                let patience = known.map_or(LOOK_AGAIN_AFTER, |known| known.patience);
                self.put(Some(Standing { replay, due, patience }));
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// The next one that is due.
    fn next(&mut self, now: Monotonic) -> Option<Standing> {
        while let Some((due, lane)) = self.alarms.first().copied().filter(|(due, _)| *due <= now) {
            self.alarms.remove(&(due, lane));
            let organization = self.replays[&lane].replay.organization;
            self.due.push(organization, lane);
        }
        let lane = self.due.pop()?;
        self.replays.remove(&lane)
    }

    fn put(&mut self, standing: Option<Standing>) {
        let Some(standing) = standing else { return };
        let lane = standing.replay.lane;
        self.alarms.insert((standing.due, lane));
        self.replays.insert(lane, standing);
    }

    fn first_due(&self) -> Option<Monotonic> {
        self.alarms.first().map(|(due, _)| *due)
    }
}

/// Makes a step, if the receiver keeps up; gives where the replay stands then, unless it is over.
async fn step(driver: &Arc<Driver>, standing: Standing, now: Monotonic) -> Option<Standing> {
    let Standing { replay, due, patience } = standing;
    match try_step(driver, &replay, due, now).await {
        Ok(Stepped::On(replay, due)) => Some(Standing { replay, due, patience: LOOK_AGAIN_AFTER }),
        Ok(Stepped::Over(replay)) => {
            let Replay { id, state, opened, .. } = replay;
            tracing::info!(replay = %id, state = state.as_str(), opened, "replay over");
            None
        }
        Ok(Stepped::NotYet) => {
            driver.update(|lanes| lanes.see_to(replay.lane, patience == LOOK_AGAIN_MAX));
            let patience_next = (patience * 2).min(LOOK_AGAIN_MAX);
            Some(Standing { replay, due: now + patience, patience: patience_next })
        }
        // Its subscription was deleted.
        Ok(Stepped::Gone) => None,
        Err(error) => {
            tracing::error!(
                replay = %replay.id,
                error = &error as &dyn std::error::Error,
                "replay does not go on"
            );
            Some(Standing { replay, due: now + AGAIN_AFTER, patience })
        }
    }
}

/// What came of a step.
enum Stepped {
    /// It goes on then.
    On(Replay, Monotonic),
    Over(Replay),
    /// Nothing can be opened now.
    NotYet,
    Gone,
}

async fn try_step(
    driver: &Arc<Driver>,
    replay: &Replay,
    due: Monotonic,
    now: Monotonic,
) -> Result<Stepped, StorageError> {
    let worker = {
        let lanes = driver.lanes();
        lanes.worker().filter(|_| lanes.keeps_up(replay.lane))
    };
    let Some(worker) = worker else { return Ok(Stepped::NotYet) };
    let subscription =
        driver.storage.subscription(replay.organization, replay.subscription).await?;
    let Some(subscription) = subscription else { return Ok(Stepped::Gone) };
    if !subscription.is_sending() {
        return Ok(Stepped::NotYet);
    }
    let step = next_step(driver, replay, &subscription).await?;
    if step.to == replay.position && !step.is_done {
        // Events before it are still being fanned out.
        return Ok(Stepped::NotYet);
    }
    let Some(advanced) = advance(driver, &worker, step).await? else {
        // Cancelled, or another engine was quicker.
        let replay = driver.storage.replay(replay.organization, replay.id).await?;
        return Ok(match replay {
            Some(replay) if replay.state == ReplayState::Running => Stepped::On(replay, now + REST),
            Some(replay) => Stepped::Over(replay),
            None => Stepped::Gone,
        });
    };
    let opened = advanced.opened - replay.opened;
    if opened > 0 {
        driver.update(|lanes| lanes.wake_retries(replay.lane));
    }
    if advanced.state != ReplayState::Running {
        return Ok(Stepped::Over(advanced));
    }
    if opened == 0 {
        return Ok(Stepped::On(advanced, now + REST));
    }
    let opened = u32::try_from(opened).unwrap_or(u32::MAX);
    // From when it was due, so that the pace is kept on average; but nothing is caught up that a
    // slow receiver has held back.
    let from = due.max(now.saturating_sub(LOOK_AGAIN_AFTER));
    let next = from + Duration::from_secs(1) * opened / replay.max_per_second.get();
    Ok(Stepped::On(advanced, next))
}

/// Finds what is opened next: as much as the pace allows, or as there is in a few looks.
async fn next_step(
    driver: &Driver,
    replay: &Replay,
    subscription: &Subscription,
) -> Result<ReplayStep, StorageError> {
    let size = (replay.max_per_second.get() / STEPS_PER_SECOND).clamp(1, STEP_MAX) as usize;
    let mut step = ReplayStep {
        organization: replay.organization,
        replay: replay.id,
        from: replay.position,
        to: replay.position,
        is_done: false,
        seqs: Vec::new(),
    };
    let mut from = replay.clone();
    for _ in 0..LOOKS_MAX {
        let found = driver.storage.candidates(&from, LOOK).await?;
        let (position, is_end) = (found.position, found.is_end);
        let wanted = wanted(&replay.of, subscription, found);
        let fit = size - step.seqs.len();
        step.seqs.extend(wanted.iter().take(fit));
        if wanted.len() > fit {
            step.to = *step.seqs.last().expect("it is full");
            break;
        }
        let gets_on = position > step.to;
        (step.to, step.is_done, from.position) = (position, is_end, position);
        if is_end || !gets_on || step.seqs.len() == size {
            break;
        }
    }
    Ok(step)
}

/// `None` if the replay does not stand where the step begins.
async fn advance(
    driver: &Driver,
    worker: &Worker,
    step: ReplayStep,
) -> Result<Option<Replay>, StorageError> {
    match driver.storage.advance_replay(worker, step).await {
        Ok(advanced) => Ok(Some(advanced)),
        Err(error) if error.kind() == StorageErrorKind::Conflict => Ok(None),
        Err(error) => Err(error),
    }
}

/// What of the candidates the replay sends.
fn wanted(of: &ReplayOf, subscription: &Subscription, found: Candidates) -> Vec<Seq> {
    let is_wanted = |event_type: &EventType| match of {
        ReplayOf::Missing => subscription.wants(event_type),
        ReplayOf::Deliveries { .. } => true,
    };
    let events = found.events.into_iter();
    events.filter(|(_, event_type)| is_wanted(event_type)).map(|(seq, _)| seq).collect()
}

/// Counts what a replay would open now; `None` if there is no such subscription.
pub(crate) async fn count(
    driver: &Driver,
    (organization, id): (OrganizationId, SubscriptionId),
    new: NewReplay,
) -> Result<Option<u64>, StorageError> {
    let Some(subscription) = driver.storage.subscription(organization, id).await? else {
        return Ok(None);
    };
    let mut replay =
        Replay::new(driver.ids.replay(), organization, id, new, subscription.created_at);
    replay.lane = subscription.lane;
    let routes = driver.storage.routes(organization).await?;
    replay.range.to = replay.range.to.min(routes.map_or(Seq::ZERO, |routes| routes.last_seq));
    let mut count = 0;
    loop {
        let found = driver.storage.candidates(&replay, usize::MAX).await?;
        let (is_end, position) = (found.is_end, found.position);
        count += wanted(&replay.of, &subscription, found).len() as u64;
        if is_end || position == replay.position {
            return Ok(Some(count));
        }
        replay.position = position;
    }
}
