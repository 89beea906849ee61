//! The seam to whatever keeps data that is too large to go inline.

use std::{collections::HashMap, fmt, sync::Mutex};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{EventId, OrganizationId, Timestamp};

/// Whose event a blob belongs to. An event's id is unique within its organization only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlobKey {
    /// The event's organization.
    pub organization: OrganizationId,
    /// The event.
    pub event: EventId,
}

/// Keeps the `data` of large events, one blob an event.
#[async_trait]
pub trait BlobStore: fmt::Debug + Send + Sync + 'static {
    /// Stores a blob; durable on return. Storing it again replaces it.
    async fn put(&self, key: BlobKey, blob: Bytes) -> Result<(), BlobError>;

    /// Reads a blob back; `None` if there is none.
    async fn get(&self, key: BlobKey) -> Result<Option<Bytes>, BlobError>;

    /// Removes a blob; of one that is not there, nothing happens.
    async fn delete(&self, key: BlobKey) -> Result<(), BlobError>;

    /// Where a receiver fetches a blob until `expires_at`, without further proof of who it is.
    fn link(&self, key: BlobKey, expires_at: Timestamp) -> String;
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

/// Blobs in memory, gone with the process: for tests and for trying things out.
#[derive(Default)]
pub struct MemoryBlobStore {
    blobs: Mutex<HashMap<BlobKey, Bytes>>,
}

impl MemoryBlobStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn blobs(&self) -> std::sync::MutexGuard<'_, HashMap<BlobKey, Bytes>> {
        self.blobs.lock().expect("no code panics while it holds this lock")
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
        self.blobs().insert(key, blob);
        Ok(())
    }

    async fn get(&self, key: BlobKey) -> Result<Option<Bytes>, BlobError> {
        Ok(self.blobs().get(&key).cloned())
    }

    async fn delete(&self, key: BlobKey) -> Result<(), BlobError> {
        self.blobs().remove(&key);
        Ok(())
    }

    fn link(&self, key: BlobKey, _expires_at: Timestamp) -> String {
        format!("memory:{}/{}", key.organization, key.event)
    }
}
