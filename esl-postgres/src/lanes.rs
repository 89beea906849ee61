//! Epochs, and whose the lanes are.

use std::sync::Arc;

use async_trait::async_trait;
use esl_core::{
    LaneId, OrganizationId, SealedEvent, Seq, WorkerId,
    storage::{
        Change, Claimed, FanOut, IntakeRow, Lanes, StorageError, Swept, Taken, Waiting, Want,
        Worker,
    },
};

use crate::{PostgresStorage, sweep};

#[async_trait]
impl Lanes for PostgresStorage {
    async fn enlist(&self, _worker: WorkerId) -> Result<Worker, StorageError> {
        unimplemented!("an engine is enlisted")
    }

    async fn renew(&self, _worker: &Worker) -> Result<(), StorageError> {
        unimplemented!("an epoch is renewed")
    }

    async fn resign(&self, _worker: &Worker) -> Result<(), StorageError> {
        unimplemented!("an epoch is ended")
    }

    async fn take(&self, _worker: &Worker, _lanes: &[LaneId]) -> Result<Vec<Taken>, StorageError> {
        unimplemented!("lanes are taken")
    }

    async fn waiting(
        &self,
        _worker: &Worker,
        _after: Option<LaneId>,
        _limit: usize,
    ) -> Result<Vec<Waiting>, StorageError> {
        unimplemented!("waiting lanes are found")
    }

    async fn claim(
        &self,
        _worker: &Worker,
        _wants: &[Want],
        _bytes_max: usize,
    ) -> Result<Vec<Claimed>, StorageError> {
        unimplemented!("deliveries are claimed")
    }

    async fn fan_outs(
        &self,
        _after: Option<OrganizationId>,
        _limit: usize,
        _bytes_max: usize,
    ) -> Result<Option<(OrganizationId, Vec<FanOut>)>, StorageError> {
        unimplemented!("fan-outs are read")
    }

    async fn reopen(
        &self,
        _organization: OrganizationId,
        _lane: LaneId,
        _seq: Seq,
    ) -> Result<(), StorageError> {
        unimplemented!("a delivery is opened again")
    }

    async fn intake(
        &self,
        _after: Option<IntakeRow>,
        _limit: usize,
        _left_out: &[OrganizationId],
    ) -> Result<Vec<(IntakeRow, Arc<SealedEvent>)>, StorageError> {
        unimplemented!("the intake is read")
    }

    async fn enqueue(&self, _events: Vec<Arc<SealedEvent>>) -> Result<(), StorageError> {
        unimplemented!("events are enqueued")
    }

    async fn changed(&self) -> Vec<Change> {
        self.changes().next().await
    }

    async fn sweep(&self, worker: &Worker, limit: usize) -> Result<Swept, StorageError> {
        sweep::sweep(self, worker, limit).await
    }
}
