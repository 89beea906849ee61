//! Which lanes are this worker's, and what their subscriptions say.

use std::sync::Arc;

use super::{Lanes, Now};
use crate::{
    LaneId, Monotonic, OrganizationId, Subscription,
    engine::{
        lane::{Reading, Stay},
        target::Target,
    },
    storage::LaneState,
};

impl Lanes {
    /// The subscriptions of an organization have changed: its lanes are read anew.
    pub(crate) fn take_again(&mut self, organization: OrganizationId) {
        let lanes = self.organizations.get(&organization).map(|entry| entry.lanes.clone());
        for id in lanes.into_iter().flatten() {
            if self.lanes[&id].target.is_some() || self.peers.has_lane(id) {
                self.read(id);
            }
        }
    }

    /// The subscription of a lane is read, unless it is about to be, or the lane is on its way out.
    pub(crate) fn read(&mut self, id: LaneId) {
        match self.lanes.get_mut(&id) {
            Some(lane) if lane.reading == Reading::Queued || lane.stay != Stay::Here => {}
            Some(lane) => {
                lane.reading = Reading::Queued;
                self.to_take.push(lane.organization, id);
            }
            None => {
                self.unknown.insert(id);
            }
        }
    }

    /// The subscription of a lane has changed, or may have.
    pub(crate) fn read_or_ask(&mut self, id: LaneId) {
        match self.lanes.get(&id) {
            Some(lane) if lane.target.is_some() => self.read(id),
            Some(_) | None => self.ask(id),
        }
    }

    /// A lane is this worker's, or is so still; its subscription is as `target` says.
    pub(crate) fn taken(&mut self, target: Arc<Target>, state: LaneState, now: Now) {
        let id = target.subscription.lane;
        let begun = self.begun;
        let lane = self.admit(id, target.subscription.organization);
        if lane.reading == Reading::Queued {
            // It has changed since this was asked for, and is about to be read again.
            return;
        }
        lane.reading = Reading::Done;
        if lane.target.is_some() {
            lane.follow_update(&target.subscription);
        } else {
            lane.taken_during = begun;
            lane.state = state;
            lane.blocked = state.not_before.filter(|at| *at > now.utc).map(|at| now.until(at));
        }
        // Also if the lane was let go of since: it would never be sent to again.
        lane.told = None;
        self.set_target(id, target, now.monotonic);
    }

    /// The subscription of a lane was changed. Nothing is sent there until it was read again: of two
    /// changes that are told of at once, nobody can say here which came first.
    pub(crate) fn changed(&mut self, after: &Subscription) {
        if let Some(lane) = self.lanes.get_mut(&after.lane) {
            lane.follow_update(after);
            lane.told = lane.target.is_some().then(|| Box::new(after.clone()));
        }
        // One that is not known was perhaps resumed, with deliveries in storage.
        self.read_or_ask(after.lane);
    }

    /// A lane that was to be taken is another worker's, or gone.
    pub(crate) fn foreign(&mut self, id: LaneId) {
        match self.lanes.get_mut(&id) {
            Some(lane) if lane.reading == Reading::Asked => lane.reading = Reading::Done,
            Some(_) | None => return,
        }
        self.not_taken(id);
        let lane = self.lanes.get_mut(&id).expect("it is there");
        lane.is_foreign = true;
        if std::mem::take(&mut lane.is_to_tell) {
            self.to_tell.push(id);
        }
    }

    /// Lanes could not be taken: that is tried again.
    pub(crate) fn take_failed(&mut self, lanes: &[LaneId]) {
        lanes.iter().for_each(|id| self.read(*id));
    }

    /// A lane is not, or no longer, this worker's to send.
    fn not_taken(&mut self, id: LaneId) {
        if self.lanes.contains_key(&id) {
            self.drop_jobs(id);
            self.lanes.get_mut(&id).expect("it is there").target = None;
        }
    }

    /// Forgets a lane whose subscription was deleted.
    pub(crate) fn remove(&mut self, id: LaneId) {
        self.not_taken(id);
        let Some(lane) = self.lanes.remove(&id) else { return };
        if let Some(alarm) = lane.alarm {
            self.alarms.remove(&(alarm, id));
        }
        if let Some(entry) = self.organizations.get_mut(&lane.organization) {
            entry.lanes.remove(&id);
        }
    }

    fn set_target(&mut self, id: LaneId, target: Arc<Target>, now: Monotonic) {
        let in_flight_default = self.limits.lane_in_flight;
        let lane = self.lanes.get_mut(&id).expect("the caller has looked it up");
        let (was_sending, was_strict) = (lane.is_sending(), lane.is_strict());
        lane.target = Some(target);
        (lane.is_foreign, lane.is_to_tell) = (false, false);
        lane.follow_options(in_flight_default, now);
        let (is_sending, is_strict) = (lane.is_sending(), lane.is_strict());
        if was_sending && (!is_sending || was_strict != is_strict) {
            self.drop_jobs(id);
        }
        if is_sending && (!was_sending || was_strict != is_strict) {
            self.wake(id);
        }
        self.set_alarm(id);
        self.offer(id);
    }

    /// Lanes to be read; those of which nobody has said whose they are take turns with the others.
    pub(super) fn next_to_take(&mut self) -> Vec<LaneId> {
        let mut take = Vec::new();
        while take.len() < TAKEN_MAX {
            let (known, unknown) = (self.to_take.pop(), self.unknown.pop_first());
            if known.is_none() && unknown.is_none() {
                break;
            }
            for id in known.into_iter().chain(unknown) {
                if let Some(lane) = self.lanes.get_mut(&id) {
                    if lane.stay != Stay::Here {
                        // It would come back as soon as it is free.
                        lane.reading = Reading::Done;
                        continue;
                    }
                    lane.reading = Reading::Asked;
                }
                take.push(id);
            }
        }
        take.sort_unstable();
        take.dedup();
        take
    }
}

/// So many lanes are taken at once at most, so that very many keep the others waiting for none of
/// theirs.
const TAKEN_MAX: usize = 256;
