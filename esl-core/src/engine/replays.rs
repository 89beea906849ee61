//! Replays: opening many deliveries, step by step, at a pace and no quicker than they go out.
//!
//! Where a replay stands is storage's to know; a step opens its deliveries and moves the position in
//! one transaction, so a crash, or a second engine, repeats none of them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::driver::Driver;
use crate::{
    EventType, Monotonic, NewReplay, OrganizationId, Replay, ReplayId, ReplayNumber, ReplayOf,
    ReplayState, Seq, Subscription, SubscriptionId,
    storage::{Candidates, ReplayStep, StorageError, StorageErrorKind},
};

/// Deliveries opened in one step.
const STEP_MAX: u32 = 500;
/// Steps follow each other so quickly, at any pace that allows it.
const STEPS_PER_SECOND: u32 = 10;
/// While a receiver does not keep up, it is looked at again so often.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// What nobody told of is found within this time.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const PAGE: usize = 100;

/// Goes on with replays until it is stopped.
pub(crate) async fn run(driver: Arc<Driver>, stop: CancellationToken) {
    let mut next_steps: HashMap<ReplayId, Monotonic> = HashMap::new();
    loop {
        let wake_at = match go_on(&driver, &mut next_steps, &stop).await {
            Ok(wake_at) => wake_at,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "replay does not go on");
                driver.clock.monotonic() + AGAIN_AFTER
            }
        };
        // All arms may be dropped: they hold nothing.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = driver.replays.notified() => {}
            () = driver.clock.sleep_until(wake_at) => {}
        }
    }
}

/// Makes the steps that are due, and says when the next one is.
async fn go_on(
    driver: &Arc<Driver>,
    next_steps: &mut HashMap<ReplayId, Monotonic>,
    stop: &CancellationToken,
) -> Result<Monotonic, StorageError> {
    let mut wake_at = driver.clock.monotonic() + LOOK_EVERY;
    let mut running = HashMap::new();
    let mut after = ReplayNumber(0);
    loop {
        let page = driver.storage.running_replays(after, PAGE).await?;
        let is_last = page.len() < PAGE;
        for replay in page {
            if stop.is_cancelled() {
                return Ok(wake_at);
            }
            after = replay.number;
            let now = driver.clock.monotonic();
            let due = next_steps.get(&replay.id).copied().unwrap_or(now);
            let next = if due <= now { step(driver, &replay, due, now).await? } else { Some(due) };
            if let Some(next) = next {
                running.insert(replay.id, next);
                wake_at = wake_at.min(next);
            }
        }
        if is_last {
            break;
        }
    }
    *next_steps = running;
    Ok(wake_at)
}

/// Makes a step, if the receiver keeps up; says when the next one is due, if there is one.
async fn step(
    driver: &Arc<Driver>,
    replay: &Replay,
    due: Monotonic,
    now: Monotonic,
) -> Result<Option<Monotonic>, StorageError> {
    let Some(worker) = driver.lanes().worker() else { return Ok(Some(now + LOOK_AGAIN_AFTER)) };
    if !driver.lanes().keeps_up(replay.lane) {
        return Ok(Some(now + LOOK_AGAIN_AFTER));
    }
    let subscription =
        driver.storage.subscription(replay.organization, replay.subscription).await?;
    // Deleted: the next look finds it cancelled.
    let Some(subscription) = subscription else { return Ok(None) };
    if !subscription.is_sending() {
        return Ok(Some(now + LOOK_AGAIN_AFTER));
    }
    let per_second = replay.max_per_second.get();
    let size = (per_second / STEPS_PER_SECOND).clamp(1, STEP_MAX);
    let found = driver.storage.candidates(replay, size as usize).await?;
    if found.position == replay.position && !found.is_end {
        // Events before it are still being fanned out.
        return Ok(Some(now + LOOK_AGAIN_AFTER));
    }
    let step = ReplayStep {
        organization: replay.organization,
        replay: replay.id,
        from: replay.position,
        to: found.position,
        is_done: found.is_end,
        seqs: wanted(&replay.of, &subscription, found),
    };
    let advanced = match driver.storage.advance_replay(&worker, step).await {
        Ok(advanced) => advanced,
        // Cancelled, deleted, or another engine was quicker.
        Err(error) if error.kind() == StorageErrorKind::Conflict => return Ok(Some(now)),
        Err(error) => return Err(error),
    };
    let opened = advanced.opened - replay.opened;
    if opened > 0 {
        driver.update(|lanes| lanes.wake_retries(replay.lane));
    }
    if advanced.state == ReplayState::Running {
        let opened = u32::try_from(opened).unwrap_or(u32::MAX);
        // From when it was due, so that the pace is kept on average; but nothing is caught up that a
        // slow receiver has held back.
        let next = due.max(now.saturating_sub(LOOK_AGAIN_AFTER));
        return Ok(Some(next + Duration::from_secs(1) * opened / per_second));
    }
    tracing::info!(replay = %replay.id, opened = advanced.opened, "replay done");
    Ok(None)
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
