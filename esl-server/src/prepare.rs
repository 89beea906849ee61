//! What a server is put together from. `serve` begins by looking at all of it, and `check` does
//! nothing else, so what the one needs the other looks at.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::Arc,
};

use anyhow::{Context, bail};
use esl_blob::FolderBlobStore;
use esl_core::{BlobStore, Clock};
use esl_http::{HttpTransport, HttpTransportError};
use url::Url;

use crate::{
    bootstrap::{self, Bootstrapped},
    config::{Config, DatabaseUrl},
    database::{self, Opened},
    open_files::Shares,
};

/// The parts as they are before a start. What is not there yet, and can be made, is `None`, and so is a
/// blob store that nobody has named.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) transport: anyhow::Result<HttpTransport>,
    pub(crate) blobs: anyhow::Result<Option<Arc<dyn BlobStore>>>,
    pub(crate) database: anyhow::Result<Option<Opened>>,
    /// The client of `ESL_BOOTSTRAP_CLIENT`.
    pub(crate) client: anyhow::Result<Option<Bootstrapped>>,
}

/// The parts, all there.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) transport: HttpTransport,
    pub(crate) blobs: Option<Arc<dyn BlobStore>>,
    pub(crate) storage: Opened,
}

impl Found {
    /// Looks at everything. An older database's tables are brought up to date; nothing else is
    /// changed.
    pub(crate) async fn look(config: &Config, shares: &Shares, clock: Arc<dyn Clock>) -> Self {
        let database = look_at_database(config, clock).await;
        let client = match (&database, &config.bootstrap_client) {
            (Ok(Some(storage)), Some(wanted)) => bootstrap::look(&**storage, wanted).await,
            _ => Ok(None),
        };
        let transport = transport(config, shares).context("could not set up the delivery");
        Self { transport, blobs: look_at_blobs(config), database, client }
    }

    /// Makes what is missing.
    ///
    /// # Errors
    /// The first thing that is wrong; then nothing has been made.
    pub(crate) async fn complete(
        self,
        config: &Config,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Parts> {
        let Self { transport, blobs, database, client } = self;
        let (transport, database, blobs) = (transport?, database?, blobs?);
        client?;
        let blobs = match blobs {
            Some(blobs) => Some(blobs),
            None => blob_store(config)?,
        };
        let storage = match database {
            Some(storage) => storage,
            None => database::open(config, clock).await?,
        };
        Ok(Parts { transport, blobs, storage })
    }
}

fn transport(config: &Config, shares: &Shares) -> Result<HttpTransport, HttpTransportError> {
    let mut builder = HttpTransport::builder()
        .with_policy(config.callbacks())
        .with_kept_connections_max(shares.kept);
    if let Some(proxy) = &config.egress_proxy {
        builder = builder.with_proxy(proxy.clone());
    }
    if let Some(roots) = &config.root_certificates {
        builder = builder.with_root_certificates_pem(&roots.pem)?;
    }
    builder.build()
}

async fn look_at_database(
    config: &Config,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Option<Opened>> {
    let opened = match &config.database {
        DatabaseUrl::Sqlite(path) if !path.exists() => {
            demand_room(path).with_context(|| {
                format!("the database {} (ESL_DATABASE_URL) cannot be made", config.database)
            })?;
            return Ok(None);
        }
        DatabaseUrl::Sqlite(path) => {
            database::open(config, clock).await.map_err(|error| match demand_room(path) {
                // SQLite does not say why it could not open a file.
                Err(reason) if database::is_unavailable(&error) => {
                    reason.context(database::cannot_be_used(config))
                }
                _ => error,
            })?
        }
        DatabaseUrl::Postgres(_) if !database::is_there(config).await? => return Ok(None),
        DatabaseUrl::Postgres(_) => database::open(config, clock).await?,
    };
    opened.check().await.map_err(|error| database::unusable(config, error))?;
    Ok(Some(opened))
}

/// Whether a file can be made here, whose folder has to be there.
fn demand_room(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    if !folder.is_dir() {
        bail!("the folder {} does not exist", database::absolute(folder));
    }
    Ok(try_folder(folder)?)
}

fn look_at_blobs(config: &Config) -> anyhow::Result<Option<Arc<dyn BlobStore>>> {
    match blob_folder(config) {
        Some(folder) if !folder.is_dir() => {
            demand_makeable(&folder).with_context(|| unusable(&folder))?;
            Ok(None)
        }
        _ => blob_store(config),
    }
}

/// Where large payloads go: what `ESL_BLOB_STORAGE_URL` names, or a folder beside a database that is a file.
/// Nowhere, if there is neither.
pub(crate) fn blob_store(config: &Config) -> anyhow::Result<Option<Arc<dyn BlobStore>>> {
    if let Some(folder) = blob_folder(config) {
        let opened = FolderBlobStore::open(&folder).with_context(|| unusable(&folder))?;
        return Ok(Some(Arc::new(opened)));
    }
    let opened = config.blob_storage.as_deref().map(esl_blob::open).transpose();
    opened.context("ESL_BLOB_STORAGE_URL cannot be used")
}

/// The folder of large payloads, if they go to one.
pub(crate) fn blob_folder(config: &Config) -> Option<PathBuf> {
    match (&config.blob_storage, &config.database) {
        (Some(url), _) => {
            let url = Url::parse(url).ok().filter(|url| url.scheme() == "file")?;
            url.to_file_path().ok()
        }
        (None, DatabaseUrl::Sqlite(file)) => {
            let mut folder = file.clone().into_os_string();
            folder.push(".blobs");
            Some(folder.into())
        }
        (None, DatabaseUrl::Postgres(_)) => None,
    }
}

fn unusable(folder: &Path) -> String {
    let shown = database::absolute(folder);
    format!("the folder {shown} for large payloads cannot be used (ESL_BLOB_STORAGE_URL)")
}

/// Whether a folder that is not there can be made: what is there above it has to be one, too.
fn demand_makeable(folder: &Path) -> anyhow::Result<()> {
    let folder = std::path::absolute(folder)?;
    let there = folder.ancestors().find(|above| above.exists()).unwrap_or(&folder);
    if !there.is_dir() {
        bail!("{} is not a folder", there.display());
    }
    try_folder(there).with_context(|| format!("nothing can be made in {}", there.display()))
}

/// Whether files can be made in a folder, which only making one tells.
fn try_folder(folder: &Path) -> io::Result<()> {
    let file = folder.join(format!(".esl-server-{}.try", process::id()));
    fs::File::create_new(&file)?;
    fs::remove_file(&file)
}
