//! What lanes fetch from storage, and what comes of it.

use super::{Errands, Lanes, Now, ROOM_MIN, TAKEN_MAX};
use crate::{
    LaneId, Monotonic, Seq,
    engine::lane::{Claim, Job},
    storage::{Claimed, Want},
};

impl Lanes {
    /// What is to be fetched from storage, at most so many lanes at once.
    pub(crate) fn errands(&mut self, lanes_max: usize) -> Errands {
        let later = self.to_take.split_off(self.to_take.len().min(TAKEN_MAX));
        let mut errands = Errands {
            take: std::mem::replace(&mut self.to_take, later),
            tell: std::mem::take(&mut self.to_tell),
            wants: Vec::new(),
            bytes: self.limits.bytes.saturating_sub(self.bytes).max(1),
        };
        for lanes in [&mut errands.take, &mut errands.tell] {
            lanes.sort_unstable();
            lanes.dedup();
        }
        while errands.wants.len() < lanes_max {
            let Some(id) = self.to_claim.pop_front() else { break };
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            if lane.claim != Claim::Queued {
                continue;
            }
            let in_hand = lane.window.len() + lane.retries.len();
            let room_in_all = self.limits.windows.saturating_sub(self.jobs);
            let room = self.limits.window.saturating_sub(in_hand).min(room_in_all).max(ROOM_MIN);
            let in_order = lane.is_strict();
            let with_new = lane.is_spilled || in_order;
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
            self.jobs += 1;
            self.bytes += job.event.body.len();
            if job.is_retry { lane.retries.push_back(job) } else { lane.window.push_back(job) }
        }
        if with_new && claimed.is_all && !lane.is_incomplete {
            lane.is_spilled = false;
            for job in arrivals {
                if job.seq > lane.after {
                    lane.after = job.seq;
                    self.jobs += 1;
                    self.bytes += job.event.body.len();
                    lane.window.push_back(job);
                }
            }
        }
        let next_due = claimed.next_due.map(|at| now.until(at));
        lane.due = lane.due.into_iter().chain(next_due).min();
        self.set_alarm(id);
        self.offer(id);
        self.refill(id);
    }

    fn claimed_in_order(&mut self, id: LaneId, claimed: Claimed, now: Now) {
        let lane = self.lanes.get_mut(&id).expect("the caller has looked it up");
        for due in claimed.due {
            let job = Job::claimed(due);
            self.jobs += 1;
            self.bytes += job.event.body.len();
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
            self.to_claim.push_back(id);
        }
    }

    /// Lets go of what waits in memory; storage has it.
    pub(super) fn drop_jobs(&mut self, id: LaneId) {
        let lane = self.lanes.get_mut(&id).expect("the caller has looked it up");
        if let Some(first) = lane.window.front() {
            // Windows are in the order of seq, so everything under way is below.
            lane.after = Seq::new(first.seq.get() - 1);
        }
        for job in lane.window.drain(..).chain(lane.retries.drain(..)) {
            self.jobs -= 1;
            self.bytes = self.bytes.saturating_sub(job.event.body.len());
            if job.is_retry {
                lane.held.remove(&job.seq);
            }
        }
        lane.spill();
        lane.due = Some(Monotonic::ZERO);
        if lane.claim != Claim::Idle {
            // What it brings was asked for with another mark.
            lane.claim = Claim::Idle;
        }
    }
}
