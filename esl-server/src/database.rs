//! The database: opening it, and what to say when that fails.

use std::{ops::Deref, path::Path, sync::Arc};

use anyhow::{anyhow, bail};
use esl_amqp::AmqpWake;
use esl_core::{
    Clock, Esl, EslBuilder, Publisher,
    storage::{Storage, StorageError, StorageErrorKind},
};
use esl_postgres::PostgresStorage;
use esl_sqlite::SqliteStorage;

use crate::{
    config::{Config, DatabaseUrl},
    secrets,
};

/// A database that was opened. All but what only one kind can do goes by what it derefs to.
#[derive(Debug, Clone)]
pub(crate) enum Opened {
    Sqlite(SqliteStorage),
    Postgres(PostgresStorage),
}

impl Opened {
    /// Begins to put an engine together on it, which hears from the others, if there may be some, by the
    /// database and by the broker.
    pub(crate) fn engine(self, broker: Option<AmqpWake>) -> EslBuilder {
        match (self, broker) {
            (Self::Sqlite(storage), None) => Esl::builder(storage),
            (Self::Sqlite(storage), Some(broker)) => Esl::builder(storage).wake(broker),
            (Self::Postgres(storage), broker) => {
                let wake = storage.wake();
                let builder = Esl::builder(storage);
                match broker {
                    None => builder.wake(wake),
                    Some(broker) => builder.wake((wake, broker)),
                }
            }
        }
    }

    /// Publishes what an engine elsewhere delivers.
    pub(crate) fn publisher(self) -> Publisher {
        match self {
            Self::Sqlite(storage) => Esl::publisher(storage),
            Self::Postgres(storage) => Esl::publisher(storage),
        }
    }
}

impl Deref for Opened {
    type Target = dyn Storage;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Sqlite(storage) => storage,
            Self::Postgres(storage) => storage,
        }
    }
}

/// Opens the database, and makes it if it is not there.
pub(crate) async fn open(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<Opened> {
    let opened = match &config.database {
        DatabaseUrl::Sqlite(path) => {
            let mut options = SqliteStorage::options().clock(clock);
            if let Some(keyring) = &config.encryption_keys {
                options = options.keyring(keyring.clone());
            }
            options.open(path).map(Opened::Sqlite)
        }
        // It goes by its own clock, which all nodes share.
        DatabaseUrl::Postgres(url) => {
            let mut options = PostgresStorage::options()
                .schema(&config.database_schema)
                .connections(config.database_connections)
                .payload_bytes_max(config.payload_bytes_max);
            if let Some(DatabaseUrl::Postgres(url)) = &config.database_listen {
                options = options.listen_on(url);
            }
            if let Some(keyring) = &config.encryption_keys {
                options = options.keyring(keyring.clone());
            }
            options.open(url).await.map(Opened::Postgres)
        }
    };
    opened.map_err(|error| match error.kind() {
        StorageErrorKind::KeyMissing => secrets::key_missing(config, &error),
        _ => unusable(config, error),
    })
}

/// What is said of a database that cannot be used: which it is, what to do, and why.
pub(crate) fn unusable(config: &Config, error: StorageError) -> anyhow::Error {
    let advice = match (error.kind(), &config.database) {
        (StorageErrorKind::Corrupt, _) => ": restore a backup of it",
        (StorageErrorKind::Busy, DatabaseUrl::Sqlite(_)) => {
            ": another program has locked it, so try again when that is done"
        }
        // Their causes say it.
        _ => "",
    };
    anyhow::Error::new(error).context(cannot_be_used(config) + advice)
}

/// Which database it is that cannot be used.
pub(crate) fn cannot_be_used(config: &Config) -> String {
    format!("the database {} (ESL_DATABASE_URL) cannot be used", config.database)
}

/// Whether it is no room, no permission or an I/O error that keeps a database from being used.
pub(crate) fn is_unavailable(error: &anyhow::Error) -> bool {
    let error: Option<&StorageError> = error.downcast_ref();
    error.is_some_and(|error| error.kind() == StorageErrorKind::Unavailable)
}

/// Opens a database that must be there: a command that reads should not make an empty one somewhere.
pub(crate) async fn open_existing(
    config: &Config,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Opened> {
    demand_existing(config).await?;
    open(config, clock).await
}

/// Fails if there is no database.
pub(crate) async fn demand_existing(config: &Config) -> anyhow::Result<()> {
    if !is_there(config).await? {
        bail!(
            "there is no database {} (ESL_DATABASE_URL); `esl-server` makes it at its first start",
            shown(config)
        );
    }
    Ok(())
}

/// Whether somebody has made the database: the file, or what ESL has on a server.
pub(crate) async fn is_there(config: &Config) -> anyhow::Result<bool> {
    match &config.database {
        DatabaseUrl::Sqlite(path) => Ok(path.exists()),
        DatabaseUrl::Postgres(url) => {
            let options = PostgresStorage::options().schema(&config.database_schema);
            options.is_there(url).await.map_err(|error| unusable(config, error))
        }
    }
}

/// Which database it is, as a text that has no password in it.
pub(crate) fn shown(config: &Config) -> String {
    match &config.database {
        database @ DatabaseUrl::Sqlite(_) => database.to_string(),
        database @ DatabaseUrl::Postgres(_) => {
            format!("{database}, schema {}", config.database_schema)
        }
    }
}

/// Why an engine did not start.
pub(crate) fn not_started(config: &Config, error: StorageError) -> anyhow::Error {
    match error.kind() {
        StorageErrorKind::Fenced => anyhow!(
            "another server runs on the database {} (ESL_DATABASE_URL): it serves one at a time",
            config.database
        ),
        StorageErrorKind::KeyMissing => secrets::key_missing(config, &error),
        _ => unusable(config, error).context("the engine did not start"),
    }
}

/// The path in full: a relative one says little to whoever reads a log.
pub(crate) fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}
