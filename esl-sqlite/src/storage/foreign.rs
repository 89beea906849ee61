//! Commits of others: other connections of this process, and other processes.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use esl_core::storage::Change;
use rusqlite::{Connection, OptionalExtension};

use crate::storage::{
    changes::{self, Changes},
    session::Session,
};

/// What the writer knows of others' commits, and the room it leaves them.
pub(crate) struct Foreign {
    changes: Arc<Changes>,
    /// Names this handle in `esl_changes`.
    author: i64,
    /// `PRAGMA data_version` up to which everything was noticed; `None` if there may be more.
    seen: Option<i64>,
    /// The last row of `esl_changes` that was read.
    last_change: i64,
    /// Whether there may be rows up to `last_change` that this engine has yet to remove.
    has_read_rows: bool,
    /// Whether the next commit to be noticed was given room already.
    is_expected: bool,
    last_foreign_commit: Option<Instant>,
    free_until: Option<Instant>,
}

impl Foreign {
    pub(crate) fn start(connection: &Connection, changes: Arc<Changes>) -> rusqlite::Result<Self> {
        // What was left before is part of what this handle reads from now on.
        let last_change = connection
            .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'esl_changes'", [], |row| {
                row.get(0)
            })
            .optional()?
            .unwrap_or(0);
        Ok(Self {
            changes,
            author: RandomState::new().hash_one(thread::current().id()).cast_signed(),
            seen: None,
            last_change,
            has_read_rows: true,
            is_expected: false,
            last_foreign_commit: None,
            free_until: None,
        })
    }

    pub(crate) const fn author(&self) -> i64 {
        self.author
    }

    pub(crate) fn is_listening(&self) -> bool {
        self.changes.is_listening()
    }

    pub(crate) fn tell(&self, change: Change) {
        self.changes.tell(change);
    }

    /// Takes nothing for known any more.
    pub(crate) const fn forget(&mut self) {
        self.seen = None;
    }

    /// Says that a commit which comes next had its turn, and need not be left room for.
    pub(crate) const fn expect_commit(&mut self) {
        self.is_expected = true;
    }

    /// Notices what others have committed, outside a transaction.
    pub(crate) fn look(&mut self, session: &mut Session<'_>) -> rusqlite::Result<()> {
        self.notice(session)?;
        self.is_expected = false;
        Ok(())
    }

    /// Notices what others have committed, as the first thing of a transaction: from here on nobody
    /// else can.
    pub(crate) fn take_up(&mut self, session: &mut Session<'_>) -> rusqlite::Result<()> {
        self.notice(session)?;
        if self.has_read_rows && session.lock.is_held() {
            let sql = "DELETE FROM esl_changes WHERE id <= ?1";
            session.connection.prepare_cached(sql)?.execute([self.last_change])?;
            // Rolled back, they stay until the next ones come.
            self.has_read_rows = false;
        }
        Ok(())
    }

    fn notice(&mut self, session: &mut Session<'_>) -> rusqlite::Result<()> {
        let version = session.statements.data_version.query_row([], |row| row.get(0))?;
        if self.seen == Some(version) {
            return Ok(());
        }
        if self.seen.is_some() && !self.is_expected {
            self.last_foreign_commit = Some(Instant::now());
        }
        session.forget();
        if self.is_listening() {
            self.read_changes(session.connection)?;
            if has_intake(session.connection)? {
                self.tell(Change::Intake);
            }
        }
        self.seen = Some(version);
        Ok(())
    }

    fn read_changes(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let sql =
            "SELECT id, author, kind, organization FROM esl_changes WHERE id > ?1 ORDER BY id";
        let mut select = connection.prepare_cached(sql)?;
        let mut rows = select.query([self.last_change])?;
        while let Some(row) = rows.next()? {
            self.last_change = row.get(0)?;
            self.has_read_rows = true;
            if row.get::<_, i64>(1)? != self.author {
                self.changes.tell(changes::change(row, 2)?);
            }
        }
        Ok(())
    }

    /// Notes how long the lock was held, to leave it free in proportion.
    pub(crate) fn committed(&mut self, held: Duration) {
        let is_foreign_about =
            self.last_foreign_commit.is_some_and(|last| last.elapsed() < MINDFUL_FOR);
        self.free_until = is_foreign_about.then(|| Instant::now() + held / 4);
    }

    /// Leaves the lock free for others: a fifth of the time, if others have written of late.
    pub(crate) fn leave_room(&mut self) {
        if let Some(free_until) = self.free_until.take() {
            thread::sleep(free_until.saturating_duration_since(Instant::now()));
        }
    }
}

fn has_intake(connection: &Connection) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM esl_intake")?.exists([])
}

/// How long after a foreign commit others are left room.
const MINDFUL_FOR: Duration = Duration::from_secs(60);
