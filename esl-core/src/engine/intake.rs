//! The intake: moving what applications committed in their own transactions into ordinary commits.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{
    blobs,
    driver::Driver,
    inbox::CommitFailure,
    publish::{Metered, PublishError, Sealed, Terms, Told, route, submit},
};
use crate::{
    Hour, Monotonic, OrganizationId,
    storage::{IntakeRow, Refused, RouteVersion, StorageErrorKind},
};

const PAGE: usize = 500;
/// What the engine that leads has left lying for so long, others move.
const LEFT_FOR: Duration = Duration::from_secs(2);
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// An organization whose subscriptions cannot be read is tried again so often.
const DAMAGED_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Moves intake rows until it is stopped.
pub(crate) async fn run(driver: Arc<Driver>, stop: CancellationToken) {
    let mut held = Held::default();
    let mut left = None;
    loop {
        let wait = match move_ours(&driver, (&mut held, &mut left), &stop).await {
            Ok(next) => next,
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

/// Moves what there is while this engine leads; otherwise only once it was left lying for a while. Says
/// when to look again, if nobody tells before.
async fn move_ours(
    driver: &Driver,
    (held, left): (&mut Held, &mut Option<(IntakeRow, Monotonic)>),
    stop: &CancellationToken,
) -> Result<Option<Monotonic>, PublishError> {
    if !driver.leads() {
        let now = driver.clock.monotonic();
        held.let_go(now);
        let first = driver.storage.intake(None, 1, &held.organizations()).await?;
        let first = first.first().map(|(row, _)| *row);
        let since = left.filter(|(row, _)| Some(*row) == first).map_or(now, |(_, since)| since);
        *left = first.map(|row| (row, since));
        if left.is_none() {
            return Ok(held.next_try());
        }
        if now < since + LEFT_FOR {
            return Ok(Some(since + LEFT_FOR));
        }
    }
    *left = None;
    move_all(driver, held, stop).await?;
    Ok(held.next_try())
}

async fn move_all(
    driver: &Driver,
    held: &mut Held,
    stop: &CancellationToken,
) -> Result<(), PublishError> {
    held.let_go(driver.clock.monotonic());
    let mut after = None;
    while !stop.is_cancelled() {
        let rows = driver.storage.intake(after, PAGE, &held.organizations()).await?;
        let is_last = rows.len() < PAGE;
        after = rows.last().map(|(row, _)| *row);
        let events = rows.into_iter().map(|(row, event)| (event, Some(row))).collect();
        move_page(driver, events, held).await?;
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
///
/// An organization whose subscriptions cannot be read keeps its rows, from the first that could not
/// be routed on, and nobody else waits for it.
async fn move_page(
    driver: &Driver,
    mut events: Vec<Sealed>,
    held: &mut Held,
) -> Result<(), PublishError> {
    let mut stale = None;
    // What comes to a threshold must carry the notice of it. So all of them do, for the hour that may
    // begin meanwhile, too: one that was refused would be overtaken by those behind it.
    let mut told: HashMap<OrganizationId, Told> = HashMap::new();
    let mut crossed_in: HashMap<OrganizationId, Hour> = HashMap::new();
    while !events.is_empty() {
        let mut answers = Vec::with_capacity(events.len());
        for event in std::mem::take(&mut events) {
            let organization = event.0.organization;
            if held.has(organization) {
                continue;
            }
            // A page may hold several organizations; a version that is stale for one of them
            // costs the others at most a read.
            let hour = crossed_in.get(&organization).copied();
            let hour = hour.unwrap_or_else(|| Hour::of(driver.time.now()));
            let routed = match told_of(driver, (organization, hour), &mut told, stale).await {
                Ok(told) => {
                    let metered = match event.0.event_type.is_system() {
                        // Of ESL's own, scheduled for now.
                        true => Metered::Not,
                        false => Metered::Counting(told),
                    };
                    let terms = Terms { idempotency: None, metered };
                    route(driver, organization, std::slice::from_ref(&event), terms, stale).await
                }
                Err(error) => Err(error),
            };
            match routed {
                Ok(publish) => {
                    let version = publish.route_version;
                    answers.push((event, version, submit(driver, publish, None)));
                }
                // Deleted meanwhile; what came for it goes with the chores.
                Err(PublishError::UnknownOrganization) => {}
                Err(PublishError::Storage(error)) if error.kind() == StorageErrorKind::Corrupt => {
                    driver.tell_of_damage(organization, &error);
                    held.hold(organization, driver.clock.monotonic() + DAMAGED_AGAIN_AFTER);
                }
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
                    // The plan may be another one.
                    told.remove(&event.0.organization);
                    events.push(event);
                }
                // The clock has jumped over the hours that were told of.
                Err(CommitFailure::Refused(Refused::Crosses(usage))) => {
                    told.remove(&event.0.organization);
                    crossed_in.insert(event.0.organization, usage.hour);
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

/// What an organization is told in an hour and the next.
async fn told_of<'t>(
    driver: &Driver,
    (organization, hour): (OrganizationId, Hour),
    told: &'t mut HashMap<OrganizationId, Told>,
    stale: Option<RouteVersion>,
) -> Result<&'t Told, PublishError> {
    Ok(match told.entry(organization) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(unknown) => {
            let routes = driver.routes.get(&*driver.storage, organization, stale).await?;
            let plan = routes.and_then(|routes| routes.plan());
            unknown.insert(plan.map_or_else(Told::default, |plan| {
                let limit = driver.tiers.allowance(&plan).events_per_hour;
                Told::of(driver, organization, limit, [hour, hour.next()])
            }))
        }
    })
}

/// The organizations whose rows stay where they are for now, and until when.
#[derive(Debug, Default)]
struct Held(HashMap<OrganizationId, Monotonic>);

impl Held {
    fn hold(&mut self, organization: OrganizationId, until: Monotonic) {
        self.0.insert(organization, until);
    }

    fn has(&self, organization: OrganizationId) -> bool {
        self.0.contains_key(&organization)
    }

    fn organizations(&self) -> Vec<OrganizationId> {
        self.0.keys().copied().collect()
    }

    fn let_go(&mut self, now: Monotonic) {
        self.0.retain(|_, until| now < *until);
    }

    fn next_try(&self) -> Option<Monotonic> {
        self.0.values().min().copied()
    }
}
