//! The command `client`. It writes beside a running server, which sees it at once.

use std::sync::Arc;

use anyhow::{Context, bail};
use esl_core::{
    Actor, Scopes, SystemClock,
    storage::{StorageErrorKind, Tenancy},
};
use serde_json::json;

use crate::{
    cli::ClientCommand,
    config::{CLIENT_ID_EXPECTED, Config, is_client_id},
    credentials, database, organizations,
    output::{kind, print},
};

/// `esl-server client …`
pub(crate) async fn run(config: &Config, command: ClientCommand) -> anyhow::Result<()> {
    let clock = Arc::new(SystemClock::new());
    let storage = database::open_existing(config, clock.clone())?;
    match command {
        ClientCommand::Create { organization, scope, id, json } => {
            let scopes = match scope {
                None => Scopes::all(),
                Some(text) => read_scopes(&text)?,
            };
            if id.as_deref().is_some_and(|id| !is_client_id(id)) {
                bail!("expected as --id {CLIENT_ID_EXPECTED}");
            }
            let organization = organizations::find(&storage, &organization.organization).await?;
            let (client, secret) = credentials::client(id, organization, scopes, &*clock);
            let created = storage.create_client(client.clone(), &Actor::Operator).await;
            if kind(&created) == Some(StorageErrorKind::Conflict) {
                bail!("there is a client {} already", client.id);
            }
            created?;
            let made = json!({
                "client_id": client.id,
                "client_secret": secret,
                "organization_id": organization,
                "scope": scopes.to_string(),
            });
            print(json, &made, || {
                format!(
                    "client_id      {}\nclient_secret  {secret}\nscope          {scopes}\n",
                    client.id
                )
            });
            eprintln!("The secret is not shown again.");
        }
        ClientCommand::List { organization, json } => {
            let organization = organizations::find(&storage, &organization.organization).await?;
            let clients = storage.clients(organization).await?;
            let all = clients.iter().map(|client| {
                json!({
                    "client_id": client.id,
                    "organization_id": client.organization,
                    "scope": client.scopes.to_string(),
                    "created_at": client.created_at,
                })
            });
            print(json, &all.collect(), || {
                clients.iter().map(|client| format!("{}  {}\n", client.id, client.scopes)).collect()
            });
        }
        ClientCommand::Delete { organization, client } => {
            let organization = organizations::find(&storage, &organization.organization).await?;
            let deleted = storage.delete_client(organization, &client, &Actor::Operator).await;
            if kind(&deleted) == Some(StorageErrorKind::NotFound) {
                bail!("that organization has no client {client}");
            }
            deleted?;
        }
    }
    Ok(())
}

fn read_scopes(text: &str) -> anyhow::Result<Scopes> {
    let scopes: Scopes =
        text.parse().with_context(|| format!("expected as --scope some of: {}", Scopes::all()))?;
    if scopes.is_empty() {
        bail!("a client without a scope can do nothing; there are: {}", Scopes::all());
    }
    Ok(scopes)
}
