//! What a receiver does with a delivery: verifies it, reads it, and takes it once.
//!
//! [`Receiver`] is a layer, for an axum router or around any tower service. It reads the body within
//! bounds, holds it against its signature, and refuses what is not a genuine delivery; with a
//! [`Seen`] it also hands on each event once. [`SignedEvent`] is an axum extractor behind it, with
//! the event's data as a type of yours.
//!
//! ```
//! use axum::{Router, routing::post};
//! use esl_http::receiver::{MemorySeen, Receiver, Secret, SignedEvent, Verifier, payload::Person};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let secret = Secret::new("your-webhook-secret-for-signature-verification")?;
//! let receiver = Receiver::new(Verifier::standard([secret])).with_seen(MemorySeen::new());
//! let router = Router::new().route("/webhooks/sapien", post(handle)).layer(receiver);
//! # let _: Router = router; // axum::serve(listener, router).await?
//!
//! async fn handle(SignedEvent(event): SignedEvent<Person>) {
//!     println!("{}: {} is called {}", event.id, event.data.id, event.data.name);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is answered
//!
//! | status | when |
//! |---|---|
//! | the handler's | it has run; ESL sends again whatever is not 2xx |
//! | 200 | the event was taken before, and the handler is not run |
//! | 204 | a `system.ping`, whose data is not what the handler takes |
//! | 400 | the body broke off, or is not an envelope, or its data is not what the handler takes |
//! | 401 | the signature is missing, wrong or old |
//! | 408, 413 | the body is too slow, or too large |
//! | 409 | the event is under way in another request |
//! | 415 | the body is said to be something else than JSON in UTF-8, or encoded |
//! | 500 | the handler has panicked, or was set up wrongly: the log says how |
//! | 502 | the data is not in the envelope and could not be fetched |
//! | 503 | what was taken before is not known, as the [`Seen`] has failed |
//!
//! An answer of the layer's own is a short text that says what failed, never what was expected. Of what is
//! genuine, and yet is not an envelope or not what the handler takes, it gives the reason, and so does a
//! warning in the log.
//!
//! # Several handlers
//!
//! **One [`Seen`] is for one handler**: it notes that an event was taken, and not by which route. Where an
//! application has several subscriptions, with a route for each, a receiver with one `Seen` around all of
//! them drops the second handler's event with a 200. Give each route a receiver of its own,
//! `.route("/a", post(a).layer(receiver_a))`, as [`Receiver::with_seen`] shows.
//!
//! # Large data
//!
//! An event whose data was too large to be sent says where it is ([`DataRef`]). A [`Fetch`] gets it
//! when a handler asks for it; with feature `fetch` there is one, `Fetcher`, which goes to public
//! addresses over `https` only and checks size and checksum. Without one such an event is answered
//! with 500.

mod admit;
mod extract;
mod fetch;
#[cfg(feature = "fetch")]
mod fetcher;
mod layer;
mod once;

pub use esl_core::{
    Algorithm, Begun, Change, Changes, DataRef, Envelope, Event, EventError, EventKey, MemorySeen,
    Secret, Seen, SeenError, Verified, Verifier, VerifyError, payload,
};

#[cfg(feature = "fetch")]
pub use esl_core::{CallbackAllowList, CallbackPolicy};

#[cfg(feature = "fetch")]
pub use self::fetcher::{DataStream, Fetcher, FetcherBuilder};
pub use self::{
    extract::{Received, SignedEvent, SignedEventRejection},
    fetch::{Fetch, FetchError},
    layer::{Receiver, ReceiverService},
};
