//! Subscriptions, and the walls between organizations.

use super::{
    BY,
    world::{SECOND, WORKS, World, first, kind, settle},
};
use crate::{
    CallbackUrl, DeliveryId, DeliveryState, DisabledReason, EventPattern, OrganizationId, Secret,
    Seq, Subscription, SubscriptionId, SubscriptionUpdate, Tiers,
    storage::{Page, PageOf, RouteTable, Settle, StorageError, StorageErrorKind, SwitchOff, Unit},
};

pub(super) async fn a_subscription_is_read_as_it_was_created(world: World) {
    let organization = world.organization().await;
    let whsec = Secret::from_random(&[7; 32]);
    let patterns = ["person.updated", "availability.*", "*"].map(pattern).to_vec();
    let drafts = [
        world.draft(organization, "*"),
        Subscription { events: patterns, active: false, ..world.draft(organization, "*") },
        Subscription {
            secret: whsec,
            disabled_reason: Some(DisabledReason::Failing),
            active: false,
            created_at: world.now() - SECOND,
            ..world.draft(organization, "a.b")
        },
    ];
    for draft in drafts {
        let created = world
            .storage
            .create_subscription(draft.clone(), &Tiers::default(), BY)
            .await
            .expect(WORKS);
        assert_eq!(created, Subscription { lane: created.lane, ..draft });
        let read = world.storage.subscription(organization, created.id).await.expect(WORKS);
        assert_eq!(read, Some(created));
    }
}

pub(super) async fn lanes_are_numbered_in_the_order_of_creation(world: World) {
    let (one, other) = (world.organization().await, world.organization().await);
    let mut lanes = Vec::new();
    for organization in [one, other, one] {
        let subscription = world.subscription(organization).await;
        lanes.push(subscription.lane.get());
        // A number is not used again.
        world.storage.delete_subscription(organization, subscription.id, BY).await.expect(WORKS);
    }
    lanes.push(world.subscription(other).await.lane.get());
    assert_eq!(lanes, [1, 2, 3, 4]);
}

pub(super) async fn subscriptions_are_listed_in_the_order_of_creation(world: World) {
    let (organization, other) = (world.organization().await, world.organization().await);
    let mut created = Vec::new();
    for _ in 0..5 {
        created.push(world.subscription(organization).await);
        world.subscription(other).await;
    }
    let deleted = created.remove(1);
    world.storage.delete_subscription(organization, deleted.id, BY).await.expect(WORKS);
    let page = async |after: Option<usize>, limit| {
        let after = after.map(|index| created[index].lane);
        let PageOf { items, more } =
            world.storage.subscriptions(organization, Page { after, limit }).await.expect(WORKS);
        (items, more)
    };
    assert_eq!(page(None, 9).await, (created.clone(), false));
    assert_eq!(page(None, 4).await, (created.clone(), false));
    assert_eq!(page(None, 3).await, (created[..3].to_vec(), true));
    assert_eq!(page(Some(2), 3).await, (created[3..].to_vec(), false));
    assert_eq!(page(Some(3), 3).await, (Vec::new(), false));
    let unknown = world.storage.subscriptions(world.organization_id(), first(9)).await;
    assert_eq!(unknown.expect(WORKS), PageOf { items: Vec::new(), more: false });
}

pub(super) async fn an_organization_sees_nothing_of_anothers(world: World) {
    let (organization, other) = (world.organization().await, world.organization().await);
    let subscription = world.subscription(organization).await;
    let id = subscription.id;
    let [accepted] =
        world.publish(&world.events(organization, 1)).await.try_into().expect("one event");
    let delivery = DeliveryId::new(accepted.id, accepted.seq, subscription.lane);
    // The other one has as many things of its own, under the same numbers.
    world.subscription(other).await;
    world.publish_new(other, 1).await;

    let storage = &world.storage;
    for stranger in [other, world.organization_id()] {
        assert_eq!(storage.subscription(stranger, id).await.expect(WORKS), None);
        assert_eq!(kind(update(&world, stranger, id).await), StorageErrorKind::NotFound);
        let deleted = storage.delete_subscription(stranger, id, BY).await;
        assert_eq!(kind(deleted), StorageErrorKind::NotFound);
        assert_eq!(storage.deliveries(stranger, id, None, first(9)).await.expect(WORKS), None);
        assert_eq!(storage.delivery(stranger, delivery).await.expect(WORKS), None);
        assert_eq!(storage.event(stranger, accepted.id).await.expect(WORKS), None);
        let listed = storage.events(stranger, None, first(9)).await.expect(WORKS).items;
        assert!(listed.iter().all(|event| event.id != accepted.id));
        let listed = storage.subscriptions(stranger, first(9)).await.expect(WORKS).items;
        assert!(listed.iter().all(|subscription| subscription.id != id));
    }
    assert_eq!(storage.subscription(organization, id).await.expect(WORKS), Some(subscription));
}

pub(super) async fn an_update_changes_what_it_names(world: World) {
    let organization = world.organization().await;
    let mut expected = world.subscription(organization).await;
    let id = expected.id;
    let callback_url = CallbackUrl::from_stored("https://receiver.example/elsewhere");
    let events = vec![pattern("pet.*"), pattern("person.created")];
    let updates = [
        SubscriptionUpdate { callback_url: Some(callback_url.clone()), ..Default::default() },
        SubscriptionUpdate { events: Some(events.clone()), ..Default::default() },
        SubscriptionUpdate { active: Some(false), ..Default::default() },
    ];
    for (step, update) in updates.into_iter().enumerate() {
        world.clock.advance(SECOND);
        match step {
            0 => expected.callback_url = callback_url.clone(),
            1 => expected.events = events.clone(),
            _ => {
                expected.active = false;
                expected.held_since = Some(world.now());
            }
        }
        expected.updated_at = world.now();
        let updated = world.storage.update_subscription(organization, id, update, BY).await;
        assert_eq!(updated.expect(WORKS), expected);
        let read = world.storage.subscription(organization, id).await.expect(WORKS);
        assert_eq!(read.as_ref(), Some(&expected));
    }

    // What changes nothing leaves no trace.
    world.clock.advance(SECOND);
    let same = SubscriptionUpdate {
        callback_url: Some(callback_url),
        events: Some(events),
        active: Some(false),
        ..Default::default()
    };
    for update in [SubscriptionUpdate::default(), same] {
        let updated = world.storage.update_subscription(organization, id, update, BY).await;
        assert_eq!(updated.expect(WORKS), expected);
    }
}

pub(super) async fn resuming_clears_the_reason_of_a_switch_off(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let (lane, id) = (subscription.lane, subscription.id);
    let worker = world.worker_of(&[lane]).await;
    let switch_off = SwitchOff { lane, reason: DisabledReason::Gone };
    let unit = Settle { switch_offs: vec![switch_off], ..settle(&worker) };
    world.commit(Unit::settle(unit)).await.expect("the epoch runs");
    let set = async |active| {
        let update = SubscriptionUpdate { active: Some(active), ..Default::default() };
        let updated = world.storage.update_subscription(organization, id, update, BY).await;
        updated.expect(WORKS).disabled_reason
    };
    // It is inactive already, and why stays known until it is resumed.
    assert_eq!(set(false).await, Some(DisabledReason::Gone));
    assert_eq!(set(true).await, None);
    assert_eq!(set(false).await, None);
}

pub(super) async fn a_deleted_subscription_is_gone(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let (id, storage) = (subscription.id, &world.storage);
    let deleted = storage.delete_subscription(organization, id, BY).await.expect(WORKS);
    assert_eq!(deleted, subscription.lane);
    assert_eq!(storage.subscription(organization, id).await.expect(WORKS), None);
    let listed = storage.subscriptions(organization, first(9)).await.expect(WORKS);
    assert_eq!(listed, PageOf { items: Vec::new(), more: false });
    assert_eq!(routes(&world, organization).await.lanes, []);
    assert_eq!(kind(update(&world, organization, id).await), StorageErrorKind::NotFound);
    let again = storage.delete_subscription(organization, id, BY).await;
    assert_eq!(kind(again), StorageErrorKind::NotFound);
    let again = storage.create_subscription(subscription, &Tiers::default(), BY).await;
    assert_eq!(kind(again), StorageErrorKind::Conflict);
    assert_eq!(world.publish(&world.events(organization, 1)).await[0].deliveries, 0);
}

pub(super) async fn the_deliveries_of_a_deleted_subscription_stay_readable(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let worker = world.worker_of(&[subscription.lane]).await;
    world.publish_new(organization, 2).await;
    let delivered = super::world::settlement(
        subscription.lane,
        Seq::new(1),
        crate::storage::Outcome::Delivered,
        world.now(),
    );
    world.settle(&worker, vec![delivered]).await;
    let before = world.deliveries(&subscription).await;
    world.clock.advance(SECOND);
    world.storage.delete_subscription(organization, subscription.id, BY).await.expect(WORKS);
    world.clock.advance(SECOND);
    let after = world.deliveries(&subscription).await;
    assert_eq!(after[0], before[0]);
    let cancelled = crate::Delivery {
        state: DeliveryState::Cancelled,
        next_attempt_at: None,
        finished_at: Some(world.now() - SECOND),
        ..before[1].clone()
    };
    assert_eq!(after[1], cancelled);
}

pub(super) async fn a_subscription_needs_its_organization_and_an_id_of_its_own(world: World) {
    let (organization, other) = (world.organization().await, world.organization().await);
    let nobodys = world.draft(world.organization_id(), "*");
    let refused = world.storage.create_subscription(nobodys, &Tiers::default(), BY).await;
    assert_eq!(kind(refused), StorageErrorKind::NotFound);
    let subscription = world.subscription(organization).await;
    for organization in [organization, other] {
        let twin = Subscription { organization, ..subscription.clone() };
        let refused = world.storage.create_subscription(twin, &Tiers::default(), BY).await;
        assert_eq!(kind(refused), StorageErrorKind::Conflict);
    }
    let refused = update(&world, organization, world.draft(organization, "*").id).await;
    assert_eq!(kind(refused), StorageErrorKind::NotFound);
}

pub(super) async fn routes_are_everything_that_routing_needs(world: World) {
    let (organization, other) = (world.organization().await, world.organization().await);
    let empty = routes(&world, organization).await;
    assert_eq!((empty.last_seq, empty.lanes.len()), (Seq::ZERO, 0));
    let persons = world.subscription_to(organization, "person.*").await;
    world.subscription(other).await;
    let events = vec![pattern("pet.created"), pattern("toy.*")];
    let draft = Subscription { events, active: false, ..world.draft(organization, "*") };
    let inactive =
        world.storage.create_subscription(draft, &Tiers::default(), BY).await.expect(WORKS);
    world.publish_new(organization, 2).await;
    let table = routes(&world, organization).await;
    assert!(table.version > empty.version);
    assert_eq!(table.last_seq, Seq::new(2));
    let lanes = [persons, inactive].map(|subscription| (subscription.lane, subscription.events));
    assert_eq!(table.lanes, lanes);
    assert_eq!(world.storage.routes(world.organization_id()).await.expect(WORKS), None);
}

pub(super) async fn a_storages_debug_shows_no_secret(world: World) {
    let organization = world.organization().await;
    let secret = "do-not-show";
    let draft = world.draft(organization, "*");
    let draft = Subscription { secret: Secret::new(secret).expect("a secret"), ..draft };
    let created =
        world.storage.create_subscription(draft, &Tiers::default(), BY).await.expect(WORKS);
    assert_eq!(created.secret.expose(), secret);
    assert!(!format!("{:?} {created:?}", world.storage).contains(secret));
}

fn pattern(text: &str) -> EventPattern {
    text.parse().expect("a pattern")
}

async fn update(
    world: &World,
    organization: OrganizationId,
    id: SubscriptionId,
) -> Result<Subscription, StorageError> {
    let update = SubscriptionUpdate { active: Some(false), ..SubscriptionUpdate::default() };
    world.storage.update_subscription(organization, id, update, BY).await
}

async fn routes(world: &World, organization: OrganizationId) -> RouteTable {
    let routes = world.storage.routes(organization).await.expect(WORKS);
    routes.expect("the organization exists")
}
