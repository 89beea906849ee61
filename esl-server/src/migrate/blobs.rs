//! Large payloads: they are not in the database, and stay where they are, or have been copied by whoever moves.

use std::{collections::HashSet, future::poll_fn, path::Path};

use anyhow::{Context, bail};
use esl_core::{BlobKey, BlobStore};
use esl_sqlite::Export;

use crate::{config::Config, database, prepare};

/// Refuses to move events whose data a server on the new database would not find.
pub(super) async fn demand_all(
    config: &Config,
    file: &Path,
    export: &Export,
) -> anyhow::Result<()> {
    let named = export.blobs().await;
    let mut missing: HashSet<BlobKey> =
        named.context("the events of the file cannot be read")?.into_iter().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let count = missing.len();
    let mut folder = file.to_owned().into_os_string();
    folder.push(".blobs");
    let folder = database::absolute(Path::new(&folder));
    let Some(store) = prepare::blob_store(config)? else {
        bail!(
            "{count} events have large payloads, which are not in the file: name the store that holds them, \
             or a copy of it, in ESL_BLOB_STORAGE_URL (file://{folder}, unless another one was set)"
        );
    };
    remove_stored(&*store, &mut missing).await.context("the blob store cannot be read")?;
    if let Some(first) = missing.iter().min() {
        bail!(
            "of {count} large payloads {} are not in the store of ESL_BLOB_STORAGE_URL, {first} for instance: \
             copy them there under the same names (they are in {folder}, unless another store was set)",
            missing.len()
        );
    }
    Ok(())
}

async fn remove_stored(
    store: &dyn BlobStore,
    missing: &mut HashSet<BlobKey>,
) -> anyhow::Result<()> {
    let mut pages = store.list(None);
    while let Some(page) = poll_fn(|context| pages.as_mut().poll_next(context)).await {
        for blob in page? {
            missing.remove(&blob.key);
        }
    }
    Ok(())
}
