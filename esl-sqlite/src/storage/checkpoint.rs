//! Checkpoints: what is in the WAL finds its way into the database.
//!
//! A thread of its own does the bulk while the writer goes on, but never catches up with a writer
//! that does not pause, and the WAL starts over only once all of it is in the database. So when the
//! WAL has grown long, the thread goes over it again and again, each time over less, and then the
//! writer does the small remainder itself, between two transactions: what it syncs there, everybody
//! waits for. All of these checkpoints are passive: they wait for nobody, and nobody waits for them.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    thread::{self, JoinHandle},
};

use esl_core::storage::StorageError;
use rusqlite::{Connection, config::DbConfig, wal::CheckpointMode};

use crate::{
    file::Patience,
    storage::{
        config::OPEN,
        connection::page_bytes,
        error::{translate, translate_io},
        trust::Trust,
    },
};

/// The writer's side.
pub(crate) struct Checkpoints {
    /// The WAL's length in pages, as of the writer's last commit.
    wal_pages: Arc<AtomicUsize>,
    /// How many of them the thread has brought into the database.
    done_pages: Arc<AtomicUsize>,
    requests: SyncSender<()>,
    thread: JoinHandle<()>,
    /// Held by whoever checkpoints: SQLite would turn the second one away.
    running: Arc<Mutex<()>>,
    /// The writer's.
    patience: Patience,
    trust: Trust,
    bulk_pages: usize,
    restart_pages: usize,
    remainder_pages: usize,
    pages_before: usize,
    /// At which length of the WAL the thread was last asked.
    requested_at: usize,
    /// At which length the writer tries next.
    finish_at: usize,
}

impl Checkpoints {
    /// Starts the thread. It ends with [`finish`](Self::finish).
    pub(crate) fn start(
        writer: &mut Connection,
        checkpointer: Connection,
        patience: Patience,
        trust: Trust,
    ) -> Result<Self, StorageError> {
        let wal_pages = Arc::new(AtomicUsize::new(0));
        let seen_by_hook = Arc::clone(&wal_pages);
        writer
            .wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
                seen_by_hook.store(usize::try_from(pages).unwrap_or(0), Ordering::Relaxed);
                Ok(())
            }))
            .map_err(|error| translate(OPEN, error))?;
        let page_bytes = page_bytes(writer)?;
        let (requests, inbox) = mpsc::sync_channel(1);
        let running = Arc::new(Mutex::new(()));
        let done_pages = Arc::new(AtomicUsize::new(0));
        let thread = thread::Builder::new().name("esl-sqlite-checkpoint".into());
        let thread = thread
            .spawn({
                let (running, done_pages) = (Arc::clone(&running), Arc::clone(&done_pages));
                let trust = trust.clone();
                move || {
                    checkpoint_on_request(&checkpointer, &inbox, (&running, &trust), &done_pages)
                }
            })
            .map_err(|error| translate_io(OPEN, error))?;
        let restart_pages = RESTART_BYTES / page_bytes;
        Ok(Self {
            wal_pages,
            done_pages,
            requests,
            thread,
            running,
            patience,
            trust,
            bulk_pages: BULK_BYTES / page_bytes,
            restart_pages,
            remainder_pages: REMAINDER_BYTES / page_bytes,
            pages_before: 0,
            requested_at: 0,
            finish_at: restart_pages,
        })
    }

    /// Looks how long the WAL has become, between two transactions of the writer.
    pub(crate) fn after_commit(&mut self, writer: &Connection) {
        let pages = self.wal_pages.load(Ordering::Relaxed);
        if pages < self.pages_before {
            // It has started over.
            self.requested_at = 0;
            self.finish_at = self.restart_pages;
            self.done_pages.store(0, Ordering::Relaxed);
        }
        self.pages_before = pages;
        let left = pages.saturating_sub(self.done_pages.load(Ordering::Relaxed));
        let is_ripe = left <= self.remainder_pages || pages >= self.restart_pages * 2;
        if pages >= self.finish_at && is_ripe {
            self.finish_remainder(writer, pages);
        } else if pages >= self.finish_at.min(self.requested_at + self.bulk_pages) {
            // When the thread has yet to begin with the last request, that one is as good.
            _ = self.requests.try_send(());
            self.requested_at = pages;
        }
    }

    fn finish_remainder(&mut self, writer: &Connection, pages: usize) {
        let running = if pages < self.restart_pages * 2 {
            // While the thread is at it, the remainder is not small yet.
            let Ok(running) = self.running.try_lock() else { return };
            running
        } else {
            // A thread that gets nowhere must not let the WAL fill the disk.
            self.running.lock().expect("no code panics while it holds this lock")
        };
        let is_complete = checkpoint(writer, CheckpointMode::PASSIVE, &self.trust)
            .is_some_and(|(in_wal, done)| done == in_wal);
        // Complete, the next transaction starts the WAL over, unless somebody reads just then. If
        // it is not, a long reader is about, and trying at each commit would help nobody.
        drop(running);
        let pause = if is_complete { self.bulk_pages / 8 } else { self.bulk_pages };
        self.finish_at = pages + pause;
        self.requested_at = pages;
    }

    /// Empties the WAL between two transactions of the writer, and says whether it is empty. Waits for
    /// nobody: with much of it left to bring over, that is left to the thread first.
    pub(crate) fn empty(&mut self, writer: &Connection) -> bool {
        let pages = self.wal_pages.load(Ordering::Relaxed);
        let left = pages.saturating_sub(self.done_pages.load(Ordering::Relaxed));
        if left > self.remainder_pages {
            _ = self.requests.try_send(());
            return false;
        }
        let Ok(_running) = self.running.try_lock() else { return false };
        let truncate = || checkpoint(writer, CheckpointMode::TRUNCATE, &self.trust);
        let emptied = self.patience.without(truncate);
        emptied.is_some()
    }

    /// Whether what is read is what was written, and may be built upon.
    pub(crate) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Ends the thread, and makes the last checkpoint of all: leaves the WAL empty, if nobody else is at
    /// work.
    ///
    /// The thread's connection is closed before the writer's. If both were closed at once, each would
    /// take the other one for somebody who is still there, and neither would remove the WAL.
    pub(crate) fn finish(self, writer: &Connection) {
        drop(self.requests);
        if self.thread.join().is_err() {
            tracing::error!("the thread that checkpoints has panicked");
        }
        self.patience.without(|| checkpoint(writer, CheckpointMode::TRUNCATE, &self.trust));
        if self.trust.is_lost() {
            // Otherwise closing the last connection would make one more.
            let kept = writer.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            kept.expect("every connection can be told so");
        }
    }
}

fn checkpoint_on_request(
    connection: &Connection,
    inbox: &Receiver<()>,
    (running, trust): (&Mutex<()>, &Trust),
    done_pages: &AtomicUsize,
) {
    while let Ok(()) = inbox.recv() {
        let _running = running.lock().expect("no code panics while it holds this lock");
        if let Some((_, done)) = checkpoint(connection, CheckpointMode::PASSIVE, trust) {
            done_pages.store(done, Ordering::Relaxed);
        }
    }
}

/// How many pages are in the WAL, and how many of them are in the database afterwards.
fn checkpoint(
    connection: &Connection,
    mode: CheckpointMode,
    trust: &Trust,
) -> Option<(usize, usize)> {
    if trust.is_lost() {
        return None;
    }
    match connection.wal_checkpoint_v2(Some("main"), mode) {
        // Below nothing where there is no WAL.
        Ok((in_wal, done)) => Some((usize::try_from(in_wal).ok()?, usize::try_from(done).ok()?)),
        // Somebody else checkpoints, or writes; or the disk is full, which the next commit says
        // louder. What is in the WAL is safe there.
        Err(error) => {
            if trust.is_lost_by(&error) {
                keep_wal(connection);
            }
            tracing::debug!(%error, "a checkpoint was not finished");
            None
        }
    }
}

/// Begins to read, and does not end before the connection is closed: so nobody else's checkpoint, of a
/// command beside the server for instance, lets the WAL start over.
fn keep_wal(connection: &Connection) {
    if let Err(error) = connection.execute_batch("BEGIN; SELECT one FROM esl_engine") {
        tracing::debug!(%error, "the WAL is not held");
    }
}

/// After how much growth of the WAL the thread is asked. The ends of the growing trees are written
/// anew with each checkpoint, so that fewer ones leave the disk more time for commits: from 4 MiB to
/// this, the rate of commits grows by a tenth.
const BULK_BYTES: usize = 16 * 1024 * 1024;

/// From which length on the WAL is made to start over.
const RESTART_BYTES: usize = 64 * 1024 * 1024;

/// How much of it the writer finishes at most, unless the thread gets nowhere.
const REMAINDER_BYTES: usize = 1024 * 1024;
