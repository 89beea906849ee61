//! Turns: a transaction of the embedder's, in line with the writer's.

use std::{
    fmt,
    sync::mpsc::{self, Receiver, Sender},
};

/// The right to write, until it is dropped: the writer stays out of the database.
///
/// Got from [`SqliteStorage::turn`](crate::storage::SqliteStorage::turn). Drop it right after the commit. It
/// lasts 5 s at most; then the writer goes on, and the two wait for each other as any two
/// connections do.
#[must_use = "the turn is over as soon as it is dropped"]
pub struct Turn {
    /// Dropped, it ends the turn.
    _end: Sender<()>,
}

impl Turn {
    /// A turn, and what disconnects at its end.
    pub(crate) fn new() -> (Self, Receiver<()>) {
        let (end, is_ended) = mpsc::channel();
        (Self { _end: end }, is_ended)
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Turn")
    }
}
