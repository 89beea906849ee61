//! Letting go of whole organizations.

use std::sync::Arc;

use super::{
    BY,
    removal::{deliver, history},
    world::{PLENTY, SECOND, WORKS, World, first, kind, numbers, want},
};
use crate::{
    Client, Digest, NewReplay, Organization, Replay, ReplayId, ReplayNumber, ReplayOf, Scopes,
    Token, TokenFamily, TokenKind,
    storage::{StorageErrorKind, Unit},
};

pub(super) async fn a_deleted_organization_is_gone_at_once_and_its_rows_in_slices(world: World) {
    let (subscription, worker) = history(&world, 5).await;
    let (organization, lane) = (subscription.organization, subscription.lane);
    let (kept, _) = (world.subscription(world.organization().await).await, ());
    world.publish_new(kept.organization, 2).await;
    deliver(&world, &worker, &subscription, 1..=2).await;
    let name = world.storage.organization(organization).await.expect(WORKS).expect("it is").name;
    let page = world.storage.events(organization, None, first(1)).await.expect(WORKS);
    world.storage.delete_organization(organization, BY).await.expect(WORKS);

    assert_eq!(world.storage.organization(organization).await.expect(WORKS), None);
    assert_eq!(world.storage.organizations().await.expect(WORKS).len(), 1);
    assert_eq!(world.storage.routes(organization).await.expect(WORKS), None);
    let event = world.storage.event(organization, page.items[0].id).await.expect(WORKS);
    assert_eq!(event, None);
    let read = world.storage.subscription(organization, subscription.id).await.expect(WORKS);
    assert_eq!(read, None);
    let list = world.storage.deliveries(organization, subscription.id, None, first(9)).await;
    assert_eq!(list.expect(WORKS), None);
    let claimed = world.storage.claim(&worker, &[want(lane)], PLENTY).await.expect(WORKS);
    assert!(claimed.is_empty());
    assert_eq!(world.take(&worker, &[lane]).await, []);
    let again = world.storage.delete_organization(organization, BY).await;
    assert_eq!(kind(again), StorageErrorKind::NotFound);

    // Name and id are free, and nothing comes back with them.
    let anew = Organization::new(organization, name, world.now());
    world.storage.create_organization(anew, BY).await.expect(WORKS);
    let page = world.storage.events(organization, None, first(9)).await.expect(WORKS);
    assert_eq!(page.items, []);
    let fresh = world.subscription(organization).await;
    assert!(fresh.lane > lane);
    assert_eq!(world.publish_new(organization, 1).await, numbers([1]));

    let mut calls = 0;
    loop {
        let removed = world.storage.remove_old(&worker, None, 3).await.expect(WORKS);
        assert!(removed.events + removed.deliveries <= 3);
        calls += 1;
        assert!(calls < 100, "it comes to an end");
        if !removed.more {
            break;
        }
    }
    assert_eq!(world.deliveries(&fresh).await.len(), 1);
    assert_eq!(world.deliveries(&kept).await.len(), 2);
}

pub(super) async fn nothing_of_a_deleted_organization_is_handed_out_or_opens_anything(
    world: World,
) {
    let (subscription, worker) = history(&world, 3).await;
    let (organization, lane) = (subscription.organization, subscription.lane);
    let client = |organization| Client {
        id: "client".into(),
        organization,
        secret: Digest::of(b"secret"),
        scopes: Scopes::all(),
        created_at: world.now(),
    };
    let token = Token {
        digest: Digest::of(b"token"),
        kind: TokenKind::Access,
        client: "client".into(),
        organization,
        family: TokenFamily::from_bytes([1; 16]),
        scopes: Scopes::all(),
        expires_at: world.now() + SECOND * 3_600,
    };
    world.storage.create_client(client(organization), BY).await.expect(WORKS);
    world.storage.store_tokens(&Digest::of(b"secret"), vec![token.clone()]).await.expect(WORKS);
    let replay = ReplayId::from_ulid(ulid::Ulid::from_bytes(world.event_id().to_bytes()));
    let replay = Replay::new(
        replay,
        organization,
        subscription.id,
        NewReplay::new(ReplayOf::UNDELIVERED),
        world.now(),
    );
    world.storage.create_replay(replay).await.expect(WORKS);
    let many: Vec<_> = (0..2_000).map(|_| world.event(organization)).collect();
    world.storage.enqueue(many).await.expect(WORKS);
    world.storage.delete_organization(organization, BY).await.expect(WORKS);

    // Whether or not the rows have gone.
    let mut more = true;
    while more {
        assert_eq!(world.storage.client("client").await.expect(WORKS), None);
        assert_eq!(world.storage.token(&token.digest).await.expect(WORKS), None);
        assert_eq!(world.storage.waiting(&worker, None, 9).await.expect(WORKS), []);
        assert_eq!(world.take(&worker, &[lane]).await, []);
        let claimed = world.storage.claim(&worker, &[want(lane)], PLENTY).await.expect(WORKS);
        assert!(claimed.is_empty());
        let running = world.storage.running_replays(ReplayNumber(0), 9).await.expect(WORKS);
        assert_eq!(running, []);
        assert_eq!(world.storage.intake(None, 9, &[]).await.expect(WORKS), []);
        assert_eq!(world.storage.organizations().await.expect(WORKS), []);
        more = world.storage.remove_old(&worker, None, 1).await.expect(WORKS).more;
    }
    // Whoever comes next may have the names, and the old tokens are not theirs.
    let other = world.organization().await;
    world.storage.create_client(client(other), BY).await.expect(WORKS);
    assert_eq!(world.storage.token(&token.digest).await.expect(WORKS), None);
}

pub(super) async fn an_organization_may_be_called_as_one_that_was_deleted(world: World) {
    let names = (1..=9).rev().map(|number| format!("deleted {number}"));
    for name in names {
        let id = world.organization_id();
        let organization = Organization::new(id, name, world.now());
        world.storage.create_organization(organization, BY).await.expect(WORKS);
    }
    for organization in world.storage.organizations().await.expect(WORKS) {
        world.storage.delete_organization(organization.id, BY).await.expect(WORKS);
    }
}

pub(super) async fn deleting_an_organization_leaves_the_others_where_they_are(world: World) {
    let kept = world.organization().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let deleted = world.organization().await;
        let publish = world.route(&world.events(kept, 1)).await;
        let storage = Arc::clone(&world.storage);
        // Both at once, so that a storage may put them into one transaction.
        tasks.spawn(async move {
            let (committed, gone) = tokio::join!(
                storage.commit(vec![Unit::publish(publish)]),
                storage.delete_organization(deleted, BY),
            );
            gone.expect(WORKS);
            committed.expect(WORKS)[0].as_ref().expect("in order").events[0].seq
        });
    }
    let mut seqs = tasks.join_all().await;
    seqs.sort_unstable();
    assert_eq!(seqs, numbers(1..=20));
    assert_eq!(world.publish_new(kept, 1).await, numbers([21]));
}
