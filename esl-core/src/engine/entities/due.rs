//! Doing what is due, as the rules of its kind say.
//!
//! Each is done once, whoever does it: what is done is committed with what was read, and whoever comes second
//! has read what is not so any more.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{super::driver::Driver, Transaction};
use crate::{
    EntityError, EntityKey, Monotonic, OrganizationId, Origin,
    storage::{DueEntity, StorageError, StoredEntity},
};

const PAGE: usize = 500;
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
async fn look(driver: &Arc<Driver>, failed: &mut Failed) -> Result<Duration, StorageError> {
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
    let mut of_each: BTreeMap<OrganizationId, Vec<StoredEntity>> = BTreeMap::new();
    for DueEntity { organization, entity } in due {
        if !failed.contains_key(&(organization, entity.key.clone())) {
            of_each.entry(organization).or_default().push(entity);
        }
    }
    if of_each.is_empty() {
        return Ok(if failed.is_empty() { NOT_YET } else { AGAIN_AFTER });
    }
    // No organization waits for another one.
    let mut attending = JoinSet::new();
    for (organization, due) in of_each {
        attending.spawn(attend_in_order(Arc::clone(driver), organization, due));
    }
    for undone in attending.join_all().await.into_iter().flatten() {
        failed.insert(undone, driver.clock.monotonic() + FAILED_AGAIN_AFTER);
    }
    Ok(Duration::ZERO)
}

/// Does what is due in an organization: in the order of time, and what is due at the same time at once. Says
/// what could not be done.
async fn attend_in_order(
    driver: Arc<Driver>,
    organization: OrganizationId,
    due: Vec<StoredEntity>,
) -> Vec<(OrganizationId, EntityKey)> {
    let mut undone = Vec::new();
    for at_once in due.chunk_by(|one, other| one.due_at == other.due_at) {
        let mut attending = JoinSet::new();
        for StoredEntity { key, .. } in at_once {
            let (driver, key) = (Arc::clone(&driver), key.clone());
            attending.spawn(async move {
                let done = attend(&driver, organization, &key).await;
                (key, done)
            });
        }
        for (key, done) in attending.join_all().await {
            // What others have written meanwhile is looked at anew.
            let Err(error) = done else { continue };
            if !matches!(error, EntityError::Contended(_)) {
                tracing::error!(
                    %organization,
                    entity = %key,
                    error = &error as &dyn std::error::Error,
                    "what is due cannot be done; it is tried again"
                );
                undone.push((organization, key));
            }
        }
    }
    undone
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
    if !transaction.writes(key) {
        // It would be due again at once, and for ever.
        return Err(EntityError::invalid("", "the rules of its kind leave it as it is"));
    }
    transaction.commit().await?;
    Ok(())
}
