//! Large payloads over the API.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    body::Bytes,
    http::{Method, StatusCode},
};
use esl_core::{
    BlobError, BlobKey, BlobPages, BlobStore, BlobStream, Clock, Esl, InstallationId,
    MemoryBlobStore, Timestamp,
};
use esl_http::api::{self, ApiConfig};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::{
    entities,
    world::{Reply, World},
};

async fn world() -> World {
    world_with(MemoryBlobStore::new(), ApiConfig::default()).await
}

pub(crate) async fn world_with(store: impl BlobStore, config: ApiConfig) -> World {
    let world = World::new().await;
    let esl = Esl::builder(world.storage.clone())
        .clock(Arc::new(world.clock.clone()))
        .chance(Arc::new(esl_core::testing::SeededChance::new(77)))
        .blobs(store)
        .public_url("https://events.example.com/mounted")
        .payload_bytes_max(1024)
        .kinds(entities::kinds())
        .build()
        .await
        .expect("an engine");
    World { router: api::router(esl.clone(), config), esl, ..world }
}

/// Publishes what is too large; gives the event as it is read.
pub(crate) async fn publish(world: &World, data: &Value) -> Value {
    let event = json!({ "type": "person.updated", "data": data });
    let published = world.post("/api/v1/events").json(&event).send().await;
    assert_eq!(published.status, StatusCode::ACCEPTED, "{}", published.text);
    let id = published.body["id"].as_str().expect("an id");
    world.get(&format!("/api/v1/events/{id}")).send().await.body
}

/// The path and query of the link in an event.
pub(crate) fn link(event: &Value) -> String {
    let uri = event["envelope"]["data_ref"]["uri"].as_str().expect("a link");
    uri.strip_prefix("https://events.example.com/mounted").expect("the public URL").to_owned()
}

/// The blob that is in a store.
pub(crate) async fn only_key(store: &MemoryBlobStore) -> BlobKey {
    let page = store.list(None).next().await.expect("a page").expect("the store works");
    assert_eq!(page.len(), 1);
    page[0].key
}

#[tokio::test]
async fn a_blob_is_read_by_token_and_by_link() {
    let world = world().await;
    let data = json!({ "text": "x".repeat(5000) });
    let event = publish(&world, &data).await;
    let reference = &event["envelope"]["data_ref"];
    assert_eq!(reference["size_bytes"], data.to_string().len());
    let path = format!("/api/v1/blobs/{}", event["id"].as_str().expect("an id"));
    let by_token = world.get(&path).send().await;
    let by_link = world.anonymous(Method::GET, &link(&event)).send().await;
    let with_both = world.anonymous(Method::GET, &link(&event)).token("nonsense").send().await;
    for reply in [&by_token, &by_link, &with_both] {
        assert_eq!((reply.status, &reply.body), (StatusCode::OK, &data));
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        let etag = format!("\"{}\"", reference["checksum"].as_str().expect("a checksum"));
        assert_eq!(reply.header("etag"), Some(&*etag));
    }
    let head = world.call(Method::HEAD, &path).send().await;
    assert_eq!((head.status, head.text.as_str()), (StatusCode::OK, ""));
    assert_eq!(head.header("content-length"), Some(&*data.to_string().len().to_string()));
}

#[tokio::test]
async fn who_may_not_read_a_blob_does_not() {
    let world = world().await;
    let event = publish(&world, &json!({ "text": "x".repeat(5000) })).await;
    let path = format!("/api/v1/blobs/{}", event["id"].as_str().expect("an id"));
    let code = |reply: Reply| (reply.status, reply.body["code"].clone());
    let nobody = world.anonymous(Method::GET, &path).send().await;
    assert_eq!(code(nobody), (StatusCode::UNAUTHORIZED, json!("unauthorized")));
    let stranger = world.anonymous(Method::GET, &path).token(&world.stranger_token).send().await;
    assert_eq!(code(stranger), (StatusCode::NOT_FOUND, json!("not_found")));
    let link = link(&event);
    let refused = (StatusCode::FORBIDDEN, json!("link_refused"));
    for wrong in [
        link.replace("exp=", "exp=1"),
        link.replace("&sig=", "&sig=A"),
        link[..link.len() - 4].to_owned(),
        format!("{path}?exp=x&sig=y"),
        // Cut off.
        link.split_once('&').expect("two parameters").0.to_owned(),
        link.replace("exp=", "ex="),
    ] {
        let reply = world.anonymous(Method::GET, &wrong).send().await;
        assert_eq!(code(reply), refused, "{wrong}");
    }
    // As on other routes, and only once it is known that the link is genuine.
    for (more, place) in [
        ("&utm_source=mail", "parameter utm_source"),
        ("&sig=x", "parameter sig"),
        ("&exp=1", "parameter exp"),
    ] {
        let reply = world.anonymous(Method::GET, &format!("{link}{more}")).send().await;
        assert_eq!(reply.places(), [place]);
    }
    let small = publish(&world, &json!({})).await;
    world.clock.advance(Duration::from_secs(26 * 60 * 60));
    let expired = world.anonymous(Method::GET, &link).send().await;
    assert!(expired.text.contains("expired"), "{}", expired.text);
    assert_eq!(code(expired), refused);
    let path = format!("/api/v1/blobs/{}", small["id"].as_str().expect("an id"));
    let token = world.token_for("acme-client", world.organization, "events:read").await;
    let inline = world.anonymous(Method::GET, &path).token(&token).send().await;
    assert_eq!(inline.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn parts_and_versions_are_answered_as_their_rfc_says() {
    let world = world().await;
    let data = json!({ "text": "0123456789".repeat(500) });
    let text = data.to_string();
    let event = publish(&world, &data).await;
    let link = link(&event);
    let get = |name: &'static str, value: String| {
        world.anonymous(Method::GET, &link).header(name, &value).send()
    };
    let part = get("range", "bytes=0-9".into()).await;
    assert_eq!((part.status, part.text.as_str()), (StatusCode::PARTIAL_CONTENT, &text[..10]));
    let range = format!("bytes 0-9/{}", text.len());
    assert_eq!(part.header("content-range"), Some(&*range));
    let end = get("range", "bytes=-7".into()).await;
    assert_eq!(end.text, text[text.len() - 7..]);
    let beyond = get("range", format!("bytes={}-", text.len())).await;
    assert_eq!(
        (beyond.status, &beyond.body["code"]),
        (StatusCode::RANGE_NOT_SATISFIABLE, &json!("range_not_satisfiable"))
    );
    assert_eq!(beyond.header("content-type"), Some("application/problem+json"));
    assert_eq!(beyond.header("content-range"), Some(&*format!("bytes */{}", text.len())));
    let several = get("range", "bytes=0-1,5-6".into()).await;
    assert_eq!((several.status, several.text), (StatusCode::OK, text.clone()));

    let etag = part.header("etag").expect("an etag").to_owned();
    for value in [etag.clone(), format!("W/{etag}"), "*".into(), format!("\"a\", {etag}")] {
        let same = get("if-none-match", value).await;
        assert_eq!((same.status, same.text.as_str()), (StatusCode::NOT_MODIFIED, ""));
        assert_eq!(same.header("etag"), Some(&*etag));
    }
    assert_eq!(get("if-none-match", "\"other\"".into()).await.status, StatusCode::OK);
    assert_eq!(get("if-match", etag.clone()).await.status, StatusCode::OK);
    let other = get("if-match", format!("W/{etag}")).await;
    assert_eq!(
        (other.status, &other.body["code"]),
        (StatusCode::PRECONDITION_FAILED, &json!("precondition_failed"))
    );
    for (if_range, status) in
        [(etag.clone(), StatusCode::PARTIAL_CONTENT), (format!("W/{etag}"), StatusCode::OK)]
    {
        let call = world.anonymous(Method::GET, &link).header("range", "bytes=0-9");
        assert_eq!(call.header("if-range", &if_range).send().await.status, status, "{if_range}");
    }
    let head = world.anonymous(Method::HEAD, &link).header("range", "bytes=0-9").send().await;
    assert_eq!((head.status, head.header("content-range")), (StatusCode::OK, None));
    assert_eq!(head.header("content-length"), Some(&*text.len().to_string()));
}

#[tokio::test]
async fn a_reader_is_sent_on_to_a_store_that_has_links_of_its_own() {
    let store = LinkingStore::default();
    let on = ApiConfig::default().with_blob_redirect(true);
    let world = world_with(store.clone(), on).await;
    let data = json!({ "text": "x".repeat(5000) });
    let event = publish(&world, &data).await;
    let path = format!("/api/v1/blobs/{}", event["id"].as_str().expect("an id"));
    let link = link(&event);
    world.clock.advance(Duration::from_secs(7));
    let key = only_key(&store.inner).await;
    let expires_at = world.clock.utc() + Duration::from_secs(15 * 60);
    for call in [world.get(&path), world.anonymous(Method::GET, &link)] {
        // What is asked beside the link is the store's to answer.
        let reply = call.header("if-none-match", "*").header("range", "bytes=9999-").send().await;
        assert_eq!((reply.status, reply.text.as_str()), (StatusCode::FOUND, ""));
        assert_eq!(reply.header("location"), Some(LINK));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
    assert_eq!(store.asked(), [(key, expires_at); 2]);

    // The store's link is signed for GET.
    for call in [world.call(Method::HEAD, &path), world.anonymous(Method::HEAD, &link)] {
        let head = call.send().await;
        assert_eq!((head.status, head.header("location")), (StatusCode::OK, None));
        assert_eq!(head.header("content-length"), Some(&*data.to_string().len().to_string()));
    }
    for (wrong, status) in [
        (world.anonymous(Method::GET, &path), StatusCode::UNAUTHORIZED),
        (world.anonymous(Method::GET, &path).token(&world.stranger_token), StatusCode::NOT_FOUND),
        (world.anonymous(Method::GET, &link.replace("&sig=", "&sig=A")), StatusCode::FORBIDDEN),
    ] {
        let reply = wrong.send().await;
        assert_eq!((reply.status, reply.header("location")), (status, None));
    }
    assert_eq!(store.asked().len(), 2);
}

#[tokio::test]
async fn nobody_is_sent_on_unless_that_is_wanted_and_the_store_has_links() {
    let data = json!({ "text": "x".repeat(5000) });
    let on = ApiConfig::default().with_blob_redirect(true);
    let linking = LinkingStore::default();
    for world in [
        world_with(MemoryBlobStore::new(), on).await,
        world_with(linking.clone(), ApiConfig::default()).await,
    ] {
        let event = publish(&world, &data).await;
        let reply = world.anonymous(Method::GET, &link(&event)).send().await;
        assert_eq!((reply.status, &reply.body), (StatusCode::OK, &data));
    }
    assert_eq!(linking.asked(), []);
}

const LINK: &str = "https://bucket.example/blob?signed-for=GET";

/// A store with links, which notes what it was asked to make them for.
#[derive(Debug, Clone, Default)]
struct LinkingStore {
    inner: MemoryBlobStore,
    asked: Arc<Mutex<Vec<(BlobKey, Timestamp)>>>,
}

impl LinkingStore {
    fn asked(&self) -> Vec<(BlobKey, Timestamp)> {
        self.asked.lock().expect("no panic").clone()
    }
}

#[async_trait]
impl BlobStore for LinkingStore {
    async fn put(&self, key: BlobKey, blob: Bytes) -> Result<(), BlobError> {
        self.inner.put(key, blob).await
    }

    async fn read(&self, key: BlobKey, range: Range<u64>) -> Result<Option<BlobStream>, BlobError> {
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
        self.asked.lock().expect("no panic").push((key, expires_at));
        Ok(Some(LINK.to_owned()))
    }
}
