//! The lock file beside the database: one engine at a time.
//!
//! The operating system's lock, and not the file, says that an engine is alive: it is gone with the
//! process, however that ended.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
};

use esl_core::storage::{StorageError, StorageErrorKind};

use crate::storage::error::translate_io;

#[derive(Debug)]
pub(crate) struct EngineLock {
    database: PathBuf,
    file: Option<File>,
}

impl EngineLock {
    /// A lock that is not held yet. `database` is the canonical path, so that all its names lead to
    /// one lock.
    pub(crate) fn new(database: PathBuf) -> Self {
        Self { database, file: None }
    }

    pub(crate) const fn is_held(&self) -> bool {
        self.file.is_some()
    }

    /// Takes the lock, unless it is held already.
    pub(crate) fn acquire(&mut self, operation: &'static str) -> Result<(), StorageError> {
        if self.is_held() {
            return Ok(());
        }
        let path = lock_path(&self.database);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| translate_io(operation, error))?;
        match file.try_lock() {
            Ok(()) => {
                self.file = Some(file);
                Ok(())
            }
            Err(TryLockError::WouldBlock) => {
                let message = format!("another engine has {} open", self.database.display());
                Err(StorageError::new(StorageErrorKind::Fenced, operation).with_source(message))
            }
            Err(TryLockError::Error(error)) => Err(translate_io(operation, error)),
        }
    }

    /// Lets others have it. The file stays: to remove it would race with whoever opens it.
    pub(crate) fn release(&mut self) {
        self.file = None;
    }
}

fn lock_path(database: &Path) -> PathBuf {
    let mut name = OsString::from(database);
    name.push(".lock");
    name.into()
}
