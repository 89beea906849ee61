//! Rows with whatever values there can be, in every table, moved a batch at a time, each by somebody new.

use std::path::Path;

use esl_core::{
    InstallationId,
    storage::{
        StorageErrorKind,
        transfer::{
            Arriving, Destination, Kind, NextStep, Position, TABLES, Table, TransferId, next_step,
        },
    },
};
use esl_postgres::{Import, PostgresStorage};
use esl_sqlite::{
    Export, SqliteStorage,
    rusqlite::{Connection, params_from_iter, types::Value},
};
use tokio_postgres::NoTls;

use crate::{cluster, support::Folder};

const INSTALLATION: InstallationId = InstallationId::from_bytes([9; 16]);
const ROWS: i64 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_rows_hold_they_are_the_same_afterwards() {
    let folder = Folder::new();
    let path = folder.database();
    drop(SqliteStorage::open(&path).expect("it can be made"));
    fill(&Connection::open(&path).expect("it is there"));
    let schema = cluster::new_schema();

    let mut batches = 0;
    while step(&path, &schema).await {
        batches += 1;
    }
    assert_eq!(batches, filled().count(), "each table was moved by somebody new");
    let (export, import) = (export(&path).await, import(&schema).await);
    for table in filled() {
        let here = export.tally(table).await.expect("it can be read");
        let there = import.tally(table).await.expect("it can be read");
        assert_eq!(here.rows(), ROWS.unsigned_abs(), "{}", table.name);
        assert!(here == there, "{}", table.name);
    }
    assert_texts_are_there(&schema).await;

    // Unfinished, nobody can use it; and nobody else goes on with it.
    let refused = PostgresStorage::options().schema(&schema).open(cluster::url()).await;
    assert_eq!(refused.unwrap_err().kind(), StorageErrorKind::Unsupported);
    let leaving = export.leaving().expect("it is closed").clone();
    let other = TransferId::from_bytes([1; 16]);
    let numbers = export.next_numbers().await.expect("they can be read");
    let refused = import.finish(other, &numbers).await.unwrap_err();
    assert_eq!(refused.kind(), StorageErrorKind::Conflict);
    let row = export.read(&TABLES[0], None).await.expect("it can be read");
    let refused = import.write(leaving.id, None, &TABLES[0], &row).await.unwrap_err();
    assert_eq!(refused.kind(), StorageErrorKind::Conflict);

    import.finish(leaving.id, &numbers).await.expect("all is there");
    assert!(matches!(import.arriving().await, Ok(Arriving::Marked { arrived_at: Some(_), .. })));
    let client = connect().await;
    for (table, next) in numbers {
        let key = table.key_columns()[0].name;
        let name = table.name;
        let sequence = format!("pg_get_serial_sequence('{schema}.{name}', '{key}')");
        let next_value = format!("SELECT nextval({sequence}::regclass)");
        let drawn: i64 = client.query_one(&next_value, &[]).await.expect("a row").get(0);
        assert_eq!(drawn, next, "{name}");
    }
    let installation = format!("SELECT uuid_send(installation) FROM {schema}.settings");
    let installation: Vec<u8> = client.query_one(&installation, &[]).await.expect("a row").get(0);
    assert_eq!(installation, INSTALLATION.to_bytes());
}

#[tokio::test]
async fn every_table_and_column_of_postgres_is_moved_or_known_to_stay() {
    const LEFT: [&str; 7] =
        ["changes", "handles", "leaders", "migrations", "owners", "settings", "transfer"];
    let schema = cluster::new_schema();
    drop(import(&schema).await);
    let columns = "SELECT table_name::text, column_name::text FROM information_schema.columns
                   WHERE table_schema = $1";
    for row in connect().await.query(columns, &[&schema]).await.expect("rows") {
        let (table, column): (&str, &str) = (row.get(0), row.get(1));
        if LEFT.contains(&table) || table == "workers" {
            continue;
        }
        // What SQL publishes, which SQLite has no way for.
        let is_of_sql = table == "intake" && ["data", "metadata", "chose_id"].contains(&column);
        let known = Table::of(table).is_some_and(|table| table.names().any(|name| name == column));
        assert!(known || is_of_sql, "{table}.{column}");
    }
}

async fn export(path: &Path) -> Export {
    Export::open(path, SqliteStorage::options()).await.expect("it can be opened")
}

async fn import(schema: &str) -> Import {
    let options = PostgresStorage::options().schema(schema);
    options.import(cluster::url()).await.expect("the server runs")
}

async fn connect() -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(cluster::url(), NoTls).await.expect("a connection");
    tokio::spawn(async move { _ = connection.await });
    client
}

/// Moves one batch, as a process does that is killed right after it; false if there was nothing to move.
async fn step(path: &Path, schema: &str) -> bool {
    let (mut export, import) = (export(path).await, import(schema).await);
    let arriving = import.arriving().await.expect("it can be read");
    let step = next_step(export.leaving(), arriving, import.identity());
    let to = Destination { identity: import.identity(), name: schema.to_owned() };
    let id = TransferId::from_bytes([7; 16]);
    let (leaving, installation) =
        export.close(id, to, INSTALLATION).await.expect("it can be closed");
    match step {
        NextStep::Begin => import.begin(leaving.id, installation).await.expect("it is empty"),
        NextStep::GoOn => {}
        NextStep::Done | NextStep::Refuse(_) => panic!("{step:?}"),
    }
    let position = import.position(leaving.id).await.expect("it is under way");
    let reached = position.as_ref().map(|position| position.table);
    for table in TABLES.iter().skip_while(|table| reached.is_some_and(|reached| reached != *table))
    {
        let after = position.as_ref().filter(|position| position.table == table);
        let after = after.map(|Position { key, .. }| key.clone());
        let batch = export.read(table, after).await.expect("it can be read");
        if !batch.is_empty() {
            let written = import.write(leaving.id, position.as_ref(), table, &batch).await;
            written.expect("it can be written");
            return true;
        }
    }
    false
}

/// All tables but that of keys, which whoever opens the file would have to have.
fn filled() -> impl Iterator<Item = &'static Table> {
    TABLES.iter().filter(|table| table.name != "encryption_keys")
}

/// Puts some rows into every table. They mean nothing: what they mean is for other tests.
fn fill(connection: &Connection) {
    for table in filled() {
        let columns: Vec<(String, bool)> = connection
            .prepare(&format!(
                "SELECT name, \"notnull\" FROM pragma_table_info('esl_{}')",
                table.name
            ))
            .expect("a statement")
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .expect("rows")
            .collect::<Result<_, _>>()
            .expect("columns");
        let places: Vec<_> = (1..=columns.len()).map(|place| format!("?{place}")).collect();
        let insert = format!("INSERT INTO esl_{} VALUES ({})", table.name, places.join(", "));
        for row in 0..ROWS {
            let values =
                columns.iter().map(|(name, is_needed)| value(table, name, *is_needed, row));
            connection.execute(&insert, params_from_iter(values)).expect(&insert);
        }
    }
}

fn value(table: &Table, name: &str, is_needed: bool, row: i64) -> Value {
    let is_key = table.key_columns().iter().any(|column| column.name == name);
    let Some(column) = table.columns.iter().find(|column| column.name == name) else {
        // An entity's entries, once more.
        if (table.name, name) == ("entities", "indexed") {
            return Value::Blob(Vec::new());
        }
        // The key of an event: its organization and its seq.
        assert!(["events", "erasures"].contains(&table.name), "{}.{name}", table.name);
        return Value::Integer((row / 2 + 1) << 40 | ((1 << 40) - 1 - row));
    };
    if row == 0 && !is_needed && !is_key {
        return Value::Null;
    }
    match column.kind {
        Kind::Number if is_key => Value::Integer(row + 1),
        Kind::Number if NARROW.contains(&name) => Value::Integer(row),
        Kind::Number => Value::Integer(
            [0, 1, -1, i64::MAX, i64::MIN, 1 << 40][usize::try_from(row).expect("small")],
        ),
        Kind::Flag => Value::Integer(row % 2),
        Kind::Id => {
            Value::Blob([[0; 15].as_slice(), &[u8::try_from(row).expect("small")]].concat())
        }
        Kind::Bytes | Kind::Words | Kind::Text if is_key || INDEXED.contains(&name) => {
            let text = format!("{row}{}", if column.kind == Kind::Words { "\u{0}ü" } else { "ü" });
            if column.kind == Kind::Bytes { Value::Blob(text.into()) } else { Value::Text(text) }
        }
        Kind::Bytes => Value::Blob(match row {
            1 => Vec::new(),
            2 => vec![0],
            3 => vec![255; 400_000],
            _ => (0..=255).collect(),
        }),
        Kind::Text => Value::Text(match row {
            1 => String::new(),
            2 => "a b\nc".to_owned(),
            3 => "x".repeat(20_000),
            _ => "ü \u{1f600}".to_owned(),
        }),
        Kind::Words => Value::Text(match row {
            1 => String::new(),
            2 => "\u{0}".to_owned(),
            3 => "ü\u{0}".repeat(20_000),
            _ => WORDS.to_owned(),
        }),
        Kind::Secret if table.name == "link_keys" => {
            Value::Blob(vec![7; if row % 2 == 0 { 32 } else { 80 }])
        }
        Kind::Secret if row % 2 == 0 => Value::Blob(vec![0, 255, 3]),
        Kind::Secret => Value::Text(WORDS.to_owned()),
    }
}

/// Those that no index of Postgres would take if they were long, and that ESL keeps short.
const INDEXED: [&str; 3] = ["name", "client", "family"];

/// Those that have fewer bits there.
const NARROW: [&str; 9] = [
    "organization",
    "fan_outs",
    "is_swept",
    "last_status",
    "last_error",
    "state",
    "status",
    "error",
    "kind",
];

const WORDS: &str = "nul \u{0}, ü, \u{202e}\u{1f600}";

/// Without what moves them: what a person sees in the columns.
async fn assert_texts_are_there(schema: &str) {
    let client = connect().await;
    let names = format!("SELECT name FROM {schema}.organizations ORDER BY key");
    for (row, found) in client.query(&names, &[]).await.expect("rows").iter().enumerate() {
        assert_eq!(found.get::<_, &[u8]>(0), format!("{row}\u{0}ü").as_bytes());
    }
    let secrets =
        format!("SELECT secret, sealed, headers FROM {schema}.subscriptions ORDER BY lane");
    for (row, found) in client.query(&secrets, &[]).await.expect("rows").iter().enumerate() {
        let (secret, sealed): (&[u8], i16) = (found.get(0), found.get(1));
        let expected = if row % 2 == 0 { &[0, 255, 3] } else { WORDS.as_bytes() };
        assert_eq!(secret, expected);
        // Of the first, only what it must have is there.
        assert_eq!(sealed, [1, 0, 7, 0, 7, 0][row]);
    }
    let keys = format!("SELECT length(key), sealed FROM {schema}.link_keys ORDER BY number");
    for (row, found) in client.query(&keys, &[]).await.expect("rows").iter().enumerate() {
        let expected = if row % 2 == 0 { (32, false) } else { (80, true) };
        assert_eq!((found.get::<_, i32>(0), found.get::<_, bool>(1)), expected);
    }
    let events =
        format!("SELECT organization, seq, octet_length(body) FROM {schema}.events ORDER BY 1, 2");
    let events = client.query(&events, &[]).await.expect("rows");
    let last: (i32, i64, i32) = {
        let last = events.last().expect("some");
        (last.get(0), last.get(1), last.get(2))
    };
    assert_eq!(last, (3, (1 << 40) - 5, 256));
}
