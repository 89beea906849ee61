//! Large payloads: links that last, and blobs that go with their events.

use std::{future::poll_fn, sync::Arc, time::Duration};

use esl_core::{
    BlobKey, BlobStore, DataRef, Esl, EventId, LinkError, MemoryBlobStore, NewEvent,
    OrganizationId, PublishError, Published, PutId, Timestamp,
    storage::{Idempotency, Records, Removal},
    testing::{Reply, Sighting},
};

use crate::world::{ORGANIZATION, START, World, run_with, url};

const HOUR: Duration = Duration::from_secs(60 * 60);
const BYTES_MAX: usize = 700;

fn large(text_bytes: usize) -> NewEvent {
    let data = serde_json::json!({ "n": 1, "text": "x".repeat(text_bytes) });
    NewEvent::new(ORGANIZATION, "person.updated".parse().unwrap(), &data).unwrap()
}

fn with_blobs<F: Future<Output = ()>>(test: impl FnOnce(World, MemoryBlobStore) -> F) {
    let clock = esl_core::testing::ManualClock::new(START);
    let blobs = MemoryBlobStore::with_clock(Arc::new(clock));
    let store = blobs.clone();
    run_with(
        |builder| {
            builder
                .payload_bytes_max(BYTES_MAX)
                .public_url("https://events.example.com")
                .blobs(store)
        },
        |world| test(world, blobs),
    );
}

fn reference(sent: &Sighting) -> DataRef {
    let body: serde_json::Value = serde_json::from_slice(&sent.outbound.body).unwrap();
    serde_json::from_value(body["data_ref"].clone()).unwrap()
}

async fn open(world: &World, event: EventId, uri: &str) -> Result<OrganizationId, LinkError> {
    let (_, query) = uri.split_once("?exp=").unwrap();
    let (exp, sig) = query.split_once("&sig=").unwrap();
    world.esl.check_link(event, exp.parse().unwrap(), sig).await
}

async fn sent(world: &World, count: usize) -> Sighting {
    world.until(|| async { world.transport.sightings().get(count - 1).cloned() }).await
}

const KEY: BlobKey = BlobKey {
    organization: ORGANIZATION,
    event: EventId::from_bytes([3; 16]),
    put: PutId::from_bits(1),
};

/// The blobs there are.
pub(crate) async fn all(blobs: &MemoryBlobStore) -> Vec<BlobKey> {
    let (mut pages, mut all) = (blobs.list(None), Vec::new());
    while let Some(page) = poll_fn(|context| pages.as_mut().poll_next(context)).await {
        all.extend(page.unwrap().iter().map(|blob| blob.key));
    }
    all
}

/// The blob that a stored event names.
async fn named(world: &World, event: EventId) -> Option<BlobKey> {
    let stored = world.storage.event(ORGANIZATION, event).await.unwrap().unwrap();
    BlobKey::named_by(&stored.body)
}

#[test]
fn a_link_made_at_publish_is_replaced_when_the_delivery_is_sent_three_days_later() {
    with_blobs(|world, _| async move {
        let subscription = world.subscribe("a", "person.*").await;
        world.transport.script(&url("a"), [Reply::retry_after(503, "60")]);
        let Published { id, .. } = world.esl.publish(large(2000)).await.unwrap();
        let first = reference(&sent(&world, 1).await);
        let prefix = format!("https://events.example.com/api/v1/blobs/{id}?exp=");
        assert!(first.uri.starts_with(&prefix), "{}", first.uri);
        // 14:32 and a day, rounded up to the hour.
        assert_eq!(first.expires_at.to_string(), "2024-01-16T15:00:00.000Z");
        assert_eq!(open(&world, id, &first.uri).await, Ok(ORGANIZATION));

        let again = reference(&sent(&world, 2).await);
        assert_eq!(again, first, "a retry soon after has the same bytes");
        world.until_delivered(&subscription, 1).await;
        world.transport.script(&url("a"), [Reply::Hang]);
        let mut pause = esl_core::SubscriptionUpdate::default();
        pause.active = Some(false);
        world.esl.update_subscription(ORGANIZATION, subscription.id, pause).await.unwrap();
        let Published { id, .. } = world.esl.publish(large(2000)).await.unwrap();
        world.clock.advance(72 * HOUR);
        let mut resume = esl_core::SubscriptionUpdate::default();
        resume.active = Some(true);
        world.esl.update_subscription(ORGANIZATION, subscription.id, resume).await.unwrap();
        let late = reference(&sent(&world, 3).await);
        let now = world.esl.now();
        assert!(late.expires_at.since(now) >= 12 * HOUR, "{} at {now}", late.expires_at);
        assert!(open(&world, id, &late.uri).await.is_ok());
        world.clock.advance(late.expires_at.since(now));
        assert_eq!(open(&world, id, &late.uri).await, Err(LinkError::Expired));
    });
}

#[test]
fn what_is_signed_is_what_is_sent_and_the_stored_event_names_the_blob_in_place_of_a_link() {
    with_blobs(|world, blobs| async move {
        let subscription = world.subscribe("a", "person.*").await;
        let Published { id, .. } = world.esl.publish(large(2000)).await.unwrap();
        let sent = sent(&world, 1).await;
        let verifier = esl_core::Verifier::standard([subscription.secret.clone()]);
        let header = |name: &str| sent.header(name);
        verifier.verify(header, &sent.outbound.body, world.esl.now()).unwrap();
        let stored = world.esl.storage().event(ORGANIZATION, id).await.unwrap().unwrap();
        assert!(!String::from_utf8_lossy(&stored.body).contains("https://"));
        assert_eq!(all(&blobs).await, [named(&world, id).await.unwrap()]);
        assert_eq!(world.esl.envelope(ORGANIZATION, &stored), sent.outbound.body);
        let name = named(&world, id).await.unwrap().put.to_string();
        assert!(!String::from_utf8_lossy(&sent.outbound.body).contains(&name));
        assert!(sent.outbound.body.len() <= BYTES_MAX);
    });
}

#[test]
fn changes_that_do_not_fit_either_are_left_out_and_kept() {
    with_blobs(|world, _| async move {
        world.subscribe("a", "person.*").await;
        let changes = format!(r#"{{"text":{{"old":"{}"}}}}"#, "y".repeat(3000));
        let event = large(2000).with_changes(serde_json::from_str(&changes).unwrap());
        let Published { id, .. } = world.esl.publish(event).await.unwrap();
        let body: serde_json::Value =
            serde_json::from_slice(&sent(&world, 1).await.outbound.body).unwrap();
        assert!(body.get("changes").is_none() && body.get("data_ref").is_some());
        let stored = world.esl.storage().event(ORGANIZATION, id).await.unwrap().unwrap();
        assert_eq!(stored.changes.as_deref(), Some(changes.as_bytes()));
    });
}

#[test]
fn blobs_go_with_their_events_and_those_that_no_event_names_after_a_day() {
    with_blobs(|world, blobs| async move {
        world.subscribe("a", "person.*").await;
        let Published { id, .. } = world.esl.publish(large(2000)).await.unwrap();
        let Published { id: kept, .. } = world.esl.publish(large(2000)).await.unwrap();
        let put = PutId::from_bits(9);
        let orphan = BlobKey { event: EventId::from_bytes([9; 16]), put, ..KEY };
        blobs.put(orphan, bytes::Bytes::from_static(b"1")).await.unwrap();
        world.esl.erase_event(ORGANIZATION, id).await.unwrap();
        let left = async || all(&blobs).await.iter().map(|blob| blob.event).collect::<Vec<_>>();
        let mut both = vec![kept, orphan.event];
        both.sort_unstable();
        assert_eq!(left().await, both);
        for hour in 1..=23 {
            world.clock.advance(HOUR);
            world.settle_down().await;
            assert_eq!(left().await, both, "{hour} h are no day");
        }
        world.until(|| async { (left().await == [kept]).then_some(()) }).await;
        world.clock.advance(Duration::from_secs(30 * 24 * 60 * 60));
        world.until(|| async { left().await.is_empty().then_some(()) }).await;
        let found = world.storage.organizations_of_event(kept).await.unwrap();
        assert!(found.is_empty());
    });
}

#[test]
fn what_is_published_again_or_refused_leaves_the_blob_of_the_event_alone() {
    with_blobs(|world, blobs| async move {
        world.esl.publish(large(2000).with_id(KEY.event)).await.unwrap();
        let first = named(&world, KEY.event).await.unwrap();
        assert_eq!(all(&blobs).await, [first]);

        world.esl.publish(large(2000).with_id(KEY.event)).await.unwrap();
        assert_eq!(all(&blobs).await, [first], "a repetition leaves nothing of its own");
        let refused = world.esl.publish(large(2001).with_id(KEY.event)).await;
        assert!(matches!(refused, Err(PublishError::EventConflict(_))), "{refused:?}");
        assert_eq!(all(&blobs).await, [first], "nor does what is refused");
        let twice = vec![large(2000).with_id(KEY.event), large(2000).with_id(KEY.event)];
        world.esl.publish_batch(ORGANIZATION, twice, None).await.unwrap();
        assert_eq!(all(&blobs).await, [first]);
        let unsendable = large(1).with_changes(serde_json::from_str("1").unwrap());
        let mut unsendable = unsendable;
        unsendable.metadata.source = Some("x".repeat(3000));
        let batch = world.esl.publish_batch(ORGANIZATION, vec![large(2000), unsendable], None);
        let refused = batch.await;
        assert!(matches!(refused, Err(PublishError::TooLarge { .. })), "{refused:?}");
        assert_eq!(all(&blobs).await, [first], "nor what came before it in its batch");
        assert_eq!(named(&world, KEY.event).await, Some(first));
    });
}

#[test]
fn a_repetition_under_a_key_leaves_no_blob() {
    with_blobs(|world, blobs| async move {
        let publish = async |text_bytes, fingerprint| {
            let key = Idempotency { key: "k".into(), fingerprint: [fingerprint; 32] };
            let events = vec![large(text_bytes)];
            world.esl.publish_batch(ORGANIZATION, events, Some(key)).await
        };
        let id = publish(2000, 1).await.unwrap()[0].id;
        let first = named(&world, id).await.unwrap();
        assert_eq!(publish(2000, 1).await.unwrap()[0].id, id);
        assert!(matches!(publish(3000, 2).await, Err(PublishError::IdempotencyConflict)));
        assert_eq!(all(&blobs).await, [first]);
    });
}

#[test]
fn what_may_have_been_committed_keeps_its_blob() {
    with_blobs(|world, blobs| async move {
        world.esl.shutdown().await;
        let unknown = world.esl.publish(large(2000)).await;
        assert!(matches!(unknown, Err(PublishError::Stopped)), "{unknown:?}");
        assert_eq!(all(&blobs).await.len(), 1);
    });
}

#[test]
fn a_transaction_that_is_rolled_back_leaves_the_blob_of_the_event_alone() {
    with_blobs(|world, blobs| async move {
        world.esl.publish(large(2000).with_id(KEY.event)).await.unwrap();
        let first = named(&world, KEY.event).await.unwrap();
        let rolled_back = world.esl.prepare(large(2001).with_id(KEY.event)).await.unwrap();
        assert_eq!(all(&blobs).await.len(), 2);
        drop(rolled_back);
        world.clock.advance(49 * HOUR);
        world.until(async || (all(&blobs).await == [first]).then_some(())).await;
    });
}

#[test]
fn what_is_dropped_from_the_intake_leaves_no_blob() {
    with_blobs(|world, blobs| async move {
        let publisher = Esl::publisher(world.storage.clone())
            .with_sizing(BYTES_MAX * 2, Some(Arc::new(blobs.clone())));
        world.esl.publish(large(2000).with_id(KEY.event)).await.unwrap();
        let first = named(&world, KEY.event).await.unwrap();
        publisher.publish(large(2001).with_id(KEY.event)).await.unwrap();
        let second = publisher.publish(large(2002)).await.unwrap();
        let kept = world
            .until(async || {
                let stored = world.storage.event(ORGANIZATION, second).await.unwrap();
                stored.and_then(|stored| BlobKey::named_by(&stored.body))
            })
            .await;
        let mut both = [first, kept];
        both.sort_unstable();
        assert_eq!(all(&blobs).await, both);
        let envelope = world.storage.event(ORGANIZATION, second).await.unwrap().unwrap();
        let envelope = world.esl.envelope(ORGANIZATION, &envelope);
        assert!(String::from_utf8_lossy(&envelope).contains("https://events.example.com/"));
    });
}

#[test]
fn an_event_under_an_id_that_is_free_again_has_a_blob_of_its_own() {
    with_blobs(|world, blobs| async move {
        world.esl.publish(large(2000).with_id(KEY.event)).await.unwrap();
        let first = named(&world, KEY.event).await.unwrap();
        world.clock.advance(Duration::from_secs(31 * 24 * 60 * 60));
        world.until(async || all(&blobs).await.is_empty().then_some(())).await;
        world.esl.publish(large(2000).with_id(KEY.event)).await.unwrap();
        let second = named(&world, KEY.event).await.unwrap();
        // Somebody who is late removes what the old envelope named.
        blobs.delete(first).await.unwrap();
        assert_eq!(all(&blobs).await, [second]);
    });
}

#[test]
fn what_is_published_again_after_it_was_erased_does_not_come_back() {
    with_blobs(|world, blobs| async move {
        world.esl.publish(large(2000).with_id(KEY.event)).await.unwrap();
        world.esl.erase_event(ORGANIZATION, KEY.event).await.unwrap();
        assert!(all(&blobs).await.is_empty());
        world.esl.publish(large(2000).with_id(KEY.event)).await.unwrap();
        assert!(all(&blobs).await.is_empty());
        // Erasing it once more takes what an error may have left, and nothing else.
        let neighbours = [2, 4].map(|id| BlobKey { event: EventId::from_bytes([id; 16]), ..KEY });
        for key in [neighbours[0], KEY, neighbours[1]] {
            blobs.put(key, bytes::Bytes::from_static(b"1")).await.unwrap();
        }
        assert!(world.esl.erase_event(ORGANIZATION, KEY.event).await.unwrap().before);
        assert_eq!(all(&blobs).await, neighbours);
    });
}

#[test]
fn an_envelope_is_measured_with_the_link_that_is_sent() {
    with_blobs(|world, _| async move {
        world.subscribe("a", "person.*").await;
        let mut longest = 0;
        for (count, text_bytes) in (1..).zip(100..300) {
            let changes = format!("\"{}\"", "y".repeat(text_bytes));
            let event = large(2000).with_changes(serde_json::from_str(&changes).unwrap());
            world.esl.publish(event).await.unwrap();
            let body = sent(&world, count).await.outbound.body;
            assert!(body.len() <= BYTES_MAX, "{} with {text_bytes}", body.len());
            longest = longest.max(body.len());
        }
        // A link is taken to be some bytes longer than this one.
        assert!(longest > BYTES_MAX - 50, "{longest}");
    });
}

#[test]
fn a_store_that_is_another_installations_is_not_swept() {
    with_blobs(|world, blobs| async move {
        let Published { id, .. } = world.esl.publish(large(2000)).await.unwrap();
        let kept = named(&world, id).await.unwrap();
        world.settle_down().await;
        world.esl.shutdown().await;
        // An engine on an empty storage points to the same store by mistake.
        let empty = esl_core::MemoryStorage::with_clock(Arc::new(world.clock.clone()));
        let beside = crate::world::engine(7, &empty, &world.clock, &world.transport);
        let beside = beside.blobs(blobs.clone()).build().await.unwrap();
        blobs.put(KEY, bytes::Bytes::from_static(b"1")).await.unwrap();
        let mut both = [kept, KEY];
        both.sort_unstable();
        for _ in 0..60 {
            world.clock.advance(HOUR);
            world.settle_down().await;
            assert_eq!(all(&blobs).await, both);
        }
        beside.shutdown().await;
        // Whose it is, it is still, with another engine over the same storage.
        let again = crate::world::engine(8, &world.storage, &world.clock, &world.transport);
        let again = again.blobs(blobs.clone()).build().await.unwrap();
        for _ in 0..30 {
            world.clock.advance(HOUR);
            world.settle_down().await;
        }
        assert_eq!(all(&blobs).await, [kept]);
        again.shutdown().await;
    });
}

#[test]
fn the_first_sweep_comes_an_hour_after_the_start() {
    with_blobs(|world, blobs| async move {
        blobs.put(KEY, bytes::Bytes::from_static(b"1")).await.unwrap();
        world.settle_down().await;
        // Started again every now and then, a server sweeps all the same.
        world.esl.shutdown().await;
        world.clock.advance(24 * HOUR);
        let again = crate::world::engine(8, &world.storage, &world.clock, &world.transport);
        let again = again.blobs(blobs.clone()).build().await.unwrap();
        world.settle_down().await;
        world.clock.advance(HOUR - Duration::from_secs(1));
        world.settle_down().await;
        assert_eq!(all(&blobs).await, [KEY]);
        world.clock.advance(Duration::from_secs(1));
        world.settle_down().await;
        assert_eq!(all(&blobs).await, []);
        // And then every day.
        blobs.put(KEY, bytes::Bytes::from_static(b"1")).await.unwrap();
        for _ in 0..23 {
            world.clock.advance(HOUR);
            world.settle_down().await;
        }
        assert_eq!(all(&blobs).await, [KEY]);
        world.until(async || all(&blobs).await.is_empty().then_some(())).await;
        again.shutdown().await;
    });
}

#[test]
fn a_link_of_another_engine_opens_here() {
    with_blobs(|world, blobs| async move {
        world.subscribe("a", "person.*").await;
        let Published { id, .. } = world.esl.publish(large(2000)).await.unwrap();
        let mine = reference(&sent(&world, 1).await);
        // After a week the other engine begins with a new key, of which this one does not know yet.
        world.clock.advance(Duration::from_secs(8 * 24 * 60 * 60));
        let other = crate::world::engine(7, &world.storage, &world.clock, &world.transport)
            .blobs(blobs)
            .payload_bytes_max(BYTES_MAX)
            .build()
            .await
            .unwrap();
        let stored = other.storage().event(ORGANIZATION, id).await.unwrap().unwrap();
        let envelope: serde_json::Value =
            serde_json::from_slice(&other.envelope(ORGANIZATION, &stored)).unwrap();
        let theirs = envelope["data_ref"]["uri"].as_str().unwrap().to_owned();
        assert_ne!(theirs, mine.uri);
        assert!(open(&world, id, &theirs).await.is_ok());
        assert_eq!(open(&world, id, &mine.uri).await, Err(LinkError::Expired));
        assert!(Timestamp::EPOCH < world.esl.now());
        other.shutdown().await;
    });
}
