//! Subscriptions.

use std::{collections::BTreeMap, fmt, num::NonZeroU32, time::Duration};

use esl_core::{DeliveryId, EventId, Secret, Seq, SubscriptionId, Timestamp};
use reqwest::Method;
use serde::{Deserialize, Serialize, Serializer};

use super::{Client, ClientError, ClientErrorKind, List, wire};

impl Client {
    /// Subscribes a URL to events. An event whose publishing begins after this is delivered to it.
    ///
    /// Not repeated where it is not known whether it was done: it might be there twice.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn subscribe(&self, new: &NewSubscription) -> Result<Subscription, ClientError> {
        self.call(Method::POST, SUBSCRIPTIONS).json(new).send().await?.json()
    }

    /// The subscriptions, in the order of creation.
    pub fn subscriptions(&self) -> List<Subscription> {
        self.list(SUBSCRIPTIONS)
    }

    /// A subscription, and how its receiver fares.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn subscription(
        &self,
        id: SubscriptionId,
    ) -> Result<SubscriptionDetail, ClientError> {
        self.get(&one(id)).await
    }

    /// Changes what `update` names.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn update_subscription(
        &self,
        id: SubscriptionId,
        update: &SubscriptionUpdate,
    ) -> Result<Subscription, ClientError> {
        // Members are replaced as a whole: twice is like once.
        self.call(Method::PATCH, &one(id)).json(update).repeatable().send().await?.json()
    }

    /// Holds what is to be delivered, until [`resume`](Self::resume); after seven days it is expired.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn pause(&self, id: SubscriptionId) -> Result<Subscription, ClientError> {
        self.update_subscription(id, &SubscriptionUpdate::default().with_active(false)).await
    }

    /// Sends what was held, in order; also after the service has switched the subscription off.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn resume(&self, id: SubscriptionId) -> Result<Subscription, ClientError> {
        self.update_subscription(id, &SubscriptionUpdate::default().with_active(true)).await
    }

    /// Deletes a subscription. What was not delivered yet is cancelled.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_subscription(&self, id: SubscriptionId) -> Result<(), ClientError> {
        match self.call(Method::DELETE, &one(id)).send().await {
            Ok(_) => Ok(()),
            // One of the tries before has done it, and its answer was lost.
            Err(error) if error.kind() == ClientErrorKind::NotFound && error.tries() > 1 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Changes the secret: until the grace is over, deliveries are signed with both. Not repeated where it is
    /// not known whether it was done.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn rotate_secret(
        &self,
        id: SubscriptionId,
        rotation: &Rotation,
    ) -> Result<Subscription, ClientError> {
        let path = format!("{}/rotate-secret", one(id));
        self.call(Method::POST, &path).json(rotation).send().await?.json()
    }

    /// Ends the grace of a rotation: the old secret signs no more.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn finish_rotation(&self, id: SubscriptionId) -> Result<Subscription, ClientError> {
        let path = format!("{}/rotate-secret", one(id));
        let finish = serde_json::json!({ "finish": true });
        self.call(Method::POST, &path).json(&finish).repeatable().send().await?.json()
    }

    /// Sends a test event to a subscription. Its [`delivery`](Self::delivery) says what became of it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn ping(&self, id: SubscriptionId) -> Result<Ping, ClientError> {
        self.post(&format!("{}/ping", one(id))).await
    }
}

pub(super) fn one(id: SubscriptionId) -> String {
    format!("{SUBSCRIPTIONS}/{id}")
}

const SUBSCRIPTIONS: &str = "/api/v1/subscriptions";

/// A subscription to be made. What is not said has the service's default.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct NewSubscription {
    /// Where events are sent.
    pub callback_url: String,
    /// Which: types (`person.updated`), everything below a name (`person.*`), or `*`.
    pub events: Vec<String>,
    /// What they are signed with; generated if left out.
    #[serde(serialize_with = "wire::write_secret", skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// Whether they are sent at once; otherwise they are held until it is resumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// How they are sent.
    #[serde(flatten)]
    pub options: SubscriptionOptions,
}

impl NewSubscription {
    /// A URL, and the events that it gets.
    #[must_use]
    pub fn new<P: Into<String>>(
        callback_url: impl Into<String>,
        events: impl IntoIterator<Item = P>,
    ) -> Self {
        Self {
            callback_url: callback_url.into(),
            events: events.into_iter().map(Into::into).collect(),
            secret: None,
            active: None,
            options: SubscriptionOptions::default(),
        }
    }

    /// With a secret of one's own.
    #[must_use]
    pub fn with_secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// With options.
    #[must_use]
    pub fn with_options(mut self, options: SubscriptionOptions) -> Self {
        self.options = options;
        self
    }

    /// Held, until it is resumed.
    #[must_use]
    pub const fn paused(mut self) -> Self {
        self.active = Some(false);
        self
    }
}

/// How events are sent to a subscription. What is `None` has the service's default.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SubscriptionOptions {
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its owner's own data: an object of JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<serde_json::Value>,
    /// Headers that go with every delivery. Where they are read, `***` stands in place of the values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The delays before the retries, in milliseconds: there are as many as delays.
    #[serde(rename = "retry_schedule", skip_serializing_if = "Option::is_none")]
    pub retry_schedule_ms: Option<Vec<u64>>,
    /// The deadline of an attempt, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// How many sends begin in a second, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_per_second: Option<NonZeroU32>,
    /// How many sends are under way at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<NonZeroU32>,
    /// Whether each event waits for the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordering: Option<Ordering>,
    /// What happens when a delivery has used up its retries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_exhausted: Option<OnExhausted>,
}

/// Hides the values of headers: they may be what the receiver knows the service by.
impl fmt::Debug for SubscriptionOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionOptions")
            .field("description", &self.description)
            .field("metadata", &self.metadata)
            .field("headers", &self.headers.keys())
            .field("retry_schedule_ms", &self.retry_schedule_ms)
            .field("timeout_ms", &self.timeout_ms)
            .field("max_per_second", &self.max_per_second)
            .field("max_in_flight", &self.max_in_flight)
            .field("ordering", &self.ordering)
            .field("on_exhausted", &self.on_exhausted)
            .finish()
    }
}

/// Whether each event waits for the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ordering {
    /// Several are sent at a time.
    Parallel,
    /// One at a time, by `seq`.
    Strict,
    /// A word that this version of the client does not know.
    #[serde(other, skip_serializing)]
    Other,
}

/// What happens when a delivery has used up its retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnExhausted {
    /// The next is sent.
    Skip,
    /// The subscription is switched off.
    Pause,
    /// A word that this version of the client does not know.
    #[serde(other, skip_serializing)]
    Other,
}

/// What is to change of a subscription; what is not said stays.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct SubscriptionUpdate {
    /// Where events are sent from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callback_url: Option<String>,
    /// Which, of what is published from now on; all of them at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<String>>,
    /// Whether they are sent, or held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// Options that get another value.
    #[serde(flatten)]
    pub options: SubscriptionOptions,
    /// The names of options that go back to their defaults, such as `timeout_ms`.
    #[serde(flatten, serialize_with = "as_nulls")]
    pub back_to_default: Vec<&'static str>,
}

fn as_nulls<S: Serializer>(names: &[&'static str], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(names.iter().map(|name| (*name, ())))
}

impl SubscriptionUpdate {
    /// Sends events elsewhere.
    #[must_use]
    pub fn with_callback_url(mut self, callback_url: impl Into<String>) -> Self {
        self.callback_url = Some(callback_url.into());
        self
    }

    /// Sends other events.
    #[must_use]
    pub fn with_events<P: Into<String>>(mut self, events: impl IntoIterator<Item = P>) -> Self {
        self.events = Some(events.into_iter().map(Into::into).collect());
        self
    }

    /// Sends them, or holds them.
    #[must_use]
    pub const fn with_active(mut self, active: bool) -> Self {
        self.active = Some(active);
        self
    }

    /// Gives options another value.
    #[must_use]
    pub fn with_options(mut self, options: SubscriptionOptions) -> Self {
        self.options = options;
        self
    }

    /// Takes an option, by its name in the API, back to its default.
    #[must_use]
    pub fn without(mut self, option: &'static str) -> Self {
        self.back_to_default.push(option);
        self
    }
}

/// How a secret is changed.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct Rotation {
    /// The new secret; generated if left out.
    #[serde(serialize_with = "wire::write_secret", skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// For how long the old one signs, too, to the second; a day if left out.
    #[serde(
        rename = "grace_seconds",
        serialize_with = "seconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub grace: Option<Duration>,
}

fn seconds<S: Serializer>(grace: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    grace.map(|grace| grace.as_secs()).serialize(serializer)
}

impl Rotation {
    /// To a secret of one's own.
    #[must_use]
    pub fn with_secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// With another grace than a day.
    #[must_use]
    pub const fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }
}

/// A subscription.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct Subscription {
    /// Its id.
    pub id: SubscriptionId,
    /// Where events are sent.
    pub callback_url: String,
    /// Which.
    pub events: Vec<String>,
    /// What they are signed with: only in the answer that made it, if it was generated.
    #[serde(default, deserialize_with = "wire::secret")]
    pub secret: Option<Secret>,
    /// Whether they are sent, or held.
    pub active: bool,
    /// Why the service has switched it off.
    pub disabled_reason: Option<DisabledReason>,
    /// Until when the secret before this one signs, too.
    pub rotation_ends_at: Option<Timestamp>,
    /// How they are sent.
    #[serde(flatten)]
    pub options: SubscriptionOptions,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// Why the service has switched a subscription off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DisabledReason {
    /// Its receiver has answered 410.
    Gone,
    /// It has failed for five days.
    Failing,
    /// A delivery has used up its retries, and [`OnExhausted`] is `Pause`.
    Exhausted,
    /// A word that this version of the client does not know.
    #[serde(other)]
    Other,
}

/// A subscription, and how its receiver fares.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct SubscriptionDetail {
    /// The subscription.
    #[serde(flatten)]
    pub subscription: Subscription,
    /// How its receiver fares.
    pub health: ReceiverHealth,
}

/// How a receiver fares.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct ReceiverHealth {
    /// In a word.
    pub state: ReceiverState,
    /// Since when there was nothing but failures.
    pub failing_since: Option<Timestamp>,
    /// When it last took a delivery, to the hour.
    pub last_success_at: Option<Timestamp>,
    /// Before when nothing is sent, because the receiver asked for it, or has failed too often.
    pub next_attempt_not_before: Option<Timestamp>,
    /// How much is pending or held, up to 100 000.
    pub waiting: u64,
    /// When the first of it was due, or is.
    pub oldest_due_at: Option<Timestamp>,
}

/// How a receiver fares, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReceiverState {
    /// Its last answer was good, or there was none yet.
    Healthy,
    /// Nothing but failures.
    Failing,
    /// So many failures that one delivery at a time is tried.
    CircuitOpen,
    /// A word that this version of the client does not know.
    #[serde(other)]
    Other,
}

/// A test event that was sent.
#[derive(Debug, Clone, Copy, Deserialize)]
#[non_exhaustive]
pub struct Ping {
    /// The event.
    pub id: EventId,
    /// Its place among the organization's events.
    #[serde(deserialize_with = "wire::seq")]
    pub seq: Seq,
    /// Its delivery.
    pub delivery_id: DeliveryId,
}
