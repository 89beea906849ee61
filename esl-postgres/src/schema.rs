//! The schema, and how it becomes what this build knows.
//!
//! The texts name everything with the prefix `esl.`, and another schema's name takes its place when they are
//! used: nothing depends on a session's `search_path`, which a pooler would not keep.

use std::borrow::Cow;

use esl_core::storage::{StorageError, StorageErrorKind};
use tokio_postgres::Client;

use crate::{config::OPEN, error::translate, parameters::parameters};

/// In the order of their versions. Never changed once released: a later one does what else there is to do.
const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    texts: &[
        include_str!("sql/tables.sql"),
        include_str!("sql/vacuum.sql"),
        include_str!("sql/time.sql"),
        include_str!("sql/ulids.sql"),
        include_str!("sql/keys.sql"),
        include_str!("sql/tokens.sql"),
        include_str!("sql/publish.sql"),
        include_str!("sql/lanes.sql"),
        include_str!("sql/settle.sql"),
        include_str!("sql/entities.sql"),
        include_str!("sql/commit.sql"),
        include_str!("sql/plain.sql"),
        include_str!("sql/removal.sql"),
        include_str!("sql/replays.sql"),
        include_str!("sql/sweep.sql"),
        include_str!("sql/feed.sql"),
    ],
    oldest_reader: 1,
}];

struct Migration {
    version: i32,
    texts: &'static [&'static str],
    /// The oldest version whose builds may still work on it.
    oldest_reader: i32,
}

/// The name of the schema, and what the texts become with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schema {
    name: String,
}

impl Schema {
    pub(crate) const DEFAULT: &'static str = "esl";

    /// A name that needs no thought in any place: a letter, then letters, digits and underscores, all lower
    /// case.
    pub(crate) fn new(name: &str) -> Result<Self, StorageError> {
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        let is_name = name.len() <= NAME_BYTES_MAX
            && name.bytes().next().is_some_and(is_letter)
            && name.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit());
        // Those are the server's own.
        if is_name && !name.starts_with("pg_") {
            return Ok(Self { name: name.to_owned() });
        }
        let message = "the name of the schema must be up to 63 lower-case letters, digits and \
                       underscores, must not begin with a digit, nor with `pg_`";
        Err(StorageError::new(StorageErrorKind::Unsupported, OPEN).with_source(message))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A text of ours, for this schema.
    pub(crate) fn sql<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.name == Self::DEFAULT {
            return Cow::Borrowed(text);
        }
        Cow::Owned(text.replace("esl.", &format!("\"{}\".", self.name)))
    }
}

/// As long as the server lets a name be.
const NAME_BYTES_MAX: usize = 63;

/// Brings the schema to the version that this build knows, in one transaction.
pub(crate) async fn migrate(client: &mut Client, schema: &Schema) -> Result<(), StorageError> {
    // A look first: opening a database that is up to date waits for nobody, and needs no right to create.
    if let Some(found) = version(client, schema).await? {
        found.demand_known()?;
        if found.version >= NEWEST {
            return Ok(());
        }
    }
    let failed = |error| translate(OPEN, error);
    let transaction = client.transaction().await.map_err(failed)?;
    // Of several nodes that start at once the others wait, and find it done.
    transaction
        .execute_typed(
            "SELECT pg_advisory_xact_lock(hashtextextended($1, 1))",
            parameters![schema.name()],
        )
        .await
        .map_err(failed)?;
    let name = format!("\"{}\"", schema.name());
    let row = transaction.query_typed_one(HAS_SCHEMA, parameters![name]).await.map_err(failed)?;
    // `IF NOT EXISTS` would take the right to create one in any case.
    if !row.try_get::<_, bool>(0).map_err(failed)? {
        transaction.batch_execute(&format!("CREATE SCHEMA {name}")).await.map_err(failed)?;
    }
    transaction.batch_execute(&schema.sql(CREATE_MIGRATIONS)).await.map_err(failed)?;
    let row = transaction.query_typed_one(&schema.sql(VERSION), &[]).await.map_err(failed)?;
    let found = Found::read(&row).map_err(failed)?;
    found.demand_known()?;
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > found.version) {
        for text in migration.texts {
            transaction.batch_execute(&schema.sql(text)).await.map_err(failed)?;
        }
        transaction
            .execute_typed(
                &schema.sql(APPLIED),
                parameters![migration.version, migration.oldest_reader],
            )
            .await
            .map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}

/// The version that this build makes and works on.
const NEWEST: i32 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// What was found in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    version: i32,
    oldest_reader: i32,
}

impl Found {
    fn read(row: &tokio_postgres::Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self { version: row.try_get(0)?, oldest_reader: row.try_get(1)? })
    }

    /// Refuses a schema that this build could not work on without harm.
    fn demand_known(self) -> Result<(), StorageError> {
        if self.oldest_reader <= NEWEST {
            return Ok(());
        }
        let Self { version, oldest_reader } = self;
        let message = format!(
            "the schema has version {version}, made by a newer ESL, and needs one that knows \
             {oldest_reader} at least; this one knows {NEWEST}"
        );
        Err(StorageError::new(StorageErrorKind::Unsupported, OPEN).with_source(message))
    }
}

/// The newest version that was applied; `None` if there is no schema yet.
async fn version(client: &Client, schema: &Schema) -> Result<Option<Found>, StorageError> {
    if !is_there(client, schema).await? {
        return Ok(None);
    }
    let failed = |error| translate(OPEN, error);
    let row = client.query_typed_one(&schema.sql(VERSION), &[]).await.map_err(failed)?;
    Found::read(&row).map(Some).map_err(failed)
}

/// Whether somebody has made the schema.
pub(crate) async fn is_there(client: &Client, schema: &Schema) -> Result<bool, StorageError> {
    let failed = |error| translate(OPEN, error);
    let is_there = "SELECT to_regclass($1) IS NOT NULL";
    let table = format!("\"{}\".migrations", schema.name());
    let row = client.query_typed_one(is_there, parameters![table]).await.map_err(failed)?;
    row.try_get(0).map_err(failed)
}

/// Refuses a database in which the user may not make the schema.
pub(crate) async fn demand_makeable(client: &Client, schema: &Schema) -> Result<(), StorageError> {
    let failed = |error| translate(OPEN, error);
    let name = format!("\"{}\"", schema.name());
    let row = client.query_typed_one(MAY_CREATE, parameters![name]).await.map_err(failed)?;
    if row.try_get(0).map_err(failed)? {
        return Ok(());
    }
    let message = format!("the user may not make the schema {}", schema.name());
    Err(StorageError::new(StorageErrorKind::Unavailable, OPEN).with_source(message))
}

/// The schema may have been made for us by somebody who lets us make no other.
const MAY_CREATE: &str = "
SELECT coalesce(
    has_schema_privilege(to_regnamespace($1)::oid, 'CREATE'),
    has_database_privilege(current_database(), 'CREATE')
)";

const HAS_SCHEMA: &str = "SELECT to_regnamespace($1) IS NOT NULL";

const CREATE_MIGRATIONS: &str = "
CREATE TABLE IF NOT EXISTS esl.migrations (
    version int PRIMARY KEY,
    applied_at bigint NOT NULL DEFAULT floor(extract(epoch FROM clock_timestamp()) * 1000),
    oldest_reader int NOT NULL
)";

const VERSION: &str = "
SELECT coalesce(max(version), 0), coalesce(max(oldest_reader), 0) FROM esl.migrations";

const APPLIED: &str = "INSERT INTO esl.migrations (version, oldest_reader) VALUES ($1, $2)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schemas_name_needs_no_thought() {
        let longest = "a".repeat(63);
        for name in ["esl", "_", "shop_2", &longest] {
            assert!(Schema::new(name).is_ok(), "{name}");
        }
        let too_long = "a".repeat(64);
        for wrong in ["", "2shop", "Shop", "a b", "a\"b", "a.b", "ä", "pg_esl", &too_long] {
            assert!(Schema::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn another_schemas_name_takes_the_place_of_ours() {
        let text = "SELECT esl.now_1(NULL), nextval('esl.epochs') FROM esl.events";
        let other = Schema::new("order").unwrap();
        assert_eq!(
            other.sql(text),
            "SELECT \"order\".now_1(NULL), nextval('\"order\".epochs') FROM \"order\".events"
        );
        assert_eq!(Schema::new("esl").unwrap().sql(text), text);
    }

    #[test]
    fn a_schema_of_a_newer_esl_is_used_for_as_long_as_it_says() {
        let found = |version, oldest_reader| Found { version, oldest_reader }.demand_known();
        assert!(found(NEWEST, NEWEST).is_ok());
        assert!(found(NEWEST + 1, NEWEST).is_ok());
        let refused = found(NEWEST + 1, NEWEST + 1).unwrap_err();
        assert_eq!(refused.kind(), StorageErrorKind::Unsupported);
    }
}
