//! Making and opening a database.

use std::fs;

use esl_core::storage::{Records, StorageError, StorageErrorKind, Tenancy};
use esl_sqlite::{SqliteStorage, rusqlite::Connection};

use crate::{World, text};

fn refusal(path: impl AsRef<std::path::Path>) -> StorageError {
    SqliteStorage::open(path).expect_err("it cannot be opened")
}

#[tokio::test]
async fn a_database_is_made_and_found_again() {
    let world = World::new().await;
    let accepted = world.publish(1).await;
    let World { folder, storage, organization, .. } = world;
    drop(storage);
    let storage = SqliteStorage::open(folder.path().join("esl.db")).unwrap();
    let event = storage.event(organization, accepted.id).await.unwrap();
    assert_eq!(event.unwrap().seq, accepted.seq);
    storage.check().await.unwrap();
}

#[tokio::test]
async fn an_embedders_database_keeps_what_is_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "PRAGMA user_version = 7;
             PRAGMA application_id = 77;
             CREATE TABLE people (name TEXT);
             INSERT INTO people VALUES ('John');",
        )
        .unwrap();
    let storage = SqliteStorage::open(&path).unwrap();
    storage.check().await.unwrap();
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(number("PRAGMA user_version"), 7);
    assert_eq!(number("PRAGMA application_id"), 77);
    assert_eq!(number("SELECT count(*) FROM people"), 1);
    let foreign = "SELECT count(*) FROM sqlite_schema
                   WHERE name NOT LIKE 'esl~_%' ESCAPE '~' AND name NOT LIKE 'sqlite~_%' ESCAPE '~'";
    assert_eq!(number(foreign), 1);
}

#[test]
fn many_may_open_one_new_database_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("esl.db");
    std::thread::scope(|scope| {
        let opened: Vec<_> = (0..8).map(|_| scope.spawn(|| SqliteStorage::open(&path))).collect();
        for storage in opened {
            storage.join().unwrap().unwrap();
        }
    });
    let connection = Connection::open(&path).unwrap();
    let sql = "SELECT count(*) FROM esl_migrations";
    assert_eq!(connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
}

#[test]
fn what_cannot_be_opened_is_said_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let missing = refusal(folder.path().join("nowhere/esl.db"));
    assert_eq!(missing.kind(), StorageErrorKind::Unavailable);
    assert!(text(&missing).contains("nowhere cannot be used"), "{}", text(&missing));

    let file = folder.path().join("notes.txt");
    fs::write(&file, "These are notes, and more than a hundred bytes of them. ".repeat(40))
        .unwrap();
    assert_eq!(refusal(&file).kind(), StorageErrorKind::Corrupt);
    let below_a_file = refusal(file.join("esl.db"));
    assert_eq!(below_a_file.kind(), StorageErrorKind::Unavailable);
    assert_eq!(refusal(folder.path()).kind(), StorageErrorKind::Unavailable);

    let read_only = folder.path().join("read-only.db");
    drop(SqliteStorage::open(&read_only).unwrap());
    let mut permissions = fs::metadata(&read_only).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&read_only, permissions).unwrap();
    let error = refusal(&read_only);
    assert_eq!(error.kind(), StorageErrorKind::Unavailable);
    assert!(text(&error).contains("is read-only"), "{}", text(&error));
}

#[test]
fn a_write_ahead_log_that_is_none_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("esl.db");
    drop(SqliteStorage::open(&path).unwrap());
    let wal = folder.path().join("esl.db-wal");
    let garbage = b"this is no log".repeat(1000);
    fs::write(&wal, &garbage).unwrap();
    let link = folder.path().join("link.db");
    #[cfg(unix)]
    std::os::unix::fs::symlink(&path, &link).unwrap();
    #[cfg(not(unix))]
    let link = path.clone();
    for path in [&path, &link] {
        let error = refusal(path);
        assert_eq!(error.kind(), StorageErrorKind::Corrupt);
        assert!(text(&error).contains("esl.db-wal is no write-ahead log"), "{}", text(&error));
        assert_eq!(fs::read(&wal).unwrap(), garbage);
    }
    // What a power cut may leave is no damage.
    for left in [&[][..], &[0x37, 0x7f, 6], &[0; 4096]] {
        fs::write(&wal, left).unwrap();
        drop(SqliteStorage::open(&path).unwrap());
    }
}

#[test]
fn a_database_in_memory_is_refused() {
    for path in ["", ":memory:", "file:esl.db?mode=memory"] {
        let error = refusal(path);
        assert_eq!(error.kind(), StorageErrorKind::Unsupported, "{path}");
        assert!(text(&error).contains("in memory is not supported"), "{}", text(&error));
    }
}

#[tokio::test]
async fn tables_of_a_newer_version_are_left_alone() {
    let world = World::new().await;
    world
        .connection()
        .execute("INSERT INTO esl_migrations (version, applied_at) VALUES (1000, 0)", [])
        .unwrap();
    let error = refusal(world.path());
    assert_eq!(error.kind(), StorageErrorKind::Unsupported);
    assert!(text(&error).contains("version 1000"), "{}", text(&error));
    // Who has it open already goes on.
    assert_eq!(world.storage.organizations().await.unwrap().len(), 1);
}

#[test]
fn debug_shows_the_path_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let storage = SqliteStorage::open(folder.path().join("esl.db")).unwrap();
    assert_eq!(format!("{storage:?}"), format!("SqliteStorage({:?})", storage.path()));
}

#[cfg(unix)]
#[tokio::test]
async fn a_new_database_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;

    let world = World::new().await;
    for end in ["", "-wal", "-shm"] {
        let path = format!("{}{end}", world.path().display());
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{path} has {mode:o}");
    }
}
