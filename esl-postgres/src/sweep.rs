//! The chores that are done in slices.

use esl_core::storage::{StorageError, Swept, Worker};

use crate::PostgresStorage;

pub(crate) async fn sweep(
    _storage: &PostgresStorage,
    _worker: &Worker,
    _limit: usize,
) -> Result<Swept, StorageError> {
    unimplemented!("a slice of the chores is done")
}
