//! The intake: moving what applications committed in their own transactions into ordinary commits.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    blobs,
    driver::Driver,
    inbox::CommitFailure,
    publish::{PublishError, Sealed, Terms, route, submit},
};
use crate::{OrganizationId, storage::Refused};

const PAGE: usize = 500;
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Moves intake rows until it is stopped.
pub(crate) async fn run(driver: Arc<Driver>, stop: CancellationToken) {
    let mut unknown = Unknown::default();
    loop {
        let wait = match move_all(&driver, &mut unknown, &stop).await {
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

async fn move_all(
    driver: &Driver,
    unknown: &mut Unknown,
    stop: &CancellationToken,
) -> Result<(), PublishError> {
    let mut after = None;
    while !stop.is_cancelled() {
        let rows = driver.storage.intake(after, PAGE).await?;
        let is_last = rows.len() < PAGE;
        after = rows.last().map(|(row, _)| *row);
        let events = rows.into_iter().map(|(row, event)| (event, Some(row))).collect();
        move_page(driver, events, unknown).await?;
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
async fn move_page(
    driver: &Driver,
    mut events: Vec<Sealed>,
    unknown: &mut Unknown,
) -> Result<(), PublishError> {
    let mut stale = None;
    while !events.is_empty() {
        let mut answers = Vec::with_capacity(events.len());
        for event in std::mem::take(&mut events) {
            let organization = event.0.organization;
            // A page may hold several organizations; a version that is stale for one of them
            // costs the others at most a read.
            match route(driver, organization, std::slice::from_ref(&event), Terms::FREE, stale)
                .await
            {
                Ok(publish) => {
                    let version = publish.route_version;
                    answers.push((event, version, submit(driver, publish)));
                }
                Err(PublishError::UnknownOrganization) => unknown.report(&event),
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
                Err(CommitFailure::Refused(Refused::UnknownOrganization(_))) => {
                    unknown.report(&event);
                }
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

/// The organizations that events wait for although there are none. What waits is met again at every wake,
/// until the organization is made or retention removes it; it is said once.
#[derive(Default)]
struct Unknown(HashSet<OrganizationId>);

impl Unknown {
    fn report(&mut self, (event, _): &Sealed) {
        let organization = event.organization;
        if self.0.len() >= UNKNOWN_MAX {
            self.0.clear();
        }
        if self.0.insert(organization) {
            tracing::error!(
                event = %event.id,
                %organization,
                "stays in the intake, as do others like it: there is no such organization"
            );
        } else {
            tracing::debug!(event = %event.id, %organization, "stays in the intake");
        }
    }
}

/// So many are remembered.
const UNKNOWN_MAX: usize = 1024;
