//! The command `check`: whether a start would succeed. It changes nothing but an older database's
//! tables.

use std::{io, path::Path, sync::Arc};

use anyhow::{Context, bail};
use esl_core::{
    SystemClock,
    storage::{Records, Tenancy},
};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use crate::{
    config::{Config, Unknown},
    database,
};

/// Looks at everything, prints what it found, and fails if something is wrong.
pub(crate) async fn run(config: &Config, as_json: bool) -> anyhow::Result<()> {
    let warnings: Vec<_> = config.unknown().iter().map(Unknown::to_string).collect();
    let findings =
        [("database", look_at_database(config).await), ("listen", look_at_address(config).await)];
    if as_json {
        print_json(config, &warnings, &findings);
    } else {
        print_text(config, &warnings, &findings);
    }
    match findings.iter().all(|(_, finding)| finding.is_ok()) {
        true => Ok(()),
        false => bail!("the server would not start"),
    }
}

/// What was looked at, and how it is.
type Finding = (&'static str, anyhow::Result<String>);

fn print_text(config: &Config, warnings: &[String], findings: &[Finding]) {
    println!("configuration  ok");
    config.in_force().iter().for_each(|line| println!("  {line}"));
    warnings.iter().for_each(|warning| println!("  warning: {warning}"));
    for (what, finding) in findings {
        match finding {
            Ok(detail) => println!("{what:14} ok: {detail}"),
            Err(error) => println!("{what:14} WRONG: {error:#}"),
        }
    }
}

fn print_json(config: &Config, warnings: &[String], findings: &[Finding]) {
    let configuration = json!({ "ok": true, "in_force": config.in_force(), "warnings": warnings });
    let mut all = Map::from_iter([("configuration".to_owned(), configuration)]);
    for (what, finding) in findings {
        let (is_good, detail) = match finding {
            Ok(detail) => (true, detail.clone()),
            Err(error) => (false, format!("{error:#}")),
        };
        all.insert((*what).to_owned(), json!({ "ok": is_good, "detail": detail }));
    }
    println!("{}", Value::Object(all));
}

async fn look_at_database(config: &Config) -> anyhow::Result<String> {
    let path = &config.database;
    if !path.exists() {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        if !folder.is_dir() {
            bail!("the folder {} does not exist", database::absolute(folder));
        }
        return Ok(format!("{} is not there yet, and is made", database::absolute(path)));
    }
    let storage = database::open(config, Arc::new(SystemClock::new()))?;
    storage.check().await.context("it cannot be read and written")?;
    let organizations = storage.organizations().await?.len();
    Ok(format!("{} opens; organizations: {organizations}", database::absolute(path)))
}

async fn look_at_address(config: &Config) -> anyhow::Result<String> {
    let address = config.listen;
    match TcpListener::bind(address).await {
        Ok(_) => Ok(format!("{address} is free")),
        // A running server may be looked at, too.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(format!(
            "{address} is in use, by the server if it is running, or by another program"
        )),
        Err(error) => {
            Err(error).with_context(|| format!("{address} (ESL_LISTEN) cannot be listened on"))
        }
    }
}
