//! The outbox: events in the embedder's own transaction. The engine finds them in the intake.

use std::{fmt, path::Path};

use esl_core::{
    Clock, EventId, Prepared, SealedEvent, SystemClock, Timestamp,
    storage::{StorageError, StorageErrorKind},
};
use rusqlite::{Connection, ErrorCode};

use crate::storage::{SqliteStorage, error::translate, writer::Message};

impl SqliteStorage {
    /// Publishes an event as part of the caller's transaction, on the caller's own connection to
    /// this database: the event is there if and when that transaction is committed, and not if it
    /// is rolled back.
    ///
    /// Inserts one row and nothing else. No engine needs to run; the next one to run over this
    /// database, in whatever process, takes the event from there. Takes a
    /// [`Transaction`](rusqlite::Transaction), a [`Savepoint`](rusqlite::Savepoint), or a
    /// connection, for each is a `&Connection` by itself.
    ///
    /// After the commit, [`Receipt::notify`] makes an engine in this process look at once; it looks
    /// by itself every 20 ms.
    ///
    /// # Errors
    /// [`Unsupported`](StorageErrorKind::Unsupported) if the connection has another database open,
    /// or is not in WAL with `synchronous` FULL or EXTRA (with less, a committed event could be
    /// lost), or if `prepared` is older than [`Prepared::AGE_MAX`];
    /// [`Busy`](StorageErrorKind::Busy) if another connection has written too long.
    pub fn publish_in(
        &self,
        transaction: &Connection,
        prepared: Prepared,
    ) -> Result<Receipt, StorageError> {
        if !has_open(transaction, self.path()) {
            let message = format!("the connection is not to {}", self.path().display());
            return Err(unsupported(message));
        }
        let id = insert(transaction, prepared, self.time().now())?;
        Ok(Receipt { id, engine: Some(self.writer().notifier()) })
    }
}

/// Publishes an event as part of the caller's transaction, for a process that has no
/// [`SqliteStorage`]: all it takes is a connection to the database, whose tables must be there.
///
/// # Errors
/// As for [`SqliteStorage::publish_in`].
pub fn publish_in(transaction: &Connection, prepared: Prepared) -> Result<Receipt, StorageError> {
    let id = insert(transaction, prepared, SystemClock::new().utc())?;
    Ok(Receipt { id, engine: None })
}

/// What is left in the caller's hand of an event that was published in a transaction.
///
/// It is no proof: only the commit is.
#[must_use = "after the commit, `notify` makes the engine look at once"]
pub struct Receipt {
    id: EventId,
    engine: Option<std::sync::mpsc::Sender<Message>>,
}

impl Receipt {
    /// The event's id.
    #[must_use]
    pub const fn id(&self) -> EventId {
        self.id
    }

    /// Makes an engine in this process look for the event now. To be called after the commit:
    /// before it, there is nothing to see.
    pub fn notify(&self) {
        if let Some(engine) = &self.engine {
            // A storage that is closed has nobody to wake.
            _ = engine.send(Message::Look);
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receipt").field(&self.id).finish()
    }
}

const PUBLISH: &str = "publish in a transaction";

#[expect(clippy::needless_pass_by_value, reason = "a prepared event is inserted once")]
fn insert(
    connection: &Connection,
    prepared: Prepared,
    now: Timestamp,
) -> Result<EventId, StorageError> {
    if prepared.is_stale(now) {
        let hours = Prepared::AGE_MAX.as_secs() / 3600;
        return Err(unsupported(format!("it was prepared more than {hours} h ago: prepare anew")));
    }
    demand_durable(connection)?;
    match insert_intake(connection, prepared.event()) {
        Ok(()) => Ok(prepared.id()),
        // The only statement that could be wrong is the one that names the table.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => {
            let message = "the database has no ESL tables: open it with SqliteStorage once";
            Err(unsupported(message))
        }
        Err(error) => Err(translate(PUBLISH, error)),
    }
}

/// What the connection commits must survive a power cut, as everything that ESL acknowledges does.
fn demand_durable(connection: &Connection) -> Result<(), StorageError> {
    let failed = |error| translate(PUBLISH, error);
    let pragma = |sql| connection.prepare_cached(sql).map_err(failed);
    let mode: String =
        pragma("PRAGMA main.journal_mode")?.query_row([], |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(unsupported(format!("the connection's journal_mode is {mode}; WAL is needed")));
    }
    let level: u8 =
        pragma("PRAGMA main.synchronous")?.query_row([], |row| row.get(0)).map_err(failed)?;
    if level < SYNCHRONOUS_FULL {
        let level = ["OFF", "NORMAL"][usize::from(level)];
        return Err(unsupported(format!(
            "the connection's synchronous is {level}; FULL is needed: PRAGMA synchronous = FULL"
        )));
    }
    Ok(())
}

const SYNCHRONOUS_FULL: u8 = 2;

fn has_open(connection: &Connection, database: &Path) -> bool {
    connection.path().map(Path::new).is_some_and(|path| {
        path == database || path.canonicalize().is_ok_and(|path| path == database)
    })
}

fn unsupported(message: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StorageError {
    StorageError::new(StorageErrorKind::Unsupported, PUBLISH).with_source(message)
}

/// Adds an event to the intake. `main` is named: a row in an attached database would not be part of
/// the same commit.
pub(crate) fn insert_intake(connection: &Connection, event: &SealedEvent) -> rusqlite::Result<()> {
    let sql = "INSERT INTO main.esl_intake
                   (organization, event_id, event_type, timestamp, digest, body, changes)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    connection.prepare_cached(sql)?.execute((
        event.organization.to_bytes(),
        event.id.to_bytes(),
        event.event_type.as_str(),
        event.timestamp.as_millis(),
        event.digest,
        &*event.body,
        event.changes.as_deref(),
    ))?;
    Ok(())
}
