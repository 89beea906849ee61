//! Blobs as files: `<folder>/<organization>/<event>-<put>`.

mod folders;
mod listing;
mod steps;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use esl_core::{BlobError, BlobKey, BlobPages, BlobStore, BlobStream, InstallationId, Timestamp};
use tokio::task::spawn_blocking;

use self::{
    folders::{Folders, make},
    listing::{Listing, PART},
    steps::Steps,
};
use crate::{MARKER, MARKER_BYTES_MAX, read_marker};

/// Keeps blobs in a folder of the machine, readable by their owner alone.
///
/// A blob is written beside its name, synced, and then given the name, so that nobody ever sees a
/// part of it, and what was put survives a power cut.
#[derive(Debug, Clone)]
pub struct FolderBlobStore {
    folder: PathBuf,
    folders: Arc<Folders>,
}

impl FolderBlobStore {
    /// The store in this folder, which is made if it is not there.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = std::path::absolute(folder.into())?;
        if !folder.is_dir() {
            make(&folder, &mut sync_folder)?;
        }
        Ok(Self { folder, folders: Arc::default() })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder
    }

    fn path_of(&self, key: BlobKey) -> PathBuf {
        self.folder.join(key.to_string())
    }
}

#[async_trait]
impl BlobStore for FolderBlobStore {
    async fn put(&self, key: BlobKey, blob: Bytes) -> Result<(), BlobError> {
        let (path, folders) = (self.path_of(key), Arc::clone(&self.folders));
        run(PUT, move || {
            folders.ensure(path.parent().expect("it has one"), sync_folder)?;
            write(&path, &blob)
        })
        .await
    }

    async fn read(&self, key: BlobKey, range: Range<u64>) -> Result<Option<BlobStream>, BlobError> {
        let path = self.path_of(key);
        let opened = run(READ, move || match File::open(path) {
            Ok(mut file) => file
                .seek(SeekFrom::Start(range.start))
                .map(|_| Some(Rest { file, bytes: range.end.saturating_sub(range.start) })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        });
        let pieces = |rest| Box::pin(Steps::new(READ, rest, Rest::piece)) as BlobStream;
        Ok(opened.await?.map(pieces))
    }

    async fn delete(&self, key: BlobKey) -> Result<(), BlobError> {
        let path = self.path_of(key);
        run(DELETE, move || match fs::remove_file(&path) {
            Ok(()) => sync_folder(path.parent().expect("it has one")),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        })
        .await
    }

    fn list(&self, after: Option<BlobKey>) -> BlobPages {
        let listing = Listing::new(self.folder.clone(), after);
        Box::pin(Steps::new("list blobs", listing, Listing::page))
    }

    async fn mark(&self, installation: InstallationId) -> Result<InstallationId, BlobError> {
        let folder = self.folder.clone();
        run(MARK, move || mark(&folder, installation)).await
    }

    async fn presigned(
        &self,
        _key: BlobKey,
        _expires_at: Timestamp,
    ) -> Result<Option<String>, BlobError> {
        Ok(None)
    }
}

async fn run<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, BlobError> {
    match spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| BlobError::new(operation, error)),
        Err(error) => Err(BlobError::new(operation, error)),
    }
}

fn write(path: &Path, blob: &[u8]) -> io::Result<()> {
    let folder = path.parent().expect("a blob is in its organization's folder");
    let mut name = path.file_name().expect("a blob has a name").to_owned();
    name.push(PART);
    let part = folder.join(name);
    let written = write_part(&part, blob).and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        // What stays all the same is no blob by its name.
        _ = fs::remove_file(&part);
    }
    written?;
    sync_folder(folder)
}

fn write_part(part: &Path, blob: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(part)?;
    file.write_all(blob)?;
    file.sync_all()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn mark(folder: &Path, installation: InstallationId) -> io::Result<InstallationId> {
    let marker = folder.join(MARKER);
    if let Some(found) = marked(&marker)? {
        return Ok(found);
    }
    // A link is made whole or not at all, and never in place of another's.
    let part = folder.join(format!("{MARKER}.{installation}{PART}"));
    let made = write_part(&part, format!("{installation}\n").as_bytes());
    let made = made.and_then(|()| match fs::hard_link(&part, &marker) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    _ = fs::remove_file(&part);
    made?;
    sync_folder(folder)?;
    marked(&marker)?.ok_or_else(|| ErrorKind::NotFound.into())
}

fn marked(marker: &Path) -> io::Result<Option<InstallationId>> {
    let file = match File::open(marker) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MARKER_BYTES_MAX).read_to_end(&mut bytes)?;
    read_marker(&bytes).map(Some).map_err(io::Error::other)
}

/// A file, as far as it is to be read.
struct Rest {
    file: File,
    bytes: u64,
}

impl Rest {
    fn piece(&mut self) -> io::Result<Option<Bytes>> {
        if self.bytes == 0 {
            return Ok(None);
        }
        let size = self.bytes.min(PIECE_BYTES);
        let mut piece = vec![0; usize::try_from(size).expect("a piece is small")];
        self.file.read_exact(&mut piece)?;
        self.bytes -= size;
        Ok(Some(piece.into()))
    }
}

const PUT: &str = "store a blob";
const READ: &str = "read a blob";
const DELETE: &str = "delete a blob";
const MARK: &str = "say whose it is";
const PIECE_BYTES: u64 = 64 * 1024;
