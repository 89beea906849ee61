//! Storage of ESL, the Event Service Layer, in a SQLite file; and what a receiver remembers, in another.
//!
//! One file holds everything: organizations, subscriptions, events, what is owed of them and what
//! became of it. What a call has acknowledged survives SIGKILL and power loss. The file may be the
//! application's own database; ESL's tables are named `esl_…`, and nothing else in it is touched.
//!
//! [`SqliteStorage`] implements every trait of [`esl_core::storage`]; an engine
//! ([`Esl::builder`](esl_core::Esl::builder)) runs on it. What it can do beyond those traits is the
//! **outbox**: an event becomes part of the application's own transaction, so that a row and the
//! event that tells of it are either both there or neither.
//!
//! ```
//! use esl_core::{Actor, Esl, NewEvent, Organization, OrganizationId, Timestamp, storage::Tenancy};
//! use esl_sqlite::{SqliteStorage, rusqlite::Connection};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("app.db");
//! let storage = SqliteStorage::open(&path)?;
//! let id: OrganizationId = "org_01J00000000000000000000000".parse()?;
//! let created_at = Timestamp::from_millis(1_705_329_120_000);
//! storage.create_organization(Organization::new(id, "Acme", created_at), &Actor::APPLICATION).await?;
//!
//! // The application's own connection and table, in the same file.
//! let mut connection = Connection::open(&path)?;
//! connection.execute_batch("PRAGMA synchronous = FULL; CREATE TABLE people (name TEXT)")?;
//!
//! // Sealed first, outside of any transaction; an engine offers `prepare`, too.
//! let publisher = Esl::publisher(storage.clone());
//! let john = serde_json::json!({ "name": "John" });
//! let event = NewEvent::new(id, "person.created".parse()?, &john)?;
//! let prepared = publisher.prepare(event).await?;
//!
//! // In line with the engine's writer, so that neither meets a busy database.
//! let turn = storage.turn().await?;
//! let transaction = connection.transaction()?;
//! transaction.execute("INSERT INTO people VALUES ('John')", [])?;
//! let receipt = storage.publish_in(&transaction, prepared)?;
//! transaction.commit()?;
//! drop(turn);
//! receipt.notify();
//! # Ok(())
//! # }
//! ```
//!
//! # What a receiver remembers
//!
//! ESL delivers at least once. For a receiver, [`SqliteSeen`] remembers in a file which events were taken
//! ([`Seen`](esl_core::Seen)), and [`take_in`] takes one in the handler's own transaction. Neither needs an
//! engine: with `default-features = false` and the feature `seen` there is none in the build.
//!
//! # Features
//!
//! - `storage` (default): [`SqliteStorage`] and the outbox, with esl-core's `engine`.
//! - `seen` (default): [`SqliteSeen`] and [`take_in`].
//!
//! # How storage works
//!
//! - **One thread writes**, and takes all the work that waits into one transaction: a thousand
//!   callers share one fsync (WAL, `synchronous=FULL`), and each is answered after it.
//! - **Three threads read**, each from one moment of the database, for 100 ms at most; a fourth reads
//!   all of it after an erasure.
//! - **One thread checkpoints** while the writer goes on. Past 64 MiB the writer finishes the small
//!   remainder between two transactions, so that the WAL starts over.
//! - **A sync of the database that fails** ends all work of the handle: every call is `Unavailable` from
//!   then on, until the database is opened anew, by all who have it open. What was acknowledged is in the
//!   WAL, which is left as it is. A commit whose sync fails is an error, and nothing else. Of syncs that
//!   fail in a checkpoint of the application's own connection nobody is told: leave checkpoints to ESL
//!   there (`PRAGMA wal_autocheckpoint = 0`).
//! - **After a kill** the next engine brings all of the WAL into the database and begins a new one, since
//!   what the last sync was to bring onto the disk may be in the system's memory only.
//! - **One engine** at a time, kept by a lock file beside the database; the operating system frees
//!   it however the process ends.
//! - **Others may write**, through a [`SqliteStorage`] without an engine or through
//!   [`publish_in`], in this process or another. The engine notices within 20 ms, and leaves the
//!   lock free a fifth of the time while others are about. In the engine's own process,
//!   [`SqliteStorage::turn`] queues with its writer.
//!
//! # What it does not do
//!
//! - It is not for several machines, nor for a file on a network: SQLite's locks and its WAL need
//!   one machine's memory.
//! - A database in memory is refused, since nothing in it survives; [`esl_core::MemoryStorage`] is
//!   for that.
//! - Without a [keyring](SqliteOptions::keyring), the webhook secrets of subscriptions are in the file
//!   as they are: whoever signs needs them, and whoever can read the file can sign.
//! - In a program that embeds it, SQLite is built without `sqlite_dbpage` unless
//!   `LIBSQLITE3_FLAGS=-DSQLITE_ENABLE_DBPAGE_VTAB` is set in the environment of the build. Without it
//!   [`erase_event`](esl_core::storage::Removal::erase_event) overwrites an event where it is, but not
//!   what may be left of it in the free space of pages in which it was before, and a warning says so.

#[cfg(any(feature = "seen", feature = "storage"))]
mod file;
#[cfg(feature = "seen")]
mod seen;
#[cfg(feature = "seen")]
mod seen_thread;
#[cfg(feature = "storage")]
mod storage;
#[cfg(feature = "seen")]
mod taken;

pub use rusqlite;
#[cfg(feature = "seen")]
pub use seen::SqliteSeen;
#[cfg(feature = "storage")]
pub use storage::{Backup, Export, Receipt, SqliteOptions, SqliteStorage, Turn, publish_in};
#[cfg(feature = "seen")]
pub use taken::take_in;
