//! Storage that fails on command.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use esl_core::{
    Actor, Attempt, AuditEntry, AuditNumber, BlobKey, Client, Delivery, DeliveryId, DeliveryState,
    Digest, EntityKey, EventId, EventType, InstallationId, KindName, LaneId, Limit, LinkKey,
    MemoryStorage, Organization, OrganizationId, Plan, Replay, ReplayId, ReplayNumber, Revoked,
    Rotated, Rotation, SealedEvent, Seq, Subscription, SubscriptionId, SubscriptionUpdate, Tiers,
    Timestamp, Token, Usage, WorkerId,
    storage::{
        Candidates, Change, Claimed, Commit, Committed, DueEntity, Entities, EntityPage,
        EntityQuery, Erased, FanOut, Fed, Feed, FeedStep, Health, IndexValue, IntakeRow, Lanes,
        Page, PageOf, Records, Refused, Removal, Removed, Renewed, ReplayStep, Replays, RouteTable,
        Schedule, ScheduleNumber, Scheduled, StorageError, StorageErrorKind, StoredEntity,
        StoredEvent, Subscriptions, Swept, Taken, Tenancy, Tenure, Unit, Waiting, Want, Worker,
    },
};
use tokio::sync::{Notify, watch};

/// Storage in memory that does as [`Fault`] says before each call.
#[derive(Debug)]
pub(crate) struct FaultyStorage {
    pub(crate) inner: MemoryStorage,
    pub(crate) fault: Fault,
}

/// A switch. Clones are the same switch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fault {
    mode: Arc<watch::Sender<Mode>>,
    hanging: Arc<Notify>,
    calls: Arc<AtomicUsize>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Mode {
    /// All is well.
    #[default]
    None,
    /// Every call fails.
    Fail(StorageErrorKind),
    /// What is written of entities has always been written by others meanwhile.
    Contend,
    /// What an organization has used cannot be read; all else goes on.
    FailUsage,
    /// No call ever returns.
    Hang,
    /// Every call waits for another mode.
    Wait,
    /// Every call panics.
    Panic,
}

impl Fault {
    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Waits until a call hangs.
    pub(crate) async fn wait_for_hanging(&self) {
        self.hanging.notified().await;
    }

    /// How many calls there were.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    async fn strike(&self) -> Result<(), StorageError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut modes = self.mode.subscribe();
        let mode = modes.wait_for(|mode| !matches!(mode, Mode::Wait)).await;
        let mode = *mode.expect("it is there as long as this");
        match mode {
            Mode::None | Mode::Wait | Mode::FailUsage | Mode::Contend => Ok(()),
            Mode::Fail(kind) => {
                Err(StorageError::new(kind, "work").with_source("the-operators-secret-detail"))
            }
            Mode::Hang => {
                self.hanging.notify_one();
                std::future::pending().await
            }
            Mode::Panic => panic!("as the test wants"),
        }
    }
}

#[async_trait]
impl Commit for FaultyStorage {
    async fn commit(
        &self,
        units: Vec<Unit>,
    ) -> Result<Vec<Result<Committed, Refused>>, StorageError> {
        self.fault.strike().await?;
        let written = units.iter().find_map(|unit| unit.entities.as_ref());
        if let (Mode::Contend, Some(write)) = (*self.fault.mode.borrow(), written) {
            let stale = Refused::Stale(write.steps[0].key.clone());
            return Ok(units.iter().map(|_| Err(stale.clone())).collect());
        }
        self.inner.commit(units).await
    }
}

#[async_trait]
impl Entities for FaultyStorage {
    async fn entity(
        &self,
        organization: OrganizationId,
        key: &EntityKey,
    ) -> Result<Option<StoredEntity>, StorageError> {
        self.fault.strike().await?;
        self.inner.entity(organization, key).await
    }

    async fn entities(
        &self,
        organization: OrganizationId,
        query: &EntityQuery,
    ) -> Result<EntityPage, StorageError> {
        self.fault.strike().await?;
        self.inner.entities(organization, query).await
    }

    async fn referring(
        &self,
        organization: OrganizationId,
        kind: &KindName,
        field: &str,
        values: &[IndexValue],
    ) -> Result<Vec<Vec<StoredEntity>>, StorageError> {
        self.fault.strike().await?;
        self.inner.referring(organization, kind, field, values).await
    }

    async fn next_entity_due(&self) -> Result<Option<Timestamp>, StorageError> {
        self.fault.strike().await?;
        self.inner.next_entity_due().await
    }

    async fn due_entities(&self, limit: usize) -> Result<Vec<DueEntity>, StorageError> {
        self.fault.strike().await?;
        self.inner.due_entities(limit).await
    }
}

#[async_trait]
impl Lanes for FaultyStorage {
    async fn enlist(
        &self,
        worker: WorkerId,
        tenure: Tenure,
    ) -> Result<(Worker, Renewed), StorageError> {
        self.fault.strike().await?;
        self.inner.enlist(worker, tenure).await
    }

    async fn renew(&self, worker: &Worker) -> Result<Renewed, StorageError> {
        self.fault.strike().await?;
        self.inner.renew(worker).await
    }

    async fn resign(&self, worker: &Worker) -> Result<(), StorageError> {
        self.fault.strike().await?;
        self.inner.resign(worker).await
    }

    async fn release(&self, worker: &Worker, lanes: &[LaneId]) -> Result<(), StorageError> {
        self.fault.strike().await?;
        self.inner.release(worker, lanes).await
    }

    async fn take(&self, worker: &Worker, lanes: &[LaneId]) -> Result<Vec<Taken>, StorageError> {
        self.fault.strike().await?;
        self.inner.take(worker, lanes).await
    }

    async fn waiting(
        &self,
        worker: &Worker,
        after: Option<LaneId>,
        limit: usize,
    ) -> Result<Vec<Waiting>, StorageError> {
        self.fault.strike().await?;
        self.inner.waiting(worker, after, limit).await
    }

    async fn claim(
        &self,
        worker: &Worker,
        wants: &[Want],
        bytes_max: usize,
    ) -> Result<Vec<Claimed>, StorageError> {
        self.fault.strike().await?;
        self.inner.claim(worker, wants, bytes_max).await
    }

    async fn fan_outs(
        &self,
        after: Option<OrganizationId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Option<(OrganizationId, Vec<FanOut>)>, StorageError> {
        self.fault.strike().await?;
        self.inner.fan_outs(after, limit, bytes_max).await
    }

    async fn reopen(
        &self,
        organization: OrganizationId,
        lane: LaneId,
        seq: Seq,
    ) -> Result<(), StorageError> {
        self.fault.strike().await?;
        self.inner.reopen(organization, lane, seq).await
    }

    async fn intake(
        &self,
        after: Option<IntakeRow>,
        limit: usize,
        left_out: &[OrganizationId],
    ) -> Result<Vec<(IntakeRow, Arc<SealedEvent>)>, StorageError> {
        self.fault.strike().await?;
        self.inner.intake(after, limit, left_out).await
    }

    async fn enqueue(&self, events: Vec<Arc<SealedEvent>>) -> Result<(), StorageError> {
        self.fault.strike().await?;
        self.inner.enqueue(events).await
    }

    async fn changed(&self) -> Vec<Change> {
        self.inner.changed().await
    }

    async fn sweep(&self, worker: &Worker, limit: usize) -> Result<Swept, StorageError> {
        self.fault.strike().await?;
        self.inner.sweep(worker, limit).await
    }
}

#[async_trait]
impl Feed for FaultyStorage {
    async fn begin_feed(&self, worker: &Worker, name: &str) -> Result<(), StorageError> {
        self.fault.strike().await?;
        self.inner.begin_feed(worker, name).await
    }

    async fn feed(
        &self,
        name: &str,
        after: Option<OrganizationId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Fed, StorageError> {
        self.fault.strike().await?;
        self.inner.feed(name, after, limit, bytes_max).await
    }

    async fn advance_feed(
        &self,
        worker: &Worker,
        name: &str,
        steps: Vec<FeedStep>,
    ) -> Result<(), StorageError> {
        self.fault.strike().await?;
        self.inner.advance_feed(worker, name, steps).await
    }
}

#[async_trait]
impl Schedule for FaultyStorage {
    async fn schedule(
        &self,
        events: Vec<(Timestamp, Arc<SealedEvent>)>,
        at_most: Limit,
    ) -> Result<(), StorageError> {
        self.fault.strike().await?;
        self.inner.schedule(events, at_most).await
    }

    async fn scheduled(
        &self,
        organization: OrganizationId,
        page: Page<ScheduleNumber>,
    ) -> Result<PageOf<Scheduled>, StorageError> {
        self.fault.strike().await?;
        self.inner.scheduled(organization, page).await
    }

    async fn unschedule(
        &self,
        organization: OrganizationId,
        id: EventId,
    ) -> Result<(), StorageError> {
        self.fault.strike().await?;
        self.inner.unschedule(organization, id).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
        self.fault.strike().await?;
        self.inner.next_due().await
    }

    async fn release_due(&self, limit: usize) -> Result<usize, StorageError> {
        self.fault.strike().await?;
        self.inner.release_due(limit).await
    }
}

#[async_trait]
impl Subscriptions for FaultyStorage {
    async fn create_subscription(
        &self,
        subscription: Subscription,
        tiers: &Tiers,
        by: &Actor,
    ) -> Result<Subscription, StorageError> {
        self.fault.strike().await?;
        self.inner.create_subscription(subscription, tiers, by).await
    }

    async fn subscription(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
    ) -> Result<Option<Subscription>, StorageError> {
        self.fault.strike().await?;
        self.inner.subscription(organization, id).await
    }

    async fn subscriptions(
        &self,
        organization: OrganizationId,
        page: Page<LaneId>,
    ) -> Result<PageOf<Subscription>, StorageError> {
        self.fault.strike().await?;
        self.inner.subscriptions(organization, page).await
    }

    async fn count_subscriptions(&self, organization: OrganizationId) -> Result<u64, StorageError> {
        self.fault.strike().await?;
        self.inner.count_subscriptions(organization).await
    }

    async fn update_subscription(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
        update: SubscriptionUpdate,
        by: &Actor,
    ) -> Result<Subscription, StorageError> {
        self.fault.strike().await?;
        self.inner.update_subscription(organization, id, update, by).await
    }

    async fn delete_subscription(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
        by: &Actor,
    ) -> Result<LaneId, StorageError> {
        self.fault.strike().await?;
        self.inner.delete_subscription(organization, id, by).await
    }

    async fn routes(
        &self,
        organization: OrganizationId,
    ) -> Result<Option<RouteTable>, StorageError> {
        self.fault.strike().await?;
        self.inner.routes(organization).await
    }
}

#[async_trait]
impl Removal for FaultyStorage {
    async fn remove_old(
        &self,
        worker: &Worker,
        age: Option<Duration>,
        limit: usize,
    ) -> Result<Removed, StorageError> {
        self.fault.strike().await?;
        self.inner.remove_old(worker, age, limit).await
    }

    async fn erase_event(
        &self,
        organization: OrganizationId,
        id: EventId,
    ) -> Result<Erased, StorageError> {
        self.fault.strike().await?;
        self.inner.erase_event(organization, id).await
    }

    async fn organizations_of_event(
        &self,
        id: EventId,
    ) -> Result<Vec<OrganizationId>, StorageError> {
        self.fault.strike().await?;
        self.inner.organizations_of_event(id).await
    }

    async fn unnamed_blobs(&self, keys: Vec<BlobKey>) -> Result<Vec<BlobKey>, StorageError> {
        self.fault.strike().await?;
        self.inner.unnamed_blobs(keys).await
    }

    async fn installation(&self, fresh: InstallationId) -> Result<InstallationId, StorageError> {
        self.fault.strike().await?;
        self.inner.installation(fresh).await
    }

    async fn link_keys(&self, fresh: LinkKey) -> Result<Vec<LinkKey>, StorageError> {
        self.fault.strike().await?;
        self.inner.link_keys(fresh).await
    }

    async fn delete_organization(
        &self,
        id: OrganizationId,
        by: &Actor,
    ) -> Result<(), StorageError> {
        self.fault.strike().await?;
        self.inner.delete_organization(id, by).await
    }
}

#[async_trait]
impl Replays for FaultyStorage {
    async fn create_replay(&self, replay: Replay) -> Result<Replay, StorageError> {
        self.fault.strike().await?;
        self.inner.create_replay(replay).await
    }

    async fn replay(
        &self,
        organization: OrganizationId,
        id: ReplayId,
    ) -> Result<Option<Replay>, StorageError> {
        self.fault.strike().await?;
        self.inner.replay(organization, id).await
    }

    async fn replays(
        &self,
        organization: OrganizationId,
        subscription: SubscriptionId,
        page: Page<ReplayNumber>,
    ) -> Result<Option<PageOf<Replay>>, StorageError> {
        self.fault.strike().await?;
        self.inner.replays(organization, subscription, page).await
    }

    async fn cancel_replay(
        &self,
        organization: OrganizationId,
        id: ReplayId,
    ) -> Result<Replay, StorageError> {
        self.fault.strike().await?;
        self.inner.cancel_replay(organization, id).await
    }

    async fn running_replays(
        &self,
        after: ReplayNumber,
        limit: usize,
    ) -> Result<Vec<Replay>, StorageError> {
        self.fault.strike().await?;
        self.inner.running_replays(after, limit).await
    }

    async fn candidates(&self, replay: &Replay, limit: usize) -> Result<Candidates, StorageError> {
        self.fault.strike().await?;
        self.inner.candidates(replay, limit).await
    }

    async fn advance_replay(
        &self,
        worker: &Worker,
        step: ReplayStep,
    ) -> Result<Replay, StorageError> {
        self.fault.strike().await?;
        self.inner.advance_replay(worker, step).await
    }
}

#[async_trait]
impl Records for FaultyStorage {
    async fn event(
        &self,
        organization: OrganizationId,
        id: EventId,
    ) -> Result<Option<StoredEvent>, StorageError> {
        self.fault.strike().await?;
        self.inner.event(organization, id).await
    }

    async fn events(
        &self,
        organization: OrganizationId,
        event_type: Option<EventType>,
        page: Page<Seq>,
    ) -> Result<PageOf<StoredEvent>, StorageError> {
        self.fault.strike().await?;
        self.inner.events(organization, event_type, page).await
    }

    async fn health(
        &self,
        organization: OrganizationId,
        subscription: SubscriptionId,
    ) -> Result<Option<Health>, StorageError> {
        self.fault.strike().await?;
        self.inner.health(organization, subscription).await
    }

    async fn deliveries(
        &self,
        organization: OrganizationId,
        subscription: SubscriptionId,
        state: Option<DeliveryState>,
        page: Page<Seq>,
    ) -> Result<Option<PageOf<Delivery>>, StorageError> {
        self.fault.strike().await?;
        self.inner.deliveries(organization, subscription, state, page).await
    }

    async fn delivery(
        &self,
        organization: OrganizationId,
        id: DeliveryId,
    ) -> Result<Option<(Delivery, Vec<Attempt>)>, StorageError> {
        self.fault.strike().await?;
        self.inner.delivery(organization, id).await
    }

    async fn audit(
        &self,
        organization: OrganizationId,
        page: Page<AuditNumber>,
    ) -> Result<PageOf<AuditEntry>, StorageError> {
        self.fault.strike().await?;
        self.inner.audit(organization, page).await
    }

    async fn check(&self) -> Result<(), StorageError> {
        self.fault.strike().await?;
        self.inner.check().await
    }
}

#[async_trait]
impl Tenancy for FaultyStorage {
    async fn set_plan(
        &self,
        organization: OrganizationId,
        plan: Option<Plan>,
        by: &Actor,
    ) -> Result<(), StorageError> {
        self.fault.strike().await?;
        self.inner.set_plan(organization, plan, by).await
    }

    async fn usage(
        &self,
        organization: OrganizationId,
    ) -> Result<Option<(Option<Plan>, Usage)>, StorageError> {
        self.fault.strike().await?;
        if matches!(*self.fault.mode.borrow(), Mode::FailUsage) {
            return Err(StorageError::new(StorageErrorKind::Unavailable, "read what is used"));
        }
        self.inner.usage(organization).await
    }

    async fn create_organization(
        &self,
        organization: Organization,
        by: &Actor,
    ) -> Result<(), StorageError> {
        self.fault.strike().await?;
        self.inner.create_organization(organization, by).await
    }

    async fn organization(&self, id: OrganizationId) -> Result<Option<Organization>, StorageError> {
        self.fault.strike().await?;
        self.inner.organization(id).await
    }

    async fn organizations(&self) -> Result<Vec<Organization>, StorageError> {
        self.fault.strike().await?;
        self.inner.organizations().await
    }

    async fn create_client(&self, client: Client, by: &Actor) -> Result<(), StorageError> {
        self.fault.strike().await?;
        self.inner.create_client(client, by).await
    }

    async fn client(&self, id: &str) -> Result<Option<Client>, StorageError> {
        self.fault.strike().await?;
        self.inner.client(id).await
    }

    async fn client_of(
        &self,
        organization: OrganizationId,
        id: &str,
    ) -> Result<Option<Client>, StorageError> {
        self.fault.strike().await?;
        self.inner.client_of(organization, id).await
    }

    async fn clients(
        &self,
        organization: OrganizationId,
        page: Page<String>,
    ) -> Result<PageOf<Client>, StorageError> {
        self.fault.strike().await?;
        self.inner.clients(organization, page).await
    }

    async fn rotate_client(
        &self,
        organization: OrganizationId,
        id: &str,
        secret: Digest,
        by: &Actor,
    ) -> Result<Client, StorageError> {
        self.fault.strike().await?;
        self.inner.rotate_client(organization, id, secret, by).await
    }

    async fn delete_client(
        &self,
        organization: OrganizationId,
        id: &str,
        by: &Actor,
    ) -> Result<(), StorageError> {
        self.fault.strike().await?;
        self.inner.delete_client(organization, id, by).await
    }

    async fn store_tokens(&self, secret: &Digest, tokens: Vec<Token>) -> Result<(), StorageError> {
        self.fault.strike().await?;
        self.inner.store_tokens(secret, tokens).await
    }

    async fn token(&self, digest: &Digest) -> Result<Option<Token>, StorageError> {
        self.fault.strike().await?;
        self.inner.token(digest).await
    }

    async fn rotate_token(&self, rotation: Rotation) -> Result<Rotated, StorageError> {
        self.fault.strike().await?;
        self.inner.rotate_token(rotation).await
    }

    async fn revoke_token(
        &self,
        organization: OrganizationId,
        client: &str,
        digest: &Digest,
    ) -> Result<Revoked, StorageError> {
        self.fault.strike().await?;
        self.inner.revoke_token(organization, client, digest).await
    }
}
