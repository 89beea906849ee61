//! The documented HTTP API as a service to serve or to mount.
//!
//! [`router`] makes it from an [`Esl`]; [`serve`] puts it on a listener with the limits that an open
//! port needs. An embedder who serves HTTP already mounts it below a path, or behind the own routes:
//!
//! ```no_run
//! # fn app(esl: esl_core::Esl) -> axum::Router {
//! use esl_http::api::{self, ApiConfig};
//!
//! let api = api::router(esl, ApiConfig::default());
//! axum::Router::new()
//!     .route("/", axum::routing::get(|| async { "my own" }))
//!     .fallback_service(api) // or .nest("/esl", api)
//! # }
//! ```
//!
//! Who guesses the secrets of clients is slowed down by address. [`serve`] tells the router whose
//! connection it is; served otherwise, it wants axum's `ConnectInfo<SocketAddr>` with each request
//! (`into_make_service_with_connect_info`), or counts all addresses as one.
//!
//! Every answer carries `X-Request-Id`; every error is a problem (RFC 9457), except that the
//! routes below `/oauth` speak OAuth's own dialect (RFC 6749, section 5.2). What a route takes, answers and refuses
//! stands in `docs/api.md`.
//!
//! What this module does not do: TLS, which belongs to whatever stands in front, and limits per
//! client, which are storage's to count.

mod address;
mod audit;
mod auth;
mod blobs;
mod body;
mod clients;
mod conditional;
mod config;
mod deliveries;
#[cfg(feature = "entities")]
mod entities;
mod event_types;
mod events;
mod fault;
mod framing;
mod health;
mod json;
mod limits;
mod maintenance;
mod oauth;
mod organization;
mod page;
mod path;
mod problem;
mod replays;
mod request;
mod routes;
mod serve;
mod subscription_options;
mod subscriptions;

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE, request::Parts},
    middleware,
    response::{IntoResponse, Response},
};
use esl_core::Esl;
use serde::Serialize;

#[doc(hidden)]
pub use self::routes::{Access, RouteEntry, route_entries};
use self::{
    address::ClientAddress, auth::CallerCache, health::LastCheck, oauth::Attempts, problem::Problem,
};
pub use self::{
    address::{TrustedProxies, TrustedProxiesError},
    config::{ApiConfig, HealthCheck},
    serve::{ServerLimits, serve},
};

/// The routes of the API, complete with their errors.
///
/// What is not a route of the API is a 404 of its own, so `Router::merge` with a router that has a
/// fallback, too, panics: mount it by `fallback_service` or `nest`.
pub fn router(esl: Esl, config: ApiConfig) -> Router {
    let routes = routes::router(&esl);
    complete(routes, esl, config)
}

/// `/health` and `/health/ready` alone, complete with their errors: for an engine whose API others serve.
pub fn health_router(esl: Esl, config: ApiConfig) -> Router {
    complete(routes::health_router(), esl, config)
}

fn complete(routes: Router<Api>, esl: Esl, config: ApiConfig) -> Router {
    let api = Api(Arc::new(Shared {
        esl,
        config,
        callers: CallerCache::default(),
        attempts: Attempts::default(),
        last_check: LastCheck::default(),
        told_of_proxy: AtomicBool::new(false),
    }));
    routes
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::no_method)
        .layer(middleware::from_fn_with_state(api.clone(), request::accompany))
        .with_state(api)
}

/// What all requests share.
#[derive(Debug, Clone)]
struct Api(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    esl: Esl,
    config: ApiConfig,
    callers: CallerCache,
    attempts: Attempts,
    last_check: LastCheck,
    /// Whether the log was told that a proxy may not be named.
    told_of_proxy: AtomicBool,
}

impl Deref for Api {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Api {
    /// Where a request comes from. Says, once, if that may be a proxy that the operator forgot.
    fn address_of(&self, parts: &Parts) -> ClientAddress {
        let trusted = &self.config.trusted_proxies;
        if let Some(peer) = ClientAddress::unnamed_proxy(parts, trusted)
            && !self.told_of_proxy.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                %peer,
                "X-Forwarded-For comes from an address that is not in ESL_TRUSTED_PROXIES, and is \
                 not believed; if that is a proxy of yours, name it there: all who come through it \
                 count as one address, and one who guesses secrets slows all of them"
            );
        }
        ClientAddress::of(parts, trusted)
    }

    /// Refuses, while the event system is off, what would record something or have it sent.
    fn demand_enabled(&self) -> Result<(), Problem> {
        if self.esl.is_enabled() { Ok(()) } else { Err(esl_core::PublishError::Disabled.into()) }
    }
}

/// An answer in JSON.
fn answer(status: StatusCode, view: &impl Serialize) -> Response {
    answer_bytes(status, serde_json::to_vec(view).expect("views are JSON"))
}

/// An answer that is JSON already.
fn answer_bytes(status: StatusCode, json: Vec<u8>) -> Response {
    let mut response = (status, json).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
