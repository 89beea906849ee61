//! What was seen, on a file: what every [`Seen`] promises, what is the file's own, and taking an event in a
//! transaction of the handler's own.

#![expect(clippy::unwrap_used, reason = "in a test, the panic says enough")]

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use async_trait::async_trait;
use esl_core::{
    Begun, EventId, EventKey, OrganizationId, Seen,
    testing::{SeenHarness, seen_suite},
};
use esl_sqlite::{SqliteSeen, rusqlite::Connection, take_in};
use tempfile::TempDir;

/// A file in a folder of its own.
struct OnDisk {
    folder: TempDir,
    /// One that was "killed" is kept, so that it finishes nothing while a case runs.
    killed: Option<Arc<dyn Seen>>,
}

#[async_trait]
impl SeenHarness for OnDisk {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), killed: None }
    }

    async fn open(&self) -> Arc<dyn Seen> {
        Arc::new(SqliteSeen::open(file(&self.folder)).unwrap())
    }

    async fn reopen_after_kill(&mut self, killed: Arc<dyn Seen>) -> Option<Arc<dyn Seen>> {
        self.killed = Some(killed);
        // What a killed process leaves is what it has written.
        let left = self.folder.path().join("left.db");
        for (from, to) in
            [(file(&self.folder), left.clone()), (wal(&file(&self.folder)), wal(&left))]
        {
            fs::copy(from, to).unwrap();
        }
        Some(Arc::new(SqliteSeen::open(left).unwrap()))
    }
}

seen_suite!(OnDisk);

#[tokio::test]
async fn each_scope_takes_an_event_once() {
    let folder = tempfile::tempdir().unwrap();
    let first = SqliteSeen::open(file(&folder)).unwrap();
    let second = first.clone().with_scope("second");
    assert_eq!(first.begin(event(1)).await.unwrap(), Begun::Now);
    assert_eq!(second.begin(event(1)).await.unwrap(), Begun::Now);
    first.done(event(1)).await.unwrap();
    assert_eq!(second.begin(event(1)).await.unwrap(), Begun::UnderWay);
    assert_eq!(first.clone().with_scope("third").begin(event(1)).await.unwrap(), Begun::Now);
    second.failed(event(1)).await.unwrap();
    assert_eq!(second.begin(event(1)).await.unwrap(), Begun::Now);
    assert_eq!(second.clone().with_scope("").begin(event(1)).await.unwrap(), Begun::Before);
}

#[tokio::test]
async fn what_another_process_has_done_is_not_begun() {
    let folder = tempfile::tempdir().unwrap();
    let [one, another] = [(); 2].map(|()| SqliteSeen::open(file(&folder)).unwrap());
    one.begin(event(1)).await.unwrap();
    one.done(event(1)).await.unwrap();
    assert_eq!(another.begin(event(1)).await.unwrap(), Begun::Before);
    // Not even if it was begun by both.
    another.begin(event(2)).await.unwrap();
    one.begin(event(2)).await.unwrap();
    one.done(event(2)).await.unwrap();
    another.done(event(2)).await.unwrap();
    assert_eq!(another.begin(event(2)).await.unwrap(), Begun::Before);
}

#[tokio::test]
async fn what_is_older_than_it_is_remembered_is_forgotten_a_few_rows_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let seen = SqliteSeen::open(file(&folder)).unwrap();
    let other = seen.clone().with_scope("other");
    other.done(event(1)).await.unwrap();
    for number in 1..=10 {
        seen.done(event(number)).await.unwrap();
    }
    assert_eq!(rows(&folder), 11);
    let short = seen.clone().with_retention(Duration::ZERO);
    let mut left = Vec::new();
    for number in 11..=14 {
        short.done(event(number)).await.unwrap();
        left.push(rows(&folder));
    }
    assert_eq!(left, [8, 5, 2, 2]);
    assert_eq!(seen.begin(event(1)).await.unwrap(), Begun::Now);
    assert_eq!(other.begin(event(1)).await.unwrap(), Begun::Before);
}

#[tokio::test]
async fn what_was_closed_in_order_leaves_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let seen = SqliteSeen::open(file(&folder)).unwrap();
    let clone = seen.clone();
    drop(seen);
    clone.done(event(1)).await.unwrap();
    drop(clone);
    assert!(!wal(&file(&folder)).exists());
    let seen = SqliteSeen::open(file(&folder)).unwrap();
    assert_eq!(seen.begin(event(1)).await.unwrap(), Begun::Before);
}

#[tokio::test]
async fn what_cannot_be_written_is_an_error_and_not_under_way_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let seen = SqliteSeen::open(file(&folder)).unwrap();
    seen.begin(event(1)).await.unwrap();
    let other = Connection::open(file(&folder)).unwrap();
    other.execute_batch("ALTER TABLE esl_seen RENAME TO away").unwrap();
    let error = seen.done(event(1)).await.unwrap_err();
    assert_eq!(error.to_string(), "what was seen of events could not be written");
    assert!(error.source().unwrap().to_string().contains("esl_seen"), "{error:?}");
    assert!(seen.begin(event(1)).await.is_err());
    other.execute_batch("ALTER TABLE away RENAME TO esl_seen").unwrap();
    assert_eq!(seen.begin(event(1)).await.unwrap(), Begun::Now);
}

#[test]
fn what_cannot_be_opened_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let why = |path: &Path| SqliteSeen::open(path).unwrap_err().source().unwrap().to_string();
    assert!(why(&folder.path().join("none/seen.db")).contains("No such file"));
    let text = folder.path().join("text");
    fs::write(&text, "this is a text, and not a database, and so it stays".repeat(20)).unwrap();
    assert!(why(&text).contains("not a database"));
}

#[test]
fn an_event_is_taken_by_the_first_transaction_that_is_committed() {
    let folder = tempfile::tempdir().unwrap();
    let mut app = Connection::open(file(&folder)).unwrap();
    let mut taken = |is_committed: bool| {
        let transaction = app.transaction().unwrap();
        let taken = take_in(&transaction, "", event(1)).unwrap();
        assert!(!take_in(&transaction, "", event(1)).unwrap(), "it is taken by now");
        if is_committed {
            transaction.commit().unwrap()
        } else {
            drop(transaction)
        }
        taken
    };
    assert_eq!([false, false, true, true, false].map(&mut taken), [true, true, true, false, false]);
}

#[test]
fn a_savepoint_takes_an_event_and_gives_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut app = Connection::open(file(&folder)).unwrap();
    let mut transaction = app.transaction().unwrap();
    let savepoint = transaction.savepoint().unwrap();
    assert!(take_in(&savepoint, "", event(1)).unwrap());
    drop(savepoint);
    assert!(take_in(&transaction, "", event(1)).unwrap());
    assert!(take_in(&transaction, "another", event(1)).unwrap());
    assert!(take_in(&transaction, "", event(2)).unwrap());
}

#[test]
fn a_transaction_takes_the_same_id_of_each_organization() {
    let folder = tempfile::tempdir().unwrap();
    let mut app = Connection::open(file(&folder)).unwrap();
    let transaction = app.transaction().unwrap();
    let other = EventKey { organization: OrganizationId::from_bytes([2; 16]), ..event(1) };
    let taken = [event(1), other, event(1), other];
    let taken = taken.map(|event| take_in(&transaction, "", event).unwrap());
    assert_eq!(taken, [true, true, false, false]);
}

#[test]
fn without_a_transaction_nothing_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let app = Connection::open(file(&folder)).unwrap();
    let error = take_in(&app, "", event(1)).unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), "the connection is in no transaction");
}

#[test]
fn of_two_transactions_the_second_waits_for_what_becomes_of_the_first() {
    for is_committed in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        drop(SqliteSeen::open(file(&folder)).unwrap());
        let mut first = Connection::open(file(&folder)).unwrap();
        let transaction = first.transaction().unwrap();
        assert!(take_in(&transaction, "", event(1)).unwrap());
        let (waits, is_waiting) = mpsc::channel();
        let second = thread::spawn({
            let mut second = Connection::open(file(&folder)).unwrap();
            second.busy_handler(Some(move |_| waits.send(()).is_ok())).unwrap();
            move || {
                let transaction = second.transaction().unwrap();
                let taken = take_in(&transaction, "", event(1)).unwrap();
                transaction.commit().unwrap();
                taken
            }
        });
        is_waiting.recv().unwrap();
        if is_committed {
            transaction.commit().unwrap()
        } else {
            drop(transaction)
        }
        assert_eq!(second.join().unwrap(), !is_committed);
    }
}

#[tokio::test]
async fn a_transaction_and_what_is_seen_know_of_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let seen = SqliteSeen::open(file(&folder)).unwrap().with_scope("billing");
    let mut app = Connection::open(file(&folder)).unwrap();
    let mut take = |number| {
        let transaction = app.transaction().unwrap();
        let taken = take_in(&transaction, "billing", event(number)).unwrap();
        transaction.commit().unwrap();
        taken
    };
    // Within the handler.
    assert_eq!(seen.begin(event(1)).await.unwrap(), Begun::Now);
    assert!(take(1));
    seen.done(event(1)).await.unwrap();
    assert_eq!(seen.begin(event(1)).await.unwrap(), Begun::Before);
    // Whoever was killed in between has left this.
    assert!(take(2));
    assert_eq!(seen.begin(event(2)).await.unwrap(), Begun::Before);
    seen.done(event(3)).await.unwrap();
    assert!(!take(3));
}

fn rows(folder: &TempDir) -> i64 {
    let connection = Connection::open(file(folder)).unwrap();
    connection.query_row("SELECT count(*) FROM esl_seen", (), |row| row.get(0)).unwrap()
}

fn event(number: u128) -> EventKey {
    EventKey {
        organization: OrganizationId::from_bytes([1; 16]),
        event: EventId::from_bytes(number.to_be_bytes()),
    }
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("seen.db")
}

fn wal(database: &Path) -> PathBuf {
    database.with_extension("db-wal")
}
