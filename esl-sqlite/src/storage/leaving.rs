//! The mark of a database whose rows are moved elsewhere, and what it keeps others from.
//!
//! Engines look at the mark. Everybody else is kept from writing by triggers, in the database itself: an
//! application that commits events in its own transactions does not ask us, and neither does a program that had
//! the database open before.

use esl_core::{
    Timestamp,
    storage::{
        StorageError, StorageErrorKind,
        transfer::{Destination, Leaving, TABLES, TransferId},
    },
};
use rusqlite::{Connection, Row};

use crate::storage::{error::translate, rows::optional_time};

/// Refuses a database that is moved elsewhere, or was.
pub(crate) fn demand_none(
    connection: &Connection,
    operation: &'static str,
) -> Result<(), StorageError> {
    let mark = read(connection).map_err(|error| translate(operation, error))?;
    let Some(Leaving { to, left_at, .. }) = mark else { return Ok(()) };
    let message = match left_at {
        Some(_) => format!("it was moved to {}, and is kept as it was then", to.name),
        None => format!("it is being moved to {}, and that is not finished", to.name),
    };
    Err(StorageError::new(StorageErrorKind::Unsupported, operation).with_source(message))
}

pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Option<Leaving>> {
    connection.prepare_cached(MARK)?.query_row([], mark)
}

fn mark(row: &Row<'_>) -> rusqlite::Result<Option<Leaving>> {
    let Some(id) = row.get::<_, Option<_>>(0)? else { return Ok(None) };
    let to = Destination { identity: row.get(1)?, name: row.get(2)? };
    Ok(Some(Leaving { id: TransferId::from_bytes(id), to, left_at: optional_time(row, 3)? }))
}

const MARK: &str = "
SELECT leaving, leaving_to, leaving_to_name, left_at FROM esl_engine WHERE one = 1";

pub(crate) fn close(connection: &Connection, leaving: &Leaving) -> rusqlite::Result<()> {
    let Leaving { id, to, .. } = leaving;
    let mark = "UPDATE esl_engine SET leaving = ?1, leaving_to = ?2, leaving_to_name = ?3
                WHERE one = 1";
    connection.execute(mark, (id.to_bytes(), to.identity, &to.name))?;
    for (trigger, table, change) in triggers() {
        connection.execute_batch(&format!(
            "CREATE TRIGGER {trigger} BEFORE {change} ON {table}
             BEGIN SELECT RAISE(ABORT, 'ESL''s data is moved to another database'); END"
        ))?;
    }
    Ok(())
}

pub(crate) fn finish(connection: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    let finish = "UPDATE esl_engine SET left_at = coalesce(left_at, ?1) WHERE one = 1";
    connection.execute(finish, [now.as_millis()])?;
    Ok(())
}

pub(crate) fn open(connection: &Connection) -> rusqlite::Result<()> {
    for (trigger, _, _) in triggers() {
        connection.execute_batch(&format!("DROP TRIGGER IF EXISTS {trigger}"))?;
    }
    let mark = "UPDATE esl_engine SET leaving = NULL, leaving_to = NULL, leaving_to_name = NULL,
                    left_at = NULL
                WHERE one = 1";
    connection.execute(mark, [])?;
    Ok(())
}

/// Names of triggers, each with its table and the change that it keeps from it. Those of `esl_engine` and
/// `esl_changes` are left alone: nothing in them is moved.
fn triggers() -> impl Iterator<Item = (String, String, &'static str)> {
    TABLES.iter().flat_map(|table| {
        ["INSERT", "UPDATE", "DELETE"].map(|change| {
            let (table, suffix) = (format!("esl_{}", table.name), change.to_lowercase());
            (format!("{table}_is_left_{suffix}"), table, change)
        })
    })
}
