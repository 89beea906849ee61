//! Replays, and what they are of.

use std::{num::NonZeroU32, time::Duration};

use ulid::Ulid;

use super::{
    BY,
    world::{SECOND, WORKS, World, first, kind, numbers, settlement},
};
use crate::{
    NewReplay, OrganizationId, Replay, ReplayId, ReplayNumber, ReplayOf, ReplayRange, ReplayState,
    Seq, Subscription,
    storage::{
        Audience, Candidates, Expand, Outcome, Page, ReplayStep, Routed, StorageError,
        StorageErrorKind, Tenure, Unit, Worker,
    },
};

const EVERYTHING: ReplayOf =
    ReplayOf::Deliveries { exhausted: true, expired: true, delivered: true };

pub(super) async fn a_replay_is_read_as_it_was_made(world: World) {
    let (subscription, _) = history(&world, 3).await;
    let (organization, id) = (subscription.organization, subscription.id);
    let range = ReplayRange {
        from: Seq::new(2),
        to: Seq::new(9),
        since: Some(world.now()),
        until: Some(world.now() + SECOND),
    };
    let mut made = Vec::new();
    for of in [ReplayOf::Missing, ReplayOf::UNDELIVERED, EVERYTHING] {
        let new = NewReplay::new(of).within(range).with_max_per_second(NonZeroU32::MAX);
        let draft = draft(&world, &subscription, new);
        let created = world.storage.create_replay(draft.clone()).await.expect(WORKS);
        let mut expected = Replay { number: created.number, lane: subscription.lane, ..draft };
        // No later than the last event there is.
        expected.range.to = Seq::new(3);
        assert_eq!(created, expected);
        assert_eq!((created.position, created.state), (Seq::new(1), ReplayState::Running));
        assert_eq!(
            world.storage.replay(organization, created.id).await.expect(WORKS),
            Some(expected)
        );
        made.push(world.storage.cancel_replay(organization, created.id).await.expect(WORKS));
    }
    made.reverse();
    let list = async |page| world.storage.replays(organization, id, page).await.expect(WORKS);
    let all = list(first(9)).await.expect("the subscription exists");
    assert_eq!((all.items, all.more), (made.clone(), false));
    let page = list(first(2)).await.expect("the subscription exists");
    assert_eq!((&page.items[..], page.more), (&made[..2], true));
    let rest = list(Page { after: Some(page.items[1].number), limit: 2 }).await;
    assert_eq!(rest.expect("the subscription exists").items, made[2..]);

    let stranger = world.organization().await;
    assert_eq!(world.storage.replay(stranger, made[0].id).await.expect(WORKS), None);
    assert_eq!(world.storage.replays(stranger, id, first(9)).await.expect(WORKS), None);
    let cancelled = world.storage.cancel_replay(stranger, made[0].id).await;
    assert_eq!(kind(cancelled), StorageErrorKind::NotFound);
}

pub(super) async fn one_replay_to_a_subscription_runs_at_a_time(world: World) {
    let (subscription, _) = history(&world, 1).await;
    let running = create(&world, &subscription, ReplayOf::Missing).await.expect(WORKS);
    let second = create(&world, &subscription, ReplayOf::UNDELIVERED).await;
    assert_eq!(kind(second), StorageErrorKind::Conflict);
    assert_eq!(running_ids(&world).await, [running.id]);
    world.clock.advance(SECOND);
    let organization = subscription.organization;
    for _ in 0..2 {
        let cancelled = world.storage.cancel_replay(organization, running.id).await.expect(WORKS);
        assert_eq!(cancelled.state, ReplayState::Cancelled);
        assert_eq!(cancelled.finished_at, Some(running.created_at + SECOND));
        world.clock.advance(SECOND);
    }
    assert_eq!(running_ids(&world).await, []);
    create(&world, &subscription, ReplayOf::UNDELIVERED).await.expect(WORKS);
    world.storage.delete_subscription(organization, subscription.id, BY).await.expect(WORKS);
    assert_eq!(running_ids(&world).await, []);
    let gone = create(&world, &subscription, ReplayOf::Missing).await;
    assert_eq!(kind(gone), StorageErrorKind::NotFound);
}

pub(super) async fn what_is_missing_is_opened_once_and_due_now(world: World) {
    let organization = world.organization().await;
    world.publish_new(organization, 3).await;
    let late = world.subscription(organization).await;
    world.publish_new(organization, 1).await;
    let replay = create(&world, &late, ReplayOf::Missing).await.expect(WORKS);
    let found = candidates(&world, &replay, 2).await;
    assert_eq!((seqs(&found), found.position, found.is_end), (numbers([1, 2]), Seq::new(2), false));

    let worker = world.worker_of(&[late.lane]).await;
    world.clock.advance(SECOND);
    let step = step(&replay, 2, [1, 2]);
    let advanced = world.storage.advance_replay(&worker, step.clone()).await.expect(WORKS);
    assert_eq!((advanced.position, advanced.opened), (Seq::new(2), 2));
    let deliveries = world.deliveries(&late).await;
    assert_eq!(deliveries.len(), 3);
    assert_eq!((deliveries[0].attempts, deliveries[0].created_at), (0, world.now()));
    // They are retries to the engine, which has handed out what was never tried above them.
    let want = crate::storage::Want { after: None, ..super::world::want(late.lane) };
    let claimed = world.claim(&worker, want).await;
    assert_eq!(super::world::seqs(&claimed), numbers([1, 2]));
    assert!(claimed.due.iter().all(|due| due.is_retry && due.charged == 0));

    let again = world.storage.advance_replay(&worker, step).await;
    assert_eq!(kind(again), StorageErrorKind::Conflict);
    let found = candidates(&world, &advanced, 9).await;
    assert_eq!((seqs(&found), found.position, found.is_end), (numbers([3]), Seq::new(4), true));
    // The fourth is there already; whoever names it all the same gets nothing.
    let last = ReplayStep { is_done: true, ..self::step(&advanced, 4, [3, 4]) };
    let done = world.storage.advance_replay(&worker, last).await.expect(WORKS);
    assert_eq!((done.opened, done.state), (3, ReplayState::Done));
    assert_eq!(done.finished_at, Some(world.now()));
    assert_eq!(running_ids(&world).await, []);
    assert_eq!(world.deliveries(&late).await.len(), 4);
}

pub(super) async fn what_was_for_others_alone_is_not_missing(world: World) {
    let organization = world.organization().await;
    let [one, other, about] = [(); 3].map(|()| world.subscription(organization));
    let (one, other, about) = (one.await, other.await, about.await);
    for audience in [Audience::Only(one.lane), Audience::Except(about.lane), Audience::Matching] {
        let mut publish = world.route(&[world.event(organization)]).await;
        // To nobody at first, whoever it is for, so that everybody may miss it.
        publish.events[0].lanes = match audience {
            Audience::Only(lane) => [lane].into(),
            Audience::Matching | Audience::Except(_) => [].into(),
        };
        publish.events[0].audience = audience;
        world.commit(Unit::publish(publish)).await.expect("the version is current");
    }
    let worker = world.worker_of(&[one.lane, other.lane, about.lane]).await;
    for (subscription, expected) in
        [(&one, numbers([2, 3])), (&other, numbers([2, 3])), (&about, numbers([3]))]
    {
        let replay = create(&world, subscription, ReplayOf::Missing).await.expect(WORKS);
        assert_eq!(seqs(&candidates(&world, &replay, 9).await), expected);
        // Whoever names them all the same gets nothing else.
        let all = step(&replay, 3, [1, 2, 3]);
        let advanced = world.storage.advance_replay(&worker, all).await.expect(WORKS);
        assert_eq!(advanced.opened, expected.len() as u64);
    }
}

pub(super) async fn deliveries_are_opened_again_by_how_they_ended(world: World) {
    let (subscription, worker) = history(&world, 6).await;
    let lane = subscription.lane;
    let end = |seq, outcome| settlement(lane, Seq::new(seq), outcome, world.now());
    let ends = vec![
        end(1, Outcome::Delivered),
        end(2, Outcome::Exhausted),
        end(3, Outcome::RetryAt(world.now() + SECOND)),
        end(4, Outcome::Exhausted),
        end(6, Outcome::Delivered),
    ];
    world.settle(&worker, ends).await;
    let of = |exhausted, delivered| ReplayOf::Deliveries { exhausted, expired: false, delivered };
    for (of, expected) in [
        (of(true, false), vec![2, 4]),
        (of(false, true), vec![1, 6]),
        (of(true, true), vec![1, 2, 4, 6]),
        (of(false, false), vec![]),
        (ReplayOf::Missing, vec![]),
    ] {
        let replay = draft_in_lane(&world, &subscription, NewReplay::new(of));
        let found = candidates(&world, &replay, 9).await;
        assert_eq!((seqs(&found), found.is_end), (numbers(expected), true), "{of:?}");
    }

    let replay = create(&world, &subscription, of(true, false)).await.expect(WORKS);
    let step = ReplayStep { is_done: true, ..step(&replay, 6, [1, 2, 3, 4, 5, 6]) };
    let done = world.storage.advance_replay(&worker, step).await.expect(WORKS);
    assert_eq!(done.opened, 2);
    let due = world.claim(&worker, super::world::want(lane)).await;
    assert_eq!(super::world::seqs(&due), numbers([2, 4, 5]));
    let reopened = &due.due[0];
    assert_eq!(
        (reopened.attempts, reopened.charged),
        (1, 0),
        "attempts go on, the budget is fresh"
    );
}

pub(super) async fn a_replay_never_opens_an_erased_event(world: World) {
    let (subscription, worker) = history(&world, 5).await;
    let (organization, lane) = (subscription.organization, subscription.lane);
    let end = |seq, outcome| settlement(lane, Seq::new(seq), outcome, world.now());
    let ends = vec![
        end(1, Outcome::Delivered),
        end(2, Outcome::Delivered),
        end(3, Outcome::Exhausted),
        end(4, Outcome::Exhausted),
    ];
    world.settle(&worker, ends).await;
    let late = world.subscription(organization).await;
    let running = create(&world, &subscription, EVERYTHING).await.expect(WORKS);
    let missing = create(&world, &late, ReplayOf::Missing).await.expect(WORKS);
    let page = world.storage.events(organization, None, first(9)).await.expect(WORKS);
    for event in page.items.iter().filter(|event| [1, 3, 5].contains(&event.seq.get())) {
        world.storage.erase_event(organization, event.id).await.expect(WORKS);
    }
    let of = |exhausted, delivered| ReplayOf::Deliveries { exhausted, expired: true, delivered };
    for (to, of, expected) in [
        (&subscription, of(true, false), vec![4]),
        (&subscription, of(false, true), vec![2]),
        (&subscription, of(true, true), vec![2, 4]),
        (&late, ReplayOf::Missing, vec![2, 4]),
    ] {
        let mut replay = draft_in_lane(&world, to, NewReplay::new(of));
        replay.range.to = Seq::new(5);
        let found = candidates(&world, &replay, 9).await;
        assert_eq!((seqs(&found), found.is_end), (numbers(expected), true), "{of:?}");
    }
    // Nor one that was found before it was erased.
    for replay in [running, missing] {
        let step = ReplayStep { is_done: true, ..step(&replay, 5, [1, 2, 3, 4, 5]) };
        let done = world.storage.advance_replay(&worker, step).await.expect(WORKS);
        assert_eq!(done.opened, 2, "{:?}", replay.of);
    }
    assert_eq!(world.due(&worker, lane).await, numbers([2, 4]));
}

pub(super) async fn a_replay_is_bounded_by_seq_and_by_time(world: World) {
    let organization = world.organization().await;
    let start = world.now();
    for _ in 0..5 {
        world.publish_new(organization, 1).await;
        world.clock.advance(SECOND);
    }
    let late = world.subscription(organization).await;
    let seq = |number| Seq::new(number);
    let all = ReplayRange::ALL;
    for (range, expected) in [
        (all, vec![1, 2, 3, 4, 5]),
        (ReplayRange { from: seq(2), to: seq(4), ..all }, vec![2, 3, 4]),
        (ReplayRange { from: seq(4), to: seq(2), ..all }, vec![]),
        (ReplayRange { since: Some(start + SECOND), ..all }, vec![2, 3, 4, 5]),
        (ReplayRange { until: Some(start + SECOND), ..all }, vec![1, 2]),
        (
            ReplayRange {
                from: seq(2),
                since: Some(start),
                until: Some(start + SECOND * 2 - Duration::from_millis(1)),
                ..all
            },
            vec![2],
        ),
    ] {
        let mut replay =
            draft_in_lane(&world, &late, NewReplay::new(ReplayOf::Missing).within(range));
        replay.range.to = replay.range.to.min(seq(5));
        let found = candidates(&world, &replay, 9).await;
        assert_eq!((seqs(&found), found.is_end), (numbers(expected), true), "{range:?}");
    }
}

pub(super) async fn a_replay_does_not_overtake_a_fan_out(world: World) {
    let organization = world.organization().await;
    world.publish_new(organization, 1).await;
    let late = world.subscription(organization).await;
    let mut lanes = vec![late.lane];
    for _ in 0..crate::storage::FAN_OUT_ABOVE {
        lanes.push(world.subscription_to(organization, "pet.*").await.lane);
    }
    let mut publish = world.route(&world.events(organization, 1)).await;
    let event = publish.events[0].event.clone();
    publish.events =
        vec![Routed { audience: Audience::Matching, ..Routed::new(event, lanes.clone().into()) }];
    let route_version = publish.route_version;
    world.commit(Unit::publish(publish)).await.expect("in order");

    let replay = create(&world, &late, ReplayOf::Missing).await.expect(WORKS);
    let found = candidates(&world, &replay, 9).await;
    assert_eq!((seqs(&found), found.position, found.is_end), (numbers([1]), Seq::new(1), false));
    let worker = world.worker_of(&[late.lane]).await;
    let advanced = world.storage.advance_replay(&worker, step(&replay, 2, [1, 2])).await;
    assert_eq!(advanced.expect(WORKS).opened, 1);
    let expand = Expand {
        organization,
        seq: Seq::new(2),
        route_version,
        after: crate::LaneId::new(0),
        lanes: lanes.into(),
        next: None,
    };
    world.commit(Unit::expand(expand)).await.expect("it is next");
    assert_eq!(world.deliveries(&late).await.len(), 2);
}

pub(super) async fn only_a_running_worker_advances_a_replay(world: World) {
    let (subscription, worker) = history(&world, 2).await;
    let replay = create(&world, &subscription, EVERYTHING).await.expect(WORKS);
    world.storage.resign(&worker).await.expect(WORKS);
    let fenced = world.storage.advance_replay(&worker, step(&replay, 1, [])).await;
    assert_eq!(kind(fenced), StorageErrorKind::Fenced);
    let worker = world.worker_of(&[]).await;
    world.storage.cancel_replay(subscription.organization, replay.id).await.expect(WORKS);
    let cancelled = world.storage.advance_replay(&worker, step(&replay, 1, [])).await;
    assert_eq!(kind(cancelled), StorageErrorKind::Conflict);
}

pub(super) async fn a_replay_that_is_over_goes_when_it_is_old(world: World) {
    const AGE: Duration = Duration::from_secs(100);
    let (subscription, _) = history(&world, 1).await;
    let organization = subscription.organization;
    let deleted = world.subscription(organization).await;
    let over = create(&world, &subscription, ReplayOf::Missing).await.expect(WORKS);
    world.storage.cancel_replay(organization, over.id).await.expect(WORKS);
    let ended = create(&world, &deleted, ReplayOf::Missing).await.expect(WORKS);
    world.storage.delete_subscription(organization, deleted.id, BY).await.expect(WORKS);
    let running = create(&world, &subscription, ReplayOf::Missing).await.expect(WORKS);
    let read = async |id| world.storage.replay(organization, id).await.expect(WORKS);
    let remove = async || {
        let (worker, _) =
            world.storage.enlist(world.worker_id(), Tenure::default()).await.expect(WORKS);
        world.storage.sweep(&worker, 100).await.expect(WORKS);
        let mut replays = 0;
        // What is left of the deleted subscription goes in one round, its replay in the next.
        for _ in 0..2 {
            let removed = world.storage.remove_old(&worker, Some(AGE), 100).await.expect(WORKS);
            replays += removed.replays;
        }
        world.storage.resign(&worker).await.expect(WORKS);
        replays
    };
    world.clock.advance(AGE - SECOND);
    assert_eq!(remove().await, 0);
    assert!(read(over.id).await.is_some() && read(ended.id).await.is_some());
    world.clock.advance(SECOND);
    assert_eq!(remove().await, 2);
    for (id, is_kept) in [(over.id, false), (ended.id, false), (running.id, true)] {
        assert_eq!(read(id).await.is_some(), is_kept);
    }
}

pub(super) async fn a_replay_survives_a_kill(world: World) {
    let (subscription, worker) = history(&world, 3).await;
    let late = world.subscription(subscription.organization).await;
    let replay = create(&world, &late, ReplayOf::Missing).await.expect(WORKS);
    let advanced = world.storage.advance_replay(&worker, step(&replay, 2, [1, 2])).await;
    let advanced = advanced.expect(WORKS);
    let world = world.kill_and_reopen().await;
    let running = world.storage.running_replays(ReplayNumber(0), 9).await.expect(WORKS);
    assert_eq!(running, [advanced]);
    assert_eq!(world.deliveries(&late).await.len(), 2);
}

/// A subscription with deliveries, none of them tried.
async fn history(world: &World, count: usize) -> (Subscription, Worker) {
    let organization: OrganizationId = world.organization().await;
    let subscription = world.subscription(organization).await;
    let worker = world.worker_of(&[subscription.lane]).await;
    world.publish_new(organization, count).await;
    (subscription, worker)
}

fn draft(world: &World, subscription: &Subscription, new: NewReplay) -> Replay {
    let id = ReplayId::from_ulid(Ulid::from_bytes(world.event_id().to_bytes()));
    Replay::new(id, subscription.organization, subscription.id, new, world.now())
}

/// A replay that is asked about and not stored.
fn draft_in_lane(world: &World, subscription: &Subscription, new: NewReplay) -> Replay {
    let mut replay = draft(world, subscription, new);
    replay.lane = subscription.lane;
    replay.range.to = replay.range.to.min(Seq::new(100));
    replay
}

async fn create(
    world: &World,
    subscription: &Subscription,
    of: ReplayOf,
) -> Result<Replay, StorageError> {
    world.storage.create_replay(draft(world, subscription, NewReplay::new(of))).await
}

async fn candidates(world: &World, replay: &Replay, limit: usize) -> Candidates {
    world.storage.candidates(replay, limit).await.expect(WORKS)
}

fn seqs(found: &Candidates) -> Vec<Seq> {
    found.events.iter().map(|(seq, _)| *seq).collect()
}

fn step(replay: &Replay, to: u64, seqs: impl IntoIterator<Item = u64>) -> ReplayStep {
    ReplayStep {
        organization: replay.organization,
        replay: replay.id,
        from: replay.position,
        to: Seq::new(to),
        seqs: numbers(seqs),
        is_done: false,
    }
}

async fn running_ids(world: &World) -> Vec<ReplayId> {
    let running = world.storage.running_replays(ReplayNumber(0), 9).await.expect(WORKS);
    running.iter().map(|replay| replay.id).collect()
}
