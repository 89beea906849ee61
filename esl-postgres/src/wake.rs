//! Hints to the owners of lanes, through the database.

use async_trait::async_trait;
use esl_core::{LaneId, Wake};

use crate::PostgresStorage;

/// Hints between all engines on one database; made by [`PostgresStorage::wake`].
///
/// Without it, too, an engine hears that there is something for its lanes, but not for which, so that it
/// looks through all of them.
#[derive(Debug)]
pub struct PostgresWake {
    storage: PostgresStorage,
}

impl PostgresWake {
    pub(crate) fn new(storage: PostgresStorage) -> Self {
        storage.changes().take_hints();
        Self { storage }
    }
}

#[async_trait]
impl Wake for PostgresWake {
    fn notify(&self, lanes: &[LaneId]) {
        if !lanes.is_empty() {
            self.storage.notifier().lanes(lanes.iter().copied());
        }
    }

    async fn listen(&self) -> Vec<LaneId> {
        self.storage.changes().next_hints().await
    }
}
