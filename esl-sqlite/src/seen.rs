//! What a receiver remembers of the events that it has taken, in a SQLite file.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use esl_core::{Begun, EventKey, Seen, SeenError};

use crate::{
    seen_thread::{Key, SeenThread},
    taken::RETENTION,
};

/// Takes each event once, and remembers that in a SQLite file.
///
/// One scope is for one handler, as [`Seen`] says: where an application has several, each has a clone
/// [with a scope of its own](Self::with_scope).
///
/// An event that is done is in the file, durably on return (WAL, `synchronous=FULL`): it is not begun again,
/// by this process or by those after it. What is under way is in this process's memory alone, so that after a
/// kill it is begun again. Where a kill between the handler's own commit and [`done`](Seen::done) must not
/// have it handled twice, [`take_in`](crate::take_in) takes the event in the handler's own transaction.
///
/// Two processes that handle the same events at the same time know of each other's events what is done, and
/// not what is under way.
///
/// The file may be the application's own database, or also one that an engine has open; the table is
/// `esl_seen`. One thread does all that blocks, and calls that come together share a sync. Clones are the same
/// handle; the last one to be dropped closes the file, which takes a moment.
///
/// ```
/// use esl_core::{Begun, EventKey, Seen};
/// use esl_sqlite::SqliteSeen;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("seen.db");
/// let seen = SqliteSeen::open(path)?.with_scope("billing");
/// // Of an `Envelope` or an `Event`, it is `key()`.
/// let event = EventKey {
///     organization: "org_01J00000000000000000000000".parse()?,
///     event: "evt_01J00000000000000000000000".parse()?,
/// };
/// if seen.begin(event).await? == Begun::Now {
///     // It is handled here; then:
///     seen.done(event).await?;
/// }
/// assert_eq!(seen.begin(event).await?, Begun::Before);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SqliteSeen {
    thread: Arc<SeenThread>,
    scope: Arc<str>,
    retention: Duration,
}

impl SqliteSeen {
    /// Opens the file at `path`, and makes it, for its owner alone, if there is none. It blocks for a moment.
    ///
    /// # Errors
    /// If the folder does not exist, the file cannot be written or is not a database, or another connection
    /// writes for more than 5 s.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SeenError> {
        let thread = SeenThread::start(path.as_ref()).map_err(SeenError::opening)?;
        Ok(Self { thread: Arc::new(thread), scope: Arc::from(""), retention: RETENTION })
    }

    /// Which handler takes events: several may keep theirs in one file, and each takes an event once. A clone
    /// with another scope uses the same thread. Defaults to `""`.
    #[must_use]
    pub fn with_scope(mut self, scope: &str) -> Self {
        self.scope = scope.into();
        self
    }

    /// For how long an event is remembered at least. What is older is forgotten, a few rows with each event
    /// that is done. Defaults to 30 days: for as long as ESL keeps events by default, a replay may bring them
    /// again.
    #[must_use]
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    fn key(&self, event: EventKey) -> Key {
        (Arc::clone(&self.scope), event)
    }
}

#[async_trait]
impl Seen for SqliteSeen {
    async fn begin(&self, event: EventKey) -> Result<Begun, SeenError> {
        self.thread.begin(self.key(event)).await
    }

    async fn done(&self, event: EventKey) -> Result<(), SeenError> {
        self.thread.done(self.key(event), self.retention).await
    }

    async fn failed(&self, event: EventKey) -> Result<(), SeenError> {
        self.thread.failed(self.key(event))
    }
}

impl fmt::Debug for SqliteSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteSeen")
            .field("scope", &self.scope)
            .field("retention", &self.retention)
            .finish_non_exhaustive()
    }
}
