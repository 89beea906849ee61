//! Units: what is new, in the order of their coming.

use async_trait::async_trait;
use esl_core::storage::{Commit, Committed, Refused, StorageError, Unit};

use crate::PostgresStorage;

#[async_trait]
impl Commit for PostgresStorage {
    async fn commit(
        &self,
        units: Vec<Unit>,
    ) -> Result<Vec<Result<Committed, Refused>>, StorageError> {
        if units.is_empty() {
            return Ok(Vec::new());
        }
        self.committer().commit(units).await
    }
}
