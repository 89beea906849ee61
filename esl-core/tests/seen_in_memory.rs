//! What is seen in memory keeps every promise of [`Seen`], but that it outlives the process.

use std::sync::Arc;

use async_trait::async_trait;
use esl_core::{
    MemorySeen, Seen,
    testing::{SeenHarness, seen_suite},
};

struct InMemory;

#[async_trait]
impl SeenHarness for InMemory {
    fn new() -> Self {
        Self
    }

    async fn open(&self) -> Arc<dyn Seen> {
        Arc::new(MemorySeen::new())
    }

    async fn reopen_after_kill(&mut self, _: Arc<dyn Seen>) -> Option<Arc<dyn Seen>> {
        None
    }
}

seen_suite!(InMemory);
