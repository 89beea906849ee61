//! The command `event`. It writes beside a running server, which sees it at once.

use std::sync::Arc;

use anyhow::{Context, bail};
use esl_core::{SystemClock, engine::delete_erased};
use serde_json::json;

use crate::{
    cli::EventCommand, config::Config, database, organizations::find, output::print,
    prepare::blob_store,
};

pub(crate) async fn run(config: &Config, command: EventCommand) -> anyhow::Result<()> {
    let storage = database::open_existing(config, Arc::new(SystemClock::new())).await?;
    let EventCommand::Erase { event, organization, json } = command;
    let organization = match organization {
        Some(wanted) => find(&*storage, &wanted).await?,
        None => match &storage.organizations_of_event(event).await?[..] {
            [] => bail!("there is no event {event}"),
            [organization] => *organization,
            several => {
                let names: Vec<_> = several.iter().map(ToString::to_string).collect();
                bail!(
                    "several organizations have an event {event}; say which with --org: {}",
                    names.join(", ")
                );
            }
        },
    };
    let erased = storage.erase_event(organization, event).await;
    if let Err(error) = &erased
        && error.kind() == esl_core::storage::StorageErrorKind::NotFound
    {
        bail!("organization {organization} has no event {event}");
    }
    let erased = erased?;
    let was_erased = erased.before;
    match blob_store(config)? {
        Some(blobs) => delete_erased(&*blobs, (organization, event), &erased)
            .await
            .context("its data is still in the blob store; erase it once more")?,
        None if erased.blobs.is_empty() => {}
        None => bail!(
            "its data is still in a blob store: name it in ESL_BLOB_STORAGE_URL, and erase the event \
             once more"
        ),
    }
    let said = json!({
        "event_id": event,
        "organization_id": organization,
        "was_erased_before": was_erased,
    });
    print(json, &said, || match was_erased {
        true => format!("{event} had been erased before\n"),
        false => format!("{event} is erased\n"),
    })
}
