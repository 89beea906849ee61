//! Replays: sending many deliveries again.

use std::num::NonZeroU32;

use esl_core::{ReplayId, Seq, SubscriptionId, Timestamp};
use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::{Client, ClientError, List, subscriptions, wire};

impl Client {
    /// Begins a replay to a subscription. Not repeated where it is not known whether it was done: then one is
    /// running, and a second a conflict.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn replay(
        &self,
        subscription: SubscriptionId,
        new: &NewReplay,
    ) -> Result<Replay, ClientError> {
        self.call(Method::POST, &path(subscription)).json(new).send().await?.json()
    }

    /// Counts what a replay would send, and sends nothing.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn count_replay(
        &self,
        subscription: SubscriptionId,
        new: &NewReplay,
    ) -> Result<u64, ClientError> {
        #[derive(Serialize)]
        struct Dry<'a> {
            #[serde(flatten)]
            new: &'a NewReplay,
            dry_run: bool,
        }

        #[derive(Deserialize)]
        struct Counted {
            count: u64,
        }

        let call = self.call(Method::POST, &path(subscription)).repeatable();
        let Counted { count } = call.json(&Dry { new, dry_run: true }).send().await?.json()?;
        Ok(count)
    }

    /// The replays to a subscription, newest first.
    pub fn replays(&self, subscription: SubscriptionId) -> List<Replay> {
        self.list(&format!("{}/replays", subscriptions::one(subscription)))
    }

    /// A replay: how far it is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn replay_status(&self, id: ReplayId) -> Result<Replay, ClientError> {
        self.get(&format!("/api/v1/replays/{id}")).await
    }

    /// Stops a replay; one that is over already stays as it is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn cancel_replay(&self, id: ReplayId) -> Result<Replay, ClientError> {
        let path = format!("/api/v1/replays/{id}/cancel");
        self.call(Method::POST, &path).repeatable().send().await?.json()
    }
}

fn path(subscription: SubscriptionId) -> String {
    format!("{}/replay", subscriptions::one(subscription))
}

/// A replay to be begun. By default it sends all that was exhausted or expired.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct NewReplay {
    /// What is sent: `Missing` alone, or deliveries that have ended so.
    #[serde(rename = "state", skip_serializing_if = "Vec::is_empty")]
    pub of: Vec<ReplayOf>,
    /// The first event.
    #[serde(serialize_with = "wire::write_seq", skip_serializing_if = "Option::is_none")]
    pub from_seq: Option<Seq>,
    /// The last event.
    #[serde(serialize_with = "wire::write_seq", skip_serializing_if = "Option::is_none")]
    pub to_seq: Option<Seq>,
    /// Only events of then or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_time: Option<Timestamp>,
    /// Only events of then or before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_time: Option<Timestamp>,
    /// How many deliveries begin in a second, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_per_second: Option<NonZeroU32>,
}

impl NewReplay {
    /// Of these.
    #[must_use]
    pub fn of(of: impl IntoIterator<Item = ReplayOf>) -> Self {
        Self { of: of.into_iter().collect(), ..Self::default() }
    }

    /// From this event on.
    #[must_use]
    pub const fn from_seq(mut self, seq: Seq) -> Self {
        self.from_seq = Some(seq);
        self
    }

    /// Up to this event.
    #[must_use]
    pub const fn to_seq(mut self, seq: Seq) -> Self {
        self.to_seq = Some(seq);
        self
    }

    /// From this time on.
    #[must_use]
    pub const fn from_time(mut self, time: Timestamp) -> Self {
        self.from_time = Some(time);
        self
    }

    /// Up to this time.
    #[must_use]
    pub const fn to_time(mut self, time: Timestamp) -> Self {
        self.to_time = Some(time);
        self
    }

    /// At this rate.
    #[must_use]
    pub const fn at_most_per_second(mut self, rate: NonZeroU32) -> Self {
        self.max_per_second = Some(rate);
        self
    }
}

/// What a replay sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReplayOf {
    /// Events that the subscription never had.
    Missing,
    /// Deliveries that have used up their retries.
    Exhausted,
    /// Deliveries that were held for too long.
    Expired,
    /// Deliveries that the receiver has taken.
    Delivered,
    /// A word that this version of the client does not know.
    #[serde(other, skip_serializing)]
    Other,
}

/// A replay.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct Replay {
    /// Its id.
    pub id: ReplayId,
    /// Its subscription.
    pub subscription_id: SubscriptionId,
    /// How it stands.
    pub state: ReplayState,
    /// What it sends.
    pub of: Vec<ReplayOf>,
    /// The first event.
    #[serde(deserialize_with = "wire::seq")]
    pub from_seq: Seq,
    /// The last event.
    #[serde(deserialize_with = "wire::seq")]
    pub to_seq: Seq,
    /// Only events of then or later.
    pub from_time: Option<Timestamp>,
    /// Only events of then or before.
    pub to_time: Option<Timestamp>,
    /// How many deliveries begin in a second, on average.
    pub max_per_second: NonZeroU32,
    /// How far it has looked.
    #[serde(deserialize_with = "wire::seq")]
    pub position: Seq,
    /// How many deliveries it has begun.
    pub opened: u64,
    /// When it was begun.
    pub created_at: Timestamp,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
}

/// How a replay stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReplayState {
    /// It goes on.
    Running,
    /// It has come to its end.
    Done,
    /// It was stopped.
    Cancelled,
    /// A word that this version of the client does not know.
    #[serde(other)]
    Other,
}
