//! Erasing an event whose data is in a blob store that is away.

use std::{
    num::NonZeroU32,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use esl_core::{
    BlobError, BlobKey, BlobPages, BlobStore, BlobStream, DeliveryState, InstallationId,
    MemoryBlobStore, NewEvent, SubscriptionOptions, Timestamp, storage::StorageErrorKind,
    testing::Reply,
};

use crate::blobs::all;
use crate::world::{ORGANIZATION, run_with, url};

/// A store in memory that deletes nothing while it is away.
#[derive(Debug, Clone, Default)]
struct Away {
    blobs: MemoryBlobStore,
    is_away: Arc<AtomicBool>,
}

#[async_trait]
impl BlobStore for Away {
    async fn put(&self, key: BlobKey, blob: Bytes) -> Result<(), BlobError> {
        self.blobs.put(key, blob).await
    }

    async fn read(&self, key: BlobKey, range: Range<u64>) -> Result<Option<BlobStream>, BlobError> {
        self.blobs.read(key, range).await
    }

    async fn delete(&self, key: BlobKey) -> Result<(), BlobError> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(BlobError::new("delete a blob", "it is away"));
        }
        self.blobs.delete(key).await
    }

    fn list(&self, after: Option<BlobKey>) -> BlobPages {
        self.blobs.list(after)
    }

    async fn mark(&self, installation: InstallationId) -> Result<InstallationId, BlobError> {
        self.blobs.mark(installation).await
    }

    async fn presigned(
        &self,
        key: BlobKey,
        expires_at: Timestamp,
    ) -> Result<Option<String>, BlobError> {
        self.blobs.presigned(key, expires_at).await
    }
}

#[test]
fn an_erased_event_is_not_sent_although_its_blob_could_not_be_deleted() {
    let store = Away::default();
    let blobs = store.clone();
    run_with(
        |builder| builder.payload_bytes_max(700).blobs(blobs),
        |world| async move {
            let one = NonZeroU32::new(1).unwrap();
            let options = SubscriptionOptions::default().with_max_in_flight(one);
            let subscription = world.subscribe_with("a", "*", options).await;
            // The first is under way, and the other waits behind it, in memory.
            world.transport.script(&url("a"), [Reply::Hang]);
            world.publish("person.created", 1).await;
            let data = serde_json::json!({ "n": 2, "text": "x".repeat(2000) });
            let event_type = "person.updated".parse().unwrap();
            let large = NewEvent::new(ORGANIZATION, event_type, &data).unwrap();
            let erased = world.esl.publish(large).await.unwrap();
            let last = world.publish("person.deleted", 3).await;

            store.is_away.store(true, Ordering::SeqCst);
            let failed = world.esl.erase_event(ORGANIZATION, erased.id).await.unwrap_err();
            assert_eq!(failed.kind(), StorageErrorKind::Unavailable);
            assert_eq!(all(&store.blobs).await.len(), 1);
            world.until_state(&subscription, last, DeliveryState::Delivered).await;
            let sent = world.transport.sightings();
            let bodies = sent.iter().map(|sent| String::from_utf8_lossy(&sent.outbound.body));
            let sent: Vec<_> = bodies.filter(|body| body.contains("person.updated")).collect();
            assert_eq!(sent, [""; 0], "what it said is nobody's any more");

            store.is_away.store(false, Ordering::SeqCst);
            assert!(world.esl.erase_event(ORGANIZATION, erased.id).await.unwrap().before);
            assert!(all(&store.blobs).await.is_empty());
        },
    );
}
