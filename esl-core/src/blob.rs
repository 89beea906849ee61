//! The seam to whatever keeps data that is too large to go inline.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

use crate::{Clock, EventId, OrganizationId, SystemClock, Timestamp};

/// Whose event a blob belongs to. An event's id is unique within its organization only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobKey {
    /// The event's organization.
    pub organization: OrganizationId,
    /// The event.
    pub event: EventId,
}

/// Keeps the `data` of large events, one blob an event.
#[async_trait]
pub trait BlobStore: fmt::Debug + Send + Sync + 'static {
    /// Stores a blob; durable on return. Storing it again replaces it, and nobody ever reads a part
    /// of it.
    async fn put(&self, key: BlobKey, blob: Bytes) -> Result<(), BlobError>;

    /// Reads some of the bytes of a blob, piece by piece; `None` if there is no such blob. The range
    /// lies within the blob.
    async fn read(&self, key: BlobKey, range: Range<u64>) -> Result<Option<BlobStream>, BlobError>;

    /// Removes a blob; of one that is not there, nothing happens.
    async fn delete(&self, key: BlobKey) -> Result<(), BlobError>;

    /// The blobs after a key, in the order of keys, at most `limit`. What has been put or deleted
    /// since the call began may be in it or not.
    async fn list(
        &self,
        after: Option<BlobKey>,
        limit: usize,
    ) -> Result<Vec<StoredBlob>, BlobError>;

    /// A link to the store itself, where anybody reads a blob until `expires_at`; `None` if this
    /// store has no such links.
    async fn presigned(
        &self,
        key: BlobKey,
        expires_at: Timestamp,
    ) -> Result<Option<String>, BlobError>;
}

/// The bytes of a blob, as they come.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes, BlobError>> + Send>>;

/// A blob as a list shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredBlob {
    /// Whose it is.
    pub key: BlobKey,
    /// When it was put.
    pub put_at: Timestamp,
}

/// What the blob store could not do.
#[derive(Debug, thiserror::Error)]
#[error("the blob store could not {operation}")]
pub struct BlobError {
    operation: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl BlobError {
    /// An error in the middle of an operation ("store a blob"), and what caused it.
    pub fn new(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { operation, source: source.into() }
    }
}

/// Blobs in memory, gone with the process: for tests and for trying things out. Clones are the same
/// store.
#[derive(Clone)]
pub struct MemoryBlobStore {
    blobs: Arc<Mutex<BTreeMap<BlobKey, (Bytes, Timestamp)>>>,
    clock: Arc<dyn Clock>,
}

impl MemoryBlobStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock::new()))
    }

    /// An empty store that goes by this clock.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { blobs: Arc::default(), clock }
    }

    fn blobs(&self) -> std::sync::MutexGuard<'_, BTreeMap<BlobKey, (Bytes, Timestamp)>> {
        self.blobs.lock().expect("no code panics while it holds this lock")
    }
}

impl Default for MemoryBlobStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryBlobStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryBlobStore({} blobs)", self.blobs().len())
    }
}

#[async_trait]
impl BlobStore for MemoryBlobStore {
    async fn put(&self, key: BlobKey, blob: Bytes) -> Result<(), BlobError> {
        self.blobs().insert(key, (blob, self.clock.utc()));
        Ok(())
    }

    async fn read(&self, key: BlobKey, range: Range<u64>) -> Result<Option<BlobStream>, BlobError> {
        let Some((blob, _)) = self.blobs().get(&key).cloned() else { return Ok(None) };
        let bound = |bound: u64| usize::try_from(bound).unwrap_or(usize::MAX).min(blob.len());
        let (start, end) = (bound(range.start), bound(range.end));
        let piece = blob.slice(start..end.max(start));
        Ok(Some(Box::pin(Once(Some(Ok(piece))))))
    }

    async fn delete(&self, key: BlobKey) -> Result<(), BlobError> {
        self.blobs().remove(&key);
        Ok(())
    }

    async fn list(
        &self,
        after: Option<BlobKey>,
        limit: usize,
    ) -> Result<Vec<StoredBlob>, BlobError> {
        let blobs = self.blobs();
        let later = blobs.iter().filter(|(key, _)| after.is_none_or(|after| **key > after));
        let stored = later.map(|(key, (_, put_at))| StoredBlob { key: *key, put_at: *put_at });
        Ok(stored.take(limit).collect())
    }

    async fn presigned(
        &self,
        _key: BlobKey,
        _expires_at: Timestamp,
    ) -> Result<Option<String>, BlobError> {
        Ok(None)
    }
}

/// One piece.
struct Once(Option<Result<Bytes, BlobError>>);

impl Stream for Once {
    type Item = Result<Bytes, BlobError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.take())
    }
}
