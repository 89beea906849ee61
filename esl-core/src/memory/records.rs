use std::ops::Bound;

use async_trait::async_trait;

use super::{MemoryStorage, rows::EventRow, subscriptions::page_of};
use crate::{
    Attempt, AuditEntry, AuditNumber, Delivery, DeliveryId, DeliveryState, EventId, EventType,
    OrganizationId, Seq, SubscriptionId,
    storage::{Health, Page, PageOf, Records, StorageError, StorageErrorKind, StoredEvent},
};

#[async_trait]
impl Records for MemoryStorage {
    async fn event(
        &self,
        organization: OrganizationId,
        id: EventId,
    ) -> Result<Option<StoredEvent>, StorageError> {
        let state = self.state();
        let seq = state.events_by_id.get(&(organization, id));
        Ok(seq.map(|seq| stored(*seq, &state.organizations[&organization].events[seq])))
    }

    async fn events(
        &self,
        organization: OrganizationId,
        event_type: Option<EventType>,
        page: Page<Seq>,
    ) -> Result<PageOf<StoredEvent>, StorageError> {
        let state = self.state();
        let organization = state.organizations.get(&organization);
        let rows = organization.into_iter().flat_map(|row| row.events.range(below(page.after)));
        let wanted = rows
            .rev()
            .filter(|(_, row)| event_type.as_ref().is_none_or(|it| *it == row.event.event_type))
            .map(|(seq, row)| stored(*seq, row));
        Ok(page_of(wanted, page.limit))
    }

    async fn deliveries(
        &self,
        organization: OrganizationId,
        subscription: SubscriptionId,
        state: Option<DeliveryState>,
        page: Page<Seq>,
    ) -> Result<Option<PageOf<Delivery>>, StorageError> {
        let stored = self.state();
        let Some(lane) = stored.lane(organization, subscription) else { return Ok(None) };
        let events = &stored.organizations[&organization];
        let wanted = lane
            .deliveries
            .range(below(page.after))
            .rev()
            .filter(|(_, row)| state.is_none_or(|state| state == lane.delivery_state(row)))
            .map(|(seq, row)| lane.delivery(*seq, row, &events.events[seq].event));
        Ok(Some(page_of(wanted, page.limit)))
    }

    async fn health(
        &self,
        organization: OrganizationId,
        subscription: SubscriptionId,
    ) -> Result<Option<Health>, StorageError> {
        let state = self.state();
        let lane = state.lane(organization, subscription).filter(|lane| !lane.is_deleted());
        Ok(lane.map(|lane| Health {
            lane: lane.state,
            waiting: (lane.open_seqs().count() as u64).min(Health::WAITING_COUNTED_MAX),
            oldest_due: lane.oldest_due(),
        }))
    }

    async fn delivery(
        &self,
        organization: OrganizationId,
        id: DeliveryId,
    ) -> Result<Option<(Delivery, Vec<Attempt>)>, StorageError> {
        let state = self.state();
        let lane = state.lanes.get(&id.lane());
        let lane = lane.filter(|lane| lane.subscription.organization == organization);
        let Some(lane) = lane else { return Ok(None) };
        let Some(row) = lane.deliveries.get(&id.seq()) else {
            let removed_to = state.organizations[&organization].removed_to;
            let is_removed = id.seq() > Seq::ZERO && id.seq() <= removed_to;
            let gone = StorageError::new(StorageErrorKind::Gone, "read a delivery");
            return if is_removed { Err(gone) } else { Ok(None) };
        };
        let event = &state.organizations[&organization].events[&id.seq()].event;
        if !id.is_of(event.id) {
            return Ok(None);
        }
        Ok(Some((lane.delivery(id.seq(), row, event), row.log.clone())))
    }

    async fn audit(
        &self,
        organization: OrganizationId,
        page: Page<AuditNumber>,
    ) -> Result<PageOf<AuditEntry>, StorageError> {
        let state = self.state();
        let latest_first = state.audit.iter().rev();
        let its = latest_first
            .filter(|entry| entry.organization == organization)
            .filter(|entry| page.after.is_none_or(|after| entry.number < after))
            .cloned();
        Ok(page_of(its, page.limit))
    }

    async fn check(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

fn below(seq: Option<Seq>) -> (Bound<Seq>, Bound<Seq>) {
    (Bound::Unbounded, seq.map_or(Bound::Unbounded, Bound::Excluded))
}

pub(super) fn stored(seq: Seq, row: &EventRow) -> StoredEvent {
    StoredEvent {
        id: row.event.id,
        event_type: row.event.event_type.clone(),
        seq,
        timestamp: row.event.timestamp,
        deliveries: row.deliveries,
        body: row.event.body.clone(),
        changes: row.event.changes.clone(),
        erased_at: row.erased_at,
    }
}
