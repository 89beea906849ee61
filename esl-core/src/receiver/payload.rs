//! The `data` of the events that the documented service publishes by itself (docs/events), for
//! [`Event`](crate::Event).
//!
//! Ids are texts: other applications may publish the same types with ids of theirs. Members that a later
//! version adds are passed over.

use serde::{Deserialize, Serialize};

use crate::{DeliveryId, EventId, SubscriptionId, Timestamp};

/// Of `person.created`, `person.updated` and `person.deleted`: the person, of a deleted one as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Person {
    /// `person_` and a ULID.
    pub id: String,
    /// What the person is called.
    pub name: String,
    /// Where the person is written to.
    pub email: Option<String>,
    /// `active`, or another word of the organization's.
    pub status: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// The pets whose owner this is.
    #[serde(default)]
    pub pets: Vec<PersonsPet>,
}

/// A pet, as its owner shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PersonsPet {
    /// `pet_` and a ULID.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// What kind of animal it is.
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

/// Of `pet.created`, `pet.updated` and `pet.deleted`: the pet, of a deleted one as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pet {
    /// `pet_` and a ULID.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// What kind of animal it is.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The person that it belongs to.
    pub owner_id: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// Of `toy.created`, `toy.updated` and `toy.deleted`: the toy, of a deleted one as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Toy {
    /// `toy_` and a ULID.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// What kind of toy it is.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The pet that it belongs to.
    pub pet_id: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// How available a user is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AvailabilityStatus {
    /// Available.
    Available,
    /// Busy.
    Busy,
    /// Away.
    Away,
    /// Offline, and when nothing is known.
    Offline,
    /// Not to be disturbed.
    DoNotDisturb,
    /// A word that this version does not know.
    #[serde(untagged)]
    Other(String),
}

/// Of `availability.changed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AvailabilityChanged {
    /// The user.
    pub user_id: String,
    /// The status before; `None` the first time that something is known of the user.
    pub previous_status: Option<AvailabilityStatus>,
    /// The status now.
    pub current_status: AvailabilityStatus,
    /// The profile that it was taken from.
    pub profile_id: Option<String>,
    /// Until when it holds; `None`: until something else is set.
    pub effective_until: Option<Timestamp>,
    /// Why.
    pub reason: Option<String>,
}

/// Of `availability.profile.created`, `…updated` and `…deleted`: the profile, of a deleted one as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AvailabilityProfile {
    /// `profile_` and a ULID.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The status that is taken from it.
    pub status: AvailabilityStatus,
    /// The reason that goes with it.
    pub reason: Option<String>,
    /// For how long a status from it lasts; `None`: until something else is set.
    pub duration_seconds: Option<u64>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// Of `availability.schedule.triggered`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AvailabilityScheduleTriggered {
    /// `schedule_` and a ULID.
    pub schedule_id: String,
    /// Whose status it sets.
    pub user_id: String,
    /// When it was to fire.
    pub due_at: Timestamp,
    /// Whether it fired more than a minute after that.
    pub late: bool,
    /// The status that it sets.
    pub status: AvailabilityStatus,
    /// The reason that goes with it.
    pub reason: Option<String>,
    /// The profile that it was taken from.
    pub profile_id: Option<String>,
    /// Until when it holds, counted from `due_at`.
    pub effective_until: Option<Timestamp>,
}

/// Of `system.maintenance.scheduled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MaintenanceScheduled {
    /// When the window begins.
    pub starts_at: Timestamp,
    /// When it ends.
    pub ends_at: Timestamp,
    /// What was said of it.
    pub message: String,
}

/// Of `system.rate_limit.warning` and `system.rate_limit.exceeded`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RateLimit {
    /// How many events the organization may publish in an hour.
    pub limit: u64,
    /// At how many of them this is told.
    pub threshold: u64,
    /// When the hour is over.
    pub resets_at: Timestamp,
}

/// Of `system.ping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ping {
    /// The subscription, which alone gets it.
    pub subscription_id: SubscriptionId,
}

/// Of `system.subscription.disabled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SubscriptionDisabled {
    /// The subscription.
    pub subscription_id: SubscriptionId,
    /// `gone`, `failing` or `exhausted`.
    pub reason: String,
    /// When.
    pub disabled_at: Timestamp,
    /// Since when there was nothing but failures.
    pub failing_since: Option<Timestamp>,
    /// The delivery whose attempt was the last.
    pub delivery_id: DeliveryId,
    /// The HTTP status of that attempt, if there was an answer.
    pub last_status: Option<u16>,
    /// What went wrong with it.
    pub last_error: Option<String>,
}

/// Of `system.delivery.exhausted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeliveryExhausted {
    /// The subscription.
    pub subscription_id: SubscriptionId,
    /// The delivery.
    pub delivery_id: DeliveryId,
    /// Its event.
    pub event_id: EventId,
    /// The type of the event.
    pub event_type: String,
    /// The event's place among those of its organization.
    pub seq: u64,
    /// How many attempts there were.
    pub attempts: u32,
    /// The HTTP status of the last one, if there was an answer.
    pub last_status: Option<u16>,
    /// What went wrong with it.
    pub last_error: Option<String>,
}
