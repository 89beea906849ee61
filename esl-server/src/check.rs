//! The command `check`: whether a start would succeed. It changes nothing but an older database's
//! tables.

use std::{io, sync::Arc};

use anyhow::{Context, bail};
use esl_core::SystemClock;
use esl_postgres::PostgresStorage;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use crate::{
    bootstrap::Bootstrapped,
    config::{Config, DatabaseUrl, Unknown},
    database::{self, Opened},
    open_files::Shares,
    output,
    prepare::{Found, blob_folder},
    secrets,
};

/// Looks at everything, prints what it found, and fails if something is wrong.
pub(crate) async fn run(config: &Config, as_json: bool) -> anyhow::Result<()> {
    let warnings: Vec<_> = config.unknown().iter().map(Unknown::to_string).collect();
    let shares = Shares::of_this_process();
    let Found { transport, blobs, database, client } =
        Found::look(config, &shares, Arc::new(SystemClock::new())).await;
    let listening = look_at_listening(config, &database).await;
    let mut findings = vec![
        ("listen", look_at_address(config).await),
        ("delivery", transport.map(|_| format!("{} at once", shares.sends))),
        ("blobs", blobs.map(|blobs| about_blobs(config, blobs.is_some()))),
        ("broker", Ok(about_broker(config))),
        ("database", about_database(config, database).await),
        ("client", client.map(|client| about_client(config, client).to_owned())),
    ];
    // The server starts without it.
    let would_start = findings.iter().all(|(_, finding)| finding.is_ok());
    findings.extend(listening.map(|listening| ("listening", listening)));
    if as_json {
        output::write(&as_json_text(config, &warnings, &findings))?;
    } else {
        output::write(&as_text(config, &warnings, &findings))?;
    }
    match findings.iter().all(|(_, finding)| finding.is_ok()) {
        true => Ok(()),
        false if would_start => bail!("the server would start, but not do all that it is to do"),
        false => bail!("the server would not start"),
    }
}

/// What was looked at, and how it is.
type Finding = (&'static str, anyhow::Result<String>);

fn as_text(config: &Config, warnings: &[String], findings: &[Finding]) -> String {
    let head = ["configuration  ok".to_owned()];
    let in_force = config.in_force().into_iter().map(|line| format!("  {line}"));
    let warnings = warnings.iter().map(|warning| format!("  warning: {warning}"));
    let findings = findings.iter().map(|(what, finding)| match finding {
        Ok(detail) => format!("{what:14} ok: {detail}"),
        Err(error) => format!("{what:14} WRONG: {error:#}"),
    });
    let lines = head.into_iter().chain(in_force).chain(warnings).chain(findings);
    lines.map(|line| line + "\n").collect()
}

fn as_json_text(config: &Config, warnings: &[String], findings: &[Finding]) -> String {
    let configuration = json!({ "ok": true, "in_force": config.in_force(), "warnings": warnings });
    let mut all = Map::from_iter([("configuration".to_owned(), configuration)]);
    for (what, finding) in findings {
        let (is_good, detail) = match finding {
            Ok(detail) => (true, detail.clone()),
            Err(error) => (false, format!("{error:#}")),
        };
        all.insert((*what).to_owned(), json!({ "ok": is_good, "detail": detail }));
    }
    format!("{}\n", Value::Object(all))
}

fn about_blobs(config: &Config, is_there: bool) -> String {
    match blob_folder(config) {
        Some(folder) if is_there => format!("the folder {}", database::absolute(&folder)),
        Some(folder) => {
            format!("the folder {} is not there yet, and is made", database::absolute(&folder))
        }
        None if is_there => {
            "set up; whether the store can be reached shows when it is used".to_owned()
        }
        None => "there is none (ESL_BLOB_STORAGE_URL): larger events are refused".to_owned(),
    }
}

fn about_broker(config: &Config) -> String {
    match &config.broker {
        Some(url) => format!("{url}; the server starts without it, too"),
        None => "none is asked for (ESL_BROKER_URL)".to_owned(),
    }
}

async fn about_database(
    config: &Config,
    database: anyhow::Result<Option<Opened>>,
) -> anyhow::Result<String> {
    let shown = database::shown(config);
    let Some(storage) = database? else {
        return Ok(format!("{shown} is not there yet, and is made"));
    };
    let organizations = storage.organizations().await?.len();
    let secrets = match &config.encryption_keys {
        Some(keyring) => {
            let (first, stale) = (keyring.first(), secrets::stale(&storage).await?);
            match stale {
                0 => format!("secrets are encrypted with the key {first}"),
                _ => format!("{} the key {first}; {REENCRYPT}", not_encrypted(stale)),
            }
        }
        None => "secrets are stored in plain text (ESL_ENCRYPTION_KEY)".to_owned(),
    };
    Ok(format!("{shown} opens; organizations: {organizations}; {secrets}"))
}

/// Whether what other nodes change comes by way of `ESL_DATABASE_LISTEN_URL`, if it is set.
async fn look_at_listening(
    config: &Config,
    database: &anyhow::Result<Option<Opened>>,
) -> Option<anyhow::Result<String>> {
    let listen = config.database_listen.as_ref()?;
    let (DatabaseUrl::Postgres(url), DatabaseUrl::Postgres(_)) = (listen, &config.database) else {
        return Some(Ok("ESL_DATABASE_LISTEN_URL is of no use to a file".to_owned()));
    };
    let storage = match database {
        Ok(Some(Opened::Postgres(storage))) => Some(storage),
        Ok(_) | Err(_) => None,
    };
    let options = PostgresStorage::options().schema(&config.database_schema).listen_on(url);
    Some(match options.try_listening(storage).await {
        Ok(()) => Ok(format!("by way of {listen}")),
        Err(error) => Err(anyhow::Error::new(error).context(format!(
            "{listen} (ESL_DATABASE_LISTEN_URL) cannot be used; a server starts without it, and asks the \
             database what other nodes change"
        ))),
    })
}

/// What is said of secrets that a key was given for and that are not encrypted with it.
pub(crate) fn not_encrypted(stale: u64) -> String {
    format!("{stale} secrets are in plain text or encrypted with another key than")
}

/// What does away with them.
pub(crate) const REENCRYPT: &str = "run `esl-server secrets reencrypt`";

fn about_client(config: &Config, client: Option<Bootstrapped>) -> &'static str {
    match client {
        Some(_) => "the client of ESL_BOOTSTRAP_CLIENT is there",
        None if config.bootstrap_client.is_some() => {
            "the client of ESL_BOOTSTRAP_CLIENT is not there yet, and is made"
        }
        None => "none is asked for (ESL_BOOTSTRAP_CLIENT)",
    }
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
