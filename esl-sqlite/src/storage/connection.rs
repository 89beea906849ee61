//! Connections of ours, and how each is set up. Nobody else's connection is ever touched.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    time::Duration,
};

use esl_core::storage::{StorageError, StorageErrorKind};
use rusqlite::{Connection, OpenFlags, config::DbConfig};

use crate::{
    file::{self, Patience, create_private, enter_wal, wait_while_busy},
    storage::{
        config::OPEN,
        error::{translate, translate_io},
    },
};

/// Opens the connection that writes, and makes the database if there is none.
pub(crate) fn open_writer(path: &Path, patience: &Patience) -> Result<Connection, StorageError> {
    file::demand_safe_version().map_err(unsupported)?;
    demand_file(path)?;
    create_private(path).map_err(|error| translate_io(OPEN, error))?;
    demand_wal(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = open(path, flags, patience)?;
    let mode = enter_wal(&connection, patience.limit).map_err(|error| translate(OPEN, error))?;
    if mode != "wal" {
        return Err(unsupported(format!("its journal stays in mode `{mode}`; WAL is needed")));
    }
    // What is deleted is overwritten, so that what is erased later is in few places (`cleaning`).
    // A WAL that grew past its usual size gives the room back once it starts over.
    let pragmas = format!(
        "PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA cache_size = -{WRITER_CACHE_KIB};
         PRAGMA secure_delete = ON;
         PRAGMA journal_size_limit = {WAL_FILE_BYTES_MAX};"
    );
    connection.execute_batch(&pragmas).map_err(|error| translate(OPEN, error))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

/// Opens a connection that only reads.
pub(crate) fn open_reader(path: &Path, patience: Duration) -> Result<Connection, StorageError> {
    let patience = Patience::new(patience);
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, &patience)?;
    let pragmas = format!(
        "PRAGMA query_only = ON;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA cache_size = -{READER_CACHE_KIB};"
    );
    connection.execute_batch(&pragmas).map_err(|error| translate(OPEN, error))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

/// Opens a connection that only checkpoints.
pub(crate) fn open_checkpointer(path: &Path) -> Result<Connection, StorageError> {
    let patience = Patience::new(Duration::ZERO);
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, &patience)?;
    let pragmas = "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;";
    connection.execute_batch(pragmas).map_err(|error| translate(OPEN, error))?;
    Ok(connection)
}

fn open(path: &Path, flags: OpenFlags, patience: &Patience) -> Result<Connection, StorageError> {
    // Each connection stays with one thread. Without SQLITE_OPEN_URI, a path is a path.
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let mut connection =
        Connection::open_with_flags(path, flags).map_err(|error| translate(OPEN, error))?;
    connection
        .busy_handler(Some(wait_while_busy(patience.clone())))
        .map_err(|error| translate(OPEN, error))?;
    keep_plans(&connection).map_err(|error| translate(OPEN, error))?;
    #[cfg(test)]
    crate::storage::plans::watch(&mut connection).map_err(|error| translate(OPEN, error))?;
    Ok(connection)
}

/// Plans a statement once, whatever its parameters are (SQLite's "query planner stability guarantee").
/// Otherwise one with a limit, or on a table with a partial index, is planned anew whenever a parameter
/// gets another value, which costs many times what the statement does.
pub(crate) fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

fn unsupported(message: String) -> StorageError {
    StorageError::new(StorageErrorKind::Unsupported, OPEN).with_source(message)
}

/// What SQLite would make of an odd path is better said in words.
fn demand_file(path: &Path) -> Result<(), StorageError> {
    let text = path.to_string_lossy();
    if text.is_empty() || text == ":memory:" || text.starts_with("file:") {
        let message = format!(
            "`{text}` is not the path of a file; a database in memory is not supported, since \
             nothing in it survives (esl_core::MemoryStorage is for that)"
        );
        return Err(unsupported(message));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        let metadata = folder.metadata().map_err(|error| {
            let message = format!("the folder {} cannot be used: {error}", folder.display());
            StorageError::new(StorageErrorKind::Unavailable, OPEN).with_source(message)
        })?;
        if !metadata.is_dir() {
            let message = format!("{} is not a folder", folder.display());
            return Err(StorageError::new(StorageErrorKind::Unavailable, OPEN).with_source(message));
        }
    }
    match path.metadata() {
        Ok(metadata) if metadata.permissions().readonly() => {
            let message = format!("{} is read-only", path.display());
            Err(StorageError::new(StorageErrorKind::Unavailable, OPEN).with_source(message))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(translate_io(OPEN, error)),
    }
}

/// A WAL that is none is nothing to SQLite, which writes over it. It held commits, so somebody should
/// look at it before. Other damage to it is as good as what a power cut leaves, and cannot be told
/// from that.
fn demand_wal(path: &Path) -> Result<(), StorageError> {
    let path = path.canonicalize().map_err(|error| translate_io(OPEN, error))?;
    let mut wal = path.into_os_string();
    wal.push("-wal");
    let mut head = [0; WAL_HEAD_BYTES];
    match File::open(&wal).and_then(|mut file| file.read_exact(&mut head)) {
        Ok(()) => {}
        // There is none, or it has not begun.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
        Err(error) => return Err(translate_io(OPEN, error)),
    }
    let magic = head.first_chunk().map(|bytes| u32::from_be_bytes(*bytes) & !1);
    // Of a file that grew before a power cut there may be nothing but its length.
    if magic == Some(WAL_MAGIC) || head == [0; WAL_HEAD_BYTES] {
        return Ok(());
    }
    let message = format!(
        "{} is no write-ahead log, so what was committed last is not in it; without that file, the \
         database is as it was before",
        wal.display()
    );
    Err(StorageError::new(StorageErrorKind::Corrupt, OPEN).with_source(message))
}

/// The page size, in bytes.
pub(crate) fn page_bytes(connection: &Connection) -> Result<usize, StorageError> {
    let bytes: u32 = connection
        .query_row("PRAGMA main.page_size", [], |row| row.get(0))
        .map_err(|error| translate(OPEN, error))?;
    Ok(usize::try_from(bytes).expect("a page has 64 KiB at most"))
}

/// Enough for the inner pages and the growing ends of every tree of a large database.
const WRITER_CACHE_KIB: u32 = 16 * 1024;
const READER_CACHE_KIB: u32 = 2 * 1024;
/// <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>; the last bit says in which order the
/// bytes of checksums are.
const WAL_MAGIC: u32 = 0x377f_0682;
const WAL_HEAD_BYTES: usize = 32;
const WAL_FILE_BYTES_MAX: u32 = 64 * 1024 * 1024;
/// More than there are, so that each is prepared once.
const STATEMENTS_MAX: usize = 256;
