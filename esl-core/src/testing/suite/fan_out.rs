//! Events that go to very many lanes.

use super::{
    BY, Engines,
    world::{PLENTY, WORKS, World, hear, numbers},
};
use crate::{
    LaneId, OrganizationId, Seq, Subscription,
    storage::{
        Accepted, Audience, Change, Committed, Expand, FAN_OUT_ABOVE, FanOut, Refused,
        RouteVersion, StorageError, Unit,
    },
};

pub(super) const MANY: usize = FAN_OUT_ABOVE + 1;

pub(super) async fn an_event_for_very_many_lanes_is_owed_to_them_in_slices(world: World) {
    let (organization, subscriptions) = crowd(&world, MANY).await;
    let first = world.publish(&world.events(organization, 1)).await[0];
    assert_eq!((first.deliveries, first.fanned_out), (1001, true));
    assert_eq!(world.deliveries(&subscriptions[0]).await, []);

    let open = fan_outs(&world, organization).await;
    let [fan_out] = &open[..] else { panic!("{open:?}") };
    assert_eq!((fan_out.seq, fan_out.after), (Seq::new(1), LaneId::new(0)));
    assert_eq!((fan_out.last, fan_out.except), (subscriptions[MANY - 1].lane, None));
    assert_eq!(fan_out.event.id, first.id);

    let (half, rest) = subscriptions.split_at(500);
    expand(&world, organization, 1, half, Some(half[499].lane)).await.expect("it is next");
    assert_eq!(fan_outs(&world, organization).await[0].after, half[499].lane);
    assert_eq!(world.deliveries(&half[499]).await.len(), 1);
    assert_eq!(world.deliveries(&rest[0]).await, []);
    expand(&world, organization, 1, rest, None).await.expect("it is next");
    assert_eq!(fan_outs(&world, organization).await, []);

    let lane = subscriptions[MANY - 1].lane;
    let worker = world.worker_of(&[lane]).await;
    assert_eq!(world.due(&worker, lane).await, numbers([1]));
    // From now on events go to their lanes at once again.
    let few = world.subscription_to(organization, "pet.*").await;
    let pet = world.event_of(organization, "pet.created", "{}");
    let accepted = route_to(&world, organization, pet, &[few.lane], Audience::Matching).await;
    assert!(!accepted.fanned_out);
    assert_eq!(world.deliveries(&few).await.len(), 1);
}

pub(super) async fn later_events_wait_for_a_fan_out_and_are_expanded_in_order(world: World) {
    let (organization, subscriptions) = crowd(&world, MANY).await;
    let other = world.organization().await;
    let elsewhere = world.subscription(other).await;
    world.publish_new(organization, 1).await;
    // One lane or many: it is behind the first.
    let lane = subscriptions[0].lane;
    let event = world.event(organization);
    let second = route_to(&world, organization, event, &[lane], Audience::Matching).await;
    assert!(second.fanned_out);
    let event = world.event(organization);
    let nobody = route_to(&world, organization, event, &[], Audience::Matching).await;
    assert!(!nobody.fanned_out);
    assert!(!world.publish(&world.events(other, 1)).await[0].fanned_out);
    assert_eq!(world.deliveries(&elsewhere).await.len(), 1);

    let out_of_turn = expand(&world, organization, 2, &subscriptions[..1], None).await;
    assert_eq!(out_of_turn, Err(Refused::OutOfTurn));
    expand(&world, organization, 1, &subscriptions, None).await.expect("it is next");
    let again = expand(&world, organization, 1, &subscriptions, None).await;
    assert_eq!(again, Err(Refused::OutOfTurn));
    assert_eq!(world.deliveries(&subscriptions[0]).await.len(), 1);
    expand(&world, organization, 2, &subscriptions[..1], None).await.expect("it is next");
    assert_eq!(fan_outs(&world, organization).await, []);
    let worker = world.worker_of(&[lane]).await;
    assert_eq!(world.due(&worker, lane).await, numbers([1, 2]));
}

pub(super) async fn events_with_very_many_deliveries_together_are_each_fanned_out(world: World) {
    let (organization, subscriptions) = crowd(&world, 81).await;
    let accepted = world.publish(&world.events(organization, 98)).await;
    assert!(accepted.iter().all(|accepted| !accepted.fanned_out), "7 938 deliveries");
    let accepted = world.publish(&world.events(organization, 99)).await;
    assert!(accepted.iter().all(|accepted| accepted.fanned_out), "8 019 deliveries");
    assert_eq!(fan_outs(&world, organization).await.len(), 99);
    assert_eq!(world.deliveries(&subscriptions[80]).await.len(), 98);
}

pub(super) async fn a_slice_under_an_outdated_route_version_is_refused(world: World) {
    let (organization, subscriptions) = crowd(&world, MANY).await;
    world.publish_new(organization, 1).await;
    let version = version(&world, organization).await;
    world.storage.delete_subscription(organization, subscriptions[7].id, BY).await.expect(WORKS);
    let stale = Unit::expand(Expand {
        organization,
        seq: Seq::new(1),
        route_version: version,
        after: LaneId::new(0),
        lanes: subscriptions.iter().map(|it| it.lane).collect(),
        next: None,
    });
    assert_eq!(world.commit(stale).await, Err(Refused::Rerouted));
    assert_eq!(world.deliveries(&subscriptions[0]).await, []);
    let mut left = subscriptions;
    left.remove(7);
    expand(&world, organization, 1, &left, None).await.expect("it is next");
    assert_eq!(world.deliveries(&left[0]).await.len(), 1);
}

pub(super) async fn an_event_for_one_subscription_alone_waits_for_nothing(world: World) {
    let (organization, subscriptions) = crowd(&world, MANY).await;
    let lane = subscriptions[3].lane;
    world.publish_new(organization, 1).await;
    let ping = world.event_of(organization, "system.ping", "{}");
    let accepted = route_to(&world, organization, ping, &[lane], Audience::Only(lane)).await;
    assert!(!accepted.fanned_out);
    let worker = world.worker_of(&[lane]).await;
    let claimed = world.claim(&worker, super::world::want(lane)).await;
    assert_eq!(claimed.due.len(), 1);
    assert!(claimed.due[0].is_retry && claimed.due[0].attempts == 0);
    assert_eq!(claimed.due[0].seq, Seq::new(2));
}

pub(super) async fn what_an_event_is_not_for_is_remembered(world: World) {
    let (organization, subscriptions) = crowd(&world, MANY).await;
    let about = subscriptions[5].lane;
    let others: Vec<_> =
        subscriptions.iter().map(|it| it.lane).filter(|lane| *lane != about).collect();
    let notice = world.event_of(organization, "system.subscription.disabled", "{}");
    route_to(&world, organization, notice, &others, Audience::Except(about)).await;
    // A thousand without it: no fan-out is needed, until one is under way.
    assert_eq!(fan_outs(&world, organization).await, []);
    world.publish_new(organization, 1).await;
    let notice = world.event_of(organization, "system.subscription.disabled", "{}");
    route_to(&world, organization, notice, &others, Audience::Except(about)).await;
    let open = fan_outs(&world, organization).await;
    assert_eq!(open.iter().map(|it| it.except).collect::<Vec<_>>(), [None, Some(about)]);
}

pub(super) async fn fan_outs_are_read_organization_by_organization(world: World) {
    let mut organizations = Vec::new();
    for _ in 0..3 {
        let (organization, _) = crowd(&world, MANY).await;
        world.publish_new(organization, 3).await;
        organizations.push(organization);
    }
    let quiet = world.organization().await;
    let mut seen = Vec::new();
    let mut after = None;
    while let Some((organization, open)) =
        world.storage.fan_outs(after, 2, PLENTY).await.expect(WORKS)
    {
        assert_eq!(open.iter().map(|it| it.seq).collect::<Vec<_>>(), numbers([1, 2]));
        seen.push(organization);
        after = Some(organization);
    }
    assert_eq!(seen.len(), 3);
    assert!(!seen.contains(&quiet));
    assert!(organizations.iter().all(|organization| seen.contains(organization)));
    // The bytes are bounded, but one comes in any case.
    let (_, open) = world.storage.fan_outs(None, 9, 1).await.expect(WORKS).expect("there are some");
    assert_eq!(open.len(), 1);
}

pub(super) async fn a_fan_out_survives_a_kill(world: World) {
    let (organization, subscriptions) = crowd(&world, MANY).await;
    world.publish_new(organization, 2).await;
    expand(&world, organization, 1, &subscriptions[..9], Some(subscriptions[8].lane))
        .await
        .expect("it is next");
    let world = world.kill_and_reopen().await;
    let open = fan_outs(&world, organization).await;
    let standing: Vec<_> = open.iter().map(|it| (it.seq.get(), it.after)).collect();
    assert_eq!(standing, [(1, subscriptions[8].lane), (2, LaneId::new(0))]);
    expand(&world, organization, 1, &subscriptions[9..], None).await.expect("it is next");
    let event = world.event(organization);
    let lane = subscriptions[0].lane;
    let third = route_to(&world, organization, event, &[lane], Audience::Matching).await;
    assert!(third.fanned_out, "the second is still open");
}

pub(super) async fn a_fan_out_that_begins_is_heard_by_others(world: World) {
    if world.engines() == Engines::One {
        return;
    }
    let (organization, _) = crowd(&world, MANY).await;
    let beside = world.another_handle().await;
    world.publish_new(organization, 1).await;
    hear(&*beside, Change::FanOuts).await;
}

pub(super) async fn crowd(world: &World, count: usize) -> (OrganizationId, Vec<Subscription>) {
    let organization = world.organization().await;
    let mut subscriptions = Vec::with_capacity(count);
    for _ in 0..count {
        subscriptions.push(world.subscription_to(organization, "person.*").await);
    }
    (organization, subscriptions)
}

async fn version(world: &World, organization: OrganizationId) -> RouteVersion {
    let routes = world.storage.routes(organization).await.expect(WORKS);
    routes.expect("the organization exists").version
}

async fn route_to(
    world: &World,
    organization: OrganizationId,
    event: std::sync::Arc<crate::SealedEvent>,
    lanes: &[LaneId],
    audience: Audience,
) -> Accepted {
    let mut publish = world.route(&[event]).await;
    publish.route_version = version(world, organization).await;
    publish.events[0].lanes = lanes.into();
    publish.events[0].audience = audience;
    world.commit(Unit::publish(publish)).await.expect("in order").events[0]
}

pub(super) async fn expand(
    world: &World,
    organization: OrganizationId,
    seq: u64,
    subscriptions: &[Subscription],
    next: Option<LaneId>,
) -> Result<Committed, Refused> {
    let open = fan_outs(world, organization).await;
    let after = open.first().map_or(LaneId::new(0), |fan_out| fan_out.after);
    let unit = Unit::expand(Expand {
        organization,
        seq: Seq::new(seq),
        route_version: version(world, organization).await,
        after,
        lanes: subscriptions.iter().map(|it| it.lane).collect(),
        next,
    });
    world.commit(unit).await
}

/// The open fan-outs of an organization.
pub(super) async fn fan_outs(world: &World, organization: OrganizationId) -> Vec<FanOut> {
    let mut after = None;
    let next = async |after| -> Result<_, StorageError> {
        world.storage.fan_outs(after, 100, PLENTY).await
    };
    while let Some((found, open)) = next(after).await.expect(WORKS) {
        if found == organization {
            return open;
        }
        after = Some(found);
    }
    Vec::new()
}
