//! Two engines over one storage, and an engine that loses its epoch.

use std::{sync::Arc, time::Duration};

use esl_core::{
    Actor, Clock, Esl, InProcessWake, MemoryStorage, NewSubscription, Organization, Role,
    storage::{Lanes, Tenancy},
    testing::{ManualClock, Reply, ScriptedTransport},
};
use tokio::runtime::{Builder, Runtime};

use crate::world::{
    ORGANIZATION, START, World, engine, event, run_with, sent_to, settle_down, until, url,
};

#[test]
fn what_one_node_commits_another_delivers_if_it_owns_the_lane() {
    let wake = InProcessWake::new();
    let joined = wake.join();
    run_with(
        |builder| builder.wake(wake),
        |world| async move {
            let subscription = world.subscribe("a", "*").await;
            world.publish("person.updated", 0).await;
            world.until_delivered(&subscription, 1).await;

            let transport = ScriptedTransport::new(Arc::new(world.clock.clone()));
            let second = engine(2, &world.storage, &world.clock, &transport)
                .wake(joined)
                .build()
                .await
                .unwrap();
            for number in 1..=50 {
                let node = if number % 2 == 0 { &world.esl } else { &second };
                node.publish(event("person.updated", number)).await.unwrap();
            }
            world.until_delivered(&subscription, 51).await;
            assert_eq!(world.sent_to("a"), (0..=50).collect::<Vec<_>>(), "in order, by the owner");
            assert!(transport.sightings().is_empty());

            // The owner goes; the other takes over.
            world.esl.shutdown().await;
            second.publish(event("person.updated", 51)).await.unwrap();
            world.until_delivered(&subscription, 52).await;
            assert_eq!(transport.sightings().len(), 1);
        },
    );
}

#[test]
fn a_subscription_made_at_one_node_is_routed_at_the_other() {
    run_with(
        |builder| builder,
        |world| async move {
            let transport = ScriptedTransport::new(Arc::new(world.clock.clone()));
            let second = engine(2, &world.storage, &world.clock, &transport).build().await.unwrap();
            assert_eq!(second.publish(event("a.b", 1)).await.unwrap().deliveries, 0);
            world.subscribe("a", "*").await;
            // Its routes are stale by now, and storage says so.
            assert_eq!(second.publish(event("a.b", 2)).await.unwrap().deliveries, 1);
        },
    );
}

#[test]
fn an_engine_that_slept_through_its_epoch_begins_another_and_loses_nothing() {
    run_with(
        |builder| builder,
        |world| async move {
            let subscription = world.subscribe("a", "*").await;
            world.transport.script(&url("a"), [Reply::Hang]);
            for number in 1..=20 {
                world.publish("person.updated", number).await;
            }
            world.transport.wait_for_hanging_at(&url("a"), 1).await;
            // Suspended: no renewal for longer than an epoch lasts.
            world.clock.advance(Duration::from_secs(120));
            settle_down().await;
            world.until_delivered(&subscription, 20).await;
            let list = world.esl.storage();
            assert!(list.check().await.is_ok());
            assert_eq!(world.esl.publish(event("a.b", 21)).await.unwrap().seq.get(), 21);
            world.until_delivered(&subscription, 21).await;
        },
    );
}

#[test]
fn an_engine_leads_as_long_as_its_epoch_lasts() {
    run_with(
        |builder| builder,
        |world| async move {
            let leads = |seconds| world.esl.leads(Duration::from_secs(seconds));
            let worker = leads(30).unwrap();
            assert_eq!(leads(31), None);
            // Its epoch is renewed.
            for _ in 0..3 {
                world.clock.advance(Duration::from_secs(6));
                settle_down().await;
            }
            assert_eq!(leads(25), Some(worker));
            world.clock.advance(Duration::from_secs(31));
            assert_eq!(leads(0), None);
        },
    );
}

#[test]
fn what_another_node_has_expanded_is_not_passed_over_by_the_next_commit() {
    let two = Two::new();
    two.first.publish("person.updated", 2);
    two.second().come_and_go();
    // Follows the last seq, and no fan-out is open any more.
    two.first.publish("pet.fed", 3);
    two.until_sent_in_order(3);
}

#[test]
fn what_another_node_has_expanded_is_not_passed_over_by_the_next_slice() {
    let two = Two::new();
    two.first.publish("person.updated", 2);
    two.second().come_and_go();
    // The first node expands this one itself.
    two.first.publish("person.updated", 3);
    two.until_sent_in_order(3);
}

#[test]
fn nodes_share_the_lanes_also_with_one_that_comes_later() {
    let (wake, joined) = two_wakes();
    run_with(
        |builder| builder.wake(wake),
        |world| async move {
            const LANES: u64 = 40;
            for number in 0..LANES {
                world.subscribe(&number.to_string(), "*").await;
            }
            world.publish("person.updated", 0).await;
            world.until(|| async { (world.transport.sightings().len() == 40).then_some(()) }).await;
            let transport = ScriptedTransport::new(Arc::new(world.clock.clone()));
            let second = engine(2, &world.storage, &world.clock, &transport).wake(joined);
            let second = second.build().await.unwrap();
            // The first hears of it, and lets go of what is to be the other's.
            settle_down().await;
            for number in 1..=10 {
                let node = if number % 2 == 0 { &world.esl } else { &second };
                node.publish(event("person.updated", number)).await.unwrap();
            }
            let both = || world.transport.sightings().len() + transport.sightings().len();
            world.until(|| async { (both() == 40 * 11).then_some(()) }).await;
            let moved =
                (0..LANES).filter(|lane| !sent_to(&transport, &lane.to_string()).is_empty());
            let moved: Vec<u64> = moved.collect();
            assert!((10..=30).contains(&moved.len()), "{moved:?}");
            for lane in 0..LANES {
                let (before, after) =
                    (world.sent_to(&lane.to_string()), sent_to(&transport, &lane.to_string()));
                assert_eq!([before, after].concat(), (0..=10).collect::<Vec<_>>(), "each once");
            }
            second.shutdown().await;
        },
    );
}

#[test]
fn what_a_node_had_that_stops_others_take_at_once() {
    let (wake, joined) = two_wakes();
    run_with(
        |builder| builder.wake(wake),
        |world| async move {
            const LANES: u64 = 40;
            let transport = ScriptedTransport::new(Arc::new(world.clock.clone()));
            let second = engine(2, &world.storage, &world.clock, &transport).wake(joined);
            let second = second.build().await.unwrap();
            settle_down().await;
            for number in 0..LANES {
                world.subscribe(&number.to_string(), "*").await;
            }
            world.publish("person.updated", 0).await;
            let both = || world.transport.sightings().len() + transport.sightings().len();
            world.until(|| async { (both() == 40).then_some(()) }).await;
            assert!(!transport.sightings().is_empty());
            // Between two renewals.
            let at = world.clock.monotonic();
            second.shutdown().await;
            world.publish("person.updated", 1).await;
            world.until(|| async { (both() == 80).then_some(()) }).await;
            let waited = world.clock.monotonic() - at;
            assert!(waited < Duration::from_secs(1), "{waited:?}");
        },
    );
}

#[test]
fn a_node_that_only_takes_what_is_published_has_another_deliver_it_at_once() {
    let (wake, joined) = two_wakes();
    run_with(
        |builder| builder.wake(wake),
        |world| async move {
            let transport = ScriptedTransport::new(Arc::new(world.clock.clone()));
            let api = engine(2, &world.storage, &world.clock, &transport).wake(joined);
            let api = api.role(Role::Api).build().await.unwrap();
            let new = NewSubscription::new(url("a"), vec!["*".parse().unwrap()]);
            api.subscribe(ORGANIZATION, new).await.unwrap();
            for number in 0..3 {
                api.publish(event("person.updated", number)).await.unwrap();
                settle_down().await;
                assert_eq!(world.sent_to("a"), (0..=number).collect::<Vec<_>>());
            }
            assert!(transport.sightings().is_empty());
            api.shutdown().await;
        },
    );
}

#[test]
fn a_lane_is_let_go_of_only_when_all_that_is_under_way_is_settled() {
    run_with(
        |builder| builder,
        |world| async move {
            const LANES: u64 = 20;
            for number in 0..LANES {
                world.subscribe(&number.to_string(), "*").await;
                world.transport.script(&url(&number.to_string()), [Reply::Hang]);
            }
            world.publish("person.updated", 0).await;
            world.publish("person.updated", 1).await;
            world.until(|| async { (world.transport.sightings().len() == 40).then_some(()) }).await;
            let transport = ScriptedTransport::new(Arc::new(world.clock.clone()));
            let second = engine(2, &world.storage, &world.clock, &transport).build().await.unwrap();
            for _ in 0..20 {
                world.clock.advance(Duration::from_millis(500));
                settle_down().await;
            }
            second.publish(event("person.updated", 2)).await.unwrap();
            settle_down().await;
            assert!(transport.sightings().is_empty(), "what hangs is not over");
            for number in 0..LANES {
                world.transport.release(&url(&number.to_string()), &Reply::status(200));
            }
            let both = || world.transport.sightings().len() + transport.sightings().len();
            world.until(|| async { (both() == 60).then_some(()) }).await;
            assert!(!transport.sightings().is_empty());
            second.shutdown().await;
        },
    );
}

#[test]
fn what_the_node_that_leads_leaves_in_the_intake_another_moves() {
    run_with(
        |builder| builder,
        |world| async move {
            world.subscribe("a", "*").await;
            let second = engine(2, &world.storage, &world.clock, &world.transport);
            let second = second.build().await.unwrap();
            let World { clock, storage, transport, esl } = world;
            let publisher = Esl::publisher(storage.clone());
            publisher.publish(event("person.updated", 1)).await.unwrap();
            settle_down().await;
            assert_eq!(storage.intake(None, 9, &[]).await.unwrap().len(), 0, "at once");
            // Killed: until its epoch lapses nobody else leads.
            drop(esl);
            settle_down().await;
            publisher.publish(event("person.updated", 2)).await.unwrap();
            let at = clock.monotonic();
            until(&clock, || async {
                storage.intake(None, 9, &[]).await.unwrap().is_empty().then_some(())
            })
            .await;
            let waited = clock.monotonic() - at;
            assert!((2..4).contains(&waited.as_secs()), "{waited:?}");
            assert!(!transport.sightings().is_empty());
            second.shutdown().await;
        },
    );
}

#[test]
fn a_fan_out_whose_node_is_gone_is_expanded_by_another() {
    let two = Two::new();
    two.first.publish("person.updated", 2);
    let second = two.second();
    let Two { clock, storage, first, .. } = two;
    let Node { runtime, esl } = first;
    // Killed, before it has expanded anything.
    drop((esl, runtime));
    let at = clock.monotonic();
    let is_open = || second.runtime.block_on(storage.fan_outs(None, 1, 1)).unwrap().is_some();
    while is_open() && clock.monotonic() - at < Duration::from_secs(60) {
        second.settle_down();
        clock.advance(Duration::from_millis(500));
    }
    assert!(clock.monotonic() - at < Duration::from_secs(10), "{:?}", clock.monotonic() - at);
}

fn two_wakes() -> (InProcessWake, InProcessWake) {
    let wake = InProcessWake::new();
    let joined = wake.join();
    (wake, joined)
}

/// More lanes than an event goes to at once.
const CROWD: u64 = 1100;

/// Two nodes that hear no hints of each other, and are each given their turns by hand.
struct Two {
    clock: ManualClock,
    storage: MemoryStorage,
    transport: ScriptedTransport,
    /// Owns every lane; one of the receivers has 0 and hangs at 1, so that nobody looks after its lane.
    first: Node,
}

/// An engine whose tasks run while something is awaited here, one at a time.
struct Node {
    runtime: Runtime,
    esl: Esl,
}

impl Two {
    fn new() -> Self {
        let clock = ManualClock::new(START);
        let storage = MemoryStorage::with_clock(Arc::new(clock.clone()));
        let transport = ScriptedTransport::new(Arc::new(clock.clone()));
        let first = Node::new(1, &storage, &clock, &transport);
        first.runtime.block_on(async {
            let organization = Organization::new(ORGANIZATION, "acme", START);
            storage.create_organization(organization, &Actor::APPLICATION).await.unwrap();
            for number in 0..CROWD {
                let patterns = match number {
                    0 => vec!["person.*".parse().unwrap(), "pet.*".parse().unwrap()],
                    _ => vec!["person.*".parse().unwrap()],
                };
                let new = NewSubscription::new(url(&number.to_string()), patterns);
                first.esl.subscribe(ORGANIZATION, new).await.unwrap();
            }
        });
        first.publish("person.updated", 0);
        let last = (CROWD - 1).to_string();
        while sent_to(&transport, &last).is_empty() || first.esl.unsettled() > 0 {
            clock.advance(Duration::from_millis(10));
            first.settle_down();
        }
        transport.script(&url("0"), [Reply::Hang]);
        first.publish("pet.fed", 1);
        first.settle_down();
        assert_eq!(sent_to(&transport, "0"), [0, 1]);
        Self { clock, storage, transport, first }
    }

    /// The other node, which begins by looking for fan-outs.
    fn second(&self) -> Node {
        Node::new(2, &self.storage, &self.clock, &self.transport)
    }

    /// Lets the first node work until one receiver has had so many events behind the first.
    fn until_sent_in_order(&self, count: u64) {
        let limit = self.clock.monotonic() + Duration::from_secs(60);
        while sent_to(&self.transport, "0").len() as u64 <= count && self.clock.monotonic() < limit
        {
            self.first.settle_down();
            self.clock.advance(Duration::from_millis(100));
        }
        assert_eq!(sent_to(&self.transport, "0"), (0..=count).collect::<Vec<_>>());
    }
}

impl Node {
    fn new(
        seed: u64,
        storage: &MemoryStorage,
        clock: &ManualClock,
        transport: &ScriptedTransport,
    ) -> Self {
        // After each task whatever is awaited has its turn, so that what a call brings about can be kept
        // waiting.
        let runtime = Builder::new_current_thread().event_interval(1).build().unwrap();
        let builder = engine(seed, storage, clock, transport);
        let esl = runtime.block_on(builder.build()).unwrap();
        Self { runtime, esl }
    }

    /// Publishes, and does no more than that.
    fn publish(&self, event_type: &str, data: u64) {
        self.runtime.block_on(self.esl.publish(event(event_type, data))).unwrap();
    }

    /// Does what there is to do, and is gone before anybody shares lanes with it.
    fn come_and_go(self) {
        self.settle_down();
        self.runtime.block_on(self.esl.shutdown());
    }

    fn settle_down(&self) {
        self.runtime.block_on(async {
            for _ in 0..20 {
                settle_down().await;
            }
        });
    }
}
