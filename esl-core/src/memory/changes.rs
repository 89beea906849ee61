//! Who is told of what others changed.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::Notify;

use crate::storage::Change;

/// One handle on the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HandleId(u64);

/// Every handle, with what it has not been told yet.
#[derive(Default)]
pub(super) struct Listeners {
    listeners: BTreeMap<HandleId, Listener>,
    last_handle: u64,
}

struct Listener {
    /// Each change once, so that a handle that never listens costs little.
    untold: Vec<Change>,
    news: Arc<Notify>,
}

impl Listeners {
    pub(super) fn add(&mut self, news: Arc<Notify>) -> HandleId {
        self.last_handle += 1;
        let handle = HandleId(self.last_handle);
        self.listeners.insert(handle, Listener { untold: Vec::new(), news });
        handle
    }

    pub(super) fn remove(&mut self, handle: HandleId) {
        self.listeners.remove(&handle);
    }

    /// Takes what a handle has not been told yet.
    pub(super) fn take(&mut self, handle: HandleId) -> Vec<Change> {
        let listener = self.listeners.get_mut(&handle);
        std::mem::take(&mut listener.expect("a handle listens until it is dropped").untold)
    }

    /// Tells every handle but the one that made the change.
    pub(super) fn tell_others(&mut self, by: HandleId, change: Change) {
        for (_, listener) in self.listeners.iter_mut().filter(|(handle, _)| **handle != by) {
            listener.hear(change);
        }
    }

    /// Tells every handle.
    pub(super) fn tell_all(&mut self, change: Change) {
        for listener in self.listeners.values_mut() {
            listener.hear(change);
        }
    }
}

impl Listener {
    fn hear(&mut self, change: Change) {
        if !self.untold.contains(&change) {
            self.untold.push(change);
        }
        self.news.notify_one();
    }
}
