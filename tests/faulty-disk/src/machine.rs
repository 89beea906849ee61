//! A computer whose disk does not always do what it is told.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, MutexGuard, Weak},
};

use tempfile::TempDir;

use crate::{
    disk::{Disk, Full, Image, SyncFault, Tally},
    vfs,
};

/// A computer with a disk of its own, on which databases can be opened until its power is cut.
#[derive(Debug)]
pub struct Machine {
    folder: TempDir,
    path: PathBuf,
    disk: Mutex<Disk>,
}

impl Machine {
    /// Starts one with what is on its disk. `seed` is what all draws come from.
    ///
    /// # Panics
    /// When the system has no room for it.
    #[must_use]
    pub fn start(image: &Image, seed: u64) -> Arc<Self> {
        vfs::install();
        let folder = tempfile::tempdir().expect("the system has room for tests");
        let path = folder.path().canonicalize().expect("the folder was just made");
        for (name, content) in image {
            fs::write(path.join(name), content).expect("the system has room for tests");
        }
        let disk = Mutex::new(Disk::new(image, seed));
        let machine = Arc::new(Self { folder, path, disk });
        let path = machine.path.clone();
        running().insert(path, Arc::downgrade(&machine));
        machine
    }

    /// Where its files are. Only what SQLite does there goes by its rules.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.path
    }

    /// Cuts the power.
    pub fn cut(&self) {
        self.disk().is_on = false;
    }

    /// Cuts the power in the middle of the so many-th operation from now on.
    pub fn cut_after(&self, operations: u64) {
        let mut disk = self.disk();
        disk.cut_at = Some(disk.tally.operations + operations.max(1));
    }

    /// Kills whoever works on it, without a chance to clean up, and goes on with what is in the system's
    /// cache. What was open on this one fails from now on, as after a cut.
    ///
    /// # Panics
    /// When the system has no room for it.
    #[must_use]
    pub fn after_kill(&self) -> Arc<Self> {
        let disk = self.disk().hand_over();
        let next = Self::start(&Image::new(), 0);
        for entry in fs::read_dir(&self.path).expect("the folder is there") {
            let entry = entry.expect("the folder can be read");
            // The memory that connections share goes with the last of them.
            if !entry.file_name().to_string_lossy().ends_with("-shm") {
                fs::copy(entry.path(), next.path.join(entry.file_name()))
                    .expect("the system has room for tests");
            }
        }
        *next.disk() = disk;
        next
    }

    /// Whether it has power.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.disk().is_on
    }

    /// Draws what is left on the disk after its power was cut; every call draws anew.
    ///
    /// # Panics
    /// While it has power.
    #[must_use]
    pub fn survivor(&self) -> Image {
        let mut disk = self.disk();
        assert!(!disk.is_on, "as long as there is power, all is there");
        disk.survivor()
    }

    /// Lets syncs fail, in place of what was to fail before.
    pub fn fail_syncs(&self, fault: SyncFault) {
        self.disk().sync_fault = Some(fault);
    }

    /// The disk is mended.
    pub fn mend(&self) {
        let mut disk = self.disk();
        disk.sync_fault = None;
        disk.read_faults = None;
    }

    /// The system needs the memory in which files are cached: what failed syncs have lost shows.
    ///
    /// # Panics
    /// When the system has no room for it.
    pub fn forget_cache(&self) {
        let mut disk = self.disk();
        for (name, content) in disk.forget_cache() {
            fs::write(self.path.join(name), content).expect("the system has room for tests");
        }
    }

    /// Fills the disk.
    pub fn fill(&self, full: Full) {
        self.disk().full = Some(full);
    }

    /// There is room again.
    pub fn make_room(&self) {
        self.disk().full = None;
    }

    /// Lets one read in so many fail.
    ///
    /// # Panics
    /// When that is none.
    pub fn fail_reads(&self, one_in: u32) {
        assert!(one_in > 0, "one in none");
        self.disk().read_faults = Some(one_in);
    }

    /// What has happened up to now.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.disk().tally
    }

    pub(crate) fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("no code panics while it holds this lock")
    }

    /// The machine in whose folder a file is, and the file's name there.
    pub(crate) fn of(file: &Path) -> Option<(Arc<Self>, String)> {
        let machine = running().get(file.parent()?)?.upgrade()?;
        Some((machine, file.file_name()?.to_str()?.to_owned()))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        running().remove(&self.path);
        debug_assert!(self.folder.path().exists(), "the folder is removed after this");
    }
}

fn running() -> MutexGuard<'static, HashMap<PathBuf, Weak<Machine>>> {
    static RUNNING: LazyLock<Mutex<HashMap<PathBuf, Weak<Machine>>>> =
        LazyLock::new(Mutex::default);
    RUNNING.lock().expect("no code panics while it holds this lock")
}
