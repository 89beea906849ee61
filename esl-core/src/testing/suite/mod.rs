//! The suite that every storage passes: one async function per promise, and one list of them, in
//! [`storage_suite!`](crate::testing::storage_suite).
//!
//! A case gets a [`World`] of its own: an empty storage and a clock that it moves by hand. It knows
//! nothing of the adapter but the [`Harness`]. A bug that is found in one adapter becomes a case
//! here, for all of them.

#[macro_use]
mod list;
mod world;

mod audit;
mod blobs;
mod changes;
mod claim;
mod commit;
mod deletion;
mod durability;
mod entities;
mod epochs;
mod erasure;
mod expiry;
mod extremes;
mod fan_out;
mod feed;
mod idempotency;
mod intake;
mod metering;
mod options;
mod records;
mod removal;
mod reopen;
mod replays;
mod schedule;
mod settle;
mod strict;
mod subscriptions;
mod sweep;
mod tenancy;
mod tokens;

use std::{pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;

pub use self::world::World;
use crate::{Actor, Clock, storage::Storage};

/// Whose changes they are where a case does not care.
const BY: &Actor = &Actor::APPLICATION;

/// What the suite needs to know of an adapter.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// Makes room for a storage that is empty.
    fn new() -> Self
    where
        Self: Sized;

    /// How many engines the storage serves at a time.
    fn engines(&self) -> Engines;

    /// Opens a handle on the storage, as a process would: the first time it is empty. While others
    /// are open, this is one beside them.
    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Storage>;

    /// Ends a handle as SIGKILL ends a process, and opens another one on what is left.
    ///
    /// `killed` is the only reference to the only handle. It must not get to finish anything:
    /// either forget what a clean stop would do, or take a copy of the files first and open that.
    async fn reopen_after_kill(
        &mut self,
        killed: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
    ) -> Arc<dyn Storage>;
}

/// How many engines a storage serves at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Engines {
    /// One: while it is alive, another handle cannot enlist. Killed, it is gone at once.
    One,
    /// As many as there are. Killed, one is gone when its epoch lapses.
    Many,
}

/// A case that is under way.
#[doc(hidden)]
pub type Case = Pin<Box<dyn Future<Output = ()>>>;

/// Runs a case; called by what [`storage_suite!`](crate::testing::storage_suite) writes.
///
/// # Panics
/// When the storage breaks the promise.
#[doc(hidden)]
pub fn run<H: Harness>(case: fn(World) -> Case) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be built").block_on(async {
        let world = World::new(Box::new(H::new())).await;
        // No case waits for time to pass. This ends one that waits for what never comes.
        tokio::time::timeout(PATIENCE, case(world)).await.expect("the case does not hang");
    });
}

const PATIENCE: Duration = Duration::from_secs(120);

storage_suite! { @list cases [] }
