//! What becomes of deliveries, lanes and subscriptions after attempts.

use std::time::Duration;

use super::{
    BY,
    world::{SECOND, WORKS, World, first, numbers, settle, settlement, want},
};
use crate::{
    Attempt, AttemptError, CallbackUrl, DeliveryId, DeliveryState, DisabledReason, LaneId, Seq,
    Subscription, SubscriptionUpdate, Timestamp, Timings,
    storage::{
        Accepted, Committed, EPOCH, LaneState, Outcome, Refused, Settle, Settlement, SwitchOff,
        Tenure, Unit, Worker,
    },
};

pub(super) async fn a_delivered_delivery_is_over(world: World) {
    let (subscription, worker, accepted) = owed(&world, 2).await;
    let at = world.now() + SECOND;
    let settled = settlement(subscription.lane, Seq::new(1), Outcome::Delivered, at);
    world.settle(&worker, vec![settled]).await;
    let delivery = world.delivery(&subscription, &accepted[0]).await;
    assert_eq!(delivery.state, DeliveryState::Delivered);
    assert_eq!((delivery.attempts, delivery.finished_at), (1, Some(at)));
    assert_eq!((delivery.last_status, delivery.last_error), (Some(200), None));
    assert_eq!(delivery.next_attempt_at, None);
    assert_eq!(world.due(&worker, subscription.lane).await, numbers([2]));
    assert_eq!(log(&world, &subscription, &accepted[0]).await, []);
}

pub(super) async fn a_retry_is_due_at_its_time(world: World) {
    let (subscription, worker, accepted) = owed(&world, 1).await;
    let (lane, seq) = (subscription.lane, Seq::new(1));
    let due_at = world.now() + SECOND * 5;
    world.settle(&worker, vec![failed(lane, seq, 1, Outcome::RetryAt(due_at))]).await;
    let delivery = world.delivery(&subscription, &accepted[0]).await;
    assert_eq!(delivery.state, DeliveryState::Pending);
    assert_eq!((delivery.attempts, delivery.finished_at), (1, None));
    assert_eq!(delivery.next_attempt_at, Some(due_at));
    assert_eq!(delivery.last_status, Some(500));
    assert_eq!(delivery.last_error, Some(AttemptError::Status));

    let claimed = world.claim(&worker, want(lane)).await;
    assert!(claimed.due.is_empty());
    assert_eq!((claimed.is_all, claimed.next_due), (true, Some(due_at)));
    world.clock.advance(SECOND * 5 - Duration::from_millis(1));
    assert_eq!(world.due(&worker, lane).await, []);
    world.clock.advance(Duration::from_millis(1));
    let claimed = world.claim(&worker, want(lane)).await;
    let [due] = &claimed.due[..] else { panic!("one is due: {claimed:?}") };
    assert_eq!((due.seq, due.is_retry), (seq, true));
    assert_eq!((due.attempts, due.charged), (1, 1));
}

pub(super) async fn every_attempt_that_is_kept_can_be_read(world: World) {
    let (subscription, worker, accepted) = owed(&world, 1).await;
    let (lane, seq) = (subscription.lane, Seq::new(1));
    let timings = Timings {
        resolve: Some(Duration::from_micros(1)),
        connect: Some(Duration::from_micros(2_500)),
        tls: None,
        first_byte: Some(Duration::from_secs(3)),
        total: Duration::from_micros(15_000_001),
    };
    let attempts = [
        Attempt { timings, detail: Some("no \"room\"\n🦀".into()), ..attempt(1) },
        Attempt {
            status: None,
            error: Some(AttemptError::Dns),
            detail: Some(String::new()),
            probe: true,
            charged: false,
            ..attempt(2)
        },
        Attempt { detail: None, ..attempt(3) },
        Attempt { status: Some(204), error: None, detail: None, ..attempt(4) },
    ];
    let [one, two, three, four] = attempts.clone();
    let retry = Outcome::RetryAt(world.now());
    let settled = |number, outcome, log| Settlement { log, ..failed(lane, seq, number, outcome) };
    // Two of them at once: a stale connection and its second try are settled together.
    world.settle(&worker, vec![settled(2, retry, vec![one, two])]).await;
    world.settle(&worker, vec![settled(3, retry, vec![three])]).await;
    world.settle(&worker, vec![settled(4, Outcome::Delivered, vec![four])]).await;
    assert_eq!(log(&world, &subscription, &accepted[0]).await, attempts);
}

pub(super) async fn every_kind_of_attempt_error_can_be_read(world: World) {
    let (subscription, worker, accepted) = owed(&world, 1).await;
    let (lane, seq) = (subscription.lane, Seq::new(1));
    let mut expected = Vec::new();
    for (number, error) in (1..).zip(AttemptError::ALL) {
        let attempt = Attempt { error: Some(error), ..attempt(number) };
        expected.push(attempt.clone());
        let retry = failed(lane, seq, number, Outcome::RetryAt(world.now()));
        let settled = Settlement { error: Some(error), log: vec![attempt], ..retry };
        world.settle(&worker, vec![settled]).await;
        let delivery = world.delivery(&subscription, &accepted[0]).await;
        assert_eq!(delivery.last_error, Some(error));
    }
    assert_eq!(log(&world, &subscription, &accepted[0]).await, expected);
}

pub(super) async fn an_exhausted_delivery_is_over(world: World) {
    let (subscription, worker, accepted) = owed(&world, 1).await;
    let exhausted = failed(subscription.lane, Seq::new(1), 6, Outcome::Exhausted);
    world.settle(&worker, vec![Settlement { log: vec![attempt(6)], ..exhausted }]).await;
    let delivery = world.delivery(&subscription, &accepted[0]).await;
    assert_eq!(delivery.state, DeliveryState::Exhausted);
    assert_eq!((delivery.attempts, delivery.finished_at), (6, Some(NOON)));
    assert_eq!((delivery.last_status, delivery.next_attempt_at), (Some(500), None));
    assert_eq!(world.due(&worker, subscription.lane).await, []);
    assert_eq!(log(&world, &subscription, &accepted[0]).await, [attempt(6)]);
}

pub(super) async fn settling_twice_changes_nothing(world: World) {
    let (subscription, worker, accepted) = owed(&world, 2).await;
    let lane = subscription.lane;
    let ends = [(1, Outcome::Delivered), (2, Outcome::Exhausted)];
    let settlements = ends.map(|(seq, outcome)| Settlement {
        log: vec![attempt(1)],
        ..failed(lane, Seq::new(seq), 1, outcome)
    });
    world.settle(&worker, settlements.to_vec()).await;
    let before = read(&world, &subscription, &accepted).await;
    for outcome in [Outcome::Delivered, Outcome::RetryAt(NOON), Outcome::Exhausted] {
        for seq in [1, 2] {
            let again = Settlement {
                at: NOON + SECOND,
                status: Some(418),
                log: vec![attempt(9)],
                ..failed(lane, Seq::new(seq), 9, outcome)
            };
            world.settle(&worker, vec![again]).await;
            assert_eq!(read(&world, &subscription, &accepted).await, before);
        }
    }
    assert_eq!(world.due(&worker, lane).await, []);
}

pub(super) async fn a_settlement_that_comes_once_more_settles_nothing_else(world: World) {
    let (subscription, worker, accepted) = owed(&world, 2).await;
    let (organization, lane) = (subscription.organization, subscription.lane);
    // After a commit whose outcome was not known, the same is settled again.
    let first = attempt(1);
    let retry = failed(lane, Seq::new(1), 1, Outcome::RetryAt(NOON + SECOND));
    let retry = Settlement { log: vec![first.clone()], ..retry };
    let given_up = failed(lane, Seq::new(2), 1, Outcome::Exhausted);
    let given_up = Settlement { log: vec![first.clone()], ..given_up };
    world.settle(&worker, vec![retry.clone(), given_up.clone()]).await;
    // Meanwhile somebody has asked for what was given up.
    world.storage.reopen(organization, lane, Seq::new(2)).await.expect(WORKS);
    let before = read(&world, &subscription, &accepted).await;
    world.settle(&worker, vec![retry, given_up]).await;
    assert_eq!(read(&world, &subscription, &accepted).await, before);
    for accepted in &accepted {
        assert_eq!(log(&world, &subscription, accepted).await, std::slice::from_ref(&first));
    }
    // What comes of the next attempt counts.
    let second = failed(lane, Seq::new(2), 2, Outcome::Exhausted);
    world.settle(&worker, vec![Settlement { log: vec![attempt(2)], ..second }]).await;
    let delivery = world.delivery(&subscription, &accepted[1]).await;
    assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Exhausted, 2));
}

pub(super) async fn settling_what_was_never_there_is_no_error(world: World) {
    let (subscription, worker, _) = owed(&world, 1).await;
    let unknown_lane = LaneId::new(subscription.lane.get() + 1);
    let settlements = [(subscription.lane, 2), (unknown_lane, 1)].map(|(lane, seq)| Settlement {
        log: vec![attempt(1)],
        ..failed(lane, Seq::new(seq), 1, Outcome::Exhausted)
    });
    world.settle(&worker, settlements.to_vec()).await;
    assert_eq!(world.due(&worker, subscription.lane).await, numbers([1]));
}

pub(super) async fn settling_with_a_stale_epoch_changes_nothing(world: World) {
    let (subscription, worker, accepted) = owed(&world, 1).await;
    let lane = subscription.lane;
    let before = read(&world, &subscription, &accepted).await;
    world.clock.advance(EPOCH);
    let next = world.worker_of(&[lane]).await;
    let unknown = Worker { epoch: next.epoch + 1, ..next };
    for stale in [worker, unknown] {
        let exhausted = failed(lane, Seq::new(1), 1, Outcome::Exhausted);
        let unit = Unit::settle(Settle {
            settlements: vec![Settlement { log: vec![attempt(1)], ..exhausted }],
            lanes: vec![(lane, LaneState { failures: 7, ..LaneState::default() })],
            switch_offs: vec![SwitchOff { lane, reason: DisabledReason::Gone }],
            ..settle(&stale)
        });
        assert_eq!(world.commit(unit).await, Err(Refused::StaleEpoch));
    }
    assert_eq!(read(&world, &subscription, &accepted).await, before);
    let [taken] = world.take(&next, &[lane]).await.try_into().expect("the lane is the worker's");
    assert_eq!((taken.state, taken.subscription), (LaneState::default(), subscription));
}

pub(super) async fn the_last_status_outlives_an_attempt_without_one(world: World) {
    let (subscription, worker, accepted) = owed(&world, 1).await;
    let (lane, seq) = (subscription.lane, Seq::new(1));
    let retry = Outcome::RetryAt(world.now());
    world.settle(&worker, vec![failed(lane, seq, 1, retry)]).await;
    let no_answer = Settlement {
        status: None,
        error: Some(AttemptError::Timeout),
        ..failed(lane, seq, 2, retry)
    };
    world.settle(&worker, vec![no_answer]).await;
    let delivery = world.delivery(&subscription, &accepted[0]).await;
    assert_eq!(delivery.last_status, Some(500));
    assert_eq!(delivery.last_error, Some(AttemptError::Timeout));
    let success = settlement(lane, seq, Outcome::Delivered, world.now());
    world.settle(&worker, vec![Settlement { attempts: 3, ..success }]).await;
    let delivery = world.delivery(&subscription, &accepted[0]).await;
    assert_eq!((delivery.last_status, delivery.last_error), (Some(200), None));
    assert_eq!(delivery.attempts, 3);
}

pub(super) async fn a_change_of_the_subscription_gives_its_receiver_another_chance(world: World) {
    let (subscription, worker, accepted) = owed(&world, 1).await;
    let (organization, lane, id) = (subscription.organization, subscription.lane, subscription.id);
    let later = world.now() + SECOND * 600;
    let state = LaneState {
        failures: 12,
        failing_since: Some(world.now()),
        open_probes: Some(1),
        not_before: Some(later),
        ..LaneState::default()
    };
    let unit = Settle { lanes: vec![(lane, state)], ..settle(&worker) };
    world.commit(Unit::settle(unit)).await.expect("the epoch runs");
    let delivery = world.delivery(&subscription, &accepted[0]).await;
    assert_eq!(delivery.next_attempt_at, Some(later), "the whole lane waits");

    // Who resumes wants to see what happens, and not to be switched off for what was before; that the
    // circuit is open stays known.
    let active = |active| SubscriptionUpdate { active: Some(active), ..Default::default() };
    for is_active in [false, true] {
        let update = active(is_active);
        world.storage.update_subscription(organization, id, update, BY).await.expect(WORKS);
    }
    let resumed = LaneState { failures: 0, failing_since: None, not_before: None, ..state };
    assert_eq!(world.take(&worker, &[lane]).await[0].state, resumed);

    // Another URL is another receiver.
    let callback_url = Some(CallbackUrl::from_stored("https://example.com/another"));
    let update = SubscriptionUpdate { callback_url, ..Default::default() };
    world.storage.update_subscription(organization, id, update, BY).await.expect(WORKS);
    assert_eq!(world.take(&worker, &[lane]).await[0].state, LaneState::default());
    let delivery = world.delivery(&subscription, &accepted[0]).await;
    assert_eq!(delivery.next_attempt_at, Some(delivery.created_at));
}

pub(super) async fn lane_state_is_given_to_whoever_takes_the_lane(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let lane = subscription.lane;
    let (worker, _) =
        world.storage.enlist(world.worker_id(), Tenure::default()).await.expect(WORKS);
    let [taken] = world.take(&worker, &[lane]).await.try_into().expect("a free lane");
    assert_eq!(taken.state, LaneState::default());
    let failing = LaneState {
        failures: u32::MAX,
        failed_deliveries: 3,
        failing_since: Some(NOON),
        open_probes: Some(0),
        not_before: Some(NOON + SECOND),
        last_success_at: Some(NOON - SECOND),
        exhaustion_told_at: Some(NOON),
    };
    for state in [failing, LaneState::default(), LaneState { open_probes: Some(9), ..failing }] {
        let unit = Settle { lanes: vec![(lane, state)], ..settle(&worker) };
        world.commit(Unit::settle(unit)).await.expect("the epoch runs");
        let taken = world.take(&worker, &[lane]).await;
        assert_eq!(taken[0].state, state);
    }
    world.storage.resign(&worker).await.expect(WORKS);
    let (next, _) = world.storage.enlist(world.worker_id(), Tenure::default()).await.expect(WORKS);
    let [taken] = world.take(&next, &[lane]).await.try_into().expect("a free lane");
    assert_eq!(taken.state, LaneState { open_probes: Some(9), ..failing });
}

pub(super) async fn a_switched_off_subscription_says_why(world: World) {
    for reason in DisabledReason::ALL {
        let (subscription, worker, accepted) = owed(&world, 1).await;
        let lane = subscription.lane;
        world.clock.advance(SECOND);
        let switch_off = SwitchOff { lane, reason };
        let unit = Settle { switch_offs: vec![switch_off], ..settle(&worker) };
        assert_eq!(world.commit(Unit::settle(unit)).await, Ok(Committed::default()));
        let expected = Subscription {
            active: false,
            disabled_reason: Some(reason),
            held_since: Some(world.now()),
            updated_at: world.now(),
            ..subscription.clone()
        };
        let (organization, id) = (subscription.organization, subscription.id);
        let stored = world.storage.subscription(organization, id).await.expect(WORKS);
        assert_eq!(stored, Some(expected));
        assert_eq!(world.delivery(&subscription, &accepted[0]).await.state, DeliveryState::Held);
        let claimed = world.storage.claim(&worker, &[want(lane)], 1).await.expect(WORKS);
        assert!(claimed.is_empty());
        world.storage.resign(&worker).await.expect(WORKS);
    }
}

pub(super) async fn switching_off_what_is_paused_changes_nothing(world: World) {
    let (subscription, worker, _) = owed(&world, 1).await;
    let (organization, id) = (subscription.organization, subscription.id);
    let pause = SubscriptionUpdate { active: Some(false), ..SubscriptionUpdate::default() };
    let paused = world.storage.update_subscription(organization, id, pause, BY).await.expect(WORKS);
    world.clock.advance(SECOND);
    let switch_off = SwitchOff { lane: subscription.lane, reason: DisabledReason::Failing };
    let unit = Settle { switch_offs: vec![switch_off], ..settle(&worker) };
    assert_eq!(world.commit(Unit::settle(unit)).await, Ok(Committed::default()));
    let stored = world.storage.subscription(organization, id).await.expect(WORKS);
    assert_eq!(stored, Some(paused));
}

pub(super) async fn what_was_sent_before_a_pause_is_settled_during_it(world: World) {
    let (subscription, worker, accepted) = owed(&world, 2).await;
    let (organization, lane, id) = (subscription.organization, subscription.lane, subscription.id);
    let active = |active| SubscriptionUpdate { active: Some(active), ..Default::default() };
    world.storage.update_subscription(organization, id, active(false), BY).await.expect(WORKS);
    let settlements = vec![
        settlement(lane, Seq::new(1), Outcome::Delivered, NOON),
        failed(lane, Seq::new(2), 1, Outcome::RetryAt(NOON)),
    ];
    world.settle(&worker, settlements).await;
    let delivered = world.delivery(&subscription, &accepted[0]).await;
    assert_eq!(delivered.state, DeliveryState::Delivered);
    let held = world.delivery(&subscription, &accepted[1]).await;
    assert_eq!((held.state, held.attempts, held.next_attempt_at), (DeliveryState::Held, 1, None));
    world.storage.update_subscription(organization, id, active(true), BY).await.expect(WORKS);
    assert_eq!(world.due(&worker, lane).await, numbers([2]));
}

pub(super) async fn settling_for_a_deleted_subscription_changes_nothing(world: World) {
    let (subscription, worker, accepted) = owed(&world, 3).await;
    let lane = subscription.lane;
    world
        .storage
        .delete_subscription(subscription.organization, subscription.id, BY)
        .await
        .expect(WORKS);
    let before = read(&world, &subscription, &accepted).await;
    world.clock.advance(SECOND);
    let outcomes = [Outcome::Delivered, Outcome::Exhausted, Outcome::RetryAt(world.now())];
    let settlements = (1..).zip(outcomes).map(|(seq, outcome)| Settlement {
        log: vec![attempt(1)],
        ..failed(lane, Seq::new(seq), 1, outcome)
    });
    let unit = Unit::settle(Settle {
        settlements: settlements.collect(),
        lanes: vec![(lane, LaneState { failures: 1, ..LaneState::default() })],
        switch_offs: vec![SwitchOff { lane, reason: DisabledReason::Gone }],
        ..settle(&worker)
    });
    // Before the rows are rewritten and after.
    for _ in 0..2 {
        assert_eq!(world.commit(unit.clone()).await, Ok(Committed::default()));
        assert_eq!(read(&world, &subscription, &accepted).await, before);
        world.storage.sweep(&worker, 100).await.expect(WORKS);
    }
}

pub(super) async fn a_group_settles_and_publishes(world: World) {
    let (subscription, worker, _) = owed(&world, 2).await;
    let organization = subscription.organization;
    let settled = |seq| {
        let one = settlement(subscription.lane, Seq::new(seq), Outcome::Delivered, NOON);
        Unit::settle(Settle { settlements: vec![one], ..settle(&worker) })
    };
    let publish = Unit::publish(world.route(&world.events(organization, 1)).await);
    let results = world.storage.commit(vec![settled(1), publish, settled(2)]).await.expect(WORKS);
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(world.due(&worker, subscription.lane).await, numbers([3]));
    let delivered = Some(DeliveryState::Delivered);
    let (page, id) = (first(10), subscription.id);
    let list = world.storage.deliveries(organization, id, delivered, page).await.expect(WORKS);
    assert_eq!(list.expect("the subscription exists").items.len(), 2);
}

const NOON: Timestamp = World::BEGINNING;

/// A subscription with so many deliveries, and the worker that owns its lane.
async fn owed(world: &World, count: usize) -> (Subscription, Worker, Vec<Accepted>) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let worker = world.worker_of(&[subscription.lane]).await;
    let accepted = world.publish(&world.events(organization, count)).await;
    (subscription, worker, accepted)
}

/// The `number`-th attempt has got a 500.
fn failed(lane: LaneId, seq: Seq, number: u32, outcome: Outcome) -> Settlement {
    Settlement {
        attempts: number,
        charged: number,
        status: Some(500),
        error: Some(AttemptError::Status),
        ..settlement(lane, seq, outcome, NOON)
    }
}

fn attempt(number: u32) -> Attempt {
    Attempt {
        number,
        started_at: NOON - SECOND,
        status: Some(500),
        error: Some(AttemptError::Status),
        detail: Some("out of order".into()),
        probe: false,
        charged: true,
        timings: Timings { total: Duration::from_millis(12), ..Timings::default() },
    }
}

async fn log(world: &World, subscription: &Subscription, accepted: &Accepted) -> Vec<Attempt> {
    let id = DeliveryId::new(accepted.id, accepted.seq, subscription.lane);
    let found = world.storage.delivery(subscription.organization, id).await.expect(WORKS);
    found.expect("the delivery exists").1
}

async fn read(
    world: &World,
    subscription: &Subscription,
    accepted: &[Accepted],
) -> Vec<(crate::Delivery, Vec<Attempt>)> {
    let mut read = Vec::new();
    for accepted in accepted {
        let delivery = world.delivery(subscription, accepted).await;
        read.push((delivery, log(world, subscription, accepted).await));
    }
    read
}
