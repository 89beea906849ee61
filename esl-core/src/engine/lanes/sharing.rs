//! Which lanes this engine takes, and which it leaves to others or lets go of.
//!
//! It takes at once what is [to be its own](Peers). What another one is to have is left to that one for a
//! while. When engines come or go, lanes that are to be another's now are let go of: nothing more is sent
//! there, and when all is settled storage frees them.

use std::collections::HashMap;

use super::{LOOK_EVERY, Lanes, Now};
use crate::{
    LaneId, Monotonic, WorkerId,
    engine::{
        lane::{Claim, Stay},
        peers::Peers,
    },
    storage::{Waiting, Worker},
};

/// What is on its way to other engines.
#[derive(Debug, Default)]
pub(super) struct Handover {
    /// Lanes to be let go of.
    planned: Vec<LaneId>,
    /// Lanes that storage is to free: those that have [left](Stay::Left), and some that were forgotten.
    pub(super) ready: Vec<LaneId>,
    /// Free lanes with work that others are to take, since when they were seen so at each look …
    left: HashMap<LaneId, Monotonic>,
    /// … and those that the present look has come upon.
    left_now: HashMap<LaneId, Monotonic>,
}

impl Lanes {
    /// An epoch has begun, or goes on; it lasts until `end`, and these take lanes. How many they are, if
    /// they have changed.
    pub(crate) fn extend_epoch(
        &mut self,
        worker: Worker,
        end: Monotonic,
        peers: Vec<WorkerId>,
    ) -> Option<usize> {
        self.worker = Some(worker);
        self.epoch_end = end;
        let peers = Peers::new(worker.id, peers);
        if peers == self.peers {
            return None;
        }
        self.peers = peers;
        self.plan_handover();
        Some(self.peers.count())
    }

    /// Who shares the lanes with this engine.
    pub(crate) const fn peers(&self) -> &Peers {
        &self.peers
    }

    fn plan_handover(&mut self) {
        let (mut planned, mut stays) = (Vec::new(), Vec::new());
        for (id, lane) in &self.lanes {
            match (lane.stay, self.peers.has_lane(*id)) {
                (Stay::Here, false) if lane.target.is_some() => planned.push(*id),
                (Stay::Leaving, true) => stays.push(*id),
                (Stay::Here | Stay::Leaving | Stay::Left, _) => {}
            }
        }
        self.handover.planned = planned;
        for id in stays {
            let lane = self.lanes.get_mut(&id).expect("it was just there");
            lane.stay = Stay::Here;
            // Storage may have freed it all the same.
            lane.target = None;
            self.read(id);
        }
    }

    /// Begins to let go of so many lanes that are to be others'; true if there are more.
    pub(crate) fn leave_some(&mut self, count: usize) -> bool {
        for _ in 0..count {
            let Some(id) = self.handover.planned.pop() else { return false };
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            if lane.target.is_some() && lane.stay == Stay::Here && !self.peers.has_lane(id) {
                lane.stay = Stay::Leaving;
                self.drop_jobs(id);
                self.set_alarm(id);
                self.leave_if_settled(id);
            }
        }
        !self.handover.planned.is_empty()
    }

    /// Has storage free a lane on its way out, once nothing of it is under way.
    pub(super) fn leave_if_settled(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id).filter(|lane| lane.has_left()) {
            lane.stay = Stay::Left;
            self.handover.ready.push(id);
        }
    }

    /// Lanes that storage is to free.
    pub(super) fn next_to_release(&mut self) -> Vec<LaneId> {
        let mut ready = std::mem::take(&mut self.handover.ready);
        // One that was forgotten may have been taken again.
        ready.retain(|id| self.lanes.get(id).is_none_or(|lane| lane.stay == Stay::Left));
        ready
    }

    /// Storage has freed these lanes, or may have.
    pub(crate) fn released(&mut self, lanes: &[LaneId], is_certain: bool) {
        for &id in lanes {
            let stay = self.lanes.get(&id).map(|lane| lane.stay);
            match (stay, is_certain) {
                (Some(Stay::Left), true) => {
                    self.remove(id);
                    // Something may have come for it meanwhile.
                    self.ask(id);
                }
                (Some(Stay::Left) | None, false) => self.handover.ready.push(id),
                // It was forgotten; and perhaps it is about to be taken again.
                (None, true) | (Some(Stay::Here | Stay::Leaving), _) => {}
            }
        }
    }

    /// Takes a lane that has work, if it is to be ours; otherwise whoever has it is told.
    pub(super) fn ask(&mut self, id: LaneId) {
        if self.peers.has_lane(id) {
            self.read(id);
        } else {
            self.to_tell.push(id);
        }
    }

    /// There is something to be done for a lane, by whoever has it. If nobody seems to, this engine takes
    /// it after all: it may have been its own all along, and forgotten.
    pub(crate) fn see_to(&mut self, id: LaneId, is_overdue: bool) {
        let is_in_hand = self.lanes.get(&id).is_some_and(|lane| lane.target.is_some());
        if !is_in_hand && (is_overdue || self.peers.has_lane(id)) {
            self.read(id);
        }
    }

    /// Another engine says that a lane has work.
    pub(crate) fn hinted(&mut self, id: LaneId) {
        let is_ours = self.lanes.get(&id).is_some_and(|lane| lane.target.is_some());
        if is_ours {
            self.wake(id);
        } else if self.peers.has_lane(id) {
            self.read(id);
        }
    }

    /// A look at what waits in storage begins.
    pub(crate) fn begin_look(&mut self) {
        self.handover.left_now.clear();
    }

    /// A look has come to its end.
    pub(crate) fn end_look(&mut self) {
        self.handover.left = std::mem::take(&mut self.handover.left_now);
    }

    /// Wakes a lane that storage says has open deliveries, unless it is in hand already.
    pub(crate) fn wake_if_idle(&mut self, waiting: Waiting, now: Now) {
        let id = waiting.lane;
        let Some(lane) = self.lanes.get(&id).filter(|lane| lane.target.is_some()) else {
            return self.take_or_leave(id, now.monotonic);
        };
        if lane.stay != Stay::Here {
            return;
        }
        if !lane.is_sending() {
            // It was resumed, and nobody told of it.
            return self.read(id);
        }
        let is_busy = lane.has_jobs()
            || lane.in_flight > 0
            || lane.claim != Claim::Idle
            || lane.blocked.is_some()
            || !lane.held.is_empty();
        // Of what it has to wait for, it knows; and storage's clock may be ahead of ours.
        if (waiting.due_at <= now.utc || lane.due.is_none()) && !is_busy {
            self.wake(id);
        }
    }

    /// Takes a lane that waits and is not in hand; one that another is to have, once that one has left it
    /// waiting for so long that it would have seen it.
    fn take_or_leave(&mut self, id: LaneId, now: Monotonic) {
        let since = self.handover.left.get(&id).copied().unwrap_or(now);
        if self.peers.has_lane(id) || now.saturating_sub(since) >= LOOK_EVERY {
            self.read(id);
        } else {
            self.handover.left_now.insert(id, since);
        }
    }
}
