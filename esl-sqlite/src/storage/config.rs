//! What can be chosen when a database is opened.

use std::{path::Path, sync::Arc, time::Duration};

use esl_core::{Clock, Keyring, SystemClock, storage::StorageError};

use crate::{
    file::BUSY_TIMEOUT,
    storage::{SqliteStorage, secrets::Secrets},
};

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
    pub(crate) secrets: Secrets,
}

impl SqliteOptions {
    pub(crate) fn new() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            busy_timeout: BUSY_TIMEOUT,
            secrets: Secrets::default(),
        }
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

    /// Encrypts the secrets of subscriptions, the values of their own headers and the keys of links
    /// where they are stored, with the first key, and reads what is encrypted with any of them. What is
    /// there in plain text is read as it is, until [`reencrypt`](SqliteStorage::reencrypt) rewrites it.
    ///
    /// From the first such secret on, every handle on the database needs the key. While an engine runs
    /// in another handle without it, nothing is encrypted with it:
    /// [`KeyMissing`](esl_core::storage::StorageErrorKind::KeyMissing). Defaults to none: secrets are in
    /// plain text.
    pub fn keyring(mut self, keyring: Keyring) -> Self {
        self.secrets = Secrets { keyring: Some(keyring) };
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
