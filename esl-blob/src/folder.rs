//! Blobs as files: `<folder>/<organization>/<event>-<put>`.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use async_trait::async_trait;
use bytes::Bytes;
use esl_core::{BlobError, BlobKey, BlobStore, BlobStream, InstallationId, StoredBlob, Timestamp};
use futures_core::Stream;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::{MARKER, MARKER_BYTES_MAX, read_marker};

/// Keeps blobs in a folder of the machine, readable by their owner alone.
///
/// A blob is written beside its name, synced, and then given the name, so that nobody ever sees a
/// part of it, and what was put survives a power cut.
#[derive(Debug, Clone)]
pub struct FolderBlobStore {
    folder: PathBuf,
}

impl FolderBlobStore {
    /// The store in this folder, which is made if it is not there.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = std::path::absolute(folder.into())?;
        make_folder(&folder)?;
        Ok(Self { folder })
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
        let path = self.path_of(key);
        run(PUT, move || write(&path, &blob)).await
    }

    async fn read(&self, key: BlobKey, range: Range<u64>) -> Result<Option<BlobStream>, BlobError> {
        let path = self.path_of(key);
        let opened = run(READ, move || match File::open(path) {
            Ok(mut file) => file.seek(SeekFrom::Start(range.start)).map(|_| {
                let left = range.end.saturating_sub(range.start);
                Some(Pieces { left, state: State::Ready(file) })
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        });
        Ok(opened.await?.map(|pieces| Box::pin(pieces) as BlobStream))
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

    async fn list(
        &self,
        after: Option<BlobKey>,
        limit: usize,
    ) -> Result<Vec<StoredBlob>, BlobError> {
        let folder = self.folder.clone();
        run(LIST, move || list(&folder, after, limit)).await
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
    make_folder(folder)?;
    let mut name = path.file_name().expect("a blob has a name").to_owned();
    name.push(".part");
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

fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)?;
    // The name of the new folder must last, too.
    folder.parent().map_or(Ok(()), sync_folder)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn list(folder: &Path, after: Option<BlobKey>, limit: usize) -> io::Result<Vec<StoredBlob>> {
    let mut found = Vec::new();
    for organization in names(folder)? {
        if after.is_some_and(|after| organization < after.organization.to_string()) {
            continue;
        }
        let folder = folder.join(&organization);
        if !folder.is_dir() {
            continue;
        }
        for name in names(&folder)? {
            let Some(key) = BlobKey::from_name(&format!("{organization}/{name}")) else { continue };
            if after.is_some_and(|after| key <= after) {
                continue;
            }
            // Deleted since it was listed.
            let Ok(metadata) = fs::metadata(folder.join(&name)) else { continue };
            let put_at = time_of(metadata.modified()?);
            found.push(StoredBlob { key, put_at });
            if found.len() == limit {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

fn mark(folder: &Path, installation: InstallationId) -> io::Result<InstallationId> {
    let marker = folder.join(MARKER);
    if let Some(found) = marked(&marker)? {
        return Ok(found);
    }
    // A link is made whole or not at all, and never in place of another's.
    let part = folder.join(format!("{MARKER}.{installation}.part"));
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

fn time_of(time: std::time::SystemTime) -> Timestamp {
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The names in a folder, in their order.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_string().ok()));
    let mut names: Vec<String> =
        names.filter_map(io::Result::transpose).collect::<io::Result<_>>()?;
    names.sort_unstable();
    Ok(names)
}

/// A file, piece by piece.
struct Pieces {
    left: u64,
    state: State,
}

enum State {
    Ready(File),
    Reading(JoinHandle<io::Result<(File, Bytes)>>),
    Over,
}

impl Stream for Pieces {
    type Item = Result<Bytes, BlobError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Over => return Poll::Ready(None),
                State::Ready(_) if self.left == 0 => return Poll::Ready(None),
                State::Ready(mut file) => {
                    let size = usize::try_from(self.left.min(PIECE_BYTES)).unwrap_or(usize::MAX);
                    self.state = State::Reading(spawn_blocking(move || {
                        let mut piece = vec![0; size];
                        file.read_exact(&mut piece)?;
                        Ok((file, piece.into()))
                    }));
                }
                State::Reading(mut reading) => {
                    let Poll::Ready(read) = Pin::new(&mut reading).poll(cx) else {
                        self.state = State::Reading(reading);
                        return Poll::Pending;
                    };
                    let read = read.map_err(io::Error::other).and_then(|read| read);
                    return Poll::Ready(Some(match read {
                        Ok((file, piece)) => {
                            self.left -= piece.len() as u64;
                            self.state = State::Ready(file);
                            Ok(piece)
                        }
                        Err(error) => Err(BlobError::new(READ, error)),
                    }));
                }
            }
        }
    }
}

const PUT: &str = "store a blob";
const READ: &str = "read a blob";
const DELETE: &str = "delete a blob";
const LIST: &str = "list blobs";
const MARK: &str = "say whose it is";
const PIECE_BYTES: u64 = 64 * 1024;
