//! A file and where it goes.

use std::process::Stdio;

use esl_postgres::PostgresStorage;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio_postgres::NoTls;

use crate::{
    cluster,
    support::{Ended, Folder, Server, WITHOUT_LIMIT, in_time},
};

/// A folder with a file of SQLite's, and a schema.
pub(crate) struct Moving {
    pub(crate) folder: Folder,
    pub(crate) schema: String,
}

/// Part of every URL here: whoever shows it shows a password.
pub(crate) const PASSWORD: &str = "hunter2";

impl Moving {
    pub(crate) fn new() -> Self {
        Self { folder: Folder::new(), schema: cluster::new_schema() }
    }

    /// Another schema for the same file.
    pub(crate) fn elsewhere(self) -> Self {
        Self { schema: cluster::new_schema(), ..self }
    }

    /// The variables of a server on the schema.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let fixed = WITHOUT_LIMIT.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let own = [("ESL_DATABASE_URL", url()), ("ESL_DATABASE_SCHEMA", self.schema.clone())];
        fixed.into_iter().chain(own.map(|(name, value)| (name.to_owned(), value))).collect()
    }

    pub(crate) async fn start(&self) -> Server {
        let variables = self.variables();
        let variables: Vec<_> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
        self.folder.start(&variables).await
    }

    /// Runs a command on the schema.
    pub(crate) async fn run(&self, arguments: &[&str], more: &[(&str, &str)]) -> Ended {
        let variables = self.variables();
        let own = variables.iter().map(|(name, value)| (&**name, &**value));
        let variables: Vec<_> = own.chain(more.iter().copied()).collect();
        let ended = self.folder.run(arguments, &variables).await;
        assert!(!format!("{ended:?}").contains(PASSWORD), "{ended:?}");
        ended
    }

    pub(crate) async fn migrate(&self) -> Ended {
        self.run(&MIGRATE, &[]).await
    }

    /// Moves all, and gives what is said of it in JSON.
    pub(crate) async fn migrated(&self) -> Value {
        let ended = self.run(&[&MIGRATE[..], &["--json"]].concat(), &[]).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        serde_json::from_str(&ended.stdout).expect("JSON")
    }

    /// Begins to move, or goes on, and kills that in the middle of writing a batch into a table that has so many
    /// rows then. Nothing of the batch is there afterwards.
    pub(crate) async fn migrate_and_kill_in(&self, table: &str, rows: i64) {
        let options = PostgresStorage::options().schema(&self.schema);
        drop(options.import(&url()).await.expect("the server runs"));
        let (client, connection) =
            tokio_postgres::connect(&url(), NoTls).await.expect("a connection");
        let connection = tokio::spawn(async move { _ = connection.await });
        let (schema, key) = (&self.schema, std::process::id());
        let stop = format!(
            "SELECT pg_advisory_lock_shared({key});
             CREATE FUNCTION {schema}.stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF (SELECT count(*) FROM {schema}.{table}) >= {rows} THEN
                     PERFORM pg_advisory_xact_lock({key});
                 END IF;
                 RETURN NULL;
             END $$;
             CREATE TRIGGER stop BEFORE INSERT ON {schema}.{table} EXECUTE FUNCTION {schema}.stop()"
        );
        client.batch_execute(&stop).await.expect("it can be stopped");
        let mut child = self.spawn();
        let waiting = "SELECT coalesce(array_agg(l.pid), '{}') FROM pg_locks l
                       JOIN pg_locks t ON t.pid = l.pid AND t.relation = to_regclass($1)
                       WHERE l.locktype = 'advisory' AND NOT l.granted";
        let relation = format!("{schema}.{table}");
        let pids = in_time("the batch", async {
            loop {
                let row = client.query_one(waiting, &[&relation]).await.expect("a row");
                let pids: Vec<i32> = row.get(0);
                if !pids.is_empty() {
                    return pids;
                }
                assert!(child.try_wait().expect("it was started").is_none(), "it has ended");
            }
        })
        .await;
        child.kill().await.expect("it runs");
        // The server would notice only when it has the lock.
        let end = "SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS t (pid)";
        client.query(end, &[&pids]).await.expect("it may");
        let go_on = format!(
            "DROP TRIGGER stop ON {schema}.{table};
             DROP FUNCTION {schema}.stop();
             SELECT pg_advisory_unlock_shared({key})"
        );
        client.batch_execute(&go_on).await.expect("it can go on");
        let left = format!("SELECT count(*) FROM {schema}.{table}");
        let left: i64 = client.query_one(&left, &[]).await.expect("a row").get(0);
        assert_eq!(left, rows, "{table}");
        connection.abort();
    }

    fn spawn(&self) -> Child {
        Command::new(env!("CARGO_BIN_EXE_esl-server"))
            .args(MIGRATE)
            .current_dir(self.folder.path())
            .env_clear()
            .envs(self.variables())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts")
    }
}

pub(crate) const MIGRATE: [&str; 3] = ["migrate-storage", "--from", "sqlite://esl.db"];

/// The server of PostgreSQL, with a password that it does not ask for.
pub(crate) fn url() -> String {
    let url = cluster::url();
    match url.split_once("postgres@") {
        Some((before, after)) => format!("{before}postgres:{PASSWORD}@{after}"),
        None => url.to_owned(),
    }
}
