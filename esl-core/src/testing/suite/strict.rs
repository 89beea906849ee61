//! Claims of lanes in which a delivery waits for the one before it.

use super::world::{SECOND, WORKS, World, numbers, seqs, settlement, want};
use crate::{
    LaneId, Seq, Subscription,
    storage::{Claimed, Outcome, Want, Worker},
};

pub(super) async fn in_order_a_retry_that_is_due_takes_its_turn_by_seq(world: World) {
    let (subscription, worker) = lane_with(&world, 4).await;
    let lane = subscription.lane;
    put_off(&world, &worker, lane, 3, world.now()).await;
    let claimed = claim(&world, &worker, lane, 10).await;
    assert_eq!(seqs(&claimed), numbers([1, 2, 3, 4]));
    assert_eq!(
        claimed.due.iter().map(|due| due.is_retry).collect::<Vec<_>>(),
        [false, false, true, false]
    );
    assert_eq!((claimed.is_all, claimed.next_due), (true, None));
}

pub(super) async fn in_order_a_retry_that_is_not_due_blocks_the_rest(world: World) {
    let (subscription, worker) = lane_with(&world, 4).await;
    let lane = subscription.lane;
    let due_at = world.now() + SECOND * 5;
    put_off(&world, &worker, lane, 2, due_at).await;
    let claimed = claim(&world, &worker, lane, 10).await;
    assert_eq!(seqs(&claimed), numbers([1]));
    assert_eq!((claimed.is_all, claimed.next_due), (true, Some(due_at)));
    put_off(&world, &worker, lane, 1, due_at - SECOND).await;
    let claimed = claim(&world, &worker, lane, 10).await;
    assert!(claimed.due.is_empty());
    assert_eq!((claimed.is_all, claimed.next_due), (true, Some(due_at - SECOND)));
    world.clock.advance(SECOND * 5);
    assert_eq!(seqs(&claim(&world, &worker, lane, 10).await), numbers([1, 2, 3, 4]));
}

pub(super) async fn in_order_what_there_is_no_room_for_is_left(world: World) {
    let (subscription, worker) = lane_with(&world, 3).await;
    let lane = subscription.lane;
    for (room, expected, is_all) in
        [(1, vec![1], false), (2, vec![1, 2], false), (3, vec![1, 2, 3], true)]
    {
        let claimed = claim(&world, &worker, lane, room).await;
        assert_eq!((seqs(&claimed), claimed.is_all), (numbers(expected), is_all));
    }
    // One goes in any case, however large.
    let claimed = world.storage.claim(&worker, &[strict(lane, 10)], 1).await.expect(WORKS);
    assert_eq!((seqs(&claimed[0]), claimed[0].is_all), (numbers([1]), false));
}

pub(super) async fn in_order_a_reopened_delivery_is_the_head(world: World) {
    let (subscription, worker) = lane_with(&world, 3).await;
    let lane = subscription.lane;
    let given_up = settlement(lane, Seq::new(1), Outcome::Exhausted, world.now());
    world.settle(&worker, vec![given_up]).await;
    assert_eq!(seqs(&claim(&world, &worker, lane, 10).await), numbers([2, 3]));
    world.storage.reopen(subscription.organization, lane, Seq::new(1)).await.expect(WORKS);
    assert_eq!(seqs(&claim(&world, &worker, lane, 10).await), numbers([1, 2, 3]));
}

async fn lane_with(world: &World, deliveries: usize) -> (Subscription, Worker) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let worker = world.worker_of(&[subscription.lane]).await;
    world.publish_new(organization, deliveries).await;
    (subscription, worker)
}

async fn put_off(world: &World, worker: &Worker, lane: LaneId, seq: u64, due_at: crate::Timestamp) {
    let retry = settlement(lane, Seq::new(seq), Outcome::RetryAt(due_at), world.now());
    world.settle(worker, vec![retry]).await;
}

fn strict(lane: LaneId, room: usize) -> Want {
    Want { room, in_order: true, ..want(lane) }
}

async fn claim(world: &World, worker: &Worker, lane: LaneId, room: usize) -> Claimed {
    world.claim(worker, strict(lane, room)).await
}
