//! The commands `org` and `client`. They write beside a running server, which sees it at once.

use std::sync::Arc;

use anyhow::{Context, bail};
use esl_core::{
    Client, ClientSecret, Clock, Organization, OrganizationId, Scopes, SystemClock,
    storage::{Page, Removal, StorageError, StorageErrorKind, Tenancy},
};
use esl_sqlite::SqliteStorage;
use serde_json::{Value, json};

use crate::{
    cli::{ClientCommand, OrganizationCommand},
    config::Config,
    credentials, database,
};

/// `esl-server org …`
pub(crate) async fn organizations(
    config: &Config,
    command: OrganizationCommand,
) -> anyhow::Result<()> {
    let clock = Arc::new(SystemClock::new());
    match command {
        OrganizationCommand::Create { name, json } => {
            if !is_organization_name(&name) {
                bail!("expected a name of 1 to {NAME_CHARACTERS_MAX} characters on one line");
            }
            if name.parse::<OrganizationId>().is_ok() {
                bail!(
                    "{name} is an id, and would be taken for that organization; give another name"
                );
            }
            let storage = database::open(config, clock.clone())?;
            let organization = credentials::organization(&name, &*clock);
            let created = storage.create_organization(organization.clone()).await;
            if kind(&created) == Some(StorageErrorKind::Conflict) {
                bail!("there is an organization named {name} already");
            }
            created?;
            print(json, &organization_json(&organization), || format!("{}\n", organization.id));
        }
        OrganizationCommand::List { json } => {
            let storage = database::open_existing(config, clock)?;
            let organizations = storage.organizations().await?;
            let all = Value::Array(organizations.iter().map(organization_json).collect());
            print(json, &all, || {
                organizations.iter().map(|one| format!("{}  {}\n", one.id, one.name)).collect()
            });
        }
        OrganizationCommand::Delete { organization, yes } => {
            let storage = database::open_existing(config, clock)?;
            let id = find(&storage, &organization).await?;
            if !yes {
                bail!(
                    "this deletes {id} with its events, subscriptions and clients, and nothing \
                     brings them back; say --yes"
                );
            }
            storage.delete_organization(id).await?;
        }
    }
    Ok(())
}

/// `esl-server client …`
pub(crate) async fn clients(config: &Config, command: ClientCommand) -> anyhow::Result<()> {
    let clock = Arc::new(SystemClock::new());
    let storage = database::open_existing(config, clock.clone())?;
    match command {
        ClientCommand::Create { organization, scope, id, json } => {
            let scopes = match scope {
                None => Scopes::all(),
                Some(text) => read_scopes(&text)?,
            };
            if id.as_deref().is_some_and(|id| !Client::is_id(id)) {
                bail!("expected as --id {}", Client::ID_EXPECTED);
            }
            let organization = find(&storage, &organization.organization).await?;
            let (client, secret) = Client::generate(id, organization, scopes, clock.utc());
            let created = storage.create_client(client.clone()).await;
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
            print_secret(&client, &secret, json);
        }
        ClientCommand::List { organization, json } => {
            let organization = find(&storage, &organization.organization).await?;
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
            });
        }
        ClientCommand::Rotate { organization, client, json } => {
            let organization = find(&storage, &organization.organization).await?;
            let secret = ClientSecret::generate();
            let rotated = storage.rotate_client(organization, &client, secret.digest()).await;
            let client = found(rotated, &client)?;
            print_secret(&client, &secret, json);
        }
        ClientCommand::Delete { organization, client } => {
            let organization = find(&storage, &organization.organization).await?;
            found(storage.delete_client(organization, &client).await, &client)?;
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

fn print_secret(client: &Client, secret: &ClientSecret, as_json: bool) {
    let (id, secret, scopes) = (&client.id, secret.expose(), client.scopes);
    let value = json!({
        "client_id": id,
        "client_secret": secret,
        "organization_id": client.organization,
        "scope": scopes.to_string(),
    });
    print(as_json, &value, || {
        format!("client_id      {id}\nclient_secret  {secret}\nscope          {scopes}\n")
    });
    eprintln!("The secret is not shown again.");
}

/// The organization of that id or name. What is an id is never looked for among the names: when that
/// organization is gone, one that is called so must not be taken for it.
pub(crate) async fn find(storage: &SqliteStorage, wanted: &str) -> anyhow::Result<OrganizationId> {
    let organizations = storage.organizations().await.context("could not list organizations")?;
    let id: Option<OrganizationId> = wanted.parse().ok();
    let is_wanted = |one: &&Organization| id.map_or_else(|| one.name == wanted, |id| one.id == id);
    let found = organizations.iter().find(is_wanted);
    found.map(|organization| organization.id).with_context(|| {
        format!("there is no organization {wanted}; `esl-server org list` shows those there are")
    })
}

fn read_scopes(text: &str) -> anyhow::Result<Scopes> {
    Scopes::some(text)
        .with_context(|| format!("expected as --scope some of: {}; not {text:?}", Scopes::all()))
}

fn is_organization_name(name: &str) -> bool {
    (1..=NAME_CHARACTERS_MAX).contains(&name.chars().count())
        && !name.contains(char::is_control)
        && name.trim() == name
}

fn organization_json(organization: &Organization) -> Value {
    json!({
        "id": organization.id,
        "name": organization.name,
        "created_at": organization.created_at,
    })
}

fn kind<T>(result: &Result<T, StorageError>) -> Option<StorageErrorKind> {
    result.as_ref().err().map(StorageError::kind)
}

pub(crate) fn print(as_json: bool, json: &Value, text: impl FnOnce() -> String) {
    if as_json {
        println!("{json}");
    } else {
        print!("{}", text());
    }
}

const NAME_CHARACTERS_MAX: usize = 100;
