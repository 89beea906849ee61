//! Values that are not what was written: said when they are met, and not each time.
//!
//! A row with such a value is left out of what is read, and everything else goes on. A database that
//! SQLite itself finds damaged is another matter: that is an error to whoever reads.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use esl_core::{EventId, OrganizationId, Timestamp};
use rusqlite::Row;

use crate::storage::{rows::EventKey, secrets::is_key_missing};

/// What was said of damage, and when.
#[derive(Debug, Default)]
pub(crate) struct Damages(Mutex<HashMap<Place, Timestamp>>);

/// Where a value is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Intake(i64),
    /// By its id, if that can be read: whoever erases it needs that.
    Event(EventKey, Option<EventId>),
    Subscription(i64),
    /// By its id, if that can be read: whoever mends it needs that.
    Organization(i64, Option<OrganizationId>),
    Audit(i64),
    Scheduled(i64),
    /// By the row id.
    Entity(i64),
    /// Of an organization, by its key.
    EntityIndex(i64),
    Delivery {
        lane: i64,
        seq: Option<i64>,
    },
}

impl Damages {
    /// Says what is damaged, unless it was said of late.
    pub(crate) fn tell(&self, place: Place, now: Timestamp, error: &rusqlite::Error) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&place).is_some_and(|at| now.since(*at) < TOLD_EVERY) {
            return;
        }
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        told.insert(place, now);
        if is_key_missing(error) {
            tracing::error!(%place, %error, "nothing can be signed for it; all else goes on");
            return;
        }
        tracing::error!(%place, %error, "damaged: left as it is, and left out; all else goes on");
    }
}

impl Place {
    /// An event whose row begins with its id, in column `index`.
    pub(crate) fn event(key: EventKey, row: &Row<'_>, index: usize) -> Self {
        Self::Event(key, row.get(index).ok().map(EventId::from_bytes))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Intake(row) => write!(f, "esl_intake, id {row}"),
            Self::Event(key, None) => write!(f, "esl_events, key {}", key.0),
            Self::Event(key, Some(id)) => write!(f, "esl_events, key {}, {id}", key.0),
            Self::Subscription(lane) => write!(f, "esl_subscriptions, lane {lane}"),
            Self::Organization(key, None) => write!(f, "esl_organizations, key {key}"),
            Self::Organization(key, Some(id)) => write!(f, "esl_organizations, key {key}, {id}"),
            Self::Scheduled(number) => write!(f, "esl_scheduled, number {number}"),
            Self::Entity(row) => write!(f, "esl_entities, rowid {row}"),
            Self::EntityIndex(key) => write!(f, "esl_entity_index, organization {key}"),
            Self::Audit(number) => write!(f, "esl_audit, number {number}"),
            Self::Delivery { lane, seq: None } => write!(f, "deliveries of lane {lane}"),
            Self::Delivery { lane, seq: Some(seq) } => {
                write!(f, "a delivery of lane {lane}, seq {seq}")
            }
        }
    }
}

/// Only a person can mend it.
const TOLD_EVERY: Duration = Duration::from_secs(60 * 60);

/// So much is remembered.
const TOLD_MAX: usize = 4096;
