//! Chores, a slice at a time.

use super::{
    BY,
    world::{PLENTY, SECOND, WORKS, World, numbers, want},
};
use crate::{
    Client, Digest, OrganizationId, Scopes, Token, TokenFamily, TokenKind,
    storage::{Idempotency, Swept, Unit, Worker},
};

pub(super) async fn a_sweep_with_nothing_to_do_does_nothing(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let worker = world.worker_of(&[subscription.lane]).await;
    world.publish_new(organization, 2).await;
    use_keys(&world, organization, 1).await;
    store_tokens(&world, organization, 1).await;
    assert_eq!(world.storage.sweep(&worker, 100).await.expect(WORKS), Swept::default());
    assert_eq!(world.due(&worker, subscription.lane).await, numbers([1, 2, 3]));
}

pub(super) async fn a_sweep_removes_what_is_over_slice_by_slice(world: World) {
    let organization = world.organization().await;
    use_keys(&world, organization, 3).await;
    store_tokens(&world, organization, 4).await;
    world.clock.advance(SECOND * 86_400);
    let kept = world.subscription_to(organization, "person.*").await;
    let deleted = world.subscription(organization).await;
    let too = world.subscription_to(organization, "person.updated").await;
    world.publish_new(organization, 5).await;
    for id in [deleted.id, too.id] {
        world.storage.delete_subscription(organization, id, BY).await.expect(WORKS);
    }
    let before = [world.deliveries(&deleted).await, world.deliveries(&too).await];

    let worker = world.worker_of(&[kept.lane]).await;
    let swept = sweep_all(&world, &worker, 2).await;
    let all = Swept { idempotency_keys: 3, tokens: 4, cancelled: 10, ..Swept::default() };
    assert_eq!(swept, all);
    assert_eq!(world.storage.sweep(&worker, 2).await.expect(WORKS), Swept::default());
    // Nobody notices that the rows were rewritten.
    assert_eq!([world.deliveries(&deleted).await, world.deliveries(&too).await], before);
    assert_eq!(world.due(&worker, kept.lane).await.len(), 5);
}

pub(super) async fn a_swept_subscription_is_as_gone_as_before(world: World) {
    let organization = world.organization().await;
    let deleted = world.subscription(organization).await;
    let worker = world.worker_of(&[deleted.lane]).await;
    world.publish_new(organization, 3).await;
    world.storage.delete_subscription(organization, deleted.id, BY).await.expect(WORKS);
    sweep_all(&world, &worker, 100).await;
    let claimed = world.storage.claim(&worker, &[want(deleted.lane)], PLENTY).await.expect(WORKS);
    assert!(claimed.is_empty());
    assert_eq!(world.storage.waiting(&worker, None, 9).await.expect(WORKS), []);
    assert_eq!(world.take(&worker, &[deleted.lane]).await, []);
    assert_eq!(world.deliveries(&deleted).await.len(), 3);
}

pub(super) async fn a_sweep_gets_past_deleted_subscriptions_with_nothing_open(world: World) {
    const LIMIT: usize = 2;
    let organization = world.organization().await;
    for _ in 0..=LIMIT {
        let idle = world.subscription(organization).await;
        world.storage.delete_subscription(organization, idle.id, BY).await.expect(WORKS);
    }
    let deleted = world.subscription(organization).await;
    let worker = world.worker_of(&[deleted.lane]).await;
    world.publish_new(organization, 3).await;
    world.storage.delete_subscription(organization, deleted.id, BY).await.expect(WORKS);
    let all = Swept { cancelled: 3, ..Swept::default() };
    assert_eq!(sweep_all(&world, &worker, LIMIT).await, all);
    assert_eq!(world.storage.sweep(&worker, LIMIT).await.expect(WORKS), Swept::default());
}

/// Sweeps until there is nothing left to do, and adds up what was done.
async fn sweep_all(world: &World, worker: &Worker, limit: usize) -> Swept {
    let mut all = Swept::default();
    // A slice may do nothing but look at what turns out to have nothing open: cases have little of that.
    let mut idle_slices = 0;
    while idle_slices < 10 {
        let swept = world.storage.sweep(worker, limit).await.expect(WORKS);
        let done = swept.idempotency_keys + swept.tokens + swept.cancelled;
        assert!(done <= limit);
        all.idempotency_keys += swept.idempotency_keys;
        all.tokens += swept.tokens;
        all.cancelled += swept.cancelled;
        if !swept.more {
            return all;
        }
        idle_slices += usize::from(done == 0);
    }
    panic!("the sweep does not get on");
}

async fn use_keys(world: &World, organization: OrganizationId, count: usize) {
    for number in 0..count {
        let mut publish = world.route(&world.events(organization, 1)).await;
        let key = format!("key {number}");
        publish.idempotency = Some(Idempotency { key, fingerprint: [0; 32] });
        world.commit(Unit::publish(publish)).await.expect("in order");
    }
}

async fn store_tokens(world: &World, organization: OrganizationId, count: u8) {
    let client = Client {
        id: "client".into(),
        organization,
        secret: Digest::of(b"secret"),
        scopes: Scopes::all(),
        created_at: world.now(),
    };
    world.storage.create_client(client, BY).await.expect(WORKS);
    let tokens = (0..count).map(|number| Token {
        digest: Digest::of(&[number]),
        kind: TokenKind::Access,
        client: "client".into(),
        organization,
        family: TokenFamily::from_bytes([1; 16]),
        scopes: Scopes::all(),
        expires_at: world.now() + SECOND * 86_400,
    });
    world.storage.store_tokens(&Digest::of(b"secret"), tokens.collect()).await.expect(WORKS);
}
