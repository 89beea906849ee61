//! What was acknowledged is there after SIGKILL, one kind of write at a time.

use std::sync::Arc;

use super::{
    BY,
    world::{SECOND, WORKS, World, first, kind, numbers, settle, settlement},
};
use crate::{
    Attempt, AttemptError, Client, DeliveryId, DeliveryState, Digest, DisabledReason, Scopes, Seq,
    SubscriptionUpdate, Timings, Token, TokenFamily, TokenKind,
    storage::{
        Accepted, Idempotency, LaneState, Outcome, Publish, Refused, Settle, Settlement,
        StorageErrorKind, SwitchOff, Unit,
    },
};

pub(super) async fn published_events_survive_a_kill(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let chosen = world.event_with_id(organization, world.event_id(), r#"{"n":1.0}"#);
    let mut events = world.events(organization, 3);
    events.push(Arc::clone(&chosen));
    let accepted = world.publish(&events).await;

    let world = world.kill_and_reopen().await;
    for (event, accepted) in events.iter().zip(&accepted) {
        let stored = world.storage.event(organization, event.id).await.expect(WORKS);
        let stored = stored.expect("it was acknowledged");
        assert_eq!((stored.seq, stored.body), (accepted.seq, event.body.clone()));
    }
    let worker = world.worker_of(&[subscription.lane]).await;
    assert_eq!(world.due(&worker, subscription.lane).await, numbers(1..=4));
    // Seqs go on, and a caller who did not get the answer gets it now.
    assert_eq!(world.publish_new(organization, 1).await, numbers([5]));
    let again = world.publish(&[chosen]).await;
    assert_eq!(again, [Accepted { repeated: true, ..accepted[3] }]);
}

pub(super) async fn every_acknowledged_commit_survives_a_kill(mut world: World) {
    let organization = world.organization().await;
    let mut last = Seq::ZERO;
    for _ in 0..5 {
        for _ in 0..3 {
            let seqs = world.publish_new(organization, 2).await;
            assert_eq!(seqs, numbers([last.get() + 1, last.get() + 2]));
            last = seqs[1];
        }
        world = world.kill_and_reopen().await;
        let listed = world.storage.events(organization, None, first(1_000)).await.expect(WORKS);
        let listed: Vec<_> = listed.items.iter().rev().map(|event| event.seq).collect();
        assert_eq!(listed, numbers(1..=last.get()));
    }
}

pub(super) async fn settlements_survive_a_kill(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let lane = subscription.lane;
    let worker = world.worker_of(&[lane]).await;
    let accepted = world.publish(&world.events(organization, 4)).await;
    let due_at = world.now() + SECOND;
    let attempt = Attempt {
        number: 1,
        started_at: world.now(),
        status: None,
        error: Some(AttemptError::Connect),
        detail: Some("refused".into()),
        probe: false,
        charged: true,
        timings: Timings::default(),
    };
    let outcomes = [Outcome::Delivered, Outcome::RetryAt(due_at), Outcome::Exhausted];
    let settlements = (1..).zip(outcomes).map(|(seq, outcome)| Settlement {
        log: vec![attempt.clone()],
        ..settlement(lane, Seq::new(seq), outcome, world.now())
    });
    let state = LaneState { failures: 2, failing_since: Some(world.now()), ..Default::default() };
    let unit = Settle {
        settlements: settlements.collect(),
        lanes: vec![(lane, state)],
        ..settle(&worker)
    };
    world.commit(Unit::settle(unit)).await.expect("the epoch runs");
    let before = world.deliveries(&subscription).await;

    let world = world.kill_and_reopen().await;
    assert_eq!(world.deliveries(&subscription).await, before);
    for accepted in &accepted[..3] {
        let id = DeliveryId::new(accepted.id, accepted.seq, lane);
        let found = world.storage.delivery(organization, id).await.expect(WORKS);
        assert_eq!(found.expect("the delivery exists").1, std::slice::from_ref(&attempt));
    }
    world.clock.advance(SECOND);
    let worker = world.worker_of(&[lane]).await;
    assert_eq!(world.take(&worker, &[lane]).await[0].state, state);
    assert_eq!(world.due(&worker, lane).await, numbers([2, 4]));
}

pub(super) async fn a_killed_engine_owns_nothing(world: World) {
    let organization = world.organization().await;
    let lane = world.subscription(organization).await.lane;
    let killed = world.worker_of(&[lane]).await;
    world.publish_new(organization, 1).await;

    let world = world.kill_and_reopen().await;
    let worker = world.worker_of(&[lane]).await;
    assert!(worker.epoch > killed.epoch);
    assert_eq!(kind(world.storage.renew(&killed).await), StorageErrorKind::Fenced);
    let late = settlement(lane, Seq::new(1), Outcome::Delivered, world.now());
    let unit = Unit::settle(Settle { settlements: vec![late], ..settle(&killed) });
    assert_eq!(world.commit(unit).await, Err(Refused::StaleEpoch));
    assert_eq!(world.due(&worker, lane).await, numbers([1]));
}

pub(super) async fn a_switch_off_survives_a_kill(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let worker = world.worker_of(&[subscription.lane]).await;
    let switch_off = SwitchOff { lane: subscription.lane, reason: DisabledReason::Failing };
    let unit = Settle { switch_offs: vec![switch_off], ..settle(&worker) };
    world.commit(Unit::settle(unit)).await.expect("the epoch runs");

    let world = world.kill_and_reopen().await;
    let stored = world.storage.subscription(organization, subscription.id).await.expect(WORKS);
    let stored = stored.expect("it exists");
    assert!(!stored.active);
    assert_eq!(stored.disabled_reason, Some(DisabledReason::Failing));
}

pub(super) async fn an_idempotency_key_survives_a_kill(world: World) {
    let organization = world.organization().await;
    let keyed = async |world: &World, fingerprint| {
        let publish = world.route(&world.events(organization, 2)).await;
        let key = "key".to_owned();
        let idempotency = Some(Idempotency { key, fingerprint: [fingerprint; 32] });
        world.commit(Unit::publish(Publish { idempotency, ..publish })).await
    };
    let first = keyed(&world, 1).await.expect("in order").events;

    let world = world.kill_and_reopen().await;
    let again = keyed(&world, 1).await.expect("the same request").events;
    let repeated: Vec<_> = first.iter().map(|it| Accepted { repeated: true, ..*it }).collect();
    assert_eq!(again, repeated);
    assert_eq!(keyed(&world, 2).await, Err(Refused::IdempotencyConflict));
}

pub(super) async fn intake_rows_survive_a_kill(world: World) {
    let organization = world.organization().await;
    let events = world.events(organization, 3);
    world.storage.enqueue(events.clone()).await.expect(WORKS);

    let world = world.kill_and_reopen().await;
    let rows = world.storage.intake(None, 9, &[]).await.expect(WORKS);
    assert_eq!(
        rows.iter().map(|(_, event)| event).collect::<Vec<_>>(),
        events.iter().collect::<Vec<_>>()
    );
    let mut publish = world.route(&events[..2]).await;
    for (routed, (row, _)) in publish.events.iter_mut().zip(&rows) {
        routed.intake = Some(*row);
    }
    world.commit(Unit::publish(publish)).await.expect("in order");

    // Moved, they do not come back; and what is added goes behind what is left.
    let world = world.kill_and_reopen().await;
    assert_eq!(world.storage.intake(None, 9, &[]).await.expect(WORKS), rows[2..]);
    world.storage.enqueue(vec![world.event(organization)]).await.expect(WORKS);
    let left = world.storage.intake(None, 9, &[]).await.expect(WORKS);
    assert_eq!(left.len(), 2);
    assert_eq!(left[0], rows[2]);
}

pub(super) async fn subscriptions_survive_a_kill(world: World) {
    let organization = world.organization().await;
    let kept = world.subscription(organization).await;
    let changed = world.subscription(organization).await;
    let deleted = world.subscription(organization).await;
    world.publish_new(organization, 1).await;
    let update = SubscriptionUpdate {
        events: Some(vec!["pet.*".parse().expect("a pattern")]),
        active: Some(false),
        ..SubscriptionUpdate::default()
    };
    let changed = world.storage.update_subscription(organization, changed.id, update, BY).await;
    let changed = changed.expect(WORKS);
    world.storage.delete_subscription(organization, deleted.id, BY).await.expect(WORKS);
    let routes = world.storage.routes(organization).await.expect(WORKS);

    let world = world.kill_and_reopen().await;
    assert_eq!(world.storage.routes(organization).await.expect(WORKS), routes);
    let listed = world.storage.subscriptions(organization, first(9)).await.expect(WORKS);
    assert_eq!(listed.items, [kept, changed]);
    assert_eq!(world.deliveries(&deleted).await[0].state, DeliveryState::Cancelled);
    // The lane of a deleted one is not given to the next, not even after a kill.
    assert!(world.subscription(organization).await.lane > deleted.lane);
}

pub(super) async fn a_reopened_delivery_survives_a_kill(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let lane = subscription.lane;
    let worker = world.worker_of(&[lane]).await;
    world.publish_new(organization, 2).await;
    let exhausted = settlement(lane, Seq::new(2), Outcome::Exhausted, world.now());
    world.settle(&worker, vec![exhausted]).await;
    world.storage.reopen(organization, lane, Seq::new(2)).await.expect(WORKS);
    let before = world.deliveries(&subscription).await;

    let world = world.kill_and_reopen().await;
    assert_eq!(world.deliveries(&subscription).await, before);
    let worker = world.worker_of(&[lane]).await;
    assert_eq!(world.due(&worker, lane).await, numbers([2, 1]));
}

pub(super) async fn organizations_clients_and_tokens_survive_a_kill(world: World) {
    let organization = world.organization().await;
    let client = |id: &str| Client {
        id: id.to_owned(),
        organization,
        secret: Digest::of(id.as_bytes()),
        scopes: Scopes::all(),
        created_at: World::BEGINNING,
    };
    let token = |client: &str| Token {
        digest: Digest::of(client.as_bytes()),
        kind: TokenKind::Refresh,
        client: client.to_owned(),
        organization,
        family: TokenFamily::from_bytes([1; 16]),
        scopes: Scopes::all(),
        expires_at: World::BEGINNING + SECOND * 3_600,
    };
    for id in ["kept", "deleted"] {
        world.storage.create_client(client(id), BY).await.expect(WORKS);
        let secret = client(id).secret;
        world.storage.store_tokens(&secret, vec![token(id)]).await.expect(WORKS);
    }
    world.storage.delete_client(organization, "deleted", BY).await.expect(WORKS);
    let organizations = world.storage.organizations().await.expect(WORKS);

    let world = world.kill_and_reopen().await;
    assert_eq!(world.storage.organizations().await.expect(WORKS), organizations);
    for (id, client) in [("kept", Some(client("kept"))), ("deleted", None)] {
        assert_eq!(world.storage.client_of(organization, id).await.expect(WORKS), client);
    }
    let kept = token("kept");
    assert_eq!(world.storage.token(&kept.digest).await.expect(WORKS), Some(kept));
    let deleted = token("deleted").digest;
    assert_eq!(world.storage.token(&deleted).await.expect(WORKS), None);
}

pub(super) async fn a_sweep_survives_a_kill(world: World) {
    let organization = world.organization().await;
    let deleted = world.subscription(organization).await;
    world.publish_new(organization, 3).await;
    world.storage.delete_subscription(organization, deleted.id, BY).await.expect(WORKS);
    let before = world.deliveries(&deleted).await;
    let worker = world.worker_of(&[]).await;
    assert_eq!(world.storage.sweep(&worker, 2).await.expect(WORKS).cancelled, 2);

    let world = world.kill_and_reopen().await;
    let worker = world.worker_of(&[]).await;
    assert_eq!(world.deliveries(&deleted).await, before);
    let swept = world.storage.sweep(&worker, 9).await.expect(WORKS);
    assert_eq!((swept.cancelled, swept.more), (1, false));
}
