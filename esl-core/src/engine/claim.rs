//! Claiming: fetching from storage what lanes do not get straight from commits, and being there when
//! a retry comes due.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{driver::Driver, lanes::Errands, tenure::pause};
use crate::{
    LaneId,
    storage::{StorageError, Taken},
};

/// One claim asks for so many lanes.
const LANES_MAX: usize = 64;
/// One claim brings so many bytes at most.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// After a failed read, this long until the next.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Runs the lanes' errands until it is stopped.
pub(crate) async fn run(driver: Arc<Driver>, stop: CancellationToken) {
    loop {
        let alarm = driver.lanes().announce_alarm();
        let alarmed = async {
            match alarm {
                Some(at) => driver.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        // All arms may be dropped: they hold nothing.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = driver.claims.notified() => {}
            () = alarmed => {}
        }
        let now = driver.clock.monotonic();
        driver.update(|lanes| lanes.tick(now));
        loop {
            let errands = driver.lanes().errands(LANES_MAX);
            if !errands.tell.is_empty() {
                driver.wake.notify(&errands.tell);
            }
            if errands.is_done() {
                break;
            }
            if stop.is_cancelled() {
                return;
            }
            run_errands(&driver, errands, &stop).await;
        }
    }
}

async fn run_errands(driver: &Arc<Driver>, errands: Errands, stop: &CancellationToken) {
    let Some(worker) = driver.lanes().worker() else {
        // Between two epochs; the next one starts from what storage says.
        return;
    };
    if !errands.release.is_empty() {
        let released = driver.storage.release(&worker, &errands.release).await;
        if let Err(error) = &released {
            fail(driver, "lanes not let go of", error, stop).await;
        }
        driver.update(|lanes| {
            if lanes.worker() == Some(worker) {
                lanes.released(&errands.release, released.is_ok());
            }
        });
    }
    if !errands.take.is_empty() {
        match driver.storage.take(&worker, &errands.take).await {
            Ok(taken) => {
                let now = driver.now();
                let prepare = |taken: Taken| {
                    (
                        taken.subscription.lane,
                        (driver.target(taken.subscription, taken.plan), taken.state),
                    )
                };
                let mut taken: HashMap<LaneId, _> = taken.into_iter().map(prepare).collect();
                driver.update(|lanes| {
                    if lanes.worker() != Some(worker) {
                        return;
                    }
                    lanes.begun(driver.commits.load(Ordering::SeqCst));
                    for id in &errands.take {
                        match taken.remove(id) {
                            Some((target, state)) => lanes.taken(target, state, now),
                            None => lanes.foreign(*id),
                        }
                    }
                });
            }
            Err(error) => {
                fail(driver, "lanes not taken", &error, stop).await;
                driver.update(|lanes| lanes.take_failed(&errands.take));
            }
        }
    }
    if !errands.wants.is_empty() {
        let bytes = errands.bytes.min(BYTES_MAX);
        match driver.storage.claim(&worker, &errands.wants, bytes).await {
            Ok(claimed) => {
                let now = driver.now();
                let mut claimed: HashMap<LaneId, _> =
                    claimed.into_iter().map(|claimed| (claimed.lane, claimed)).collect();
                driver.update(|lanes| {
                    if lanes.worker() != Some(worker) {
                        return;
                    }
                    for want in &errands.wants {
                        lanes.claimed(want.lane, claimed.remove(&want.lane), now);
                    }
                });
            }
            Err(error) => {
                let again = driver.clock.monotonic() + AGAIN_AFTER;
                driver.update(|lanes| {
                    for want in &errands.wants {
                        lanes.claim_failed(want.lane, again);
                    }
                });
                fail(driver, "claim failed", &error, stop).await;
            }
        }
    }
}

/// Says so, and rests; not while the engine stops, which would wait for it.
async fn fail(driver: &Driver, what: &str, error: &StorageError, stop: &CancellationToken) {
    tracing::error!(error = error as &dyn std::error::Error, "{what}");
    pause(driver, AGAIN_AFTER, stop).await;
}
