//! Retention: removing what is old, in slices between the commits of others.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{blobs, driver::Driver, tenure::pause};
use crate::storage::{Removed, StorageError};

/// A round begins so often.
const ROUND_EVERY: Duration = Duration::from_secs(60);
/// Rows removed in a slice, or 4 KiB of large ones: a millisecond or two of the storage's time …
const SLICE: usize = 500;
/// … of which this is the rest between two, so that removing takes a tenth of it at most.
const REST: Duration = Duration::from_millis(20);

/// While this engine leads, removes what is older than `age`, and what deleted organizations have left,
/// until it is stopped.
pub(crate) async fn run(driver: Arc<Driver>, age: Option<Duration>, stop: CancellationToken) {
    while pause(&driver, ROUND_EVERY, &stop).await {
        if !driver.leads() {
            continue;
        }
        match round(&driver, age, &stop).await {
            Ok(removed) if removed.is_nothing() => {}
            Ok(removed) => tracing::info!(
                events = removed.events,
                deliveries = removed.deliveries,
                attempts = removed.attempts,
                replays = removed.replays,
                bytes = removed.bytes,
                organizations = removed.organizations,
                "removed what was old"
            ),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "could not remove");
            }
        }
    }
}

async fn round(
    driver: &Driver,
    age: Option<Duration>,
    stop: &CancellationToken,
) -> Result<Removed, StorageError> {
    let mut all = Removed::default();
    loop {
        let Some(worker) = driver.lanes().worker() else { return Ok(all) };
        // Dropped, it may have removed something all the same; blobs that it would have named are swept
        // up like any that no event names.
        let removed = tokio::select! {
            biased;
            removed = driver.storage.remove_old(&worker, age, SLICE) => removed?,
            () = stop.cancelled() => return Ok(all),
        };
        all.events += removed.events;
        all.deliveries += removed.deliveries;
        all.attempts += removed.attempts;
        all.replays += removed.replays;
        all.bytes += removed.bytes;
        all.organizations += removed.organizations;
        if let Some(store) = &driver.blobs {
            for key in removed.blobs {
                blobs::delete(&**store, key).await;
            }
        }
        if !removed.more || !pause(driver, REST, stop).await {
            return Ok(all);
        }
    }
}
