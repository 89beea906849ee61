//! What lanes fetch from storage, and what comes of it.

use super::{Errands, Lanes, Now};
use std::{collections::hash_map::Entry, sync::Arc, time::Duration};

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
            release: self.next_to_release(),
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
            if !lane.may_claim() {
                // It has come to be strict, or not to be sent to, since it asked; it asks again.
                lane.claim = Claim::Idle;
                continue;
            }
            // It looks by this.
            let looks = self.organizations.get(&lane.organization).map_or(0, |entry| entry.looks);
            lane.is_spilled |= lane.looks != looks;
            lane.looks = looks;
            let in_order = lane.is_strict();
            let with_new = lane.is_spilled || in_order;
            let (room, in_hand) = if with_new {
                (self.limits.window, lane.window.len() + lane.retries.len())
            } else {
                (self.limits.window / 2, lane.retries.len())
            };
            let organization = lane.organization;
            let most = self.room(organization).max(self.room_min().saturating_sub(in_hand));
            let room = room.saturating_sub(in_hand).min(most);
            let lane = self.lanes.get_mut(&id).expect("it was just there");
            if room == 0 {
                // It asks again when it has less in hand.
                lane.claim = Claim::Idle;
                continue;
            }
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
                held: if in_order { Vec::new() } else { lane.held.keys().copied().collect() },
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
        let next_due = next_due(&claimed, now);
        let mut came = Vec::with_capacity(claimed.due.len());
        lane.claims += 1;
        for due in claimed.due {
            let job = Job::claimed(due, lane.claims);
            if let Some(hold) = job.hold {
                let Entry::Vacant(free) = lane.held.entry(job.seq) else { continue };
                free.insert(hold);
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
        lane.due = lane.due.into_iter().chain(next_due).min();
        let organization = lane.organization;
        came.iter().for_each(|event| self.count_in(organization, event));
        self.set_alarm(id);
        self.offer(id);
        self.refill(id);
    }

    fn claimed_in_order(&mut self, id: LaneId, claimed: Claimed, now: Now) {
        let lane = self.lanes.get_mut(&id).expect("the caller has looked it up");
        let next_due = next_due(&claimed, now);
        let mut came = Vec::with_capacity(claimed.due.len());
        lane.claims += 1;
        for due in claimed.due {
            let job = Job::claimed(due, lane.claims);
            came.push(Arc::clone(&job.event));
            // Both marks matter when the lane stops being strict while this is under way.
            if let Some(hold) = job.hold {
                lane.held.insert(job.seq, hold);
            } else {
                lane.after = lane.after.max(job.seq);
            }
            lane.window.push_back(job);
        }
        lane.is_spilled = !claimed.is_all || lane.is_incomplete;
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
        let Some(lane) = self.lanes.get(&id) else { return };
        let is_roomy = self.room(lane.organization) >= self.limits.window;
        let low = if is_roomy { self.limits.window / 2 } else { self.room_min() / 2 };
        let lane = self.lanes.get_mut(&id).expect("it was just there");
        if lane.wants_claim(self.limits.window, low) {
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

/// When the lane has to ask again. Storage's clock may be behind ours: what it says is not due yet is
/// not asked for over and over.
fn next_due(claimed: &Claimed, now: Now) -> Option<Monotonic> {
    let earliest = if claimed.due.is_empty() { now.monotonic + NOT_YET } else { now.monotonic };
    Some(now.until(claimed.next_due?).max(earliest))
}

/// Storage's clock may be a little behind.
const NOT_YET: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Algorithm, NewSubscription, OrganizationId, RetryPolicy, SealedEvent, Secret, SendOrder,
        Subscription, SubscriptionId, Timestamp, WorkerId,
        engine::{
            headers::HeaderNames,
            lanes::{Bearing, Limits, Owed},
            target::{Defaults, Target},
        },
        storage::{Due, LaneState, Waiting, Worker},
    };

    const ORGANIZATION: OrganizationId = OrganizationId::from_bytes([1; 16]);
    const NOW: Now = Now { utc: Timestamp::EPOCH, monotonic: Monotonic::ZERO };

    fn target(number: u64) -> Arc<Target> {
        let url = crate::CallbackUrl::from_stored("https://example.com/");
        let new = NewSubscription::new(url, vec!["*".parse().expect("a pattern")]);
        let secret = Secret::new("0123456789abcdef0123456789abcdef").expect("a secret");
        let id = SubscriptionId::from_bytes([2; 16]);
        let mut subscription = Subscription::new(id, ORGANIZATION, new, secret, Timestamp::EPOCH);
        subscription.lane = LaneId::new(number);
        let defaults = Defaults {
            algorithm: Algorithm::Sha256,
            headers: HeaderNames::new("X-Sapien"),
            retry: RetryPolicy::default(),
            attempt_timeout: Duration::from_secs(15),
        };
        Arc::new(Target::new(subscription, &defaults, None))
    }

    fn event(body: usize) -> Arc<SealedEvent> {
        Arc::new(SealedEvent {
            id: crate::EventId::from_bytes([3; 16]),
            organization: ORGANIZATION,
            event_type: "person.updated".parse().expect("a type"),
            timestamp: Timestamp::EPOCH,
            digest: None,
            body: vec![b' '; body].into(),
            changes: None,
        })
    }

    /// Lanes with no end of deliveries claim until nothing more is asked for; how many they have then.
    fn fill(limits: Limits, lanes: u64, body: usize) -> Vec<usize> {
        let mut all = Lanes::new(limits);
        let worker = Worker { id: WorkerId::from_bytes([4; 16]), epoch: 1 };
        all.extend_epoch(worker, NOW.monotonic + Duration::from_secs(30), vec![worker.id]);
        for number in 0..lanes {
            all.taken(target(number), LaneState::default(), NOW);
            all.lanes.get_mut(&LaneId::new(number)).expect("taken").spill();
            all.refill(LaneId::new(number));
        }
        let event = event(body);
        for _ in 0..10_000 {
            let errands = all.errands(8);
            if errands.wants.is_empty() {
                let lanes = (0..lanes).map(|number| all.lanes[&LaneId::new(number)].window.len());
                return lanes.collect();
            }
            for want in errands.wants {
                let first = want.after.expect("new ones are wanted").get() + 1;
                let seqs = first..first + want.room as u64;
                let new = |seq| Due {
                    seq: Seq::new(seq),
                    event: Arc::clone(&event),
                    is_retry: false,
                    attempts: 0,
                    charged: 0,
                };
                let due = seqs.map(new).collect();
                let claimed = Claimed { lane: want.lane, due, is_all: false, next_due: None };
                all.claimed(want.lane, Some(claimed), NOW);
            }
        }
        panic!("they claim for ever");
    }

    #[test]
    fn however_many_lanes_have_much_to_do_memory_holds_a_part_of_it() {
        let limits = Limits { window: 64, windows: 1024, ..Limits::default() };
        let lanes = fill(limits, 200, 100);
        assert!(lanes.iter().all(|&jobs| jobs > 0), "{lanes:?}");
        // Those that were there first have what is allowed, and one round of claims; each other a few.
        let all: usize = lanes.iter().sum();
        assert!(all <= 1024 + 8 * 64 + 200 * 8, "{all}: {lanes:?}");
    }

    #[test]
    fn of_what_is_large_each_lane_has_one_at_least_and_no_more_when_memory_is_full() {
        let limits = Limits { window: 64, bytes: 1_000_000, ..Limits::default() };
        let lanes = fill(limits, 200, 100_000);
        assert!(lanes[8..].iter().all(|&jobs| jobs == 1), "{lanes:?}");
    }

    /// A lane that is ours, with nothing in it.
    fn one_lane() -> Lanes {
        let mut lanes = Lanes::new(Limits::default());
        let worker = Worker { id: WorkerId::from_bytes([4; 16]), epoch: 1 };
        lanes.extend_epoch(worker, NOW.monotonic + Duration::from_secs(30), vec![worker.id]);
        lanes.taken(target(1), LaneState::default(), NOW);
        claim(&mut lanes, Vec::new(), None);
        lanes
    }

    /// Has the lane claim, and brings it this.
    fn claim(lanes: &mut Lanes, due: Vec<Due>, next_due: Option<Timestamp>) -> Want {
        let mut wants = lanes.errands(8).wants;
        let want = wants.pop().expect("the lane wants something");
        let claimed = Claimed { lane: want.lane, due, is_all: true, next_due };
        lanes.claimed(want.lane, Some(claimed), NOW);
        want
    }

    #[test]
    fn a_retry_is_held_until_its_own_attempt_is_settled() {
        let (lane, seq) = (LaneId::new(1), Seq::new(1));
        let mut lanes = one_lane();
        lanes.owe(seq, &event(10), &[lane]);
        let first = lanes.next(NOW.monotonic).expect("it is sent");
        lanes.finished(&first, Bearing::Well, NOW);
        // Its settlement is committed; before that is heard of, a claim brings what storage has.
        lanes.wake(lane);
        let due = Due { seq, event: event(10), is_retry: true, attempts: 1, charged: 1 };
        claim(&mut lanes, vec![due], None);
        let second = lanes.next(NOW.monotonic).expect("it is sent");
        lanes.settled(&first.worker, (lane, seq, first.job.hold), Some(NOW.utc), NOW);
        lanes.wake(lane);
        assert_eq!(claim(&mut lanes, Vec::new(), None).held, [seq]);
        lanes.finished(&second, Bearing::Well, NOW);
        lanes.settled(&second.worker, (lane, seq, second.job.hold), None, NOW);
        lanes.wake(lane);
        assert_eq!(claim(&mut lanes, Vec::new(), None).held, []);
    }

    #[test]
    fn a_storage_that_is_behind_is_not_asked_over_and_over() {
        let mut lanes = one_lane();
        lanes.wake(LaneId::new(1));
        // Due by our clock, and not handed out.
        claim(&mut lanes, Vec::new(), Some(NOW.utc));
        lanes.tick(NOW.monotonic);
        assert!(lanes.errands(8).wants.is_empty());
        lanes.tick(NOW.monotonic + NOT_YET);
        assert_eq!(lanes.errands(8).wants.len(), 1);
    }

    #[test]
    fn a_lane_that_waits_for_nothing_asks_when_storage_has_something_whatever_the_time() {
        let mut lanes = one_lane();
        let ahead = NOW.utc + Duration::from_secs(3600);
        lanes.wake_if_idle(Waiting { lane: LaneId::new(1), due_at: ahead }, NOW);
        assert_eq!(lanes.errands(8).wants.len(), 1);
    }

    #[test]
    fn what_was_committed_before_its_lane_was_taken_is_looked_for() {
        let lane = LaneId::new(1);
        let mut lanes = Lanes::new(Limits::default());
        let worker = Worker { id: WorkerId::from_bytes([4; 16]), epoch: 1 };
        lanes.extend_epoch(worker, NOW.monotonic + Duration::from_secs(30), vec![worker.id]);
        lanes.begun(7);
        lanes.taken(target(1), LaneState::default(), NOW);
        claim(&mut lanes, Vec::new(), None);
        // Who had the lane has delivered it before.
        lanes.answer(7);
        lanes.owe(Seq::new(1), &event(10), &[lane]);
        assert!(lanes.next(NOW.monotonic).is_none());
        assert_eq!(claim(&mut lanes, Vec::new(), None).after, Some(Seq::ZERO));
        lanes.answer(8);
        lanes.owe(Seq::new(2), &event(10), &[lane]);
        assert_eq!(lanes.next(NOW.monotonic).map(|send| send.job.seq), Some(Seq::new(2)));
    }

    #[test]
    fn a_lane_that_was_let_go_of_while_it_was_changed_is_sent_to_again() {
        let mut lanes = one_lane();
        lanes.changed(&target(1).subscription);
        lanes.switched_off(LaneId::new(1));
        lanes.errands(8);
        lanes.taken(target(1), LaneState::default(), NOW);
        lanes.committed(Seq::new(1), &event(10), Owed::Now(&[LaneId::new(1)]));
        let due =
            Due { seq: Seq::new(1), event: event(10), is_retry: false, attempts: 0, charged: 0 };
        claim(&mut lanes, vec![due], None);
        assert!(lanes.next(NOW.monotonic).is_some());
    }

    #[test]
    fn a_lane_that_has_come_to_be_strict_claims_when_what_is_under_way_is_settled() {
        let (lane, seq) = (LaneId::new(1), Seq::new(1));
        let mut lanes = one_lane();
        lanes.owe(seq, &event(10), &[lane]);
        let send = lanes.next(NOW.monotonic).expect("it is sent");
        // It asks, and comes to be strict before it is asked for.
        lanes.wake(lane);
        let mut strict = Arc::into_inner(target(1)).expect("nobody else has it");
        strict.subscription.options.order = SendOrder::Strict;
        lanes.taken(Arc::new(strict), LaneState::default(), NOW);
        assert!(lanes.errands(8).wants.is_empty());
        lanes.finished(&send, Bearing::Well, NOW);
        assert!(lanes.errands(8).wants.is_empty());
        lanes.settled(&send.worker, (lane, seq, send.job.hold), None, NOW);
        assert!(claim(&mut lanes, Vec::new(), None).in_order);
    }
}
