//! The command `maintenance`. It writes beside a running server, which announces it.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::bail;
use esl_core::{
    Clock, EventId, Maintenance, OrganizationId, PublishError, SystemClock, Timestamp,
    storage::{Page, Storage},
};
use serde_json::{Value, json};

use crate::{
    cli::MaintenanceCommand,
    config::Config,
    database::{self, Opened},
    organizations,
    output::print,
};

/// `esl-server maintenance …`
pub(crate) async fn run(config: &Config, command: MaintenanceCommand) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    match command {
        MaintenanceCommand::Announce {
            starts_at,
            ends_at,
            message,
            announce_at,
            organization,
            json,
        } => {
            let maintenance = Maintenance { starts_at, ends_at, message };
            if !config.enabled {
                bail!("ESL_ENABLED is false: nothing is announced");
            }
            let storage = database::open_existing(config, clock).await?;
            let to = addressees(&*storage, organization.as_deref()).await?;
            announce(storage, &to, &maintenance, announce_at, json).await
        }
        MaintenanceCommand::List { json } => {
            let storage = database::open_existing(config, clock).await?;
            let waiting = waiting(&*storage).await?;
            let one = |(id, (at, organizations)): (&EventId, &(Timestamp, usize))| json!({ "id": id, "announce_at": at, "organizations": organizations });
            let all: Value = waiting.iter().map(one).collect();
            print(json, &all, || {
                let one = |(id, (at, organizations)): (&EventId, &(Timestamp, usize))| {
                    format!("{id}  {at}  to {organizations}\n")
                };
                waiting.iter().map(one).collect()
            })?;
            Ok(())
        }
        MaintenanceCommand::Cancel { event, organization } => {
            let storage = database::open_existing(config, clock).await?;
            let of = addressees(&*storage, organization.as_deref()).await?;
            match storage.publisher().take_back_maintenance(&of, event).await? {
                0 => bail!(
                    "{event} does not wait to be announced; `maintenance list` shows what does"
                ),
                _ => Ok(()),
            }
        }
    }
}

async fn addressees(
    storage: &dyn Storage,
    organization: Option<&str>,
) -> anyhow::Result<Vec<OrganizationId>> {
    Ok(match organization {
        Some(one) => vec![organizations::find(storage, one).await?],
        None => storage.organizations().await?.iter().map(|one| one.id).collect(),
    })
}

async fn announce(
    storage: Opened,
    to: &[OrganizationId],
    maintenance: &Maintenance,
    at: Option<Timestamp>,
    as_json: bool,
) -> anyhow::Result<()> {
    let publisher = storage.publisher();
    let id = match publisher.announce_maintenance(to, maintenance, at).await {
        Ok(id) => id,
        Err(PublishError::UnknownOrganization) => bail!(
            "an organization was deleted meanwhile, and not all of the others were told: \
             `maintenance list` shows what waits, to be taken back"
        ),
        Err(error) => return Err(error.into()),
    };
    let all = json!({ "id": id, "announce_at": at, "organizations": to.len() });
    print(as_json, &all, || format!("{id}\n"))
}

/// What waits, by its id: when it is due, and in how many organizations.
async fn waiting(storage: &dyn Storage) -> anyhow::Result<BTreeMap<EventId, (Timestamp, usize)>> {
    let mut waiting = BTreeMap::new();
    for organization in storage.organizations().await? {
        let mut page = Page { after: None, limit: 1000 };
        loop {
            let part = storage.scheduled(organization.id, page).await?;
            for scheduled in &part.items {
                waiting.entry(scheduled.event.id).or_insert((scheduled.due_at, 0)).1 += 1;
            }
            page.after = part.items.last().map(|last| last.number);
            if !part.more {
                break;
            }
        }
    }
    Ok(waiting)
}
