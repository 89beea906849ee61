//! A storage that fails, between an engine and the one in memory.

mod bookkeeping;
mod commit;
mod lanes;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use esl_core::{
    MemoryStorage,
    storage::{Change, StorageError, StorageErrorKind, Unit},
};

use crate::world::World;

/// One engine's handle on the storage that all share.
#[derive(Debug)]
pub(crate) struct FaultyStorage {
    inner: MemoryStorage,
    world: Arc<World>,
    node: usize,
    /// News that come late.
    untold: Mutex<Vec<Change>>,
    /// What was acknowledged before it was committed, if that bug is planted.
    uncommitted: Arc<Mutex<Vec<Vec<Unit>>>>,
}

impl FaultyStorage {
    pub(crate) fn new(world: &Arc<World>, node: usize) -> Self {
        Self {
            inner: world.truth.clone(),
            world: Arc::clone(world),
            node,
            untold: Mutex::default(),
            uncommitted: Arc::default(),
        }
    }

    /// Goes wrong before anything has happened, or takes its time.
    async fn before(&self, operation: &'static str) -> Result<(), StorageError> {
        let world = &*self.world;
        world.called();
        let faults = world.faults.storage;
        self.dawdle().await;
        if world.strikes("storage: busy", faults.busy) {
            world.note(format_args!("node {} {operation}: busy", self.node));
            return Err(StorageError::new(StorageErrorKind::Busy, operation));
        }
        if world.strikes("storage: error before", faults.fails_before) {
            world.note(format_args!("node {} {operation}: error before", self.node));
            return Err(StorageError::new(StorageErrorKind::Unavailable, operation));
        }
        Ok(())
    }

    /// Goes wrong when all is done, or takes its time.
    async fn after<T>(
        &self,
        operation: &'static str,
        result: Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let world = &*self.world;
        match &result {
            Ok(_) => world.note(format_args!("node {} {operation}", self.node)),
            Err(error) => {
                world.note(format_args!("node {} {operation}: {:?}", self.node, error.kind()));
            }
        }
        self.dawdle().await;
        let is_lost = world.loses_answer(operation);
        if is_lost || world.strikes("storage: error after", world.faults.storage.fails_after) {
            world.note(format_args!("node {} {operation}: error after", self.node));
            return Err(StorageError::new(StorageErrorKind::Unavailable, operation));
        }
        result
    }

    async fn dawdle(&self) {
        let world = &*self.world;
        let faults = world.faults.storage;
        if world.strikes("storage: slow", faults.slow) {
            let millis = world.dice.between(0, faults.slow_millis_max);
            world.sleep(Duration::from_millis(millis)).await;
        }
    }
}

/// Calls the storage in memory, with whatever goes wrong around it.
macro_rules! faulty {
    ($self:ident.$method:ident($($argument:expr),*)) => {{
        $self.before(stringify!($method)).await?;
        let result = $self.inner.$method($($argument),*).await;
        $self.after(stringify!($method), result).await
    }};
    // And tells the oracle, at the moment when it takes place.
    ($self:ident.$method:ident($($argument:expr),*), |$done:ident| $tell:expr) => {{
        $self.before(stringify!($method)).await?;
        let result = $self.inner.$method($($argument),*).await;
        if let Ok($done) = &result {
            $tell;
        }
        $self.after(stringify!($method), result).await
    }};
}
use faulty;
