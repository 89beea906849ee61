//! The database: opening it, and what to say when that fails.

use std::{path::Path, sync::Arc};

use anyhow::{anyhow, bail};
use esl_core::{
    Clock,
    storage::{StorageError, StorageErrorKind},
};
use esl_sqlite::SqliteStorage;

use crate::{config::Config, secrets};

/// Opens the database, and makes it if it is not there.
pub(crate) fn open(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<SqliteStorage> {
    let path = &config.database;
    let mut options = SqliteStorage::options().clock(clock);
    if let Some(keyring) = &config.encryption_keys {
        options = options.keyring(keyring.clone());
    }
    match options.open(path) {
        Err(error) if error.kind() == StorageErrorKind::KeyMissing => {
            Err(secrets::key_missing(config, &error))
        }
        opened => opened.map_err(|error| unusable(config, error)),
    }
}

/// What is said of a database that cannot be used: which file it is, what to do, and why.
pub(crate) fn unusable(config: &Config, error: StorageError) -> anyhow::Error {
    let advice = match error.kind() {
        StorageErrorKind::Corrupt => ": restore a backup of it",
        StorageErrorKind::Busy => ": another program has locked it, so try again when that is done",
        // Their causes say it.
        _ => "",
    };
    anyhow::Error::new(error).context(cannot_be_used(config) + advice)
}

/// Which file it is that cannot be used.
pub(crate) fn cannot_be_used(config: &Config) -> String {
    format!("the database {} (ESL_DATABASE_URL) cannot be used", absolute(&config.database))
}

/// Whether it is no room, no permission or an I/O error that keeps a database from being used.
pub(crate) fn is_unavailable(error: &anyhow::Error) -> bool {
    let error: Option<&StorageError> = error.downcast_ref();
    error.is_some_and(|error| error.kind() == StorageErrorKind::Unavailable)
}

/// Opens a database that must be there: a command that reads should not make an empty one somewhere.
pub(crate) fn open_existing(
    config: &Config,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<SqliteStorage> {
    demand_existing(config)?;
    open(config, clock)
}

/// Fails if there is no database.
pub(crate) fn demand_existing(config: &Config) -> anyhow::Result<()> {
    let path = &config.database;
    if !path.exists() {
        bail!(
            "there is no database {} (ESL_DATABASE_URL); `esl-server` makes it at its first start",
            absolute(path)
        );
    }
    Ok(())
}

/// Why an engine did not start.
pub(crate) fn not_started(config: &Config, error: StorageError) -> anyhow::Error {
    match error.kind() {
        StorageErrorKind::Fenced => anyhow!(
            "another server runs on the database {} (ESL_DATABASE_URL): it serves one at a time",
            absolute(&config.database)
        ),
        StorageErrorKind::KeyMissing => secrets::key_missing(config, &error),
        _ => unusable(config, error).context("the engine did not start"),
    }
}

/// The path in full: a relative one says little to whoever reads a log.
pub(crate) fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}
