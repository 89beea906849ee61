//! The one thread that writes.
//!
//! It takes all the work that waits into one transaction, and answers after the commit, so that
//! many callers share one fsync. Nobody else in this handle writes; other connections take turns
//! with it through SQLite's lock.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use esl_core::storage::{StorageError, StorageTime};
use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};

use crate::storage::{
    changes::Changes,
    checkpoint::Checkpoints,
    config::OPEN,
    engine_lock::EngineLock,
    error::{SharedError, Stop, closed, translate, translate_io},
    foreign::Foreign,
    job::{Job, Work},
    secrets::Secrets,
    session::Session,
    turn::Turn,
    washing::Washing,
};

/// The writer, as the rest of the storage sees it.
pub(crate) struct Writer {
    messages: Sender<Message>,
    places: Arc<Semaphore>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

pub(crate) enum Message {
    Job(Box<dyn Job>),
    Turn(oneshot::Sender<Result<Turn, StorageError>>),
    /// Look now whether others have committed.
    Look,
    /// From now on somebody wants to hear of what others commit.
    Listen,
    Close,
}

/// What the writer is made of.
pub(crate) struct Parts {
    pub(crate) connection: Connection,
    pub(crate) database: PathBuf,
    pub(crate) time: Arc<StorageTime>,
    pub(crate) changes: Arc<Changes>,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) secrets: Arc<Secrets>,
}

impl Writer {
    pub(crate) fn start(parts: Parts) -> Result<Self, StorageError> {
        let (messages, inbox) = mpsc::channel();
        let (ready, is_ready) = mpsc::sync_channel(1);
        let thread = thread::Builder::new().name("esl-sqlite-writer".into());
        let thread = thread
            .spawn(move || write(parts, inbox, &ready))
            .map_err(|error| translate_io(OPEN, error))?;
        is_ready.recv().map_err(|_| closed(OPEN))??;
        let places = Arc::new(Semaphore::new(WAITING_MAX));
        Ok(Self { messages, places, thread: Mutex::new(Some(thread)) })
    }

    /// Does work in a transaction, and answers when that is committed.
    ///
    /// The work checks first and writes then: a refusal must have written nothing.
    pub(crate) async fn run<T, F>(
        &self,
        operation: &'static str,
        weight: usize,
        work: F,
    ) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Session<'_>) -> Result<T, Stop> + Send + 'static,
    {
        self.send(operation, weight, false, work).await
    }

    /// As [`run`](Self::run), but nothing else was done in the transaction before.
    pub(crate) async fn run_first<T, F>(
        &self,
        operation: &'static str,
        weight: usize,
        work: F,
    ) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Session<'_>) -> Result<T, Stop> + Send + 'static,
    {
        self.send(operation, weight, true, work).await
    }

    async fn send<T, F>(
        &self,
        operation: &'static str,
        weight: usize,
        is_first: bool,
        work: F,
    ) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Session<'_>) -> Result<T, Stop> + Send + 'static,
    {
        let places = Arc::clone(&self.places);
        let place = places.acquire_owned().await.map_err(|_| closed(operation))?;
        let (caller, answer) = oneshot::channel();
        let work = Work::new(operation, weight, is_first, work, caller, place);
        self.messages.send(Message::Job(Box::new(work))).map_err(|_| closed(operation))?;
        answer.await.map_err(|_| closed(operation))?
    }

    pub(crate) async fn turn(&self) -> Result<Turn, StorageError> {
        let (caller, turn) = oneshot::channel();
        self.messages.send(Message::Turn(caller)).map_err(|_| closed(TURN))?;
        turn.await.map_err(|_| closed(TURN))?
    }

    /// A way to make the writer look at once whether others have committed.
    pub(crate) fn notifier(&self) -> Sender<Message> {
        self.messages.clone()
    }

    /// Does what was asked before, finishes the WAL, and ends. Comes back when all is done.
    pub(crate) fn close(&self) {
        self.places.close();
        // A thread that is gone needs no message.
        _ = self.messages.send(Message::Close);
        let thread = self.thread.lock().expect("no code panics while it holds this lock").take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes has panicked");
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

fn write(
    parts: Parts,
    inbox: Receiver<Message>,
    ready: &mpsc::SyncSender<Result<(), StorageError>>,
) {
    let Parts { connection, database, time, changes, checkpoints, secrets } = parts;
    let lock = EngineLock::new(database);
    let started = Foreign::start(&connection, changes).and_then(|foreign| {
        Ok((Session::new(&connection, lock, foreign.author(), secrets)?, foreign))
    });
    let answer = |result| ready.send(result).expect("the caller waits for this");
    match started {
        Ok((session, foreign)) => {
            answer(Ok(()));
            let held_back = None;
            let washing = Washing::default();
            let mut thread =
                Thread { inbox, session, foreign, time, checkpoints, washing, held_back };
            thread.run();
            thread.checkpoints.finish(&connection);
        }
        Err(error) => answer(Err(translate(OPEN, error))),
    }
}

struct Thread<'c> {
    inbox: Receiver<Message>,
    session: Session<'c>,
    foreign: Foreign,
    time: Arc<StorageTime>,
    checkpoints: Checkpoints,
    washing: Washing,
    /// Taken from the inbox too early.
    held_back: Option<Message>,
}

impl Thread<'_> {
    fn run(&mut self) {
        loop {
            self.washing.go_on(&mut self.checkpoints, self.session.connection);
            match self.next() {
                Some(Message::Job(job)) => self.transact(job),
                Some(Message::Turn(caller)) => self.grant(caller),
                Some(Message::Look) => self.look(),
                Some(Message::Listen) => {
                    // What was seen before was not passed on.
                    self.foreign.forget();
                    self.look();
                }
                Some(Message::Close) | None => return,
            }
        }
    }

    /// What to do next; while somebody wants to hear of others' changes, or the WAL to be empty, looks
    /// after that in between.
    fn next(&mut self) -> Option<Message> {
        if let Some(message) = self.held_back.take() {
            return Some(message);
        }
        if !self.foreign.is_listening() && !self.washing.is_pending() {
            return self.inbox.recv().ok();
        }
        loop {
            match self.inbox.recv_timeout(LOOK_INTERVAL) {
                Ok(message) => return Some(message),
                Err(RecvTimeoutError::Timeout) => {
                    self.washing.go_on(&mut self.checkpoints, self.session.connection);
                    self.look();
                }
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn look(&mut self) {
        if let Err(error) = self.foreign.look(&mut self.session) {
            tracing::warn!(%error, "could not look for what others have committed");
        }
    }

    /// Stays out of the database while somebody has the turn.
    fn grant(&mut self, caller: oneshot::Sender<Result<Turn, StorageError>>) {
        if let Err(error) = self.checkpoints.trust().demand_for(TURN) {
            // A caller that is gone has no use for the answer.
            _ = caller.send(Err(error));
            return;
        }
        let (turn, end) = Turn::new();
        if caller.send(Ok(turn)).is_ok() {
            if end.recv_timeout(TURN_MAX) == Err(RecvTimeoutError::Timeout) {
                tracing::warn!(seconds = TURN_MAX.as_secs(), "a turn lasts too long; writing on");
            }
            self.foreign.expect_commit();
            self.look();
        }
    }

    /// One transaction, with all the work that waits.
    fn transact(&mut self, first: Box<dyn Job>) {
        self.foreign.leave_room();
        let mut jobs = vec![first];
        let began = match self.begin() {
            Ok(()) => Instant::now(),
            Err(error) => {
                // They have all waited for the same lock.
                jobs.extend(std::iter::from_fn(|| self.next_job()));
                return self.fail(jobs, error);
            }
        };
        let done = self.run_all(&mut jobs).and_then(|()| self.commit());
        match done {
            Ok(()) => {
                self.foreign.committed(began.elapsed());
                self.take_effect();
                for job in jobs {
                    job.answer(Ok(()));
                }
                self.checkpoints.after_commit(self.session.connection);
            }
            Err(error) => self.fail(jobs, error),
        }
    }

    fn begin(&mut self) -> rusqlite::Result<()> {
        self.checkpoints.trust().demand()?;
        self.session.begin(&self.time)?;
        self.foreign.take_up(&mut self.session)
    }

    fn run_all(&mut self, jobs: &mut Vec<Box<dyn Job>>) -> rusqlite::Result<()> {
        let mut weight = 0;
        let mut next = 0;
        while let Some(job) = jobs.get_mut(next) {
            job.run(&mut self.session)?;
            weight = job.weight().saturating_add(weight);
            next += 1;
            if weight < WEIGHT_MAX {
                jobs.extend(self.next_job());
            }
        }
        Ok(())
    }

    /// The next piece of work, if that is what comes next.
    fn next_job(&mut self) -> Option<Box<dyn Job>> {
        if self.held_back.is_some() {
            return None;
        }
        loop {
            match self.inbox.try_recv().ok()? {
                Message::Job(job) if !job.is_first() => return Some(job),
                // Whatever there is to see was seen when this transaction began.
                Message::Look => {}
                other => {
                    self.held_back = Some(other);
                    return None;
                }
            }
        }
    }

    fn commit(&mut self) -> rusqlite::Result<()> {
        self.session.write_organizations()?;
        self.session.statements.commit.execute([])?;
        Ok(())
    }

    fn take_effect(&mut self) {
        let effects = std::mem::take(&mut self.session.effects);
        for change in effects.changes {
            self.foreign.tell(change);
        }
        if effects.releases_lock {
            self.session.lock.release();
        }
        for caller in effects.washed {
            self.washing.add(caller);
        }
    }

    /// Rolls back, and tells everybody who was part of it.
    fn fail(&mut self, jobs: Vec<Box<dyn Job>>, error: rusqlite::Error) {
        // Some errors have rolled back by themselves.
        if !self.session.connection.is_autocommit()
            && let Err(error) = self.session.statements.roll_back.execute([])
        {
            tracing::error!(%error, "could not roll back");
        }
        self.session.forget();
        // Chores that have passed what was rolled back begin anew.
        self.session.expiry_after = 0;
        self.session.removal = Default::default();
        self.session.effects = Default::default();
        self.foreign.forget();
        let error = SharedError::new(error);
        for job in jobs {
            job.answer(Err(&error));
        }
    }
}

/// How often to look whether others have committed, while there is nothing else to do.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

const TURN: &str = "wait for a turn";

/// For how long somebody may have the turn.
const TURN_MAX: Duration = Duration::from_secs(5);

/// Rows of one transaction. Larger ones save nothing more, and those who wait wait longer.
const WEIGHT_MAX: usize = 8192;

/// Calls that may wait for the writer; further ones wait for a place in the queue.
const WAITING_MAX: usize = 16 * 1024;
