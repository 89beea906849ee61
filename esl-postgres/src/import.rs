//! All that a storage of another kind holds, moved to here.
//!
//! Each batch of rows is a transaction, and with it goes the place that was reached, so a move that was killed
//! goes on behind the last row that is here. Until all are, no engine starts: see `demand_arrived_1`.

use std::future::poll_fn;

use esl_core::{
    InstallationId, Timestamp,
    storage::{
        StorageError, StorageErrorKind,
        transfer::{Arriving, Position, Row, TABLES, Table, Tally, TransferId},
    },
};
use futures_core::Stream;
use tokio_postgres::Transaction;

use crate::{
    config::{OPEN, PostgresOptions},
    connect::{Database, Lease, Parameters},
    error::{Damage, translate},
    id::Id16,
    imported_rows as rows,
    parameters::{borrowed, parameters},
    rows::{get, id, optional_time, time, whole},
};

/// A database to which another storage's rows are moved; see
/// [`transfer`](esl_core::storage::transfer) for the whole. Made by [`PostgresOptions::import`].
#[derive(Debug)]
pub struct Import {
    database: Database,
    identity: Id16,
}

impl Import {
    pub(crate) async fn open(url: &str, options: &PostgresOptions) -> Result<Self, StorageError> {
        let PostgresOptions { schema, connections, may_lose, .. } = options;
        let database = Database::open(url, schema, *connections, *may_lose).await?;
        let row = database.query_one(OPEN, IDENTITY, &[]).await?;
        let identity = whole(OPEN, id(&row, 0))?;
        Ok(Self { database, identity })
    }

    /// The database's identity, which no other one has.
    #[must_use]
    pub const fn identity(&self) -> [u8; 16] {
        self.identity.0
    }

    /// What is in it.
    ///
    /// # Errors
    /// [`Fenced`](StorageErrorKind::Fenced) if nothing is, and an engine runs on it.
    pub async fn arriving(&self) -> Result<Arriving, StorageError> {
        let mut lease = self.database.lease(READ).await?;
        Step::begin(&self.database, &mut lease, READ).await?.arriving().await
    }

    /// The time by which it goes: the server's.
    pub async fn now(&self) -> Result<Timestamp, StorageError> {
        let row = self.database.query_one(READ, NOW, &[]).await?;
        whole(READ, time(&row, 0))
    }

    /// Marks a database in which nothing is as the target of a move, and as this installation.
    ///
    /// # Errors
    /// [`Conflict`](StorageErrorKind::Conflict) if something is in it; [`Fenced`](StorageErrorKind::Fenced) if
    /// an engine runs on it.
    pub async fn begin(
        &self,
        id: TransferId,
        installation: InstallationId,
    ) -> Result<(), StorageError> {
        let mut lease = self.database.lease(BEGIN).await?;
        let step = Step::begin(&self.database, &mut lease, BEGIN).await?;
        // Whoever begins an epoch looks for the mark under this lock.
        step.query(LOCK, &[]).await?;
        if step.arriving().await? != Arriving::Empty {
            return Err(step.refused(StorageErrorKind::Conflict));
        }
        step.query(MARK, parameters![Id16(id.to_bytes())]).await?;
        step.query(INSTALL, parameters![Id16::from(installation)]).await?;
        step.commit().await
    }

    /// How far an unfinished move is; `None` at its beginning.
    ///
    /// # Errors
    /// [`Conflict`](StorageErrorKind::Conflict) if no move of this id is under way here.
    pub async fn position(&self, id: TransferId) -> Result<Option<Position>, StorageError> {
        let values = parameters![Id16(id.to_bytes())];
        let row = self.database.query_opt(READ, POSITION, values).await?;
        let row = row.ok_or(StorageError::new(StorageErrorKind::Conflict, READ))?;
        let read = || {
            let (table, key) = (get::<Option<&str>>(&row, 0)?, get::<Option<&[u8]>>(&row, 1)?);
            let Some((table, key)) = table.zip(key) else { return Ok(None) };
            let position = Position::from_parts(table, key);
            position.map(Some).ok_or_else(|| Damage::new(1, "not a key of that table"))
        };
        whole(READ, read())
    }

    /// Writes rows that come next in a table, with the place that is reached, and says which that is. They are
    /// on the server's disk afterwards.
    ///
    /// # Errors
    /// [`Conflict`](StorageErrorKind::Conflict) if the move is not at `after`: somebody else goes on with it;
    /// [`Corrupt`](StorageErrorKind::Corrupt) if a value cannot be here.
    pub async fn write(
        &self,
        move_id: TransferId,
        after: Option<&Position>,
        table: &'static Table,
        batch: &[Row],
    ) -> Result<Option<Position>, StorageError> {
        let Some(last) = batch.last() else { return Ok(after.cloned()) };
        let reached = Position::of(table, last);
        let columns = rows::columns(table, batch)?;
        let mut lease = self.database.lease(WRITE).await?;
        let step = Step::begin(&self.database, &mut lease, WRITE).await?;
        let values = parameters![
            Id16(move_id.to_bytes()),
            after.map(|position| position.table.name),
            after.map(Position::key_bytes),
            table.name,
            reached.key_bytes(),
        ];
        if step.query(REACH, values).await?.is_empty() {
            return Err(step.refused(StorageErrorKind::Conflict));
        }
        step.query(&rows::insert(table), &borrowed(&columns)).await?;
        step.commit().await?;
        Ok(Some(reached))
    }

    /// Counts the rows of a table, and hashes them.
    pub async fn tally(&self, table: &'static Table) -> Result<Tally, StorageError> {
        let mut lease = self.database.lease(READ).await?;
        let step = Step::begin(&self.database, &mut lease, READ).await?;
        // By the index of the key, since a sort of everything would need as much room again.
        step.query("SELECT set_config('enable_sort', 'off', true)", &[]).await?;
        step.query("SELECT set_config('enable_seqscan', 'off', true)", &[]).await?;
        let text = self.database.sql(&rows::select(table)).into_owned();
        let failed = |error| translate(READ, error);
        let none: [(&str, tokio_postgres::types::Type); 0] = [];
        let found = step.transaction.query_typed_raw(&text, none).await.map_err(failed)?;
        let mut found = std::pin::pin!(found);
        let mut tally = Tally::default();
        while let Some(row) = poll_fn(|context| found.as_mut().poll_next(context)).await {
            tally.add(&whole(READ, rows::read(table, &row.map_err(failed)?))?);
        }
        Ok(tally)
    }

    /// Says from which numbers to go on, and that all is here: from now on an engine may start.
    ///
    /// # Errors
    /// [`Conflict`](StorageErrorKind::Conflict) if no move of this id is under way here.
    pub async fn finish(
        &self,
        move_id: TransferId,
        next_numbers: &[(&'static Table, i64)],
    ) -> Result<(), StorageError> {
        let mut lease = self.database.lease(FINISH).await?;
        let step = Step::begin(&self.database, &mut lease, FINISH).await?;
        for table in TABLES {
            // Of what came at once nothing is known yet, and plans would be made as for empty tables.
            step.query(&format!("ANALYZE esl.{}", table.name), &[]).await?;
        }
        for (table, next) in next_numbers {
            let key = table.key_columns()[0].name;
            let text = format!(
                "SELECT setval(pg_get_serial_sequence('esl.{}', '{key}'), $1, false)",
                table.name
            );
            step.query(&text, parameters![*next]).await?;
        }
        if step.query(ARRIVE, parameters![Id16(move_id.to_bytes())]).await?.is_empty() {
            return Err(step.refused(StorageErrorKind::Conflict));
        }
        step.commit().await
    }
}

const READ: &str = "read what was moved";
const BEGIN: &str = "begin to move";
const WRITE: &str = "write what is moved";
const FINISH: &str = "finish a move";

const IDENTITY: &str = "SELECT identity FROM esl.settings";

const NOW: &str = "SELECT esl.now_1(NULL)";

const LOCK: &str = "SELECT pg_advisory_xact_lock(esl.class_1(), 0)";

const RUNNING: &str = "SELECT FROM esl.workers w WHERE w.lapses_at > esl.now_1(NULL)";

const MARK: &str = "
INSERT INTO esl.transfer (id, begun_at) VALUES ($1, esl.now_1(NULL)) RETURNING true";

const INSTALL: &str = "UPDATE esl.settings SET installation = $1 RETURNING true";

const POSITION: &str = "
SELECT last_table, last_key FROM esl.transfer WHERE id = $1 AND arrived_at IS NULL";

const REACH: &str = "
UPDATE esl.transfer SET last_table = $4, last_key = $5
WHERE id = $1 AND arrived_at IS NULL
    AND last_table IS NOT DISTINCT FROM $2 AND last_key IS NOT DISTINCT FROM $3
RETURNING true";

const ARRIVE: &str = "
UPDATE esl.transfer SET arrived_at = esl.now_1(NULL)
WHERE id = $1 AND arrived_at IS NULL
RETURNING true";

const TRANSFER: &str = "SELECT id, arrived_at FROM esl.transfer";

/// A transaction whose statements may take as long as they do: somebody sits before it and waits. Dropped, it is
/// rolled back.
struct Step<'c> {
    database: &'c Database,
    operation: &'static str,
    transaction: Transaction<'c>,
}

impl<'c> Step<'c> {
    async fn begin(
        database: &'c Database,
        lease: &'c mut Lease,
        operation: &'static str,
    ) -> Result<Self, StorageError> {
        let transaction = lease.client_mut().transaction().await;
        let transaction = transaction.map_err(|error| translate(operation, error))?;
        let step = Self { database, operation, transaction };
        step.query("SELECT esl.begin_1(NULL)", &[]).await?;
        Ok(step)
    }

    async fn query(
        &self,
        text: &str,
        values: Parameters<'_>,
    ) -> Result<Vec<tokio_postgres::Row>, StorageError> {
        let text = self.database.sql(text);
        let rows = self.transaction.query_typed(&text, values).await;
        rows.map_err(|error| translate(self.operation, error))
    }

    async fn arriving(&self) -> Result<Arriving, StorageError> {
        if let Some(row) = self.query(TRANSFER, &[]).await?.first() {
            let id: Id16 = whole(self.operation, get(row, 0))?;
            let arrived_at = whole(self.operation, optional_time(row, 1))?;
            return Ok(Arriving::Marked { id: TransferId::from_bytes(id.0), arrived_at });
        }
        for table in TABLES {
            let any = format!("SELECT FROM esl.{} LIMIT 1", table.name);
            if !self.query(&any, &[]).await?.is_empty() {
                return Ok(Arriving::Filled);
            }
        }
        if !self.query(RUNNING, &[]).await?.is_empty() {
            return Err(self.refused(StorageErrorKind::Fenced));
        }
        Ok(Arriving::Empty)
    }

    const fn refused(&self, kind: StorageErrorKind) -> StorageError {
        StorageError::new(kind, self.operation)
    }

    async fn commit(self) -> Result<(), StorageError> {
        let Self { operation, transaction, .. } = self;
        transaction.commit().await.map_err(|error| translate(operation, error))
    }
}
