use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
};

use esl_core::{Actor, Clock, Organization, OrganizationId, SystemClock, storage::Tenancy};
use esl_postgres::PostgresStorage;
use esl_sqlite::SqliteStorage;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{in_time, lines::Lines, postgres::Postgres};

/// Where a server keeps its state: a folder, and, where `ESL_TEST_DATABASE_URL` names a server of Postgres, a
/// schema there; and a virtual host of the broker that `ESL_TEST_BROKER_URL` names.
#[derive(Debug)]
pub(crate) struct Folder {
    folder: TempDir,
    schema: String,
    number: usize,
}

/// What a command that ended has left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let schema = format!("esl_test_{}_{number}", std::process::id());
        Self { folder: tempfile::tempdir().expect("a folder"), schema, number }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path().join("esl.db")
    }

    /// Whether one of the files, other than those of large payloads, has these bytes, or a row in Postgres.
    pub(crate) async fn holds(&self, bytes: &[u8]) -> bool {
        let has = |held: &[u8]| held.windows(bytes.len()).any(|window| window == bytes);
        let mut files = std::fs::read_dir(self.path()).expect("it is there").flatten();
        files.any(|file| has(&std::fs::read(file.path()).unwrap_or_default()))
            || self.rows().await.is_some_and(|rows| has(&rows))
    }

    /// What is in Postgres, where the state is there.
    pub(crate) async fn rows(&self) -> Option<Vec<u8>> {
        let url = postgres_url()?;
        Some(Postgres::connect(&url).await.rows(&self.schema).await)
    }

    /// Makes an organization as a program does that embeds ESL, which may call it what it likes; gives its id.
    pub(crate) async fn embed(&self, name: &str) -> String {
        let id = OrganizationId::from_bytes(fastrand::u128(..).to_be_bytes());
        let organization = Organization::new(id, name, SystemClock::new().utc());
        let actor = Actor::APPLICATION;
        let made = match postgres_url() {
            Some(url) => {
                let options = PostgresStorage::options().schema(&self.schema);
                let storage = options.open(&url).await.expect("it opens");
                storage.create_organization(organization, &actor).await
            }
            None => {
                let storage = SqliteStorage::open(self.database()).expect("it opens");
                storage.create_organization(organization, &actor).await
            }
        };
        made.expect("no other is called so");
        id.to_string()
    }

    /// Starts a server, and waits until it listens.
    pub(crate) async fn start(&self, variables: &[(&str, &str)]) -> Server {
        self.start_by(&[], variables).await
    }

    /// Starts a server by another program, which becomes the server.
    pub(crate) async fn start_by(&self, program: &[&str], variables: &[(&str, &str)]) -> Server {
        let mut child = self.spawn(program, variables);
        let stdout = Lines::of(child.stdout.take().expect("it is piped"));
        let stderr = Lines::of(child.stderr.take().expect("it is piped"));
        let base = stderr.find("listening", |line| {
            let event: Value = serde_json::from_str(line).ok()?;
            (event["message"] == "listening").then(|| format!("http://{}", text(&event["address"])))
        });
        let base = base.await;
        Server { child, stdout, stderr, base }
    }

    /// Starts a server by another program, and waits for nothing.
    pub(crate) fn spawn(&self, program: &[&str], variables: &[(&str, &str)]) -> Child {
        self.command_by(program, &["serve"], variables).spawn().expect("the binary starts")
    }

    /// Starts a command that goes on until it is told to stop.
    pub(crate) fn begin(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Running {
        self.begin_by(&[], arguments, variables)
    }

    /// Starts such a command by another program, which becomes it.
    pub(crate) fn begin_by(
        &self,
        program: &[&str],
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Running {
        let mut child = self.command_by(program, arguments, variables).spawn().expect("it starts");
        let stdout = Lines::of(child.stdout.take().expect("it is piped"));
        let stderr = Lines::of(child.stderr.take().expect("it is piped"));
        Running { child, stdout, stderr }
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
        self.run_by(&[], arguments, variables).await
    }

    /// Runs a command by another program, which becomes it, to its end.
    pub(crate) async fn run_by(
        &self,
        program: &[&str],
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Ended {
        let mut command = self.command_by(program, arguments, variables);
        let output = in_time("the end of a command", command.output());
        let output = output.await.expect("the binary starts");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Ended {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Runs a command that must succeed, and reads what it says in JSON.
    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        let ended = self.run(&[arguments, &["--json"]].concat(), &[]).await;
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        serde_json::from_str(&ended.stdout).expect("JSON")
    }

    /// The variables of the set-up that all cases are tried in.
    fn set_up(&self) -> Vec<(&'static str, String)> {
        let mut variables = Vec::new();
        if let Some(url) = postgres_url() {
            let blobs = format!("file://{}.blobs", self.database().display());
            variables.extend([
                ("ESL_DATABASE_URL", url),
                ("ESL_DATABASE_SCHEMA", self.schema.clone()),
                ("ESL_BLOB_STORAGE_URL", blobs),
            ]);
        }
        if let Ok(url) = std::env::var("ESL_TEST_BROKER_URL") {
            let host = format!("{url}/esl-test-{}", self.number % VIRTUAL_HOSTS);
            variables.extend([
                ("ESL_BROKER_URL", host),
                ("ESL_BROKER_EVENTS", "true".to_owned()),
                ("ESL_BROKER_INGEST", "true".to_owned()),
            ]);
        }
        variables
    }

    fn command_by(
        &self,
        program: &[&str],
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Command {
        let words = [program, &[env!("CARGO_BIN_EXE_esl-server")], arguments].concat();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .current_dir(self.path())
            .env_clear()
            .env("ESL_LISTEN", "127.0.0.1:0")
            .env("ESL_LOG_FORMAT", "json")
            .envs(self.set_up())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

/// The server of Postgres, in the set-ups that have one.
pub(crate) fn postgres_url() -> Option<String> {
    std::env::var("ESL_TEST_DATABASE_URL").ok()
}

/// Of a broker: as many as cases run at the same time at most. Those that come later find nothing in them, since
/// no case leaves a message.
const VIRTUAL_HOSTS: usize = 16;

/// A command that runs. It is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
}

impl Running {
    /// Ends it as Ctrl-C does.
    pub(crate) async fn interrupt(self) -> Ended {
        self.end_by("INT").await
    }

    /// Ends it by a signal.
    pub(crate) async fn end_by(self, signal: &str) -> Ended {
        send(signal, &self.child).await;
        self.end().await
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn end(mut self) -> Ended {
        let status = in_time("the end of a command", self.child.wait()).await.expect("it ran");
        let (stdout, stderr) = (self.stdout.all().await, self.stderr.all().await);
        Ended { code: status.code(), stdout, stderr }
    }
}

async fn send(signal: &str, child: &Child) {
    let id = child.id().expect("it runs").to_string();
    let kill = Command::new("kill").args(["-s", signal, &id]).status();
    assert!(kill.await.expect("`kill` is there").success());
}

/// A server that runs. It is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
    /// `http://` and its address.
    pub(crate) base: String,
}

impl Server {
    /// The URL of a route.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Waits until it logs a message.
    pub(crate) async fn logs(&self, message: &str) -> Value {
        let find = |line: &str| {
            let event: Value = serde_json::from_str(line).ok()?;
            text(&event["message"]).contains(message).then_some(event)
        };
        self.stderr.find(message, find).await
    }

    /// Waits until a line of its log has these words, in whatever field.
    pub(crate) async fn logs_anywhere(&self, words: &str) -> String {
        self.stderr.find(words, |line| line.contains(words).then(|| line.to_owned())).await
    }

    /// Takes nothing more of what it logs: to write is a failure for it from now on.
    pub(crate) fn close_log(&mut self) {
        self.stderr = Lines::of(tokio::io::empty());
    }

    /// The id of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Ends it at once, as a power cut would.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("it runs");
    }

    /// Sends it a signal, by name.
    pub(crate) async fn signal(&self, name: &str) {
        send(name, &self.child).await;
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> Ended {
        let status = in_time("the end of the server", self.child.wait()).await.expect("it ran");
        let (stdout, stderr) = (self.stdout.all().await, self.stderr.all().await);
        Ended { code: status.code(), stdout, stderr }
    }

    /// Stops it in order.
    pub(crate) async fn stop(self) -> Ended {
        self.signal("TERM").await;
        let ended = self.ended().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
