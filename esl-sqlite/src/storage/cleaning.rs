//! Cleaning the files of what was erased.
//!
//! What a row said can be in other pages than the row's, wherever that was before ([`remnants`]). So
//! after an erasure the whole database is read once, as of one moment, and what is free in its pages is
//! overwritten by the writer between the commits of others. These may move such a page under another
//! number meanwhile; then it is in the WAL, which cannot start over while that moment is being read. So
//! at last everything that is in the WAL is gone over, up to the writer's own transaction.

use esl_core::storage::StorageError;
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::{mpsc, oneshot};

use crate::storage::{
    SqliteStorage,
    error::{Stop, closed, translate_io},
    readers::Snapshot,
    remnants::{self, PAGES_MAX, WalPages},
    session::Session,
};

const CLEAN: &str = "clean up after an erasure";

/// How far the files are clean, as counts of erasures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    begun: i64,
    /// Of so many nothing is in the pages of the database.
    cleaned: i64,
    /// Of so many nothing is in the WAL, either.
    washed: i64,
}

enum Found {
    Pages(Vec<u32>),
    /// That was all; of so many erasures nothing is left afterwards.
    All {
        erasures: i64,
    },
    /// This SQLite cannot read whole pages, or the database is too large to tell them apart.
    Unable {
        erasures: i64,
    },
}

/// Says that there is something to clean. Part of the transaction that erases.
pub(crate) fn demand(session: &Session<'_>) -> rusqlite::Result<()> {
    let begin = "UPDATE esl_engine SET erasures_begun = erasures_begun + 1 WHERE one = 1";
    session.connection.prepare_cached(begin)?.execute([])?;
    Ok(())
}

impl SqliteStorage {
    /// Comes back when nothing of what was erased before is left in the files; with false if somebody
    /// reads what is in the WAL for longer than [`wash`](Self::wash) waits, so that it is left to the
    /// chores.
    pub(crate) async fn clean_up(&self) -> Result<bool, StorageError> {
        let work = |snapshot: &Snapshot<'_>| Ok(Progress::read(snapshot.connection)?);
        let mut progress = self.readers().run(CLEAN, work).await?;
        if progress.cleaned < progress.begun {
            progress.cleaned = self.clean_pages().await?;
        }
        if progress.washed == progress.begun {
            return Ok(true);
        }
        let is_washed = self.wash().await?;
        if is_washed {
            let sql = "UPDATE esl_engine SET erasures_washed = max(erasures_washed, ?1)";
            self.note(sql, progress.cleaned).await?;
        }
        Ok(is_washed)
    }

    /// Cleans the pages of the database, and says of how many erasures.
    async fn clean_pages(&self) -> Result<i64, StorageError> {
        let (sender, mut found) = mpsc::channel(1);
        // Dropped with this call, it ends the search and the moment that is read.
        let (moment, is_over) = oneshot::channel::<()>();
        let search = move |snapshot: &Snapshot<'_>| {
            search(snapshot.connection, &sender)?;
            drop(sender);
            _ = is_over.blocking_recv();
            Ok(())
        };
        let search = self.searcher().begin(CLEAN, search).await?;
        let erasures = loop {
            match found.recv().await {
                Some(Found::Pages(pages)) => {
                    let work = move |session: &mut Session<'_>| Ok(clean(session, &pages)?);
                    self.writer().run(CLEAN, SLICE, work).await?;
                }
                Some(Found::All { erasures }) => {
                    let mut wal = WalPages::of(self.path());
                    while let (more, true) = self.clean_wal_pages(wal).await? {
                        wal = more;
                    }
                    break erasures;
                }
                Some(Found::Unable { erasures }) => {
                    tracing::warn!(
                        "copies of what was erased may be left in pages in which SQLite had it \
                         before: this SQLite was built without SQLITE_ENABLE_DBPAGE_VTAB, or the \
                         database has more than {PAGES_MAX} pages; a backup of it has no such copies"
                    );
                    break erasures;
                }
                // The search says why.
                None => return Err(search.await.err().unwrap_or_else(|| closed(CLEAN))),
            }
        };
        drop(moment);
        search.await?;
        self.note("UPDATE esl_engine SET erasures_cleaned = max(erasures_cleaned, ?1)", erasures)
            .await?;
        Ok(erasures)
    }

    /// Cleans some of the pages that are in the WAL; says whether there may be more.
    async fn clean_wal_pages(&self, mut wal: WalPages) -> Result<(WalPages, bool), StorageError> {
        let work = move |session: &mut Session<'_>| {
            let pages = wal.next(SLICE).map_err(|error| translate_io(CLEAN, error))?;
            clean(session, &pages)?;
            Ok((wal, pages.len() == SLICE))
        };
        // What others have written in the same transaction before would not be in the WAL yet.
        self.writer().run_first(CLEAN, SLICE, work).await
    }

    async fn note(&self, sql: &'static str, erasures: i64) -> Result<(), StorageError> {
        let work = move |session: &mut Session<'_>| {
            session.connection.prepare_cached(sql)?.execute([erasures])?;
            Ok(())
        };
        self.writer().run(CLEAN, 1, work).await
    }
}

impl Progress {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT erasures_begun, erasures_cleaned, erasures_washed FROM esl_engine";
        connection.prepare_cached(sql)?.query_row([], |row| {
            Ok(Self { begun: row.get(0)?, cleaned: row.get(1)?, washed: row.get(2)? })
        })
    }
}

/// Looks through the pages of the database.
fn search(connection: &Connection, found: &mpsc::Sender<Found>) -> Result<(), Stop> {
    // Whoever has begun to erase and not come to the end calls again.
    let is_open = connection.prepare_cached("SELECT 1 FROM esl_erasures")?.exists([])?;
    let Progress { begun, cleaned, .. } = Progress::read(connection)?;
    let erasures = if is_open { cleaned } else { begun };
    let pages: i64 = connection.query_row("PRAGMA main.page_count", [], |row| row.get(0))?;
    let module = "SELECT 1 FROM pragma_module_list WHERE name = 'sqlite_dbpage'";
    if pages >= PAGES_MAX || !connection.prepare(module)?.exists([])? {
        _ = found.blocking_send(Found::Unable { erasures });
        return Ok(());
    }
    let mut select = connection.prepare("SELECT pgno, data FROM sqlite_dbpage WHERE pgno > 1")?;
    let mut rows = select.query([])?;
    let mut unclean = Vec::new();
    while let Some(row) = rows.next()? {
        if found.is_closed() {
            return Ok(());
        }
        if !remnants::is_clean(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?) {
            unclean.push(row.get(0)?);
        }
        if unclean.len() == SLICE {
            _ = found.blocking_send(Found::Pages(std::mem::take(&mut unclean)));
        }
    }
    // Whoever is gone has no use for it.
    _ = found.blocking_send(Found::Pages(unclean));
    _ = found.blocking_send(Found::All { erasures });
    Ok(())
}

/// Overwrites what is free in these pages.
fn clean(session: &Session<'_>, pages: &[u32]) -> rusqlite::Result<()> {
    let mut select =
        session.connection.prepare_cached("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?;
    let mut update =
        session.connection.prepare_cached("UPDATE sqlite_dbpage SET data = ?2 WHERE pgno = ?1")?;
    // The first one holds but the names of tables.
    for page in pages.iter().filter(|page| **page > 1) {
        // The database can have become smaller.
        let data = select.query_row([page], |row| row.get::<_, Vec<u8>>(0)).optional()?;
        if let Some(mut data) = data
            && remnants::clean(&mut data)
        {
            update.execute((page, data))?;
        }
    }
    Ok(())
}

/// Pages of a slice: a millisecond or two.
const SLICE: usize = 256;
