//! What a publisher is told, and what stopping leaves behind.

use esl_core::{
    DeliveryState, EventId, MemoryBlobStore, NewSubscription, OrganizationId, PublishError,
    storage::Idempotency, testing::Reply,
};

use crate::world::{ORGANIZATION, engine, event, run, run_with, settle_down, until, url};

#[test]
fn the_same_id_is_the_same_event_and_other_content_is_a_conflict() {
    run(|world| async move {
        let subscription = world.subscribe("a", "*").await;
        let id = EventId::from_bytes([3; 16]);
        let first = world.esl.publish(event("person.updated", 1).with_id(id)).await.unwrap();
        let again = world.esl.publish(event("person.updated", 1).with_id(id)).await.unwrap();
        assert_eq!(first, again);
        let other = world.esl.publish(event("person.updated", 2).with_id(id)).await;
        assert!(matches!(other, Err(PublishError::EventConflict(conflict)) if conflict == id));
        world.until_delivered(&subscription, 1).await;
        assert_eq!(world.sent_to("a"), [1]);
    });
}

#[test]
fn an_idempotency_key_gives_the_first_answer() {
    run(|world| async move {
        world.subscribe("a", "*").await;
        let key = |byte| Idempotency { key: "order-1".into(), fingerprint: [byte; 32] };
        let batch = || vec![event("person.updated", 1), event("person.updated", 2)];
        let publish = |key| world.esl.publish_batch(ORGANIZATION, batch(), Some(key));
        let first = publish(key(1)).await.unwrap();
        assert_eq!(publish(key(1)).await.unwrap(), first);
        assert!(matches!(publish(key(2)).await, Err(PublishError::IdempotencyConflict)));
        world.settle_down().await;
        assert_eq!(world.sent_to("a"), [1, 2]);
    });
}

#[test]
fn what_may_not_be_published_is_refused_with_the_reason() {
    run(|world| async move {
        let system = world.esl.publish(event("system.ping", 1)).await;
        assert!(matches!(system, Err(PublishError::SystemType)));
        let stranger = OrganizationId::from_bytes([8; 16]);
        let mut foreign = event("person.updated", 1);
        foreign.organization = stranger;
        let unknown = world.esl.publish(foreign.clone()).await;
        assert!(matches!(unknown, Err(PublishError::UnknownOrganization)));
        let mixed = world.esl.publish_batch(ORGANIZATION, vec![foreign], None).await;
        assert!(matches!(mixed, Err(PublishError::UnknownOrganization)));
        assert_eq!(world.esl.publish_batch(ORGANIZATION, vec![], None).await.unwrap(), []);
        let next = world.publish("person.updated", 1).await;
        assert_eq!(next.seq.get(), 1, "what was refused took no seq");
    });
}

#[test]
fn one_byte_over_the_limit_goes_by_reference_or_is_refused_without_a_blob_store() {
    for has_blobs in [true, false] {
        let bytes_max = 600;
        run_with(
            |builder| {
                let builder = builder.payload_bytes_max(bytes_max);
                if has_blobs { builder.blobs(MemoryBlobStore::new()) } else { builder }
            },
            |world| async move {
                world.subscribe("a", "*").await;
                let sized = |length: usize| {
                    let data = serde_json::json!({ "n": 1, "text": "x".repeat(length) });
                    let event_type = "person.updated".parse().unwrap();
                    esl_core::NewEvent::new(ORGANIZATION, event_type, &data).unwrap()
                };
                let overhead = {
                    let sealed =
                        esl_core::seal(&sized(0), EventId::from_bytes([1; 16]), world.esl.now());
                    sealed.body.len()
                };
                world.esl.publish(sized(bytes_max - overhead)).await.unwrap();
                let over = world.esl.publish(sized(bytes_max - overhead + 1)).await;
                world.settle_down().await;
                let bodies: Vec<serde_json::Value> = world
                    .transport
                    .sightings()
                    .iter()
                    .map(|sighting| serde_json::from_slice(&sighting.outbound.body).unwrap())
                    .collect();
                assert!(bodies[0]["data"].is_object());
                if has_blobs {
                    over.unwrap();
                    assert!(bodies[1].get("data").is_none());
                    let size = bodies[1]["data_ref"]["size_bytes"].as_u64().unwrap();
                    assert_eq!(
                        size,
                        r#"{"n":1,"text":""}"#.len() as u64 + (bytes_max - overhead + 1) as u64
                    );
                } else {
                    let Err(PublishError::TooLarge { bytes, .. }) = over else {
                        panic!("{over:?}")
                    };
                    assert_eq!(bytes, bytes_max + 1);
                }
            },
        );
    }
}

#[test]
fn a_subscription_made_before_a_publish_gets_it_and_one_made_after_does_not() {
    run(|world| async move {
        for round in 0..50 {
            world.publish("person.updated", round).await;
            let subscription = world.subscribe(&format!("r{round}"), "person.*").await;
            let after = world.publish("person.updated", round).await;
            assert_eq!(u64::from(after.deliveries), round + 1);
            let list = world.deliveries(&subscription).await;
            assert_eq!(list.len(), 1);
            assert_eq!(list[0].seq, after.seq);
        }
    });
}

#[test]
fn shutdown_settles_what_ends_in_time_and_leaves_the_rest_to_the_next_engine() {
    run(|world| async move {
        let quick = world.subscribe("quick", "*").await;
        let slow = world.subscribe("slow", "*").await;
        world.transport.script(&url("slow"), [Reply::Hang]);
        let published = world.publish("person.updated", 1).await;
        world.transport.wait_for_hanging_at(&url("slow"), 1).await;

        let stopping = tokio::spawn({
            let esl = world.esl.clone();
            async move { esl.shutdown().await }
        });
        until(&world.clock, || async { stopping.is_finished().then_some(()) }).await;
        stopping.await.unwrap();
        world.esl.shutdown().await;
        let refused = world.esl.publish(event("person.updated", 2)).await;
        assert!(matches!(refused, Err(PublishError::Stopped)));
        assert_eq!(world.delivery(&quick, published).await.state, DeliveryState::Delivered);

        let next = engine(2, &world.storage, &world.clock, &world.transport).build().await.unwrap();
        world.until_state(&slow, published, DeliveryState::Delivered).await;
        assert_eq!((world.sent_to("quick"), world.sent_to("slow")), (vec![1], vec![1, 1]));
        next.shutdown().await;
    });
}

#[test]
fn an_engine_without_a_transport_keeps_events_for_one_that_has() {
    run(|world| async move {
        let subscription = world.subscribe("a", "*").await;
        world.esl.shutdown().await;
        let storage = world.storage.clone();
        let silent = esl_core::Esl::builder(storage)
            .clock(std::sync::Arc::new(world.clock.clone()))
            .build()
            .await
            .unwrap();
        silent.publish(event("person.updated", 1)).await.unwrap();
        silent.shutdown().await;
        let _next =
            engine(2, &world.storage, &world.clock, &world.transport).build().await.unwrap();
        world.until_delivered(&subscription, 1).await;
    });
}

#[test]
fn headers_carry_both_signatures_and_what_the_documentation_promises() {
    run(|world| async move {
        let new = NewSubscription::new(url("a"), vec!["*".parse().unwrap()])
            .with_secret(esl_core::Secret::new("your-webhook-secret").unwrap());
        let subscription = world.esl.subscribe(ORGANIZATION, new).await.unwrap();
        let published = world.publish("person.updated", 1).await;
        world.until_delivered(&subscription, 1).await;
        let sighting = world.transport.sightings().pop().unwrap();
        let signer = esl_core::Signer::new(&subscription.secret, esl_core::Algorithm::Sha256);
        let body = &sighting.outbound.body;
        let id = published.id.to_string();
        let seconds = sighting.at.as_seconds();
        for (name, value) in [
            ("x-sapien-signature", signer.sapien(body)),
            ("webhook-signature", signer.standard(&id, seconds, body)),
            ("webhook-timestamp", seconds.to_string()),
            ("webhook-id", id),
            ("x-sapien-event", "person.updated".into()),
            ("x-sapien-attempt", "1".into()),
            ("user-agent", format!("ESL/{}", env!("CARGO_PKG_VERSION"))),
        ] {
            assert_eq!(sighting.header(name), Some(&*value), "{name}");
        }
    });
}

#[test]
fn whoever_waits_for_commits_misses_none() {
    run(|world| async move {
        world.publish("person.updated", 1).await;
        // What was committed before it was asked for counts.
        world.esl.committed().await;
        let esl = world.esl.clone();
        let waits = tokio::spawn(async move { esl.committed().await });
        settle_down().await;
        assert!(!waits.is_finished());
        world.publish("person.updated", 2).await;
        waits.await.unwrap();
    });
}
