use std::fmt;

use async_trait::async_trait;

use super::{LaneState, RouteVersion, StorageError, StoredEvent};
use crate::{
    Actor, Attempt, AuditEntry, AuditNumber, Client, Delivery, DeliveryId, DeliveryState, Digest,
    EventId, EventPattern, EventType, LaneId, Organization, OrganizationId, Plan, Revoked, Rotated,
    Rotation, Seq, Subscription, SubscriptionId, SubscriptionUpdate, Tiers, Timestamp, Token,
    Usage,
};

/// Subscriptions and what routing needs of them. Every call is bound to one organization. What changes
/// one is in the [audit trail](Records::audit) once it is committed.
#[async_trait]
pub trait Subscriptions: fmt::Debug + Send + Sync + 'static {
    /// Stores a new subscription and raises the organization's route version.
    ///
    /// [`Subscription::lane`] of the argument is ignored; the stored one, with the lane it got, is
    /// returned.
    ///
    /// # Errors
    /// [`NotFound`](super::StorageErrorKind::NotFound) if there is no such organization;
    /// [`Conflict`](super::StorageErrorKind::Conflict) if its id was ever used;
    /// [`OverLimit`](super::StorageErrorKind::OverLimit) if the organization has as many subscriptions,
    /// inactive ones included, as its plan allows by these tiers.
    async fn create_subscription(
        &self,
        subscription: Subscription,
        tiers: &Tiers,
        by: &Actor,
    ) -> Result<Subscription, StorageError>;

    /// One subscription; `None` if it was deleted, too.
    async fn subscription(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
    ) -> Result<Option<Subscription>, StorageError>;

    /// Those that are not deleted, in the order of creation, after a lane.
    async fn subscriptions(
        &self,
        organization: OrganizationId,
        page: Page<LaneId>,
    ) -> Result<PageOf<Subscription>, StorageError>;

    /// How many there are that are not deleted.
    async fn count_subscriptions(&self, organization: OrganizationId) -> Result<u64, StorageError>;

    /// Changes one as [`Subscription::with_update`] says, and raises the route version if its
    /// patterns change. An update that changes nothing leaves `updated_at` as it is. The lane's state
    /// becomes what [`LaneState::after_update`](super::LaneState::after_update) makes of it.
    ///
    /// # Errors
    /// [`NotFound`](super::StorageErrorKind::NotFound);
    /// [`Conflict`](super::StorageErrorKind::Conflict) if a rotation of the secret is under way.
    async fn update_subscription(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
        update: SubscriptionUpdate,
        by: &Actor,
    ) -> Result<Subscription, StorageError>;

    /// Deletes one and raises the route version. Its open deliveries are cancelled from now on, and
    /// are read so, finished at this time; the rows are rewritten by
    /// [`sweep`](super::Lanes::sweep), which nobody notices. Its delivery list stays readable. One that
    /// cannot be read as it was written can be deleted all the same.
    ///
    /// # Errors
    /// [`NotFound`](super::StorageErrorKind::NotFound).
    async fn delete_subscription(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
        by: &Actor,
    ) -> Result<LaneId, StorageError>;

    /// Everything that routing needs of an organization, as of one moment; `None` if there is no
    /// such organization.
    async fn routes(
        &self,
        organization: OrganizationId,
    ) -> Result<Option<RouteTable>, StorageError>;
}

/// The patterns of an organization's subscriptions, inactive ones included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteTable {
    /// As of this version.
    pub version: RouteVersion,
    /// The last event that was committed before it was read.
    pub last_seq: Seq,
    /// Each lane with its patterns, by lane.
    pub lanes: Vec<(LaneId, Vec<EventPattern>)>,
    /// What the organization may use.
    pub plan: Option<Plan>,
}

/// Reads of events and deliveries. Every call is bound to one organization.
///
/// What cannot be read as it was written is left out of lists, of subscriptions too, and the storage logs
/// which; asked for by its id it is an error.
#[async_trait]
pub trait Records: fmt::Debug + Send + Sync + 'static {
    /// One event.
    async fn event(
        &self,
        organization: OrganizationId,
        id: EventId,
    ) -> Result<Option<StoredEvent>, StorageError>;

    /// Events, newest first, optionally of one type, below a seq.
    async fn events(
        &self,
        organization: OrganizationId,
        event_type: Option<EventType>,
        page: Page<Seq>,
    ) -> Result<PageOf<StoredEvent>, StorageError>;

    /// The deliveries of a subscription, of a deleted one too, newest event first, optionally in
    /// one state, below a seq; `None` if the organization never had such a subscription.
    ///
    /// A delivery is owed from its event's timestamp on, or since it was opened again. One that was
    /// never tried is due since then.
    async fn deliveries(
        &self,
        organization: OrganizationId,
        subscription: SubscriptionId,
        state: Option<DeliveryState>,
        page: Page<Seq>,
    ) -> Result<Option<PageOf<Delivery>>, StorageError>;

    /// How a subscription fares, if it was not deleted.
    async fn health(
        &self,
        organization: OrganizationId,
        subscription: SubscriptionId,
    ) -> Result<Option<Health>, StorageError>;

    /// One delivery and the attempts that were kept, in their order, with timings to the
    /// microsecond.
    ///
    /// # Errors
    /// [`Gone`](super::StorageErrorKind::Gone) if its event was removed because it was old.
    async fn delivery(
        &self,
        organization: OrganizationId,
        id: DeliveryId,
    ) -> Result<Option<(Delivery, Vec<Attempt>)>, StorageError>;

    /// The audit trail of an organization, the latest first, below a number: every change of it, its
    /// clients and its subscriptions, by whom and when, as of the commit that made it. One that changed
    /// nothing is not there. The trail of a deleted organization is kept for as long as others, too.
    async fn audit(
        &self,
        organization: OrganizationId,
        page: Page<AuditNumber>,
    ) -> Result<PageOf<AuditEntry>, StorageError>;

    /// Answers when storage can still write and read.
    async fn check(&self) -> Result<(), StorageError>;
}

/// How a subscription fares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    /// What its receiver's answers have led to.
    pub lane: LaneState,
    /// Its open deliveries, counted up to [`WAITING_COUNTED_MAX`](Self::WAITING_COUNTED_MAX).
    pub waiting: u64,
    /// When the one of them that is due first was, or will be; of what was never tried, when it
    /// came to be owed.
    pub oldest_due: Option<Timestamp>,
}

impl Health {
    /// Beyond so many, nobody waits for the count.
    pub const WAITING_COUNTED_MAX: u64 = 100_000;
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page<K> {
    /// Where the last page ended; `None` for the first.
    pub after: Option<K>,
    /// How many, at least 1.
    pub limit: usize,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageOf<T> {
    /// The items.
    pub items: Vec<T>,
    /// Whether more follow.
    pub more: bool,
}

/// Organizations, clients and tokens. What changes one of the first two is in the
/// [audit trail](Records::audit) once it is committed.
#[async_trait]
pub trait Tenancy: fmt::Debug + Send + Sync + 'static {
    /// # Errors
    /// [`Conflict`](super::StorageErrorKind::Conflict) if its id or name is taken.
    async fn create_organization(
        &self,
        organization: Organization,
        by: &Actor,
    ) -> Result<(), StorageError>;

    /// One organization.
    async fn organization(&self, id: OrganizationId) -> Result<Option<Organization>, StorageError>;

    /// Gives an organization another plan, or none, and raises its [`RouteVersion`]: whoever publishes
    /// under the plan before is refused.
    ///
    /// # Errors
    /// [`NotFound`](super::StorageErrorKind::NotFound).
    async fn set_plan(
        &self,
        organization: OrganizationId,
        plan: Option<Plan>,
        by: &Actor,
    ) -> Result<(), StorageError>;

    /// What an organization may use, and what it has used of this hour; `None` if there is no such
    /// organization.
    async fn usage(
        &self,
        organization: OrganizationId,
    ) -> Result<Option<(Option<Plan>, Usage)>, StorageError>;

    /// All organizations, in the order of creation. One that cannot be read is left out.
    ///
    /// # Errors
    /// [`Corrupt`](super::StorageErrorKind::Corrupt) if there are some and none can be read: an empty
    /// list says that nothing was set up yet.
    async fn organizations(&self) -> Result<Vec<Organization>, StorageError>;

    /// # Errors
    /// [`Conflict`](super::StorageErrorKind::Conflict) if its id is taken in any organization;
    /// [`NotFound`](super::StorageErrorKind::NotFound) if there is no such organization;
    /// [`OverLimit`](super::StorageErrorKind::OverLimit) if it has
    /// [`Client::PER_ORGANIZATION_MAX`] clients already.
    async fn create_client(&self, client: Client, by: &Actor) -> Result<(), StorageError>;

    /// One client, by its `client_id`, whoever it acts for: that is yet to be proven.
    async fn client(&self, id: &str) -> Result<Option<Client>, StorageError>;

    /// One client of an organization.
    async fn client_of(
        &self,
        organization: OrganizationId,
        id: &str,
    ) -> Result<Option<Client>, StorageError>;

    /// The clients of an organization, by the bytes of their ids, after an id.
    async fn clients(
        &self,
        organization: OrganizationId,
        page: Page<String>,
    ) -> Result<PageOf<Client>, StorageError>;

    /// Gives a client another secret, and removes every token it was given before.
    ///
    /// # Errors
    /// [`NotFound`](super::StorageErrorKind::NotFound).
    async fn rotate_client(
        &self,
        organization: OrganizationId,
        id: &str,
        secret: Digest,
        by: &Actor,
    ) -> Result<Client, StorageError>;

    /// Removes a client, and every token it was given.
    ///
    /// # Errors
    /// [`NotFound`](super::StorageErrorKind::NotFound).
    async fn delete_client(
        &self,
        organization: OrganizationId,
        id: &str,
        by: &Actor,
    ) -> Result<(), StorageError>;

    /// Stores tokens for a client that has proven itself by its `secret`, all or none.
    ///
    /// # Errors
    /// [`NotFound`](super::StorageErrorKind::NotFound) if a token's client is not (any more) that
    /// organization's, or has another secret: a client that was deleted meanwhile gets nothing, nor
    /// does whoever has shown a secret that was rotated meanwhile.
    async fn store_tokens(&self, secret: &Digest, tokens: Vec<Token>) -> Result<(), StorageError>;

    /// The token of that digest, unless it has expired, was revoked, or is a refresh token that was
    /// used up.
    async fn token(&self, digest: &Digest) -> Result<Option<Token>, StorageError>;

    /// Trades a refresh token for new tokens, as [`Rotation::decide`] says, in one transaction: of
    /// two calls with the same token one gets them, and the other revokes the family.
    ///
    /// A token that was used up is remembered until it would have expired.
    ///
    /// # Cancellation
    /// A dropped call has done all of it or nothing.
    async fn rotate_token(&self, rotation: Rotation) -> Result<Rotated, StorageError>;

    /// Revokes a token that was given to this client: an access token alone, a refresh token, used
    /// up or not, with all of its family.
    async fn revoke_token(
        &self,
        organization: OrganizationId,
        client: &str,
        digest: &Digest,
    ) -> Result<Revoked, StorageError>;
}
