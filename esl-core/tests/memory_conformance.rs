//! The in-memory storage keeps every promise that a storage makes.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use esl_core::{
    Clock, MemoryStorage,
    storage::Storage,
    testing::{Engines, Harness, storage_suite},
};

/// One storage; a handle that is killed leaves it as it is.
struct InMemory(OnceLock<MemoryStorage>);

#[async_trait]
impl Harness for InMemory {
    fn new() -> Self {
        Self(OnceLock::new())
    }

    fn engines(&self) -> Engines {
        Engines::Many
    }

    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Storage> {
        Arc::new(self.0.get_or_init(|| MemoryStorage::with_clock(clock)).clone())
    }

    async fn reopen_after_kill(
        &mut self,
        killed: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
    ) -> Arc<dyn Storage> {
        drop(killed);
        self.open(clock).await
    }
}

storage_suite!(InMemory);
