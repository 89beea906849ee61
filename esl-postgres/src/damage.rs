//! Values that are not what was written: said when they are met, and not each time.
//!
//! A row with such a value is left out of what is read, and everything else goes on.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use esl_core::{EntityKey, EventId, OrganizationId, Seq};

use crate::error::Damage;

/// What was said of damage, and when.
#[derive(Debug, Default)]
pub(crate) struct Damages(Mutex<HashMap<Place, Instant>>);

/// Where a value is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Intake(i64),
    /// By its id, if that can be read: whoever erases it needs that.
    Event(i32, Seq, Option<EventId>),
    Subscription(i64),
    /// By its id, if that can be read: whoever mends it needs that.
    Organization(i32, Option<OrganizationId>),
    Audit(i64),
    Scheduled(i64),
    /// By its key, if that can be read.
    Entity(OrganizationId, Option<EntityKey>),
    Delivery {
        lane: i64,
        seq: Option<Seq>,
    },
}

impl Damages {
    /// What was read; nothing if it is damaged, which is said.
    pub(crate) fn readable<T>(&self, place: Place, read: Result<T, Damage>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(damage) => {
                self.tell(place, &damage);
                None
            }
        }
    }

    /// Says what is damaged, unless it was said of late.
    pub(crate) fn tell(&self, place: Place, damage: &Damage) {
        let now = Instant::now();
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&place).is_some_and(|at| now.duration_since(*at) < TOLD_EVERY) {
            return;
        }
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        let cause = std::error::Error::source(damage);
        if damage.is_key_missing() {
            tracing::error!(%place, cause, "nothing can be signed for it; all else goes on");
        } else {
            tracing::error!(
                %place, error = %damage, cause,
                "damaged: left as it is, and left out; all else goes on"
            );
        }
        told.insert(place, now);
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Intake(row) => write!(f, "intake, id {row}"),
            Self::Event(key, seq, None) => {
                write!(f, "events, organization {key}, seq {}", seq.get())
            }
            Self::Event(key, seq, Some(id)) => {
                write!(f, "events, organization {key}, seq {}, {id}", seq.get())
            }
            Self::Subscription(lane) => write!(f, "subscriptions, lane {lane}"),
            Self::Organization(key, None) => write!(f, "organizations, key {key}"),
            Self::Organization(key, Some(id)) => write!(f, "organizations, key {key}, {id}"),
            Self::Scheduled(number) => write!(f, "scheduled, number {number}"),
            Self::Entity(organization, None) => write!(f, "entities, {organization}"),
            Self::Entity(organization, Some(key)) => write!(f, "entities, {organization}, {key}"),
            Self::Audit(number) => write!(f, "audit, number {number}"),
            Self::Delivery { lane, seq: None } => write!(f, "deliveries of lane {lane}"),
            Self::Delivery { lane, seq: Some(seq) } => {
                write!(f, "a delivery of lane {lane}, seq {}", seq.get())
            }
        }
    }
}

/// Only a person can mend it.
const TOLD_EVERY: Duration = Duration::from_secs(60 * 60);

/// So much is remembered.
const TOLD_MAX: usize = 4096;
