//! The feature `storage`: all traits of [`esl_core::storage`] on one file, and the outbox.

mod audit;
mod backup;
mod blobs;
mod changes;
mod checkpoint;
mod claim;
mod cleaning;
mod commit;
mod config;
mod connection;
mod damage;
mod deletion;
mod deliveries;
mod encryption_keys;
mod engine_lock;
mod entities;
mod entity_row;
mod entity_walk;
mod entity_writes;
mod erasure;
mod error;
mod expiry;
mod export;
mod exported_rows;
mod fan_out;
mod feed;
mod foreign;
mod handle;
mod health;
mod intake;
mod job;
mod lanes;
mod leaving;
mod link_keys;
mod outbox;
mod ownership;
mod plan;
#[cfg(test)]
pub(crate) mod plans;
mod readers;
mod records;
mod reencryption;
mod remnants;
mod removal;
mod replays;
mod retention;
mod rows;
mod schedule;
mod schema;
mod secrets;
mod session;
mod set_back;
mod settle;
mod statements;
mod strays;
mod subscription_row;
mod subscriptions;
mod sweep;
mod tenancy;
mod tokens;
mod trust;
mod turn;
mod washing;
mod writer;

pub use self::{
    backup::Backup,
    config::SqliteOptions,
    export::Export,
    handle::SqliteStorage,
    outbox::{Receipt, publish_in},
    turn::Turn,
};
