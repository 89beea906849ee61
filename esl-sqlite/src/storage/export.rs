//! All that a database holds, for a storage of another kind.
//!
//! What is read must not change between two batches, nor between a move that was interrupted and the one that
//! goes on with it, days later perhaps. So the database is closed first, durably: see `leaving.rs`.

use std::path::Path;

use esl_core::{
    BlobKey, InstallationId, Timestamp,
    storage::{
        Removal, StorageError, StorageErrorKind,
        transfer::{Destination, Leaving, Row, TABLES, Table, Tally, TransferId, Value},
    },
};
use tokio::sync::oneshot;

use crate::storage::{
    SqliteOptions, SqliteStorage,
    blobs::{named, named_by},
    exported_rows as rows, leaving as mark,
    readers::Snapshot,
    session::Session,
    set_back,
};

/// A database whose rows are to be moved into a storage of another kind; see
/// [`transfer`](esl_core::storage::transfer) for the whole.
///
/// While it is there, no engine starts on the database, as if it were one itself. From
/// [`close`](Self::close) on, none does at all, and nobody changes anything in ESL's tables, whoever has
/// the database open, until [`give_back`](Self::give_back).
///
/// ```
/// # use esl_core::{InstallationId, storage::transfer::{Destination, TABLES, TransferId}};
/// # use esl_sqlite::{Export, SqliteStorage};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("esl.db");
/// # SqliteStorage::open(&path)?;
/// # let (id, identity, fresh) = (TransferId::from_bytes([7; 16]), [8; 16], InstallationId::from_bytes([9; 16]));
/// let mut export = Export::open(&path, SqliteStorage::options()).await?;
/// export.close(id, Destination { identity, name: "postgres://db/app".into() }, fresh).await?;
/// for table in TABLES {
///     let mut after = None;
///     while let Some(row) = export.read(table, after).await?.pop() {
///         after = Some(row[..table.key].to_vec());
///     }
/// }
/// assert!(SqliteStorage::open(&path).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Export {
    storage: SqliteStorage,
    leaving: Option<Leaving>,
}

impl Export {
    /// Opens a database that is there, and keeps engines away from it.
    ///
    /// # Errors
    /// [`NotFound`](StorageErrorKind::NotFound) if there is no such file;
    /// [`Fenced`](StorageErrorKind::Fenced) if an engine runs on it, or somebody else moves it; and those of
    /// [`SqliteStorage::open`].
    pub async fn open(
        path: impl AsRef<Path>,
        options: SqliteOptions,
    ) -> Result<Self, StorageError> {
        let path = path.as_ref();
        if !path.exists() {
            return Err(StorageError::new(StorageErrorKind::NotFound, OPEN));
        }
        let storage = SqliteStorage::open_whatever_it_is_marked_with(path, options)?;
        let work = |session: &mut Session<'_>| {
            session.lock.acquire(OPEN)?;
            Ok(mark::read(session.connection)?)
        };
        let leaving = storage.writer().run(OPEN, 1, work).await?;
        Ok(Self { storage, leaving })
    }

    /// Where the rows are being moved to, or were.
    #[must_use]
    pub const fn leaving(&self) -> Option<&Leaving> {
        self.leaving.as_ref()
    }

    /// Closes the database, for a move of this id; of one that is closed already, nothing changes. Gives the
    /// mark that it has, and the installation that it is: `fresh`, if it was none.
    pub async fn close(
        &mut self,
        id: TransferId,
        to: Destination,
        fresh: InstallationId,
    ) -> Result<(Leaving, InstallationId), StorageError> {
        if let Some(leaving) = self.leaving.clone() {
            return Ok((leaving, self.storage.installation(fresh).await?));
        }
        let installation = self.storage.installation(fresh).await?;
        let leaving = Leaving { id, to, left_at: None };
        let (caller, is_empty) = oneshot::channel();
        let written = leaving.clone();
        let work = move |session: &mut Session<'_>| {
            // As an engine that starts: what is due goes by the clock, and nothing stands behind a gap.
            let epoch = session.epoch()?;
            set_back::follow(session, epoch)?;
            if epoch.is_open() {
                session.effects.washed.push(caller);
            }
            session.write_epoch(epoch.ended())?;
            Ok(mark::close(session.connection, &written)?)
        };
        self.storage.writer().run(CLOSE, 1, work).await?;
        // Nobody says so if there was nothing to do.
        _ = is_empty.await;
        self.leaving = Some(leaving.clone());
        Ok((leaving, installation))
    }

    /// The rows of a table after a key, in the order of keys; a batch of them, and none at the end.
    ///
    /// # Errors
    /// [`Corrupt`](StorageErrorKind::Corrupt), naming the row, if a value is not what ESL writes there.
    pub async fn read(
        &self,
        table: &'static Table,
        after: Option<Vec<Value>>,
    ) -> Result<Vec<Row>, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| rows::batch(snapshot.connection, table, after);
        self.storage.readers().run(READ, work).await
    }

    /// Counts the rows of a table, and hashes them.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn tally(&self, table: &'static Table) -> Result<Tally, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| {
            let mut tally = Tally::default();
            rows::each(snapshot.connection, table, None, |row| {
                tally.add(&row);
                true
            })?;
            Ok(tally)
        };
        self.storage.searcher().run(READ, work).await
    }

    /// Of each table that is numbered, the number that comes next. Some were given out of which no row is
    /// left, and are not given out again.
    pub async fn next_numbers(&self) -> Result<Vec<(&'static Table, i64)>, StorageError> {
        let work = |snapshot: &Snapshot<'_>| {
            let numbered = TABLES.iter().filter(|table| table.is_numbered);
            let next = numbered.map(|table| {
                rows::next_number(snapshot.connection, table).map(|number| (table, number))
            });
            Ok(next.collect::<Result<_, _>>()?)
        };
        self.storage.readers().run(READ, work).await
    }

    /// The blobs that events name, those of the intake and the schedule, too.
    pub async fn blobs(&self) -> Result<Vec<BlobKey>, StorageError> {
        let work = |snapshot: &Snapshot<'_>| {
            let connection = snapshot.connection;
            let mut keys = connection.prepare("SELECT key FROM esl_events ORDER BY key")?;
            let keys: Result<Vec<i64>, _> = keys.query_map([], |row| row.get(0))?.collect();
            let mut blobs = named_by(connection, keys?.into_iter())?;
            for table in ["esl_intake", "esl_scheduled"] {
                let sql = format!("SELECT substr(body, 1, 1024) FROM {table}");
                let mut heads = connection.prepare(&sql)?;
                for blob in heads.query_map([], named)? {
                    blobs.extend(blob?);
                }
            }
            Ok(blobs)
        };
        self.storage.searcher().run(READ, work).await
    }

    /// Marks the database as left for good: all of it is elsewhere.
    pub async fn finish(&mut self) -> Result<(), StorageError> {
        let work = |session: &mut Session<'_>| {
            mark::finish(session.connection, session.now)?;
            Ok(mark::read(session.connection)?)
        };
        self.leaving = self.storage.writer().run(CLOSE, 1, work).await?;
        Ok(())
    }

    /// Opens the database again, for engines too, and says what it was marked with. Whoever does that sees to it
    /// that no engine runs on what was moved: it would send the same.
    pub async fn give_back(self) -> Result<Option<Leaving>, StorageError> {
        let work = |session: &mut Session<'_>| Ok(mark::open(session.connection)?);
        self.storage.writer().run("open the database again", 1, work).await?;
        Ok(self.leaving)
    }

    /// The time by which the database goes.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.storage.time().now()
    }
}

const OPEN: &str = "open the database that is to be moved";
const CLOSE: &str = "close the database";
pub(crate) const READ: &str = "read the database that is moved";
