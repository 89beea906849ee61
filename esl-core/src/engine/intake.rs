//! The intake: moving what applications committed in their own transactions into ordinary commits.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    blobs,
    driver::Driver,
    inbox::CommitFailure,
    publish::{PublishError, Sealed, route, submit},
};
use crate::storage::Refused;

const PAGE: usize = 500;
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Moves intake rows until it is stopped.
pub(crate) async fn run(driver: Arc<Driver>, stop: CancellationToken) {
    loop {
        let wait = match move_all(&driver, &stop).await {
            Ok(()) => None,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "intake not moved");
                Some(driver.clock.monotonic() + AGAIN_AFTER)
            }
        };
        let again = async {
            match wait {
                Some(at) => driver.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        // All arms may be dropped: they hold nothing.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = driver.intake.notified() => {}
            () = again => {}
        }
    }
}

async fn move_all(driver: &Driver, stop: &CancellationToken) -> Result<(), PublishError> {
    let mut after = None;
    while !stop.is_cancelled() {
        let rows = driver.storage.intake(after, PAGE).await?;
        let is_last = rows.len() < PAGE;
        after = rows.last().map(|(row, _)| *row);
        let events = rows.into_iter().map(|(row, event)| (event, Some(row))).collect();
        move_page(driver, events).await?;
        if is_last {
            break;
        }
    }
    Ok(())
}

/// Moves rows, each as a unit of its own and all in their order.
///
/// Those of one organization are routed with one version, so that, when it is outdated, none of
/// them overtakes another: the page is done when every row is.
async fn move_page(driver: &Driver, mut events: Vec<Sealed>) -> Result<(), PublishError> {
    let mut stale = None;
    while !events.is_empty() {
        let mut answers = Vec::with_capacity(events.len());
        for event in std::mem::take(&mut events) {
            let organization = event.0.organization;
            // A page may hold several organizations; a version that is stale for one of them
            // costs the others at most a read.
            match route(driver, organization, std::slice::from_ref(&event), None, stale).await {
                Ok(publish) => {
                    let version = publish.route_version;
                    answers.push((event, version, submit(driver, publish)));
                }
                // Deleted meanwhile; what came for it goes with the chores.
                Err(PublishError::UnknownOrganization) => {}
                Err(error) => return Err(error),
            }
        }
        stale = None;
        for (event, version, answer) in answers {
            match answer.await.map_err(|_dropped| PublishError::Stopped)? {
                Ok(committed) => {
                    if committed.events.iter().any(|accepted| accepted.repeated) {
                        tracing::warn!(event = %event.0.id, "dropped from the intake: exists already");
                        blobs::discard(driver, &event.0).await;
                    }
                }
                Err(CommitFailure::Refused(Refused::Rerouted)) => {
                    stale = Some(version);
                    events.push(event);
                }
                Err(CommitFailure::Refused(Refused::UnknownOrganization(_))) => {}
                Err(CommitFailure::Refused(Refused::IntakeGone(id))) => {
                    tracing::info!(event = %id, "not moved from the intake: erased meanwhile");
                    blobs::discard(driver, &event.0).await;
                }
                Err(failure) => return Err(failure.into()),
            }
        }
    }
    Ok(())
}
