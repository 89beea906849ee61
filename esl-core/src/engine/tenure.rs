//! Tenure: the worker's epoch, and looking round for lanes that have work.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    driver::Driver,
    lanes::{LOOK_EVERY, Lanes},
};
use crate::{
    Monotonic, WorkerId,
    storage::{Change, EPOCH, Renewed, StorageError, StorageErrorKind, Worker},
};

const RENEW_EVERY: Duration = Duration::from_secs(5);
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK_REST: Duration = Duration::from_millis(200);
const LOOK_PAGE: usize = 1000;
/// So many lanes are let go of in a second, so that they are taken elsewhere as quickly.
const HANDED_OVER_MAX: usize = 256;
const SWEEP_EVERY: Duration = Duration::from_secs(60);
const SWEEP_SLICE: usize = 500;

/// Begins the worker's first epoch.
pub(crate) async fn enlist(driver: &Arc<Driver>, id: WorkerId) -> Result<(), StorageError> {
    let asked_at = driver.clock.monotonic();
    let (worker, renewed) = driver.storage.enlist(id, driver.tenure).await?;
    follow_renewal(driver, worker, renewed, asked_at);
    driver.poll.notify_one();
    Ok(())
}

/// An epoch has begun or goes on, as storage says that was asked for it then.
fn follow_renewal(driver: &Arc<Driver>, worker: Worker, renewed: Renewed, asked_at: Monotonic) {
    driver.time.follow(renewed.at, asked_at);
    if driver.lead(renewed.leads) != renewed.leads {
        tracing::debug!(leads = renewed.leads, "who does the chores has changed");
    }
    let peers = driver.update(|lanes| lanes.extend_epoch(worker, asked_at + EPOCH, renewed.peers));
    if let Some(engines) = peers {
        tracing::debug!(engines, "the engines that share the lanes have changed");
        driver.handover.notify_one();
        // What one that is gone was to have may be this one's.
        driver.poll.notify_one();
    }
}

/// After each change of the engines that share the lanes, lets go of those that are to be others', some at
/// a time.
pub(crate) async fn hand_over(driver: Arc<Driver>, stop: CancellationToken) {
    loop {
        // Both arms may be dropped: they hold nothing.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = driver.handover.notified() => {}
        }
        while driver.update(|lanes| lanes.leave_some(HANDED_OVER_MAX)) {
            if !pause(&driver, Duration::from_secs(1), &stop).await {
                return;
            }
        }
    }
}

/// Renews the epoch until it is stopped, and begins another when it was lost.
pub(crate) async fn keep(driver: Arc<Driver>, id: WorkerId, stop: CancellationToken) {
    let mut wait = RENEW_EVERY;
    loop {
        // Both arms may be dropped: they hold nothing.
        tokio::select! {
            biased;
            goes_on = pause(&driver, wait, &stop) => if !goes_on { return },
            // A renewal says who is there.
            () = driver.engines.notified() => {}
        }
        let asked_at = driver.clock.monotonic();
        let worker = driver.lanes().worker();
        let result = match worker {
            Some(worker) => driver.storage.renew(&worker).await.map(|renewed| {
                follow_renewal(&driver, worker, renewed, asked_at);
            }),
            None => enlist(&driver, id).await,
        };
        wait = match result {
            Ok(()) => RENEW_EVERY,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "epoch not renewed");
                if error.kind() == StorageErrorKind::Fenced && worker.is_some() {
                    driver.lanes().end_epoch();
                    driver.lead(false);
                    driver.routes.forget_all();
                    Duration::ZERO
                } else {
                    AGAIN_AFTER
                }
            }
        };
    }
}

/// Looks for lanes that have work and are not in hand: at the start of an epoch, when a change by
/// others was seen, and every few seconds, as the net beneath.
pub(crate) async fn look_round(driver: Arc<Driver>, stop: CancellationToken) {
    loop {
        let worker = driver.lanes().worker();
        if let Some(worker) = worker
            && let Err(error) = look(&driver, &worker).await
        {
            tracing::error!(error = &error as &dyn std::error::Error, "could not look for work");
        }
        let next = driver.clock.monotonic() + LOOK_EVERY;
        // However often others commit.
        if !pause(&driver, LOOK_REST, &stop).await {
            return;
        }
        // All arms may be dropped: they hold nothing.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = driver.poll.notified() => {}
            () = driver.clock.sleep_until(next) => {}
        }
    }
}

async fn look(driver: &Arc<Driver>, worker: &Worker) -> Result<(), StorageError> {
    let mut after = None;
    loop {
        if after.is_none() {
            driver.lanes().begin_look();
        }
        let page = driver.storage.waiting(worker, after, LOOK_PAGE).await?;
        let is_last = page.len() < LOOK_PAGE;
        after = page.last().map(|waiting| waiting.lane);
        let now = driver.now();
        driver.update(|lanes| {
            for waiting in page {
                lanes.wake_if_idle(waiting, now);
            }
        });
        if is_last {
            driver.lanes().end_look();
            return Ok(());
        }
    }
}

/// Hears of what others commit, and of their hints.
pub(crate) async fn listen(driver: Arc<Driver>, stop: CancellationToken) {
    loop {
        // All arms may be dropped: storage keeps its changes, and hints are hints.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changes = driver.storage.changed() => {
                changes.into_iter().for_each(|change| follow(&driver, change));
            }
            lanes = driver.wake.listen() => {
                driver.update(|known| lanes.iter().for_each(|id| known.hinted(*id)));
            }
        }
    }
}

fn follow(driver: &Arc<Driver>, change: Change) {
    match change {
        Change::Intake => driver.intake.notify_one(),
        Change::Subscriptions(organization) => {
            driver.routes.forget(organization);
            driver.usages.forget(organization);
            driver.update(|lanes| lanes.take_again(organization));
            driver.poll.notify_one();
        }
        Change::Lanes => driver.poll.notify_one(),
        Change::Engines => driver.engines.notify_one(),
        Change::Erased(organization) => {
            driver.update(|lanes| lanes.let_go(organization));
        }
        Change::Schedule => {
            driver.schedule.notify_one();
            #[cfg(feature = "entities")]
            driver.due.notify_one();
        }
        Change::Replays => driver.replays.notify_one(),
        Change::FanOuts => driver.fan_outs.notify_one(),
        // Whoever keeps tokens in memory looks at them again within a second.
        Change::Tenancy => {}
        Change::All => follow_anything(driver),
    }
}

/// Nothing that is in memory may be as storage has it, and there may be anything to do.
fn follow_anything(driver: &Arc<Driver>) {
    driver.routes.forget_all();
    driver.usages.forget_all();
    driver.update(Lanes::let_go_of_all);
    for task in [
        &driver.engines,
        &driver.intake,
        &driver.poll,
        &driver.schedule,
        &driver.replays,
        &driver.fan_outs,
    ] {
        task.notify_one();
    }
}

/// Does the chores, a slice at a time: while this engine leads, and when somebody here waits for them.
pub(crate) async fn sweep(driver: Arc<Driver>, stop: CancellationToken) {
    let mut wait = SWEEP_EVERY;
    let mut is_awaited = false;
    loop {
        // All arms may be dropped: they hold nothing.
        tokio::select! {
            biased;
            goes_on = pause(&driver, wait, &stop) => if !goes_on { return },
            () = driver.chores.notified() => is_awaited = true,
        }
        let worker = driver.lanes().worker().filter(|_| is_awaited || driver.leads());
        let Some(worker) = worker else {
            wait = SWEEP_EVERY;
            continue;
        };
        wait = match driver.storage.sweep(&worker, SWEEP_SLICE).await {
            Ok(swept) => {
                driver.update(|lanes| swept.ready.iter().for_each(|id| lanes.read_or_ask(*id)));
                is_awaited &= swept.more;
                // Between two slices the publishers' commits have their turn.
                if swept.more { Duration::from_millis(20) } else { SWEEP_EVERY }
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "could not sweep");
                SWEEP_EVERY
            }
        };
    }
}

/// Waits; false when stopped.
pub(super) async fn pause(driver: &Driver, wait: Duration, stop: &CancellationToken) -> bool {
    let until: Monotonic = driver.clock.monotonic() + wait;
    tokio::select! {
        biased;
        () = stop.cancelled() => false,
        () = driver.clock.sleep_until(until) => true,
    }
}
