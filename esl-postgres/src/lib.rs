//! Storage of ESL, the Event Service Layer, in PostgreSQL 13 or newer.
//!
//! One schema of a database holds everything: organizations, subscriptions, entities, events, what is owed of
//! them and what became of it. What a call has acknowledged is on the server's disk. Any number of engines share it,
//! on as many machines.
//!
//! [`PostgresStorage`] implements every trait of [`esl_core::storage`]; an engine
//! ([`Esl::builder`](esl_core::Esl::builder)) runs on it.
//!
//! ```no_run
//! use esl_core::Esl;
//! use esl_postgres::PostgresStorage;
//!
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let storage = PostgresStorage::open("postgres://esl:secret@db.internal/app").await?;
//! // Where several engines run, each tells the others which lanes there is something for.
//! let wake = storage.wake();
//! let esl = Esl::builder(storage).wake(wake).build().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! - **A group of commits is one call** of a function, `esl.commit_1`: one trip, one transaction, one fsync,
//!   however many callers wait. It decides each unit in memory, and then writes table by table. Nearly all
//!   groups need no decision by unit, and go to the quicker `esl.plain_commit_1`.
//! - **A ledger** keeps what the last group of a handle came to. When the connection is lost before the
//!   answer came, the group is sent again under the same number, and gets that answer or is committed for the
//!   first time. So whoever publishes notices a restart of the server by nothing but the time that it takes.
//! - **The server has the time**, which all engines go by.
//! - **Nothing depends on a session**: no settings, no prepared statements, no locks beyond a transaction. A
//!   pooler in transaction mode may be in between.
//! - **Changes are rows**, and a notification only says that it is time to look: one that is lost costs a
//!   second. Behind a pooler in transaction mode none come through; then others' changes are looked for four
//!   times a second, or listened for [by another way](PostgresOptions::listen_on).
//! - **TLS is verified**, always, and used unless somebody says no for what leaves the machine.
//!
//! # What it does not do
//!
//! - A server whose `fsync` or `full_page_writes` is off is refused. Of a standby that follows asynchronously
//!   the last moments are lost when it takes over: `synchronous_standby_names` is the operator's to set.
//! - What was erased no statement finds any more, and `VACUUM` frees its rows; but the server overwrites them
//!   when it needs the place. Its pages, its log, standbys and backups are not ESL's to reach.
//! - Without a [keyring](PostgresOptions::keyring), the webhook secrets of subscriptions are in the database
//!   as they are: whoever signs needs them, and whoever can read the tables can sign.

mod audit;
mod blobs;
mod candidates;
mod changes;
mod claim;
mod clients;
mod commit;
mod committer;
mod config;
mod connect;
mod damage;
mod decode;
mod deletion;
mod deliveries;
mod encryption_keys;
mod entities;
mod erasure;
mod error;
mod fan_out;
mod feed;
mod flatten;
mod health;
mod hearing;
mod id;
mod import;
mod imported_rows;
mod intake;
mod lanes;
mod link_keys;
mod listen;
mod notify;
mod outbox;
mod pages;
mod parameters;
mod plan;
mod position;
mod records;
mod reencryption;
mod removal;
mod reopen;
mod replays;
mod retention;
mod rows;
mod schedule;
mod schema;
mod secrets;
mod session;
mod storage;
mod strays;
mod subscription_row;
mod subscriptions;
mod sweep;
mod tenancy;
mod tls;
mod tokens;
mod try_listening;
mod unsealed;
mod vacuum;
mod wake;

pub use config::PostgresOptions;
pub use import::Import;
pub use outbox::{Receipt, publish_in};
pub use storage::PostgresStorage;
pub use tokio_postgres;
pub use wake::PostgresWake;
