//! **ESL, the Event Service Layer**: takes an application's events, makes them durable, and pushes
//! them, signed, to whoever subscribed.
//!
//! An event is published, committed to storage with one delivery for every subscription that wants
//! it, and POSTed to each of them until it is accepted, or the retry policy is at its end. What was
//! published is not lost: not by SIGKILL, not by a receiver that is away.
//!
//! ```
//! use esl::{Esl, MemoryStorage, NewEvent, Organization, OrganizationId, Timestamp};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let storage = MemoryStorage::new(); // or SqliteStorage::open("esl.db")?
//! let esl = Esl::builder(storage).build().await?; // .transport(HttpTransport::default()) to deliver
//!
//! let id: OrganizationId = "org_01J00000000000000000000000".parse()?;
//! esl.create_organization(Organization::new(id, "acme", Timestamp::EPOCH)).await?;
//! let john = serde_json::json!({ "id": "person_1", "name": "John Doe" });
//! let published = esl.publish(NewEvent::new(id, "person.updated".parse()?, &john)?).await?;
//! assert_eq!(published.seq.get(), 1);
//! esl.shutdown().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The parts
//!
//! - The words, the rules and the engine: [`Esl`], [`NewEvent`], [`NewSubscription`],
//!   [`RetryPolicy`], and the seams [`storage::Storage`], [`Transport`], [`Clock`].
//! - Feature `sqlite` (default): [`SqliteStorage`], and the outbox, `publish_in`, which makes an
//!   event part of the application's own transaction.
//! - Feature `http` (default): [`HttpTransport`], which delivers, and [`api`], the documented HTTP
//!   API as a service to mount in a router.
//! - Feature `entities`: documents that an organization keeps, whose every change is an event, in one commit
//!   with it. A kind of them is declared by a JSON Schema ([`EntityKind`](https://docs.rs/esl-core)), given to
//!   the engine (`EslBuilder::kinds`) and written through `Esl::entities`; with `http`, they have an API.
//! - Feature `blob`: [`blob`](https://docs.rs/esl-blob), which keeps large payloads in a folder; its
//!   own features add object stores.
//! - Feature `amqp`: [`amqp`](https://docs.rs/esl-amqp), which joins an engine to RabbitMQ.
//! - Feature `receiver` (default): [`receiver`], a layer and an extractor for axum and tower, by
//!   which a handler gets what is genuine, and each event once; with feature `fetch`, also what was
//!   too large to be sent.
//! - Feature `client`: [`client`](https://docs.rs/esl-http), which speaks the API from the other side.
//! - Without any feature, the crate is what a receiver needs: [`Verifier`] and [`Event`], with neither
//!   tokio nor a database.
//!
//! # What it does not do
//!
//! It promises *at least once*: a crash between a receiver's answer and its commit sends the event
//! again, with the same id. It keeps the order of *starting* sends in a lane, while several may be
//! under way at a time. It transforms nothing: receivers get the bytes that were published.

#[cfg(feature = "amqp")]
pub use esl_amqp as amqp;
#[cfg(feature = "blob")]
pub use esl_blob as blob;
pub use esl_core::*;
#[cfg(feature = "http")]
pub use esl_http::api;
#[cfg(feature = "client")]
pub use esl_http::client;
#[cfg(feature = "receiver")]
pub use esl_http::receiver;
#[cfg(any(feature = "fetch", feature = "http"))]
pub use esl_http::{
    HttpTransport, HttpTransportBuilder, HttpTransportError, Proxy, ProxyError, Resolver,
    SystemResolver,
};
#[cfg(feature = "sqlite")]
pub use esl_sqlite::{self as sqlite, SqliteStorage};

/// The README's code runs as it stands there.
#[cfg(all(doctest, feature = "http", feature = "receiver", feature = "sqlite"))]
#[doc = include_str!("../README.md")]
struct Readme;
