//! One lane: its deliveries in hand, and what is known of its receiver.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use super::{pace::Pace, target::Target};
use crate::{
    Monotonic, OrganizationId, SealedEvent, SendOrder, Seq, Subscription,
    storage::{Due, LaneState},
};

/// A delivery in hand.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) seq: Seq,
    pub(crate) event: Arc<SealedEvent>,
    pub(crate) attempts: u32,
    pub(crate) charged: u32,
    pub(crate) is_retry: bool,
    /// Of a retry: what keeps it from being handed out twice.
    pub(crate) hold: Option<Hold>,
}

/// Which of the claims of a lane has brought a retry that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hold(u64);

impl Job {
    /// One that a claim has brought.
    pub(super) fn claimed(due: Due, claim: u64) -> Self {
        let Due { seq, event, is_retry, attempts, charged } = due;
        Self { seq, event, attempts, charged, is_retry, hold: is_retry.then_some(Hold(claim)) }
    }

    /// One that was never tried.
    pub(super) fn new(seq: Seq, event: &Arc<SealedEvent>) -> Self {
        Self { seq, event: Arc::clone(event), attempts: 0, charged: 0, is_retry: false, hold: None }
    }
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) organization: OrganizationId,
    /// `None` until the lane is taken, and when it is another worker's.
    pub(super) target: Option<Arc<Target>>,
    pub(super) reading: Reading,
    /// What its subscription was changed to since it was read.
    pub(super) told: Option<Box<Subscription>>,
    /// Another worker had it when we last asked.
    pub(super) is_foreign: bool,
    /// If another worker has it, that one is to be told that something has come.
    pub(super) is_to_tell: bool,
    pub(super) stay: Stay,
    pub(super) state: LaneState,
    /// The deliveries behind `state.failed_deliveries`, as far as this worker saw them.
    pub(super) failed: Vec<Seq>,
    pub(super) retries: VecDeque<Job>,
    pub(super) window: VecDeque<Job>,
    /// Whether the last one sent was a retry.
    was_retry: bool,
    pub(super) after: Seq,
    pub(super) is_spilled: bool,
    /// The commit that was under way when it was taken. What that has brought, another worker may have
    /// delivered before.
    pub(super) taken_during: Option<u64>,
    /// How many of its organization's looks it has followed.
    pub(super) looks: u64,
    pub(super) claim: Claim,
    /// What was committed since the running claim began.
    pub(super) arrivals: Vec<Job>,
    /// Whether something passed since then that is not among the arrivals.
    pub(super) is_incomplete: bool,
    pub(super) held: HashMap<Seq, Hold>,
    /// How many claims have brought something.
    pub(super) claims: u64,
    /// When the next retry is due that is not in hand.
    pub(super) due: Option<Monotonic>,
    /// Nothing is sent before.
    pub(super) blocked: Option<Monotonic>,
    /// How many sends a second its subscription allows.
    pub(super) pace: Option<Pace>,
    /// Nothing is sent before: the pace has used up what there was.
    pub(super) paced_until: Option<Monotonic>,
    pub(super) alarm: Option<Monotonic>,
    pub(super) in_flight: u32,
    /// Sends that are over and whose settlements are not committed.
    pub(super) unsettled: u32,
    /// Its subscription is being switched off.
    pub(super) is_switched_off: bool,
    pub(super) limit: u32,
    pub(super) streak: u32,
    pub(super) is_in_turn: bool,
    pub(super) last_success: Option<Monotonic>,
    pub(super) was_tried: bool,
    /// Whether something came for it lately.
    pub(super) was_used: bool,
}

/// Whether a lane is to be another engine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stay {
    /// It is not.
    Here,
    /// Nothing more is sent there, and what is under way comes to its end.
    Leaving,
    /// Storage is to free it.
    Left,
}

/// How far reading a lane's subscription from storage has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// What is known is what was read last.
    Done,
    /// It is to be read.
    Queued,
    /// It is being read.
    Asked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    Idle,
    Queued,
    Running { with_new: bool },
}

impl Lane {
    pub(super) fn new(organization: OrganizationId, looks: u64) -> Self {
        Self {
            organization,
            target: None,
            reading: Reading::Done,
            told: None,
            is_foreign: false,
            is_to_tell: false,
            stay: Stay::Here,
            state: LaneState::default(),
            failed: Vec::new(),
            retries: VecDeque::new(),
            window: VecDeque::new(),
            was_retry: false,
            after: Seq::ZERO,
            is_spilled: true,
            taken_during: None,
            looks,
            claim: Claim::Idle,
            arrivals: Vec::new(),
            is_incomplete: false,
            held: HashMap::new(),
            claims: 0,
            due: None,
            blocked: None,
            pace: None,
            paced_until: None,
            alarm: None,
            in_flight: 0,
            unsettled: 0,
            is_switched_off: false,
            limit: LANE_IN_FLIGHT_START,
            streak: 0,
            is_in_turn: false,
            last_success: None,
            was_tried: false,
            was_used: true,
        }
    }

    /// Somebody has changed its subscription to this.
    pub(super) fn follow_update(&mut self, after: &Subscription) {
        let Some(target) = &self.target else { return };
        let before = self.told.as_deref().unwrap_or(&target.subscription);
        let state = self.state.after_update(before, after);
        if before.callback_url != after.callback_url {
            self.meet_receiver();
        }
        if std::mem::replace(&mut self.state, state) != state && state.not_before.is_none() {
            self.blocked = None;
        }
    }

    /// Begins anew with a receiver of whom nothing is known.
    fn meet_receiver(&mut self) {
        self.failed.clear();
        self.limit = LANE_IN_FLIGHT_START;
        self.streak = 0;
        self.last_success = None;
        self.was_tried = false;
    }

    /// Whether it is this worker's and active.
    pub(super) fn is_sending(&self) -> bool {
        let stays = !self.is_switched_off && self.stay == Stay::Here;
        let target = self.target.as_ref().filter(|_| stays);
        target.is_some_and(|target| target.subscription.is_sending())
    }

    /// Whether a delivery waits for the one before it.
    ///
    /// Such a lane takes everything by claims, which hand out in order. It claims when nothing is in
    /// hand and all is settled, and lets go of what it holds as soon as something may come before
    /// it: a failure, or a delivery that was opened again.
    pub(super) fn is_strict(&self) -> bool {
        let order = self.target.as_ref().map(|target| target.subscription.options.order);
        order == Some(SendOrder::Strict)
    }

    /// Whether it is on its way out, and nothing of it is under way any more.
    pub(super) fn has_left(&self) -> bool {
        self.stay == Stay::Leaving && self.is_settled()
    }

    fn is_settled(&self) -> bool {
        self.in_flight == 0 && self.unsettled == 0
    }

    /// Whether storage has something for the lane, and it has no more than `low` in hand.
    pub(super) fn wants_claim(&self, window_max: usize, low: usize) -> bool {
        let is_due = self.due == Some(Monotonic::ZERO);
        let is_wanted = if self.is_strict() {
            // A retry that is due later blocks what has come since.
            is_due || (self.is_spilled && self.due_later().is_none())
        } else {
            let is_low = self.window.len() + self.retries.len() <= low;
            // So that however many are due, memory holds a window's worth of them.
            let has_few_retries = self.retries.len() <= low.min(window_max / 4);
            (self.is_spilled && is_low) || (is_due && has_few_retries)
        };
        is_wanted && self.may_claim() && self.blocked.is_none() && self.claim == Claim::Idle
    }

    /// Whether a claim brings nothing that is in hand. A strict lane's goes by what storage says alone,
    /// and storage does not know what is under way.
    pub(super) fn may_claim(&self) -> bool {
        self.is_sending() && (!self.is_strict() || (!self.has_jobs() && self.is_settled()))
    }

    /// It has to look in storage, whatever a running claim brings.
    pub(super) fn spill(&mut self) {
        self.is_spilled = true;
        self.is_incomplete = true;
    }

    /// Lets a commit pass; keeps it in mind if a running claim may not see it.
    pub(super) fn arrive(&mut self, seq: Seq, event: &Arc<SealedEvent>, arrivals_max: usize) {
        let is_awaited = self.claim == Claim::Running { with_new: true } && !self.is_strict();
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
        let is_its_turn = !self.is_strict() || self.is_settled();
        let is_free = self.blocked.is_none() && self.paced_until.is_none() && self.told.is_none();
        has_room && is_its_turn && is_ready && is_free && self.is_sending()
    }

    /// What is to be sent next of what was never tried, if nothing but room keeps it.
    pub(super) fn next_untried(&self) -> Option<&Job> {
        let waits = self.blocked.is_some() || self.paced_until.is_some();
        let is_held_up = waits || self.state.is_open() || !self.is_sending();
        if is_held_up { None } else { self.window.front().filter(|job| !job.is_retry) }
    }

    pub(super) fn is_unproven(&self, now: Monotonic) -> bool {
        let is_proven = self.last_success.is_some_and(|at| now.saturating_sub(at) < PROVEN_FOR);
        self.was_tried && !is_proven
    }

    /// The next in order, or a due retry: where there are both they take turns, so that neither
    /// many retries nor many new events keep the others waiting. The oldest of all for a probe.
    pub(super) fn pop(&mut self, is_probe: bool) -> Job {
        if is_probe {
            let oldest = (0..self.retries.len()).min_by_key(|&index| self.retries[index].seq);
            let is_older = |retry: &Job| self.window.front().is_none_or(|job| retry.seq < job.seq);
            if let Some(index) = oldest
                && is_older(&self.retries[index])
            {
                return self.retries.remove(index).expect("the index was just found");
            }
            if let Some(job) = self.pop_window() {
                return job;
            }
        }
        let is_retrys_turn = self.window.is_empty() || !self.was_retry;
        let retry = if is_retrys_turn { self.retries.pop_front() } else { None };
        self.was_retry = retry.is_some();
        retry.or_else(|| self.pop_window()).expect("a lane that can send has a job")
    }

    fn pop_window(&mut self) -> Option<Job> {
        let job = self.window.pop_front();
        // Very many lanes have had much at some time.
        let capacity = self.window.capacity();
        if capacity > WINDOW_KEPT && self.window.len() <= capacity / 4 {
            self.window.shrink_to(capacity / 2);
        }
        job
    }

    /// Whether its receiver has taken most of what it was given.
    pub(super) fn keeps_up(&self, window_max: usize) -> bool {
        if self.target.is_none() {
            // About to be taken, or somebody else's.
            return false;
        }
        // An open circuit is closed by a probe, and a probe is made with a delivery: there must be one.
        let has_probe = self.has_jobs() || !self.is_settled() || self.due.is_some();
        let is_tried = !self.state.is_open() || !has_probe;
        let is_reachable = self.is_sending() && is_tried && self.blocked.is_none();
        // What was opened before and is not in hand yet comes first.
        let is_caught_up = self.due != Some(Monotonic::ZERO) && self.claim == Claim::Idle;
        let waiting = if self.is_strict() { self.window.len() } else { self.retries.len() };
        is_reachable && is_caught_up && waiting < window_max / 2
    }

    /// Whether there is nothing to remember of it: storage has nothing that is open and was handed out,
    /// and will be asked when something comes.
    pub(super) fn is_idle(&self) -> bool {
        let is_known = self.target.is_some() || self.is_foreign;
        let has_all = !self.is_spilled || !self.is_sending();
        let has_nothing = !self.has_jobs() && self.is_settled() && self.held.is_empty();
        let waits_for_nothing = self.claim == Claim::Idle
            && self.alarm.is_none()
            && (self.due.is_none() || !self.is_sending())
            && self.blocked.is_none()
            && !self.is_in_turn
            && self.reading == Reading::Done
            && !self.is_switched_off
            && self.stay == Stay::Here;
        is_known && has_all && has_nothing && waits_for_nothing
    }

    /// A retry's time that is not yet passed to a claim.
    pub(super) fn due_later(&self) -> Option<Monotonic> {
        self.due.filter(|due| *due > Monotonic::ZERO)
    }

    /// Follows its subscription in how many sends there may be, at once and in a second.
    pub(super) fn follow_options(&mut self, in_flight_default: u32, now: Monotonic) {
        let limit_max = self.limit_max(in_flight_default);
        self.limit = self.limit.min(limit_max);
        let options = self.target.as_ref().map(|target| &target.subscription.options);
        let per_second = options.and_then(|options| options.max_per_second);
        if per_second != self.pace.map(|pace| pace.per_second()) {
            self.pace = per_second.map(|per_second| Pace::new(per_second, now));
            self.paced_until = None;
        }
    }

    fn limit_max(&self, in_flight_default: u32) -> u32 {
        let options = self.target.as_ref().map(|target| &target.subscription.options);
        let own = options.and_then(|options| options.max_in_flight);
        own.map_or(in_flight_default, NonZeroU32::get)
    }

    /// A send begins.
    pub(super) fn begin(&mut self, now: Monotonic) {
        self.in_flight += 1;
        self.was_tried = true;
        self.paced_until = self.pace.as_mut().and_then(|pace| pace.take(now));
    }

    /// When time alone brings something about.
    pub(super) fn next_alarm(&self) -> Option<Monotonic> {
        if !self.is_sending() {
            return None;
        }
        self.blocked.or_else(|| self.paced_until.into_iter().chain(self.due_later()).min())
    }

    /// Lets a lane that succeeds at its limit have twice as many sends at a time.
    pub(super) fn widen(&mut self, in_flight_default: u32) {
        let limit_max = self.limit_max(in_flight_default);
        self.streak += 1;
        if self.streak >= self.limit && self.limit < limit_max {
            self.limit = (self.limit * 2).min(limit_max);
            self.streak = 0;
        }
    }
}

/// A window with room for no more than this keeps it.
const WINDOW_KEPT: usize = 16;
/// Sends under way in a lane of which nothing is known.
const LANE_IN_FLIGHT_START: u32 = 4;
/// After so long without a success a lane that was tried is no longer sure of its share.
const PROVEN_FOR: Duration = Duration::from_secs(60);
