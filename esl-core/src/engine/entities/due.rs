//! Doing what is due, as the rules of its kind say.
//!
//! Each is done once, whoever does it: what is done is committed with what was read, and whoever comes second
//! has read what is not so any more.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{super::driver::Driver, Transaction};
use crate::{
    EntityError, EntityKey, Monotonic, OrganizationId, Origin,
    storage::{DueEntity, StorageError},
};

const PAGE: usize = 100;
/// The clock may be set, and others may write: nothing is trusted for longer.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// What the engine that leads has left lying for so long, others do.
const LEFT_FOR: Duration = Duration::from_secs(5);
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// What cannot be done is not tried again before.
const FAILED_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Storage's clock may be a little behind.
const NOT_YET: Duration = Duration::from_millis(20);

/// What could not be done, and when it is tried again.
type Failed = BTreeMap<(OrganizationId, EntityKey), Monotonic>;

/// Does what is due until it is stopped.
pub(crate) async fn run(driver: Arc<Driver>, stop: CancellationToken) {
    let mut failed = Failed::new();
    loop {
        let wait = match look(&driver, &mut failed).await {
            Ok(wait) => wait,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "entities not read");
                AGAIN_AFTER
            }
        };
        let until = driver.clock.monotonic() + wait;
        // All arms may be dropped: they hold nothing.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = driver.due.notified() => {}
            () = driver.clock.sleep_until(until) => {}
        }
    }
}

/// Does what is due, and says when to look again.
async fn look(driver: &Driver, failed: &mut Failed) -> Result<Duration, StorageError> {
    let Some(due_at) = driver.storage.next_entity_due().await? else { return Ok(LOOK_EVERY) };
    // Whoever leads is first.
    let due_at = if driver.leads() { due_at } else { due_at + LEFT_FOR };
    let now = driver.time.now();
    if due_at > now {
        return Ok(due_at.since(now).min(LOOK_EVERY));
    }
    let now = driver.clock.monotonic();
    failed.retain(|_, again_at| *again_at > now);
    // Those that failed are due for as long.
    let due = driver.storage.due_entities(PAGE + failed.len()).await?;
    let mut done = 0;
    for DueEntity { organization, entity } in due {
        let place = (organization, entity.key.clone());
        if failed.contains_key(&place) {
            continue;
        }
        match attend(driver, organization, &entity.key).await {
            Ok(()) | Err(EntityError::Contended(_)) => done += 1,
            Err(error) => {
                tracing::error!(
                    %organization,
                    entity = %entity.key,
                    error = &error as &dyn std::error::Error,
                    "what is due cannot be done; it is tried again"
                );
                failed.insert(place, driver.clock.monotonic() + FAILED_AGAIN_AFTER);
            }
        }
    }
    Ok(match (done, failed.is_empty()) {
        (0, true) => NOT_YET,
        (0, false) => AGAIN_AFTER,
        _ => Duration::ZERO,
    })
}

/// Does what is due about an entity, if it still is.
async fn attend(
    driver: &Driver,
    organization: OrganizationId,
    key: &EntityKey,
) -> Result<(), EntityError> {
    let kind = driver.kind(key.kind.as_str())?;
    let origin = Origin {
        correlation_id: driver.ids.request().to_string(),
        triggered_by: key.id.to_string(),
        source: "schedule",
    };
    let mut transaction = Transaction::new(driver, organization, Some(Arc::new(origin)), false);
    let Some(entity) = transaction.get(key.kind.as_str(), &key.id).await? else { return Ok(()) };
    if entity.due_at.is_none_or(|due_at| due_at > transaction.now()) {
        return Ok(());
    }
    kind.rules().due(&mut transaction, &entity).await?;
    transaction.commit().await?;
    Ok(())
}
