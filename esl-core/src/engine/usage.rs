//! What organizations have used of what they may: how a unit is metered, and what is told of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use serde_json::json;

use super::driver::Driver;
use crate::{
    Allowance, Hour, Limit, Monotonic, NewEvent, OrganizationId, Origin, Plan, SealedEvent,
    Threshold, Usage, seal, storage::StorageError,
};

/// What an organization may use, and what it has used of its hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// What it may.
    pub allowance: Allowance,
    /// What it has. Other engines' publishes are in it a second later.
    pub usage: Usage,
}

impl Standing {
    /// How many events it may still publish in this hour; `None` if there is no limit.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        self.allowance.events_per_hour.get().map(|limit| limit.saturating_sub(self.usage.events))
    }
}

/// What is known of organizations' usage.
#[derive(Debug, Default)]
pub(crate) struct Usages(Mutex<HashMap<OrganizationId, Known>>);

#[derive(Debug, Clone, Copy)]
struct Known {
    plan: Option<Plan>,
    usage: Usage,
    read_at: Monotonic,
}

impl Usages {
    /// A commit has led to this.
    pub(crate) fn committed(&self, organization: OrganizationId, usage: Usage) {
        // Only what was asked for before is kept; it is never more than storage has.
        if let Some(known) = self.lock().get_mut(&organization) {
            known.usage = known.usage.max(usage);
        }
    }

    /// An organization may have another plan.
    pub(crate) fn forget(&self, organization: OrganizationId) {
        self.lock().remove(&organization);
    }

    /// Any of them may.
    pub(crate) fn forget_all(&self) {
        self.lock().clear();
    }

    fn read(&self, organization: OrganizationId, mut read: Known) -> Known {
        let mut known = self.lock();
        if known.len() >= KNOWN_MAX && !known.contains_key(&organization) {
            known.clear();
        }
        // What was committed meanwhile.
        let before = known.get(&organization).map_or(read.usage, |known| known.usage);
        read.usage = read.usage.max(before);
        known.insert(organization, read);
        read
    }

    fn fresh(&self, organization: OrganizationId, now: Monotonic) -> Option<Known> {
        let known = *self.lock().get(&organization)?;
        (now < known.read_at + FRESH).then_some(known)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OrganizationId, Known>> {
        self.0.lock().expect("no code panics while it holds this lock")
    }
}

/// For so long nothing is heard of what other engines publish.
const FRESH: Duration = Duration::from_secs(1);
const KNOWN_MAX: usize = 64 * 1024;

/// Where an organization stands; `None` if there is no such organization, or it has no plan.
pub(crate) async fn standing(
    driver: &Driver,
    organization: OrganizationId,
) -> Result<Option<Standing>, StorageError> {
    let read_at = driver.clock.monotonic();
    let known = match driver.usages.fresh(organization, read_at) {
        Some(known) => known,
        None => {
            let found = driver.storage.usage(organization).await?;
            let Some((plan, usage)) = found else { return Ok(None) };
            driver.usages.read(organization, Known { plan, usage, read_at })
        }
    };
    let Some(plan) = known.plan else { return Ok(None) };
    let (allowance, now) = (driver.tiers.allowance(&plan), driver.time.now());
    Ok(Some(Standing { allowance, usage: known.usage.at(now) }))
}

/// `system.rate_limit.warning` and `system.rate_limit.exceeded`, for a unit that comes to one of them in
/// that hour (SPEC.md, "System Events").
pub(crate) fn notices(
    driver: &Driver,
    organization: OrganizationId,
    limit: Limit,
    hour: Hour,
) -> Vec<(Threshold, Arc<SealedEvent>)> {
    let one = |threshold: Threshold, name: &str| {
        let at = threshold.of(limit)?;
        let data = json!({
            "limit": limit.get(),
            "threshold": at,
            "resets_at": hour.end(),
        });
        let event_type = name.parse().expect("our own types are types");
        let event = NewEvent::new(organization, event_type, &data).expect("a value is JSON");
        let (id, now) = driver.ids.event();
        let origin = Origin {
            correlation_id: id.to_string(),
            triggered_by: "esl".to_owned(),
            source: "system",
        };
        Some((threshold, Arc::new(seal(&event.with_origin(Arc::new(origin)), id, now))))
    };
    [
        one(Threshold::Warning, "system.rate_limit.warning"),
        one(Threshold::Exceeded, "system.rate_limit.exceeded"),
    ]
    .into_iter()
    .flatten()
    .collect()
}
