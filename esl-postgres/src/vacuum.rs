//! Having the server free rows that are gone. It overwrites them when it needs the place: pages, the log, standbys
//! and backups are not ours to reach.

use esl_core::storage::StorageError;

use crate::{
    connect::Database,
    error::translate,
    parameters::parameters,
    rows::{get, whole},
};

/// Vacuums tables, which may take its time. Where the user may not, the server says so in its log alone: see
/// [`may_vacuum`].
pub(crate) async fn vacuum(
    database: &Database,
    operation: &'static str,
    tables: &[&str],
) -> Result<(), StorageError> {
    // On a connection of its own, which nobody waits for.
    let failed = |error| translate(operation, error);
    let line = database.connector().connect().await.map_err(failed)?;
    for table in tables {
        let text = format!("VACUUM {table}");
        line.client.execute_typed(&database.sql(&text), &[]).await.map_err(failed)?;
    }
    Ok(())
}

/// Whether the user may vacuum these tables: as their owner, as the database's, or since it was granted.
pub(crate) async fn may_vacuum(
    database: &Database,
    operation: &'static str,
    tables: &[&str],
) -> Result<bool, StorageError> {
    let names: Vec<String> = tables.iter().map(|table| database.sql(table).into_owned()).collect();
    let row = database.query_one(operation, MAY_VACUUM, parameters![names]).await?;
    whole(operation, get(&row, 0))
}

/// The right of its own came with PostgreSQL 17; older ones know no such word.
const MAY_VACUUM: &str = "
SELECT bool_and(
    pg_has_role(c.relowner, 'USAGE')
        OR pg_has_role((SELECT d.datdba FROM pg_database d WHERE d.datname = current_database()), 'USAGE')
        OR CASE WHEN current_setting('server_version_num')::int >= 170000
            THEN has_table_privilege(c.oid, 'MAINTAIN') ELSE false END
)
FROM unnest($1) AS t (name) JOIN pg_class c ON c.oid = t.name::regclass";
