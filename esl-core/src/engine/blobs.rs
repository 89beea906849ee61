//! Blobs: keeping the keys of their links, and removing those that no event names.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{driver::Driver, tenure::pause};
use crate::{
    BlobError, BlobKey, BlobPages, BlobStore, EventId, LinkKey, OrganizationId, PutId, SealedEvent,
    StoredBlob,
    storage::{Erased, StorageError, StorageErrorKind},
};

/// The keys of links are read anew so often.
const KEYS_EVERY: Duration = Duration::from_secs(60 * 60);
/// The store is gone through after so long, for blobs that no event names …
const FIRST_SWEEP_AFTER: Duration = Duration::from_secs(60 * 60);
/// … and then so often.
const SWEEP_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// A younger blob may be of an event that is not committed yet: what was prepared is refused after
/// half of this.
const ORPHAN_AGE: Duration = Duration::from_secs(24 * 60 * 60);
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

/// Keeps the keys up to date, and sweeps after an hour and then once a day while this engine leads, until
/// it is stopped.
pub(crate) async fn run(driver: Arc<Driver>, blobs: Arc<dyn BlobStore>, stop: CancellationToken) {
    // Said at once, and not only when there is something to sweep.
    _ = is_ours(&driver, &*blobs).await;
    // Not at the start: a server that is started again and again would do little else.
    let mut sweep_at = driver.clock.monotonic() + FIRST_SWEEP_AFTER;
    while pause(&driver, KEYS_EVERY, &stop).await {
        if let Err(error) = read_keys(&driver).await {
            tracing::error!(error = &error as &dyn std::error::Error, "keys of links not read");
        }
        if driver.leads() && driver.clock.monotonic() >= sweep_at {
            sweep_at = driver.clock.monotonic() + SWEEP_EVERY;
            sweep(&driver, &*blobs, &stop).await;
        }
    }
}

async fn sweep(driver: &Driver, blobs: &dyn BlobStore, stop: &CancellationToken) {
    if !is_ours(driver, blobs).await {
        return;
    }
    let mut pages = blobs.list(None);
    let mut removed = 0_usize;
    while let Some(page) = next(&mut pages).await {
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "blobs not listed");
                return;
            }
        };
        let now = driver.now().utc;
        let old = page.iter().filter(|blob| now.since(blob.put_at) >= ORPHAN_AGE);
        match driver.storage.unnamed_blobs(old.map(|blob| blob.key).collect()).await {
            Ok(unnamed) => {
                for key in unnamed {
                    removed += usize::from(delete(blobs, key).await);
                }
            }
            // An error is no word on whether an event names them.
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "blobs not swept");
                return;
            }
        }
        if !pause(driver, REST, stop).await {
            break;
        }
    }
    if removed > 0 {
        tracing::info!(blobs = removed, "removed blobs that no event names");
    }
}

/// Whether the store is this installation's to sweep. It becomes so if it is nobody's yet.
async fn is_ours(driver: &Driver, blobs: &dyn BlobStore) -> bool {
    let ours = match driver.storage.installation(driver.ids.installation()).await {
        Ok(ours) => ours,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "installation not read");
            return false;
        }
    };
    match blobs.mark(ours).await {
        Ok(found) if found == ours => true,
        Ok(found) => {
            tracing::error!(
                store = %found,
                %ours,
                "the blob store belongs to another installation, and is not swept: give this database \
                 a store or a prefix of its own, or, if it has taken the other's place for good, \
                 remove `esl-installation` from the store"
            );
            false
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "whose the blob store is, is not known, and it is not swept");
            false
        }
    }
}

/// Deletes what was put for an event that was not committed. The stored event of that id is looked at
/// once more: a repetition may be one of the very same bytes.
pub(crate) async fn discard(driver: &Driver, event: &SealedEvent) {
    let (Some(blobs), Some(key)) = (&driver.blobs, BlobKey::named_by(&event.body)) else { return };
    match driver.storage.event(event.organization, event.id).await {
        Ok(Some(stored)) if BlobKey::named_by(&stored.body) == Some(key) => {}
        Ok(_) => drop(delete(&**blobs, key).await),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "blob left to the sweep");
        }
    }
}

/// Deletes what a blob store has of an event that was erased through the storage
/// ([`erase_event`](crate::storage::Removal::erase_event)); [`Esl::erase_event`](super::Esl::erase_event)
/// does so by itself. Erasing it once more makes up for an error: an erased envelope names no blob any
/// more, and so all are deleted that were ever put for the event.
///
/// # Errors
/// When a blob may still be there.
pub async fn delete_erased(
    blobs: &dyn BlobStore,
    (organization, event): (OrganizationId, EventId),
    erased: &Erased,
) -> Result<(), BlobError> {
    for key in &erased.blobs {
        blobs.delete(*key).await?;
    }
    if !erased.before {
        return Ok(());
    }
    let mut pages = blobs.list(Some(BlobKey { organization, event, put: PutId::from_bits(0) }));
    while let Some(page) = next(&mut pages).await {
        for StoredBlob { key, .. } in page? {
            if (key.organization, key.event) != (organization, event) {
                return Ok(());
            }
            blobs.delete(key).await?;
        }
    }
    Ok(())
}

async fn next(pages: &mut BlobPages) -> Option<Result<Vec<StoredBlob>, BlobError>> {
    std::future::poll_fn(|context| pages.as_mut().poll_next(context)).await
}

/// Deletes a blob; what cannot be deleted now the next sweep finds.
pub(crate) async fn delete(blobs: &dyn BlobStore, key: BlobKey) -> bool {
    let deleted = blobs.delete(key).await;
    if let Err(error) = &deleted {
        tracing::warn!(event = %key.event, error = error as &dyn std::error::Error, "blob not deleted");
    }
    deleted.is_ok()
}
