//! What the engines do beside their work, failing too: records, removal, the schedule, tenancy.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use esl_core::{
    Actor, Attempt, AuditEntry, AuditNumber, BlobKey, Client, Delivery, DeliveryId, DeliveryState,
    Digest, EntityKey, EventId, EventType, InstallationId, KindName, Limit, LinkKey, Organization,
    OrganizationId, Plan, Revoked, Rotated, Rotation, SealedEvent, Seq, SubscriptionId, Timestamp,
    Token, Usage,
    storage::{
        DueEntity, Entities, EntityPage, EntityQuery, Erased, Fed, Feed, FeedStep, Health,
        IndexValue, Page, PageOf, Records, Removal, Removed, Schedule, ScheduleNumber, Scheduled,
        StorageError, StoredEntity, StoredEvent, Tenancy, Worker,
    },
};

use super::{FaultyStorage, faulty};

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Records for FaultyStorage {
    async fn event(
        &self,
        organization: OrganizationId,
        id: EventId,
    ) -> Result<Option<StoredEvent>, StorageError> {
        faulty!(self.event(organization, id))
    }

    async fn events(
        &self,
        organization: OrganizationId,
        event_type: Option<EventType>,
        page: Page<Seq>,
    ) -> Result<PageOf<StoredEvent>, StorageError> {
        faulty!(self.events(organization, event_type, page))
    }

    async fn deliveries(
        &self,
        organization: OrganizationId,
        subscription: SubscriptionId,
        state: Option<DeliveryState>,
        page: Page<Seq>,
    ) -> Result<Option<PageOf<Delivery>>, StorageError> {
        faulty!(self.deliveries(organization, subscription, state, page))
    }

    async fn health(
        &self,
        organization: OrganizationId,
        subscription: SubscriptionId,
    ) -> Result<Option<Health>, StorageError> {
        faulty!(self.health(organization, subscription))
    }

    async fn delivery(
        &self,
        organization: OrganizationId,
        id: DeliveryId,
    ) -> Result<Option<(Delivery, Vec<Attempt>)>, StorageError> {
        faulty!(self.delivery(organization, id))
    }

    async fn audit(
        &self,
        organization: OrganizationId,
        page: Page<AuditNumber>,
    ) -> Result<PageOf<AuditEntry>, StorageError> {
        faulty!(self.audit(organization, page))
    }

    async fn check(&self) -> Result<(), StorageError> {
        faulty!(self.check())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Removal for FaultyStorage {
    async fn remove_old(
        &self,
        worker: &Worker,
        age: Option<Duration>,
        limit: usize,
    ) -> Result<Removed, StorageError> {
        faulty!(self.remove_old(worker, age, limit))
    }

    async fn erase_event(
        &self,
        organization: OrganizationId,
        id: EventId,
    ) -> Result<Erased, StorageError> {
        faulty!(self.erase_event(organization, id), |_erased| {
            self.world.note(format_args!("erased {id}"));
            let mut ledger = self.world.ledger();
            ledger.erased.insert((organization, id));
            let tenant = &ledger.organizations[&organization];
            let seq = tenant.committed.get(&id).copied();
            for ((_, of), owed) in &mut ledger.deliveries {
                owed.is_open &= owed.event != id || Some(*of) != seq;
            }
        })
    }

    async fn organizations_of_event(
        &self,
        id: EventId,
    ) -> Result<Vec<OrganizationId>, StorageError> {
        faulty!(self.organizations_of_event(id))
    }

    async fn unnamed_blobs(&self, keys: Vec<BlobKey>) -> Result<Vec<BlobKey>, StorageError> {
        faulty!(self.unnamed_blobs(keys))
    }

    async fn installation(&self, fresh: InstallationId) -> Result<InstallationId, StorageError> {
        faulty!(self.installation(fresh))
    }

    async fn link_keys(&self, fresh: LinkKey) -> Result<Vec<LinkKey>, StorageError> {
        faulty!(self.link_keys(fresh))
    }

    async fn delete_organization(
        &self,
        id: OrganizationId,
        by: &Actor,
    ) -> Result<(), StorageError> {
        faulty!(self.delete_organization(id, by))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Feed for FaultyStorage {
    async fn begin_feed(&self, worker: &Worker, name: &str) -> Result<(), StorageError> {
        faulty!(self.begin_feed(worker, name))
    }

    async fn feed(
        &self,
        name: &str,
        after: Option<OrganizationId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Fed, StorageError> {
        faulty!(self.feed(name, after, limit, bytes_max))
    }

    async fn advance_feed(
        &self,
        worker: &Worker,
        name: &str,
        steps: Vec<FeedStep>,
    ) -> Result<(), StorageError> {
        faulty!(self.advance_feed(worker, name, steps))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Schedule for FaultyStorage {
    async fn schedule(
        &self,
        events: Vec<(Timestamp, Arc<SealedEvent>)>,
        at_most: Limit,
    ) -> Result<(), StorageError> {
        faulty!(self.schedule(events, at_most))
    }

    async fn scheduled(
        &self,
        organization: OrganizationId,
        page: Page<ScheduleNumber>,
    ) -> Result<PageOf<Scheduled>, StorageError> {
        faulty!(self.scheduled(organization, page))
    }

    async fn unschedule(
        &self,
        organization: OrganizationId,
        id: EventId,
    ) -> Result<(), StorageError> {
        faulty!(self.unschedule(organization, id))
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
        faulty!(self.next_due())
    }

    async fn release_due(&self, limit: usize) -> Result<usize, StorageError> {
        faulty!(self.release_due(limit))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Entities for FaultyStorage {
    async fn entity(
        &self,
        organization: OrganizationId,
        key: &EntityKey,
    ) -> Result<Option<StoredEntity>, StorageError> {
        faulty!(self.entity(organization, key))
    }

    async fn entities(
        &self,
        organization: OrganizationId,
        query: &EntityQuery,
    ) -> Result<EntityPage, StorageError> {
        faulty!(self.entities(organization, query))
    }

    async fn referring(
        &self,
        organization: OrganizationId,
        kind: &KindName,
        field: &str,
        values: &[IndexValue],
    ) -> Result<Vec<Vec<StoredEntity>>, StorageError> {
        faulty!(self.referring(organization, kind, field, values))
    }

    async fn next_entity_due(&self) -> Result<Option<Timestamp>, StorageError> {
        faulty!(self.next_entity_due())
    }

    async fn due_entities(&self, limit: usize) -> Result<Vec<DueEntity>, StorageError> {
        faulty!(self.due_entities(limit))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Tenancy for FaultyStorage {
    async fn create_organization(
        &self,
        organization: Organization,
        by: &Actor,
    ) -> Result<(), StorageError> {
        faulty!(self.create_organization(organization, by))
    }

    async fn organization(&self, id: OrganizationId) -> Result<Option<Organization>, StorageError> {
        faulty!(self.organization(id))
    }

    async fn set_plan(
        &self,
        organization: OrganizationId,
        plan: Option<Plan>,
        by: &Actor,
    ) -> Result<(), StorageError> {
        faulty!(self.set_plan(organization, plan, by))
    }

    async fn usage(
        &self,
        organization: OrganizationId,
    ) -> Result<Option<(Option<Plan>, Usage)>, StorageError> {
        faulty!(self.usage(organization))
    }

    async fn organizations(&self) -> Result<Vec<Organization>, StorageError> {
        faulty!(self.organizations())
    }

    async fn create_client(&self, client: Client, by: &Actor) -> Result<(), StorageError> {
        faulty!(self.create_client(client, by))
    }

    async fn client(&self, id: &str) -> Result<Option<Client>, StorageError> {
        faulty!(self.client(id))
    }

    async fn client_of(
        &self,
        organization: OrganizationId,
        id: &str,
    ) -> Result<Option<Client>, StorageError> {
        faulty!(self.client_of(organization, id))
    }

    async fn clients(
        &self,
        organization: OrganizationId,
        page: Page<String>,
    ) -> Result<PageOf<Client>, StorageError> {
        faulty!(self.clients(organization, page))
    }

    async fn rotate_client(
        &self,
        organization: OrganizationId,
        id: &str,
        secret: Digest,
        by: &Actor,
    ) -> Result<Client, StorageError> {
        faulty!(self.rotate_client(organization, id, secret, by))
    }

    async fn delete_client(
        &self,
        organization: OrganizationId,
        id: &str,
        by: &Actor,
    ) -> Result<(), StorageError> {
        faulty!(self.delete_client(organization, id, by))
    }

    async fn store_tokens(&self, secret: &Digest, tokens: Vec<Token>) -> Result<(), StorageError> {
        faulty!(self.store_tokens(secret, tokens))
    }

    async fn token(&self, digest: &Digest) -> Result<Option<Token>, StorageError> {
        faulty!(self.token(digest))
    }

    async fn rotate_token(&self, rotation: Rotation) -> Result<Rotated, StorageError> {
        faulty!(self.rotate_token(rotation))
    }

    async fn revoke_token(
        &self,
        organization: OrganizationId,
        client: &str,
        digest: &Digest,
    ) -> Result<Revoked, StorageError> {
        faulty!(self.revoke_token(organization, client, digest))
    }
}
