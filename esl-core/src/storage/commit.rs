use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{EntityWrite, LaneState, StorageError, Worker};
use crate::{
    Attempt, AttemptError, Crossed, DisabledReason, EntityKey, EventId, EventType, Hour, LaneId,
    Limit, OrganizationId, SealedEvent, Seq, Threshold, Timestamp, Usage,
};

/// Making things durable.
#[async_trait]
pub trait Commit: fmt::Debug + Send + Sync + 'static {
    /// Commits a group of units, in their order, under one fsync but not one fate.
    ///
    /// - Each unit is atomic. It succeeds, or is refused alone and leaves nothing behind; the
    ///   others of the group are not touched by it. Results are in the order of the units.
    /// - When this returns `Ok`, what was committed survives SIGKILL and power loss.
    /// - The new events of an organization get consecutive [`Seq`]s in the order of the units,
    ///   starting after its last one; refused and repeated events take none.
    /// - An event whose id exists already in its organization is not stored again: with the same
    ///   [`SealedEvent::digest`] (or when both have none) it is [`Accepted`] as `repeated`, with
    ///   the first one's seq and number of deliveries; otherwise the unit is refused as
    ///   [`Refused::EventConflict`]. The same id in another organization is another event.
    /// - A unit whose [`Idempotency`] key exists (in that organization, younger than 24 h) stores
    ///   nothing: with the same fingerprint it gives the first answer with every event `repeated`,
    ///   otherwise it is refused. This is decided before everything else.
    /// - [`Settle::worker`] must have a running epoch; otherwise [`Refused::StaleEpoch`]. A
    ///   settlement of a delivery that is no longer open changes nothing and is no error; the
    ///   deletion of a subscription closes its deliveries at once. So does one of attempts that the
    ///   delivery has had already ([`Settlement::attempts_before`]): it was committed before, by a
    ///   call whose outcome was not known, and the delivery may have been opened again since.
    /// - [`Publish::route_version`] must be the organization's; otherwise [`Refused::Rerouted`],
    ///   decided before any event's id is looked at. Lanes that were deleted since cannot be named
    ///   under a current version.
    /// - An event that goes to more than [`FAN_OUT_ABOVE`] lanes is **fanned out**: stored with what
    ///   is needed to owe it to its lanes later, in slices ([`Expand`]), and so is each event of a unit
    ///   that [is large](Publish::is_large), and every further event of the organization until the last
    ///   of them is expanded. Its deliveries come to be with their slice; [`Accepted::deliveries`] is the
    ///   number of lanes it was routed to all the same.
    /// - An event for one subscription alone ([`Audience::Only`]) is owed to it like a retry that is
    ///   due now, fan-outs or not: it has no place in the order of the others.
    /// - An [`Expand`] must be of the first open fan-out of its organization and begin where that
    ///   one stands; otherwise [`Refused::OutOfTurn`]. Its route version must be the organization's;
    ///   otherwise [`Refused::Rerouted`]. If its event was erased meanwhile, the deliveries of the slice
    ///   are cancelled as they come to be, and [`Committed::is_cancelled`] says so.
    /// - The new events of a publish with a [`Metering`] count as [`Usage`] of the hour that it is by
    ///   storage's time. If they would be more than the limit the unit is [`Refused::OverLimit`]. If
    ///   they come to a threshold whose notice it does not carry, it is [`Refused::Crosses`]; the
    ///   notices of those they come to are stored after them, and do not count. A unit that only
    ///   repeats is never refused for that.
    /// - A unit that carries an [`IntakeRow`] removes that row, also when its event is repeated or
    ///   conflicts (then the unit counts as committed, with the event `repeated`): the embedder has
    ///   committed it, and nobody is left to be told. A refused unit leaves the row. If the row is not
    ///   there any more, and no event of that id either, it was erased meanwhile, and the unit is
    ///   [`Refused::IntakeGone`].
    /// - Entities are written with the events that say so: if one of them is not as
    ///   [expected](EntityWrite), the unit is [`Refused::Stale`]. A repetition under an idempotency key
    ///   writes none.
    /// - Where a unit could be refused for several reasons, which of them is given is not promised, but for
    ///   what stands above.
    ///
    /// # Errors
    /// An error fails the whole group, and its outcome is unknown: all of it was committed, or
    /// nothing. Trying again with the same ids is safe.
    ///
    /// # Cancellation
    /// A dropped call may or may not have committed, as after an error.
    async fn commit(
        &self,
        units: Vec<Unit>,
    ) -> Result<Vec<Result<Committed, Refused>>, StorageError>;
}

/// What succeeds or is refused together.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Unit {
    /// New events of one organization.
    pub publish: Option<Publish>,
    /// What became of deliveries.
    pub settle: Option<Settle>,
    /// A slice of a fan-out.
    pub expand: Option<Expand>,
    /// Entities that are written.
    pub entities: Option<Arc<EntityWrite>>,
}

impl Unit {
    /// A unit that publishes.
    #[must_use]
    pub fn publish(publish: Publish) -> Self {
        Self { publish: Some(publish), ..Self::default() }
    }

    /// A unit that settles.
    #[must_use]
    pub fn settle(settle: Settle) -> Self {
        Self { settle: Some(settle), ..Self::default() }
    }

    /// A unit that expands a slice of a fan-out.
    #[must_use]
    pub fn expand(expand: Expand) -> Self {
        Self { expand: Some(expand), ..Self::default() }
    }

    /// A unit that writes entities and says so to nobody.
    #[must_use]
    pub fn write(entities: impl Into<Arc<EntityWrite>>) -> Self {
        Self { entities: Some(entities.into()), ..Self::default() }
    }
}

/// Events to be stored, with the lanes they go to.
#[derive(Debug, Clone)]
pub struct Publish {
    /// Whose events they are.
    pub organization: OrganizationId,
    /// The version of the organization's subscriptions that they were routed with.
    pub route_version: RouteVersion,
    /// The events, at least one, in the order of their seqs.
    pub events: Vec<Routed>,
    /// Makes a repetition of the unit give the first one's answer.
    pub idempotency: Option<Idempotency>,
    /// How the events count against what the organization may publish; they do not when `None`.
    pub metering: Option<Metering>,
}

/// How events count against what their organization may publish in an hour.
#[derive(Debug, Clone)]
pub struct Metering {
    /// So many, all in all. It is the organization's as of [`Publish::route_version`].
    pub limit: Limit,
    /// Whether the unit is refused if that is not enough; otherwise it counts, and is stored all the
    /// same.
    pub refuses: bool,
    /// What the organization is told if it comes to a threshold with this unit, in one hour or another.
    pub notices: Vec<Notices>,
}

/// What an organization is told of its usage.
#[derive(Debug, Clone)]
pub struct Notices {
    /// The hour that they speak of; in another they are worth nothing.
    pub hour: Hour,
    /// One for each threshold that the unit may come to.
    pub events: Vec<(Threshold, Routed)>,
}

impl Metering {
    /// What was used with so many new events, and the thresholds they come to. This is the whole rule;
    /// storage decides by it what becomes of a unit.
    ///
    /// # Errors
    /// [`Refused::OverLimit`] or [`Refused::Crosses`].
    pub fn meter(&self, before: Usage, new: usize) -> Result<(Usage, Crossed), Refused> {
        let new = new as u64;
        let after = Usage { events: before.events.saturating_add(new), ..before };
        if new == 0 {
            return Ok((before, Crossed::default()));
        }
        if self.refuses && !self.limit.allows(after.events) {
            return Err(Refused::OverLimit(before));
        }
        let crossed = before.crossed(new, self.limit);
        let carries =
            |threshold| self.told_in(before.hour).any(|(carried, _)| *carried == threshold);
        let lacks = |threshold| crossed.has(threshold) && !carries(threshold);
        if lacks(Threshold::Warning) || lacks(Threshold::Exceeded) {
            return Err(Refused::Crosses(after));
        }
        Ok((after, crossed))
    }

    /// What the organization may be told in an hour.
    pub fn told_in(&self, hour: Hour) -> impl Iterator<Item = &(Threshold, Routed)> {
        let notices = self.notices.iter().filter(move |notices| notices.hour == hour);
        notices.flat_map(|notices| &notices.events)
    }
}

/// An event and where it goes.
#[derive(Debug, Clone)]
pub struct Routed {
    /// The event.
    pub event: Arc<SealedEvent>,
    /// The lanes of the subscriptions that it goes to, ascending, each once.
    pub lanes: Arc<[LaneId]>,
    /// Whom it is for.
    pub audience: Audience,
    /// The intake row it came from.
    pub intake: Option<IntakeRow>,
}

impl Publish {
    /// Whether its events have so many deliveries together that each of them is fanned out.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.events.iter().map(|routed| routed.lanes.len()).sum::<usize>() > UNIT_ABOVE
    }
}

impl Routed {
    /// An event for all subscriptions that match.
    #[must_use]
    pub const fn new(event: Arc<SealedEvent>, lanes: Arc<[LaneId]>) -> Self {
        Self { event, lanes, audience: Audience::Matching, intake: None }
    }
}

/// Whom an event is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Audience {
    /// Every subscription whose patterns match.
    #[default]
    Matching,
    /// Every one of them but this.
    Except(LaneId),
    /// This subscription alone, whatever its patterns are.
    Only(LaneId),
}

impl Audience {
    /// Whether the event may go to this lane at all; a replay goes by that, too.
    #[must_use]
    pub fn includes(&self, lane: LaneId) -> bool {
        match *self {
            Self::Matching => true,
            Self::Except(other) => lane != other,
            Self::Only(one) => lane == one,
        }
    }
}

/// An event that goes to more lanes is fanned out.
pub const FAN_OUT_ABOVE: usize = 1000;

/// A unit of more deliveries is too much for one commit, which others wait for.
const UNIT_ABOVE: usize = 8 * FAN_OUT_ABOVE;

/// A fan-out that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FanOut {
    /// The event's place.
    pub seq: Seq,
    /// The event.
    pub event: Arc<SealedEvent>,
    /// Up to this lane it is expanded.
    pub after: LaneId,
    /// The last lane it was routed to. Lanes are numbered in the order of creation, so those above
    /// were made later, and it is not for them.
    pub last: LaneId,
    /// The subscription that it is not for although it may match.
    pub except: Option<LaneId>,
}

/// A slice of a fan-out: the event is owed to these lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expand {
    /// Whose event it is.
    pub organization: OrganizationId,
    /// Its place.
    pub seq: Seq,
    /// The version of the organization's subscriptions that the lanes were found with.
    pub route_version: RouteVersion,
    /// Where the fan-out stands.
    pub after: LaneId,
    /// The lanes of the slice, ascending, each once.
    pub lanes: Arc<[LaneId]>,
    /// Where it stands after this; `None` if this was the last slice.
    pub next: Option<LaneId>,
}

/// How often the subscriptions of an organization have changed in a way that routing must know: one
/// was created or deleted, or its patterns changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteVersion(pub u64);

/// A caller's word that two requests are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The caller's key, 1 to 255 characters of visible ASCII.
    pub key: String,
    /// A digest of the request's body: another body under the same key is refused.
    pub fingerprint: [u8; 32],
}

/// The place of an intake row. Names the event, too, so that a number used again hits nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IntakeRow(pub i64);

/// What became of some deliveries of one worker's lanes.
#[derive(Debug, Clone)]
pub struct Settle {
    /// Who says so.
    pub worker: Worker,
    /// The deliveries.
    pub settlements: Vec<Settlement>,
    /// The state of lanes where it changed.
    pub lanes: Vec<(LaneId, LaneState)>,
    /// Subscriptions that ESL makes inactive.
    pub switch_offs: Vec<SwitchOff>,
}

/// What became of one delivery.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Its lane.
    pub lane: LaneId,
    /// Its event.
    pub seq: Seq,
    /// What happens next.
    pub outcome: Outcome,
    /// How many attempts were made in all.
    pub attempts: u32,
    /// How many of them count against the budget.
    pub charged: u32,
    /// When the last one was over.
    pub at: Timestamp,
    /// The HTTP status of the last attempt, if it got one; what stands there stays if not.
    pub status: Option<u16>,
    /// What went wrong at the last attempt.
    pub error: Option<AttemptError>,
    /// The attempts to be kept: none for a success at the first try.
    pub log: Vec<Attempt>,
}

impl Settlement {
    /// How many attempts had been made before those that it speaks of. A delivery that has had more is
    /// not the one that it was made for.
    #[must_use]
    pub fn attempts_before(&self) -> u32 {
        // A success at the first try is not in the log.
        let is_unlogged = self.log.is_empty() && self.outcome == Outcome::Delivered;
        let logged = u32::try_from(self.log.len()).unwrap_or(u32::MAX);
        self.attempts.saturating_sub(logged + u32::from(is_unlogged))
    }
}

/// What happens to a delivery after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is done.
    Delivered,
    /// It stays open and is due at that time.
    RetryAt(Timestamp),
    /// It is given up.
    Exhausted,
}

/// A subscription that ESL makes inactive, as [`Subscription::switched_off`] says; one that is
/// inactive already stays as it is.
///
/// [`Subscription::switched_off`]: crate::Subscription::switched_off
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwitchOff {
    /// Its lane.
    pub lane: LaneId,
    /// Why.
    pub reason: DisabledReason,
}

/// What a committed unit led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// Its events, in order.
    pub events: Vec<Accepted>,
    /// The notices that were stored after them.
    pub notices: Vec<(Threshold, Accepted)>,
    /// What the organization has used with this, if the unit was metered.
    pub usage: Option<Usage>,
    /// Whether the event of its slice was erased: its deliveries are cancelled, and not to be sent.
    pub is_cancelled: bool,
}

/// An event that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Its id.
    pub id: EventId,
    /// Its place in its organization.
    pub seq: Seq,
    /// To how many subscriptions it goes.
    pub deliveries: u32,
    /// Whether it was there before: its deliveries are under way or over.
    pub repeated: bool,
    /// Whether its deliveries come to be later, in slices.
    pub fanned_out: bool,
}

/// Why a unit was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Routed with a version that is no longer current: read the routes and try again.
    #[error("the organization's subscriptions have changed")]
    Rerouted,
    /// There is no such organization.
    #[error("there is no organization {0}")]
    UnknownOrganization(OrganizationId),
    /// An event of that id exists with other content.
    #[error("event {0} exists with other content")]
    EventConflict(EventId),
    /// The event was in the intake, and was erased there before it was moved.
    #[error("event {0} is not in the intake any more")]
    IntakeGone(EventId),
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    IdempotencyConflict,
    /// More than the organization may publish in this hour.
    #[error("the organization may not publish so much in this hour")]
    OverLimit(Usage),
    /// It comes to a threshold whose notice it does not carry: add the notices and try again.
    #[error("the organization is to be told how much it has published")]
    Crosses(Usage),
    /// The fan-out stands elsewhere, or another one comes first.
    #[error("another slice is next")]
    OutOfTurn,
    /// The worker's epoch is over.
    #[error("the worker's epoch is over")]
    StaleEpoch,
    /// The entity is not as the writer has read it: read it anew and try again.
    #[error("{0} has changed")]
    Stale(EntityKey),
    /// More would refer to the entity than may.
    #[error("{0} has as many that refer to it as it may")]
    TooManyReferences(EntityKey),
}

/// An event as storage gives it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its id.
    pub id: EventId,
    /// Its type.
    pub event_type: EventType,
    /// Its place in its organization.
    pub seq: Seq,
    /// When it was sealed.
    pub timestamp: Timestamp,
    /// To how many subscriptions it went.
    pub deliveries: u32,
    /// The sealed envelope.
    pub body: bytes::Bytes,
    /// What was left out of the envelope; see [`SealedEvent::changes`].
    pub changes: Option<bytes::Bytes>,
    /// When it was erased; the envelope then says nothing.
    pub erased_at: Option<Timestamp>,
}
