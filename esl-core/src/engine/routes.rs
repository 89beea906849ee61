//! Routing: which lanes an event goes to, from memory.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
};

use crate::{
    EventPattern, EventType, LaneId, OrganizationId, Plan,
    storage::{FanOut, RouteTable, RouteVersion, Storage, StorageError},
};

/// The routes of every organization that has published.
#[derive(Debug, Default)]
pub(crate) struct RouteIndex {
    organizations: RwLock<HashMap<OrganizationId, Arc<Routes>>>,
    /// Publishers that wait for the same routes share one read from storage; organizations with the
    /// same last bits of their ids wait for each other.
    loading: [tokio::sync::Mutex<()>; LOADING],
}

impl RouteIndex {
    /// The routes of an organization; `None` if there is no such organization.
    ///
    /// A caller that was refused with some version passes it as `stale`, and gets another.
    pub(crate) async fn get(
        &self,
        storage: &dyn Storage,
        organization: OrganizationId,
        stale: Option<RouteVersion>,
    ) -> Result<Option<Arc<Routes>>, StorageError> {
        if let Some(routes) = self.known(organization, stale) {
            return Ok(Some(routes));
        }
        let [.., bits] = organization.to_bytes();
        let _alone = self.loading[usize::from(bits) % LOADING].lock().await;
        if let Some(routes) = self.known(organization, stale) {
            return Ok(Some(routes));
        }
        let Some(table) = storage.routes(organization).await? else {
            return Ok(None);
        };
        let routes = Arc::new(Routes::new(table));
        let mut organizations = self.organizations.write().expect("a map without panics");
        organizations.insert(organization, Arc::clone(&routes));
        Ok(Some(routes))
    }

    /// Drops what is known of an organization, since its subscriptions have changed.
    pub(crate) fn forget(&self, organization: OrganizationId) {
        self.organizations.write().expect("a map without panics").remove(&organization);
    }

    /// Drops everything.
    pub(crate) fn forget_all(&self) {
        self.organizations.write().expect("a map without panics").clear();
    }

    fn known(
        &self,
        organization: OrganizationId,
        stale: Option<RouteVersion>,
    ) -> Option<Arc<Routes>> {
        let organizations = self.organizations.read().expect("a map without panics");
        organizations.get(&organization).filter(|routes| stale != Some(routes.version)).cloned()
    }
}

/// So many reads there may be at once.
const LOADING: usize = 16;

/// The routes of one organization, as of one version.
#[derive(Debug)]
pub(crate) struct Routes {
    version: RouteVersion,
    plan: Option<Plan>,
    exactly: HashMap<EventType, Vec<LaneId>>,
    below: HashMap<Arc<str>, Vec<LaneId>>,
    all: Vec<LaneId>,
    /// Answers given before. Publishers use few types; one who does not is kept from filling memory.
    answers: RwLock<HashMap<EventType, Arc<[LaneId]>>>,
}

impl Routes {
    const ANSWERS_MAX: usize = 1024;

    pub(crate) fn new(table: RouteTable) -> Self {
        let mut routes = Self {
            version: table.version,
            plan: table.plan,
            exactly: HashMap::new(),
            below: HashMap::new(),
            all: Vec::new(),
            answers: RwLock::default(),
        };
        for (lane, patterns) in table.lanes {
            for pattern in patterns {
                match pattern {
                    EventPattern::All => routes.all.push(lane),
                    EventPattern::Below(name) => routes.below.entry(name).or_default().push(lane),
                    EventPattern::Exactly(event_type) => {
                        routes.exactly.entry(event_type).or_default().push(lane);
                    }
                }
            }
        }
        routes
    }

    pub(crate) const fn version(&self) -> RouteVersion {
        self.version
    }

    /// What the organization may use, as of this version.
    pub(crate) const fn plan(&self) -> Option<Plan> {
        self.plan
    }

    /// The lanes that events of this type go to, ascending, each once.
    pub(crate) fn lanes(&self, event_type: &EventType) -> Arc<[LaneId]> {
        if let Some(lanes) = self.answers.read().expect("a map without panics").get(event_type) {
            return Arc::clone(lanes);
        }
        let lanes = self.find(event_type);
        let mut answers = self.answers.write().expect("a map without panics");
        if answers.len() >= Self::ANSWERS_MAX {
            answers.clear();
        }
        answers.insert(event_type.clone(), Arc::clone(&lanes));
        lanes
    }

    /// Those of them that an open fan-out has still to reach, at most so many; and whether there are
    /// more.
    pub(crate) fn rest(&self, fan_out: &FanOut, count_max: usize) -> (Arc<[LaneId]>, bool) {
        let lanes = self.lanes(&fan_out.event.event_type);
        let from = lanes.partition_point(|lane| *lane <= fan_out.after);
        let to = lanes.partition_point(|lane| *lane <= fan_out.last);
        let rest = lanes[from..to.max(from)].iter();
        let mut rest = rest.filter(|lane| Some(**lane) != fan_out.except);
        let slice = rest.by_ref().take(count_max).copied().collect();
        (slice, rest.next().is_some())
    }

    fn find(&self, event_type: &EventType) -> Arc<[LaneId]> {
        let below = event_type.ancestors().filter_map(|name| self.below.get(name));
        let mut lanes: Vec<LaneId> = below
            .chain(self.exactly.get(event_type))
            .chain([&self.all])
            .flatten()
            .copied()
            .collect();
        lanes.sort_unstable();
        lanes.dedup();
        lanes.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_agree_with_the_patterns_one_by_one() {
        let patterns = ["*", "a.*", "a.b.*", "a.b", "a.b.c", "b.c"];
        let types = ["a.b", "a.b.c", "a.b.c.d", "b.c", "c.d", "ab.c"];
        let lanes: Vec<(LaneId, Vec<EventPattern>)> = (0..64_u64)
            .map(|mask| {
                let chosen = patterns.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1);
                (LaneId::new(mask), chosen.map(|(_, text)| text.parse().expect(text)).collect())
            })
            .collect();
        let version = RouteVersion(3);
        let routes =
            Routes::new(RouteTable { version, lanes: lanes.clone(), ..RouteTable::default() });
        for text in types {
            let event_type: EventType = text.parse().expect(text);
            let expected: Vec<LaneId> = lanes
                .iter()
                .filter(|(_, patterns)| patterns.iter().any(|one| one.matches(&event_type)))
                .map(|(lane, _)| *lane)
                .collect();
            for _ in 0..2 {
                assert_eq!(*routes.lanes(&event_type), *expected, "{text}");
            }
        }
    }
}
