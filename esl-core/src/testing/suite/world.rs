use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ulid::Ulid;

use super::{BY, Engines, Harness};
use crate::{
    CallbackUrl, Clock, Delivery, DeliveryId, EventId, LaneId, NewEvent, NewSubscription,
    Organization, OrganizationId, SealedEvent, Secret, Seq, Subscription, SubscriptionId, Tiers,
    Timestamp, WorkerId, seal,
    storage::{
        Accepted, Change, Claimed, Committed, EPOCH, Outcome, Page, Publish, Refused, Routed,
        Settle, Settlement, Storage, StorageError, StorageErrorKind, Taken, Tenure, Unit, Want,
        Worker,
    },
    testing::ManualClock,
};

/// What a case lives in: one storage that began empty, its clock, and short ways to fill it.
pub struct World {
    harness: Box<dyn Harness>,
    pub(super) clock: ManualClock,
    /// The first handle on the storage.
    pub(super) storage: Arc<dyn Storage>,
    last_id: AtomicU64,
}

/// What [`World`] expects of every call whose failure no case is about.
pub(super) const WORKS: &str = "the storage works";

/// Longer than any answer of a case, in bytes.
pub(super) const PLENTY: usize = usize::MAX;

pub(super) const SECOND: Duration = Duration::from_secs(1);

impl World {
    /// What the clock shows at first.
    pub(super) const BEGINNING: Timestamp = Timestamp::from_millis(1_705_329_120_000);

    pub(super) async fn new(harness: Box<dyn Harness>) -> Self {
        let clock = ManualClock::new(Self::BEGINNING);
        let storage = harness.open(Arc::new(clock.clone())).await;
        Self { harness, clock, storage, last_id: AtomicU64::new(0) }
    }

    pub(super) fn engines(&self) -> Engines {
        self.harness.engines()
    }

    /// Another handle, as another process would open one.
    pub(super) async fn another_handle(&self) -> Arc<dyn Storage> {
        self.harness.open(Arc::new(self.clock.clone())).await
    }

    /// Ends the process by SIGKILL and starts it again. What was enlisted is dead afterwards.
    pub(super) async fn kill_and_reopen(self) -> Self {
        let Self { mut harness, clock, storage, last_id } = self;
        let storage = harness.reopen_after_kill(storage, Arc::new(clock.clone())).await;
        match harness.engines() {
            Engines::One => {}
            Engines::Many => clock.advance(EPOCH),
        }
        Self { harness, clock, storage, last_id }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.utc()
    }

    fn ulid(&self) -> Ulid {
        let number = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        Ulid::from_parts(self.now().as_millis_u64(), number.into())
    }

    pub(super) fn event_id(&self) -> EventId {
        EventId::from_ulid(self.ulid())
    }

    pub(super) fn organization_id(&self) -> OrganizationId {
        OrganizationId::from_ulid(self.ulid())
    }

    pub(super) fn worker_id(&self) -> WorkerId {
        WorkerId::from_ulid(self.ulid())
    }

    // Organizations and subscriptions

    pub(super) async fn organization(&self) -> OrganizationId {
        let id = self.organization_id();
        let organization = Organization::new(id, id.to_string(), self.now());
        self.storage.create_organization(organization, BY).await.expect(WORKS);
        id
    }

    /// A subscription that is not stored yet.
    pub(super) fn draft(&self, organization: OrganizationId, pattern: &str) -> Subscription {
        let id = SubscriptionId::from_ulid(self.ulid());
        let callback_url = CallbackUrl::from_stored(&format!("https://receiver.example/{id}"));
        let new = NewSubscription::new(callback_url, vec![pattern.parse().expect("a pattern")]);
        let secret = Secret::new("as-documented").expect("a secret");
        Subscription::new(id, organization, new, secret, self.now())
    }

    /// An active subscription to everything.
    pub(super) async fn subscription(&self, organization: OrganizationId) -> Subscription {
        self.subscription_to(organization, "*").await
    }

    pub(super) async fn subscription_to(
        &self,
        organization: OrganizationId,
        pattern: &str,
    ) -> Subscription {
        let draft = self.draft(organization, pattern);
        self.storage.create_subscription(draft, &Tiers::default(), BY).await.expect(WORKS)
    }

    // Events

    /// An event that chose no id of its own.
    pub(super) fn event(&self, organization: OrganizationId) -> Arc<SealedEvent> {
        self.event_of(organization, "person.updated", "{}")
    }

    pub(super) fn event_of(
        &self,
        organization: OrganizationId,
        event_type: &str,
        data: &str,
    ) -> Arc<SealedEvent> {
        Arc::new(seal(&new_event(organization, event_type, data), self.event_id(), self.now()))
    }

    /// An event under an id that its publisher chose.
    pub(super) fn event_with_id(
        &self,
        organization: OrganizationId,
        id: EventId,
        data: &str,
    ) -> Arc<SealedEvent> {
        let event = new_event(organization, "person.updated", data).with_id(id);
        Arc::new(seal(&event, id, self.now()))
    }

    pub(super) fn events(
        &self,
        organization: OrganizationId,
        count: usize,
    ) -> Vec<Arc<SealedEvent>> {
        (0..count).map(|_| self.event(organization)).collect()
    }

    /// Routes events of one organization by what the storage says.
    pub(super) async fn route(&self, events: &[Arc<SealedEvent>]) -> Publish {
        let organization = events.first().expect("a unit has an event").organization;
        let routes = self.storage.routes(organization).await.expect(WORKS);
        let routes = routes.expect("the organization exists");
        let routed = events.iter().map(|event| {
            let lanes = routes.lanes.iter();
            let lanes = lanes
                .filter(|(_, patterns)| patterns.iter().any(|it| it.matches(&event.event_type)))
                .map(|(lane, _)| *lane);
            Routed::new(event.clone(), lanes.collect())
        });
        Publish {
            organization,
            route_version: routes.version,
            events: routed.collect(),
            idempotency: None,
            metering: None,
        }
    }

    pub(super) async fn commit(&self, unit: Unit) -> Result<Committed, Refused> {
        let mut results = self.storage.commit(vec![unit]).await.expect(WORKS);
        assert_eq!(results.len(), 1, "one unit has one result");
        results.remove(0)
    }

    /// Publishes events of one organization in one unit.
    pub(super) async fn publish(&self, events: &[Arc<SealedEvent>]) -> Vec<Accepted> {
        let publish = self.route(events).await;
        self.commit(Unit::publish(publish)).await.expect("the unit is in order").events
    }

    /// Publishes so many new events, and says their seqs.
    pub(super) async fn publish_new(&self, organization: OrganizationId, count: usize) -> Vec<Seq> {
        let accepted = self.publish(&self.events(organization, count)).await;
        accepted.into_iter().map(|accepted| accepted.seq).collect()
    }

    // Lanes

    /// Enlists a worker, and lets it take the lanes.
    pub(super) async fn worker_of(&self, lanes: &[LaneId]) -> Worker {
        let (worker, _) =
            self.storage.enlist(self.worker_id(), Tenure::default()).await.expect(WORKS);
        assert_eq!(self.take(&worker, lanes).await.len(), lanes.len(), "the lanes are free");
        worker
    }

    pub(super) async fn take(&self, worker: &Worker, lanes: &[LaneId]) -> Vec<Taken> {
        self.storage.take(worker, lanes).await.expect(WORKS)
    }

    pub(super) async fn claim(&self, worker: &Worker, want: Want) -> Claimed {
        let claimed = self.storage.claim(worker, &[want], PLENTY).await.expect(WORKS);
        let [claimed] = claimed.try_into().expect("the lane is the worker's");
        claimed
    }

    /// The seqs of everything that is due in a lane.
    pub(super) async fn due(&self, worker: &Worker, lane: LaneId) -> Vec<Seq> {
        seqs(&self.claim(worker, want(lane)).await)
    }

    pub(super) async fn settle(&self, worker: &Worker, settlements: Vec<Settlement>) {
        let settle = Settle { settlements, ..settle(worker) };
        let committed = self.commit(Unit::settle(settle)).await;
        assert_eq!(committed, Ok(Committed::default()));
    }

    // Reads

    pub(super) async fn delivery(
        &self,
        subscription: &Subscription,
        accepted: &Accepted,
    ) -> Delivery {
        let id = DeliveryId::new(accepted.id, accepted.seq, subscription.lane);
        let found = self.storage.delivery(subscription.organization, id).await.expect(WORKS);
        found.expect("the delivery exists").0
    }

    /// The deliveries of a subscription, oldest event first.
    pub(super) async fn deliveries(&self, subscription: &Subscription) -> Vec<Delivery> {
        let (organization, id) = (subscription.organization, subscription.id);
        let page = self.storage.deliveries(organization, id, None, first(10_000)).await;
        let page = page.expect(WORKS).expect("the subscription exists");
        assert!(!page.more, "a case has fewer deliveries");
        page.items.into_iter().rev().collect()
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("clock", &self.clock)
            .field("storage", &self.storage)
            .finish_non_exhaustive()
    }
}

fn new_event(organization: OrganizationId, event_type: &str, data: &str) -> NewEvent {
    let event_type = event_type.parse().expect("an event type");
    NewEvent::from_raw(organization, event_type, serde_json::from_str(data).expect("JSON"))
}

/// Everything of a lane.
pub(super) fn want(lane: LaneId) -> Want {
    Want { lane, room: 10_000, after: Some(Seq::ZERO), held: Vec::new(), in_order: false }
}

pub(super) fn seqs(claimed: &Claimed) -> Vec<Seq> {
    claimed.due.iter().map(|due| due.seq).collect()
}

pub(super) fn numbers(numbers: impl IntoIterator<Item = u64>) -> Vec<Seq> {
    numbers.into_iter().map(Seq::new).collect()
}

/// Settles nothing yet.
pub(super) fn settle(worker: &Worker) -> Settle {
    Settle { worker: *worker, settlements: Vec::new(), lanes: Vec::new(), switch_offs: Vec::new() }
}

/// What a first attempt came to.
pub(super) fn settlement(lane: LaneId, seq: Seq, outcome: Outcome, at: Timestamp) -> Settlement {
    let (status, error) = match outcome {
        Outcome::Delivered => (Some(200), None),
        Outcome::RetryAt(_) | Outcome::Exhausted => (Some(500), Some(crate::AttemptError::Status)),
    };
    Settlement { lane, seq, outcome, attempts: 1, charged: 1, at, status, error, log: Vec::new() }
}

pub(super) const fn first<K>(limit: usize) -> Page<K> {
    Page { after: None, limit }
}

pub(super) fn kind<T: fmt::Debug>(result: Result<T, StorageError>) -> StorageErrorKind {
    result.expect_err("the storage says no").kind()
}

/// What there is to hear at this moment.
pub(super) async fn heard(storage: &dyn Storage) -> Vec<Change> {
    // Both arms may be dropped: `changed` promises so.
    tokio::select! {
        biased;
        changes = storage.changed() => changes,
        () = std::future::ready(()) => Vec::new(),
    }
}

/// Waits until a change is heard; what else is heard before is dropped.
pub(super) async fn hear(storage: &dyn Storage, change: Change) {
    while !storage.changed().await.contains(&change) {}
}
