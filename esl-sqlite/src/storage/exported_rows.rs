//! Rows of our tables in the form that adapters agree on.

use esl_core::storage::{
    StorageError, StorageErrorKind,
    transfer::{BATCH_BYTES, BATCH_ROWS, Kind, Row, Table, Value},
};
use rusqlite::{
    Connection, OptionalExtension, params_from_iter,
    types::{Value as Stored, ValueRef},
};

use crate::storage::{error::Stop, export::READ};

/// The rows after a key, as many as are moved at once.
pub(crate) fn batch(
    connection: &Connection,
    table: &'static Table,
    after: Option<Vec<Value>>,
) -> Result<Vec<Row>, Stop> {
    let (mut rows, mut bytes) = (Vec::new(), 0);
    each(connection, table, after, |row| {
        bytes += row.iter().map(Value::bytes).sum::<usize>();
        rows.push(row);
        rows.len() < BATCH_ROWS && bytes < BATCH_BYTES
    })?;
    Ok(rows)
}

/// Goes through the rows after a key, in the order of keys, for as long as `wants` more.
pub(crate) fn each(
    connection: &Connection,
    table: &'static Table,
    after: Option<Vec<Value>>,
    mut wants: impl FnMut(Row) -> bool,
) -> Result<(), Stop> {
    let mut select = connection.prepare(&select(table, after.is_some()))?;
    let key = after.unwrap_or_default();
    let key = key.into_iter().zip(table.key_columns());
    let key = key.map(|(value, column)| stored(value, column.kind));
    let mut found = select.query(params_from_iter(key))?;
    while let Some(found) = found.next()? {
        let mut row = Row::with_capacity(table.columns.len());
        for (index, column) in table.columns.iter().enumerate() {
            let value = value(found.get_ref(index)?, column.kind);
            row.push(value.ok_or_else(|| damaged(table, column.name, &row))?);
        }
        if !wants(row) {
            break;
        }
    }
    Ok(())
}

/// The rows of a table, all or those after a key.
fn select(table: &Table, is_after: bool) -> String {
    let columns: Vec<_> = table.names().map(|name| expression(table.name, name)).collect();
    let (key, place) = match table.name {
        "events" => ("key".to_owned(), KEY_PLACE.to_owned()),
        "erasures" => ("event".to_owned(), KEY_PLACE.to_owned()),
        _ => {
            let names: Vec<_> = table.key_columns().iter().map(|column| column.name).collect();
            let places: Vec<_> = (1..=table.key).map(|place| format!("?{place}")).collect();
            (names.join(", "), places.join(", "))
        }
    };
    let after = if is_after { format!("WHERE ({key}) > ({place})") } else { String::new() };
    format!("SELECT {} FROM esl_{} {after} ORDER BY {key}", columns.join(", "), table.name)
}

/// What a column is in our tables. Most have the same name.
fn expression(table: &str, column: &'static str) -> &'static str {
    match (table, column) {
        ("events", "organization") => "key >> 40",
        ("events", "seq") => "key & 0xffffffffff",
        ("erasures", "organization") => "event >> 40",
        ("erasures", "seq") => "event & 0xffffffffff",
        // What is sealed is a blob.
        ("subscriptions", "sealed") => {
            "(typeof(secret) = 'blob') + (typeof(old_secret) = 'blob') * 2
             + (typeof(headers) = 'blob') * 4"
        }
        // In plain it has 32 bytes.
        ("link_keys", "sealed") => "length(key) <> 32",
        _ => column,
    }
}

/// The key of an event, of its organization and its seq.
const KEY_PLACE: &str = "?1 << 40 | ?2";

/// The next number of a table that is numbered.
pub(crate) fn next_number(connection: &Connection, table: &Table) -> rusqlite::Result<i64> {
    let key = table.key_columns()[0].name;
    let name = format!("esl_{}", table.name);
    let largest = format!("SELECT coalesce(max({key}), 0) FROM {name}");
    let largest: i64 = connection.query_row(&largest, [], |row| row.get(0))?;
    let given = "SELECT seq FROM main.sqlite_sequence WHERE name = ?1";
    let given: Option<i64> = connection.query_row(given, [&name], |row| row.get(0)).optional()?;
    Ok(largest.max(given.unwrap_or_default()) + 1)
}

/// A value that was stored; `None` if it is not of that kind.
fn value(stored: ValueRef<'_>, kind: Kind) -> Option<Value> {
    let bytes = |bytes: &[u8]| Some(Value::Bytes(bytes.to_vec()));
    match (stored, kind) {
        (ValueRef::Null, _) => Some(Value::Null),
        (ValueRef::Integer(number), Kind::Number) => Some(Value::Number(number)),
        (ValueRef::Integer(flag @ (0 | 1)), Kind::Flag) => Some(Value::Number(flag)),
        (ValueRef::Blob(id), Kind::Id) if id.len() == 16 => bytes(id),
        (ValueRef::Blob(blob), Kind::Bytes | Kind::Secret) => bytes(blob),
        (ValueRef::Text(text), Kind::Text) if !text.contains(&0) => utf8(text),
        (ValueRef::Text(text), Kind::Words | Kind::Secret) => utf8(text),
        _ => None,
    }
}

fn utf8(text: &[u8]) -> Option<Value> {
    std::str::from_utf8(text).ok().map(|text| Value::Bytes(text.into()))
}

/// A value of a key, as it is stored.
fn stored(value: Value, kind: Kind) -> Stored {
    match (value, kind) {
        (Value::Null, _) => Stored::Null,
        (Value::Number(number), _) => Stored::Integer(number),
        (Value::Bytes(text), Kind::Text | Kind::Words) => {
            Stored::Text(String::from_utf8(text).unwrap_or_default())
        }
        (Value::Bytes(bytes), _) => Stored::Blob(bytes),
    }
}

/// What is said of a value that is not what ESL writes there. Of what was read of the row the key is enough.
fn damaged(table: &Table, column: &str, read: &Row) -> Stop {
    let key = &read[..read.len().min(table.key)];
    let message = format!("esl_{}, key {key:?}: {column} is not what ESL writes there", table.name);
    let error = StorageError::new(StorageErrorKind::Corrupt, READ);
    Stop::Refused(error.with_source(message))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use esl_core::{Timestamp, storage::transfer::TABLES};

    use super::*;
    use crate::storage::{plans::assert_plan, schema::migrate};

    /// What is not moved: it is an engine's that runs, or this file's own. Of `esl_engine` the installation
    /// is, by itself.
    const LEFT: [&str; 3] = ["esl_changes", "esl_engine", "esl_migrations"];

    /// A column that says what rows of another table say.
    const DERIVED: (&str, &str) = ("entities", "indexed");

    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        migrate(&connection, Timestamp::EPOCH).unwrap();
        connection
    }

    fn names(connection: &Connection, sql: &str) -> BTreeSet<String> {
        let mut select = connection.prepare(sql).unwrap();
        select.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn every_table_is_moved_or_known_to_stay() {
        let all = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'esl%'";
        let moved = TABLES.iter().map(|table| format!("esl_{}", table.name));
        let known: BTreeSet<_> = moved.chain(LEFT.map(str::to_owned)).collect();
        assert_eq!(names(&database(), all), known);
    }

    #[test]
    fn every_column_is_moved() {
        let connection = database();
        for table in TABLES {
            let all = format!("SELECT name FROM pragma_table_info('esl_{}')", table.name);
            let read: Vec<_> = table.names().map(|name| expression(table.name, name)).collect();
            for column in names(&connection, &all) {
                let is_read = |expression: &&str| {
                    expression
                        .split(|it: char| !it.is_alphanumeric() && it != '_')
                        .any(|word| word == column)
                };
                let is_derived = (table.name, &*column) == DERIVED;
                assert!(read.iter().any(is_read) != is_derived, "{}.{column}", table.name);
            }
        }
    }

    #[test]
    fn a_batch_begins_by_search_and_sorts_nothing() {
        let connection = database();
        for table in TABLES {
            for is_after in [false, true] {
                let sql = select(table, is_after);
                let expected = if is_after { "SEARCH" } else { "SCAN" };
                assert_plan(&connection, &sql, &[&format!("{expected} esl_{}", table.name)]);
            }
        }
    }

    #[test]
    fn a_value_of_another_kind_is_named_and_not_shown() {
        let connection = database();
        let rows = "INSERT INTO esl_feeds VALUES ('a', 1), ('b', 'hunter2');
                    INSERT INTO esl_link_keys VALUES (1, 'hunter2', 3);";
        connection.execute_batch(rows).unwrap();
        let refused = |table| {
            let Err(Stop::Refused(error)) = batch(&connection, Table::of(table).unwrap(), None)
            else {
                panic!("{table} was read")
            };
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(!cause.contains("hunter2"), "{cause}");
            cause
        };
        assert!(refused("feeds").starts_with("esl_feeds, key [Bytes(1)]: begun_at is not"));
        connection.execute("UPDATE esl_link_keys SET made_at = 'hunter2'", []).unwrap();
        assert!(refused("link_keys").starts_with("esl_link_keys, key [Number(1)]: made_at is not"));
    }

    #[test]
    fn numbers_that_were_given_out_are_not_given_out_again() {
        let connection = database();
        let rows = "INSERT INTO esl_audit VALUES (7, x'', 0, '', '', '', '', '', '');
                    DELETE FROM esl_audit;
                    INSERT INTO esl_intake VALUES (9, x'', x'', '', 0, NULL, x'', NULL);";
        connection.execute_batch(rows).unwrap();
        for (table, expected) in [("audit", 8), ("intake", 10), ("replays", 1)] {
            let next = next_number(&connection, Table::of(table).unwrap()).unwrap();
            assert_eq!(next, expected, "{table}");
        }
    }
}
