//! The command `backup`: a copy of the database, while the server runs or not.

use std::path::Path;

use anyhow::{Context, bail};
use esl_core::storage::StorageErrorKind;
use esl_sqlite::SqliteStorage;
use serde_json::json;

use crate::{
    config::{Config, DatabaseUrl},
    database,
    output::print,
};

pub(crate) async fn run(config: &Config, file: &Path, as_json: bool) -> anyhow::Result<()> {
    let DatabaseUrl::Sqlite(path) = &config.database else {
        bail!("a database of Postgres is backed up by its own tools, such as pg_dump");
    };
    database::demand_existing(config).await?;
    let shown = database::absolute(file);
    let backup = match SqliteStorage::backup(path, file) {
        Ok(backup) => backup,
        Err(error) if error.kind() == StorageErrorKind::Conflict => {
            bail!("there is a file {shown} already; a backup is a new one");
        }
        Err(error) => return Err(error).with_context(|| format!("no backup was made to {shown}")),
    };
    let made = json!({ "file": shown, "bytes": backup.bytes, "events": backup.events });
    print(as_json, &made, || format!("{shown}: {} events, {} bytes\n", backup.events, backup.bytes))
}
