//! Going through a folder of blobs, in their order.
//!
//! A folder has no order of its own, and may hold more names than are to be in memory. So one look
//! through it keeps the first names after those that were listed, as many as fit; when they have been
//! listed, another look finds what follows.

use std::{
    collections::{BinaryHeap, VecDeque},
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use esl_core::{BlobKey, OrganizationId, StoredBlob, Timestamp};

use crate::MARKER;

/// Where a listing stands.
pub(super) struct Listing {
    folder: PathBuf,
    sizes: Sizes,
    /// The organizations up to this one were begun.
    begun: Option<OrganizationId>,
    organizations: Found<OrganizationId>,
    /// The blobs up to this one, of the organization that was begun last, were listed.
    listed: Option<BlobKey>,
    blobs: Found<BlobKey>,
}

struct Sizes {
    page: usize,
    /// What one look keeps.
    look: usize,
}

/// What a look has found.
struct Found<T> {
    names: VecDeque<T>,
    /// Whether the look has seen the last there is.
    is_all: bool,
}

impl Listing {
    pub(super) fn new(folder: PathBuf, after: Option<BlobKey>) -> Self {
        Self {
            folder,
            sizes: Sizes { page: PAGE, look: LOOK },
            begun: after.map(|after| after.organization),
            organizations: Found::nothing_yet(),
            listed: after,
            blobs: Found { is_all: after.is_none(), ..Found::nothing_yet() },
        }
    }

    /// The next page; `None` at the end.
    pub(super) fn page(&mut self) -> io::Result<Option<Vec<StoredBlob>>> {
        let mut page = Vec::new();
        while page.len() < self.sizes.page {
            let Some(key) = self.next()? else { break };
            match fs::metadata(self.folder.join(key.to_string())) {
                Ok(metadata) => {
                    page.push(StoredBlob { key, put_at: timestamp(metadata.modified()?) });
                }
                // Deleted since the look.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok((!page.is_empty()).then_some(page))
    }

    fn next(&mut self) -> io::Result<Option<BlobKey>> {
        loop {
            if let Some(key) = self.blobs.names.pop_front() {
                self.listed = Some(key);
                return Ok(Some(key));
            }
            if !self.blobs.is_all
                && let Some(organization) = self.begun
            {
                self.blobs = self.look_for_blobs(organization)?;
            } else if let Some(organization) = self.organizations.names.pop_front() {
                self.begun = Some(organization);
                self.blobs = Found::nothing_yet();
            } else if self.organizations.is_all {
                return Ok(None);
            } else {
                self.organizations = self.look_for_organizations()?;
            }
        }
    }

    fn look_for_organizations(&self) -> io::Result<Found<OrganizationId>> {
        look(&self.folder, self.sizes.look, |name, path| {
            if name.starts_with(MARKER) && name.ends_with(PART) {
                remove_if_old(path);
            }
            let organization = name.parse().ok()?;
            self.begun.is_none_or(|begun| organization > begun).then_some(organization)
        })
    }

    fn look_for_blobs(&self, organization: OrganizationId) -> io::Result<Found<BlobKey>> {
        let folder = self.folder.join(organization.to_string());
        look(&folder, self.sizes.look, |name, path| {
            let key = |name| BlobKey::from_name(&format!("{organization}/{name}"));
            if name.strip_suffix(PART).and_then(key).is_some() {
                remove_if_old(path);
            }
            let key = key(name)?;
            self.listed.is_none_or(|listed| key > listed).then_some(key)
        })
    }
}

impl<T> Found<T> {
    const fn nothing_yet() -> Self {
        Self { names: VecDeque::new(), is_all: false }
    }
}

/// The first of what is wanted of a folder, in its order.
fn look<T: Ord>(
    folder: &Path,
    count_max: usize,
    wanted: impl Fn(&str, &Path) -> Option<T>,
) -> io::Result<Found<T>> {
    let mut first = BinaryHeap::new();
    let mut is_all = true;
    let entries = match fs::read_dir(folder) {
        Ok(entries) => Some(entries),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            None
        }
        Err(error) => return Err(error),
    };
    for entry in entries.into_iter().flatten() {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().and_then(|name| wanted(name, &entry.path())) else {
            continue;
        };
        first.push(name);
        if first.len() > count_max {
            first.pop();
            is_all = false;
        }
    }
    Ok(Found { names: first.into_sorted_vec().into(), is_all })
}

/// Removes what a put has left that was killed long ago. What cannot be removed is no blob all the
/// same.
fn remove_if_old(part: &Path) {
    let written_at = fs::metadata(part).and_then(|metadata| metadata.modified());
    let age = written_at.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    if age.is_some_and(|age| age > PART_AGE_MAX) {
        _ = fs::remove_file(part);
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// What is not whole yet has this at the end of its name.
pub(super) const PART: &str = ".part";
/// No put takes as long.
const PART_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const PAGE: usize = 500;
/// Names in memory: three megabytes.
const LOOK: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use esl_core::{EventId, PutId};

    use super::*;

    fn key(organization: u8, number: u8) -> BlobKey {
        BlobKey {
            organization: OrganizationId::from_bytes([organization; 16]),
            event: EventId::from_bytes([number; 16]),
            put: PutId::from_bits(u128::from(number)),
        }
    }

    fn folder_with(keys: &[BlobKey]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for key in keys {
            let path = folder.path().join(key.to_string());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "1").unwrap();
        }
        folder
    }

    fn pages(mut listing: Listing) -> Vec<Vec<BlobKey>> {
        let mut pages = Vec::new();
        while let Some(page) = listing.page().unwrap() {
            pages.push(page.iter().map(|blob| blob.key).collect());
        }
        pages
    }

    #[test]
    fn more_than_a_look_keeps_is_listed_in_order_all_the_same() {
        let mut keys: Vec<_> = [3, 1, 2, 9, 5]
            .into_iter()
            .flat_map(|organization| {
                (1..=organization * 7).rev().map(move |n| key(organization, n))
            })
            .collect();
        let folder = folder_with(&keys);
        fs::create_dir(folder.path().join("lost+found")).unwrap();
        fs::write(folder.path().join(key(4, 1).organization.to_string()), "no folder").unwrap();
        keys.sort_unstable();
        for (page, look) in [(1, 1), (3, 2), (2, 3), (5, 5), (500, 1000)] {
            for after in [None, Some(key(2, 7)), Some(key(9, 63)), Some(key(4, 2))] {
                let folder = folder.path().to_owned();
                let listing =
                    Listing { sizes: Sizes { page, look }, ..Listing::new(folder, after) };
                let pages = pages(listing);
                let full = pages.iter().rev().skip(1).all(|one| one.len() == page);
                assert!(full, "{page} of {look}");
                let later = keys.iter().copied().filter(|key| after.is_none_or(|it| *key > it));
                assert_eq!(pages.concat(), later.collect::<Vec<_>>(), "{page} of {look}");
            }
        }
    }

    #[test]
    fn a_look_is_good_for_many_pages() {
        let keys: Vec<_> = (1..=20).map(|number| key(1, number)).collect();
        let folder = folder_with(&keys);
        let sizes = Sizes { page: 2, look: 10 };
        let mut listing = Listing { sizes, ..Listing::new(folder.path().to_owned(), None) };
        for page in 0..10 {
            let is_looked_for = listing.blobs.names.is_empty();
            assert_eq!(is_looked_for, page % 5 == 0, "{page}");
            assert_eq!(listing.page().unwrap().unwrap().len(), 2);
        }
        assert!(listing.page().unwrap().is_none());
    }

    #[test]
    fn what_is_deleted_meanwhile_is_passed_over() {
        let keys: Vec<_> = (1..=6).map(|number| key(1, number)).collect();
        let folder = folder_with(&keys);
        let sizes = Sizes { page: 2, look: 10 };
        let mut listing = Listing { sizes, ..Listing::new(folder.path().to_owned(), None) };
        listing.page().unwrap();
        for key in &keys[2..5] {
            fs::remove_file(folder.path().join(key.to_string())).unwrap();
        }
        assert_eq!(pages(listing), [[keys[5]]]);
    }

    #[test]
    fn what_a_killed_put_has_left_is_removed_after_a_day() {
        let folder = folder_with(&[key(1, 1)]);
        let part_of = |key: BlobKey| folder.path().join(format!("{key}{PART}"));
        let foreign = folder.path().join(key(1, 1).organization.to_string()).join("notes.part");
        let mark = folder.path().join(format!("{MARKER}.ins_1{PART}"));
        let (old, young) = (part_of(key(1, 2)), part_of(key(1, 3)));
        let now = SystemTime::now();
        for (path, age) in [(&old, 1), (&young, -60), (&foreign, 1), (&mark, 1)] {
            fs::write(path, "x").unwrap();
            let day = i64::try_from(PART_AGE_MAX.as_secs()).unwrap();
            let age = Duration::from_secs(u64::try_from(day + age).unwrap());
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(now - age).unwrap();
        }
        assert_eq!(pages(Listing::new(folder.path().to_owned(), None)), [[key(1, 1)]]);
        let is_there = [&old, &young, &foreign, &mark].map(|path| path.exists());
        assert_eq!(is_there, [false, true, true, false]);
    }
}
