//! Foreign errors, translated once.

use std::{error::Error, fmt, io, sync::Arc};

use esl_core::storage::{StorageError, StorageErrorKind};
use rusqlite::{ErrorCode, ffi};

use crate::storage::secrets::{is_key_missing, is_without_randomness};

/// Why a piece of work ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The caller's precondition does not hold; nothing was written.
    Refused(StorageError),
    /// The database said no. What was written must be rolled back.
    Failed(rusqlite::Error),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<StorageError> for Stop {
    fn from(error: StorageError) -> Self {
        Self::Refused(error)
    }
}

impl Stop {
    pub(crate) const fn refused(kind: StorageErrorKind, operation: &'static str) -> Self {
        Self::Refused(StorageError::new(kind, operation))
    }

    /// Of what was read for one caller: a value that cannot be read is that caller's misfortune, and
    /// not that of everybody in the same transaction.
    pub(crate) fn of_reading(operation: &'static str, error: rusqlite::Error) -> Self {
        if is_damaged_value(&error) || is_key_missing(&error) {
            Self::Refused(translate(operation, error))
        } else {
            Self::Failed(error)
        }
    }

    pub(crate) fn into_error(self, operation: &'static str) -> StorageError {
        match self {
            Self::Refused(error) => error,
            Self::Failed(error) => translate(operation, error),
        }
    }
}

/// An error of the database that several callers are told of.
#[derive(Debug, Clone)]
pub(crate) struct SharedError(Arc<rusqlite::Error>);

impl SharedError {
    pub(crate) fn new(error: rusqlite::Error) -> Self {
        Self(Arc::new(error))
    }

    pub(crate) fn to_error(&self, operation: &'static str) -> StorageError {
        StorageError::new(kind(&self.0), operation).with_source(self.clone())
    }
}

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error for SharedError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

pub(crate) fn translate(operation: &'static str, error: rusqlite::Error) -> StorageError {
    StorageError::new(kind(&error), operation).with_source(error)
}

pub(crate) fn translate_io(operation: &'static str, error: io::Error) -> StorageError {
    StorageError::new(StorageErrorKind::Unavailable, operation).with_source(error)
}

/// What is said when the thread that does the work is gone.
pub(crate) fn closed(operation: &'static str) -> StorageError {
    StorageError::new(StorageErrorKind::Unavailable, operation).with_source("the storage is closed")
}

/// Whether a value is not what ESL writes there, in a row that SQLite itself reads well.
pub(crate) fn is_damaged_value(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code().is_none() && !is_key_missing(error) && !is_without_randomness(error)
}

/// Whether what was read cannot be what was written.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    kind(error) == StorageErrorKind::Corrupt
}

fn kind(error: &rusqlite::Error) -> StorageErrorKind {
    let extended = error.sqlite_error().map(|error| error.extended_code);
    match error.sqlite_error_code() {
        // Our triggers are there only in what is moved to another database.
        Some(ErrorCode::ConstraintViolation)
            if extended == Some(ffi::SQLITE_CONSTRAINT_TRIGGER) =>
        {
            StorageErrorKind::Unsupported
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StorageErrorKind::Busy,
        // A constraint of ours can only fail on rows that ESL has not written.
        Some(
            ErrorCode::DatabaseCorrupt
            | ErrorCode::NotADatabase
            | ErrorCode::ConstraintViolation
            | ErrorCode::TypeMismatch,
        ) => StorageErrorKind::Corrupt,
        Some(ErrorCode::Unknown | ErrorCode::TooBig | ErrorCode::SchemaChanged) => {
            StorageErrorKind::Unsupported
        }
        Some(_) => StorageErrorKind::Unavailable,
        None if is_key_missing(error) => StorageErrorKind::KeyMissing,
        None if is_without_randomness(error) => StorageErrorKind::Unavailable,
        // Not SQLite's: a column that does not hold what was put there.
        None => StorageErrorKind::Corrupt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_the_kind_that_says_what_to_do() {
        for (code, expected) in [
            (ffi::SQLITE_BUSY, StorageErrorKind::Busy),
            (ffi::SQLITE_BUSY_SNAPSHOT, StorageErrorKind::Busy),
            (ffi::SQLITE_FULL, StorageErrorKind::Unavailable),
            (ffi::SQLITE_IOERR_FSYNC, StorageErrorKind::Unavailable),
            (ffi::SQLITE_READONLY, StorageErrorKind::Unavailable),
            (ffi::SQLITE_CANTOPEN, StorageErrorKind::Unavailable),
            (ffi::SQLITE_CORRUPT, StorageErrorKind::Corrupt),
            (ffi::SQLITE_NOTADB, StorageErrorKind::Corrupt),
            (ffi::SQLITE_ERROR, StorageErrorKind::Unsupported),
            (ffi::SQLITE_CONSTRAINT_UNIQUE, StorageErrorKind::Corrupt),
            (ffi::SQLITE_CONSTRAINT_TRIGGER, StorageErrorKind::Unsupported),
        ] {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            assert_eq!(kind(&error), expected, "{code}");
        }
        assert_eq!(kind(&rusqlite::Error::InvalidColumnIndex(1)), StorageErrorKind::Corrupt);
    }

    #[test]
    fn a_system_without_random_bits_is_no_damage() {
        let error = rusqlite::Error::ToSqlConversionFailure(esl_core::NoRandomness.into());
        assert!(!is_damaged_value(&error) && !is_damage(&error));
        assert!(translate("seal", error).is_transient());
        // What else cannot be written is ours, and wrong.
        let error = rusqlite::Error::ToSqlConversionFailure("another".into());
        assert!(is_damaged_value(&error));
    }
}
