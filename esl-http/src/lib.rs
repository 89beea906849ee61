//! ESL over HTTP.
//!
//! - Feature `transport`: [`HttpTransport`] carries signed events to their receivers.
//! - Feature `api`: [`api::router`] is the documented API, to be served or mounted.
//! - Feature `entities`: with it, routes for the entities of each kind that the engine knows.

#[cfg(feature = "api")]
pub mod api;
#[cfg(feature = "transport")]
mod transport;

#[cfg(feature = "transport")]
pub use transport::{
    HttpTransport, HttpTransportBuilder, HttpTransportError, Proxy, ProxyError, Resolver,
    SystemResolver,
};
