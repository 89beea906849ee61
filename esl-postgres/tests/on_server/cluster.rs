//! A server for the tests of one program, and a schema for each case.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_postgres::{NoTls, types::ToSql};

/// Where the tests' databases are.
///
/// That is `ESL_TEST_POSTGRES_URL`, whose user must be allowed to create schemas, and where those that are called
/// `esl_test_…` stay; or a server of our own, which the first test starts, and which ends with this process.
pub(crate) fn url() -> &'static str {
    &cluster().url
}

/// What a test needs of a server that is our own; `None` if it is not.
pub(crate) fn own() -> Option<&'static Own> {
    cluster().own.as_ref()
}

/// A name that no other case has, nor another run on the same server.
pub(crate) fn new_schema() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("esl_test_{}_{number}", std::process::id())
}

/// A connection that sees what ESL does from beside it.
pub(crate) struct Observer {
    pub(crate) client: tokio_postgres::Client,
    connection: JoinHandle<()>,
}

impl Observer {
    pub(crate) async fn connect() -> Self {
        Self::connect_to(url()).await
    }

    pub(crate) async fn connect_to(url: &str) -> Self {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
        let connection = tokio::spawn(async move { _ = connection.await });
        Self { client, connection }
    }

    /// What a statement says that says one number.
    pub(crate) async fn number(&self, statement: &str, values: &[&(dyn ToSql + Sync)]) -> i64 {
        self.client.query_one(statement, values).await.expect("a row").get(0)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// A database on a server of our own in which nobody else keeps anything from being vacuumed: its URL.
pub(crate) async fn new_database() -> String {
    let name = new_schema();
    let observer = Observer::connect().await;
    let create = format!("CREATE DATABASE {name}");
    observer.client.batch_execute(&create).await.expect("it can be made");
    url().replace("@/postgres?", &format!("@/{name}?"))
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::find)
}

struct Cluster {
    url: String,
    own: Option<Own>,
}

pub(crate) struct Own {
    /// On 127.0.0.1, with TLS.
    pub(crate) port: u16,
    /// Holds the server's socket.
    pub(crate) socket: PathBuf,
    /// Whoever trusts this trusts the server, under the name `localhost`.
    certificate: PathBuf,
    _folder: TempDir,
    /// The script, whose input ends with this process: no code of ours must run for the server to end.
    _script: Child,
}

impl Own {
    pub(crate) fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// What the server says. A line begins with the name of the connection's application and a `|`; those
    /// that go on with it begin with a tab.
    pub(crate) fn log(&self) -> PathBuf {
        self.socket.join("log")
    }
}

impl Cluster {
    fn find() -> Self {
        match env::var("ESL_TEST_POSTGRES_URL") {
            Ok(url) => Self { url, own: None },
            Err(_) => Self::start(),
        }
    }

    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
        let certified = certified.expect("a certificate can be made");
        let certificate = folder.path().join("server.crt");
        fs::write(&certificate, certified.cert.pem()).expect("the folder can be written");
        let port = crate::ports::free_port();
        let mut command = command();
        command
            .arg(include_str!("cluster.sh"))
            .env("ESL_TEST_PORT", port.to_string())
            .env("ESL_TEST_CERTIFICATE", certified.cert.pem())
            .env("ESL_TEST_KEY", certified.signing_key.serialize_pem())
            .env("ESL_TEST_POSTGRES_OPTIONS", crate::SERVER_OPTIONS)
            .stdout(Stdio::piped());
        let mut script = command.spawn().expect("the script that starts a server runs");
        let mut line = String::new();
        let output = script.stdout.take().expect("it was asked for");
        BufReader::new(output).read_line(&mut line).expect("the script says where the server is");
        let socket = line.trim_end();
        assert!(!socket.is_empty(), "no server of PostgreSQL could be started");
        let url = format!("postgres://postgres@/postgres?host={socket}&port={port}");
        let socket = PathBuf::from(socket);
        let own = Own { port, socket, certificate, _folder: folder, _script: script };
        Self { url, own: Some(own) }
    }
}

/// A shell that runs a script, which is to be given yet, and has it end with its input. It is not root, as
/// which servers refuse to run; and a group of its own, so that a signal to ours leaves it to end in order.
pub(crate) fn command() -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "sh", "-c"]);
        command
    } else {
        let mut command = Command::new("sh");
        command.arg("-c");
        command
    };
    command.current_dir("/").process_group(0).stdin(Stdio::piped());
    command
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("`id` runs");
    id.stdout == b"0\n"
}
