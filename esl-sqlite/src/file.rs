//! What opening a file takes, whatever it is opened for: storage or what was seen.

use std::{
    fs::OpenOptions,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, ffi};

/// Says that SQLite is too old: up to 3.51.2 it can corrupt a database when two connections write and
/// checkpoint at once.
pub(crate) fn demand_safe_version() -> Result<(), String> {
    if rusqlite::version_number() >= SAFE_VERSION {
        return Ok(());
    }
    Err(format!("SQLite {} is too old: 3.51.3 is needed", rusqlite::version()))
}

/// Makes the file, if there is none, for its owner alone: it may hold secrets. SQLite gives the files
/// beside it the same permissions.
pub(crate) fn create_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Asks for a WAL; gives the mode in which the journal is then.
pub(crate) fn enter_wal(connection: &Connection, patience: Duration) -> rusqlite::Result<String> {
    let began = Instant::now();
    loop {
        match connection.query_row("PRAGMA main.journal_mode = WAL", [], |row| row.get(0)) {
            // Another process may be making the same database; the handler is not asked here.
            Err(error) if is_busy(&error) && began.elapsed() < patience => thread::sleep(NAP),
            mode => return mode,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

/// For how long a connection waits for others.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    pub(crate) limit: Duration,
    is_suspended: Arc<AtomicBool>,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, is_suspended: Arc::default() }
    }

    /// Does something on the connection for which it waits for nobody.
    #[cfg(feature = "storage")]
    pub(crate) fn without<T>(&self, work: impl FnOnce() -> T) -> T {
        self.is_suspended.store(true, Ordering::Relaxed);
        let done = work();
        self.is_suspended.store(false, Ordering::Relaxed);
        done
    }
}

/// SQLite's own handler sleeps up to 100 ms at a time, and so misses every short gap between two
/// transactions of somebody else.
pub(crate) fn wait_while_busy(patience: Patience) -> impl FnMut(i32) -> bool + Send + 'static {
    let mut began = Instant::now();
    move |earlier_calls| {
        if earlier_calls == 0 {
            began = Instant::now();
        }
        if patience.is_suspended.load(Ordering::Relaxed) || began.elapsed() >= patience.limit {
            return false;
        }
        thread::sleep(NAP);
        true
    }
}

/// How long to wait for another connection that writes, where nothing else is said: longer than any
/// transaction should be, and short enough for whoever waits for the answer.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

const NAP: Duration = Duration::from_micros(500);
const SAFE_VERSION: i32 = 3_051_003;

const _: () = assert!(ffi::SQLITE_VERSION_NUMBER >= SAFE_VERSION);
