//! Deliveries: one event on its way to one subscription, and the attempts made at it.
//!
//! ```text
//!              commit                      2xx
//!   (nothing) ────────▶ pending ─────────────────────▶ delivered
//!                       ▲  │ ▲ └── attempts used up ─▶ exhausted ──┐
//!           resume      │  │ │                                     │ redeliver
//!       ┌───────────────┘  │ └─────────────────────────────────────┤ (fresh budget)
//!       │    pause         │                                       │
//!      held ◀──────────────┤           held for 7 days             │
//!       │ └────────────────┼──────────────────────────▶ expired ───┘
//!       │ delete           │ delete
//!       └──────────────────┴──────────────────────────▶ cancelled
//! ```
//!
//! An **open** delivery (pending, held) is a row that says when it is due. Which of the two it is
//! follows from its subscription when it is read; nothing is rewritten by a pause. A **closed** one
//! (the others) says how it ended. A delivery is always exactly one of the two.

use std::time::Duration;

use crate::{DeliveryId, EventId, EventType, Seq, SubscriptionId, Timestamp};

/// Where a delivery stands; the drawing is in the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeliveryState {
    /// Owed; sent as soon as it is due and its lane has room.
    Pending,
    /// Owed, but its subscription is paused.
    Held,
    /// The receiver said 2xx.
    Delivered,
    /// Every attempt that the retry policy allows has failed.
    Exhausted,
    /// Held for too long.
    Expired,
    /// Its subscription was deleted, or its event erased.
    Cancelled,
}

impl DeliveryState {
    /// All of them, for lists and parsing.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Held,
        Self::Delivered,
        Self::Exhausted,
        Self::Expired,
        Self::Cancelled,
    ];

    /// Its stable spelling, as shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Held => "held",
            Self::Delivered => "delivered",
            Self::Exhausted => "exhausted",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads [`as_str`](Self::as_str) back.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether the event is still owed to the receiver.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Held)
    }
}

/// A delivery as its organization sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its name, sent as `X-Sapien-Delivery` with every attempt.
    pub id: DeliveryId,
    /// What is delivered.
    pub event_id: EventId,
    /// The event's type.
    pub event_type: EventType,
    /// To whom.
    pub subscription_id: SubscriptionId,
    /// The event's place in its organization.
    pub seq: Seq,
    /// Where it stands.
    pub state: DeliveryState,
    /// How many attempts were made, those included that the retry policy did not charge.
    pub attempts: u32,
    /// When it came to be owed.
    pub created_at: Timestamp,
    /// When it is next due: not before its lane's receiver may get something. `None` unless it is
    /// pending.
    pub next_attempt_at: Option<Timestamp>,
    /// When it reached the state it has; `None` while it is open.
    pub finished_at: Option<Timestamp>,
    /// The HTTP status of the last attempt that got one.
    pub last_status: Option<u16>,
    /// What went wrong at the last attempt.
    pub last_error: Option<AttemptError>,
}

/// One try at sending, kept from a delivery's first failure on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// 1, 2, 3 …; goes on after a redelivery.
    pub number: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// The receiver's status, if it answered.
    pub status: Option<u16>,
    /// What went wrong; `None` after a 2xx.
    pub error: Option<AttemptError>,
    /// The beginning of what a receiver said as it refused, 1 KiB at most; or, where nothing was
    /// said, what our side knows of the failure.
    pub detail: Option<String>,
    /// Whether it was the probe of an open circuit.
    pub probe: bool,
    /// Whether it counts against the retry budget.
    pub charged: bool,
    /// Where its time went.
    pub timings: Timings,
}

/// What went wrong at an attempt: a closed list with stable spellings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttemptError {
    /// The receiver answered, but not with 2xx; the status says what.
    Status,
    /// The URL leads to an address that ESL must not call.
    RefusedAddress,
    /// The host's name could not be resolved.
    Dns,
    /// No connection came about.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// The time for the attempt was over.
    Timeout,
    /// The connection broke, or what came over it was not HTTP.
    Reset,
    /// A pooled connection turned out to be closed before a byte was answered.
    StaleConnection,
    /// The answer's head was larger than ESL reads.
    TooLarge,
    /// Our own way out was closed, such as the proxy that all deliveries go through: nothing was
    /// asked of the receiver. Not an attempt: neither counted nor logged.
    Unsent,
}

impl AttemptError {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Status,
        Self::RefusedAddress,
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Reset,
        Self::StaleConnection,
        Self::TooLarge,
        Self::Unsent,
    ];

    /// Its stable spelling, as stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::RefusedAddress => "refused_address",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::StaleConnection => "stale_connection",
            Self::TooLarge => "too_large",
            Self::Unsent => "unsent",
        }
    }

    /// Reads [`as_str`](Self::as_str) back.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|error| error.as_str() == name)
    }
}

/// Where an attempt's time went. A part that did not take place (a pooled connection resolves,
/// connects and shakes hands with nobody) is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Finding the host's addresses.
    pub resolve: Option<Duration>,
    /// Opening the TCP connection.
    pub connect: Option<Duration>,
    /// The TLS handshake.
    pub tls: Option<Duration>,
    /// From the start of the attempt to the head of the answer.
    pub first_byte: Option<Duration>,
    /// The whole attempt.
    pub total: Duration,
}
