//! Blobs: keeping the keys of their links, and removing those that no event names.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{driver::Driver, tenure::pause};
use crate::{
    BlobKey, BlobStore, LinkKey,
    storage::{StorageError, StorageErrorKind},
};

/// The keys of links are read anew so often.
const KEYS_EVERY: Duration = Duration::from_secs(60 * 60);
/// The store is gone through so often, for blobs that no event names.
const SWEEP_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// A younger blob may be of an event that is not committed yet: what was prepared is refused after
/// half of this.
const ORPHAN_AGE: Duration = Duration::from_secs(24 * 60 * 60);
const PAGE: usize = 500;
/// Between two pages, so that the store and the storage have time for others.
const REST: Duration = Duration::from_millis(50);

/// Reads the keys that links are signed with, or makes the first.
pub(crate) async fn read_keys(driver: &Driver) -> Result<(), StorageError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        StorageError::new(StorageErrorKind::Unavailable, "make a key for links")
            .with_source(error.to_string())
    })?;
    driver.links.set_keys(driver.storage.link_keys(LinkKey::from_bytes(bytes)).await?);
    Ok(())
}

/// Keeps the keys up to date, and sweeps once a day, until it is stopped.
pub(crate) async fn run(driver: Arc<Driver>, blobs: Arc<dyn BlobStore>, stop: CancellationToken) {
    // Not at the start: a server that is started again and again would do little else.
    let mut sweep_at = driver.clock.monotonic() + SWEEP_EVERY;
    while pause(&driver, KEYS_EVERY, &stop).await {
        if let Err(error) = read_keys(&driver).await {
            tracing::error!(error = &error as &dyn std::error::Error, "keys of links not read");
        }
        if driver.clock.monotonic() >= sweep_at {
            sweep_at = driver.clock.monotonic() + SWEEP_EVERY;
            sweep(&driver, &*blobs, &stop).await;
        }
    }
}

async fn sweep(driver: &Driver, blobs: &dyn BlobStore, stop: &CancellationToken) {
    let (mut after, mut removed) = (None, 0_usize);
    loop {
        let page = match blobs.list(after, PAGE).await {
            Ok(page) => page,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "blobs not listed");
                return;
            }
        };
        let is_last = page.len() < PAGE;
        for blob in page {
            after = Some(blob.key);
            if driver.now().utc.since(blob.put_at) < ORPHAN_AGE {
                continue;
            }
            // An error is no word on whether an event names it.
            match driver.storage.organizations_of_event(blob.key.event).await {
                Ok(organizations) if organizations.contains(&blob.key.organization) => {}
                Ok(_) => removed += usize::from(delete(blobs, blob.key).await),
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "blobs not swept");
                    return;
                }
            }
        }
        if is_last || !pause(driver, REST, stop).await {
            break;
        }
    }
    if removed > 0 {
        tracing::info!(blobs = removed, "removed blobs that no event names");
    }
}

/// Deletes a blob; what cannot be deleted now the next sweep finds.
pub(crate) async fn delete(blobs: &dyn BlobStore, key: BlobKey) -> bool {
    let deleted = blobs.delete(key).await;
    if let Err(error) = &deleted {
        tracing::warn!(event = %key.event, error = error as &dyn std::error::Error, "blob not deleted");
    }
    deleted.is_ok()
}
