//! Storage of ESL, the Event Service Layer, in a SQLite file.
//!
//! (crate docs are completed below)

mod changes;
mod checkpoint;
mod claim;
mod commit;
mod config;
mod connection;
mod deliveries;
mod engine_lock;
mod error;
mod foreign;
mod job;
mod lanes;
mod outbox;
mod ownership;
#[cfg(test)]
mod plans;
mod readers;
mod records;
mod rows;
mod schema;
mod session;
mod settle;
mod statements;
mod storage;
mod subscriptions;
mod sweep;
mod tenancy;
mod time;
mod turn;
mod writer;

pub use config::SqliteOptions;
pub use outbox::{Receipt, publish_in};
pub use rusqlite;
pub use storage::SqliteStorage;
pub use turn::Turn;
