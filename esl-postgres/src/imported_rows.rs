//! Rows of our tables in the form that adapters agree on.

use esl_core::storage::{
    StorageError, StorageErrorKind,
    transfer::{Column, Kind, Row, Table, Value},
};

use crate::{
    error::Damage,
    id::Id16,
    parameters::{Value as Parameter, value},
    rows::get,
};

/// Writes rows that are given as a column after the other.
pub(crate) fn insert(table: &Table) -> String {
    let names: Vec<_> = table.names().collect();
    let places: Vec<_> = (1..=names.len()).map(|place| format!("${place}")).collect();
    format!(
        "INSERT INTO esl.{} ({}) OVERRIDING SYSTEM VALUE SELECT * FROM unnest({})",
        table.name,
        names.join(", "),
        places.join(", ")
    )
}

/// Reads all rows, in the order of their keys. Texts are in the order of their bytes, whatever the database's own
/// is.
pub(crate) fn select(table: &Table) -> String {
    let columns: Vec<_> = table.columns.iter().map(selected).collect();
    let key: Vec<_> = table.key_columns().iter().map(ordered).collect();
    format!("SELECT {} FROM esl.{} t ORDER BY {}", columns.join(", "), table.name, key.join(", "))
}

fn selected(column: &Column) -> String {
    let Column { name, kind } = column;
    match kind {
        // Narrower ones, too.
        Kind::Number => format!("t.{name}::bigint"),
        Kind::Flag | Kind::Id | Kind::Bytes | Kind::Text | Kind::Words | Kind::Secret => {
            format!("t.{name}")
        }
    }
}

fn ordered(column: &Column) -> String {
    let Column { name, kind } = column;
    match kind {
        Kind::Text => format!("t.{name} COLLATE \"C\""),
        Kind::Number | Kind::Flag | Kind::Id | Kind::Bytes | Kind::Words | Kind::Secret => {
            format!("t.{name}")
        }
    }
}

/// Reads a row of [`select`].
pub(crate) fn read(table: &Table, row: &tokio_postgres::Row) -> Result<Row, Damage> {
    let values = table.columns.iter().enumerate().map(|(index, column)| {
        let value = match column.kind {
            Kind::Number => get::<Option<i64>>(row, index)?.map(Value::Number),
            Kind::Flag => get::<Option<bool>>(row, index)?.map(|flag| Value::Number(flag.into())),
            Kind::Id => get::<Option<Id16>>(row, index)?.map(|id| Value::Bytes(id.0.into())),
            Kind::Bytes | Kind::Words | Kind::Secret => {
                get::<Option<&[u8]>>(row, index)?.map(|bytes| Value::Bytes(bytes.into()))
            }
            Kind::Text => get::<Option<&str>>(row, index)?.map(|text| Value::Bytes(text.into())),
        };
        Ok(value.unwrap_or(Value::Null))
    });
    values.collect()
}

/// The values of [`insert`].
pub(crate) fn columns(table: &Table, rows: &[Row]) -> Result<Vec<Parameter>, StorageError> {
    let columns = table.columns.iter().enumerate().map(|(index, column)| {
        let values = || rows.iter().map(move |row| row.get(index).unwrap_or(&Value::Null));
        let array = match column.kind {
            Kind::Number => values().map(number).collect::<Option<Vec<_>>>().map(value),
            Kind::Flag => values().map(flag).collect::<Option<Vec<_>>>().map(value),
            Kind::Id => values().map(id).collect::<Option<Vec<_>>>().map(value),
            Kind::Bytes | Kind::Words | Kind::Secret => {
                values().map(bytes).collect::<Option<Vec<_>>>().map(value)
            }
            Kind::Text => values().map(text).collect::<Option<Vec<_>>>().map(value),
        };
        array.ok_or_else(|| {
            let message = format!("{}.{} is of another kind", table.name, column.name);
            let error = StorageError::new(StorageErrorKind::Corrupt, "write what is moved");
            error.with_source(message)
        })
    });
    columns.collect()
}

fn number(value: &Value) -> Option<Option<i64>> {
    match value {
        Value::Null => Some(None),
        Value::Number(number) => Some(Some(*number)),
        Value::Bytes(_) => None,
    }
}

fn flag(value: &Value) -> Option<Option<bool>> {
    match number(value)? {
        None => Some(None),
        Some(0) => Some(Some(false)),
        Some(1) => Some(Some(true)),
        Some(_) => None,
    }
}

fn bytes(value: &Value) -> Option<Option<Vec<u8>>> {
    match value {
        Value::Null => Some(None),
        Value::Number(_) => None,
        Value::Bytes(bytes) => Some(Some(bytes.clone())),
    }
}

fn id(value: &Value) -> Option<Option<Id16>> {
    match bytes(value)? {
        None => Some(None),
        Some(bytes) => bytes.try_into().ok().map(Id16).map(Some),
    }
}

fn text(value: &Value) -> Option<Option<String>> {
    match bytes(value)? {
        None => Some(None),
        Some(bytes) => String::from_utf8(bytes).ok().map(Some),
    }
}
