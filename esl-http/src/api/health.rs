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
use esl_core::storage::Storage;
use serde::Serialize;
use tokio::{sync::Mutex, time::timeout};

use super::{Api, answer};

/// `GET /health`
pub(super) async fn health(State(api): State<Api>) -> Response {
    let is_healthy = api.esl.is_healthy() && api.last_check.result(api.esl.storage()).await;
    let (status, word) = match is_healthy {
        true => (StatusCode::OK, "healthy"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
    };
    // Without it, events are accepted and delivered all the same.
    let broker = api.config.broker.as_ref().map(|broker| match broker.is_there() {
        true => "connected",
        false => "away",
    });
    let view = View { status: word, version: env!("CARGO_PKG_VERSION"), broker };
    let mut response = answer(status, &view);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[derive(Serialize)]
struct View {
    status: &'static str,
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    broker: Option<&'static str>,
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
