//! What the connections of this process have run, and what that took.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rusqlite::{
    Connection, StatementStatus,
    trace::{TraceEvent, TraceEventCodes},
};

/// What a statement has done in one database, whichever connections have run it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Runs {
    /// Steps of SQLite's machine: the same on every computer.
    pub(super) steps: u64,
    /// How often it was planned once more.
    pub(super) replans: u64,
}

type Seen = BTreeMap<PathBuf, BTreeMap<String, Runs>>;

static SEEN: Mutex<Seen> = Mutex::new(BTreeMap::new());

/// Notes what the connection runs from now on.
pub(crate) fn watch(connection: &mut Connection) -> rusqlite::Result<()> {
    let database = PathBuf::from(connection.path().unwrap_or_default());
    // SQLite counts for each statement since it was prepared.
    let mut counted: HashMap<String, i32> = HashMap::new();
    let note = move |event: TraceEvent<'_>| {
        let TraceEvent::Profile(statement, _) = event else { return };
        let sql = statement.sql();
        if !is_planned(&sql) {
            return;
        }
        let steps = statement.get_status(StatementStatus::VmStep);
        let before = counted.insert(sql.clone().into_owned(), steps).unwrap_or(0);
        // One that runs for the first time is another one of the same text, and so is one that has
        // taken less than before: two may take turns.
        let is_first = statement.get_status(StatementStatus::Run) == 1;
        let new = if is_first || steps < before { steps } else { steps.saturating_sub(before) };
        let mut seen = seen();
        let runs = seen.entry(database.clone()).or_default().entry(sql.into_owned()).or_default();
        runs.steps += u64::from(new.unsigned_abs());
        let replans = statement.get_status(StatementStatus::RePrepare);
        runs.replans = runs.replans.max(replans.unsigned_abs().into());
    };
    connection.trace_v2(TraceEventCodes::SQLITE_TRACE_PROFILE, Some(note))
}

/// What was run in any database whose file has this name.
pub(super) fn in_databases_named(file: &str) -> BTreeMap<String, Runs> {
    let mut all: BTreeMap<String, Runs> = BTreeMap::new();
    let seen = seen();
    let databases = seen.iter().filter(|(path, _)| path.file_name().is_some_and(|it| it == file));
    for (sql, runs) in databases.flat_map(|(_, runs)| runs) {
        let entry = all.entry(sql.clone()).or_default();
        entry.steps += runs.steps;
        entry.replans = entry.replans.max(runs.replans);
    }
    all
}

/// What was run in one database.
pub(super) fn in_database(path: &Path) -> BTreeMap<String, Runs> {
    seen().get(path).cloned().unwrap_or_default()
}

/// Whether a statement has a plan: `BEGIN` and pragmas have none.
pub(super) fn is_planned(sql: &str) -> bool {
    let verbs = ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"];
    let first = sql.split_ascii_whitespace().next();
    first.is_some_and(|first| verbs.contains(&first))
}

fn seen() -> MutexGuard<'static, Seen> {
    // A case that has failed says enough.
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}
