//! Which lanes the engine has taken.
//!
//! There is one engine, so no row needs to say so: its process remembers, and forgets with its
//! epoch.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard},
};

use esl_core::{LaneId, storage::Worker};

#[derive(Debug, Default)]
pub(crate) struct Ownership(Mutex<Owned>);

#[derive(Debug, Default)]
struct Owned {
    owner: Option<Worker>,
    lanes: HashSet<LaneId>,
}

impl Ownership {
    /// Adds lanes to what a worker owns, whose epoch was found running.
    pub(crate) fn add(&self, worker: &Worker, lanes: impl Iterator<Item = LaneId>) {
        let mut owned = self.lock();
        if owned.owner != Some(*worker) {
            // An answer of an earlier epoch may come late.
            if owned.owner.is_some_and(|owner| owner.epoch > worker.epoch) {
                return;
            }
            *owned = Owned { owner: Some(*worker), lanes: HashSet::new() };
        }
        owned.lanes.extend(lanes);
    }

    /// Takes lanes away from what a worker owns.
    pub(crate) fn remove(&self, worker: &Worker, lanes: &[LaneId]) {
        let mut owned = self.lock();
        if owned.owner == Some(*worker) {
            for lane in lanes {
                owned.lanes.remove(lane);
            }
        }
    }

    /// Those of the lanes that are the worker's.
    pub(crate) fn filter<T>(
        &self,
        worker: &Worker,
        of: impl IntoIterator<Item = T>,
        lane: impl Fn(&T) -> LaneId,
    ) -> Vec<T> {
        let owned = self.lock();
        let is_owner = owned.owner == Some(*worker);
        of.into_iter().filter(|it| is_owner && owned.lanes.contains(&lane(it))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Owned> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}
