//! Subscriptions: who wants which events, where, signed with what.

mod headers;
mod json_object;
mod masking;
mod options;
mod rotation;

use std::time::Duration;

pub use self::{
    headers::{CustomHeaderError, CustomHeaders},
    json_object::{JsonObject, JsonObjectError},
    options::{OnExhausted, OptionsUpdate, SendOrder, SubscriptionOptions},
    rotation::{RetiringSecret, RotationUnderWay, SecretChange},
};
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
    /// What they were signed with before, while a rotation gives receivers time to change.
    pub retiring: Option<RetiringSecret>,
    /// While false, its deliveries are held.
    pub active: bool,
    /// Why ESL itself made it inactive; `None` if a person did, or if it is active.
    pub disabled_reason: Option<DisabledReason>,
    /// Since when it is inactive.
    pub held_since: Option<Timestamp>,
    /// After it was inactive for longer than [`HELD_MAX`]: what came to be owed by then is being
    /// expired, and until that is done nothing is sent.
    pub expiring: Option<Timestamp>,
    /// How its deliveries are made, and its owner's notes.
    pub options: SubscriptionOptions,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Subscription {
    /// A subscription as it is made. Storage gives it its lane.
    #[must_use]
    pub fn new(
        id: SubscriptionId,
        organization: OrganizationId,
        new: NewSubscription,
        secret: Secret,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            lane: LaneId::new(0),
            organization,
            callback_url: new.callback_url,
            events: new.events,
            secret,
            retiring: None,
            active: new.active,
            disabled_reason: None,
            held_since: (!new.active).then_some(now),
            expiring: None,
            options: new.options,
            created_at: now,
            updated_at: now,
        }
    }

    /// Whether its patterns take events of this type.
    #[must_use]
    pub fn wants(&self, event_type: &EventType) -> bool {
        self.events.iter().any(|pattern| pattern.matches(event_type))
    }

    /// Whether its deliveries may be handed out.
    #[must_use]
    pub const fn is_sending(&self) -> bool {
        self.active && self.expiring.is_none()
    }

    /// Up to when its deliveries came to be owed that are to be expired; `None` if there are none.
    #[must_use]
    pub fn expires_until(&self, now: Timestamp) -> Option<Timestamp> {
        expires_until(self.held_since, self.expiring, now)
    }

    /// The subscription with an update in force at `now`, but for
    /// [`updated_at`](Self::updated_at). Equal to itself if the update changes nothing.
    ///
    /// # Errors
    /// When it would rotate the secret while a rotation is under way.
    pub fn with_update(
        &self,
        update: SubscriptionUpdate,
        now: Timestamp,
    ) -> Result<Self, RotationUnderWay> {
        let mut updated = self.clone();
        if let Some(callback_url) = update.callback_url {
            updated.callback_url = callback_url;
        }
        if let Some(events) = update.events {
            updated.events = events;
        }
        if let Some(active) = update.active {
            updated.set_active(active, now);
        }
        if let Some(change) = update.secret {
            updated.change_secret(change, now)?;
        }
        updated.options.update(update.options);
        Ok(updated)
    }

    /// The subscription after ESL has switched it off; equal to itself if it is inactive.
    #[must_use]
    pub fn switched_off(&self, reason: DisabledReason, now: Timestamp) -> Self {
        let mut updated = self.clone();
        if self.active {
            updated.set_active(false, now);
            updated.disabled_reason = Some(reason);
        }
        updated
    }

    fn set_active(&mut self, active: bool, now: Timestamp) {
        if active {
            self.expiring = self.expires_until(now);
            self.held_since = None;
            self.disabled_reason = None;
        } else if self.active {
            self.held_since = Some(now);
        }
        self.active = active;
    }
}

/// [`Subscription::expires_until`], of one of which a storage has read no more than it takes.
#[must_use]
pub fn expires_until(
    held_since: Option<Timestamp>,
    expiring: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    let held_for = held_since.map_or(Duration::ZERO, |since| now.since(since));
    let is_held_too_long = held_for >= HELD_MAX;
    expiring.max(is_held_too_long.then(|| now - HELD_MAX))
}

/// Deliveries that were held for longer are expired.
pub const HELD_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Why ESL switched a subscription off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DisabledReason {
    /// The receiver answered 410 Gone.
    Gone,
    /// For days nothing but failures.
    Failing,
    /// A delivery has used up its retries, and [`OnExhausted::Pause`] says to stop then.
    Exhausted,
}

impl DisabledReason {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Gone, Self::Failing, Self::Exhausted];

    /// Its stable spelling, as stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Failing => "failing",
            Self::Exhausted => "exhausted",
        }
    }

    /// Reads [`as_str`](Self::as_str) back.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
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
    /// How to send, and notes.
    pub options: SubscriptionOptions,
}

impl NewSubscription {
    /// An active subscription with a generated secret.
    #[must_use]
    pub fn new(callback_url: CallbackUrl, events: Vec<EventPattern>) -> Self {
        Self {
            callback_url,
            events,
            secret: None,
            active: true,
            options: SubscriptionOptions::default(),
        }
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

    /// Sends in another than the engine's own way.
    #[must_use]
    pub fn with_options(mut self, options: SubscriptionOptions) -> Self {
        self.options = options;
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
    /// Begin or finish a rotation of the secret.
    pub secret: Option<SecretChange>,
    /// Other ways of sending, other notes.
    pub options: OptionsUpdate,
}
