//! ESL over HTTP: from the side of those who send, and of those who receive.
//!
//! Delivering, in the process of whoever publishes:
//!
//! ```
//! use esl_core::{Esl, MemoryStorage};
//! use esl_http::HttpTransport;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let esl = Esl::builder(MemoryStorage::new()).transport(HttpTransport::default()).build().await?;
//! # esl.shutdown().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Receiving: the head of [`receiver`] has the shortest program.
//!
//! # The parts
//!
//! - Feature `transport` (default): [`HttpTransport`] carries signed events to their receivers.
//! - Feature `api` (default): [`api::router`] is the documented API, to be served or mounted.
//! - Feature `entities`: with it, routes for the entities of each kind that the engine knows.
//! - Feature `receiver`: [`receiver`] verifies, reads and takes once what was delivered, as a layer and
//!   an extractor. Alone it needs tokio, and of axum and hyper neither.
//! - Feature `fetch`: with it, what was too large to be sent is fetched and checked.
//! - Feature `client`: [`client`] speaks the API from the other side.
//!
//! # What it does not do
//!
//! Delivery retries nothing: the engine does, which is told how each attempt went. It follows no
//! redirect and takes no proxy from the environment. A receiver needs no route of ours: it mounts the
//! layer where it likes.

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
