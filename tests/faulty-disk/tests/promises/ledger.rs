//! What was asked of the storage, and what it has acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use esl_core::{
    Digest, EventId, LaneId, OrganizationId, SealedEvent, Seq, SubscriptionId,
    storage::{Accepted, Idempotency, Outcome, Publish},
};

/// Shared by all who ask.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Book>>);

impl Ledger {
    /// Another one, which says the same.
    pub(crate) fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.book().clone())))
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap()
    }
}

/// Of all there is: whether it was acknowledged.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book {
    pub(crate) organizations: BTreeMap<OrganizationId, bool>,
    pub(crate) subscriptions: BTreeMap<SubscriptionId, Subscribed>,
    pub(crate) events: BTreeMap<EventId, Told>,
    pub(crate) settled: BTreeMap<(LaneId, Seq), (Outcome, bool)>,
    /// Events in transactions of the embedder.
    pub(crate) people: BTreeMap<EventId, bool>,
    pub(crate) tokens: Vec<(Digest, bool)>,
    units: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Subscribed {
    pub(crate) organization: OrganizationId,
    pub(crate) is_created: bool,
    /// `None` if nobody has asked for it.
    pub(crate) is_deleted: Option<bool>,
}

#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) event: Arc<SealedEvent>,
    pub(crate) deliveries: u32,
    pub(crate) accepted: Option<Accepted>,
    pub(crate) idempotency: Option<Idempotency>,
    /// Those of one unit are all there or none.
    pub(crate) unit: u64,
    pub(crate) is_erased: Option<bool>,
}

impl Book {
    /// Before a unit is committed.
    pub(crate) fn tries(&mut self, publish: &Publish) {
        self.units += 1;
        for routed in &publish.events {
            let told = Told {
                event: Arc::clone(&routed.event),
                deliveries: routed.lanes.len().try_into().unwrap(),
                accepted: None,
                idempotency: publish.idempotency.clone(),
                unit: self.units,
                is_erased: None,
            };
            self.events.insert(routed.event.id, told);
        }
    }

    /// After it was.
    pub(crate) fn accepts(&mut self, accepted: &[Accepted]) {
        for accepted in accepted {
            self.events.get_mut(&accepted.id).unwrap().accepted = Some(*accepted);
        }
    }

    /// After it was refused.
    pub(crate) fn refuses(&mut self, publish: &Publish) {
        for routed in &publish.events {
            self.events.remove(&routed.event.id);
        }
    }

    pub(crate) fn acknowledged_organizations(&self) -> Vec<OrganizationId> {
        let organizations = self.organizations.iter();
        organizations.filter(|(_, is_there)| **is_there).map(|(id, _)| *id).collect()
    }

    /// Which units of some organizations were found, and which were not.
    pub(crate) fn units_of(
        &self,
        found: &BTreeSet<EventId>,
        organizations: &BTreeSet<OrganizationId>,
    ) -> BTreeMap<u64, BTreeSet<bool>> {
        let mut units: BTreeMap<u64, BTreeSet<bool>> = BTreeMap::new();
        let told = self.events.iter();
        for (id, told) in told.filter(|(_, told)| organizations.contains(&told.event.organization))
        {
            units.entry(told.unit).or_default().insert(found.contains(id));
        }
        units
    }
}
