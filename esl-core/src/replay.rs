//! Replays: sending many events of a subscription again, or for the first time.

use std::num::NonZeroU32;

use crate::{DeliveryState, LaneId, OrganizationId, ReplayId, Seq, SubscriptionId, Timestamp};

/// A replay, as it stands.
///
/// It walks the events of its range by seq, at its pace, and opens a delivery of each that it is of.
/// What it opens is sent beside what is new; neither keeps the other waiting for long.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replay {
    /// Its name.
    pub id: ReplayId,
    /// Its number in storage, in the order of creation.
    pub number: ReplayNumber,
    /// Whose events it sends.
    pub organization: OrganizationId,
    /// To whom.
    pub subscription: SubscriptionId,
    /// The subscription's lane.
    pub lane: LaneId,
    /// Which events.
    pub of: ReplayOf,
    /// Between which bounds. The upper seq is fixed when it is made, so it comes to an end.
    pub range: ReplayRange,
    /// Deliveries opened in a second at most.
    pub max_per_second: NonZeroU32,
    /// How it stands.
    pub state: ReplayState,
    /// Up to this seq it has looked.
    pub position: Seq,
    /// How many deliveries it has opened.
    pub opened: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was done or cancelled.
    pub finished_at: Option<Timestamp>,
}

/// The place of a replay in the order of creation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplayNumber(pub u64);

/// Which events a replay sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayOf {
    /// Events that match the subscription's patterns as they are now, and that it has no delivery
    /// of: an endpoint that came later catches up.
    Missing,
    /// Deliveries that ended so; each is opened again, as a redelivery does.
    Deliveries {
        /// Those that used up their retries.
        exhausted: bool,
        /// Those that were held for too long.
        expired: bool,
        /// Those that the receiver accepted: it has lost what it got.
        delivered: bool,
    },
}

impl ReplayOf {
    /// What was not delivered although it was owed.
    pub const UNDELIVERED: Self =
        Self::Deliveries { exhausted: true, expired: true, delivered: false };

    /// Whether deliveries that ended so are sent again.
    #[must_use]
    pub const fn includes(&self, state: DeliveryState) -> bool {
        match (self, state) {
            (Self::Deliveries { exhausted, .. }, DeliveryState::Exhausted) => *exhausted,
            (Self::Deliveries { expired, .. }, DeliveryState::Expired) => *expired,
            (Self::Deliveries { delivered, .. }, DeliveryState::Delivered) => *delivered,
            _ => false,
        }
    }
}

/// The bounds of a replay, inclusive; an event is within them if all hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayRange {
    /// From this seq on.
    pub from: Seq,
    /// Up to this seq.
    pub to: Seq,
    /// Sealed at this time or later.
    pub since: Option<Timestamp>,
    /// Sealed at this time or before.
    pub until: Option<Timestamp>,
}

impl ReplayRange {
    /// Everything.
    pub const ALL: Self = Self { from: Seq::ZERO, to: Seq::MAX, since: None, until: None };

    /// Whether an event sealed at that time is within the bounds of time.
    #[must_use]
    pub fn covers(&self, timestamp: Timestamp) -> bool {
        self.since.is_none_or(|since| timestamp >= since)
            && self.until.is_none_or(|until| timestamp <= until)
    }
}

/// How a replay stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplayState {
    /// It goes on, or waits for its receiver.
    Running,
    /// It has opened everything.
    Done,
    /// Somebody has stopped it, or its subscription was deleted.
    Cancelled,
}

impl ReplayState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Running, Self::Done, Self::Cancelled];

    /// Its stable spelling, as stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads [`as_str`](Self::as_str) back.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// What a caller says of a replay to be made.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct NewReplay {
    /// Which events.
    pub of: ReplayOf,
    /// Between which bounds.
    pub range: ReplayRange,
    /// Deliveries opened in a second at most.
    pub max_per_second: NonZeroU32,
}

impl NewReplay {
    /// How many deliveries a second are opened where nothing else is said: quick, and what a small
    /// receiver stands.
    pub const PER_SECOND_DEFAULT: NonZeroU32 = NonZeroU32::new(100).expect("it is not zero");
    /// The highest pace.
    pub const PER_SECOND_MAX: u32 = 100_000;

    /// A replay of everything that it can be of.
    #[must_use]
    pub const fn new(of: ReplayOf) -> Self {
        Self { of, range: ReplayRange::ALL, max_per_second: Self::PER_SECOND_DEFAULT }
    }

    /// Only between these bounds.
    #[must_use]
    pub const fn within(mut self, range: ReplayRange) -> Self {
        self.range = range;
        self
    }

    /// At this pace.
    #[must_use]
    pub const fn with_max_per_second(mut self, deliveries: NonZeroU32) -> Self {
        self.max_per_second = deliveries;
        self
    }
}

impl Replay {
    /// With its subscription, one that still runs is cancelled. To be called of what a storage reads, which
    /// notes a deletion at the subscription alone.
    pub const fn end_with_subscription(&mut self, deleted_at: Option<Timestamp>) {
        if deleted_at.is_some() && matches!(self.state, ReplayState::Running) {
            self.state = ReplayState::Cancelled;
            self.finished_at = deleted_at;
        }
    }

    /// A replay as it is made. Storage gives it its number, its lane and the end of its range.
    #[must_use]
    pub const fn new(
        id: ReplayId,
        organization: OrganizationId,
        subscription: SubscriptionId,
        new: NewReplay,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            number: ReplayNumber(0),
            organization,
            subscription,
            lane: LaneId::new(0),
            of: new.of,
            range: new.range,
            max_per_second: new.max_per_second,
            state: ReplayState::Running,
            position: Seq::new(new.range.from.get().saturating_sub(1)),
            opened: 0,
            created_at: now,
            finished_at: None,
        }
    }
}
