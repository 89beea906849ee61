//! Publishing: seal, size, route, and wait for the commit.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{
    blobs,
    driver::Driver,
    ids::Ids,
    inbox::{CommitFailure, PublishRequest},
    maintenance::MaintenanceError,
    usage,
};
use crate::{
    BlobError, BlobKey, BlobStore, DataRef, DeliveryId, EntityKey, EventId, Hour, Limit, NewEvent,
    OrganizationId, Origin, PutId, SealedEvent, Seq, SubscriptionId, Threshold, Timestamp, Usage,
    link::link_expiry,
    seal, seal_with_reference,
    storage::{
        Accepted, Audience, Committed, EntityWrite, Idempotency, IntakeRow, Metering, Notices,
        Publish, Refused, Routed, StorageError,
    },
};

/// What a published event became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// Its id.
    pub id: EventId,
    /// Its place in its organization.
    pub seq: Seq,
    /// To how many subscriptions it goes.
    pub deliveries: u32,
}

impl From<&Accepted> for Published {
    fn from(accepted: &Accepted) -> Self {
        Self { id: accepted.id, seq: accepted.seq, deliveries: accepted.deliveries }
    }
}

/// Why an event was not published.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// With everything inline the envelope is too large, and there is no blob store to put the data
    /// into; or even without the data it is.
    #[error("the event has {bytes} bytes in its envelope; at most {bytes_max} go inline")]
    TooLarge {
        /// What it has.
        bytes: usize,
        /// What it may have.
        bytes_max: usize,
    },
    /// `system.*` is ESL's own.
    #[error("events of type system.* are published by ESL alone")]
    SystemType,
    /// An event of that id exists with other content.
    #[error("event {0} exists with other content")]
    EventConflict(EventId),
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    IdempotencyConflict,
    /// It is more than the organization may publish in this hour.
    #[error(
        "the organization may publish {limit} events an hour, and has published {}; these are {events}",
        usage.events
    )]
    OverLimit {
        /// How many it would have been.
        events: u64,
        /// What it may.
        limit: Limit,
        /// What it has; [`Hour::end`](crate::Hour::end) says when it may again.
        usage: Usage,
    },
    /// Such maintenance cannot be announced.
    #[error("the maintenance cannot be announced: {0}")]
    Maintenance(#[from] MaintenanceError),
    /// There is no such organization.
    #[error("there is no such organization")]
    UnknownOrganization,
    /// There is no such subscription.
    #[error("there is no such subscription")]
    UnknownSubscription,
    /// The engine was built not to publish.
    #[error("the event system is switched off")]
    Disabled,
    /// The engine is stopping, or has stopped.
    #[error("the engine has stopped")]
    Stopped,
    /// Storage failed; whether the event was committed is not known. Publishing it again with the
    /// same id, or under the same idempotency key, is safe.
    #[error("the event could not be stored")]
    Storage(#[source] Arc<StorageError>),
    /// The blob store failed; nothing was committed.
    #[error("the data could not be put aside")]
    Blob(#[source] Arc<BlobError>),
}

impl PublishError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Storage(error) => error.is_transient(),
            Self::OverLimit { .. } | Self::Stopped | Self::Disabled | Self::Blob(_) => true,
            Self::TooLarge { .. }
            | Self::SystemType
            | Self::EventConflict(_)
            | Self::IdempotencyConflict
            | Self::Maintenance(_)
            | Self::UnknownOrganization
            | Self::UnknownSubscription => false,
        }
    }

    /// Whether it is certain that nothing was committed.
    fn is_refusal(&self) -> bool {
        match self {
            Self::TooLarge { .. }
            | Self::SystemType
            | Self::EventConflict(_)
            | Self::IdempotencyConflict
            | Self::Maintenance(_)
            | Self::UnknownOrganization
            | Self::UnknownSubscription
            | Self::OverLimit { .. }
            | Self::Disabled
            | Self::Blob(_) => true,
            Self::Stopped | Self::Storage(_) => false,
        }
    }
}

impl From<StorageError> for PublishError {
    fn from(error: StorageError) -> Self {
        Self::Storage(Arc::new(error))
    }
}

/// Puts events into their final bytes.
#[derive(Debug)]
pub(crate) struct Sealer {
    pub(crate) payload_bytes_max: usize,
    pub(crate) blobs: Option<Arc<dyn BlobStore>>,
    /// How many bytes a link has.
    pub(crate) link_bytes: usize,
}

impl Sealer {
    /// Seals an event, and puts its data into the blob store if it is too large to go inline.
    pub(crate) async fn seal(
        &self,
        event: &NewEvent,
        ids: &Ids,
        at: Option<Timestamp>,
    ) -> Result<Arc<SealedEvent>, PublishError> {
        if event.event_type.is_system() {
            return Err(PublishError::SystemType);
        }
        let (id, now) = ids.event();
        let now = at.unwrap_or(now);
        let sealed = seal(event, id, now);
        let bytes = sealed.body.len();
        let bytes_max = self.payload_bytes_max;
        if bytes <= bytes_max {
            return Ok(Arc::new(sealed));
        }
        let Some(blobs) = &self.blobs else {
            return Err(PublishError::TooLarge { bytes, bytes_max });
        };
        let key = BlobKey { organization: event.organization, event: sealed.id, put: ids.put() };
        let blob = bytes::Bytes::copy_from_slice(event.data.get().as_bytes());
        // The link is made when it is sent, so that it never goes out expired. Until then the blob's
        // name stands in its place.
        let reference = DataRef::to_blob(&blob, key.put.to_string(), link_expiry(now, now));
        let sent_bytes =
            |sealed: &SealedEvent| sealed.body.len() - PutId::TEXT_BYTES + self.link_bytes;
        let referenced = [true, false]
            .map(|with_changes| seal_with_reference(event, id, now, &reference, with_changes))
            .into_iter()
            .find(|sealed| sent_bytes(sealed) <= bytes_max)
            .ok_or(PublishError::TooLarge { bytes, bytes_max })?;
        let put = blobs.put(key, blob).await;
        put.map_err(|error| PublishError::Blob(Arc::new(error)))?;
        Ok(Arc::new(referenced))
    }
}

/// An event to be committed, and the intake row it came from.
pub(crate) type Sealed = (Arc<SealedEvent>, Option<IntakeRow>);

/// How events are published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner<'a> {
    pub(crate) idempotency: Option<&'a Idempotency>,
    pub(crate) counts: Counts,
    /// What is written in the same unit.
    pub(crate) write: Option<&'a Arc<EntityWrite>>,
    /// As of when they are sealed: now, if it does not say.
    pub(crate) at: Option<Timestamp>,
}

impl Manner<'_> {
    /// As most are.
    pub(crate) const PLAIN: Self =
        Self { idempotency: None, counts: Counts::Refusing, write: None, at: None };
}

/// Whether events count against what their organization may publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counts {
    /// They do not: they are ESL's own.
    Not,
    /// They do, and are stored in any case.
    #[cfg_attr(not(feature = "entities"), expect(dead_code, reason = "only entities are due"))]
    Counting,
    /// They do, and are refused if there is no room for them.
    Refusing,
}

/// Why a unit was not committed.
#[derive(Debug)]
#[cfg_attr(
    not(feature = "entities"),
    expect(dead_code, reason = "which entity it is, nobody asks who has none")
)]
pub(crate) enum Declined {
    Publish(PublishError),
    /// An entity is not as its writer has read it.
    Stale(EntityKey),
    TooManyReferences(EntityKey),
}

impl From<PublishError> for Declined {
    fn from(error: PublishError) -> Self {
        Self::Publish(error)
    }
}

impl From<Refused> for Declined {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Stale(key) => Self::Stale(key),
            Refused::TooManyReferences(key) => Self::TooManyReferences(key),
            other => Self::Publish(CommitFailure::Refused(other).into()),
        }
    }
}

/// Seals events and publishes them as one unit. Of those that were not committed, with certainty,
/// nothing stays in the blob store; where that is not known, or if this is dropped, the sweep decides.
pub(crate) async fn seal_and_publish(
    driver: &Driver,
    organization: OrganizationId,
    events: &[NewEvent],
    manner: Manner<'_>,
) -> Result<Committed, Declined> {
    let mut sealed = Vec::with_capacity(events.len());
    for event in events {
        match driver.sealer.seal(event, &driver.ids, manner.at).await {
            Ok(event) => sealed.push((event, None)),
            Err(error) => {
                discard(driver, &sealed).await;
                return Err(error.into());
            }
        }
    }
    let published = publish(driver, organization, &sealed, manner).await;
    match &published {
        Ok(committed) => {
            for ((event, _), accepted) in sealed.iter().zip(&committed.events) {
                if accepted.repeated {
                    blobs::discard(driver, event).await;
                }
            }
        }
        Err(Declined::Publish(error)) if !error.is_refusal() => {}
        Err(_) => discard(driver, &sealed).await,
    }
    published
}

async fn discard(driver: &Driver, events: &[Sealed]) {
    for (event, _) in events {
        blobs::discard(driver, event).await;
    }
}

/// Routes events and commits them as one unit, again and again while their routes are outdated.
async fn publish(
    driver: &Driver,
    organization: OrganizationId,
    events: &[Sealed],
    Manner { idempotency, counts, write, .. }: Manner<'_>,
) -> Result<Committed, Declined> {
    let mut stale = None;
    let mut notices = Told::default();
    loop {
        let metered = match counts {
            Counts::Not => Metered::Not,
            Counts::Counting => Metered::Counting(&notices),
            Counts::Refusing => Metered::Refusing(&notices),
        };
        let terms = Terms { idempotency, metered };
        let publish = route(driver, organization, events, terms, stale).await?;
        let version = publish.route_version;
        let limit = publish.metering.as_ref().map(|metering| metering.limit);
        match submit(driver, publish, write.cloned()).await {
            Ok(Ok(committed)) => return Ok(committed),
            Ok(Err(CommitFailure::Refused(Refused::Rerouted))) => {
                stale = Some(version);
                // The plan may be another one.
                notices = Told::default();
            }
            Ok(Err(CommitFailure::Refused(Refused::Crosses(usage)))) => {
                let limit = limit.unwrap_or(Limit::Unlimited);
                notices = Told::of(driver, organization, limit, [usage.hour]);
            }
            Ok(Err(CommitFailure::Refused(Refused::OverLimit(usage)))) => {
                let limit = limit.unwrap_or(Limit::Unlimited);
                let events = events.len() as u64;
                return Err(PublishError::OverLimit { events, limit, usage }.into());
            }
            Ok(Err(CommitFailure::Refused(refused))) => return Err(refused.into()),
            Ok(Err(failure)) => return Err(PublishError::from(failure).into()),
            Err(_dropped) => return Err(PublishError::Stopped.into()),
        }
    }
}

/// Publishes an event of ESL's own, which counts for nothing.
pub(crate) async fn publish_free(
    driver: &Driver,
    event: Arc<SealedEvent>,
) -> Result<Published, PublishError> {
    let organization = event.organization;
    let manner = Manner { counts: Counts::Not, ..Manner::PLAIN };
    let committed = publish(driver, organization, &[(event, None)], manner).await?;
    Ok(Published::from(&committed.events[0]))
}

/// Publishes a `system.ping` to one subscription.
pub(crate) async fn ping(
    driver: &Driver,
    (organization, subscription): (OrganizationId, SubscriptionId),
    origin: Option<Arc<Origin>>,
) -> Result<(Published, DeliveryId), PublishError> {
    let event_type = "system.ping".parse().expect("a type");
    let data = serde_json::json!({ "subscription_id": subscription });
    let mut event = NewEvent::new(organization, event_type, &data).expect("a value is JSON");
    event.origin = origin;
    let (id, now) = driver.ids.event();
    let events = [(Arc::new(seal(&event, id, now)), None)];
    let mut stale = None;
    loop {
        let mut publish = route(driver, organization, &events, Terms::FREE, stale).await?;
        // Read after the version: if it is deleted meanwhile, the version is outdated.
        let found = driver.storage.subscription(organization, subscription).await?;
        let lane = found.ok_or(PublishError::UnknownSubscription)?.lane;
        publish.events[0].lanes = [lane].into();
        publish.events[0].audience = Audience::Only(lane);
        let version = publish.route_version;
        match submit(driver, publish, None).await {
            Ok(Ok(committed)) => {
                let published = Published::from(&committed.events[0]);
                return Ok((published, DeliveryId::new(published.id, published.seq, lane)));
            }
            Ok(Err(CommitFailure::Refused(Refused::Rerouted))) => stale = Some(version),
            Ok(Err(failure)) => return Err(failure.into()),
            Err(_dropped) => return Err(PublishError::Stopped),
        }
    }
}

/// On what terms a unit is committed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) idempotency: Option<&'a Idempotency>,
    pub(crate) metered: Metered<'a>,
}

/// Whether a unit's events count against what the organization may publish.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Metered<'a> {
    /// They do not: they are ESL's own.
    Not,
    /// They do, and are stored in any case: their publisher has committed them.
    Counting(&'a Told),
    /// They do, and the unit is refused if there is no room for them.
    Refusing(&'a Told),
}

impl Terms<'_> {
    /// Of ESL's own events.
    pub(crate) const FREE: Self = Self { idempotency: None, metered: Metered::Not };
}

/// What an organization is told of its usage, in each of some hours.
#[derive(Debug, Default)]
pub(crate) struct Told(Vec<(Hour, Vec<Notice>)>);

/// The event that tells of a threshold.
pub(crate) type Notice = (Threshold, Arc<SealedEvent>);

impl Told {
    /// For what is committed in that hour, under that limit.
    pub(crate) fn of(
        driver: &Driver,
        organization: OrganizationId,
        limit: Limit,
        hours: impl IntoIterator<Item = Hour>,
    ) -> Self {
        let of_hour = |hour| (hour, usage::notices(driver, organization, limit, hour));
        Self(hours.into_iter().map(of_hour).collect())
    }
}

/// Adds to events the lanes they go to.
pub(crate) async fn route(
    driver: &Driver,
    organization: OrganizationId,
    events: &[Sealed],
    Terms { idempotency, metered }: Terms<'_>,
    stale: Option<crate::storage::RouteVersion>,
) -> Result<Publish, PublishError> {
    let routes = driver.routes.get(&*driver.storage, organization, stale).await?;
    let routes = routes.ok_or(PublishError::UnknownOrganization)?;
    let metering = match metered {
        Metered::Not => None,
        Metered::Counting(told) => Some((told, false)),
        Metered::Refusing(told) => Some((told, true)),
    };
    let metering = metering.zip(routes.plan()).map(|((told, refuses), plan)| {
        let route = |(threshold, event): &Notice| {
            (*threshold, Routed::new(Arc::clone(event), routes.lanes(&event.event_type)))
        };
        let of_hour = |(hour, events): &(Hour, Vec<Notice>)| Notices {
            hour: *hour,
            events: events.iter().map(route).collect(),
        };
        let notices = told.0.iter().map(of_hour).collect();
        Metering { limit: driver.tiers.allowance(&plan).events_per_hour, refuses, notices }
    });
    let routed = |(event, intake): &Sealed| Routed {
        intake: *intake,
        ..Routed::new(Arc::clone(event), routes.lanes(&event.event_type))
    };
    Ok(Publish {
        organization,
        route_version: routes.version(),
        events: events.iter().map(routed).collect(),
        idempotency: idempotency.cloned(),
        metering,
    })
}

/// Puts a unit into the next group. The answer comes after its commit, or never when the engine has
/// stopped.
pub(crate) fn submit(
    driver: &Driver,
    publish: Publish,
    write: Option<Arc<EntityWrite>>,
) -> oneshot::Receiver<Result<Committed, CommitFailure>> {
    let (reply, answer) = oneshot::channel();
    driver.inbox.publish(PublishRequest { publish, write, reply });
    answer
}

impl From<Declined> for PublishError {
    /// Of what writes no entities.
    fn from(declined: Declined) -> Self {
        match declined {
            Declined::Publish(error) => error,
            Declined::Stale(_) | Declined::TooManyReferences(_) => Self::Stopped,
        }
    }
}

impl From<CommitFailure> for PublishError {
    fn from(failure: CommitFailure) -> Self {
        match failure {
            CommitFailure::Storage(error) => Self::Storage(error),
            CommitFailure::Refused(refused) => match refused {
                Refused::EventConflict(id) => Self::EventConflict(id),
                Refused::IdempotencyConflict => Self::IdempotencyConflict,
                Refused::UnknownOrganization(_) => Self::UnknownOrganization,
                // The first is tried again by the callers, the next is refused to the intake; the others
                // are refused to workers alone.
                Refused::Rerouted
                | Refused::IntakeGone(_)
                | Refused::OverLimit(_)
                | Refused::Crosses(_)
                | Refused::OutOfTurn
                | Refused::StaleEpoch
                | Refused::Stale(_)
                | Refused::TooManyReferences(_) => Self::Stopped,
            },
        }
    }
}
