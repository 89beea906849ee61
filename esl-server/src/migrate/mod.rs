//! The command `migrate-storage`: moves what a SQLite file holds to PostgreSQL, with no server on either.
//!
//! It is run as the server will be: with the Postgres database as `ESL_DATABASE_URL`, and with its keys and its
//! blob store. Killed at whatever moment, it goes on where it was when it is given again.

mod blobs;
mod report;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use esl_core::{
    InstallationId, SystemClock,
    storage::{
        StorageError, StorageErrorKind,
        transfer::{Destination, NextStep, Obstacle, TABLES, Table, Tally, TransferId, next_step},
    },
};
use esl_postgres::{Import, PostgresStorage};
use esl_sqlite::{Export, SqliteStorage};

use crate::{
    config::{Config, DatabaseUrl},
    credentials, database, output, secrets,
};

pub(crate) async fn run(config: &Config, file: &Path, as_json: bool) -> anyhow::Result<()> {
    let shown = database::absolute(file);
    let DatabaseUrl::Postgres(url) = &config.database else {
        bail!(
            "ESL_DATABASE_URL has to name the Postgres database that {shown} is moved to, and the other \
             variables are those of the server that will run on it"
        );
    };
    let mut export = open_source(config, file).await?;
    let options = PostgresStorage::options().schema(&config.database_schema);
    let import = options.import(url).await.map_err(|error| database::unusable(config, error))?;
    let to = destination(config, &import);
    let unread = || format!("{} cannot be read", to.name);
    let arriving = import.arriving().await.map_err(|error| not_begun(&to.name, error, unread()))?;
    let step = next_step(export.leaving(), arriving, import.identity());
    let resumes = match step {
        NextStep::Refuse(obstacle) => return Err(refused(obstacle, &export, &shown, &to)),
        NextStep::Done => {
            export.finish().await.with_context(|| format!("{shown} cannot be written"))?;
            return report::already(as_json, &shown, &to.name);
        }
        NextStep::GoOn => true,
        NextStep::Begin => false,
    };
    blobs::demand_all(config, file, &export).await?;
    warn_of_clocks(&export, &import).await.with_context(unread)?;
    let (leaving, installation) = export
        .close(TransferId::from_bytes(credentials::random()), to.clone(), fresh_installation())
        .await
        .with_context(|| format!("{shown} cannot be closed, and nothing was moved"))?;
    let unfinished = || {
        format!(
            "{shown} is not moved to {} yet; give the command again, and it goes on where it was",
            to.name
        )
    };
    if !resumes {
        let begun = import.begin(leaving.id, installation).await;
        begun.map_err(|error| not_begun(&to.name, error, unfinished()))?;
    }
    copy(&export, &import, leaving.id).await.with_context(unfinished)?;
    let tallies = compare(&export, &import, &shown, &to.name).await?;
    let next_numbers = export.next_numbers().await.with_context(unfinished)?;
    import.finish(leaving.id, &next_numbers).await.with_context(unfinished)?;
    export.finish().await.with_context(unfinished)?;
    report::moved(as_json, &shown, &to.name, resumes, &tallies)
}

/// Opens a file for a server again, whatever is elsewhere.
pub(crate) async fn give_back(config: &Config, file: &Path, as_json: bool) -> anyhow::Result<()> {
    let shown = database::absolute(file);
    let export = open_source(config, file).await?;
    let Some(leaving) = export.leaving().cloned() else {
        bail!("{shown} is not being moved, and was not: a server starts on it");
    };
    export.give_back().await.with_context(|| format!("{shown} cannot be written"))?;
    report::given_back(as_json, &shown, &leaving)
}

async fn open_source(config: &Config, file: &Path) -> anyhow::Result<Export> {
    let shown = database::absolute(file);
    let mut options = SqliteStorage::options().clock(Arc::new(SystemClock::new()));
    if let Some(keyring) = &config.encryption_keys {
        options = options.keyring(keyring.clone());
    }
    Export::open(file, options).await.map_err(|error| match error.kind() {
        StorageErrorKind::NotFound => anyhow!("there is no database {shown} (--from)"),
        StorageErrorKind::Fenced => {
            anyhow!("a server runs on {shown}, or somebody else moves it: stop that first")
        }
        StorageErrorKind::KeyMissing => secrets::key_missing_of(config, &shown, &error),
        _ => anyhow::Error::new(error).context(format!("the database {shown} cannot be used")),
    })
}

fn destination(config: &Config, import: &Import) -> Destination {
    let name = format!("{}, schema {}", config.database, config.database_schema);
    Destination { identity: import.identity(), name }
}

fn not_begun(to: &str, error: StorageError, otherwise: String) -> anyhow::Error {
    match error.kind() {
        StorageErrorKind::Fenced => anyhow!("a server runs on {to}: stop it first"),
        _ => anyhow::Error::new(error).context(otherwise),
    }
}

fn fresh_installation() -> InstallationId {
    InstallationId::from_bytes(credentials::random())
}

fn refused(obstacle: Obstacle, export: &Export, from: &str, to: &Destination) -> anyhow::Error {
    let to_name = &to.name;
    let elsewhere = export.leaving().map(|leaving| leaving.to.name.clone()).unwrap_or_default();
    match obstacle {
        Obstacle::NotEmpty => anyhow!(
            "{to_name} is not empty: a file is moved to a schema in which nothing is yet \
             (ESL_DATABASE_SCHEMA names another one)"
        ),
        Obstacle::OfAnother => anyhow!(
            "another file is being moved to {to_name}, and that is not finished: go on with that one, or \
             remove the schema"
        ),
        Obstacle::ToAnother => anyhow!(
            "{from} is being moved to {elsewhere}, and not to {to_name}: go on with that, or give it up \
             with --give-back"
        ),
        Obstacle::Left => anyhow!(
            "{from} was moved to {elsewhere} before. If that is lost, --give-back opens the file again, as \
             it was then"
        ),
    }
}

/// Retries are due at times of the clock that they were put off by.
async fn warn_of_clocks(export: &Export, import: &Import) -> anyhow::Result<()> {
    let (here, there) = (export.now().as_millis(), import.now().await?.as_millis());
    let apart = Duration::from_millis(here.abs_diff(there));
    if apart >= CLOCKS_APART {
        tracing::warn!(
            "the clock of the Postgres server is {} s from this machine's: what is put off until later \
             comes that much earlier or later",
            apart.as_secs()
        );
    }
    Ok(())
}

/// Less is not worth a word.
const CLOCKS_APART: Duration = Duration::from_secs(10);

/// Moves all rows that are not there yet.
async fn copy(export: &Export, import: &Import, id: TransferId) -> anyhow::Result<()> {
    let mut position = import.position(id).await?;
    let reached = position.as_ref().map(|position| position.table);
    let done = |table: &Table| reached.is_some_and(|reached| reached != table);
    for table in TABLES.iter().skip_while(|table| done(table)) {
        let mut progress = Progress::begin(table);
        loop {
            let after = position.as_ref().filter(|position| position.table == table);
            let batch = export.read(table, after.map(|position| position.key.clone())).await?;
            if batch.is_empty() {
                break;
            }
            position = import.write(id, position.as_ref(), table, &batch).await?;
            progress.add(batch.len());
        }
        progress.end();
    }
    Ok(())
}

/// Says now and then how far it is.
struct Progress {
    table: &'static Table,
    rows: usize,
    said_at: Instant,
}

impl Progress {
    fn begin(table: &'static Table) -> Self {
        Self { table, rows: 0, said_at: Instant::now() }
    }

    fn add(&mut self, rows: usize) {
        self.rows += rows;
        if self.said_at.elapsed() >= SAID_EVERY {
            self.said_at = Instant::now();
            output::tell(&format!("{}: {} rows so far", self.table.name, self.rows));
        }
    }

    fn end(self) {
        if self.rows > 0 {
            output::tell(&format!("{}: {} rows moved", self.table.name, self.rows));
        }
    }
}

const SAID_EVERY: Duration = Duration::from_secs(5);

/// Reads all of both once more, and demands that they are the same.
async fn compare(
    export: &Export,
    import: &Import,
    from: &str,
    to: &str,
) -> anyhow::Result<Vec<(&'static Table, Tally)>> {
    output::tell("all rows are there; both databases are read once more, and compared");
    let mut tallies = Vec::with_capacity(TABLES.len());
    let mut different = Vec::new();
    for table in TABLES {
        let both = tokio::try_join!(export.tally(table), import.tally(table));
        let (here, there) = both.map_err(|error: StorageError| {
            anyhow::Error::new(error)
                .context("the databases could not be compared; give the command again")
        })?;
        if here != there {
            let (here, there) = (here.rows(), there.rows());
            different.push(format!("{} ({here} rows, and {there})", table.name));
        }
        tallies.push((table, here));
    }
    if different.is_empty() {
        return Ok(tallies);
    }
    bail!(
        "{from} and {to} are not the same: {}. Somebody has written to one of them, or one is damaged. No \
         server starts on either: remove the schema, and begin anew after --give-back",
        different.join(", ")
    )
}
