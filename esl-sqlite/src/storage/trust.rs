//! Whether the database can still be trusted: not after a sync of it has failed.
//!
//! A checkpoint that a reader or the writer holds up copies pages into the database without a sync, and
//! notes in the memory that all connections share how far it came; the next one goes on from there, and
//! its sync is to cover both. When that sync fails, the operating system drops what it could not write,
//! the pages of the first checkpoint among it, and says of the next sync that all is well: a checkpoint
//! that is tried again would take them for written, and let the WAL start over that alone still has
//! them. Until then, whoever reads them gets them from the database, as soon as the system has forgotten
//! what it dropped.
//!
//! The WAL itself has everything: a commit whose sync fails is rolled back, and the next one writes the
//! same place anew. Read from its beginning, as it is when the database is opened and nobody else has it
//! open, it mends the database. So from a failed sync on there is no checkpoint any more, not even at the
//! end, and nothing is read or written, until the database is opened anew.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use esl_core::storage::StorageError;
use rusqlite::ffi;

use crate::storage::error::translate;

/// Shared by all threads of a handle.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust {
    is_lost: Arc<AtomicBool>,
}

impl Trust {
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }

    /// Whether it is lost by this error of a checkpoint. It may have been the WAL's sync that failed,
    /// which would be harmless; SQLite does not say which.
    pub(crate) fn is_lost_by(&self, error: &rusqlite::Error) -> bool {
        let is_sync = error
            .sqlite_error()
            .is_some_and(|error| error.extended_code == ffi::SQLITE_IOERR_FSYNC);
        let is_lost_now = is_sync && !self.is_lost.swap(true, Ordering::AcqRel);
        if is_lost_now {
            tracing::error!(
                %error,
                "the disk could not keep what a checkpoint wrote; nothing acknowledged is lost, but the \
                 database must be opened anew, by all who have it open"
            );
        }
        is_lost_now
    }

    /// An error, once it is lost.
    pub(crate) fn demand(&self) -> rusqlite::Result<()> {
        if !self.is_lost() {
            return Ok(());
        }
        let code = ffi::Error::new(ffi::SQLITE_IOERR_FSYNC);
        Err(rusqlite::Error::SqliteFailure(code, Some(LOST.into())))
    }

    pub(crate) fn demand_for(&self, operation: &'static str) -> Result<(), StorageError> {
        self.demand().map_err(|error| translate(operation, error))
    }
}

const LOST: &str =
    "a sync of the database has failed; it must be opened anew, by all who have it open";
