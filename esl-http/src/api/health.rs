//! Whether the service works.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header::CACHE_CONTROL},
    response::Response,
};
use esl_core::{Role, storage::Storage};
use serde::Serialize;
use tokio::{sync::Mutex, time::timeout};

use super::{Api, answer, config::HealthCheck};

/// `GET /health`: whether it works.
pub(super) async fn health(State(api): State<Api>) -> Response {
    let (status, word) = match api.works().await {
        true => (StatusCode::OK, "healthy"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
    };
    let view = View { status: word, version: VERSION, broker: api.broker() };
    as_of_now(status, &view)
}

/// `GET /health/ready`: whether it is to be given work, and how it fares.
pub(super) async fn ready(State(api): State<Api>) -> Response {
    let has_storage = api.has_storage().await;
    let engine = api.esl.status();
    let role = api.esl.role();
    // Whoever only delivers is of use only while it does.
    let is_at_work = api.esl.is_healthy() && (role != Role::Worker || engine.delivers);
    let (status, word) = match has_storage && is_at_work && api.wants_work() {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    let view = ReadyView {
        view: View { status: word, version: VERSION, broker: api.broker() },
        database: presence(has_storage),
        role: match role {
            Role::Api => "api",
            Role::Worker => "worker",
            _ => "all",
        },
        delivers: engine.delivers,
        leads: engine.leads,
        in_flight: engine.in_flight,
        unsettled: engine.unsettled,
        behind_ms: engine.behind.map(|behind| behind.as_millis()),
    };
    as_of_now(status, &view)
}

impl Api {
    async fn works(&self) -> bool {
        self.esl.is_healthy() && self.has_storage().await
    }

    async fn has_storage(&self) -> bool {
        self.last_check.result(self.esl.storage()).await
    }

    fn wants_work(&self) -> bool {
        self.config.readiness.as_ref().is_none_or(HealthCheck::is_well)
    }

    /// Without it, events are accepted and delivered all the same.
    fn broker(&self) -> Option<&'static str> {
        self.config.broker.as_ref().map(|broker| presence(broker.is_well()))
    }
}

fn presence(is_there: bool) -> &'static str {
    if is_there { "connected" } else { "away" }
}

fn as_of_now(status: StatusCode, view: &impl Serialize) -> Response {
    let mut response = answer(status, view);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Serialize)]
struct View {
    status: &'static str,
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    broker: Option<&'static str>,
}

#[derive(Serialize)]
struct ReadyView {
    #[serde(flatten)]
    view: View,
    database: &'static str,
    role: &'static str,
    delivers: bool,
    leads: bool,
    in_flight: u32,
    unsettled: usize,
    behind_ms: Option<u128>,
}

/// The last look at storage. The route is open to everybody, so it looks once a second at most, and
/// one at a time.
#[derive(Debug, Default)]
pub(super) struct LastCheck(Mutex<Option<(Instant, bool)>>);

impl LastCheck {
    async fn result(&self, storage: &Arc<dyn Storage>) -> bool {
        let mut last = self.0.lock().await;
        if let Some((at, result)) = *last
            && at.elapsed() < FRESH
        {
            return result;
        }
        let result = match timeout(PATIENCE, storage.check()).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(%error, "storage failed its check");
                false
            }
            Err(_) => {
                tracing::warn!("storage did not answer its check");
                false
            }
        };
        *last = Some((Instant::now(), result));
        result
    }
}

const FRESH: Duration = Duration::from_secs(1);
/// Shorter than the time after which whoever asks gives up.
const PATIENCE: Duration = Duration::from_secs(4);
