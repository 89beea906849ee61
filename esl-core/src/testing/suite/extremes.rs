//! The empty, the huge and the odd.

use std::sync::Arc;

use super::world::{PLENTY, WORKS, World, first, numbers, seqs, settle, settlement, want};
use crate::{
    Attempt, AttemptError, DeliveryId, SealedEvent, Seq, Timestamp, Timings,
    storage::{Idempotency, LaneState, Outcome, Publish, Refused, Settle, Settlement, Unit, Want},
};

pub(super) async fn a_unit_of_a_thousand_events_is_committed(world: World) {
    let organization = world.organization().await;
    let lane = world.subscription(organization).await.lane;
    let seqs = world.publish_new(organization, 1_000).await;
    assert_eq!(seqs, numbers(1..=1_000));
    let worker = world.worker_of(&[lane]).await;
    assert_eq!(world.due(&worker, lane).await, seqs);
    let delivered = seqs.iter().map(|seq| settlement(lane, *seq, Outcome::Delivered, world.now()));
    world.settle(&worker, delivered.collect()).await;
    assert_eq!(world.due(&worker, lane).await, []);
    let listed = world.storage.events(organization, None, first(1_000)).await.expect(WORKS);
    assert_eq!((listed.items.len(), listed.more), (1_000, false));
}

pub(super) async fn an_event_goes_to_a_hundred_subscriptions(world: World) {
    let organization = world.organization().await;
    let mut lanes = Vec::new();
    for _ in 0..100 {
        lanes.push(world.subscription(organization).await.lane);
    }
    let worker = world.worker_of(&lanes).await;
    let accepted = world.publish(&world.events(organization, 2)).await;
    assert!(accepted.iter().all(|accepted| accepted.deliveries == 100));
    let wants: Vec<_> = lanes.iter().map(|lane| Want { room: 1, ..want(*lane) }).collect();
    let claimed = world.storage.claim(&worker, &wants, PLENTY).await.expect(WORKS);
    assert!(claimed.iter().all(|claimed| seqs(claimed) == numbers([1]) && !claimed.is_all));
    assert_eq!(claimed.iter().map(|claimed| claimed.lane).collect::<Vec<_>>(), lanes);
}

pub(super) async fn a_group_of_many_units_is_committed(world: World) {
    let organization = world.organization().await;
    let mut units = Vec::new();
    for _ in 0..500 {
        units.push(Unit::publish(world.route(&world.events(organization, 1)).await));
    }
    let results = world.storage.commit(units).await.expect(WORKS);
    let seqs = results.into_iter().map(|result| result.expect("in order").events[0].seq);
    assert_eq!(seqs.collect::<Vec<_>>(), numbers(1..=500));
}

pub(super) async fn a_body_of_a_mebibyte_is_kept(world: World) {
    let organization = world.organization().await;
    let lane = world.subscription(organization).await.lane;
    let data = format!("\"{}\"", "x".repeat(1 << 20));
    let event = world.event_of(organization, "person.updated", &data);
    world.publish(&[Arc::clone(&event)]).await;
    world.storage.enqueue(vec![Arc::clone(&event)]).await.expect(WORKS);
    let world = world.kill_and_reopen().await;
    let worker = world.worker_of(&[lane]).await;
    assert_eq!(world.claim(&worker, want(lane)).await.due[0].event.body, event.body);
    let stored = world.storage.event(organization, event.id).await.expect(WORKS);
    assert_eq!(stored.expect("it is stored").body, event.body);
    assert_eq!(world.storage.intake(None, 1, &[]).await.expect(WORKS)[0].1, event);
}

pub(super) async fn bodies_are_bytes(world: World) {
    let organization = world.organization().await;
    let lane = world.subscription(organization).await.lane;
    let base = world.event(organization);
    let bodies = [&b""[..], b"\0", b"\xff\xfe not UTF-8 \0 '\"", "\u{1F980}".as_bytes()];
    let events = bodies.map(|body| {
        let body = bytes::Bytes::copy_from_slice(body);
        Arc::new(SealedEvent { id: world.event_id(), body, ..(*base).clone() })
    });
    world.publish(&events).await;
    let worker = world.worker_of(&[lane]).await;
    let claimed = world.claim(&worker, want(lane)).await;
    for ((event, due), body) in events.iter().zip(&claimed.due).zip(bodies) {
        assert_eq!(due.event.body, body);
        let stored = world.storage.event(organization, event.id).await.expect(WORKS);
        assert_eq!(stored.expect("it is stored").body, body);
    }
}

pub(super) async fn the_longest_names_are_kept(world: World) {
    let organization = world.organization().await;
    let longest = format!("a.{}", "b".repeat(126));
    let event = world.event_of(organization, &longest, "{}");
    let publish = world.route(&[Arc::clone(&event)]).await;
    // Visible ASCII, all of it, up to the longest key.
    let key: String = ('!'..='~').cycle().take(255).collect();
    let keyed = |key: &str, fingerprint| {
        let idempotency = Idempotency { key: key.to_owned(), fingerprint: [fingerprint; 32] };
        Unit::publish(Publish { idempotency: Some(idempotency), ..publish.clone() })
    };
    world.commit(keyed(&key, 0)).await.expect("in order");
    assert_eq!(world.commit(keyed(&key, 255)).await, Err(Refused::IdempotencyConflict));
    world.commit(keyed(&key[..254], 255)).await.expect("another key");
    let event_type = Some(event.event_type.clone());
    let listed = world.storage.events(organization, event_type, first(9)).await.expect(WORKS);
    assert_eq!(listed.items[0].event_type.as_str(), longest);
}

pub(super) async fn the_largest_numbers_are_kept(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let lane = subscription.lane;
    let worker = world.worker_of(&[lane]).await;
    let first_and_last = [Timestamp::EPOCH, Timestamp::MAX].map(|timestamp| {
        let event = world.event(organization);
        Arc::new(SealedEvent { timestamp, ..(*event).clone() })
    });
    let accepted = world.publish(&first_and_last).await;
    assert_eq!(world.due(&worker, lane).await, numbers([1, 2]));
    let attempt = Attempt {
        number: u32::MAX,
        started_at: Timestamp::MAX,
        status: Some(u16::MAX),
        error: Some(AttemptError::Status),
        detail: Some("\0 é ' \u{1F980}".repeat(50)),
        probe: true,
        charged: true,
        timings: Timings::default(),
    };
    let settled = Settlement {
        attempts: u32::MAX,
        charged: u32::MAX,
        at: Timestamp::MAX,
        status: Some(u16::MAX),
        log: vec![attempt.clone()],
        ..settlement(lane, Seq::new(1), Outcome::RetryAt(Timestamp::MAX), world.now())
    };
    let state = LaneState {
        failures: u32::MAX,
        failed_deliveries: u32::MAX,
        failing_since: Some(Timestamp::EPOCH),
        open_probes: Some(u32::MAX),
        not_before: Some(Timestamp::MAX),
        last_success_at: Some(Timestamp::MAX),
        exhaustion_told_at: Some(Timestamp::MAX),
    };
    let unit = Settle { settlements: vec![settled], lanes: vec![(lane, state)], ..settle(&worker) };
    world.commit(Unit::settle(unit)).await.expect("the epoch runs");
    let id = DeliveryId::new(accepted[0].id, accepted[0].seq, lane);
    let found = world.storage.delivery(organization, id).await.expect(WORKS);
    let (delivery, log) = found.expect("the delivery exists");
    assert_eq!((delivery.attempts, delivery.last_status), (u32::MAX, Some(u16::MAX)));
    assert_eq!(delivery.next_attempt_at, Some(Timestamp::MAX));
    assert_eq!(delivery.created_at, Timestamp::EPOCH);
    assert_eq!(log, [attempt]);
    assert_eq!(world.take(&worker, &[lane]).await[0].state, state);
    let claimed = world.claim(&worker, want(lane)).await;
    // So far away that it is taken for a clock's mistake.
    assert_eq!((seqs(&claimed), claimed.next_due), (numbers([1, 2]), None));
}
