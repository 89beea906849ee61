//! Replays, and what they are of.

use async_trait::async_trait;
use esl_core::{
    OrganizationId, Replay, ReplayId, ReplayNumber, SubscriptionId,
    storage::{Candidates, Page, PageOf, ReplayStep, Replays, StorageError, Worker},
};

use crate::PostgresStorage;

#[async_trait]
impl Replays for PostgresStorage {
    async fn create_replay(&self, _replay: Replay) -> Result<Replay, StorageError> {
        unimplemented!("a replay is made")
    }

    async fn replay(
        &self,
        _organization: OrganizationId,
        _id: ReplayId,
    ) -> Result<Option<Replay>, StorageError> {
        unimplemented!("a replay is read")
    }

    async fn replays(
        &self,
        _organization: OrganizationId,
        _subscription: SubscriptionId,
        _page: Page<ReplayNumber>,
    ) -> Result<Option<PageOf<Replay>>, StorageError> {
        unimplemented!("replays are listed")
    }

    async fn cancel_replay(
        &self,
        _organization: OrganizationId,
        _id: ReplayId,
    ) -> Result<Replay, StorageError> {
        unimplemented!("a replay is cancelled")
    }

    async fn running_replays(
        &self,
        _after: ReplayNumber,
        _limit: usize,
    ) -> Result<Vec<Replay>, StorageError> {
        unimplemented!("running replays are listed")
    }

    async fn candidates(
        &self,
        _replay: &Replay,
        _limit: usize,
    ) -> Result<Candidates, StorageError> {
        unimplemented!("candidates are found")
    }

    async fn advance_replay(
        &self,
        _worker: &Worker,
        _step: ReplayStep,
    ) -> Result<Replay, StorageError> {
        unimplemented!("a replay is advanced")
    }
}
