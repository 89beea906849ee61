//! Emptying the WAL of what was erased.
//!
//! That is possible only while nobody reads what is in it: a backup reads for minutes. So it is tried
//! again and again between two transactions of the writer, each time in a moment, and nobody but those
//! who erase waits for it; they do not wait for ever.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::storage::checkpoint::Checkpoints;

/// Whoever wants the WAL to be empty.
#[derive(Default)]
pub(crate) struct Washing {
    /// With the time up to which each of them waits.
    waiting: Vec<(oneshot::Sender<bool>, Instant)>,
    /// When it is tried next; `None` if there is nothing to do.
    next: Option<Instant>,
}

impl Washing {
    /// Adds somebody whose transaction is committed.
    pub(crate) fn add(&mut self, caller: oneshot::Sender<bool>) {
        let now = Instant::now();
        self.waiting.push((caller, now + PATIENCE));
        self.next = Some(now);
    }

    pub(crate) const fn is_pending(&self) -> bool {
        self.next.is_some()
    }

    /// Tries, if it is time to. Also when nobody waits any more: what was erased is not to stay.
    pub(crate) fn go_on(&mut self, checkpoints: &mut Checkpoints, writer: &Connection) {
        let now = Instant::now();
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        let is_empty = checkpoints.empty(writer);
        for (caller, _) in self.waiting.extract_if(.., |(_, until)| is_empty || *until <= now) {
            // A caller that is gone has no use for the answer.
            _ = caller.send(is_empty);
        }
        let pause = if self.waiting.is_empty() { LONG_PAUSE } else { PAUSE };
        self.next = (!is_empty).then_some(now + pause);
    }
}

const PAUSE: Duration = Duration::from_millis(20);
const LONG_PAUSE: Duration = Duration::from_secs(1);

/// For how long whoever erases waits: longer than any read of ours.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
