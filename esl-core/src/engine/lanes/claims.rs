//! What lanes fetch from storage, and what comes of it.

use super::{Errands, Lanes, Now, ROOM_MIN};
use std::sync::Arc;

use crate::{
    LaneId, Monotonic, Seq,
    engine::lane::{Claim, Job},
    storage::{Claimed, Want},
};

impl Lanes {
    /// What is to be fetched from storage, at most so many lanes at once.
    pub(crate) fn errands(&mut self, lanes_max: usize) -> Errands {
        let mut errands = Errands {
            take: self.next_to_take(),
            tell: std::mem::take(&mut self.to_tell),
            wants: Vec::new(),
            bytes: self.limits.bytes.saturating_sub(self.bytes).max(1),
        };
        errands.tell.sort_unstable();
        errands.tell.dedup();
        while errands.wants.len() < lanes_max {
            let Some(id) = self.to_claim.pop() else { break };
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            if lane.claim != Claim::Queued {
                continue;
            }
            if !lane.is_sending() {
                lane.claim = Claim::Idle;
                continue;
            }
            let in_order = lane.is_strict();
            let with_new = lane.is_spilled || in_order;
            let (room, in_hand) = if with_new {
                (self.limits.window, lane.window.len() + lane.retries.len())
            } else {
                (self.limits.window / 2, lane.retries.len())
            };
            let organization = lane.organization;
            let room = room.saturating_sub(in_hand).min(self.room(organization)).max(ROOM_MIN);
            let lane = self.lanes.get_mut(&id).expect("it was just there");
            lane.claim = Claim::Running { with_new };
            lane.arrivals.clear();
            lane.is_incomplete = false;
            // The claim answers for what is due now; what comes to be due meanwhile is noted anew.
            lane.due = None;
            errands.wants.push(Want {
                lane: id,
                room,
                // A strict lane claims when nothing is in hand, and by what storage says alone.
                after: with_new.then_some(if in_order { Seq::ZERO } else { lane.after }),
                held: if in_order { Vec::new() } else { lane.held.iter().copied().collect() },
                in_order,
            });
        }
        errands
    }

    /// What a claim brought for one of its wants; `None` if the lane was left out.
    pub(crate) fn claimed(&mut self, id: LaneId, claimed: Option<Claimed>, now: Now) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let Claim::Running { with_new } = lane.claim else { return };
        lane.claim = Claim::Idle;
        let arrivals = std::mem::take(&mut lane.arrivals);
        let Some(claimed) = claimed.filter(|_| lane.is_sending()) else { return };
        if lane.is_strict() {
            return self.claimed_in_order(id, claimed, now);
        }
        let mut came = Vec::with_capacity(claimed.due.len());
        for due in claimed.due {
            let job = Job::claimed(due);
            if job.is_retry {
                if !lane.held.insert(job.seq) {
                    continue;
                }
            } else if job.seq <= lane.after {
                continue;
            } else {
                lane.after = job.seq;
            }
            came.push(Arc::clone(&job.event));
            if job.is_retry { lane.retries.push_back(job) } else { lane.window.push_back(job) }
        }
        if with_new && claimed.is_all && !lane.is_incomplete {
            lane.is_spilled = false;
            for job in arrivals {
                if job.seq > lane.after {
                    lane.after = job.seq;
                    came.push(Arc::clone(&job.event));
                    lane.window.push_back(job);
                }
            }
        }
        let next_due = claimed.next_due.map(|at| now.until(at));
        lane.due = lane.due.into_iter().chain(next_due).min();
        let organization = lane.organization;
        came.iter().for_each(|event| self.count_in(organization, event));
        self.set_alarm(id);
        self.offer(id);
        self.refill(id);
    }

    fn claimed_in_order(&mut self, id: LaneId, claimed: Claimed, now: Now) {
        let lane = self.lanes.get_mut(&id).expect("the caller has looked it up");
        let mut came = Vec::with_capacity(claimed.due.len());
        for due in claimed.due {
            let job = Job::claimed(due);
            came.push(Arc::clone(&job.event));
            // Both marks matter when the lane stops being strict while this is under way.
            if job.is_retry {
                lane.held.insert(job.seq);
            } else {
                lane.after = lane.after.max(job.seq);
            }
            lane.window.push_back(job);
        }
        lane.is_spilled = !claimed.is_all || lane.is_incomplete;
        let next_due = claimed.next_due.map(|at| now.until(at));
        lane.due = lane.due.into_iter().chain(next_due).min();
        let organization = lane.organization;
        came.iter().for_each(|event| self.count_in(organization, event));
        self.set_alarm(id);
        self.offer(id);
        self.refill(id);
    }

    /// A claim failed: its lanes ask again when `now` is past.
    pub(crate) fn claim_failed(&mut self, id: LaneId, again: Monotonic) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.claim = Claim::Idle;
        // Before that, an alarm of its own would only run into the same failure.
        lane.due = Some(again);
        lane.arrivals.clear();
        self.set_alarm(id);
        self.offer(id);
    }

    /// Asks for a claim if storage has something for the lane and there is room for it.
    pub(super) fn refill(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if lane.wants_claim(self.limits.window) {
            lane.claim = Claim::Queued;
            self.to_claim.push(lane.organization, id);
        }
    }

    /// Lets go of what waits in memory; storage has it.
    pub(super) fn drop_jobs(&mut self, id: LaneId) {
        let lane = self.lanes.get_mut(&id).expect("the caller has looked it up");
        if let Some(first) = lane.window.front() {
            // Windows are in the order of seq, so everything under way is below.
            lane.after = Seq::new(first.seq.get() - 1);
        }
        let organization = lane.organization;
        let jobs: Vec<Job> = lane.window.drain(..).chain(lane.retries.drain(..)).collect();
        for job in jobs.iter().filter(|job| job.is_retry) {
            lane.held.remove(&job.seq);
        }
        lane.spill();
        lane.due = Some(Monotonic::ZERO);
        if let Claim::Running { .. } = lane.claim {
            // What it brings was asked for with another mark.
            lane.claim = Claim::Idle;
        }
        for job in jobs {
            self.bytes = self.bytes.saturating_sub(job.event.body.len());
            self.count_out(organization);
        }
    }
}
