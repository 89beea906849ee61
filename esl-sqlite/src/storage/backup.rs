//! Backup: a copy of the database as of one moment, while it is in use.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

use esl_core::storage::{StorageError, StorageErrorKind};
use rusqlite::{Connection, OpenFlags};

use crate::{
    file::create_private,
    storage::{
        SqliteStorage,
        error::{translate, translate_io},
    },
};

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backup {
    /// The size of its file in bytes.
    pub bytes: u64,
    /// The events in it.
    pub events: u64,
}

impl SqliteStorage {
    /// Copies the database at `database` into a new file, as of one moment: every event that was
    /// acknowledged before the call is in it. The database may be in use, by this process or others.
    ///
    /// The copy is complete and checked before it gets its name, is readable by its owner alone, and
    /// holds nothing that was removed or erased. Large payloads are elsewhere: copy their folder
    /// after the database, so that none is missing that an event in the copy names.
    ///
    /// It blocks for as long as it takes to read and write the whole database; in the meantime the
    /// WAL of the database cannot start over, and grows with what is written.
    ///
    /// # Errors
    /// [`Conflict`](StorageErrorKind::Conflict) if there is a file already;
    /// [`Unavailable`](StorageErrorKind::Unavailable) if there is no room for it, or no database;
    /// [`Corrupt`](StorageErrorKind::Corrupt) if the copy is damaged, which says that the database is.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let database = folder.path().join("esl.db");
    /// # let copy = folder.path().join("copy.db");
    /// use esl_sqlite::SqliteStorage;
    /// let storage = SqliteStorage::open(&database)?;
    /// let backup = SqliteStorage::backup(&database, &copy)?;
    /// assert_eq!(backup.events, 0);
    /// SqliteStorage::open(&copy)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn backup(
        database: impl AsRef<Path>,
        to: impl AsRef<Path>,
    ) -> Result<Backup, StorageError> {
        let to = to.as_ref();
        if fs::symlink_metadata(to).is_ok() {
            return Err(StorageError::new(StorageErrorKind::Conflict, BACKUP));
        }
        let unfinished = Unfinished::beside(to)?;
        let backup = copy(database.as_ref(), &unfinished.0)?;
        let link = |from: &Path, to: &Path| fs::hard_link(from, to);
        give_name(&unfinished.0, to, link).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                StorageError::new(StorageErrorKind::Conflict, BACKUP).with_source(error)
            }
            _ => translate_io(BACKUP, error),
        })?;
        sync_folder(to)?;
        Ok(backup)
    }
}

const BACKUP: &str = "back the database up";

fn copy(database: &Path, to: &Path) -> Result<Backup, StorageError> {
    let failed = |error| translate(BACKUP, error);
    let io_failed = |error| translate_io(BACKUP, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(database, flags).map_err(failed)?;
    source.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    let name = to.to_str().ok_or_else(|| {
        let message = "the name of the file is not UTF-8";
        StorageError::new(StorageErrorKind::Unsupported, BACKUP).with_source(message)
    })?;
    source.execute("VACUUM main INTO ?1", [name]).map_err(failed)?;
    drop(source);

    let copy = Connection::open_with_flags(to, flags).map_err(failed)?;
    let verdict: String =
        copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if verdict != "ok" {
        return Err(StorageError::new(StorageErrorKind::Corrupt, BACKUP).with_source(verdict));
    }
    // No engine runs on the copy, and nobody has anything to hear from it.
    let detach = "UPDATE esl_engine SET worker = NULL, lapses_at = 0; DELETE FROM esl_changes;";
    copy.execute_batch(detach).map_err(failed)?;
    let events: i64 =
        copy.query_row("SELECT count(*) FROM esl_events", [], |row| row.get(0)).map_err(failed)?;
    copy.close().map_err(|(_, error)| failed(error))?;
    let file = File::open(to).map_err(io_failed)?;
    file.sync_all().map_err(io_failed)?;
    let bytes = file.metadata().map_err(io_failed)?.len();
    Ok(Backup { bytes, events: events.unsigned_abs() })
}

/// Gives a finished file its name, and leaves a file alone that has got the name meanwhile.
///
/// A hard link does that in one step. Where the file system has none, the name is taken by an empty
/// file first, which is then replaced: what stood there before would have been in its way.
fn give_name(
    finished: &Path,
    to: &Path,
    link: impl FnOnce(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    match link(finished, to) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {}
        named => return named,
    }
    File::create_new(to)?;
    fs::rename(finished, to).inspect_err(|_| {
        // It is our own, and empty. That the rename failed says more than that this did.
        _ = fs::remove_file(to);
    })
}

/// A file that loses this name again, whatever happens.
struct Unfinished(PathBuf);

impl Unfinished {
    fn beside(to: &Path) -> Result<Self, StorageError> {
        let mut name = to.as_os_str().to_owned();
        name.push(format!(".{}.unfinished", std::process::id()));
        let unfinished = Self(PathBuf::from(name));
        // An earlier process of this number may have left some.
        unfinished.remove();
        create_private(&unfinished.0).map_err(|error| translate_io(BACKUP, error))?;
        Ok(unfinished)
    }

    fn remove(&self) {
        for suffix in ["", "-journal", "-wal", "-shm"] {
            let mut name = self.0.as_os_str().to_owned();
            name.push(suffix);
            // Most of them are not there.
            _ = fs::remove_file(PathBuf::from(name));
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Makes the new name in its folder durable.
fn sync_folder(path: &Path) -> Result<(), StorageError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| translate_io(BACKUP, error))
}

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn no_links(_: &Path, _: &Path) -> io::Result<()> {
        // As FAT and some network file systems answer.
        Err(ErrorKind::PermissionDenied.into())
    }

    #[test]
    fn a_copy_gets_its_name_where_the_file_system_has_no_hard_links() {
        let folder = tempfile::tempdir().unwrap();
        let [finished, to] = ["finished", "to"].map(|name| folder.path().join(name));
        fs::write(&finished, "a copy").unwrap();
        give_name(&finished, &to, no_links).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"a copy");
        assert!(!finished.exists());
    }

    #[test]
    fn a_file_that_has_got_the_name_meanwhile_is_left_alone_with_hard_links_and_without() {
        let folder = tempfile::tempdir().unwrap();
        let [finished, to] = ["finished", "to"].map(|name| folder.path().join(name));
        fs::write(&finished, "a copy").unwrap();
        fs::write(&to, "somebody's").unwrap();
        let with_links = give_name(&finished, &to, |from, to| fs::hard_link(from, to));
        for named in [with_links, give_name(&finished, &to, no_links)] {
            assert_eq!(named.unwrap_err().kind(), ErrorKind::AlreadyExists);
            assert_eq!(fs::read(&to).unwrap(), b"somebody's");
        }
    }

    #[test]
    fn a_name_that_could_not_be_given_is_free_again() {
        let folder = tempfile::tempdir().unwrap();
        let [absent, to] = ["absent", "to"].map(|name| folder.path().join(name));
        assert_eq!(give_name(&absent, &to, no_links).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(!to.exists());
    }
}
