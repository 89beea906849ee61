//! The handle, and what it is made of.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use esl_core::storage::{StorageError, StorageTime};
use rusqlite::Connection;

use crate::{
    file::Patience,
    storage::{
        Turn,
        changes::Changes,
        checkpoint::Checkpoints,
        config::{OPEN, SqliteOptions},
        connection::{open_checkpointer, open_writer},
        encryption_keys,
        error::translate_io,
        leaving,
        ownership::Ownership,
        readers::{READERS, Readers},
        schema::migrate,
        trust::Trust,
        writer::{Message, Parts, Writer},
    },
};

/// Storage in a SQLite file: the whole of [`Storage`](esl_core::storage::Storage), and the
/// [outbox](Self::publish_in).
///
/// Clones are the same handle. The last one to be dropped does what was asked before, brings the
/// WAL into the database and closes it; that takes a moment, in which the thread that drops it
/// waits.
#[derive(Clone)]
pub struct SqliteStorage {
    inner: Arc<Inner>,
}

struct Inner {
    database: PathBuf,
    time: Arc<StorageTime>,
    changes: Arc<Changes>,
    ownership: Ownership,
    writer: Writer,
    readers: Readers,
    /// Reads all of the database, for as long as that takes.
    searcher: Readers,
}

impl SqliteStorage {
    /// Opens the database at `path`, makes it if there is none, and brings its tables up to date.
    ///
    /// The file may be the embedder's own database: ESL's tables are all named `esl_…`, and nothing
    /// else in it is touched, except that its journal becomes a WAL.
    ///
    /// # Errors
    /// [`Unavailable`](esl_core::storage::StorageErrorKind::Unavailable) if the folder does not
    /// exist or the file cannot be written; [`Corrupt`](esl_core::storage::StorageErrorKind::Corrupt)
    /// if it is not a database; [`Unsupported`](esl_core::storage::StorageErrorKind::Unsupported) if
    /// its tables were made by a newer ESL, if it was moved to another database or is being moved, or if
    /// `path` names a database in memory;
    /// [`KeyMissing`](esl_core::storage::StorageErrorKind::KeyMissing) if secrets in it are encrypted
    /// with a key that is not in the [keyring](SqliteOptions::keyring).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        Self::options().open(path)
    }

    /// For what [`open`](Self::open) decides by itself.
    pub fn options() -> SqliteOptions {
        SqliteOptions::new()
    }

    pub(crate) fn open_with(path: &Path, options: SqliteOptions) -> Result<Self, StorageError> {
        Self::open_if(path, options, |connection| leaving::demand_none(connection, OPEN))
    }

    /// Also one that is being moved to another database, or was.
    pub(crate) fn open_whatever_it_is_marked_with(
        path: &Path,
        options: SqliteOptions,
    ) -> Result<Self, StorageError> {
        Self::open_if(path, options, |_| Ok(()))
    }

    fn open_if(
        path: &Path,
        options: SqliteOptions,
        demand: impl FnOnce(&Connection) -> Result<(), StorageError>,
    ) -> Result<Self, StorageError> {
        let SqliteOptions { clock, busy_timeout, secrets } = options;
        let secrets = Arc::new(secrets);
        let time = Arc::new(StorageTime::new(clock));
        let patience = Patience::new(busy_timeout);
        let mut connection = open_writer(path, &patience)?;
        migrate(&connection, time.now())?;
        demand(&connection)?;
        encryption_keys::demand_all(&connection, secrets.keyring.as_ref())?;
        let database = path.canonicalize().map_err(|error| translate_io(OPEN, error))?;
        let trust = Trust::default();
        let start = |count| {
            let (time, secrets) = (Arc::clone(&time), Arc::clone(&secrets));
            Readers::start(count, &database, busy_timeout, time, secrets, trust.clone())
        };
        let (readers, searcher) = (start(READERS)?, start(1)?);
        let checkpoints =
            Checkpoints::start(&mut connection, open_checkpointer(&database)?, patience, trust)?;
        let changes = Arc::new(Changes::default());
        let writer = Writer::start(Parts {
            connection,
            database: database.clone(),
            time: Arc::clone(&time),
            changes: Arc::clone(&changes),
            checkpoints,
            secrets: Arc::clone(&secrets),
        })?;
        let inner = Inner {
            database,
            time,
            changes,
            ownership: Ownership::default(),
            writer,
            readers,
            searcher,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Where the database is: the path it was opened with, made absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.database
    }

    /// Waits in line with the writer for the right to write to the database through a connection of
    /// one's own, which then meets no [`SQLITE_BUSY`](rusqlite::ErrorCode::DatabaseBusy) from it
    /// however busy the engine is. See [`Turn`].
    ///
    /// # Errors
    /// [`Unavailable`](esl_core::storage::StorageErrorKind::Unavailable) if the writer has ended.
    ///
    /// # Cancellation
    /// A dropped call gives its place in the line away.
    pub async fn turn(&self) -> Result<Turn, StorageError> {
        self.inner.writer.turn().await
    }

    pub(crate) fn writer(&self) -> &Writer {
        &self.inner.writer
    }

    pub(crate) fn readers(&self) -> &Readers {
        &self.inner.readers
    }

    pub(crate) fn searcher(&self) -> &Readers {
        &self.inner.searcher
    }

    pub(crate) fn time(&self) -> &StorageTime {
        &self.inner.time
    }

    pub(crate) fn ownership(&self) -> &Ownership {
        &self.inner.ownership
    }

    /// From the first call on, the writer looks for what others commit.
    pub(crate) fn listen(&self) -> &Changes {
        let changes = &self.inner.changes;
        if changes.listen() {
            // A writer that is gone has nothing more to say.
            _ = self.inner.writer.notifier().send(Message::Listen);
        }
        changes
    }
}

impl fmt::Debug for SqliteStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SqliteStorage").field(&self.inner.database).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.readers.close();
        self.searcher.close();
        // The last one to close its connection removes the WAL; no other must be closing just then.
        self.writer.close();
    }
}
