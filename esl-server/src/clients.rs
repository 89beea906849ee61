//! The command `client`. It writes beside a running server, which sees it at once.

use std::sync::Arc;

use anyhow::{Context, bail};
use esl_core::{
    Actor, Client, ClientSecret, Clock, Scopes, SystemClock,
    storage::{Page, StorageError, StorageErrorKind},
};
use serde_json::json;

use crate::{
    cli::ClientCommand,
    config::Config,
    database, organizations,
    output::{self, kind, print},
};

/// `esl-server client …`
pub(crate) async fn run(config: &Config, command: ClientCommand) -> anyhow::Result<()> {
    let clock = Arc::new(SystemClock::new());
    let storage = database::open_existing(config, clock.clone()).await?;
    match command {
        ClientCommand::Create { organization, scope, id, json } => {
            let scopes = match scope {
                None => Scopes::all(),
                Some(text) => read_scopes(&text)?,
            };
            if id.as_deref().is_some_and(|id| !Client::is_id(id)) {
                bail!("expected as --id {}", Client::ID_EXPECTED);
            }
            let organization = organizations::find(&*storage, &organization.organization).await?;
            let (client, secret) = Client::generate(id, organization, scopes, clock.utc());
            let created = storage.create_client(client.clone(), &Actor::Operator).await;
            if kind(&created) == Some(StorageErrorKind::Conflict) {
                bail!("there is a client {} already", client.id);
            }
            if kind(&created) == Some(StorageErrorKind::OverLimit) {
                bail!(
                    "that organization has {} clients already, and no more are possible; delete one",
                    Client::PER_ORGANIZATION_MAX
                );
            }
            created?;
            print_secret(&client, &secret, json)?;
        }
        ClientCommand::List { organization, json } => {
            let organization = organizations::find(&*storage, &organization.organization).await?;
            let whole = Page { after: None, limit: Client::PER_ORGANIZATION_MAX };
            let clients = storage.clients(organization, whole).await?.items;
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
            })?;
        }
        ClientCommand::Rotate { organization, client, json } => {
            let organization = organizations::find(&*storage, &organization.organization).await?;
            let secret = ClientSecret::generate();
            let rotated = storage
                .rotate_client(organization, &client, secret.digest(), &Actor::Operator)
                .await;
            let client = found(rotated, &client)?;
            print_secret(&client, &secret, json)?;
        }
        ClientCommand::Delete { organization, client } => {
            let organization = organizations::find(&*storage, &organization.organization).await?;
            found(storage.delete_client(organization, &client, &Actor::Operator).await, &client)?;
        }
    }
    Ok(())
}

/// What storage did with that client of an organization.
fn found<T>(result: Result<T, StorageError>, client: &str) -> anyhow::Result<T> {
    if kind(&result) == Some(StorageErrorKind::NotFound) {
        bail!("that organization has no client {client}");
    }
    Ok(result?)
}

fn print_secret(client: &Client, secret: &ClientSecret, as_json: bool) -> anyhow::Result<()> {
    let (id, secret, scopes) = (&client.id, secret.expose(), client.scopes);
    let value = json!({
        "client_id": id,
        "client_secret": secret,
        "organization_id": client.organization,
        "scope": scopes.to_string(),
    });
    print(as_json, &value, || {
        format!("client_id      {id}\nclient_secret  {secret}\nscope          {scopes}\n")
    })?;
    output::tell("The secret is not shown again.");
    Ok(())
}

fn read_scopes(text: &str) -> anyhow::Result<Scopes> {
    Scopes::some(text)
        .with_context(|| format!("expected as --scope some of: {}; not {text:?}", Scopes::all()))
}
