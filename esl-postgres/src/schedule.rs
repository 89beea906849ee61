//! Events that are to be published at a time of their own.

use std::sync::Arc;

use async_trait::async_trait;
use esl_core::{
    EventId, Limit, OrganizationId, SealedEvent, Timestamp,
    storage::{Page, PageOf, Schedule, ScheduleNumber, Scheduled, StorageError},
};

use crate::PostgresStorage;

#[async_trait]
impl Schedule for PostgresStorage {
    async fn schedule(
        &self,
        _events: Vec<(Timestamp, Arc<SealedEvent>)>,
        _at_most: Limit,
    ) -> Result<(), StorageError> {
        unimplemented!("events are scheduled")
    }

    async fn scheduled(
        &self,
        _organization: OrganizationId,
        _page: Page<ScheduleNumber>,
    ) -> Result<PageOf<Scheduled>, StorageError> {
        unimplemented!("what is scheduled is listed")
    }

    async fn unschedule(
        &self,
        _organization: OrganizationId,
        _id: EventId,
    ) -> Result<(), StorageError> {
        unimplemented!("an event is unscheduled")
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
        unimplemented!("the next due time is read")
    }

    async fn release_due(&self, _limit: usize) -> Result<usize, StorageError> {
        unimplemented!("what is due is released")
    }
}
