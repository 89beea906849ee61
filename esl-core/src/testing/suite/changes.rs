//! What one handle hears of what others change.

use std::sync::Arc;

use super::{
    BY, Engines,
    world::{PLENTY, WORKS, World, hear, heard, numbers, settlement, want},
};
use crate::{
    Client, Digest, Scopes, Seq, SubscriptionUpdate, Tiers, Token, TokenFamily, TokenKind,
    storage::{Change, Outcome, Publish, Refused, RouteVersion, Tenure, Unit},
};

pub(super) async fn own_changes_are_not_heard(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let pause = SubscriptionUpdate { active: Some(false), ..SubscriptionUpdate::default() };
    let (storage, id) = (&world.storage, subscription.id);
    storage.update_subscription(organization, id, pause, BY).await.expect(WORKS);
    storage.delete_subscription(organization, id, BY).await.expect(WORKS);
    let worker = world.worker_of(&[]).await;
    world.publish_new(organization, 1).await;
    storage.resign(&worker).await.expect(WORKS);
    assert_eq!(heard(&**storage).await, []);
}

pub(super) async fn changes_to_subscriptions_are_heard_by_others(world: World) {
    let organization = world.organization().await;
    let beside = world.another_handle().await;
    let change = Change::Subscriptions(organization);
    let draft = world.draft(organization, "*");
    let id = beside.create_subscription(draft, &Tiers::default(), BY).await.expect(WORKS).id;
    hear(&*world.storage, change).await;
    let pause = SubscriptionUpdate { active: Some(false), ..SubscriptionUpdate::default() };
    beside.update_subscription(organization, id, pause, BY).await.expect(WORKS);
    hear(&*world.storage, change).await;
    beside.delete_subscription(organization, id, BY).await.expect(WORKS);
    hear(&*world.storage, change).await;
}

pub(super) async fn changes_to_clients_and_tokens_are_heard_by_others(world: World) {
    let organization = world.organization().await;
    let beside = world.another_handle().await;
    let client = Client {
        id: "client".into(),
        organization,
        secret: Digest::of(b"secret"),
        scopes: Scopes::all(),
        created_at: world.now(),
    };
    beside.create_client(client, BY).await.expect(WORKS);
    hear(&*world.storage, Change::Tenancy).await;
    let token = Token {
        digest: Digest::of(b"token"),
        kind: TokenKind::Access,
        client: "client".into(),
        organization,
        family: TokenFamily::from_bytes([1; 16]),
        scopes: Scopes::all(),
        expires_at: world.now() + super::world::SECOND,
    };
    beside.store_tokens(&Digest::of(b"secret"), vec![token]).await.expect(WORKS);
    hear(&*world.storage, Change::Tenancy).await;
    beside.rotate_client(organization, "client", Digest::of(b"new"), BY).await.expect(WORKS);
    hear(&*world.storage, Change::Tenancy).await;
    beside.delete_client(organization, "client", BY).await.expect(WORKS);
    hear(&*world.storage, Change::Tenancy).await;
}

pub(super) async fn intake_is_heard_whoever_added_it(world: World) {
    let organization = world.organization().await;
    world.storage.enqueue(vec![world.event(organization)]).await.expect(WORKS);
    hear(&*world.storage, Change::Intake).await;
    let beside = world.another_handle().await;
    beside.enqueue(vec![world.event(organization)]).await.expect(WORKS);
    hear(&*world.storage, Change::Intake).await;
    assert_eq!(world.storage.intake(None, 9, &[]).await.expect(WORKS).len(), 2);
}

pub(super) async fn a_delivery_that_others_opened_again_is_heard(world: World) {
    let organization = world.organization().await;
    let lane = world.subscription(organization).await.lane;
    let worker = world.worker_of(&[lane]).await;
    world.publish_new(organization, 1).await;
    let exhausted = settlement(lane, Seq::new(1), Outcome::Exhausted, world.now());
    world.settle(&worker, vec![exhausted]).await;
    let beside = world.another_handle().await;
    beside.reopen(organization, lane, Seq::new(1)).await.expect(WORKS);
    hear(&*world.storage, Change::Lanes).await;
    assert_eq!(world.due(&worker, lane).await, numbers([1]));
}

pub(super) async fn a_dropped_wait_for_changes_loses_nothing(world: World) {
    let organization = world.organization().await;
    let beside = world.another_handle().await;
    for _ in 0..10 {
        // Polled once before there is anything to hear, then dropped.
        tokio::select! {
            biased;
            _ = world.storage.changed() => {}
            () = std::future::ready(()) => {}
        }
    }
    beside
        .create_subscription(world.draft(organization, "*"), &Tiers::default(), BY)
        .await
        .expect(WORKS);
    hear(&*world.storage, Change::Subscriptions(organization)).await;

    // A waiting task that is ended as it is being told.
    let waiting = tokio::spawn({
        let storage = Arc::clone(&world.storage);
        async move { storage.changed().await }
    });
    tokio::task::yield_now().await;
    beside
        .create_subscription(world.draft(organization, "*"), &Tiers::default(), BY)
        .await
        .expect(WORKS);
    waiting.abort();
    let change = Change::Subscriptions(organization);
    let told = waiting.await.is_ok_and(|changes| changes.contains(&change));
    if !told {
        hear(&*world.storage, change).await;
    }
}

pub(super) async fn whoever_waits_for_changes_is_woken(world: World) {
    let organization = world.organization().await;
    let beside = world.another_handle().await;
    let changes = [Change::Intake, Change::Subscriptions(organization), Change::Intake];
    for change in changes {
        let storage = Arc::clone(&world.storage);
        let waiting = tokio::spawn(async move { hear(&*storage, change).await });
        tokio::task::yield_now().await;
        match change {
            Change::Intake => {
                beside.enqueue(vec![world.event(organization)]).await.expect(WORKS);
            }
            Change::Subscriptions(_)
            | Change::Lanes
            | Change::Engines
            | Change::Replays
            | Change::Erased(_)
            | Change::Schedule
            | Change::FanOuts
            | Change::Tenancy
            | Change::All => {
                let draft = world.draft(organization, "*");
                beside.create_subscription(draft, &Tiers::default(), BY).await.expect(WORKS);
            }
        }
        waiting.await.expect("no panic");
    }
}

pub(super) async fn what_one_handle_writes_the_others_read(world: World) {
    let beside = world.another_handle().await;
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let event = world.event(organization);
    world.publish(std::slice::from_ref(&event)).await;
    let stored = beside.subscription(organization, subscription.id).await.expect(WORKS);
    assert_eq!(stored, Some(subscription));
    let stored = beside.event(organization, event.id).await.expect(WORKS);
    assert_eq!(stored.expect("it is stored").body, event.body);
    let routes = beside.routes(organization).await.expect(WORKS).expect("it exists");
    assert_eq!((routes.last_seq, routes.lanes.len()), (Seq::new(1), 1));
}

pub(super) async fn a_route_version_raised_elsewhere_holds_for_the_next_commit(world: World) {
    let organization = world.organization().await;
    let beside = world.another_handle().await;
    let publish = world.route(&world.events(organization, 1)).await;
    let foreign = beside
        .create_subscription(world.draft(organization, "*"), &Tiers::default(), BY)
        .await
        .expect(WORKS);
    assert_eq!(world.commit(Unit::publish(publish.clone())).await, Err(Refused::Rerouted));
    let event = Arc::clone(&publish.events[0].event);
    assert_eq!(world.publish(&[Arc::clone(&event)]).await[0].deliveries, 1);
    beside.delete_subscription(organization, foreign.id, BY).await.expect(WORKS);
    let stale = Publish { route_version: RouteVersion(publish.route_version.0 + 1), ..publish };
    assert_eq!(world.commit(Unit::publish(stale)).await, Err(Refused::Rerouted));
}

pub(super) async fn events_for_another_engines_lane_are_heard_by_it(world: World) {
    if world.engines() == Engines::One {
        return;
    }
    let organization = world.organization().await;
    let lane = world.subscription(organization).await.lane;
    let beside = world.another_handle().await;
    let (other, _) = beside.enlist(world.worker_id(), Tenure::default()).await.expect(WORKS);
    assert_eq!(beside.take(&other, &[lane]).await.expect(WORKS).len(), 1);
    world.publish_new(organization, 1).await;
    hear(&*beside, Change::Lanes).await;
    let claimed = beside.claim(&other, &[want(lane)], PLENTY).await.expect(WORKS);
    assert_eq!(claimed[0].due.len(), 1);
}

pub(super) async fn an_engine_that_comes_or_goes_is_heard_by_the_others(world: World) {
    if world.engines() == Engines::One {
        return;
    }
    let (one, _) = world.storage.enlist(world.worker_id(), Tenure::default()).await.expect(WORKS);
    let beside = world.another_handle().await;
    let (other, _) = beside.enlist(world.worker_id(), Tenure::default()).await.expect(WORKS);
    hear(&*world.storage, Change::Engines).await;
    assert_eq!(world.storage.renew(&one).await.expect(WORKS).peers.len(), 2);
    beside.resign(&other).await.expect(WORKS);
    hear(&*world.storage, Change::Engines).await;
    assert_eq!(world.storage.renew(&one).await.expect(WORKS).peers, [one.id]);
}

pub(super) async fn seqs_have_no_gaps_over_several_engines(world: World) {
    if world.engines() == Engines::One {
        return;
    }
    let organization = world.organization().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let storage = world.another_handle().await;
        let publish = world.route(&world.events(organization, 16)).await;
        tasks.spawn(async move {
            let mut seqs = Vec::new();
            for routed in publish.events.clone() {
                let unit = Unit::publish(Publish { events: vec![routed], ..publish.clone() });
                let results = storage.commit(vec![unit]).await.expect(WORKS);
                seqs.push(results[0].as_ref().expect("in order").events[0].seq);
                tokio::task::yield_now().await;
            }
            seqs
        });
    }
    let mut seqs = tasks.join_all().await.concat();
    seqs.sort_unstable();
    assert_eq!(seqs, numbers(1..=64));
}
