//! Data that the blob store does not have although an event names it.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use axum::{
    body::Bytes,
    http::{Method, StatusCode},
};
use esl_core::{
    BlobError, BlobKey, BlobPages, BlobStore, BlobStream, Esl, InstallationId, MemoryBlobStore,
    OrganizationId, Timestamp,
};
use esl_http::api::{self, ApiConfig};
use serde_json::json;

use crate::{
    blobs::{link, only_key, publish, world_with},
    log::Log,
    world::World,
};

#[tokio::test]
async fn what_the_store_has_lost_is_a_fault_however_it_is_asked_for() {
    let store = MemoryBlobStore::new();
    let world = world_with(store.clone(), ApiConfig::default()).await;
    let event = publish(&world, &json!({ "text": "x".repeat(5000) })).await;
    store.delete(only_key(&store).await).await.expect("the store works");
    let link = link(&event);
    for method in [Method::GET, Method::HEAD] {
        for (name, value) in [
            ("accept", "*/*"),
            ("if-none-match", "*"),
            ("if-match", "\"other\""),
            ("range", "bytes=0-9"),
            ("range", "bytes=9999-"),
        ] {
            let call = world.anonymous(method.clone(), &link).header(name, value);
            let status = call.send().await.status;
            assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{method} {name}: {value}");
        }
    }
}

#[tokio::test]
async fn the_operator_is_told_which_data_the_store_has_lost_and_the_reader_that_it_has() {
    let store = MemoryBlobStore::new();
    let world = world_with(store.clone(), ApiConfig::default()).await;
    let event = publish(&world, &json!({ "text": "x".repeat(5000) })).await;
    let key = only_key(&store).await;
    store.delete(key).await.expect("the store works");
    let log = Log::default();
    let _guard = log.listen();
    let uri = format!("/api/v1/blobs/{}", event["id"].as_str().expect("an id"));
    let reply = world.get(&uri).send().await;
    assert_eq!(
        reply.body,
        json!({
            "type": "about:blank",
            "title": "Internal Server Error",
            "status": 500,
            "code": "blob_missing",
            "detail": "there is such an event, but its data is not in the store for large payloads",
        })
    );
    let lines = log.lines();
    let errors: Vec<_> = lines.iter().filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(errors.len(), 1, "{lines:?}");
    let error = errors[0]["error"].as_str().expect("what is wrong");
    let named = format!("the data of event {} is not in the store: {key}", key.event);
    assert!(error.contains(&named), "{error}");

    // Without any store, it is not there either.
    let none = Esl::builder(world.storage.clone())
        .clock(Arc::new(world.clock.clone()))
        .build()
        .await
        .expect("an engine");
    let world =
        World { router: api::router(none.clone(), ApiConfig::default()), esl: none, ..world };
    assert_eq!(world.get(&uri).send().await.body["code"], "blob_missing");
}

#[tokio::test]
async fn what_is_erased_while_it_is_read_is_not_said_to_be_lost() {
    let store = ErasingStore::default();
    let world = world_with(store.clone(), ApiConfig::default()).await;
    let event = publish(&world, &json!({ "text": "x".repeat(5000) })).await;
    *store.erasing.lock().expect("no panic") = Some((world.esl.clone(), world.organization));
    let uri = format!("/api/v1/blobs/{}", event["id"].as_str().expect("an id"));
    let reply = world.get(&uri).send().await;
    assert_eq!((reply.status, &reply.body["code"]), (StatusCode::NOT_FOUND, &json!("not_found")));
}

/// A store in memory. Whoever reads an event's data finds that it was erased at that moment, once it
/// is said by whom.
#[derive(Debug, Clone, Default)]
struct ErasingStore {
    inner: MemoryBlobStore,
    erasing: Arc<Mutex<Option<(Esl, OrganizationId)>>>,
}

#[async_trait]
impl BlobStore for ErasingStore {
    async fn put(&self, key: BlobKey, blob: Bytes) -> Result<(), BlobError> {
        self.inner.put(key, blob).await
    }

    async fn read(&self, key: BlobKey, range: Range<u64>) -> Result<Option<BlobStream>, BlobError> {
        let erasing = self.erasing.lock().expect("no panic").take();
        if let Some((esl, organization)) = erasing {
            esl.erase_event(organization, key.event).await.expect("it is erased");
        }
        self.inner.read(key, range).await
    }

    async fn delete(&self, key: BlobKey) -> Result<(), BlobError> {
        self.inner.delete(key).await
    }

    fn list(&self, after: Option<BlobKey>) -> BlobPages {
        self.inner.list(after)
    }

    async fn mark(&self, installation: InstallationId) -> Result<InstallationId, BlobError> {
        self.inner.mark(installation).await
    }

    async fn presigned(
        &self,
        key: BlobKey,
        expires_at: Timestamp,
    ) -> Result<Option<String>, BlobError> {
        self.inner.presigned(key, expires_at).await
    }
}
