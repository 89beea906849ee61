//! One lane: its deliveries in hand, and what is known of its receiver.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::{
    Monotonic, OrganizationId, SealedEvent, Seq, Signer, Subscription, storage::LaneState,
};

/// Where a lane's deliveries go, prepared for sending.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) subscription: Subscription,
    pub(crate) signer: Signer,
}

/// A delivery in hand.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) seq: Seq,
    pub(crate) event: Arc<SealedEvent>,
    pub(crate) attempts: u32,
    pub(crate) charged: u32,
    pub(crate) is_retry: bool,
}

impl Job {
    /// One that was never tried.
    pub(super) fn new(seq: Seq, event: &Arc<SealedEvent>) -> Self {
        Self { seq, event: Arc::clone(event), attempts: 0, charged: 0, is_retry: false }
    }
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) organization: OrganizationId,
    /// `None` until the lane is taken, and when it is another worker's.
    pub(super) target: Option<Arc<Target>>,
    /// Another worker had it when we last asked.
    pub(super) is_foreign: bool,
    pub(super) state: LaneState,
    /// The deliveries behind `state.failed_deliveries`, as far as this worker saw them.
    pub(super) failed: Vec<Seq>,
    pub(super) retries: VecDeque<Job>,
    pub(super) window: VecDeque<Job>,
    pub(super) after: Seq,
    pub(super) is_spilled: bool,
    pub(super) claim: Claim,
    /// What was committed since the running claim began.
    pub(super) arrivals: Vec<Job>,
    /// Whether something passed since then that is not among the arrivals.
    pub(super) is_incomplete: bool,
    pub(super) held: HashSet<Seq>,
    /// When the next retry is due that is not in hand.
    pub(super) due: Option<Monotonic>,
    /// Nothing is sent before.
    pub(super) blocked: Option<Monotonic>,
    pub(super) alarm: Option<Monotonic>,
    pub(super) in_flight: u32,
    pub(super) limit: u32,
    pub(super) streak: u32,
    pub(super) is_in_turn: bool,
    pub(super) last_success: Option<Monotonic>,
    pub(super) was_tried: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    Idle,
    Queued,
    Running { with_new: bool },
}

impl Lane {
    pub(super) fn new(organization: OrganizationId) -> Self {
        Self {
            organization,
            target: None,
            is_foreign: false,
            state: LaneState::default(),
            failed: Vec::new(),
            retries: VecDeque::new(),
            window: VecDeque::new(),
            after: Seq::ZERO,
            is_spilled: true,
            claim: Claim::Idle,
            arrivals: Vec::new(),
            is_incomplete: false,
            held: HashSet::new(),
            due: None,
            blocked: None,
            alarm: None,
            in_flight: 0,
            limit: LANE_IN_FLIGHT_START,
            streak: 0,
            is_in_turn: false,
            last_success: None,
            was_tried: false,
        }
    }

    /// Begins anew with a receiver of whom nothing is known.
    pub(super) fn meet_receiver(&mut self) {
        self.failed.clear();
        self.limit = LANE_IN_FLIGHT_START;
        self.streak = 0;
        self.last_success = None;
        self.was_tried = false;
    }

    /// Whether it is this worker's and active.
    pub(super) fn is_sending(&self) -> bool {
        self.target.as_ref().is_some_and(|target| target.subscription.active)
    }

    /// It has to look in storage, whatever a running claim brings.
    pub(super) fn spill(&mut self) {
        self.is_spilled = true;
        self.is_incomplete = true;
    }

    /// Lets a commit pass; keeps it in mind if a running claim may not see it.
    pub(super) fn arrive(&mut self, seq: Seq, event: &Arc<SealedEvent>, arrivals_max: usize) {
        let is_awaited = self.claim == Claim::Running { with_new: true };
        if is_awaited && self.arrivals.len() < arrivals_max {
            self.arrivals.push(Job::new(seq, event));
        } else {
            self.is_incomplete = true;
        }
    }

    pub(super) fn has_jobs(&self) -> bool {
        !self.window.is_empty() || !self.retries.is_empty()
    }

    pub(super) fn can_send(&self) -> bool {
        let limit = if self.state.is_open() { 1 } else { self.limit };
        // A probe is made with the oldest delivery, so it waits for a claim that may bring it.
        let is_ready = !self.state.is_open() || self.claim == Claim::Idle;
        let has_room = self.has_jobs() && self.in_flight < limit;
        has_room && is_ready && self.blocked.is_none() && self.is_sending()
    }

    pub(super) fn is_unproven(&self, now: Monotonic) -> bool {
        let is_proven = self.last_success.is_some_and(|at| now.saturating_sub(at) < PROVEN_FOR);
        self.was_tried && !is_proven
    }

    /// A due retry, or else the next in order; the oldest of all for a probe.
    pub(super) fn pop(&mut self, is_probe: bool) -> Job {
        if is_probe {
            let oldest = (0..self.retries.len()).min_by_key(|&index| self.retries[index].seq);
            let is_older = |retry: &Job| self.window.front().is_none_or(|job| retry.seq < job.seq);
            if let Some(index) = oldest
                && is_older(&self.retries[index])
            {
                return self.retries.remove(index).expect("the index was just found");
            }
            if let Some(job) = self.window.pop_front() {
                return job;
            }
        }
        self.retries
            .pop_front()
            .or_else(|| self.window.pop_front())
            .expect("a lane that can send has a job")
    }

    /// A retry's time that is not yet passed to a claim.
    pub(super) fn due_later(&self) -> Option<Monotonic> {
        self.due.filter(|due| *due > Monotonic::ZERO)
    }

    /// Lets a lane that succeeds at its limit have twice as many sends at a time.
    pub(super) fn widen(&mut self, limit_max: u32) {
        self.streak += 1;
        if self.streak >= self.limit && self.limit < limit_max {
            self.limit = (self.limit * 2).min(limit_max);
            self.streak = 0;
        }
    }
}

/// Sends under way in a lane of which nothing is known.
const LANE_IN_FLIGHT_START: u32 = 4;
/// After so long without a success a lane that was tried is no longer sure of its share.
const PROVEN_FOR: Duration = Duration::from_secs(60);
