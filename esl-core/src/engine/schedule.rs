//! The schedule: moving events into the intake when their time has come.
//!
//! Storage decides what is due, and moves each event once; the engine only asks at the right moment.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::driver::Driver;
use crate::storage::StorageError;

const PAGE: usize = 500;
/// The clock may be set, and others may schedule: nothing is trusted for longer.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// What the engine that leads has left lying for so long, others release.
const LEFT_FOR: Duration = Duration::from_secs(5);
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Storage's clock may be a little behind.
const NOT_YET: Duration = Duration::from_millis(20);

/// Releases what is due until it is stopped.
pub(crate) async fn run(driver: Arc<Driver>, stop: CancellationToken) {
    loop {
        let wait = match release(&driver).await {
            Ok(wait) => wait,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "schedule not read");
                AGAIN_AFTER
            }
        };
        let until = driver.clock.monotonic() + wait;
        // All arms may be dropped: they hold nothing.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = driver.schedule.notified() => {}
            () = driver.clock.sleep_until(until) => {}
        }
    }
}

/// Releases what is due, and says when to look again.
async fn release(driver: &Driver) -> Result<Duration, StorageError> {
    let Some(due_at) = driver.storage.next_due().await? else { return Ok(LOOK_EVERY) };
    // Whoever leads is first.
    let due_at = if driver.leads() { due_at } else { due_at + LEFT_FOR };
    let now = driver.time.now();
    if due_at > now {
        return Ok(due_at.since(now).min(LOOK_EVERY));
    }
    let released = driver.storage.release_due(PAGE).await?;
    Ok(if released == 0 { NOT_YET } else { Duration::ZERO })
}
