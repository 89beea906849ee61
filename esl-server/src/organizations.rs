//! The command `org`. It writes beside a running server, which sees it at once.

use std::sync::Arc;

use anyhow::{Context, bail};
use esl_core::{
    Actor, Allowance, Clock, Organization, OrganizationId, SystemClock, Usage,
    storage::{Storage, StorageErrorKind},
};
use serde_json::{Value, json};

use crate::{
    cli::OrganizationCommand,
    config::Config,
    credentials, database,
    output::{kind, print},
};

/// `esl-server org …`
pub(crate) async fn run(config: &Config, command: OrganizationCommand) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    match command {
        OrganizationCommand::Create { name, terms, json } => {
            if !is_organization_name(&name) {
                bail!("expected a name of 1 to {NAME_CHARACTERS_MAX} characters on one line");
            }
            if name.parse::<OrganizationId>().is_ok() {
                bail!(
                    "{name} is an id, and would be taken for that organization; give another name"
                );
            }
            let mut organization = credentials::organization(&name, &*clock);
            organization.plan = terms.applied_to(organization.plan)?;
            let storage = database::open(config, clock).await?;
            let created = storage.create_organization(organization.clone(), &Actor::Operator).await;
            if kind(&created) == Some(StorageErrorKind::Conflict) {
                bail!("there is an organization named {name} already");
            }
            created?;
            print(json, &organization_json(&organization), || format!("{}\n", organization.id))?;
        }
        OrganizationCommand::List { json } => {
            let storage = database::open_existing(config, clock).await?;
            let organizations = storage.organizations().await?;
            let all = Value::Array(organizations.iter().map(organization_json).collect());
            print(json, &all, || {
                organizations.iter().map(|one| format!("{}  {}\n", one.id, one.name)).collect()
            })?;
        }
        OrganizationCommand::Show { organization, json } => {
            let storage = database::open_existing(config, clock).await?;
            let id = find(&*storage, &organization).await?;
            show(config, &*storage, id, json).await?;
        }
        OrganizationCommand::Set { organization, terms, json } => {
            let storage = database::open_existing(config, clock).await?;
            let id = find(&*storage, &organization).await?;
            let plan = read(&*storage, id).await?.plan;
            storage.set_plan(id, terms.applied_to(plan)?, &Actor::Operator).await?;
            show(config, &*storage, id, json).await?;
        }
        OrganizationCommand::Delete { organization, yes } => {
            let storage = database::open_existing(config, clock).await?;
            let id = find(&*storage, &organization).await?;
            if !yes {
                bail!(
                    "this deletes {id} with its events, subscriptions and clients, and nothing \
                     brings them back; say --yes"
                );
            }
            storage.delete_organization(id, &Actor::Operator).await?;
        }
    }
    Ok(())
}

/// The organization of that id or name. What is an id is never looked for among the names: when that
/// organization is gone, one that is called so must not be taken for it. Nor does it need the list,
/// from which an organization is missing that has something damaged.
pub(crate) async fn find(storage: &dyn Storage, wanted: &str) -> anyhow::Result<OrganizationId> {
    let found = match wanted.parse() {
        Ok(id) => is_there(storage, id).await?.then_some(id),
        Err(_) => {
            let all = storage.organizations().await.context("could not list organizations")?;
            all.into_iter().find(|one| one.name == wanted).map(|one| one.id)
        }
    };
    found.with_context(|| {
        format!("there is no organization {wanted}; `esl-server org list` shows those there are")
    })
}

/// Whether it exists, whatever else can be read of it.
async fn is_there(storage: &dyn Storage, id: OrganizationId) -> anyhow::Result<bool> {
    match storage.usage(id).await {
        Err(error) if error.kind() == StorageErrorKind::Corrupt => Ok(true),
        usage => Ok(usage.context("could not look for the organization")?.is_some()),
    }
}

async fn read(storage: &dyn Storage, id: OrganizationId) -> anyhow::Result<Organization> {
    let organization = storage.organization(id).await.context("could not read it")?;
    organization.context("it was deleted meanwhile")
}

async fn show(
    config: &Config,
    storage: &dyn Storage,
    id: OrganizationId,
    json: bool,
) -> anyhow::Result<()> {
    let organization = read(storage, id).await?;
    let subscriptions = storage.count_subscriptions(id).await?;
    let (_, usage) = storage.usage(id).await?.context("it was deleted meanwhile")?;
    let allowance = organization.plan.map(|plan| config.tiers().allowance(&plan));
    let mut all = organization_json(&organization);
    all["limits"] = limits_json(allowance);
    all["usage"] = json!({
        "subscriptions": subscriptions,
        "events": allowance.map(|_| usage.events),
        "resets_at": allowance.map(|_| usage.hour.end()),
    });
    print(json, &all, || text(&organization, subscriptions, allowance, usage))
}

/// As `GET /api/v1/organization` has it.
fn limits_json(allowance: Option<Allowance>) -> Value {
    json!({
        "subscriptions": allowance.and_then(|allowance| allowance.subscriptions.get()),
        "events_per_hour": allowance.and_then(|allowance| allowance.events_per_hour.get()),
        "retries": allowance.map(|allowance| allowance.retries),
    })
}

fn text(
    organization: &Organization,
    subscriptions: u64,
    allowance: Option<Allowance>,
    usage: Usage,
) -> String {
    let Organization { id, name, plan, .. } = organization;
    let head = format!("id             {id}\nname           {name}\n");
    let (Some(plan), Some(allowance)) = (plan, allowance) else {
        return format!("{head}tier           none\nsubscriptions  {subscriptions}\n");
    };
    format!(
        "{head}tier           {}\nsubscriptions  {subscriptions} of {}\n\
         events         {} of {} until {}\nretries        {}\n",
        plan.tier,
        allowance.subscriptions,
        usage.events,
        allowance.events_per_hour,
        usage.hour.end(),
        allowance.retries,
    )
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
        "tier": organization.plan.map(|plan| plan.tier.as_str()),
    })
}

const NAME_CHARACTERS_MAX: usize = 100;
