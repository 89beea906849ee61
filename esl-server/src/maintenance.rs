//! The command `maintenance`. It writes beside a running server, which announces it.

use std::sync::Arc;

use anyhow::{Context, bail};
use esl_core::{
    Clock, Esl, Maintenance, SystemClock, Timestamp,
    storage::{SCHEDULED_MAX, StorageErrorKind, Tenancy},
};
use serde_json::json;

use crate::{
    config::Config,
    database, organizations,
    output::{kind, print},
};

/// Announces to one organization or to all of them.
pub(crate) async fn run(
    config: &Config,
    maintenance: &Maintenance,
    at: Option<Timestamp>,
    organization: Option<&str>,
    as_json: bool,
) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let announced_at = at.map_or(clock.utc(), |at| at.max(clock.utc()));
    maintenance.check(announced_at)?;
    if !config.enabled {
        bail!("ESL_ENABLED is false: nothing is announced");
    }
    let storage = database::open_existing(config, clock)?;
    let organizations = match organization {
        Some(one) => vec![organizations::find(&storage, one).await?],
        None => storage.organizations().await?.iter().map(|one| one.id).collect(),
    };
    let publisher = Esl::publisher(storage);
    let announced = publisher.announce_maintenance(&organizations, maintenance, at).await;
    match kind(&announced) {
        Some(StorageErrorKind::OverLimit) => bail!(
            "more than {SCHEDULED_MAX} announcements would wait in an organization; none was made"
        ),
        Some(StorageErrorKind::NotFound) => {
            bail!("an organization was deleted meanwhile; none was told, so try again")
        }
        _ => {}
    }
    let ids = announced.context("could not announce it")?;
    let told = organizations.iter().zip(&ids);
    let all = told.clone().map(|(organization, id)| {
        json!({ "organization_id": organization, "id": id, "announce_at": announced_at })
    });
    print(as_json, &all.collect(), || {
        told.map(|(organization, id)| format!("{organization}  {id}\n")).collect()
    });
    Ok(())
}
