//! The one thread that reads and writes what was seen.
//!
//! It has what is under way in its memory and what is done in the file. All that waits to be done goes into
//! one transaction, and is answered after the commit; until then it is under way.

use std::{
    collections::HashSet,
    error::Error,
    path::Path,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use esl_core::{Begun, EventKey, SeenError};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use crate::{
    file::{self, BUSY_TIMEOUT, Patience, create_private, enter_wal, wait_while_busy},
    taken,
};

/// An event, and the scope in which it is taken.
pub(crate) type Key = (Arc<str>, EventKey);

/// The thread, as the handle sees it.
pub(crate) struct SeenThread {
    messages: Sender<Message>,
    thread: Option<JoinHandle<()>>,
}

enum Message {
    Begin(Key, oneshot::Sender<Result<Begun, SeenError>>),
    Done(Done),
    Failed(Key),
    Close,
}

struct Done {
    key: Key,
    retention: Duration,
    caller: oneshot::Sender<Result<(), SeenError>>,
}

impl SeenThread {
    pub(crate) fn start(path: &Path) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let connection = open(path)?;
        let (messages, inbox) = mpsc::channel();
        let thread = thread::Builder::new().name("esl-sqlite-seen".into());
        let thread =
            thread.spawn(move || Work { connection, under_way: HashSet::new() }.run(&inbox))?;
        Ok(Self { messages, thread: Some(thread) })
    }

    pub(crate) async fn begin(&self, key: Key) -> Result<Begun, SeenError> {
        let (caller, answer) = oneshot::channel();
        self.send(Message::Begin(key, caller))?;
        answer.await.map_err(|_| closed())?
    }

    pub(crate) async fn done(&self, key: Key, retention: Duration) -> Result<(), SeenError> {
        let (caller, answer) = oneshot::channel();
        self.send(Message::Done(Done { key, retention, caller }))?;
        answer.await.map_err(|_| closed())?
    }

    /// Needs no answer: who begins the event after this is behind it in the queue.
    pub(crate) fn failed(&self, key: Key) -> Result<(), SeenError> {
        self.send(Message::Failed(key))
    }

    fn send(&self, message: Message) -> Result<(), SeenError> {
        self.messages.send(message).map_err(|_| closed())
    }
}

impl Drop for SeenThread {
    fn drop(&mut self) {
        // A thread that is gone needs no message, and has nothing left to do.
        _ = self.messages.send(Message::Close);
        _ = self.thread.take().map(JoinHandle::join);
    }
}

fn closed() -> SeenError {
    SeenError::writing("the thread that does it is gone")
}

fn open(path: &Path) -> Result<Connection, Box<dyn Error + Send + Sync>> {
    file::demand_safe_version()?;
    create_private(path)?;
    // A path is a path, also one that SQLite would take for something else.
    let path = path.canonicalize()?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_handler(Some(wait_while_busy(Patience::new(BUSY_TIMEOUT))))?;
    let mode = enter_wal(&connection, BUSY_TIMEOUT)?;
    if mode != "wal" {
        return Err(format!("its journal stays in mode `{mode}`; WAL is needed").into());
    }
    connection.execute_batch("PRAGMA synchronous = FULL")?;
    taken::create(&connection)?;
    // ESL's storage notices when a sync of the database fails, and must be the only one that asks for one.
    let storage = "SELECT 1 FROM main.sqlite_schema WHERE name = 'esl_migrations'";
    if connection.prepare(storage)?.exists(())? {
        connection.execute_batch("PRAGMA wal_autocheckpoint = 0")?;
    }
    Ok(connection)
}

struct Work {
    connection: Connection,
    under_way: HashSet<Key>,
}

impl Work {
    fn run(mut self, inbox: &Receiver<Message>) {
        let mut is_closed = false;
        while !is_closed && let Ok(first) = inbox.recv() {
            let mut done = Vec::new();
            for message in std::iter::once(first).chain(inbox.try_iter()).take(TOGETHER_MAX) {
                match message {
                    Message::Begin(key, caller) => self.begin(key, caller),
                    Message::Done(one) => done.push(one),
                    Message::Failed(key) => _ = self.under_way.remove(&key),
                    Message::Close => is_closed = true,
                }
            }
            self.note(done);
        }
    }

    fn begin(&mut self, key: Key, caller: oneshot::Sender<Result<Begun, SeenError>>) {
        let begun = if self.under_way.contains(&key) {
            Ok(Begun::UnderWay)
        } else {
            match taken::is_taken(&self.connection, &key.0, key.1) {
                Ok(true) => Ok(Begun::Before),
                Ok(false) => Ok(Begun::Now),
                Err(error) => Err(SeenError::reading(error)),
            }
        };
        let is_begun = matches!(begun, Ok(Begun::Now));
        // Nobody would end what was begun for a caller that is gone.
        if caller.send(begun).is_ok() && is_begun {
            self.under_way.insert(key);
        }
    }

    fn note(&mut self, done: Vec<Done>) {
        if done.is_empty() {
            return;
        }
        let noted = self.commit(&done).map_err(Arc::new);
        for Done { key, caller, .. } in done {
            self.under_way.remove(&key);
            // A caller that is gone has no use for the answer.
            _ = caller.send(noted.clone().map_err(SeenError::writing));
        }
    }

    fn commit(&self, done: &[Done]) -> rusqlite::Result<()> {
        let transaction =
            Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        for Done { key: (scope, event), retention, .. } in done {
            taken::take(&transaction, scope, *event, *retention)?;
        }
        transaction.commit()
    }
}

/// Calls that share a transaction at most: larger ones save nothing more.
const TOGETHER_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use esl_core::{EventId, OrganizationId};

    use super::*;

    #[test]
    fn a_commit_is_durable_and_storage_alone_checkpoints_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seen.db");
        let settings = || {
            let connection = open(&file).unwrap();
            ["journal_mode", "synchronous", "wal_autocheckpoint"].map(|name| {
                let value = connection.pragma_query_value(None, name, |row| {
                    row.get(0).map(|value: rusqlite::types::Value| format!("{value:?}"))
                });
                value.unwrap()
            })
        };
        assert_eq!(settings(), [r#"Text("wal")"#, "Integer(2)", "Integer(1000)"]);
        let storage = "CREATE TABLE esl_migrations (version INTEGER)";
        open(&file).unwrap().execute_batch(storage).unwrap();
        assert_eq!(settings(), [r#"Text("wal")"#, "Integer(2)", "Integer(0)"]);
    }

    #[test]
    fn what_is_begun_for_a_caller_that_is_gone_is_not_under_way() {
        let connection = Connection::open_in_memory().unwrap();
        taken::create(&connection).unwrap();
        let mut work = Work { connection, under_way: HashSet::new() };
        let event = EventKey {
            organization: OrganizationId::from_bytes([1; 16]),
            event: EventId::from_bytes([1; 16]),
        };
        let key: Key = (Arc::from(""), event);
        let (caller, answer) = oneshot::channel();
        drop(answer);
        work.begin(key.clone(), caller);
        assert!(work.under_way.is_empty());
        let (caller, mut answer) = oneshot::channel();
        work.begin(key.clone(), caller);
        assert_eq!(answer.try_recv().unwrap().unwrap(), Begun::Now);
        assert!(work.under_way.contains(&key));
    }
}
