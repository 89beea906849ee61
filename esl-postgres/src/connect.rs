//! Connections: how they are made, lent and given up.

use std::{
    borrow::Cow,
    fmt,
    future::{Future, poll_fn},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolBuilder, PoolError, RecyclingMethod, Runtime,
};
use esl_core::storage::{StorageError, StorageErrorKind};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_postgres::{
    AsyncMessage, CancelToken, Client, Config, Connection, NoTls, Row,
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    config::{OPEN, Target},
    error::{is_for_want_of_connections, is_of_parameters, timed_out, translate, translate_pool},
    id::Id16,
    parameters::parameters,
    schema::{Schema, migrate},
    tls,
};

/// The values of a statement, each with its type; see [`parameters`].
pub(crate) type Parameters<'p> = &'p [(&'p (dyn ToSql + Sync), Type)];

/// Makes connections to one database.
#[derive(Clone)]
pub(crate) struct Connector {
    config: Config,
    tls: Option<MakeRustlsConnect>,
}

impl Connector {
    pub(crate) fn new(target: &Target) -> Result<Self, StorageError> {
        let tls = target.tls.is_used.then(|| tls::connector(&target.tls)).transpose()?;
        Ok(Self { config: target.config.clone(), tls })
    }

    /// A connection that is nobody else's.
    pub(crate) async fn connect(&self) -> Result<Line, tokio_postgres::Error> {
        match &self.tls {
            Some(tls) => {
                let (client, connection) = self.config.connect(tls.clone()).await?;
                Ok(Line::new(client, connection))
            }
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                Ok(Line::new(client, connection))
            }
        }
    }

    /// One that says what is notified, as channel and payload, and at last that it has ended. `heard` is
    /// called by whoever moves the connection's bytes, so it must not wait.
    pub(crate) async fn connect_listening(
        &self,
        heard: impl FnMut(Option<(&str, &str)>) + Send + 'static,
    ) -> Result<Line, tokio_postgres::Error> {
        match &self.tls {
            Some(tls) => {
                let (client, connection) = self.config.connect(tls.clone()).await?;
                Ok(Line::new(client, hear(connection, heard)))
            }
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                Ok(Line::new(client, hear(connection, heard)))
            }
        }
    }

    /// Has the server give up what it does on a connection, whose answer nobody waits for any more.
    pub(crate) async fn cancel(&self, token: &CancelToken) {
        let cancelled = async {
            match &self.tls {
                Some(tls) => token.cancel_query(tls.clone()).await,
                None => token.cancel_query(NoTls).await,
            }
        };
        // If the server cannot be reached, it will notice that the connection is gone.
        _ = timeout(CANCEL_TIMEOUT, cancelled).await;
    }

    fn pool(&self, size: usize) -> Result<Pool, StorageError> {
        let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match &self.tls {
            Some(tls) => Manager::from_config(self.config.clone(), tls.clone(), config),
            None => Manager::from_config(self.config.clone(), NoTls, config),
        };
        let pool: PoolBuilder = Pool::builder(manager)
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(POOL_TIMEOUT))
            .create_timeout(Some(CALL_TIMEOUT));
        pool.build().map_err(|error| {
            StorageError::new(StorageErrorKind::Unavailable, OPEN).with_source(error)
        })
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

/// Moves a connection's bytes, and says what comes unasked.
async fn hear<S, T>(
    mut connection: Connection<S, T>,
    mut heard: impl FnMut(Option<(&str, &str)>),
) -> Result<(), tokio_postgres::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let ended = loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(said))) => {
                heard(Some((said.channel(), said.payload())));
            }
            // What the server remarks.
            Some(Ok(_)) => {}
            Some(Err(error)) => break Err(error),
            None => break Ok(()),
        }
    };
    heard(None);
    ended
}

/// A connection, and the task that moves its bytes. Dropped, it is closed at once.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) client: Client,
    task: JoinHandle<()>,
}

impl Line {
    fn new(
        client: Client,
        connection: impl Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    ) -> Self {
        let task = tokio::spawn(async move {
            // Whoever waits for an answer is told of it, too.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the database was lost");
            }
        });
        Self { client, task }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One database, and the connections to it that calls share.
#[derive(Debug)]
pub(crate) struct Database {
    connector: Connector,
    pool: Pool,
    schema: Schema,
}

impl Database {
    fn new(target: &Target, schema: Schema, connections: usize) -> Result<Self, StorageError> {
        let connector = Connector::new(target)?;
        let pool = connector.pool(connections)?;
        Ok(Self { connector, pool, schema })
    }

    /// The database that a URL names, with a schema that this build knows.
    pub(crate) async fn open(
        url: &str,
        schema: &str,
        connections: usize,
        may_lose: bool,
    ) -> Result<Self, StorageError> {
        let database = Self::connect(Target::parse(url)?, schema, connections, may_lose).await?;
        let mut lease = database.lease(OPEN).await?;
        migrate(lease.client_mut(), database.schema()).await?;
        drop(lease);
        Ok(database)
    }

    /// Connects to a database that ESL's promises can be kept with.
    pub(crate) async fn connect(
        target: Target,
        schema: &str,
        connections: usize,
        may_lose: bool,
    ) -> Result<Self, StorageError> {
        let schema = Schema::new(schema)?;
        let database = Self::new(&target, schema.clone(), connections)?;
        match database.demand_fit(may_lose).await {
            Ok(()) => return Ok(database),
            Err(error) if is_of_parameters(&error) => {
                tracing::info!(
                    error = &error as &dyn std::error::Error,
                    "a pooler does not take what ESL asks of the server's planner: until the tables \
                     have been analysed, statements can take long"
                );
            }
            Err(error) => return Err(error),
        }
        let database = Self::new(&target.plain(), schema, connections)?;
        database.demand_fit(may_lose).await?;
        Ok(database)
    }

    pub(crate) const fn connector(&self) -> &Connector {
        &self.connector
    }

    pub(crate) const fn schema(&self) -> &Schema {
        &self.schema
    }

    /// A text of ours, for this database's schema.
    pub(crate) fn sql<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.schema.sql(text)
    }

    /// Lends a connection. Where no further one can be had, it is one that another call gives back.
    pub(crate) async fn lease(&self, operation: &'static str) -> Result<Lease, StorageError> {
        let begin = Instant::now();
        loop {
            match self.pool.get().await {
                Ok(client) => {
                    return Ok(Lease { client: Some(client), is_broken: Arc::default() });
                }
                Err(PoolError::Backend(error))
                    if is_for_want_of_connections(&error) && begin.elapsed() < POOL_TIMEOUT =>
                {
                    sleep(POOL_PAUSE).await;
                }
                Err(error) => return Err(translate_pool(operation, error)),
            }
        }
    }

    /// One statement, in a transaction of its own.
    pub(crate) async fn query(
        &self,
        operation: &'static str,
        text: &str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, StorageError> {
        let lease = self.lease(operation).await?;
        let client = lease.client();
        let text = self.sql(text);
        let rows = client.query_typed(&text, parameters);
        self.in_time(operation, &lease.watch(), rows).await
    }

    /// One that has at most one row.
    pub(crate) async fn query_opt(
        &self,
        operation: &'static str,
        text: &str,
        parameters: Parameters<'_>,
    ) -> Result<Option<Row>, StorageError> {
        Ok(self.query(operation, text, parameters).await?.into_iter().next())
    }

    /// One that has exactly one row.
    pub(crate) async fn query_one(
        &self,
        operation: &'static str,
        text: &str,
        parameters: Parameters<'_>,
    ) -> Result<Row, StorageError> {
        let row = self.query_opt(operation, text, parameters).await?;
        row.ok_or_else(|| {
            StorageError::new(StorageErrorKind::Corrupt, operation).with_source("a row is missing")
        })
    }

    /// One that writes, and says how many rows.
    pub(crate) async fn execute(
        &self,
        operation: &'static str,
        text: &str,
        parameters: Parameters<'_>,
    ) -> Result<u64, StorageError> {
        let lease = self.lease(operation).await?;
        let client = lease.client();
        let text = self.sql(text);
        let count = client.execute_typed(&text, parameters);
        self.in_time(operation, &lease.watch(), count).await
    }

    /// Waits for an answer, but not for ever. A connection whose answer did not come is not lent again.
    pub(crate) async fn in_time<T>(
        &self,
        operation: &'static str,
        watch: &Watch,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, StorageError> {
        match timeout(CALL_TIMEOUT, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                if error.code().is_some_and(|code| code.code() == READ_ONLY) {
                    // This server was the first, and is now another's copy: as are all that are connected.
                    self.pool.retain(|_, _| false);
                    watch.give_up();
                }
                Err(translate(operation, error))
            }
            Err(_elapsed) => {
                watch.give_up();
                self.connector.cancel(&watch.token).await;
                Err(timed_out(operation))
            }
        }
    }

    /// Refuses a server on which ESL's promises would be void.
    pub(crate) async fn demand_fit(&self, may_lose: bool) -> Result<(), StorageError> {
        let row = self.query_one(OPEN, STANDING, &[]).await?;
        let failed = |error| translate(OPEN, error);
        let unsupported = |why: String| {
            Err(StorageError::new(StorageErrorKind::Unsupported, OPEN).with_source(why))
        };
        let version: i32 = row.try_get(0).map_err(failed)?;
        if version < OLDEST_SERVER {
            return unsupported(format!(
                "PostgreSQL 13 or newer is needed; the server has version {}",
                version / 10_000
            ));
        }
        let encoding: String = row.try_get(1).map_err(failed)?;
        if encoding != "UTF8" {
            return unsupported(format!("the database must be in UTF8, not in {encoding}"));
        }
        if row.try_get(2).map_err(failed)? {
            let why = "the server is a copy of another one, and can only be read";
            return Err(StorageError::new(StorageErrorKind::Unavailable, OPEN).with_source(why));
        }
        for (column, setting) in [(3, "fsync"), (4, "full_page_writes")] {
            let value: String = row.try_get(column).map_err(failed)?;
            if value != "on" && !may_lose {
                return unsupported(format!(
                    "the server's setting `{setting}` is off: what it acknowledges can be lost"
                ));
            }
        }
        Ok(())
    }

    /// Writes the row by which this handle's groups are known again, and says the database's identity.
    pub(crate) async fn note_handle(
        &self,
        handle: Id16,
        now: Option<i64>,
    ) -> Result<Id16, StorageError> {
        let row = self.query_one(OPEN, NOTE_HANDLE, parameters![handle, now]).await?;
        row.try_get(0).map_err(|error| translate(OPEN, error))
    }

    /// Writes how large an event may be that is published by SQL.
    pub(crate) async fn note_payload_bytes_max(&self, bytes: usize) -> Result<(), StorageError> {
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        self.execute(OPEN, NOTE_PAYLOAD_BYTES_MAX, parameters![bytes]).await.map(drop)
    }
}

const STANDING: &str = "
SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),
    pg_is_in_recovery(), current_setting('fsync'), current_setting('full_page_writes')";

const NOTE_HANDLE: &str = "
INSERT INTO esl.handles (id, number, used_at) VALUES ($1, 0, esl.now_1($2))
RETURNING (SELECT s.identity FROM esl.settings s)";

const NOTE_PAYLOAD_BYTES_MAX: &str = "
UPDATE esl.settings SET payload_bytes_max = $1 WHERE payload_bytes_max <> $1";

/// A connection on loan.
#[derive(Debug)]
pub(crate) struct Lease {
    client: Option<Object>,
    is_broken: Arc<AtomicBool>,
}

/// Sees to it that a connection is not lent again.
#[derive(Clone)]
pub(crate) struct Watch {
    token: CancelToken,
    is_broken: Arc<AtomicBool>,
}

impl Lease {
    pub(crate) fn client(&self) -> &Client {
        self.client.as_ref().expect("it is there until it is dropped")
    }

    pub(crate) fn client_mut(&mut self) -> &mut Client {
        self.client.as_mut().expect("it is there until it is dropped")
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch { token: self.client().cancel_token(), is_broken: Arc::clone(&self.is_broken) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_broken.load(Ordering::Relaxed) {
            drop(self.client.take().map(Object::take));
        }
    }
}

impl Watch {
    fn give_up(&self) {
        self.is_broken.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("is_broken", &self.is_broken).finish_non_exhaustive()
    }
}

/// What a server says that can only be read.
const READ_ONLY: &str = "25006";

/// For `pg_snapshot`, `gen_random_uuid` and what inserts make of autovacuum.
const OLDEST_SERVER: i32 = 130_000;

/// Longer than any statement should take, and any lock is waited for.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a call waits for a connection.
const POOL_TIMEOUT: Duration = Duration::from_secs(5);
/// The pool tells nobody whom it has refused when a connection comes back.
const POOL_PAUSE: Duration = Duration::from_millis(10);

const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);
