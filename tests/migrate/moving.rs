//! A file and where it goes.

use std::{env, process::Stdio};

use serde_json::Value;
use tokio::process::Command;
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

    /// Begins to move, and kills that once rows of a table are there.
    pub(crate) async fn migrate_and_kill_in(&self, table: &str) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_esl-server"))
            .args(MIGRATE)
            .current_dir(self.folder.path())
            .env_clear()
            .envs(self.variables())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        let (client, connection) =
            tokio_postgres::connect(&url(), NoTls).await.expect("a connection");
        let connection = tokio::spawn(async move { _ = connection.await });
        let is_there = format!("SELECT to_regclass('{}.transfer') IS NOT NULL", self.schema);
        let place = format!(
            "SELECT count(*) FROM {}.transfer WHERE last_table = $1 AND arrived_at IS NULL",
            self.schema
        );
        let wait = async {
            while !client.query_one(&is_there, &[]).await.expect("a row").get::<_, bool>(0) {}
            while client.query_one(&place, &[&table]).await.expect("a row").get::<_, i64>(0) == 0 {}
        };
        in_time("rows of that table", wait).await;
        child.kill().await.expect("it runs");
        let left = client.query_one(&place, &[&table]).await.expect("a row").get::<_, i64>(0);
        assert_eq!(left, 1, "it was killed in the middle of {table}");
        connection.abort();
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
