//! How far an attempt has come.
//!
//! A pool stands between an attempt and the connector, and the connector is told nothing but a
//! host. What it does for an attempt it therefore notes in a task-local value: it runs within the
//! attempt's own task. When the attempt goes on with another connection that became free first, the
//! pool finishes the new one on a task of its own, where there is nothing to note in.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
};

use esl_core::Timings;
use tokio::task::futures::TaskLocalFuture;

use super::connection::Marker;

tokio::task_local! {
    static PROGRESS: Progress;
}

/// What has happened in an attempt so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    timings: Cell<Timings>,
    opened: RefCell<Option<Marker>>,
}

impl Progress {
    /// Runs an attempt and keeps its progress, also when it is not run to its end.
    pub(super) fn follow<F: Future>(attempt: F) -> TaskLocalFuture<Self, F> {
        PROGRESS.scope(Self::default(), attempt)
    }

    /// How far an attempt came.
    pub(super) fn of<F: Future>(attempt: Pin<&mut TaskLocalFuture<Self, F>>) -> Self {
        attempt.take_value().expect("taken once only, at the end of the attempt")
    }

    pub(super) fn timings(&self) -> Timings {
        self.timings.get()
    }

    fn change(&self, change: impl FnOnce(&mut Timings)) {
        let mut timings = self.timings.get();
        change(&mut timings);
        self.timings.set(timings);
    }

    fn is_opened_here(&self, used: &Marker) -> bool {
        self.opened.borrow().as_ref().is_some_and(|opened| opened.is(used))
    }
}

/// Notes how long a part took.
pub(super) fn note(change: impl FnOnce(&mut Timings)) {
    // Fails on the pool's own tasks.
    let _ = PROGRESS.try_with(|progress| progress.change(change));
}

/// Notes the connection that was opened.
pub(super) fn note_opened(marker: &Marker) {
    let _ = PROGRESS.try_with(|progress| progress.opened.replace(Some(marker.clone())));
}

/// Notes which connection was used in the end. What was done to open another one took no part.
pub(super) fn note_used(used: Option<&Marker>) {
    if is_reused(used) {
        note(|timings| *timings = Timings::default());
    }
}

/// Whether the connection an attempt has used was opened by another one.
pub(super) fn is_reused(used: Option<&Marker>) -> bool {
    let Some(used) = used else { return false };
    PROGRESS.try_with(|progress| !progress.is_opened_here(used)).unwrap_or(false)
}
