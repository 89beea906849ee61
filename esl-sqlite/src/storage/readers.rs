//! The threads that read.
//!
//! Each has a connection of its own, and each piece of work sees one moment of the database: one
//! that is not before the call.

use std::{
    cell::Cell,
    fmt,
    path::Path,
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use esl_core::{
    Timestamp,
    storage::{StorageError, StorageErrorKind, StorageTime, Worker},
};
use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};

use crate::storage::{
    config::OPEN,
    connection::open_reader,
    damage::{Damages, Place},
    error::{Stop, closed, is_damaged_value, translate_io},
    secrets::Secrets,
    session::Epoch,
    trust::Trust,
};

pub(crate) struct Readers {
    /// `None` once it is closed.
    jobs: Option<Sender<ReadJob>>,
    places: Arc<Semaphore>,
    threads: Vec<JoinHandle<()>>,
    time: Arc<StorageTime>,
    damages: Arc<Damages>,
    secrets: Arc<Secrets>,
    trust: Trust,
}

type ReadJob = Box<dyn FnOnce(&Connection) + Send>;

/// The database as of one moment.
pub(crate) struct Snapshot<'c> {
    pub(crate) connection: &'c Connection,
    pub(crate) now: Timestamp,
    pub(crate) secrets: &'c Secrets,
    damages: &'c Damages,
    began: Cell<Instant>,
}

impl Readers {
    pub(crate) fn start(
        count: usize,
        database: &Path,
        patience: Duration,
        time: Arc<StorageTime>,
        secrets: Arc<Secrets>,
        trust: Trust,
    ) -> Result<Self, StorageError> {
        let (jobs, inbox) = mpsc::channel();
        let inbox = Arc::new(Mutex::new(inbox));
        let mut threads = Vec::with_capacity(count);
        for _ in 0..count {
            let connection = open_reader(database, patience)?;
            let inbox = Arc::clone(&inbox);
            let thread = thread::Builder::new().name("esl-sqlite-reader".into());
            let thread = thread
                .spawn(move || read(&connection, &inbox))
                .map_err(|error| translate_io(OPEN, error))?;
            threads.push(thread);
        }
        let places = Arc::new(Semaphore::new(WAITING_MAX));
        let damages = Arc::default();
        Ok(Self { jobs: Some(jobs), places, threads, time, damages, secrets, trust })
    }

    /// Reads in one transaction that begins after this call.
    pub(crate) async fn run<T, F>(
        &self,
        operation: &'static str,
        work: F,
    ) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Snapshot<'_>) -> Result<T, Stop> + Send + 'static,
    {
        self.begin(operation, work).await?.await
    }

    /// As [`run`](Self::run), but comes back when the work is in line, with what waits for its end.
    pub(crate) async fn begin<T, F>(
        &self,
        operation: &'static str,
        work: F,
    ) -> Result<impl Future<Output = Result<T, StorageError>> + use<T, F>, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Snapshot<'_>) -> Result<T, Stop> + Send + 'static,
    {
        let places = Arc::clone(&self.places);
        let place = places.acquire_owned().await.map_err(|_| closed(operation))?;
        let (caller, answer) = oneshot::channel();
        let (time, damages) = (Arc::clone(&self.time), Arc::clone(&self.damages));
        let (secrets, trust) = (Arc::clone(&self.secrets), self.trust.clone());
        let job = Box::new(move |connection: &Connection| {
            let _place = place;
            if caller.is_closed() {
                return;
            }
            let result = trust.demand_for(operation).and_then(|()| {
                let result = Snapshot::with(connection, (&damages, &secrets), time.now(), work);
                result.map_err(|stop| stop.into_error(operation))
            });
            // A caller that is gone has no use for the answer.
            _ = caller.send(result);
        });
        let jobs = self.jobs.as_ref().ok_or_else(|| closed(operation))?;
        jobs.send(job).map_err(|_| closed(operation))?;
        Ok(async move { answer.await.map_err(|_| closed(operation))? })
    }

    /// Ends the threads. Comes back when they have closed their connections.
    pub(crate) fn close(&mut self) {
        self.places.close();
        // Without a sender, the threads do what is left and end.
        self.jobs = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that reads has panicked");
            }
        }
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

fn read(connection: &Connection, inbox: &Mutex<Receiver<ReadJob>>) {
    loop {
        // One thread waits for work, the others wait for that thread.
        let job = inbox.lock().expect("no code panics while it holds this lock").recv();
        match job {
            Ok(job) => job(connection),
            Err(_) => return,
        }
    }
}

impl<'c> Snapshot<'c> {
    fn with<T>(
        connection: &'c Connection,
        (damages, secrets): (&'c Damages, &'c Secrets),
        now: Timestamp,
        work: impl FnOnce(&Self) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let snapshot = Self { connection, now, secrets, damages, began: Cell::new(Instant::now()) };
        execute(connection, "BEGIN")?;
        let result = work(&snapshot);
        if !connection.is_autocommit() {
            execute(connection, "COMMIT")?;
        }
        result
    }

    /// Goes on in a later moment of the database if this one is getting old: as long as it is read,
    /// the WAL cannot start over. To be called where both are as good.
    pub(crate) fn refresh(&self) -> rusqlite::Result<()> {
        if self.began.get().elapsed() >= AGE_MAX {
            execute(self.connection, "COMMIT")?;
            execute(self.connection, "BEGIN")?;
            self.began.set(Instant::now());
        }
        Ok(())
    }

    /// What was read; nothing, and a word in the log, if it is not what was written.
    pub(crate) fn readable<T>(
        &self,
        place: Place,
        read: rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error) if is_damaged_value(&error) => {
                self.tell_of_damage(place, &error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn tell_of_damage(&self, place: Place, error: &rusqlite::Error) {
        self.damages.tell(place, self.now, error);
    }

    /// Refuses a worker whose epoch is over.
    pub(crate) fn demand_running(
        &self,
        worker: &Worker,
        operation: &'static str,
    ) -> Result<(), Stop> {
        if Epoch::read(self.connection)?.is_running(worker, self.now) {
            Ok(())
        } else {
            Err(Stop::refused(StorageErrorKind::Fenced, operation))
        }
    }
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// Claims, lists and look-ups are short; three at a time keep a slow list from delaying a claim.
pub(crate) const READERS: usize = 3;

/// Calls that may wait for a reader; further ones wait for a place in the queue.
const WAITING_MAX: usize = 4 * 1024;

/// For how long one moment of the database is read.
const AGE_MAX: Duration = Duration::from_millis(100);
