//! What can be chosen when a database is opened, and what its URL says.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use esl_core::{
    Clock, Keyring,
    storage::{StorageError, StorageErrorKind},
};
use percent_encoding::percent_decode_str;
use tokio_postgres::{
    Config,
    config::{Host, SslMode, TargetSessionAttrs},
};

use crate::{
    Import, PostgresStorage,
    connect::Database,
    schema::{self, Schema},
    secrets::Secrets,
};

/// How to open a database; made by [`PostgresStorage::options`].
///
/// ```no_run
/// use esl_postgres::PostgresStorage;
///
/// # async fn open() -> Result<(), Box<dyn std::error::Error>> {
/// let options = PostgresStorage::options().schema("esl_shop").connections(4);
/// let storage = options.open("postgres://esl:secret@db.internal/app").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "options do nothing until `open` is called"]
pub struct PostgresOptions {
    pub(crate) schema: String,
    pub(crate) connections: usize,
    pub(crate) listen_url: Option<Url>,
    pub(crate) secrets: Secrets,
    pub(crate) payload_bytes_max: Option<usize>,
    pub(crate) clock: Option<Arc<dyn Clock>>,
    pub(crate) may_lose: bool,
}

impl PostgresOptions {
    pub(crate) fn new() -> Self {
        Self {
            schema: Schema::DEFAULT.to_owned(),
            connections: CONNECTIONS,
            listen_url: None,
            secrets: Secrets::default(),
            payload_bytes_max: None,
            clock: None,
            may_lose: false,
        }
    }

    /// The schema that ESL's tables and functions are in; made if it is not there. Lower-case letters,
    /// digits and underscores. Defaults to `esl`.
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = name.into();
        self
    }

    /// How many connections are made at most for all calls but the commits of events, which have one of
    /// their own. They are made when they are needed. Defaults to 8: more of them wait for the same disk.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// Listens for what other engines change by way of another URL: one that goes past a pooler in transaction
    /// mode, which keeps notifications for itself. Without it everything works through such a pooler, too,
    /// but what others change is looked for four times a second.
    pub fn listen_on(mut self, url: impl Into<String>) -> Self {
        self.listen_url = Some(Url(url.into()));
        self
    }

    /// The largest envelope, in bytes, that is published by SQL (`esl.publish`), where nothing can be put into
    /// a blob store. It should be that of the engine, and is kept in the database: 256 KiB until somebody says
    /// otherwise.
    pub fn payload_bytes_max(mut self, bytes: usize) -> Self {
        self.payload_bytes_max = Some(bytes);
        self
    }

    /// Encrypts the secrets of subscriptions, the values of their own headers and the keys of links where
    /// they are stored, with the first key, and reads what is encrypted with any of them. What is there in
    /// plain text is read as it is, until [`reencrypt`](PostgresStorage::reencrypt) rewrites it.
    ///
    /// From the first such secret on, every handle on the database needs the key. While an engine runs without
    /// it, nothing is encrypted with it: [`KeyMissing`](esl_core::storage::StorageErrorKind::KeyMissing).
    /// Defaults to none: secrets are in plain text.
    pub fn keyring(mut self, keyring: Keyring) -> Self {
        self.secrets = Secrets { keyring: Some(keyring) };
        self
    }

    /// Goes by this clock instead of the server's. Several engines would each have a time of their own, so
    /// this is for tests alone, whose engines share one clock.
    #[doc(hidden)]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Opens a database whose server does not bring to the disk what it acknowledges. For tests alone.
    #[doc(hidden)]
    pub fn may_lose_everything(mut self) -> Self {
        self.may_lose = true;
        self
    }

    /// Whether a URL can be one, without a look at the server.
    ///
    /// # Errors
    /// [`Unsupported`](StorageErrorKind::Unsupported), with what was expected and nothing of the URL as its
    /// source.
    pub fn check_url(url: &str) -> Result<(), StorageError> {
        Target::parse(url).map(drop)
    }

    /// Whether a [schema](Self::schema) can have this name.
    #[must_use]
    pub fn is_schema(name: &str) -> bool {
        Schema::new(name).is_ok()
    }

    /// Whether ESL's schema is in the database that the URL names. Makes nothing.
    ///
    /// # Errors
    /// See [`PostgresStorage::open`]; [`Unavailable`](StorageErrorKind::Unavailable) also if it is not there and
    /// the user may not make it.
    pub async fn is_there(&self, url: &str) -> Result<bool, StorageError> {
        let target = Target::parse(url)?;
        let database = Database::connect(target, &self.schema, 1, self.may_lose).await?;
        let mut lease = database.lease(OPEN).await?;
        let (client, schema) = (lease.client_mut(), database.schema());
        if schema::is_there(client, schema).await? {
            return Ok(true);
        }
        schema::demand_makeable(client, schema).await?;
        Ok(false)
    }

    /// Opens the database that the URL names, to move another storage's rows into it, and makes ESL's schema
    /// in it if there is none.
    ///
    /// # Errors
    /// See [`PostgresStorage::open`].
    pub async fn import(self, url: &str) -> Result<Import, StorageError> {
        Import::open(url, &self).await
    }

    /// Opens the database that the URL names, and makes ESL's schema in it if there is none.
    ///
    /// # Errors
    /// See [`PostgresStorage::open`].
    pub async fn open(self, url: &str) -> Result<PostgresStorage, StorageError> {
        PostgresStorage::open_with(url, self).await
    }
}

/// A URL, which may have a password in it.
#[derive(Clone)]
pub(crate) struct Url(pub(crate) String);

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Url(…)")
    }
}

/// What a URL says.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) config: Config,
    plain: Config,
    pub(crate) tls: TlsOptions,
}

/// Whether the connection is encrypted, and whom it is made with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsOptions {
    /// Never over a socket, which does not leave the machine.
    pub(crate) is_used: bool,
    pub(crate) root_certificates: Option<PathBuf>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

impl Target {
    /// Reads a URL, `postgres://user:password@host:port/database?sslmode=…`. What may be in it beside the
    /// options of TLS is tokio-postgres' to say; several hosts for instance.
    pub(crate) fn parse(url: &str) -> Result<Self, StorageError> {
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(wrong_url(EXPECTED));
        }
        let (url, options) = Options::take_from(url)?;
        // Its own error may quote a part of the URL, and that the password.
        let mut config: Config = url.parse().map_err(|_| wrong_url(EXPECTED))?;
        let tls = options.apply(&mut config)?;
        if config.get_application_name().is_none() {
            config.application_name("esl");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        // A server that is gone without a word is noticed within seconds, and its place taken.
        config
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(10));
        if config.get_hosts().len() > 1
            && config.get_target_session_attrs() == TargetSessionAttrs::Any
        {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        let plain = config.clone();
        // What the URL says comes last, and so has the last word.
        let plans = PLANS.map(|setting| format!("-c {setting}=off")).join(" ");
        let own = config.get_options().unwrap_or_default().to_owned();
        config.options(format!("{plans} {own}").trim_end());
        Ok(Self { config, plain, tls })
    }
}

impl Target {
    /// The same, without a word on how statements are planned: a pooler may refuse connections that say more
    /// than who they are.
    pub(crate) fn plain(self) -> Self {
        Self { config: self.plain.clone(), ..self }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("hosts", &self.config.get_hosts())
            .field("database", &self.config.get_dbname())
            .field("user", &self.config.get_user())
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// The options of a URL that are read here: tokio-postgres knows fewer modes, and no files.
#[derive(Debug, Default)]
struct Options {
    mode: Option<String>,
    root_certificates: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Options {
    /// Takes them out of a URL.
    fn take_from(url: &str) -> Result<(String, Self), StorageError> {
        let mut options = Self::default();
        // A password may hold anything but an `@`.
        let password = url.find('@').unwrap_or_default();
        let Some(query) = url[password..].find('?') else { return Ok((url.to_owned(), options)) };
        let (base, query) = (&url[..password + query], &url[password + query + 1..]);
        let mut others = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8();
            let value = value.map_err(|_| wrong_url(EXPECTED))?.into_owned();
            match name {
                "sslmode" => options.mode = Some(value),
                // What libpq calls the machine's own.
                "sslrootcert" if value == "system" => {}
                "sslrootcert" => options.root_certificates = Some(value.into()),
                "sslcert" => options.certificate = Some(value.into()),
                "sslkey" => options.key = Some(value.into()),
                _ => others.push(pair),
            }
        }
        let rest = if others.is_empty() {
            base.to_owned()
        } else {
            format!("{base}?{}", others.join("&"))
        };
        Ok((rest, options))
    }

    fn apply(self, config: &mut Config) -> Result<TlsOptions, StorageError> {
        let hosts = config.get_hosts();
        if hosts.is_empty() {
            return Err(wrong_url(EXPECTED));
        }
        let sockets = hosts.iter().filter(|host| !matches!(host, Host::Tcp(_))).count();
        if sockets > 0 && sockets < hosts.len() {
            return Err(wrong_url("the URL must name either sockets or hosts"));
        }
        let mode = match self.mode.as_deref() {
            None if hosts.iter().all(is_local) => SslMode::Prefer,
            None | Some("verify-full" | "require") => SslMode::Require,
            // Whoever is on the way there could say that the server has no TLS.
            Some("prefer") if hosts.iter().all(is_local) => SslMode::Prefer,
            Some("disable") => SslMode::Disable,
            Some(_) => {
                let expected = "sslmode must be `verify-full`, `require` or `disable`; `prefer` is for \
                                this machine alone, since elsewhere anybody in between could refuse TLS";
                return Err(wrong_url(expected));
            }
        };
        if self.certificate.is_some() != self.key.is_some() {
            return Err(wrong_url("sslcert and sslkey must be given together"));
        }
        let mode = if sockets > 0 { SslMode::Disable } else { mode };
        config.ssl_mode(mode);
        Ok(TlsOptions {
            is_used: mode != SslMode::Disable,
            root_certificates: self.root_certificates,
            certificate: self.certificate,
            key: self.key,
        })
    }
}

/// Whether nobody else is on the way there.
fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost"
                || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

fn wrong_url(expected: &'static str) -> StorageError {
    StorageError::new(StorageErrorKind::Unsupported, OPEN).with_source(expected)
}

const EXPECTED: &str =
    "expected a URL like postgres://user:password@host/database?sslmode=verify-full";

/// The operation that errors of opening name.
pub(crate) const OPEN: &str = "open the database";

const CONNECTIONS: usize = 8;

/// Ways to plan a statement that are turned off for our connections: what a statement wants is found by one
/// search after the other, in the order of an index. The server would think otherwise of tables that grew
/// since they were last analysed, or never were, and go through everything and sort it.
const PLANS: [&str; 5] =
    ["enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin", "jit"];

/// For each address of a host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    fn modes(url: &str) -> (SslMode, bool) {
        let target = Target::parse(url).unwrap();
        (target.config.get_ssl_mode(), target.tls.is_used)
    }

    #[test]
    fn what_leaves_the_machine_is_encrypted_unless_somebody_says_no() {
        for (url, expected) in [
            ("postgres://u@db.internal/app", (SslMode::Require, true)),
            ("postgresql://u@db.internal/app?sslmode=verify-full", (SslMode::Require, true)),
            ("postgres://u@db.internal/app?sslmode=require", (SslMode::Require, true)),
            ("postgres://u@localhost/app?sslmode=prefer", (SslMode::Prefer, true)),
            ("postgres://u@db.internal/app?sslmode=disable", (SslMode::Disable, false)),
            ("postgres://u@localhost/app", (SslMode::Prefer, true)),
            ("postgres://u@127.0.0.1:6543/app", (SslMode::Prefer, true)),
            ("postgres://u@127.0.0.1,db.internal/app", (SslMode::Require, true)),
            ("postgres://u@/app?host=/run/postgresql&sslmode=require", (SslMode::Disable, false)),
        ] {
            assert_eq!(modes(url), expected, "{url}");
        }
    }

    #[test]
    fn the_files_of_tls_are_read_from_the_url_and_the_rest_is_left() {
        let url = "postgres://u@db/app?connect_timeout=7&sslrootcert=%2Fetc%2Fa%20b.pem\
                   &sslcert=/c.pem&sslkey=/k.pem&application_name=shop";
        let target = Target::parse(url).unwrap();
        let tls = TlsOptions {
            is_used: true,
            root_certificates: Some("/etc/a b.pem".into()),
            certificate: Some("/c.pem".into()),
            key: Some("/k.pem".into()),
        };
        assert_eq!(target.tls, tls);
        assert_eq!(target.config.get_connect_timeout(), Some(&Duration::from_secs(7)));
        assert_eq!(target.config.get_application_name(), Some("shop"));
    }

    #[test]
    fn a_question_mark_in_a_password_begins_no_options() {
        let target = Target::parse("postgres://u:a?b@db/app?sslmode=disable").unwrap();
        assert_eq!(target.config.get_password(), Some(&b"a?b"[..]));
        assert!(!target.tls.is_used);
    }

    #[test]
    fn of_several_hosts_one_that_can_be_written_to_is_asked_for() {
        let attributes = |url| Target::parse(url).unwrap().config.get_target_session_attrs();
        assert_eq!(attributes("postgres://u@a,b/app"), TargetSessionAttrs::ReadWrite);
        assert_eq!(attributes("postgres://u@a/app"), TargetSessionAttrs::Any);
    }

    #[test]
    fn a_url_that_is_none_is_refused_without_the_password_in_it() {
        for wrong in [
            "",
            "hunter2",
            "mysql://u:hunter2@db/app",
            "postgres://u:hunter2@/app",
            "postgres://u:hunter2@db:port/app",
            "postgres://u:hunter2@db/app?sslmode=verify-ca",
            "postgres://u:hunter2@db/app?sslmode=hunter2",
            "postgres://u:hunter2@db/app?hunter2=1",
            "postgres://u:hunter2@db/app?sslcert=hunter2",
            "postgres://u:hunter2@db,%2Frun/app",
        ] {
            let error = Target::parse(wrong).unwrap_err();
            assert_eq!(error.kind(), StorageErrorKind::Unsupported, "{wrong}");
            let said = format!("{error} {error:?} {}", error.source().unwrap());
            assert!(!said.contains("hunter2") && !said.contains("ter2"), "{said}");
        }
    }

    #[test]
    fn debugging_shows_no_password() {
        let target = Target::parse("postgres://u:hunter2@db/app").unwrap();
        let shown = format!("{target:?}");
        assert!(shown.contains("app") && !shown.contains("hunter2"), "{shown}");
    }
}
