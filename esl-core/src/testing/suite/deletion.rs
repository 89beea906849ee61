//! Letting go of whole organizations.

use std::sync::Arc;

use super::{
    removal::{deliver, history},
    world::{PLENTY, WORKS, World, first, kind, numbers, want},
};
use crate::{
    Organization,
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
    world.storage.delete_organization(organization).await.expect(WORKS);

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
    let again = world.storage.delete_organization(organization).await;
    assert_eq!(kind(again), StorageErrorKind::NotFound);

    // Name and id are free, and nothing comes back with them.
    let anew = Organization { id: organization, name, created_at: world.now() };
    world.storage.create_organization(anew).await.expect(WORKS);
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
                storage.delete_organization(deleted),
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
