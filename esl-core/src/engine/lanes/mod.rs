//! The lanes: which delivery is sent next.
//!
//! A plain data structure without tasks, time or chance of its own: what happened goes in, what is to
//! be done comes out. [`driver`](super::driver) does it.
//!
//! Committed deliveries are pushed straight into the **window** of their lane and sent from there. A
//! lane whose window is full **spills**: it lets later commits pass and gets them from storage by a
//! claim, in order. What is committed while a claim runs is kept as **arrivals**; when the claim has
//! brought everything up to them, they follow it, and the lane takes commits directly again. `after`
//! is the mark between the two ways: what was never tried and is at or below it was handed out before.
//!
//! Retries always come from storage. Between their claim and the commit of their settlement they are
//! **held**, so that no claim hands them out twice.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

mod claims;
mod course;
mod keeping;
mod sends;
mod sharing;
mod takes;

pub(crate) use self::course::Owed;
use self::{
    course::{Course, Look},
    sharing::Handover,
};
use super::{
    breadth::Breadth,
    lane::{Claim, Job, Lane},
    peers::Peers,
    target::Target,
    turn::Turn,
};
use crate::{
    LaneId, Monotonic, OrganizationId, RetryPolicy, SealedEvent, Seq, Timestamp,
    storage::{Expand, LaneState, Want, Worker},
};

/// How much is kept in memory and under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Deliveries in one window.
    pub(crate) window: usize,
    /// Deliveries in all windows; one organization has three quarters of it at most.
    pub(crate) windows: usize,
    /// Bytes of bodies in all windows and under way.
    pub(crate) bytes: usize,
    /// Sends under way in one lane, once it has proven itself.
    pub(crate) lane_in_flight: u32,
    /// Sends under way in all lanes; one organization has three quarters of it at most.
    pub(crate) in_flight: u32,
    /// Settlements that wait for their commit.
    pub(crate) unsettled: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window: 512,
            windows: 64 * 1024,
            bytes: 64 * 1024 * 1024,
            lane_in_flight: 32,
            in_flight: 4096,
            unsettled: 16 * 1024,
        }
    }
}

/// Lanes that nobody told of are found within this time.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(5);

/// While so many of its lanes wait for their turn, an organization waits with its fan-outs.
const ENOUGH: usize = 4096;

/// The time, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) utc: Timestamp,
    pub(crate) monotonic: Monotonic,
}

impl Now {
    /// When a time of storage comes, on the clock that is never set. No wait of ours is longer than
    /// an hour: one that seems to be comes from a clock that jumped.
    fn until(self, at: Timestamp) -> Monotonic {
        self.monotonic + at.since(self.utc).min(RetryPolicy::DELAY_MAX)
    }
}

/// A delivery to be sent now.
#[derive(Debug)]
pub(crate) struct Sending {
    /// In whose name it is settled.
    pub(crate) worker: Worker,
    pub(crate) lane: LaneId,
    pub(crate) target: Arc<Target>,
    pub(crate) job: Job,
    pub(crate) is_probe: bool,
    is_unproven: bool,
    /// When it began, as [`Breadth`] counts it.
    pulse: u64,
}

/// What an attempt says of the receiver.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bearing {
    Well,
    Failing {
        retry_after: Option<Duration>,
        is_strained: bool,
        /// Whether the delivery is given up with this.
        is_last: bool,
    },
    /// Nothing: it was not asked. The lane waits as long before it tries again.
    Unasked(Duration),
}

/// What a send that is over has led to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Finished {
    /// The lane's state, if it changed.
    pub(crate) state: Option<LaneState>,
    /// Whether the organization is to be told that a delivery was given up.
    pub(crate) tells_of_exhaustion: bool,
}

/// What claimer and timekeeper have to do.
#[derive(Debug, Default)]
pub(crate) struct Errands {
    pub(crate) take: Vec<LaneId>,
    /// Lanes that are let go of.
    pub(crate) release: Vec<LaneId>,
    /// Lanes of other workers that have new work.
    pub(crate) tell: Vec<LaneId>,
    pub(crate) wants: Vec<Want>,
    pub(crate) bytes: usize,
}

impl Errands {
    /// Whether storage is to be asked for nothing.
    pub(crate) fn is_done(&self) -> bool {
        self.take.is_empty() && self.release.is_empty() && self.wants.is_empty()
    }
}

#[derive(Debug)]
pub(crate) struct Lanes {
    limits: Limits,
    lanes: HashMap<LaneId, Lane>,
    organizations: HashMap<OrganizationId, OrganizationLanes>,
    turn: Turn,
    /// Lanes that were tried and have not succeeded for a while. They have a share of the sends only,
    /// so they take their turns apart from the others.
    unproven: Turn,
    is_unproven_next: bool,
    alarms: BTreeSet<(Monotonic, LaneId)>,
    /// Lanes whose subscriptions are to be read.
    to_take: Turn,
    /// More of them, whose organizations nobody has said.
    unknown: BTreeSet<LaneId>,
    to_tell: Vec<LaneId>,
    to_claim: Turn,
    breadth: Breadth,
    /// When something was last asked for.
    latest: Monotonic,
    jobs: usize,
    bytes: usize,
    in_flight: u32,
    in_flight_unproven: u32,
    unsettled: usize,
    is_stopped: bool,
    /// `None` between two epochs, and after the end of the last.
    worker: Option<Worker>,
    peers: Peers,
    handover: Handover,
    /// Nothing is begun that could end after this.
    epoch_end: Monotonic,
    /// The first alarm that the claimer knows of.
    announced: Option<Monotonic>,
    /// The last commit that has begun, as of the last lanes that were taken …
    begun: Option<u64>,
    /// … and the one whose outcome is heard now.
    answered: Option<u64>,
    /// The lanes in memory, in the order in which they are looked at when there are too many.
    rounds: VecDeque<LaneId>,
}

#[derive(Debug, Default)]
struct OrganizationLanes {
    course: Course,
    /// How often its lanes had to look in storage for what came by others.
    looks: u64,
    lanes: BTreeSet<LaneId>,
    /// Deliveries in windows.
    jobs: usize,
    /// Sends under way.
    in_flight: u32,
}

/// Who has something to do that they do not know of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Calls {
    pub(crate) claims: bool,
    pub(crate) crowded: bool,
}

impl Lanes {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            lanes: HashMap::new(),
            organizations: HashMap::new(),
            turn: Turn::default(),
            unproven: Turn::default(),
            is_unproven_next: false,
            alarms: BTreeSet::new(),
            to_take: Turn::default(),
            unknown: BTreeSet::new(),
            to_tell: Vec::new(),
            to_claim: Turn::default(),
            breadth: Breadth::new(limits.in_flight),
            latest: Monotonic::ZERO,
            jobs: 0,
            bytes: 0,
            in_flight: 0,
            in_flight_unproven: 0,
            unsettled: 0,
            is_stopped: false,
            worker: None,
            peers: Peers::default(),
            handover: Handover::default(),
            announced: None,
            begun: None,
            answered: None,
            rounds: VecDeque::new(),
            epoch_end: Monotonic::ZERO,
        }
    }

    /// For how long a worker may still send in its epoch; zero if that is over.
    pub(crate) fn time_left(&self, worker: &Worker, now: Monotonic) -> Duration {
        let is_running = self.worker.as_ref() == Some(worker);
        if is_running { self.epoch_end.saturating_sub(now) } else { Duration::ZERO }
    }

    /// In whose name lanes are taken; `None` between two epochs.
    pub(crate) const fn worker(&self) -> Option<Worker> {
        self.worker
    }

    /// The epoch is over: nothing in hand is ours any more. What is under way ends by itself.
    pub(crate) fn end_epoch(&mut self) {
        self.worker = None;
        self.peers = Peers::default();
        self.handover = Handover::default();
        self.lanes.clear();
        self.rounds.clear();
        self.organizations.clear();
        self.turn.clear();
        self.unproven.clear();
        self.alarms.clear();
        self.to_take.clear();
        self.unknown.clear();
        self.to_tell.clear();
        self.to_claim.clear();
        self.bytes = 0;
        self.jobs = 0;
        self.epoch_end = Monotonic::ZERO;
    }

    /// So many commits have begun when lanes are taken.
    pub(crate) const fn begun(&mut self, commits: u64) {
        self.begun = Some(commits);
    }

    /// This commit's outcome is what is heard next.
    pub(crate) const fn answer(&mut self, commit: u64) {
        self.answered = Some(commit);
    }

    /// An event was committed by this engine.
    pub(crate) fn committed(&mut self, seq: Seq, event: &Arc<SealedEvent>, owed: Owed<'_>) {
        let entry = self.organizations.entry(event.organization).or_default();
        entry.looks += u64::from(entry.course.committed(seq, owed));
        match owed {
            Owed::Now(lanes) => self.owe(seq, event, lanes),
            Owed::InSlices | Owed::Aside => {}
        }
    }

    /// A slice was committed by this engine; its event is owed to the lanes from now on, unless it was
    /// erased.
    pub(crate) fn expanded(
        &mut self,
        slice: &Expand,
        event: &Arc<SealedEvent>,
        is_cancelled: bool,
    ) {
        let organization = slice.organization;
        let entry = self.organizations.entry(organization).or_default();
        match entry.course.expanded(slice) {
            Look::Nobody => {}
            Look::Its => slice.lanes.iter().for_each(|id| self.spill(*id)),
            Look::All => entry.looks += 1,
        }
        if !is_cancelled {
            self.owe(slice.seq, event, &slice.lanes);
        }
    }

    /// An event is owed to these lanes from now on.
    fn owe(&mut self, seq: Seq, event: &Arc<SealedEvent>, lanes: &[LaneId]) {
        let looks = self.looks(event.organization);
        for &id in lanes {
            if !self.enter(id, event.organization) {
                self.to_tell.push(id);
                continue;
            }
            let has_room = self.room(event.organization) > 0;
            let lane = self.lanes.get_mut(&id).expect("it has just entered");
            let was_before = lane.taken_during.is_some() && lane.taken_during == self.answered;
            if lane.looks != looks || was_before {
                lane.looks = looks;
                lane.spill();
            }
            if seq <= lane.after {
                self.refill(id);
                continue;
            }
            let fits = has_room && lane.window.len() < self.limits.window && !lane.is_strict();
            if !lane.is_spilled && lane.is_sending() && fits {
                lane.after = seq;
                lane.window.push_back(Job::new(seq, event));
                self.count_in(event.organization, event);
                self.offer(id);
            } else {
                lane.is_spilled = true;
                lane.arrive(seq, event, self.limits.window);
                if lane.is_foreign {
                    self.to_tell.push(id);
                } else if lane.target.is_none() {
                    lane.is_to_tell = true;
                }
                self.refill(id);
            }
        }
    }

    /// What an organization's commits led to is not known, or others have committed: its lanes look in
    /// storage, each when something next comes for it.
    pub(crate) fn spill_organization(&mut self, organization: OrganizationId) {
        if let Some(entry) = self.organizations.get_mut(&organization) {
            entry.course = Course::default();
            entry.looks += 1;
        }
    }

    fn looks(&self, organization: OrganizationId) -> u64 {
        self.organizations.get(&organization).map_or(0, |entry| entry.looks)
    }

    /// A lane, if it is known, looks in storage for what came by others.
    fn spill(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.spill();
            self.refill(id);
        }
    }

    /// What is in hand of an organization may not be what storage has any more: it is read again.
    pub(crate) fn let_go(&mut self, organization: OrganizationId) {
        let Some(entry) = self.organizations.get(&organization) else { return };
        for id in entry.lanes.clone() {
            let lane = self.lanes.get(&id);
            // A claim under way may bring what is not there any more.
            if lane.is_some_and(|lane| lane.has_jobs() || lane.claim != Claim::Idle) {
                self.drop_jobs(id);
                self.refill(id);
            }
        }
    }

    /// Nothing that is in hand may be what storage has any more, nor what is known of subscriptions.
    pub(crate) fn let_go_of_all(&mut self) {
        let organizations: Vec<_> = self.organizations.keys().copied().collect();
        for organization in organizations {
            self.spill_organization(organization);
            self.let_go(organization);
            self.take_again(organization);
        }
    }

    /// A lane may have work in storage that nobody told of.
    pub(crate) fn wake(&mut self, id: LaneId) {
        match self.lanes.get_mut(&id) {
            None => self.ask(id),
            Some(lane) if lane.target.is_none() => self.ask(id),
            Some(lane) if lane.is_strict() => {
                // What is in hand may not be next any more.
                self.drop_jobs(id);
                self.refill(id);
            }
            Some(lane) => {
                lane.spill();
                // A retry may have come that no alarm is set for.
                lane.due = Some(Monotonic::ZERO);
                self.refill(id);
            }
        }
    }

    /// A lane has a retry in storage that is due now and that nobody told of.
    pub(crate) fn wake_retries(&mut self, id: LaneId) {
        match self.lanes.get_mut(&id) {
            Some(lane) if lane.target.is_some() && !lane.is_strict() => {
                lane.due = Some(Monotonic::ZERO);
                self.refill(id);
            }
            Some(_) | None => self.wake(id),
        }
    }

    /// Whether a lane's receiver has taken most of what it was given, so that it can be given more.
    /// Of a lane that is not in hand nothing speaks against it; one of another worker is that one's
    /// to know.
    pub(crate) fn keeps_up(&self, id: LaneId) -> bool {
        let is_ours = || self.peers.has_lane(id);
        self.lanes.get(&id).map_or_else(is_ours, |lane| lane.keeps_up(self.limits.window))
    }

    /// Whether so many lanes of an organization wait for us, to be sent to or read, that no more of its
    /// fan-outs need be owed yet. Those that wait for their receivers do not count: they would keep
    /// the others waiting, too.
    pub(crate) fn has_enough(&self, organization: OrganizationId) -> bool {
        let turns = [&self.turn, &self.to_take, &self.to_claim];
        turns.into_iter().map(|turn| turn.waiting(organization)).sum::<usize>() >= ENOUGH
    }

    /// Begins no more sends.
    pub(crate) fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// Who is to be woken.
    pub(crate) fn calls(&self) -> Calls {
        let is_earlier = match (self.first_alarm(), self.announced) {
            (Some(first), Some(announced)) => first < announced,
            (first, _) => first.is_some(),
        };
        let has_errands = !self.to_take.is_empty()
            || !self.unknown.is_empty()
            || !self.to_tell.is_empty()
            || !self.to_claim.is_empty()
            || !self.handover.ready.is_empty();
        Calls { claims: is_earlier || has_errands, crowded: self.breadth.has_held_back() }
    }

    /// A pulse has passed, in which a task waited so long until it was run; true if none need follow.
    pub(crate) fn pulse(&mut self, wait: Duration) -> bool {
        self.breadth.pulse(wait);
        self.breadth.is_at_rest()
    }

    /// When something is to be done that time alone brings about; the caller will be there.
    pub(crate) fn announce_alarm(&mut self) -> Option<Monotonic> {
        self.announced = self.first_alarm();
        self.announced
    }

    fn first_alarm(&self) -> Option<Monotonic> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// Does what is due by now.
    pub(crate) fn tick(&mut self, now: Monotonic) {
        while let Some(&(at, id)) = self.alarms.first() {
            if at > now {
                break;
            }
            self.alarms.pop_first();
            let lane = self.lanes.get_mut(&id).expect("a lane's alarm goes with it");
            lane.alarm = None;
            lane.blocked.take_if(|blocked| *blocked <= now);
            lane.paced_until.take_if(|until| *until <= now);
            let is_due = lane.due.is_some_and(|due| due <= now);
            if is_due {
                lane.due = Some(Monotonic::ZERO);
            }
            self.set_alarm(id);
            self.refill(id);
            self.offer(id);
        }
    }

    /// How many sends are under way.
    pub(crate) const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// When the oldest event came that waits for nothing but its turn.
    pub(crate) fn oldest_untried(&self) -> Option<Timestamp> {
        let waiting = self.lanes.values().filter_map(Lane::next_untried);
        waiting.map(|job| job.event.timestamp).min()
    }

    /// How many sends are over that are not settled.
    pub(crate) const fn unsettled(&self) -> usize {
        self.unsettled
    }

    fn set_alarm(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let wanted = lane.next_alarm();
        if wanted != lane.alarm {
            if let Some(old) = lane.alarm {
                self.alarms.remove(&(old, id));
            }
            if let Some(new) = wanted {
                self.alarms.insert((new, id));
            }
            lane.alarm = wanted;
        }
    }
}
