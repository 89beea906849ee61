//! Reads of events and deliveries.

use async_trait::async_trait;
use esl_core::{
    Attempt, AuditEntry, AuditNumber, Delivery, DeliveryId, DeliveryState, EventId, EventType,
    OrganizationId, Seq, SubscriptionId,
    storage::{Health, Page, PageOf, Records, StorageError, StoredEvent},
};

use crate::{PostgresStorage, audit};

#[async_trait]
impl Records for PostgresStorage {
    async fn event(
        &self,
        _organization: OrganizationId,
        _id: EventId,
    ) -> Result<Option<StoredEvent>, StorageError> {
        unimplemented!("an event is read")
    }

    async fn events(
        &self,
        _organization: OrganizationId,
        _event_type: Option<EventType>,
        _page: Page<Seq>,
    ) -> Result<PageOf<StoredEvent>, StorageError> {
        unimplemented!("events are listed")
    }

    async fn deliveries(
        &self,
        _organization: OrganizationId,
        _subscription: SubscriptionId,
        _state: Option<DeliveryState>,
        _page: Page<Seq>,
    ) -> Result<Option<PageOf<Delivery>>, StorageError> {
        unimplemented!("deliveries are listed")
    }

    async fn health(
        &self,
        _organization: OrganizationId,
        _subscription: SubscriptionId,
    ) -> Result<Option<Health>, StorageError> {
        unimplemented!("health is read")
    }

    async fn delivery(
        &self,
        _organization: OrganizationId,
        _id: DeliveryId,
    ) -> Result<Option<(Delivery, Vec<Attempt>)>, StorageError> {
        unimplemented!("a delivery is read")
    }

    async fn audit(
        &self,
        organization: OrganizationId,
        page: Page<AuditNumber>,
    ) -> Result<PageOf<AuditEntry>, StorageError> {
        audit::list(self, organization, page).await
    }

    async fn check(&self) -> Result<(), StorageError> {
        unimplemented!("the storage is checked")
    }
}
