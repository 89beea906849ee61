//! Subscriptions: who wants which events, where, signed with what.

use crate::{
    CallbackUrl, EventPattern, EventType, LaneId, OrganizationId, Secret, SubscriptionId, Timestamp,
};

/// A standing wish of one organization to have its events of some types POSTed to one URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Its name to the outside.
    pub id: SubscriptionId,
    /// Its number to the engine: the lane that its deliveries wait in.
    pub lane: LaneId,
    /// Whose events it gets.
    pub organization: OrganizationId,
    /// Where they are sent.
    pub callback_url: CallbackUrl,
    /// Which of them; at least one pattern.
    pub events: Vec<EventPattern>,
    /// What they are signed with.
    pub secret: Secret,
    /// While false, its deliveries are held.
    pub active: bool,
    /// Why ESL itself made it inactive; `None` if a person did, or if it is active.
    pub disabled_reason: Option<DisabledReason>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Subscription {
    /// Whether its patterns take events of this type.
    #[must_use]
    pub fn wants(&self, event_type: &EventType) -> bool {
        self.events.iter().any(|pattern| pattern.matches(event_type))
    }

    /// The subscription with an update in force, but for [`updated_at`](Self::updated_at). Equal to
    /// itself if the update changes nothing.
    #[must_use]
    pub fn with_update(&self, update: SubscriptionUpdate) -> Self {
        let mut updated = self.clone();
        if let Some(callback_url) = update.callback_url {
            updated.callback_url = callback_url;
        }
        if let Some(events) = update.events {
            updated.events = events;
        }
        if let Some(active) = update.active {
            updated.active = active;
        }
        if updated.active {
            updated.disabled_reason = None;
        }
        updated
    }
}

/// Why ESL switched a subscription off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DisabledReason {
    /// The receiver answered 410 Gone.
    Gone,
    /// For days nothing but failures.
    Failing,
}

impl DisabledReason {
    /// Its stable spelling, as stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Failing => "failing",
        }
    }

    /// Reads [`as_str`](Self::as_str) back.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Gone, Self::Failing].into_iter().find(|reason| reason.as_str() == name)
    }
}

/// What a caller says of a subscription to be made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewSubscription {
    /// Where to send.
    pub callback_url: CallbackUrl,
    /// What to send; at least one pattern.
    pub events: Vec<EventPattern>,
    /// What to sign with; generated when `None`.
    pub secret: Option<Secret>,
    /// Whether to send from the start. Defaults to true.
    pub active: bool,
}

impl NewSubscription {
    /// An active subscription with a generated secret.
    #[must_use]
    pub fn new(callback_url: CallbackUrl, events: Vec<EventPattern>) -> Self {
        Self { callback_url, events, secret: None, active: true }
    }

    /// Signs with this secret instead of a generated one.
    #[must_use]
    pub fn with_secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Holds its deliveries until it is made active.
    #[must_use]
    pub fn with_active(mut self, active: bool) -> Self {
        self.active = active;
        self
    }
}

/// What a caller changes of a subscription; `None` leaves a thing as it is.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SubscriptionUpdate {
    /// A new address.
    pub callback_url: Option<CallbackUrl>,
    /// New patterns, in place of all the old ones.
    pub events: Option<Vec<EventPattern>>,
    /// Pause (false) or resume (true). Resuming also clears [`Subscription::disabled_reason`].
    pub active: Option<bool>,
}
