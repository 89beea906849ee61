//! Letting go of what is not kept any more, a slice at a time.
//!
//! Of what is old, in [`retention`]; of what deleted organizations have left, in [`deletion`]; of what
//! waits in the intake for nobody, in [`strays`](crate::strays); and of what an event said, in
//! [`erasure`].

use std::time::Duration;

use async_trait::async_trait;
use esl_core::{
    Actor, BlobKey, EventId, InstallationId, LinkKey, OrganizationId, Timestamp,
    storage::{Erased, Removal, Removed, StorageError, Worker},
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage, blobs, deletion, erasure,
    error::Damage,
    flatten::epoch_number,
    id::Id16,
    link_keys,
    parameters::parameters,
    retention,
    rows::{get, limit_number, time, whole},
    strays::Strays,
};

#[async_trait]
impl Removal for PostgresStorage {
    async fn remove_old(
        &self,
        worker: &Worker,
        age: Option<Duration>,
        limit: usize,
    ) -> Result<Removed, StorageError> {
        remove_old(self, worker, age, limit).await
    }

    async fn erase_event(
        &self,
        organization: OrganizationId,
        id: EventId,
    ) -> Result<Erased, StorageError> {
        erasure::erase(self, organization, id).await
    }

    async fn organizations_of_event(
        &self,
        id: EventId,
    ) -> Result<Vec<OrganizationId>, StorageError> {
        erasure::find(self, id).await
    }

    async fn unnamed_blobs(&self, keys: Vec<BlobKey>) -> Result<Vec<BlobKey>, StorageError> {
        blobs::unnamed(self, keys).await
    }

    async fn installation(&self, fresh: InstallationId) -> Result<InstallationId, StorageError> {
        blobs::installation(self, fresh).await
    }

    async fn link_keys(&self, fresh: LinkKey) -> Result<Vec<LinkKey>, StorageError> {
        link_keys::link_keys(self, &fresh).await
    }

    async fn delete_organization(
        &self,
        id: OrganizationId,
        by: &Actor,
    ) -> Result<(), StorageError> {
        deletion::delete(self, id, by).await
    }
}

pub(crate) const OPERATION: &str = "remove what is old";

/// Where removing stands. A new handle begins at the beginning.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    round: retention::Round,
    strays: Strays,
    /// Whether retention is through with its round, and waits for the deletions.
    is_round_over: bool,
    is_deletions_turn: bool,
}

/// What one call may do, and has done.
#[derive(Debug)]
pub(crate) struct Slice {
    pub(crate) now: Timestamp,
    /// Rows, searches, and pages of large bodies.
    pub(crate) left: usize,
    pub(crate) removed: Removed,
}

impl Slice {
    pub(crate) fn use_up(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count);
    }

    /// A page costs as much as a row.
    pub(crate) fn use_up_bytes(&mut self, bytes: u64) {
        self.use_up(usize::try_from(bytes / PAGE_BYTES).unwrap_or(usize::MAX));
    }

    pub(crate) fn limit(&self) -> i64 {
        limit_number(self.left)
    }
}

const PAGE_BYTES: u64 = 4096;

/// Reads a count of rows.
pub(crate) fn counted(row: &Row, column: usize) -> Result<usize, Damage> {
    let count: i64 = get(row, column)?;
    usize::try_from(count).map_err(|error| Damage::new(column, error))
}

/// The blobs that the beginnings of envelopes name.
pub(crate) fn named_by_heads(row: &Row, column: usize) -> Result<Vec<BlobKey>, Damage> {
    let heads: Vec<&[u8]> = get(row, column)?;
    Ok(heads.into_iter().filter_map(BlobKey::named_by).collect())
}

async fn remove_old(
    storage: &PostgresStorage,
    worker: &Worker,
    age: Option<Duration>,
    limit: usize,
) -> Result<Removed, StorageError> {
    // One slice after the other, also if a call is dropped in the middle of one.
    let mut progress = storage.removal().lock().await;
    let values = parameters![storage.suite_time(), Id16::from(worker.id), epoch_number(worker)];
    let row = storage.database().query_one(OPERATION, BEGIN, values).await?;
    let now = whole(OPERATION, time(&row, 0))?;
    let mut slice = Slice { now, left: limit, removed: Removed::default() };
    slice.removed.more = !remove(storage, &mut progress, age, &mut slice).await?;
    // What was removed stands even if this fails, and its blobs are named here only.
    if !slice.removed.more
        && let Err(error) = finish(storage).await
    {
        tracing::error!(error = &error as &dyn std::error::Error, "could not clean up");
    }
    Ok(slice.removed)
}

const BEGIN: &str = "SELECT esl.removal_1($1, $2, $3)";

/// Does a slice; true when nothing is left to do. Retention and deletions come first by turns, so that
/// neither waits until the other has nothing left.
async fn remove(
    storage: &PostgresStorage,
    progress: &mut Progress,
    age: Option<Duration>,
    slice: &mut Slice,
) -> Result<bool, StorageError> {
    if !erasure::resume(storage, slice).await? {
        return Ok(false);
    }
    let old = age.map(|age| slice.now - age);
    let are_strays_gone = progress.strays.remove(storage, old, slice).await?;
    let is_deletions_turn = !progress.is_deletions_turn;
    let mut is_deleted = false;
    for is_deletion in [is_deletions_turn, !is_deletions_turn] {
        // An error leaves what was removed before it unsaid: it ends the slice, and names the blobs.
        let done = if is_deletion {
            deletion::remove(storage, slice).await.map(|is_done| is_deleted = is_done)
        } else if let Some(age) = age
            && !progress.is_round_over
        {
            let removed = retention::remove(storage, &mut progress.round, age, slice).await;
            removed.map(|is_over| progress.is_round_over = is_over)
        } else {
            Ok(())
        };
        if let Err(error) = done {
            if slice.removed.is_nothing() {
                return Err(error);
            }
            tracing::error!(error = &error as &dyn std::error::Error, "could not remove all");
            return Ok(false);
        }
    }
    let is_done = are_strays_gone && is_deleted && (progress.is_round_over || age.is_none());
    if is_done {
        progress.strays.begin_anew();
        progress.is_round_over = false;
    }
    progress.is_deletions_turn = is_deletions_turn;
    Ok(is_done)
}

/// What is done once a round.
async fn finish(storage: &PostgresStorage) -> Result<(), StorageError> {
    let values = parameters![storage.suite_time()];
    storage.database().query(OPERATION, REMAINS, values).await?;
    erasure::clean_up(storage).await
}

const REMAINS: &str = "SELECT esl.remove_remains_1($1)";
