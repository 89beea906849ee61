//! What an organization may use, and what counts against it.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{
    BY,
    world::{SECOND, WORKS, World},
};
use crate::{
    Hour, Limit, OrganizationId, Plan, SealedEvent, Threshold, Tier, Tiers, Usage,
    storage::{
        Committed, Metering, Notices, Publish, Refused, Routed, StorageErrorKind, Tenure, Unit,
    },
};

const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);

/// What a unit is told of, or is not.
#[derive(Clone, Copy)]
struct Limited {
    limit: u64,
    refuses: bool,
    has_notices: bool,
}

const FIVE: Limited = Limited { limit: 5, refuses: true, has_notices: true };

impl Limited {
    async fn unit(self, world: &World, events: &[Arc<SealedEvent>]) -> Publish {
        let mut publish = world.route(events).await;
        let organization = publish.organization;
        let notice = async |threshold, name| {
            let event = world.event_of(organization, name, "{}");
            let mut routed = world.route(&[event]).await.events;
            (threshold, routed.remove(0))
        };
        let events: Vec<(Threshold, Routed)> = vec![
            notice(Threshold::Warning, "system.rate_limit.warning").await,
            notice(Threshold::Exceeded, "system.rate_limit.exceeded").await,
        ];
        let hour = Hour::of(world.now());
        let notices = match self.has_notices {
            // Those of another hour do no harm.
            true => [hour.next(), hour].map(|hour| Notices { hour, events: events.clone() }).into(),
            false => Vec::new(),
        };
        let limit = Limit::AtMost(self.limit);
        publish.metering = Some(Metering { limit, refuses: self.refuses, notices });
        publish
    }

    async fn publish(
        self,
        world: &World,
        organization: OrganizationId,
        count: usize,
    ) -> Result<Committed, Refused> {
        let publish = self.unit(world, &world.events(organization, count)).await;
        world.commit(Unit::publish(publish)).await
    }
}

async fn usage(world: &World, organization: OrganizationId) -> Option<Usage> {
    let found = world.storage.usage(organization).await.expect(WORKS);
    found.map(|(_, usage)| usage)
}

fn used(world: &World, events: u64) -> Usage {
    Usage { hour: Hour::of(world.now()), events }
}

fn told(committed: &Committed) -> Vec<(Threshold, u64)> {
    committed.notices.iter().map(|(threshold, one)| (*threshold, one.seq.get())).collect()
}

pub(super) async fn a_limit_is_exact_and_its_thresholds_are_told_once(world: World) {
    let organization = world.organization().await;
    let lane = world.subscription_to(organization, "system.*").await.lane;
    let mut notices = Vec::new();
    for number in 1..=5 {
        let committed = FIVE.publish(&world, organization, 1).await.expect("within the limit");
        assert_eq!(committed.usage, Some(used(&world, number)));
        notices.extend(told(&committed));
        assert!(committed.notices.iter().all(|(_, accepted)| accepted.deliveries == 1));
    }
    // The fourth event is at 80 %; the notice comes right after the event that led to it.
    assert_eq!(notices, [(Threshold::Warning, 5), (Threshold::Exceeded, 7)]);
    for count in [1, 2] {
        let refused = FIVE.publish(&world, organization, count).await;
        assert_eq!(refused, Err(Refused::OverLimit(used(&world, 5))));
    }
    assert_eq!(usage(&world, organization).await, Some(used(&world, 5)));
    // What was refused has left nothing, and what does not count is published all the same.
    assert_eq!(world.publish_new(organization, 1).await, [crate::Seq::new(8)]);
    let worker = world.worker_of(&[lane]).await;
    assert_eq!(world.due(&worker, lane).await.len(), 2);
}

pub(super) async fn a_unit_that_comes_to_a_threshold_must_carry_its_notice(world: World) {
    let organization = world.organization().await;
    let bare = Limited { has_notices: false, ..FIVE };
    bare.publish(&world, organization, 3).await.expect("below 80 %");
    assert_eq!(bare.publish(&world, organization, 1).await, Err(Refused::Crosses(used(&world, 4))));
    // Notices of another hour are worth nothing.
    let mut publish = FIVE.unit(&world, &world.events(organization, 1)).await;
    let metering = publish.metering.as_mut().expect("it is metered");
    for notices in &mut metering.notices {
        notices.hour = Hour::from_number(0);
    }
    let refused = world.commit(Unit::publish(publish)).await;
    assert_eq!(refused, Err(Refused::Crosses(used(&world, 4))));
    assert_eq!(usage(&world, organization).await, Some(used(&world, 3)));
    // Both at once, in their order.
    let committed = FIVE.publish(&world, organization, 2).await.expect("it has both notices");
    assert_eq!(told(&committed), [(Threshold::Warning, 6), (Threshold::Exceeded, 7)]);
}

pub(super) async fn units_of_one_group_share_a_limit(world: World) {
    let organization = world.organization().await;
    let other = world.organization().await;
    let mut units = Vec::new();
    for _ in 0..8 {
        let publish = FIVE.unit(&world, &world.events(organization, 1)).await;
        units.push(Unit::publish(publish));
        units.push(Unit::publish(FIVE.unit(&world, &world.events(other, 1)).await));
    }
    let results = world.storage.commit(units).await.expect(WORKS);
    let accepted = |skip| results.iter().skip(skip).step_by(2).filter(|one| one.is_ok()).count();
    assert_eq!((accepted(0), accepted(1)), (5, 5));
    let told = results.iter().flatten().map(|committed| committed.notices.len());
    assert_eq!(told.sum::<usize>(), 4);
}

pub(super) async fn an_array_is_refused_whole(world: World) {
    let organization = world.organization().await;
    FIVE.publish(&world, organization, 3).await.expect("within the limit");
    let refused = FIVE.publish(&world, organization, 3).await;
    assert_eq!(refused, Err(Refused::OverLimit(used(&world, 3))));
    let committed = FIVE.publish(&world, organization, 2).await.expect("there is room for two");
    assert_eq!(committed.usage, Some(used(&world, 5)));
}

pub(super) async fn what_comes_again_does_not_count(world: World) {
    let organization = world.organization().await;
    let first = world.event_with_id(organization, world.event_id(), "{}");
    let both = [first.clone(), world.event(organization)];
    for events in [&both[..], &both[..1], &both[1..]] {
        let publish = FIVE.unit(&world, events).await;
        world.commit(Unit::publish(publish)).await.expect("within the limit");
        assert_eq!(usage(&world, organization).await, Some(used(&world, 2)));
    }
    FIVE.publish(&world, organization, 3).await.expect("within the limit");
    // Not even when there is no room, or a notice is wanting.
    let bare = Limited { has_notices: false, ..FIVE };
    for limited in [FIVE, bare] {
        let publish = limited.unit(&world, &both[..1]).await;
        let again = world.commit(Unit::publish(publish)).await.expect("a repetition");
        assert!(again.events[0].repeated);
        let publish = limited.unit(&world, &both).await;
        let again = world.commit(Unit::publish(publish)).await.expect("a repetition");
        assert!(again.events.iter().all(|accepted| accepted.repeated));
    }
}

pub(super) async fn what_may_not_be_refused_counts_all_the_same(world: World) {
    let organization = world.organization().await;
    let counting = Limited { refuses: false, ..FIVE };
    let committed = counting.publish(&world, organization, 7).await.expect("it is not refused");
    assert_eq!(committed.usage, Some(used(&world, 7)));
    assert_eq!(told(&committed), [(Threshold::Warning, 8), (Threshold::Exceeded, 9)]);
    let committed = counting.publish(&world, organization, 1).await.expect("it is not refused");
    assert_eq!((committed.usage, told(&committed)), (Some(used(&world, 8)), vec![]));
    let refused = FIVE.publish(&world, organization, 1).await;
    assert_eq!(refused, Err(Refused::OverLimit(used(&world, 8))));
}

pub(super) async fn an_hour_begins_anew_and_never_again(world: World) {
    let organization = world.organization().await;
    // A second before the full hour.
    let end = Hour::of(world.now()).end();
    world.clock.advance(end.since(world.now()) - SECOND);
    FIVE.publish(&world, organization, 5).await.expect("within the limit");
    world.clock.advance(SECOND - std::time::Duration::from_millis(1));
    FIVE.publish(&world, organization, 1).await.expect_err("the hour is not over");
    world.clock.advance(std::time::Duration::from_millis(1));
    assert_eq!(usage(&world, organization).await, Some(used(&world, 0)));
    let committed = FIVE.publish(&world, organization, 4).await.expect("a new hour");
    assert_eq!(told(&committed).len(), 1);
    // Set back, the clock does not bring the old hour again, nor a third one.
    let now = world.now();
    world.clock.set_utc(now - HOUR);
    assert_eq!(usage(&world, organization).await.map(|it| it.events), Some(4));
}

pub(super) async fn a_clock_that_was_ahead_closes_nobody_out(world: World) {
    let organization = world.organization().await;
    let now = world.now();
    world.clock.advance(HOUR * 24 * 365);
    FIVE.publish(&world, organization, 5).await.expect("within the limit");
    // Storage's time goes back only with a new process.
    world.clock.set_utc(now);
    let world = world.kill_and_reopen().await;
    // Where the time outlives the process, as in memory, it is still ahead.
    let is_ahead =
        usage(&world, organization).await.is_some_and(|it| it.hour > used(&world, 0).hour);
    if !is_ahead {
        FIVE.publish(&world, organization, 5).await.expect("a new hour");
        assert_eq!(usage(&world, organization).await, Some(used(&world, 5)));
    }
}

pub(super) async fn usage_survives_a_kill(world: World) {
    let organization = world.organization().await;
    FIVE.publish(&world, organization, 3).await.expect("within the limit");
    let world = world.kill_and_reopen().await;
    assert_eq!(usage(&world, organization).await, Some(used(&world, 3)));
    let refused = FIVE.publish(&world, organization, 3).await;
    assert_eq!(refused, Err(Refused::OverLimit(used(&world, 3))));
    assert_eq!(usage(&world, world.organization_id()).await, None);
}

pub(super) async fn a_plan_is_kept_and_changing_it_makes_routes_stale(world: World) {
    let organization = world.organization().await;
    let subscription = world.subscription(organization).await;
    let before = world.route(&world.events(organization, 1)).await;
    let plan = Plan {
        tier: Tier::Enterprise,
        subscriptions: Some(Limit::Unlimited),
        events_per_hour: Some(Limit::AtMost(u64::MAX)),
        retries: Some(0),
    };
    world.storage.set_plan(organization, Some(plan), BY).await.expect(WORKS);
    assert_eq!(world.commit(Unit::publish(before)).await, Err(Refused::Rerouted));
    let world = world.kill_and_reopen().await;
    let read = world.storage.organization(organization).await.expect(WORKS).expect("it exists");
    assert_eq!(read.plan, Some(plan));
    let routes = world.storage.routes(organization).await.expect(WORKS).expect("it exists");
    assert_eq!(routes.plan, Some(plan));
    let (worker, _) =
        world.storage.enlist(world.worker_id(), Tenure::default()).await.expect(WORKS);
    let taken = world.storage.take(&worker, &[subscription.lane]).await.expect(WORKS);
    assert_eq!(taken[0].plan, Some(plan));
    world.storage.set_plan(organization, None, BY).await.expect(WORKS);
    let read = world.storage.organization(organization).await.expect(WORKS).expect("it exists");
    assert_eq!(read.plan, None);
    let nobody = world.storage.set_plan(world.organization_id(), Some(plan), BY).await;
    assert_eq!(nobody.expect_err("there is none").kind(), StorageErrorKind::NotFound);
}

pub(super) async fn a_limit_of_subscriptions_is_exact(world: World) {
    let organization = world.organization().await;
    let other = world.organization().await;
    world.subscription(other).await;
    let tiers = Tiers::default();
    let plan = Some(Plan::new(Tier::Free));
    assert_eq!(tiers.subscriptions_max(plan), Limit::AtMost(5));
    world.storage.set_plan(organization, plan, BY).await.expect(WORKS);
    let create = || {
        let (storage, draft) = (Arc::clone(&world.storage), world.draft(organization, "*"));
        async move { storage.create_subscription(draft, &tiers, BY).await }
    };
    let mut creators: JoinSet<_> = (0..64).map(|_| create()).collect();
    let mut created = Vec::new();
    while let Some(one) = creators.join_next().await {
        created.push(one.expect("no creator panics"));
    }
    let (made, refused): (Vec<_>, Vec<_>) = created.into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), 5);
    for refused in refused {
        let kind = refused.expect_err("a sixth").kind();
        assert_eq!(kind, StorageErrorKind::OverLimit);
    }
    assert_eq!(world.storage.count_subscriptions(organization).await.expect(WORKS), 5);
    let id = made[0].as_ref().expect("it was made").id;
    world.storage.delete_subscription(organization, id, BY).await.expect(WORKS);
    for (of, count) in [(organization, 4), (other, 1), (world.organization_id(), 0)] {
        assert_eq!(world.storage.count_subscriptions(of).await.expect(WORKS), count);
    }
    create().await.expect("one less");
    assert_eq!(create().await.expect_err("a sixth").kind(), StorageErrorKind::OverLimit);
}
