//! RabbitMQ for ESL, the Event Service Layer.
//!
//! A [`Broker`] joins an engine to a RabbitMQ server (3.10 or later) in up to three ways, each of which
//! is asked for by itself:
//!
//! - **Hints** ([`Broker::wake`]): engines over one storage tell each other of work.
//! - **Out** ([`Broker::events`]): every committed event goes to the topic exchange `esl.events`, its
//!   type the routing key, so that consumers bind `person.*`. At least once, in order of `seq` within an
//!   organization; how far it is stands in the storage ([`Feed`](esl_core::storage::Feed)).
//! - **In** ([`Broker::ingest`]): events from the queue `esl.ingest` are published, and acknowledged
//!   after the commit. What is redelivered is the same event; what cannot be published goes to
//!   `esl.ingest.dead`, with the reason.
//!
//! ```no_run
//! # async fn example(storage: esl_core::MemoryStorage) -> Result<(), Box<dyn std::error::Error>> {
//! use esl_amqp::Broker;
//! use esl_core::Esl;
//!
//! let mut broker = Broker::new("amqp://esl:secret@broker.internal/events".parse()?);
//! let esl = Esl::builder(storage).wake(broker.wake()).build().await?;
//! let link = broker.events(esl.clone()).ingest(esl.clone()).start();
//! // …
//! println!("connected since {:?}", link.state().connected_since);
//! link.shutdown().await; // first, so that what came in is acknowledged
//! esl.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! One task holds one connection: it connects, declares what it needs, works, and on any error closes
//! everything and begins anew, after 100 ms at first and 5 s at most. Nothing of it is on the way of a
//! publish: while the broker is away ESL accepts and delivers as ever, what is to go out waits in the
//! storage, and what is to come in waits at the broker, or with its publishers.
//!
//! # Features
//!
//! - `tls`: brokers at `amqps://…`, with the certificates that the machine trusts.
//! - `live`: for this crate's own tests.
//!
//! # What it does not do
//!
//! - It is no storage: events are committed where they always are, and the broker gets copies.
//! - It promises no *exactly once*: after a lost connection, what the broker had not confirmed goes out
//!   again, with the same `message_id`.

mod broker;
mod error;
mod ingest;
mod out;
mod state;
mod supervisor;
mod topology;
mod url;
mod wake;

pub use self::{
    broker::{Broker, BrokerLink},
    state::{BrokerState, BrokerTrouble},
    topology::{
        DEAD_QUEUE, EVENTS_EXCHANGE, INGEST_EXCHANGE, INGEST_QUEUE, LATER_QUEUE, WAKE_EXCHANGE,
    },
    url::{BrokerUrl, BrokerUrlError},
    wake::AmqpWake,
};
