//! Events that were committed by somebody else's transaction.

use std::sync::Arc;

use esl_core::{
    Actor, Esl, EventId, Organization, OrganizationId,
    storage::{Lanes, Records, Tenancy},
};

use crate::world::{event, run};

#[test]
fn a_publisher_without_an_engine_hands_over_in_order() {
    run(|world| async move {
        let subscription = world.subscribe("a", "*").await;
        let publisher = Esl::publisher(world.storage.clone());
        for number in 0..1200 {
            publisher.publish(event("person.updated", number)).await.unwrap();
        }
        world.until_delivered(&subscription, 1200).await;
        assert_eq!(world.sent_to("a"), (0..1200).collect::<Vec<_>>());
        assert!(world.storage.intake(None, 1, &[]).await.unwrap().is_empty());
    });
}

#[test]
fn an_event_that_exists_already_is_dropped_from_the_intake() {
    run(|world| async move {
        let subscription = world.subscribe("a", "*").await;
        let id = EventId::from_bytes([3; 16]);
        world.esl.publish(event("person.updated", 1).with_id(id)).await.unwrap();
        let publisher = Esl::publisher(world.storage.clone());
        let other_content = event("person.updated", 2).with_id(id);
        publisher.publish(other_content).await.unwrap();
        publisher.publish(event("person.updated", 3)).await.unwrap();
        world.until_delivered(&subscription, 2).await;
        assert_eq!(world.sent_to("a"), [1, 3]);
        assert!(world.storage.intake(None, 1, &[]).await.unwrap().is_empty());
    });
}

#[test]
fn an_event_of_an_organization_that_does_not_exist_holds_up_nobody() {
    run(|world| async move {
        let subscription = world.subscribe("a", "*").await;
        let mut foreign = event("person.updated", 1);
        let unknown = OrganizationId::from_bytes([9; 16]);
        foreign.organization = unknown;
        let publisher = Esl::publisher(world.storage.clone());
        let prepared = publisher.prepare(foreign).await.unwrap();
        world.storage.enqueue(vec![Arc::clone(prepared.event())]).await.unwrap();
        publisher.publish(event("person.updated", 2)).await.unwrap();
        world.until_delivered(&subscription, 1).await;
        // It waits for its organization, and nobody has to say that there is one now.
        let id = prepared.id();
        let made = Organization::new(unknown, "made", world.esl.now());
        world.storage.create_organization(made, &Actor::APPLICATION).await.unwrap();
        world.until(async || world.storage.event(unknown, id).await.unwrap()).await;
    });
}
