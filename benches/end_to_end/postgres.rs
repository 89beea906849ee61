//! A server of PostgreSQL: one that is started for this run, or the one that `ESL_BENCH_POSTGRES_URL` names.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use esl_postgres::PostgresStorage;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use crate::{cpu, ports::free_port};

/// Where the databases are.
#[derive(Debug)]
pub(crate) struct Postgres {
    url: String,
    schema: String,
    /// The first process of a server that is our own.
    process: Option<u32>,
    _script: Option<Script>,
}

impl Postgres {
    /// `None` where there is none, and none can be started.
    pub(crate) fn find(folder: &Path) -> anyhow::Result<Option<Self>> {
        let schema = format!("esl_bench_{}", std::process::id());
        if let Ok(url) = env::var("ESL_BENCH_POSTGRES_URL") {
            return Ok(Some(Self { url, schema, process: None, _script: None }));
        }
        let port = free_port();
        // Its user goes through our folder to its own.
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let (script, line) = Script::run(include_str!("postgres.sh"), folder, &[port])?;
        let Ok(process) = line.parse() else { return Ok(None) };
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        Ok(Some(Self { url, schema, process: Some(process), _script: Some(script) }))
    }

    /// A handle of its own for each node.
    pub(crate) async fn open(&self) -> anyhow::Result<PostgresStorage> {
        Ok(PostgresStorage::options().schema(&self.schema).open(&self.url).await?)
    }

    /// What the processors have done for a server that is our own.
    pub(crate) fn used(&self) -> Option<Duration> {
        self.process.and_then(cpu::used_by)
    }

    /// A connection that sees what ESL does from beside it.
    pub(crate) async fn observe(&self) -> anyhow::Result<Observer> {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls)
            .await
            .context("whoever watches the database connects without TLS")?;
        let connection = tokio::spawn(async move { _ = connection.await });
        Ok(Observer { client, schema: self.schema.clone(), connection })
    }
}

#[derive(Debug)]
pub(crate) struct Observer {
    client: Client,
    schema: String,
    connection: JoinHandle<()>,
}

/// What the server has written since it is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) bytes: i64,
    /// How often it has synced; `None` where it does not count.
    pub(crate) syncs: Option<i64>,
}

impl Observer {
    pub(crate) async fn written(&self) -> anyhow::Result<Written> {
        let bytes = self.number("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").await?;
        let syncs = self.number("SELECT wal_sync FROM pg_stat_wal").await.ok();
        Ok(Written { bytes, syncs })
    }

    /// Waits until all that was committed has gone out to the broker.
    pub(crate) async fn wait_until_out(&self) -> anyhow::Result<()> {
        let schema = &self.schema;
        let behind = format!(
            "SELECT count(*) FROM {schema}.organizations g
             LEFT JOIN {schema}.feed_cursors c ON c.organization = g.key
             WHERE g.last_seq > coalesce(c.seq, 0)"
        );
        while self.number(&behind).await? > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Leaves nothing behind on a server that is another's.
    pub(crate) async fn clear(&self) -> anyhow::Result<()> {
        let drop = format!("DROP SCHEMA {} CASCADE", self.schema);
        self.client.batch_execute(&drop).await?;
        Ok(())
    }

    async fn number(&self, statement: &str) -> anyhow::Result<i64> {
        Ok(self.client.query_one(statement, &[]).await?.try_get(0)?)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// A script that lasts until its input ends, which is when this is dropped, and with this process at the latest.
#[derive(Debug)]
pub(crate) struct Script(Child);

impl Script {
    /// Runs it, with a folder and ports for what it starts, and gives what it says when that is ready: nothing
    /// if it has ended.
    pub(crate) fn run(text: &str, folder: &Path, ports: &[u16]) -> anyhow::Result<(Self, String)> {
        let mut command = Command::new("sh");
        command.args(["-c", text, "sh"]).arg(std::path::absolute(folder)?);
        command.args(ports.iter().map(u16::to_string)).stdin(Stdio::piped()).stdout(Stdio::piped());
        // Its group is its own, so that a signal to ours leaves it to end in order.
        let mut script = Self(command.process_group(0).spawn()?);
        let output = script.0.stdout.take().context("its output was asked for")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        Ok((script, line.trim_end().to_owned()))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // Whatever it came to, it is over.
        let _ended = self.0.wait();
    }
}
