//! Events and deliveries as their organization reads them.

use super::{
    BY,
    world::{SECOND, WORKS, World, first, numbers, settle, settlement},
};
use crate::{
    Delivery, DeliveryId, DeliveryState, LaneId, Seq, Subscription, SubscriptionId,
    SubscriptionUpdate,
    storage::{Health, LaneState, Outcome, Page, PageOf, Settle, StoredEvent, Unit},
};

pub(super) async fn an_event_is_read_as_it_was_sealed(world: World) {
    let organization = world.organization().await;
    world.subscription(organization).await;
    world.publish_new(organization, 1).await;
    let event = world.event_of(organization, "a.b_1.c", r#"{"n":1.50,"e":"\u00e9","a":[ ]}"#);
    world.publish(std::slice::from_ref(&event)).await;
    let expected = StoredEvent {
        id: event.id,
        event_type: event.event_type.clone(),
        seq: Seq::new(2),
        timestamp: event.timestamp,
        deliveries: 1,
        body: event.body.clone(),
        changes: None,
        erased_at: None,
    };
    let stored = world.storage.event(organization, event.id).await.expect(WORKS);
    assert_eq!(stored.as_ref(), Some(&expected));
    let newest = world.storage.events(organization, None, first(1)).await.expect(WORKS);
    assert_eq!(newest, PageOf { items: vec![expected], more: true });
    assert_eq!(world.storage.event(organization, world.event_id()).await.expect(WORKS), None);
}

pub(super) async fn events_are_listed_newest_first(world: World) {
    let organization = world.organization().await;
    let types = ["a.x", "b.x", "a.x", "b.x", "a.x"];
    world.publish(&types.map(|it| world.event_of(organization, it, "{}"))).await;
    let page = async |event_type: Option<&str>, after: Option<u64>, limit| {
        let event_type = event_type.map(|it| it.parse().expect("a type"));
        let page = Page { after: after.map(Seq::new), limit };
        let page = world.storage.events(organization, event_type, page).await.expect(WORKS);
        (page.items.iter().map(|event| event.seq.get()).collect::<Vec<_>>(), page.more)
    };
    assert_eq!(page(None, None, 9).await, (vec![5, 4, 3, 2, 1], false));
    assert_eq!(page(None, None, 5).await, (vec![5, 4, 3, 2, 1], false));
    assert_eq!(page(None, None, 2).await, (vec![5, 4], true));
    assert_eq!(page(None, Some(4), 2).await, (vec![3, 2], true));
    assert_eq!(page(None, Some(2), 2).await, (vec![1], false));
    assert_eq!(page(None, Some(1), 2).await, (vec![], false));
    assert_eq!(page(Some("a.x"), None, 2).await, (vec![5, 3], true));
    assert_eq!(page(Some("a.x"), Some(3), 2).await, (vec![1], false));
    assert_eq!(page(Some("b.x"), Some(4), 1).await, (vec![2], false));
    // A type is itself, and not what is below it or begins like it.
    assert_eq!(page(Some("a.x.y"), None, 9).await, (vec![], false));
    assert_eq!(page(Some("c.x"), None, 9).await, (vec![], false));
    let nobodys = world.storage.events(world.organization_id(), None, first(9)).await;
    assert_eq!(nobodys.expect(WORKS), PageOf { items: Vec::new(), more: false });
}

pub(super) async fn a_delivery_that_was_never_tried_is_pending(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription_to(organization, "person.*").await;
    let event = world.event(organization);
    world.clock.advance(SECOND);
    let [accepted] = world.publish(std::slice::from_ref(&event)).await.try_into().expect("one");
    let expected = Delivery {
        id: DeliveryId::new(event.id, accepted.seq, subscription.lane),
        event_id: event.id,
        event_type: event.event_type.clone(),
        subscription_id: subscription.id,
        seq: accepted.seq,
        state: DeliveryState::Pending,
        attempts: 0,
        created_at: event.timestamp,
        next_attempt_at: Some(event.timestamp),
        finished_at: None,
        last_status: None,
        last_error: None,
    };
    assert_eq!(world.deliveries(&subscription).await, std::slice::from_ref(&expected));
    let read = world.storage.delivery(organization, expected.id).await.expect(WORKS);
    assert_eq!(read, Some((expected, Vec::new())));
}

pub(super) async fn every_state_is_shown_as_it_is(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let lane = subscription.lane;
    let worker = world.worker_of(&[lane]).await;
    world.publish_new(organization, 4).await;
    let due_at = world.now() + SECOND;
    let outcomes = [Outcome::Delivered, Outcome::Exhausted, Outcome::RetryAt(due_at)];
    let settlements = (1..)
        .zip(outcomes)
        .map(|(seq, outcome)| settlement(lane, Seq::new(seq), outcome, world.now()));
    world.settle(&worker, settlements.collect()).await;

    use DeliveryState::{Cancelled, Delivered, Exhausted, Held, Pending};
    let shown = async || {
        let deliveries = world.deliveries(&subscription).await;
        for delivery in &deliveries {
            let is_pending = delivery.state == Pending;
            assert_eq!(delivery.next_attempt_at.is_some(), is_pending, "{delivery:?}");
            assert_eq!(delivery.finished_at.is_none(), delivery.state.is_open(), "{delivery:?}");
        }
        deliveries.iter().map(|delivery| delivery.state).collect::<Vec<_>>()
    };
    assert_eq!(shown().await, [Delivered, Exhausted, Pending, Pending]);
    let pause = SubscriptionUpdate { active: Some(false), ..SubscriptionUpdate::default() };
    world.storage.update_subscription(organization, subscription.id, pause, BY).await.expect(WORKS);
    assert_eq!(shown().await, [Delivered, Exhausted, Held, Held]);
    assert_eq!(in_state(&world, &subscription, Held).await, numbers([4, 3]));
    assert_eq!(in_state(&world, &subscription, Pending).await, []);
    world.storage.delete_subscription(organization, subscription.id, BY).await.expect(WORKS);
    assert_eq!(shown().await, [Delivered, Exhausted, Cancelled, Cancelled]);
    assert_eq!(in_state(&world, &subscription, Cancelled).await, numbers([4, 3]));
    assert_eq!(in_state(&world, &subscription, Held).await, []);
}

pub(super) async fn deliveries_are_listed_newest_first_and_by_state(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let lane = subscription.lane;
    let worker = world.worker_of(&[lane]).await;
    world.publish_new(organization, 7).await;
    let outcomes = [
        (1, Outcome::Delivered),
        (3, Outcome::Exhausted),
        (4, Outcome::Delivered),
        (5, Outcome::RetryAt(world.now() + SECOND)),
        (6, Outcome::Delivered),
    ];
    let settlements =
        outcomes.map(|(seq, outcome)| settlement(lane, Seq::new(seq), outcome, world.now()));
    world.settle(&worker, settlements.to_vec()).await;
    let page = async |state, after: Option<u64>, limit| {
        let page = Page { after: after.map(Seq::new), limit };
        let id = subscription.id;
        let page = world.storage.deliveries(organization, id, state, page).await.expect(WORKS);
        let page = page.expect("the subscription exists");
        (page.items.iter().map(|it| it.seq.get()).collect::<Vec<_>>(), page.more)
    };
    use DeliveryState::{Cancelled, Delivered, Exhausted, Expired, Held, Pending};
    assert_eq!(page(None, None, 9).await, (vec![7, 6, 5, 4, 3, 2, 1], false));
    assert_eq!(page(None, None, 3).await, (vec![7, 6, 5], true));
    assert_eq!(page(None, Some(5), 4).await, (vec![4, 3, 2, 1], false));
    assert_eq!(page(Some(Delivered), None, 2).await, (vec![6, 4], true));
    assert_eq!(page(Some(Delivered), Some(4), 2).await, (vec![1], false));
    assert_eq!(page(Some(Pending), None, 9).await, (vec![7, 5, 2], false));
    assert_eq!(page(Some(Pending), Some(7), 1).await, (vec![5], true));
    assert_eq!(page(Some(Exhausted), None, 9).await, (vec![3], false));
    for none in [Held, Expired, Cancelled] {
        assert_eq!(page(Some(none), None, 9).await, (vec![], false));
    }
}

pub(super) async fn a_subscription_without_deliveries_has_an_empty_list(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    assert_eq!(world.deliveries(&subscription).await, []);
    let unknown: SubscriptionId = world.draft(organization, "*").id;
    let list = world.storage.deliveries(organization, unknown, None, first(9)).await;
    assert_eq!(list.expect(WORKS), None);
}

pub(super) async fn a_made_up_delivery_id_finds_nothing(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let [accepted] =
        world.publish(&world.events(organization, 1)).await.try_into().expect("one event");
    let (lane, seq) = (subscription.lane, accepted.seq);
    world.clock.advance(SECOND);
    let later = world.event_id();
    let unknown_lane = LaneId::new(lane.get() + 1);
    for made_up in [
        DeliveryId::new(later, seq, lane),
        DeliveryId::new(accepted.id, Seq::new(2), lane),
        DeliveryId::new(accepted.id, Seq::ZERO, lane),
        DeliveryId::new(accepted.id, seq, unknown_lane),
        DeliveryId::new(accepted.id, Seq::MAX, LaneId::MAX),
    ] {
        assert_eq!(world.storage.delivery(organization, made_up).await.expect(WORKS), None);
    }
    let genuine = DeliveryId::new(accepted.id, seq, lane);
    assert!(world.storage.delivery(organization, genuine).await.expect(WORKS).is_some());
}

pub(super) async fn health_counts_what_waits_and_since_when(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let (id, lane) = (subscription.id, subscription.lane);
    let health = async || world.storage.health(organization, id).await.expect(WORKS);
    assert_eq!(health().await, Some(Health::default()));

    let worker = world.worker_of(&[lane]).await;
    let sealed_at = world.now();
    world.publish_new(organization, 3).await;
    world.clock.advance(SECOND);
    let later = world.now() + SECOND;
    let put_off = settlement(lane, Seq::new(1), Outcome::RetryAt(later), world.now());
    let state = LaneState { failures: 1, failing_since: Some(world.now()), ..Default::default() };
    let unit = Settle { settlements: vec![put_off], lanes: vec![(lane, state)], ..settle(&worker) };
    world.commit(Unit::settle(unit)).await.expect("the epoch runs");
    let expected = Health { lane: state, waiting: 3, oldest_due: Some(sealed_at) };
    assert_eq!(health().await, Some(expected));

    let delivered = [2, 3].map(|seq| settlement(lane, Seq::new(seq), Outcome::Delivered, later));
    world.settle(&worker, delivered.to_vec()).await;
    let expected = Health { lane: state, waiting: 1, oldest_due: Some(later) };
    assert_eq!(health().await, Some(expected));
    let other = world.organization().await;
    assert_eq!(world.storage.health(other, id).await.expect(WORKS), None);
    world.storage.delete_subscription(organization, id, BY).await.expect(WORKS);
    assert_eq!(health().await, None);
}

pub(super) async fn a_working_storage_says_so(world: World) {
    world.storage.check().await.expect(WORKS);
    let organization = world.organization().await;
    world.publish_new(organization, 1).await;
    world.storage.check().await.expect(WORKS);
}

async fn in_state(world: &World, subscription: &Subscription, state: DeliveryState) -> Vec<Seq> {
    let (organization, id) = (subscription.organization, subscription.id);
    let page = world.storage.deliveries(organization, id, Some(state), first(99)).await;
    let page = page.expect(WORKS).expect("the subscription exists");
    page.items.iter().map(|delivery| delivery.seq).collect()
}
