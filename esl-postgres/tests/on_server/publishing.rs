//! Short ways to something that can be published to.

use std::sync::Arc;

use esl_core::{
    Actor, CallbackUrl, EventId, LaneId, NewEvent, NewSubscription, Organization, OrganizationId,
    SealedEvent, Secret, Subscription, SubscriptionId, Tiers, Timestamp, WorkerId, seal,
    storage::{
        Committed, Publish, Refused, RouteVersion, Routed, Storage, Subscriptions, Tenancy, Unit,
    },
};
use esl_postgres::PostgresStorage;
use ulid::Ulid;

use crate::cluster;

/// What is expected of every call whose failure no test is about.
const WORKS: &str = "the storage works";

/// A schema, and a handle on it that goes by the server's clock.
pub(crate) struct Publisher {
    pub(crate) schema: String,
    pub(crate) storage: PostgresStorage,
}

impl Publisher {
    pub(crate) async fn new() -> Self {
        Self::through(cluster::url()).await
    }

    /// With connections that go by another way.
    pub(crate) async fn through(url: &str) -> Self {
        let schema = cluster::new_schema();
        let options = PostgresStorage::options().schema(&schema).may_lose_everything();
        let storage = options.open(url).await.expect("the database can be opened");
        Self { schema, storage }
    }

    pub(crate) async fn organization(&self) -> OrganizationId {
        let id = OrganizationId::from_ulid(ulid());
        let organization = Organization::new(id, id.to_string(), Timestamp::EPOCH);
        self.storage.create_organization(organization, &Actor::System).await.expect(WORKS);
        id
    }

    /// A subscription to everything.
    pub(crate) async fn lane(&self, organization: OrganizationId) -> LaneId {
        let url = CallbackUrl::from_stored("https://receiver.example/");
        let new = NewSubscription::new(url, vec!["*".parse().expect("a pattern")]);
        let id = SubscriptionId::from_ulid(ulid());
        let secret = Secret::new("as-documented").expect("a secret");
        let draft = Subscription::new(id, organization, new, secret, Timestamp::EPOCH);
        let tiers = Tiers::default();
        let created = self.storage.create_subscription(draft, &tiers, &Actor::System);
        created.await.expect(WORKS).lane
    }

    pub(crate) async fn version(&self, organization: OrganizationId) -> RouteVersion {
        let routes = self.storage.routes(organization).await.expect(WORKS);
        routes.expect("the organization exists").version
    }

    pub(crate) async fn commit(&self, unit: Unit) -> Result<Committed, Refused> {
        let mut results = self.storage.commit_all(vec![unit]).await;
        results.remove(0)
    }
}

/// Commits a group that nothing is in the way of.
pub(crate) trait CommitAll: Storage {
    async fn commit_all(&self, units: Vec<Unit>) -> Vec<Result<Committed, Refused>> {
        self.commit(units).await.expect(WORKS)
    }
}

impl<S: Storage> CommitAll for S {}

pub(crate) fn event(organization: OrganizationId) -> Arc<SealedEvent> {
    let data = serde_json::value::to_raw_value(&serde_json::json!({})).expect("JSON");
    let event =
        NewEvent::from_raw(organization, "person.updated".parse().expect("an event type"), data);
    Arc::new(seal(&event, EventId::from_ulid(ulid()), Timestamp::EPOCH))
}

/// So many new events for some lanes.
pub(crate) fn publish(
    organization: OrganizationId,
    route_version: RouteVersion,
    count: usize,
    lanes: &[LaneId],
) -> Publish {
    let routed = |_| Routed::new(event(organization), lanes.into());
    Publish {
        organization,
        route_version,
        events: (0..count).map(routed).collect(),
        idempotency: None,
        metering: None,
    }
}

pub(crate) fn worker_id() -> WorkerId {
    WorkerId::from_ulid(ulid())
}

fn ulid() -> Ulid {
    use std::sync::atomic::{AtomicU64, Ordering};
    static LAST: AtomicU64 = AtomicU64::new(0);
    Ulid::from_parts(1, LAST.fetch_add(1, Ordering::Relaxed).into())
}
