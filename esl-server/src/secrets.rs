//! The command `secrets`. It writes beside a running server, or without one.

use std::{error::Error, sync::Arc};

use anyhow::{anyhow, bail};
use esl_core::{
    KeyId, Keyring, SystemClock,
    storage::{Reencrypted, SecretForm, StorageError, StorageErrorKind},
};
use serde_json::json;

use crate::{
    cli::SecretsCommand,
    config::Config,
    database::{self, Opened},
    output::print,
};

pub(crate) async fn run(config: &Config, command: SecretsCommand) -> anyhow::Result<()> {
    let SecretsCommand::Reencrypt { plain, json } = command;
    let Some(keyring) = &config.encryption_keys else {
        bail!(
            "ESL_ENCRYPTION_KEY is not set: there is no key to encrypt with, or to read what is \
             encrypted; `openssl rand -base64 32` makes one"
        );
    };
    let storage = database::open_existing(config, Arc::new(SystemClock::new())).await?;
    let form = if plain { SecretForm::Plain } else { SecretForm::Encrypted };
    let done = match &storage {
        Opened::Sqlite(storage) => storage.reencrypt(form).await,
        Opened::Postgres(storage) => storage.reencrypt(form).await,
    };
    let done = done.map_err(|error| not_done(config, error))?;
    let unused = keyring.ids().filter(|id| !done.keys_in_use.contains(id));
    // The first one is about to be used, whether anything is there yet or not.
    let unused: Vec<_> = unused.filter(|id| plain || *id != keyring.first()).collect();
    let said = json!({
        "subscriptions": done.subscriptions,
        "link_keys": done.link_keys,
        "damaged": done.damaged,
        "keys_in_use": texts(&done.keys_in_use),
        "keys_unused": texts(&unused),
    });
    print(json, &said, || text(&done, keyring, &unused, plain))?;
    warn(&done, &storage, plain);
    Ok(())
}

/// How many secrets are not encrypted with the first key.
pub(crate) async fn stale(storage: &Opened) -> anyhow::Result<u64> {
    Ok(match storage {
        Opened::Sqlite(storage) => storage.secrets_to_reencrypt().await?,
        Opened::Postgres(storage) => storage.secrets_to_reencrypt().await?,
    })
}

fn not_done(config: &Config, error: StorageError) -> anyhow::Error {
    match (error.kind(), error.source()) {
        (StorageErrorKind::KeyMissing, Some(cause)) => anyhow!(
            "every server on {} has to be able to read what is written: {cause}; restart it with this \
             ESL_ENCRYPTION_KEY, and give the command again",
            config.database
        ),
        _ => anyhow::Error::new(error).context("the secrets were not all rewritten"),
    }
}

fn text(done: &Reencrypted, keyring: &Keyring, unused: &[KeyId], plain: bool) -> String {
    let mut text = format!(
        "rewritten      {} subscriptions, {} keys of links\n",
        done.subscriptions, done.link_keys
    );
    if done.damaged > 0 {
        text.push_str(&format!("left           {} damaged secrets\n", done.damaged));
    }
    for (place, id) in (1..).zip(keyring.ids()) {
        let use_of_it = match unused.contains(&id) {
            true if plain => "used by nothing any more; unset ESL_ENCRYPTION_KEY",
            true => "used by nothing any more; take it out of ESL_ENCRYPTION_KEY",
            false => "in use",
        };
        text.push_str(&format!("key {place:<10} {id}: {use_of_it}\n"));
    }
    text
}

/// On the standard error, beside an answer in JSON, too.
fn warn(done: &Reencrypted, storage: &Opened, plain: bool) {
    let then = if plain { "without ESL_ENCRYPTION_KEY" } else { "with this ESL_ENCRYPTION_KEY" };
    for id in &done.engine_keys {
        tracing::warn!(
            "a running server encrypts with the key {id}, and needs it: restart it {then}, and give the \
             command again, before you give up that key"
        );
    }
    match storage {
        _ if done.is_clean => {}
        Opened::Sqlite(_) => tracing::warn!(
            "somebody reads the database for long, a backup perhaps: what stood there before is still \
             in the write-ahead log until that is over, and a running server has emptied it or this \
             command was given once more"
        ),
        Opened::Postgres(_) => tracing::warn!(
            "the tables `subscriptions` and `link_keys` could not be vacuumed, which their owner may: what \
             stood there before is still in them until the server does it by itself"
        ),
    }
}

fn texts(ids: &[KeyId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

/// Why a database is not opened whose secrets are encrypted with another key.
pub(crate) fn key_missing(config: &Config, error: &StorageError) -> anyhow::Error {
    key_missing_of(config, &config.database.to_string(), error)
}

/// As [`key_missing`], of a database that is not the server's.
pub(crate) fn key_missing_of(config: &Config, shown: &str, error: &StorageError) -> anyhow::Error {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    let problem = match config.encryption_keys {
        None => "and ESL_ENCRYPTION_KEY is not set",
        Some(_) => "and ESL_ENCRYPTION_KEY does not have it",
    };
    anyhow!("the secrets in the database {shown} are encrypted with a key, {problem}: {cause}")
}
