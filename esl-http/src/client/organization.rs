//! The organization: what it may use, and what it uses.

use esl_core::{OrganizationId, Timestamp};
use serde::Deserialize;

use super::{Client, ClientError};

impl Client {
    /// The organization that the client is of.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn organization(&self) -> Result<Organization, ClientError> {
        self.get("/api/v1/organization").await
    }
}

/// An organization.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct Organization {
    /// Its id.
    pub id: OrganizationId,
    /// What it is called.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its tier, if it has one.
    pub tier: Option<String>,
    /// What it may use.
    pub limits: Limits,
    /// What it uses.
    pub usage: Usage,
}

/// What an organization may use; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Limits {
    /// How many subscriptions it may have.
    pub subscriptions: Option<u64>,
    /// How many events it may publish in an hour.
    pub events_per_hour: Option<u64>,
    /// How often a delivery is tried again.
    pub retries: Option<u32>,
}

/// What an organization uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// How many subscriptions it has.
    pub subscriptions: u64,
    /// How many events it has published in this hour; counted where there is a tier.
    pub events: Option<u64>,
    /// When the hour is over.
    pub resets_at: Option<Timestamp>,
}
