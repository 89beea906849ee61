//! Deliveries that are opened again.

use super::{
    BY,
    world::{SECOND, WORKS, World, kind, numbers, settlement, want},
};
use crate::{
    Attempt, AttemptError, Delivery, DeliveryId, DeliveryState, LaneId, Seq, Subscription,
    SubscriptionUpdate, Timings,
    storage::{Accepted, Outcome, Settlement, StorageErrorKind, Worker},
};

pub(super) async fn a_reopened_delivery_is_due_now_with_a_fresh_budget(world: World) {
    let (subscription, worker, accepted) = exhausted(&world).await;
    let (organization, lane, seq) = (subscription.organization, subscription.lane, accepted[1].seq);
    let before = world.delivery(&subscription, &accepted[1]).await;
    world.clock.advance(SECOND);
    world.storage.reopen(organization, lane, seq).await.expect(WORKS);
    let expected = Delivery {
        state: DeliveryState::Pending,
        next_attempt_at: Some(world.now()),
        finished_at: None,
        ..before
    };
    assert_eq!(world.delivery(&subscription, &accepted[1]).await, expected);

    // It comes before what was never tried.
    let claimed = world.claim(&worker, want(lane)).await;
    assert_eq!(super::world::seqs(&claimed), numbers([2, 1, 3]));
    let due = &claimed.due[0];
    assert_eq!((due.attempts, due.charged, due.is_retry), (6, 0, true));
}

pub(super) async fn a_reopened_deliverys_attempts_go_on(world: World) {
    let (subscription, worker, accepted) = exhausted(&world).await;
    let (organization, lane, seq) = (subscription.organization, subscription.lane, accepted[1].seq);
    world.storage.reopen(organization, lane, seq).await.expect(WORKS);
    let settled = Settlement {
        attempts: 7,
        log: vec![attempt(7)],
        ..settlement(lane, seq, Outcome::Exhausted, world.now())
    };
    world.settle(&worker, vec![settled]).await;
    let id = DeliveryId::new(accepted[1].id, seq, lane);
    let found = world.storage.delivery(organization, id).await.expect(WORKS);
    let (delivery, log) = found.expect("the delivery exists");
    assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Exhausted, 7));
    assert_eq!(log, [attempt(6), attempt(7)]);
    world.storage.reopen(organization, lane, seq).await.expect("it is exhausted again");
}

pub(super) async fn only_what_is_exhausted_can_be_reopened(world: World) {
    let (subscription, worker, accepted) = exhausted(&world).await;
    let (organization, lane) = (subscription.organization, subscription.lane);
    let reopen = async |seq| world.storage.reopen(organization, lane, seq).await;
    assert_eq!(kind(reopen(accepted[0].seq).await), StorageErrorKind::Conflict);
    let [delivered, retried] = [accepted[0].seq, accepted[2].seq]
        .map(|seq| settlement(lane, seq, Outcome::RetryAt(world.now() + SECOND), world.now()));
    let delivered = Settlement { outcome: Outcome::Delivered, ..delivered };
    world.settle(&worker, vec![delivered, retried]).await;
    assert_eq!(kind(reopen(accepted[0].seq).await), StorageErrorKind::Conflict);
    assert_eq!(kind(reopen(accepted[2].seq).await), StorageErrorKind::Conflict);
    reopen(accepted[1].seq).await.expect("it is exhausted");
    assert_eq!(kind(reopen(accepted[1].seq).await), StorageErrorKind::Conflict);
}

pub(super) async fn what_does_not_exist_cannot_be_reopened(world: World) {
    let (subscription, _, accepted) = exhausted(&world).await;
    let (organization, lane, seq) = (subscription.organization, subscription.lane, accepted[1].seq);
    let (other, unknown) = (world.organization().await, world.organization_id());
    let unknown_lane = LaneId::new(lane.get() + 1);
    for (organization, lane, seq) in [
        (other, lane, seq),
        (unknown, lane, seq),
        (organization, unknown_lane, seq),
        (organization, lane, Seq::new(4)),
    ] {
        let refused = world.storage.reopen(organization, lane, seq).await;
        assert_eq!(kind(refused), StorageErrorKind::NotFound);
    }
    world.storage.delete_subscription(organization, subscription.id, BY).await.expect(WORKS);
    for accepted in &accepted {
        let refused = world.storage.reopen(organization, lane, accepted.seq).await;
        assert_eq!(kind(refused), StorageErrorKind::Conflict, "its subscription is gone");
    }
    let delivery = world.delivery(&subscription, &accepted[1]).await;
    assert_eq!(delivery.state, DeliveryState::Exhausted);
}

pub(super) async fn a_paused_subscriptions_delivery_is_reopened_into_being_held(world: World) {
    let (subscription, worker, accepted) = exhausted(&world).await;
    let (organization, lane, id) = (subscription.organization, subscription.lane, subscription.id);
    let active = |active| SubscriptionUpdate { active: Some(active), ..Default::default() };
    world.storage.update_subscription(organization, id, active(false), BY).await.expect(WORKS);
    world.storage.reopen(organization, lane, accepted[1].seq).await.expect(WORKS);
    let delivery = world.delivery(&subscription, &accepted[1]).await;
    assert_eq!((delivery.state, delivery.next_attempt_at), (DeliveryState::Held, None));
    world.storage.update_subscription(organization, id, active(true), BY).await.expect(WORKS);
    assert_eq!(world.due(&worker, lane).await, numbers([2, 1, 3]));
}

pub(super) async fn a_delivery_of_an_erased_event_cannot_be_reopened(world: World) {
    let (subscription, worker, accepted) = exhausted(&world).await;
    let (organization, lane) = (subscription.organization, subscription.lane);
    let delivered = settlement(lane, accepted[0].seq, Outcome::Delivered, world.now());
    world.settle(&worker, vec![delivered]).await;
    for accepted in &accepted {
        world.storage.erase_event(organization, accepted.id).await.expect(WORKS);
        let refused = world.storage.reopen(organization, lane, accepted.seq).await;
        assert_eq!(kind(refused), StorageErrorKind::Gone, "{:?}", accepted.seq);
    }
    let states: Vec<_> = world.deliveries(&subscription).await.iter().map(|it| it.state).collect();
    let expected = [DeliveryState::Delivered, DeliveryState::Exhausted, DeliveryState::Cancelled];
    assert_eq!(states, expected);
    assert_eq!(world.due(&worker, lane).await, []);
    // One that there never was is not gone.
    let late = world.subscription(organization).await;
    let never = world.storage.reopen(organization, late.lane, accepted[0].seq).await;
    assert_eq!(kind(never), StorageErrorKind::NotFound);
}

/// Three deliveries, of which the second is exhausted after six attempts.
async fn exhausted(world: &World) -> (Subscription, Worker, Vec<Accepted>) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let worker = world.worker_of(&[subscription.lane]).await;
    let accepted = world.publish(&world.events(organization, 3)).await;
    let settled = Settlement {
        attempts: 6,
        charged: 6,
        log: vec![attempt(6)],
        ..settlement(subscription.lane, accepted[1].seq, Outcome::Exhausted, world.now())
    };
    world.settle(&worker, vec![settled]).await;
    (subscription, worker, accepted)
}

fn attempt(number: u32) -> Attempt {
    Attempt {
        number,
        started_at: World::BEGINNING,
        status: None,
        error: Some(AttemptError::Connect),
        detail: None,
        probe: false,
        charged: true,
        timings: Timings::default(),
    }
}
