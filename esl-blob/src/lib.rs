//! Where ESL keeps the data of events that are too large to go inline: a folder, or an object store.
//!
//! [`open`] chooses by URL:
//!
//! | URL | keeps blobs | feature |
//! |---|---|---|
//! | `file:///var/lib/esl/blobs` | in a [folder](FolderBlobStore), durable on return | always |
//! | `memory:` | in memory, until the process ends | always |
//! | `s3://bucket/prefix` | in Amazon S3, or what speaks its protocol | `s3` |
//! | `gs://bucket/prefix` | in Google Cloud Storage | `gcs` |
//! | `az://container/prefix` | in Azure Blob Storage | `azure` |
//!
//! Credentials and endpoints of the last three come from the variables that their own tools read
//! (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME` …).
//!
//! A blob's name is `<organization>/<event>-<put>`, the first two as they are shown everywhere, and 32
//! hex digits that tell what was put for one event from what was put for another under the same id.
//!
//! A store belongs to one database: `esl-installation` beside the blobs says to which. A second one that
//! is pointed to it by mistake sweeps nothing there.
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # let url = format!("file://{}", folder.path().display());
//! let blobs = esl_blob::open(&url)?; // for EslBuilder::blobs_in
//! # let _ = blobs;
//! assert!(esl_blob::open("ftp://nowhere").is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A folder is written by our own code and not by the library that speaks to the object stores,
//! because a blob must be durable before its event is: the file and its folder are synced.

#[cfg(feature = "cloud")]
mod cloud;
mod folder;

use std::{path::PathBuf, sync::Arc};

use esl_core::{BlobStore, InstallationId, MemoryBlobStore};
use url::Url;

pub use self::folder::FolderBlobStore;

/// Why a URL names no blob store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It is not a URL, or of a kind that is not known.
    #[error(
        "expected a URL that begins with file:, memory:, s3:, gs: or az:, \
         such as file:///var/lib/esl/blobs"
    )]
    Url,
    /// This build has no such store.
    #[error("this build has no {0} blob stores (feature `{1}`)")]
    NotBuiltIn(&'static str, &'static str),
    /// The store could not be set up; nothing was tried over a network.
    #[error("the blob store could not be set up")]
    SetUp(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The blob store that a URL names.
///
/// # Errors
/// See [`OpenError`]. A folder is made if it is not there; whether an object store can be reached
/// shows at the first use.
pub fn open(url: &str) -> Result<Arc<dyn BlobStore>, OpenError> {
    if url == "memory:" {
        return Ok(Arc::new(MemoryBlobStore::new()));
    }
    let url = Url::parse(url).map_err(|_| OpenError::Url)?;
    match url.scheme() {
        "file" => {
            let path: PathBuf = url.to_file_path().map_err(|()| OpenError::Url)?;
            let folder = FolderBlobStore::open(path);
            Ok(Arc::new(folder.map_err(|error| OpenError::SetUp(Box::new(error)))?))
        }
        #[cfg(feature = "s3")]
        "s3" => cloud::s3(&url),
        #[cfg(not(feature = "s3"))]
        "s3" => Err(OpenError::NotBuiltIn("s3:", "s3")),
        #[cfg(feature = "gcs")]
        "gs" => cloud::gcs(&url),
        #[cfg(not(feature = "gcs"))]
        "gs" => Err(OpenError::NotBuiltIn("gs:", "gcs")),
        #[cfg(feature = "azure")]
        "az" => cloud::azure(&url),
        #[cfg(not(feature = "azure"))]
        "az" => Err(OpenError::NotBuiltIn("az:", "azure")),
        _ => Err(OpenError::Url),
    }
}

fn read_marker(bytes: &[u8]) -> Result<InstallationId, String> {
    let text = std::str::from_utf8(bytes).unwrap_or_default().trim_end();
    text.parse().map_err(|error| format!("`{MARKER}` in the store holds something else: {error}"))
}

/// The name of what says whose the store is: the installation's id, and a line's end.
const MARKER: &str = "esl-installation";
/// What is longer is no such thing.
const MARKER_BYTES_MAX: u64 = 64;
