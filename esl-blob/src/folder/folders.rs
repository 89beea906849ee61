//! Folders whose names last.

use std::{
    collections::HashSet,
    fs::DirBuilder,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// The folders that are known to be there, and to be there after a power cut.
#[derive(Debug, Default)]
pub(super) struct Folders(Mutex<HashSet<PathBuf>>);

impl Folders {
    /// Makes sure of a folder; `sync` makes the names in the one above last.
    pub(super) fn ensure(
        &self,
        folder: &Path,
        mut sync: impl FnMut(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        // One that was removed by hand is made again.
        if self.known().contains(folder) && folder.is_dir() {
            return Ok(());
        }
        make(folder, &mut sync)?;
        let mut known = self.known();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(folder.to_owned());
        Ok(())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a folder, and those above it that are not there. The names in each folder above are synced
/// also where the folder is there already: whoever is making it may not have come to that yet.
pub(super) fn make(
    folder: &Path,
    sync: &mut impl FnMut(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let Some(above) = folder.parent() else { return Ok(()) };
    if !above.is_dir() {
        make(above, sync)?;
    }
    #[cfg_attr(not(unix), expect(unused_mut, reason = "only Unix has modes"))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists || !folder.is_dir() => Err(error),
        Ok(()) | Err(_) => sync(above),
    }
}

/// Some hundreds of kilobytes.
const KNOWN_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_new_folder_lasts_and_so_does_one_that_another_is_just_making() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path();
        let (above, folder) = (root.join("a").join("b"), root.join("a").join("b").join("c"));
        let mut synced = Vec::new();
        let mut sync = |folder: &Path| {
            synced.push(folder.to_owned());
            Ok(())
        };
        let folders = Folders::default();
        folders.ensure(&folder, &mut sync).unwrap();
        folders.ensure(&folder, &mut sync).unwrap();
        // Another process, which finds it made.
        Folders::default().ensure(&folder, &mut sync).unwrap();
        std::fs::remove_dir(&folder).unwrap();
        folders.ensure(&folder, &mut sync).unwrap();
        assert!(folder.is_dir());
        assert_eq!(synced, [root.to_owned(), root.join("a"), above.clone(), above.clone(), above]);
    }

    #[test]
    fn a_folder_is_not_known_before_its_name_lasts() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("a");
        let folders = Folders::default();
        folders.ensure(&folder, |_| Err(io::Error::other("no"))).unwrap_err();
        let mut synced = 0;
        let sync = |_: &Path| {
            synced += 1;
            Ok(())
        };
        folders.ensure(&folder, sync).unwrap();
        assert_eq!(synced, 1);
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("file");
        std::fs::write(&file, "x").unwrap();
        for folder in [file.clone(), file.join("below")] {
            make(&folder, &mut |_| Ok(())).unwrap_err();
        }
    }
}
