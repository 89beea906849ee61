//! ESL over HTTP.
//!
//! - Feature `transport`: [`HttpTransport`] carries signed events to their receivers.
//! - Feature `api`: [`api::router`] is the documented API, to be served or mounted.
//! - Feature `entities`: with it, routes for the entities of each kind that the engine knows.
//! - Feature `receiver`: [`receiver`] verifies, reads and takes once what was delivered; with feature
//!   `fetch`, also what was too large to be sent.
//! - Feature `client`: [`client`] speaks the API from the other side.

#[cfg(feature = "api")]
pub mod api;
#[cfg(feature = "client")]
pub mod client;
#[cfg(any(feature = "api", feature = "receiver"))]
mod media_type;
#[cfg(feature = "receiver")]
pub mod receiver;
#[cfg(feature = "transport")]
mod transport;

#[cfg(feature = "transport")]
pub use transport::{
    HttpTransport, HttpTransportBuilder, HttpTransportError, Proxy, ProxyError, Resolver,
    SystemResolver,
};
