//! Whether the service works.

use reqwest::{Method, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};

use super::{Client, ClientError};

impl Client {
    /// Whether the service works, as it says itself. Needs no token, and is asked once, without retries.
    ///
    /// # Errors
    /// See [`ClientError`]: it does not say.
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.state_of("/health").await
    }

    /// Whether the service is to be given work, and how it fares.
    ///
    /// # Errors
    /// As of [`health`](Self::health).
    pub async fn readiness(&self) -> Result<Readiness, ClientError> {
        self.state_of("/health/ready").await
    }

    async fn state_of<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        // What says that it is not well says how.
        let answer = self.call(Method::GET, path).open().once().answer().await?;
        match answer.status() {
            StatusCode::SERVICE_UNAVAILABLE if answer.json::<T>().is_ok() => answer.json(),
            _ => answer.successful()?.json(),
        }
    }
}

/// Whether the service works.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct Health {
    /// `healthy` or `unhealthy`.
    pub status: String,
    /// The service's version.
    pub version: String,
    /// Whether its message broker is there, if it has one: `connected` or `away`.
    pub broker: Option<String>,
}

impl Health {
    /// Whether it works.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.status == "healthy"
    }
}

/// Whether the service is to be given work, and how it fares.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct Readiness {
    /// `ready` or `not ready`.
    pub status: String,
    /// The service's version.
    pub version: String,
    /// Whether its message broker is there, if it has one: `connected` or `away`.
    pub broker: Option<String>,
    /// Whether its database is there: `connected` or `away`.
    pub database: String,
    /// What this node does: `all`, `api` or `worker`.
    pub role: String,
    /// Whether it has a part of the subscriptions.
    pub delivers: bool,
    /// Whether it does the chores that one node does for all.
    pub leads: bool,
    /// How many sends are under way.
    pub in_flight: u64,
    /// How many are over, and not stored yet.
    pub unsettled: u64,
    /// How old the oldest event is that could be sent and was not, in milliseconds.
    pub behind_ms: Option<u64>,
}

impl Readiness {
    /// Whether it is to be given work.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.status == "ready"
    }
}
