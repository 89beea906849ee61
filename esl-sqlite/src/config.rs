//! What can be chosen when a database is opened.

use std::{path::Path, sync::Arc, time::Duration};

use esl_core::{Clock, SystemClock, storage::StorageError};

use crate::SqliteStorage;

/// How to open a database; made by [`SqliteStorage::options`].
///
/// ```
/// use std::time::Duration;
/// use esl_sqlite::SqliteStorage;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("esl.db");
/// let storage = SqliteStorage::options().busy_timeout(Duration::from_secs(1)).open(path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "options do nothing until `open` is called"]
pub struct SqliteOptions {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) busy_timeout: Duration,
}

impl SqliteOptions {
    pub(crate) fn new() -> Self {
        Self { clock: Arc::new(SystemClock::new()), busy_timeout: Duration::from_secs(5) }
    }

    /// Goes by this clock. Defaults to the machine's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How long to wait for another connection that writes, before a call fails as
    /// [`Busy`](esl_core::storage::StorageErrorKind::Busy). Defaults to 5 s: longer than any
    /// transaction should be, and short enough for whoever waits for the answer.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Opens the database at `path`, and makes it if there is none.
    ///
    /// # Errors
    /// See [`SqliteStorage::open`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<SqliteStorage, StorageError> {
        SqliteStorage::open_with(path.as_ref(), self)
    }
}

/// The operation that errors of opening name.
pub(crate) const OPEN: &str = "open the database";
