//! Blobs in an object store: `<prefix>/<organization>/<event>-<put>`.

use std::{fmt, future::ready, ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use esl_core::{
    BlobError, BlobKey, BlobPages, BlobStore, BlobStream, Clock, InstallationId, StoredBlob,
    SystemClock, Timestamp,
};
use futures_util::{TryStreamExt, stream::TryChunksError};
use object_store::{
    Attribute, Attributes, Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode,
    RetryConfig, path::Path, signer::Signer,
};
use url::Url;

use crate::{MARKER, MARKER_BYTES_MAX, OpenError, read_marker};

/// A store, with what makes links to it.
struct CloudBlobStore<S> {
    store: Arc<S>,
    prefix: Path,
}

#[cfg(feature = "s3")]
pub(crate) fn s3(url: &Url) -> Result<Arc<dyn BlobStore>, OpenError> {
    let builder = object_store::aws::AmazonS3Builder::from_env()
        .with_bucket_name(bucket(url)?)
        .with_retry(retry());
    build(builder.build(), url)
}

#[cfg(feature = "gcs")]
pub(crate) fn gcs(url: &Url) -> Result<Arc<dyn BlobStore>, OpenError> {
    let builder = object_store::gcp::GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket(url)?)
        .with_retry(retry());
    build(builder.build(), url)
}

#[cfg(feature = "azure")]
pub(crate) fn azure(url: &Url) -> Result<Arc<dyn BlobStore>, OpenError> {
    let builder = object_store::azure::MicrosoftAzureBuilder::from_env()
        .with_container_name(bucket(url)?)
        .with_retry(retry());
    build(builder.build(), url)
}

fn build<S: ObjectStore + Signer>(
    store: Result<S, Error>,
    url: &Url,
) -> Result<Arc<dyn BlobStore>, OpenError> {
    let store = store.map_err(|error| OpenError::SetUp(Box::new(error)))?;
    let prefix = Path::parse(url.path().trim_matches('/')).map_err(|_| OpenError::Url)?;
    Ok(Arc::new(CloudBlobStore { store: Arc::new(store), prefix }))
}

fn bucket(url: &Url) -> Result<&str, OpenError> {
    url.host_str().filter(|host| !host.is_empty()).ok_or(OpenError::Url)
}

/// A publish waits for its blob, so a store that is away is not waited for long.
fn retry() -> RetryConfig {
    RetryConfig { max_retries: 3, retry_timeout: Duration::from_secs(15), ..RetryConfig::default() }
}

impl<S> CloudBlobStore<S> {
    fn path_of(&self, key: BlobKey) -> Path {
        key.to_string().split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }
}

impl<S: ObjectStore> CloudBlobStore<S> {
    async fn marker(&self, path: &Path) -> Result<Option<InstallationId>, BlobError> {
        let range = Some(GetRange::Bounded(0..MARKER_BYTES_MAX));
        let options = GetOptions { range, ..GetOptions::default() };
        let found = match self.store.get_opts(path, options).await {
            Ok(found) => found.bytes().await,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => Err(error),
        };
        let found = found.map_err(|error| BlobError::new(MARK, error))?;
        read_marker(&found).map(Some).map_err(|error| BlobError::new(MARK, error))
    }
}

impl<S> fmt::Debug for CloudBlobStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The store's own Debug may hold credentials.
        f.debug_struct("CloudBlobStore").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: ObjectStore + Signer> BlobStore for CloudBlobStore<S> {
    async fn put(&self, key: BlobKey, blob: Bytes) -> Result<(), BlobError> {
        // Whoever is sent on to the store itself is told there what it is.
        let attributes = Attributes::from_iter([(Attribute::ContentType, "application/json")]);
        let put = self.store.put_opts(&self.path_of(key), blob.into(), attributes.into()).await;
        put.map(drop).map_err(|error| BlobError::new("store a blob", error))
    }

    async fn read(&self, key: BlobKey, range: Range<u64>) -> Result<Option<BlobStream>, BlobError> {
        let failed = |error| BlobError::new(READ, error);
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        match self.store.get_opts(&self.path_of(key), options).await {
            Ok(found) => Ok(Some(Box::pin(found.into_stream().map_err(failed)))),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    async fn delete(&self, key: BlobKey) -> Result<(), BlobError> {
        match self.store.delete(&self.path_of(key)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(BlobError::new("delete a blob", error)),
        }
    }

    fn list(&self, after: Option<BlobKey>) -> BlobPages {
        let prefix = self.prefix.clone();
        let listed = match after {
            Some(after) => self.store.list_with_offset(Some(&self.prefix), &self.path_of(after)),
            None => self.store.list(Some(&self.prefix)),
        };
        // Object stores list in the order of names, which is that of keys.
        let blobs = listed.try_filter_map(move |object| {
            let location = object.location.as_ref();
            let name = location.strip_prefix(prefix.as_ref()).unwrap_or(location);
            let key = BlobKey::from_name(name.trim_start_matches('/'));
            let put_at = Timestamp::from_millis(object.last_modified.timestamp_millis());
            ready(Ok(key.map(|key| StoredBlob { key, put_at })))
        });
        let pages = blobs.try_chunks(PAGE);
        Box::pin(pages.map_err(|TryChunksError(_, error)| BlobError::new("list blobs", error)))
    }

    async fn mark(&self, installation: InstallationId) -> Result<InstallationId, BlobError> {
        let path = self.prefix.clone().join(MARKER);
        // Looked at first: some stores cannot put only what is absent, and there one is put by hand.
        if let Some(found) = self.marker(&path).await? {
            return Ok(found);
        }
        let text = format!("{installation}\n");
        match self.store.put_opts(&path, text.into(), PutMode::Create.into()).await {
            Ok(_) => Ok(installation),
            Err(error @ Error::AlreadyExists { .. }) => {
                self.marker(&path).await?.ok_or_else(|| BlobError::new(MARK, error))
            }
            Err(error) => Err(BlobError::new(MARK, error)),
        }
    }

    async fn presigned(
        &self,
        key: BlobKey,
        expires_at: Timestamp,
    ) -> Result<Option<String>, BlobError> {
        let lifetime = expires_at.since(SystemClock::new().utc());
        let link = self.store.signed_url(http::Method::GET, &self.path_of(key), lifetime).await;
        link.map(|link| Some(link.into())).map_err(|error| BlobError::new("sign a link", error))
    }
}

const PAGE: usize = 500;
const READ: &str = "read a blob";
const MARK: &str = "say whose it is";
