//! What is kept in memory: which lanes, and how much in their windows.

use super::Lanes;
use crate::{LaneId, OrganizationId, SealedEvent, engine::lane::Lane};

impl Lanes {
    /// A lane that something was committed for is remembered, and read if it was not known; false if it
    /// is to be another engine's, which is to be told.
    pub(super) fn enter(&mut self, id: LaneId, organization: OrganizationId) -> bool {
        match self.lanes.get_mut(&id) {
            Some(lane) => lane.was_used = true,
            None if !self.peers.has_lane(id) => return false,
            None => {
                self.admit(id, organization);
                self.read(id);
            }
        }
        true
    }

    pub(super) fn admit(&mut self, id: LaneId, organization: OrganizationId) -> &mut Lane {
        if self.lanes.len() >= KEPT_MAX {
            self.forget_some();
        }
        self.lanes.entry(id).or_insert_with(|| {
            let entry = self.organizations.entry(organization).or_default();
            entry.lanes.insert(id);
            self.rounds.push_back(id);
            Lane::new(organization, entry.looks)
        })
    }

    /// Forgets some lanes of which there is nothing to remember and that were not used since they were
    /// last looked at; they come back by being taken.
    fn forget_some(&mut self) {
        for _ in 0..LOOKED_AT {
            let Some(id) = self.rounds.pop_front() else { return };
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            let was_used = std::mem::replace(&mut lane.was_used, false);
            if was_used || !lane.is_idle() {
                self.rounds.push_back(id);
                continue;
            }
            if lane.target.is_some() && self.peers.count() > 1 {
                // Others would leave it to us, and nobody would hear of it.
                self.handover.ready.push(id);
            }
            if let Some(entry) = self.organizations.get_mut(&lane.organization) {
                entry.lanes.remove(&id);
            }
            self.lanes.remove(&id);
        }
    }

    /// How many more deliveries of an organization there may be in windows.
    pub(super) fn room(&self, organization: OrganizationId) -> usize {
        if self.bytes >= self.limits.bytes {
            return 0;
        }
        let windows = self.limits.windows;
        let its_own = self.organizations.get(&organization).map_or(0, |entry| entry.jobs);
        windows.saturating_sub(self.jobs).min((windows / 4 * 3).max(1).saturating_sub(its_own))
    }

    /// How many deliveries a lane may have in hand even when all windows together are full.
    pub(super) const fn room_min(&self) -> usize {
        if self.bytes < self.limits.bytes { ROOM_MIN } else { 1 }
    }

    /// A delivery comes into a window.
    pub(super) fn count_in(&mut self, organization: OrganizationId, event: &SealedEvent) {
        self.bytes += event.body.len();
        self.jobs += 1;
        self.organizations.entry(organization).or_default().jobs += 1;
    }

    /// A delivery leaves a window, to be sent; its bytes count until it is over.
    pub(super) fn count_out(&mut self, organization: OrganizationId) {
        self.jobs -= 1;
        if let Some(entry) = self.organizations.get_mut(&organization) {
            entry.jobs -= 1;
        }
    }
}

const ROOM_MIN: usize = 8;
/// So many lanes are remembered although there is nothing to do for them. Some kilobytes each.
const KEPT_MAX: usize = 16 * 1024;
/// Beyond that, whenever one comes, so many others are looked at whether they can be forgotten.
const LOOKED_AT: usize = 4;
