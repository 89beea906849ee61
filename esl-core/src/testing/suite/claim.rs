//! What is handed out of lanes, and when.

use std::{sync::Arc, time::Duration};

use super::{
    BY,
    world::{PLENTY, SECOND, WORKS, World, numbers, seqs, settlement, want},
};
use crate::{
    LaneId, RetryPolicy, SealedEvent, Seq, Subscription, SubscriptionUpdate, Timestamp,
    storage::{Outcome, Settlement, Tenure, Waiting, Want, Worker},
};

pub(super) async fn due_retries_come_first_and_then_the_untried_by_seq(world: World) {
    let (lane, worker) = lane_with(&world, 6).await;
    let now = world.now();
    // Due in another order than their seqs', and two at the same time.
    let due = [(2, 4), (3, 2), (5, 2), (6, 9)];
    let retries = due.map(|(seq, seconds)| retry(lane, seq, now + SECOND * seconds));
    world.settle(&worker, retries.to_vec()).await;
    assert_eq!(world.due(&worker, lane).await, numbers([1, 4]));
    world.clock.advance(SECOND * 4);
    let claimed = world.claim(&worker, want(lane)).await;
    assert_eq!(seqs(&claimed), numbers([3, 5, 2, 1, 4]));
    let are_retries: Vec<_> = claimed.due.iter().map(|due| due.is_retry).collect();
    assert_eq!(are_retries, [true, true, true, false, false]);
    assert_eq!(claimed.next_due, Some(now + SECOND * 9));
}

pub(super) async fn a_claim_hands_out_what_there_is_room_for(world: World) {
    let (lane, worker) = lane_with(&world, 5).await;
    world.settle(&worker, vec![retry(lane, 3, world.now()), retry(lane, 4, world.now())]).await;
    for (room, expected, is_all, has_next) in [
        (0, &[][..], false, true),
        (1, &[3], false, true),
        (2, &[3, 4], false, false),
        (4, &[3, 4, 1, 2], false, false),
        (5, &[3, 4, 1, 2, 5], true, false),
        (6, &[3, 4, 1, 2, 5], true, false),
    ] {
        let claimed = world.claim(&worker, Want { room, ..want(lane) }).await;
        assert_eq!(seqs(&claimed), numbers(expected.iter().copied()), "room for {room}");
        assert_eq!(claimed.is_all, is_all, "room for {room}");
        assert_eq!(claimed.next_due, has_next.then(|| world.now()), "room for {room}");
    }
}

pub(super) async fn a_claim_hands_out_the_untried_above_a_seq(world: World) {
    let (lane, worker) = lane_with(&world, 4).await;
    world.settle(&worker, vec![retry(lane, 2, world.now())]).await;
    for (after, room, expected, is_all) in [
        (Some(0), 9, &[2, 1, 3, 4][..], true),
        (Some(1), 9, &[2, 3, 4], true),
        (Some(1), 2, &[2, 3], false),
        (Some(3), 9, &[2, 4], true),
        (Some(4), 9, &[2], true),
        (Some(900), 9, &[2], true),
        (None, 9, &[2], true),
        (None, 0, &[], true),
    ] {
        let after = after.map(Seq::new);
        let claimed = world.claim(&worker, Want { room, after, ..want(lane) }).await;
        assert_eq!(seqs(&claimed), numbers(expected.iter().copied()), "after {after:?}");
        assert_eq!(claimed.is_all, is_all, "after {after:?}");
    }
}

pub(super) async fn retries_in_hand_are_not_handed_out_again(world: World) {
    let (lane, worker) = lane_with(&world, 4).await;
    let now = world.now();
    let later = now + SECOND;
    let retries = [(1, now), (2, now), (3, later)].map(|(seq, due_at)| retry(lane, seq, due_at));
    world.settle(&worker, retries.to_vec()).await;
    for (held, expected, next_due) in [
        (&[1][..], &[2, 4][..], Some(later)),
        (&[2, 1], &[4], Some(later)),
        (&[3], &[1, 2, 4], None),
        (&[1, 2, 3, 77], &[4], None),
    ] {
        let held = numbers(held.iter().copied());
        let claimed = world.claim(&worker, Want { held, ..want(lane) }).await;
        assert_eq!(seqs(&claimed), numbers(expected.iter().copied()));
        assert_eq!(claimed.next_due, next_due);
    }
    // A held one takes no room.
    let held = numbers([1]);
    let claimed = world.claim(&worker, Want { room: 1, held, ..want(lane) }).await;
    assert_eq!((seqs(&claimed), claimed.next_due), (numbers([2]), Some(later)));
}

pub(super) async fn the_bytes_of_a_claim_are_bounded(world: World) {
    let organization = world.organization().await;
    let (one, other) = (
        world.subscription_to(organization, "person.*").await.lane,
        world.subscription_to(organization, "pet.*").await.lane,
    );
    let worker = world.worker_of(&[one, other]).await;
    let event = |event_type| world.event_of(organization, event_type, "\"0123456789\"");
    let persons = [(); 4].map(|()| event("person.updated"));
    let bytes = persons[0].body.len();
    world.publish(&persons).await;
    world.publish(&[(); 2].map(|()| event("pet.updated"))).await;
    for (bytes_max, expected, is_all) in [
        (4 * bytes, &[1, 2, 3, 4][..], true),
        (3 * bytes, &[1, 2, 3], false),
        (3 * bytes - 1, &[1, 2], false),
        (1, &[1], false),
        (0, &[1], false),
    ] {
        let claimed = world.storage.claim(&worker, &[want(one)], bytes_max).await.expect(WORKS);
        assert_eq!(seqs(&claimed[0]), numbers(expected.iter().copied()), "{bytes_max} bytes");
        assert_eq!(claimed[0].is_all, is_all, "{bytes_max} bytes");
    }
    // However little there is, each lane gets one, and one without room or work takes nothing away.
    let wants = [want(one), want(other)];
    for bytes_max in [0, bytes, 2 * bytes - 1] {
        let claimed = world.storage.claim(&worker, &wants, bytes_max).await.expect(WORKS);
        assert_eq!(claimed.iter().map(seqs).collect::<Vec<_>>(), [numbers([1]), numbers([5])]);
    }
    let claimed = world.storage.claim(&worker, &wants, 6 * bytes).await.expect(WORKS);
    assert_eq!(claimed[0].due.len() + claimed[1].due.len(), 6);
    let no_room = [Want { room: 0, ..want(one) }, want(other)];
    let claimed = world.storage.claim(&worker, &no_room, 2 * bytes).await.expect(WORKS);
    assert_eq!(claimed.iter().map(seqs).collect::<Vec<_>>(), [numbers([]), numbers([5, 6])]);
}

pub(super) async fn a_claim_gives_the_event_as_it_was_sealed(world: World) {
    let organization = world.organization().await;
    let lane = world.subscription(organization).await.lane;
    let worker = world.worker_of(&[lane]).await;
    let generated = world.event_of(organization, "a.b.c", r#"{"n":1.50,"e":"\u00e9"}"#);
    let chosen = world.event_with_id(organization, world.event_id(), "[ ]");
    world.publish(&[Arc::clone(&generated), Arc::clone(&chosen)]).await;
    let claimed = world.claim(&worker, want(lane)).await;
    for (due, event) in claimed.due.iter().zip([generated, chosen]) {
        assert_eq!(due.event.body, event.body);
        assert_eq!((due.event.id, due.event.organization), (event.id, organization));
        assert_eq!(due.event.event_type, event.event_type);
        assert_eq!(due.event.timestamp, event.timestamp);
        assert_eq!((due.attempts, due.charged, due.is_retry), (0, 0, false));
    }
}

pub(super) async fn claiming_changes_nothing(world: World) {
    let (lane, worker) = lane_with(&world, 3).await;
    world.settle(&worker, vec![retry(lane, 2, world.now())]).await;
    for _ in 0..3 {
        assert_eq!(world.due(&worker, lane).await, numbers([2, 1, 3]));
    }
}

pub(super) async fn a_dropped_claim_loses_nothing(world: World) {
    let (lane, worker) = lane_with(&world, 3).await;
    let wants = [want(lane)];
    for _ in 0..10 {
        // Polled once, then dropped, wherever it stands.
        tokio::select! {
            biased;
            _ = world.storage.claim(&worker, &wants, PLENTY) => {}
            () = std::future::ready(()) => {}
        }
    }
    assert_eq!(world.due(&worker, lane).await, numbers([1, 2, 3]));
}

pub(super) async fn lanes_that_cannot_be_served_are_left_out_of_a_claim(world: World) {
    let organization = world.organization().await;
    let mut lanes = Vec::new();
    for _ in 0..4 {
        lanes.push(world.subscription(organization).await);
    }
    let (worker, _) =
        world.storage.enlist(world.worker_id(), Tenure::default()).await.expect(WORKS);
    let [served, paused, deleted, not_taken] = &lanes[..] else { unreachable!("four lanes") };
    world.take(&worker, &[served.lane, paused.lane, deleted.lane]).await;
    world.publish_new(organization, 1).await;
    set_active(&world, paused, false).await;
    world.storage.delete_subscription(organization, deleted.id, BY).await.expect(WORKS);

    let unknown = LaneId::new(not_taken.lane.get() + 1);
    let all = [deleted.lane, not_taken.lane, paused.lane, unknown, served.lane];
    let claimed = world.storage.claim(&worker, &all.map(want), PLENTY).await.expect(WORKS);
    let left: Vec<_> = claimed.iter().map(|claimed| claimed.lane).collect();
    assert_eq!(left, [served.lane]);
    assert!(world.storage.claim(&worker, &[], PLENTY).await.expect(WORKS).is_empty());
}

pub(super) async fn a_lane_without_work_is_answered_empty(world: World) {
    let (lane, worker) = lane_with(&world, 0).await;
    let claimed = world.claim(&worker, want(lane)).await;
    assert_eq!((claimed.lane, claimed.due.len()), (lane, 0));
    assert_eq!((claimed.is_all, claimed.next_due), (true, None));
}

pub(super) async fn a_clock_that_is_set_back_delays_no_retry(world: World) {
    let (lane, worker) = lane_with(&world, 2).await;
    let start = world.now();
    let retries = [(1, start + SECOND * 5), (2, start + SECOND * 20)];
    world.settle(&worker, retries.map(|(seq, due_at)| retry(lane, seq, due_at)).to_vec()).await;
    world.clock.advance(SECOND * 10);
    assert_eq!(world.due(&worker, lane).await, numbers([1]));
    // What was due stays due, and what was not is so after the time that was left.
    world.clock.set_utc(start - SECOND * 3600);
    assert_eq!(world.due(&worker, lane).await, numbers([1]));
    world.clock.advance(SECOND * 10 - Duration::from_millis(1));
    assert_eq!(world.due(&worker, lane).await, numbers([1]));
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(world.due(&worker, lane).await, numbers([1, 2]));
}

pub(super) async fn a_retry_further_away_than_any_delay_is_due(world: World) {
    let (lane, worker) = lane_with(&world, 3).await;
    let start = world.now();
    // Stored while the clock was ahead, as it seems: no delay is so long.
    let far = start + RetryPolicy::DELAY_MAX + Duration::from_millis(1);
    let retries = [(1, start + SECOND * 5), (2, far), (3, start + RetryPolicy::DELAY_MAX)];
    world.settle(&worker, retries.map(|(seq, due_at)| retry(lane, seq, due_at)).to_vec()).await;
    let claimed = world.claim(&worker, want(lane)).await;
    assert_eq!(seqs(&claimed), numbers([2]));
    assert_eq!(claimed.next_due, Some(start + SECOND * 5));
    let claimed = world.claim(&worker, Want { held: numbers([1, 3]), ..want(lane) }).await;
    assert_eq!((seqs(&claimed), claimed.next_due), (numbers([2]), None));
}

pub(super) async fn pausing_holds_deliveries_and_resuming_hands_them_out_in_order(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let lane = subscription.lane;
    let worker = world.worker_of(&[lane]).await;
    world.publish_new(organization, 2).await;
    world.settle(&worker, vec![retry(lane, 2, world.now())]).await;
    set_active(&world, &subscription, false).await;
    world.publish_new(organization, 2).await;
    let claimed = world.storage.claim(&worker, &[want(lane)], PLENTY).await.expect(WORKS);
    assert!(claimed.is_empty());
    set_active(&world, &subscription, true).await;
    assert_eq!(world.due(&worker, lane).await, numbers([2, 1, 3, 4]));
}

pub(super) async fn waiting_names_the_lanes_that_owe_something(world: World) {
    let organization = world.organization().await;
    let mut lanes = Vec::new();
    for pattern in ["a.*", "b.*", "c.*", "d.*", "e.*", "f.*"] {
        lanes.push(world.subscription_to(organization, pattern).await);
    }
    let [untried, retried, done, paused, deleted, idle] = &lanes[..] else {
        unreachable!("six lanes")
    };
    let worker = world.worker_of(&lanes.iter().map(|it| it.lane).collect::<Vec<_>>()).await;
    let events = ["a.x", "a.x", "b.x", "c.x", "d.x", "e.x"];
    world.publish(&events.map(|it| world.event_of(organization, it, "{}"))).await;
    let due_at = world.now() + SECOND * 60;
    let delivered = settlement(done.lane, Seq::new(4), Outcome::Delivered, world.now());
    world.settle(&worker, vec![retry(retried.lane, 3, due_at), delivered]).await;
    set_active(&world, paused, false).await;
    world.storage.delete_subscription(organization, deleted.id, BY).await.expect(WORKS);
    world.clock.advance(SECOND);

    let waiting = waiting_for(&world, &worker).await;
    assert_eq!(
        waiting.iter().map(|waiting| waiting.lane).collect::<Vec<_>>(),
        [untried.lane, retried.lane]
    );
    assert!(waiting[0].due_at <= world.now());
    assert_eq!(waiting[1].due_at, due_at);

    let page = async |after: Option<&Subscription>, limit| {
        let after = after.map(|subscription| subscription.lane);
        let page = world.storage.waiting(&worker, after, limit).await.expect(WORKS);
        page.into_iter().map(|waiting| waiting.lane).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 1).await, [untried.lane]);
    assert_eq!(page(Some(untried), 1).await, [retried.lane]);
    assert_eq!(page(Some(retried), 1).await, []);
    assert_eq!(page(Some(idle), 9).await, []);
    set_active(&world, paused, true).await;
    assert_eq!(page(Some(untried), 9).await, [retried.lane, paused.lane]);
}

pub(super) async fn waiting_also_names_lanes_that_are_free(world: World) {
    let organization = world.organization().await;
    let lane = world.subscription(organization).await.lane;
    world.publish_new(organization, 1).await;
    let (worker, _) =
        world.storage.enlist(world.worker_id(), Tenure::default()).await.expect(WORKS);
    assert_eq!(waiting_for(&world, &worker).await[0].lane, lane);
    world.take(&worker, &[lane]).await;
    assert_eq!(waiting_for(&world, &worker).await[0].lane, lane);
    // The earliest of a lane counts.
    world.publish_new(organization, 1).await;
    let now = world.now();
    world.settle(&worker, vec![retry(lane, 1, now + SECOND * 9)]).await;
    assert!(waiting_for(&world, &worker).await[0].due_at <= now);
    world.settle(&worker, vec![retry(lane, 2, now + SECOND * 4)]).await;
    assert_eq!(waiting_for(&world, &worker).await, [Waiting { lane, due_at: now + SECOND * 4 }]);
}

pub(super) async fn a_taken_lane_comes_with_its_subscription_as_it_is(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let deleted = world.subscription(organization).await;
    world.storage.delete_subscription(organization, deleted.id, BY).await.expect(WORKS);
    let paused = set_active(&world, &subscription, false).await;
    let (worker, _) =
        world.storage.enlist(world.worker_id(), Tenure::default()).await.expect(WORKS);
    let unknown = LaneId::new(deleted.lane.get() + 1);
    let lanes = [unknown, deleted.lane, subscription.lane];
    let taken = world.take(&worker, &lanes).await;
    assert_eq!(taken.iter().map(|it| &it.subscription).collect::<Vec<_>>(), [&paused]);
    // Taking it again tells what has changed.
    let resumed = set_active(&world, &subscription, true).await;
    assert_eq!(world.take(&worker, &lanes).await[0].subscription, resumed);
    assert_eq!(world.take(&worker, &[]).await, []);
}

pub(super) async fn an_event_from_the_future_is_due_at_once(world: World) {
    let organization = world.organization().await;
    let lane = world.subscription(organization).await.lane;
    let worker = world.worker_of(&[lane]).await;
    // Sealed on a machine whose clock is ahead.
    let timestamp = world.now() + SECOND * 3_600;
    let event = SealedEvent { timestamp, ..(*world.event(organization)).clone() };
    world.publish(&[Arc::new(event)]).await;
    assert_eq!(world.due(&worker, lane).await, numbers([1]));
    assert!(waiting_for(&world, &worker).await[0].due_at <= world.now());
}

async fn lane_with(world: &World, deliveries: usize) -> (LaneId, Worker) {
    let organization = world.organization().await;
    let lane = world.subscription(organization).await.lane;
    let worker = world.worker_of(&[lane]).await;
    if deliveries > 0 {
        world.publish_new(organization, deliveries).await;
    }
    (lane, worker)
}

fn retry(lane: LaneId, seq: u64, due_at: Timestamp) -> Settlement {
    settlement(lane, Seq::new(seq), Outcome::RetryAt(due_at), World::BEGINNING)
}

async fn set_active(world: &World, subscription: &Subscription, active: bool) -> Subscription {
    let update = SubscriptionUpdate { active: Some(active), ..SubscriptionUpdate::default() };
    let (organization, id) = (subscription.organization, subscription.id);
    world.storage.update_subscription(organization, id, update, BY).await.expect(WORKS)
}

async fn waiting_for(world: &World, worker: &Worker) -> Vec<Waiting> {
    world.storage.waiting(worker, None, 100).await.expect(WORKS)
}
