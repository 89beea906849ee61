//! Letting go of what an event said.

use super::{
    fan_out::{MANY, crowd, expand, fan_outs},
    removal::{attempt, history},
    world::{SECOND, WORKS, World, first, heard, kind, numbers, settlement},
};
use crate::{
    Attempt, DeliveryState, EventId, LaneId, Seq,
    storage::{Change, Erased, Outcome, StorageErrorKind},
};

pub(super) async fn an_erased_event_says_nothing_and_is_sent_no_more(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let lane = subscription.lane;
    let worker = world.worker_of(&[lane]).await;
    let id = world.event_id();
    let event = world.event_with_id(organization, id, r#"{"name":"Jane Roe"}"#);
    let accepted = world.publish(std::slice::from_ref(&event)).await;
    world.publish_new(organization, 1).await;
    let log = vec![Attempt { detail: Some("you said Jane Roe".into()), ..attempt(1, world.now()) }];
    let failed = crate::storage::Settlement {
        log,
        ..settlement(lane, Seq::new(1), Outcome::RetryAt(world.now()), world.now())
    };
    world.settle(&worker, vec![failed]).await;
    world.clock.advance(SECOND);

    let erase = async |id| world.storage.erase_event(organization, id).await;
    let now = Erased { before: false, blobs: Vec::new() };
    assert_eq!(erase(id).await.expect(WORKS), now);
    let stored = world.storage.event(organization, id).await.expect(WORKS).expect("the fact stays");
    assert_eq!((stored.seq, &stored.event_type), (Seq::new(1), &event.event_type));
    assert_eq!((stored.timestamp, stored.erased_at), (event.timestamp, Some(world.now())));
    assert_eq!(stored.body, crate::erased(&event));
    assert!(!String::from_utf8_lossy(&stored.body).contains("Jane"));
    assert_eq!(world.due(&worker, lane).await, numbers([2]));
    let delivery = world.delivery(&subscription, &accepted[0]).await;
    assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Cancelled, 1));
    let found = world.storage.delivery(organization, delivery.id).await.expect(WORKS);
    assert_eq!(found.expect("it is there").1[0].detail, None);

    assert_eq!(erase(id).await.expect(WORKS), Erased { before: true, blobs: Vec::new() });
    assert_eq!(kind(erase(world.event_id()).await), StorageErrorKind::NotFound);
    let stranger = world.organization().await;
    let others = world.storage.erase_event(stranger, id).await;
    assert_eq!(kind(others), StorageErrorKind::NotFound);
    // The same event again is still known.
    let again = world.publish(&[event]).await;
    assert!(again[0].repeated);
}

pub(super) async fn an_event_in_the_intake_is_erased_there(world: World) {
    let organization = world.organization().await;
    let event = world.event(organization);
    world.storage.enqueue(vec![event.clone()]).await.expect(WORKS);
    let found = world.storage.organizations_of_event(event.id).await.expect(WORKS);
    assert_eq!(found, [organization]);
    let erased = world.storage.erase_event(organization, event.id).await.expect(WORKS);
    assert!(!erased.before);
    assert!(world.storage.intake(None, 9, &[]).await.expect(WORKS).is_empty());
    assert_eq!(world.storage.organizations_of_event(event.id).await.expect(WORKS), []);
}

pub(super) async fn what_is_yet_to_be_owed_of_an_erased_event_is_cancelled(world: World) {
    let (organization, subscriptions) = crowd(&world, MANY).await;
    let accepted = world.publish(&world.events(organization, 2)).await;
    let (owed, rest) = subscriptions.split_at(500);
    let slice = expand(&world, organization, 1, owed, Some(owed[499].lane)).await;
    assert!(!slice.expect("it is next").is_cancelled);
    world.storage.erase_event(organization, accepted[0].id).await.expect(WORKS);
    let open = fan_outs(&world, organization).await;
    let standing: Vec<_> = open.iter().map(|fan_out| (fan_out.seq, fan_out.after)).collect();
    assert_eq!(standing, [(Seq::new(1), owed[499].lane), (Seq::new(2), LaneId::new(0))]);
    let slice = expand(&world, organization, 1, rest, None).await;
    assert!(slice.expect("it is next").is_cancelled);
    let slice = expand(&world, organization, 2, &subscriptions, None).await;
    assert!(!slice.expect("it is next").is_cancelled);

    let both = [&owed[0], &rest[0]];
    let worker = world.worker_of(&both.map(|subscription| subscription.lane)).await;
    for subscription in both {
        let delivery = world.delivery(subscription, &accepted[0]).await;
        assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Cancelled, 0));
        assert_eq!(delivery.finished_at, Some(world.now()));
        assert_eq!(world.due(&worker, subscription.lane).await, numbers([2]));
    }
}

pub(super) async fn others_hear_of_an_erased_event(world: World) {
    let (subscription, _) = history(&world, 1).await;
    let organization = subscription.organization;
    let page = world.storage.events(organization, None, first(1)).await.expect(WORKS);
    heard(&*world.storage).await;
    let beside = world.another_handle().await;
    beside.erase_event(organization, page.items[0].id).await.expect(WORKS);
    super::world::hear(&*world.storage, Change::Erased(organization)).await;
}

pub(super) async fn the_organizations_of_an_event_are_found_by_its_id(world: World) {
    let (one, other) = (world.organization().await, world.organization().await);
    let id: EventId = world.event_id();
    for organization in [one, other] {
        world.publish(&[world.event_with_id(organization, id, "1")]).await;
    }
    let mut found = world.storage.organizations_of_event(id).await.expect(WORKS);
    found.sort_unstable();
    let mut both = [one, other];
    both.sort_unstable();
    assert_eq!(found, both);
}
