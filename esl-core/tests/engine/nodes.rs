//! Two engines over one storage, and an engine that loses its epoch.

use std::time::Duration;

use esl_core::{
    InProcessWake,
    testing::{Reply, ScriptedTransport},
};

use crate::world::{engine, event, run_with, settle_down, url};

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

            let transport = ScriptedTransport::new(std::sync::Arc::new(world.clock.clone()));
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
            let transport = ScriptedTransport::new(std::sync::Arc::new(world.clock.clone()));
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
