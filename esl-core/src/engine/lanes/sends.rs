//! Sends: which is next, and what each has led to.

use std::sync::Arc;

use super::{Bearing, Finished, Lanes, Now, Sending};
use crate::{LaneId, Monotonic, Seq, Timestamp, engine::lane::Hold, storage::Worker};

impl Lanes {
    /// The next delivery to send, if there is one and room for it.
    pub(crate) fn next(&mut self, now: Monotonic) -> Option<Sending> {
        let worker = self.worker?;
        let is_full =
            self.in_flight >= self.limits.in_flight || self.unsettled >= self.limits.unsettled;
        self.latest = now;
        if is_full || self.is_stopped {
            return None;
        }
        let is_waited = !self.turn.is_empty() || !self.unproven.is_empty();
        if !is_waited || !self.breadth.has_room() {
            return None;
        }
        loop {
            let id = self.next_lane()?;
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            lane.is_in_turn = false;
            if !lane.can_send() {
                continue;
            }
            let is_unproven = lane.is_unproven(now);
            if is_unproven && self.in_flight_unproven >= share(self.limits.in_flight) {
                // It was well when it was put where it waited.
                lane.is_in_turn = true;
                self.unproven.push(lane.organization, id);
                continue;
            }
            let target = Arc::clone(lane.target.as_ref().expect("a lane that can send has one"));
            if now + target.timeout >= self.epoch_end {
                // It goes on when the epoch does.
                self.offer(id);
                return None;
            }
            let is_probe = lane.state.is_open();
            let job = lane.pop(is_probe);
            lane.begin(now);
            let (organization, is_paced) = (lane.organization, lane.paced_until.is_some());
            if is_paced {
                self.set_alarm(id);
            }
            let entry = self.organizations.get_mut(&organization).expect("its lane is listed");
            entry.in_flight += 1;
            if entry.in_flight >= share(self.limits.in_flight) {
                self.turn.leave_out(organization);
                self.unproven.leave_out(organization);
            }
            self.count_out(organization);
            self.in_flight += 1;
            self.in_flight_unproven += u32::from(is_unproven);
            let pulse = self.breadth.begin();
            self.offer(id);
            self.refill(id);
            return Some(Sending { worker, lane: id, target, job, is_probe, is_unproven, pulse });
        }
    }

    /// The next lane in turn. The unproven ones take turns with the others, while their share lasts.
    fn next_lane(&mut self) -> Option<LaneId> {
        let may_be_unproven = self.in_flight_unproven < share(self.limits.in_flight);
        if may_be_unproven && self.is_unproven_next {
            self.is_unproven_next = false;
            if let Some(id) = self.unproven.pop() {
                return Some(id);
            }
        }
        self.is_unproven_next = true;
        let others = self.turn.pop();
        if others.is_none() && may_be_unproven { self.unproven.pop() } else { others }
    }

    /// A send is over.
    pub(crate) fn finished(&mut self, send: &Sending, bearing: Bearing, now: Now) -> Finished {
        self.in_flight -= 1;
        self.unsettled += 1;
        self.bytes = self.bytes.saturating_sub(send.job.event.body.len());
        self.in_flight_unproven -= u32::from(send.is_unproven);
        self.breadth.end(send.pulse);
        let in_flight_default = self.limits.lane_in_flight;
        // What an earlier epoch began says nothing of the lane that is there now.
        let is_ours = self.worker == Some(send.worker);
        let organization = send.target.subscription.organization;
        if let Some(entry) = self.organizations.get_mut(&organization).filter(|_| is_ours) {
            entry.in_flight = entry.in_flight.saturating_sub(1);
            self.turn.let_in(organization);
            self.unproven.let_in(organization);
        }
        let lane = self.lanes.get_mut(&send.lane).filter(|_| is_ours);
        let Some(lane) = lane else { return Finished::default() };
        lane.in_flight = lane.in_flight.saturating_sub(1);
        lane.unsettled += 1;
        let before = lane.state;
        let mut tells_of_exhaustion = false;
        match bearing {
            Bearing::Well => {
                lane.state = before.after_success(now.utc);
                lane.failed.clear();
                lane.blocked = None;
                lane.last_success = Some(now.monotonic);
                lane.widen(in_flight_default);
            }
            Bearing::Failing { retry_after, is_strained, is_last } => {
                let is_new_delivery = !lane.failed.contains(&send.job.seq);
                if is_new_delivery
                    && lane.failed.len() < crate::circuit::DELIVERIES_TO_OPEN as usize
                {
                    lane.failed.push(send.job.seq);
                }
                let strike = crate::circuit::Strike {
                    is_new_delivery,
                    is_probe: send.is_probe,
                    retry_after,
                };
                lane.state = before.after_failure(strike, now.utc);
                tells_of_exhaustion = is_last && before.is_to_tell_of_exhaustion(now.utc);
                if tells_of_exhaustion {
                    lane.state.exhaustion_told_at = Some(now.utc);
                }
                lane.blocked =
                    lane.state.not_before.filter(|at| *at > now.utc).map(|at| now.until(at));
                lane.streak = 0;
                if is_strained {
                    lane.limit = (lane.limit / 2).max(1);
                }
            }
            Bearing::Unasked(wait) => lane.blocked = lane.blocked.max(Some(now.monotonic + wait)),
        }
        let state = (lane.state != before).then_some(lane.state);
        if lane.is_strict() && !matches!(bearing, Bearing::Well) {
            // What comes next is storage's to say: this one again, or the one after it.
            self.drop_jobs(send.lane);
        }
        self.set_alarm(send.lane);
        self.offer(send.lane);
        self.refill(send.lane);
        Finished { state, tells_of_exhaustion }
    }

    /// A subscription is to be switched off, and nothing more goes there. False if that was said
    /// before, or the lane is not this worker's.
    pub(crate) fn switch_off(&mut self, send: &Sending) -> bool {
        let is_ours = self.worker == Some(send.worker);
        let Some(lane) = self.lanes.get_mut(&send.lane).filter(|_| is_ours) else { return false };
        if std::mem::replace(&mut lane.is_switched_off, true) {
            return false;
        }
        self.drop_jobs(send.lane);
        self.set_alarm(send.lane);
        true
    }

    /// What was to be switched off is, unless its deletion or somebody else came first: the lane goes
    /// by what storage says.
    pub(crate) fn switched_off(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.is_switched_off = false;
            lane.target = None;
            self.read(id);
        }
    }

    /// A settlement was committed, or is void because the delivery is no longer this worker's;
    /// `retry_at` if the delivery is still owed.
    pub(crate) fn settled(
        &mut self,
        by: &Worker,
        (id, seq, hold): (LaneId, Seq, Option<Hold>),
        retry_at: Option<Timestamp>,
        now: Now,
    ) {
        self.unsettled -= 1;
        let is_ours = self.worker.as_ref() == Some(by);
        let Some(lane) = self.lanes.get_mut(&id).filter(|_| is_ours) else { return };
        lane.unsettled = lane.unsettled.saturating_sub(1);
        if lane.has_left() {
            return self.leave_if_settled(id);
        }
        // A claim that saw this commit before we heard of it may have brought the delivery already, and
        // holds it anew.
        if hold.is_some() && lane.held.get(&seq) == hold.as_ref() {
            lane.held.remove(&seq);
        }
        if let Some(at) = retry_at {
            let at = now.until(at);
            lane.due = Some(lane.due.map_or(at, |due| due.min(at)));
        } else if !lane.is_strict() {
            return;
        }
        self.set_alarm(id);
        self.offer(id);
        self.refill(id);
    }

    /// Sends to a lane's receiver again without waiting for the time that it, or the circuit, asked
    /// for: a person wants to see at once what happens.
    pub(crate) fn unblock(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.blocked = None;
            self.set_alarm(id);
            self.refill(id);
            self.offer(id);
        }
    }

    /// Puts a lane in the turn if it can send.
    pub(super) fn offer(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if !lane.is_in_turn && lane.can_send() {
            lane.is_in_turn = true;
            let is_unproven = lane.is_unproven(self.latest);
            let turn = if is_unproven { &mut self.unproven } else { &mut self.turn };
            turn.push(lane.organization, id);
        }
    }
}

/// Three quarters, and one at least: what one organization, or the unproven lanes, may have of all
/// sends.
fn share(of: u32) -> u32 {
    (of / 4 * 3).max(1)
}
