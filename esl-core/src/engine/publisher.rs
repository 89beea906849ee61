use std::sync::Arc;

use super::{
    ids::Ids,
    publish::{PublishError, Sealer},
};
use crate::{
    BlobStore, Chance, Clock, EventId, NewEvent, Prepared, SystemChance, SystemClock,
    storage::Storage,
};

/// Publishes without an engine: events go into the intake, and an engine over the same storage, in
/// whatever process, takes them from there, in order.
///
/// A cheap handle: clones are the same publisher.
#[derive(Debug, Clone)]
pub struct Publisher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    storage: Arc<dyn Storage>,
    sealer: Sealer,
    ids: Ids,
}

impl Publisher {
    pub(super) fn new(storage: Arc<dyn Storage>) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let chance: Arc<dyn Chance> = Arc::new(SystemChance::default());
        let sealer = Sealer { payload_bytes_max: 256 * 1024, blobs: None, link_bytes: LINK_BYTES };
        Self(Arc::new(Inner { storage, sealer, ids: Ids::new(clock, chance) }))
    }

    pub(super) fn storage(&self) -> &dyn Storage {
        &*self.0.storage
    }

    pub(super) fn ids(&self) -> &Ids {
        &self.0.ids
    }

    /// The largest envelope that carries its data inline, and where larger data goes; as for the
    /// engine.
    #[must_use]
    pub fn with_sizing(self, payload_bytes_max: usize, blobs: Option<Arc<dyn BlobStore>>) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let chance: Arc<dyn Chance> = Arc::new(SystemChance::default());
        let storage = Arc::clone(&self.0.storage);
        let sealer = Sealer { payload_bytes_max, blobs, link_bytes: LINK_BYTES };
        Self(Arc::new(Inner { storage, sealer, ids: Ids::new(clock, chance) }))
    }

    /// Seals an event that the caller's own transaction will insert (`publish_in` of the storage).
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn prepare(&self, event: NewEvent) -> Result<Prepared, PublishError> {
        Ok(Prepared::new(self.0.sealer.seal(&event, &self.0.ids, None).await?))
    }

    /// Publishes an event, in a transaction of its own. When this returns, it is durable.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish(&self, event: NewEvent) -> Result<EventId, PublishError> {
        let prepared = self.prepare(event).await?;
        self.0.storage.enqueue(vec![Arc::clone(prepared.event())]).await?;
        Ok(prepared.id())
    }
}

/// A publisher does not know how links will begin: more than any does.
const LINK_BYTES: usize = 512;
