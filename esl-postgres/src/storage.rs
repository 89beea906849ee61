//! The handle, and what it is made of.
//!
//! Which file holds which trait, each with one `impl` that hands on to what does the work:
//!
//! | trait | file | and what it hands on to |
//! |---|---|---|
//! | `Commit` | `commit.rs` | `committer.rs`, `flatten.rs`, `decode.rs` |
//! | `Entities` | `entities.rs` | |
//! | `Lanes` | `lanes.rs` | `claim.rs`, `fan_out.rs`, `reopen.rs`, `intake.rs`, `sweep.rs`, `changes.rs`, `listen.rs`, `notify.rs` |
//! | `Subscriptions` | `subscriptions.rs` | `subscription_row.rs` |
//! | `Records` | `records.rs` | `deliveries.rs`, `health.rs`, `audit.rs` |
//! | `Replays` | `replays.rs` | `candidates.rs` |
//! | `Removal` | `removal.rs` | `retention.rs`, `strays.rs`, `deletion.rs`, `erasure.rs`, `blobs.rs`, `link_keys.rs` |
//! | `Feed` | `feed.rs` | |
//! | `Schedule` | `schedule.rs` | |
//! | `Tenancy` | `tenancy.rs` | `clients.rs`, `tokens.rs` |

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use esl_core::storage::{StorageError, StorageErrorKind, StorageTime};
use tokio::{sync::Mutex, task::JoinHandle};

use crate::{
    changes::Changes,
    committer::Committer,
    config::{OPEN, PostgresOptions, Target},
    connect::{Connector, Database, Lease},
    damage::Damages,
    encryption_keys,
    id::Id16,
    listen::{Listener, Position},
    notify::Notifier,
    removal::Progress,
    secrets::Secrets,
    session::Session,
    sweep::ExpiryMark,
    wake::PostgresWake,
};

/// Storage in PostgreSQL: the whole of [`Storage`](esl_core::storage::Storage), for as many engines as there
/// are.
///
/// Clones are the same handle. The last one to be dropped closes its connections.
#[derive(Clone)]
pub struct PostgresStorage {
    inner: Arc<Inner>,
}

struct Inner {
    /// Names this handle in the ledger, and as the author of changes.
    handle: Id16,
    /// The database's, which no other one has.
    identity: Id16,
    database: Arc<Database>,
    /// The suite's, in place of the server's.
    time: Option<Arc<StorageTime>>,
    changes: Arc<Changes>,
    notifier: Arc<Notifier>,
    listener: JoinHandle<()>,
    committer: Committer,
    /// Of the calls that take lanes and let go of them.
    calls: AtomicI64,
    expiry_mark: ExpiryMark,
    damages: Damages,
    secrets: Secrets,
    removal: Mutex<Progress>,
}

impl PostgresStorage {
    /// Opens the database that a URL names, makes ESL's schema in it if there is none, and brings it up to
    /// date.
    ///
    /// The URL is `postgres://user:password@host:port/database`, with several hosts if need be; options of
    /// it are `sslmode` (`verify-full`, `require`, which verifies, too, `prefer` or `disable`),
    /// `sslrootcert`, `sslcert`, `sslkey`, and those of `tokio-postgres`. Without `sslmode`, what leaves the
    /// machine is encrypted and verified.
    ///
    /// # Errors
    /// [`Unavailable`](StorageErrorKind::Unavailable) if the server cannot be reached, refuses the user or can
    /// only be read; [`Unsupported`](StorageErrorKind::Unsupported) if the URL is none, the server is too old
    /// or can lose what it acknowledges, the schema was made by a newer ESL, or an [`Import`](crate::Import)
    /// into it is not finished;
    /// [`KeyMissing`](StorageErrorKind::KeyMissing) if secrets in it are encrypted with a key that is not in
    /// the [keyring](PostgresOptions::keyring).
    pub async fn open(url: &str) -> Result<Self, StorageError> {
        Self::options().open(url).await
    }

    /// For what [`open`](Self::open) decides by itself.
    pub fn options() -> PostgresOptions {
        PostgresOptions::new()
    }

    /// Hints between the engines on this database, for
    /// [`EslBuilder::wake`](esl_core::EslBuilder::wake): which lanes there is something for. Where several
    /// engines run, each should have it. To be asked for before the engine is built.
    pub fn wake(&self) -> PostgresWake {
        PostgresWake::new(self.clone())
    }

    pub(crate) async fn open_with(
        url: &str,
        options: PostgresOptions,
    ) -> Result<Self, StorageError> {
        let PostgresOptions { schema, connections, listen_url, secrets, .. } = options;
        let PostgresOptions { payload_bytes_max, clock, may_lose, .. } = options;
        let listen_on = listen_url.map(|url| Target::parse(&url.0)).transpose()?;
        let listen_on = listen_on.map(Target::plain);
        let time = clock.map(|clock| Arc::new(StorageTime::new(clock)));
        let handle = new_handle()?;
        let database = Arc::new(Database::open(url, &schema, connections, may_lose).await?);
        database.query(OPEN, ARRIVED, &[]).await?;
        encryption_keys::demand_all(&database, secrets.keyring.as_ref(), OPEN).await?;
        let now = time.as_ref().map(|time| time.now().as_millis());
        let identity = database.note_handle(handle, now).await?;
        if let Some(bytes) = payload_bytes_max {
            database.note_payload_bytes_max(bytes).await?;
        }
        let position = Position::now(&database).await?;
        let committer = Committer::start(handle, Arc::clone(&database), time.clone());
        let changes = Arc::new(Changes::default());
        let notifier = Arc::new(Notifier::start(handle, Arc::clone(&database)));
        let listener = Listener {
            handle,
            elsewhere: listen_on.as_ref().map(Connector::new).transpose()?,
            database: Arc::clone(&database),
            changes: Arc::clone(&changes),
            notifier: Arc::clone(&notifier),
            position,
        };
        let inner = Inner {
            handle,
            identity,
            database,
            time,
            changes,
            notifier,
            listener: tokio::spawn(listener.run()),
            committer,
            calls: AtomicI64::new(1),
            expiry_mark: ExpiryMark::default(),
            damages: Damages::default(),
            secrets,
            removal: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn handle(&self) -> Id16 {
        self.inner.handle
    }

    pub(crate) fn identity(&self) -> Id16 {
        self.inner.identity
    }

    pub(crate) fn database(&self) -> &Database {
        &self.inner.database
    }

    pub(crate) fn committer(&self) -> &Committer {
        &self.inner.committer
    }

    pub(crate) fn changes(&self) -> &Changes {
        &self.inner.changes
    }

    pub(crate) fn expiry_mark(&self) -> &ExpiryMark {
        &self.inner.expiry_mark
    }

    pub(crate) fn notifier(&self) -> &Notifier {
        &self.inner.notifier
    }

    pub(crate) fn damages(&self) -> &Damages {
        &self.inner.damages
    }

    pub(crate) fn removal(&self) -> &Mutex<Progress> {
        &self.inner.removal
    }

    pub(crate) fn secrets(&self) -> &Secrets {
        &self.inner.secrets
    }

    /// The time that statements are to go by, if it is not the server's: `p_now` of the functions.
    pub(crate) fn suite_time(&self) -> Option<i64> {
        self.inner.time.as_ref().map(|time| time.now().as_millis())
    }

    /// The number of a call that takes lanes or lets go of them: one that is given up may be run by the server
    /// later than those that follow it.
    pub(crate) fn next_call(&self) -> i64 {
        self.inner.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// Begins a transaction that changes what is an organization's own.
    pub(crate) async fn begin<'c>(
        &'c self,
        lease: &'c mut Lease,
        operation: &'static str,
    ) -> Result<Session<'c>, StorageError> {
        Session::begin(self, lease, operation).await
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

const ARRIVED: &str = "SELECT esl.demand_arrived_1()";

/// Random, so that no two handles are one.
fn new_handle() -> Result<Id16, StorageError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        StorageError::new(StorageErrorKind::Unavailable, OPEN).with_source(error)
    })?;
    Ok(Id16(bytes))
}

impl fmt::Debug for PostgresStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = self.inner.database.schema().name();
        f.debug_struct("PostgresStorage").field("schema", &schema).finish_non_exhaustive()
    }
}
