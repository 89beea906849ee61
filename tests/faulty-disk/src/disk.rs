//! The disk: names, files, and what goes wrong with them.

use std::collections::BTreeMap;

use fastrand::Rng;

use crate::file::File;

/// What is on a disk that nobody uses: names and contents.
pub type Image = BTreeMap<String, Vec<u8>>;

/// Which syncs fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncFault {
    /// One, after so many more of the files whose names end like this.
    Once(u32, &'static str),
    /// All of the files whose names end like this, after so many more.
    From(u32, &'static str),
}

/// What a full disk has no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// What makes a file longer, as where files are overwritten in place.
    Growing,
    /// Everything, as where nothing is ever overwritten in place.
    Writing,
}

/// What has happened on a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Writes, truncations, syncs, deletions and openings.
    pub operations: u64,
    /// Syncs that were asked for.
    pub syncs: u64,
    /// Those that failed.
    pub failed_syncs: u64,
    /// How often there was no room.
    pub full: u64,
    /// Reads that failed.
    pub failed_reads: u64,
}

/// Why something is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    NoPower,
    Sync,
    Full,
    Read,
}

pub(crate) type FileNumber = usize;

#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) random: Rng,
    pub(crate) is_on: bool,
    pub(crate) tally: Tally,
    /// At which operation the power goes.
    pub(crate) cut_at: Option<u64>,
    pub(crate) sync_fault: Option<SyncFault>,
    pub(crate) full: Option<Full>,
    /// One read in so many fails.
    pub(crate) read_faults: Option<u32>,
    files: Vec<File>,
    names: BTreeMap<String, Name>,
    /// Parts of the shared memory, which is a file, too, and has to grow.
    shared: usize,
}

/// Which file has a name: durably, and after each change since the folder was synced.
#[derive(Debug, Default)]
struct Name {
    durable: Option<FileNumber>,
    pending: Vec<Option<FileNumber>>,
}

impl Disk {
    pub(crate) fn new(image: &Image, seed: u64) -> Self {
        let mut files = Vec::new();
        let mut names = BTreeMap::new();
        for (name, content) in image {
            let durable = Some(files.len());
            names.insert(name.clone(), Name { durable, pending: Vec::new() });
            files.push(File::new(content.clone()));
        }
        Self {
            random: Rng::with_seed(seed),
            is_on: true,
            tally: Tally::default(),
            cut_at: None,
            sync_fault: None,
            full: None,
            read_faults: None,
            files,
            names,
            shared: 0,
        }
    }

    /// The same disk, and the system's cache of it, for another process; this one is gone.
    pub(crate) fn hand_over(&mut self) -> Self {
        self.is_on = false;
        let mut next = Self::new(&Image::new(), self.random.u64(..));
        next.files = std::mem::take(&mut self.files);
        next.names = std::mem::take(&mut self.names);
        next.tally = self.tally;
        next
    }

    /// The file of that name, which is there already or about to be made.
    pub(crate) fn open(&mut self, name: &str, is_there: bool) -> Result<FileNumber, Fault> {
        self.operate()?;
        if !is_there && self.full.is_some() {
            self.tally.full += 1;
            return Err(Fault::Full);
        }
        let known = self.names.entry(name.to_owned()).or_default();
        if let Some(number) = known.current() {
            return Ok(number);
        }
        let number = self.files.len();
        self.files.push(File::default());
        known.pending.push(Some(number));
        Ok(number)
    }

    pub(crate) fn delete(&mut self, name: &str, syncs_folder: bool) -> Result<(), Fault> {
        self.operate()?;
        if let Some(name) = self.names.get_mut(name) {
            name.pending.push(None);
        }
        if syncs_folder {
            self.sync_folder();
        }
        Ok(())
    }

    pub(crate) fn read(&mut self) -> Result<(), Fault> {
        self.demand_power()?;
        if self.read_faults.is_some_and(|one_in| self.random.u32(..one_in) == 0) {
            self.tally.failed_reads += 1;
            return Err(Fault::Read);
        }
        Ok(())
    }

    /// How much of the data is to be written, and whether that is all there is room for.
    pub(crate) fn write(
        &mut self,
        number: FileNumber,
        offset: usize,
        data: &[u8],
    ) -> (usize, Result<(), Fault>) {
        if let Err(fault) = self.demand_power() {
            return (0, Err(fault));
        }
        // What is being written when the power goes may be there, in part.
        let result = self.operate();
        let file = &mut self.files[number];
        let in_place = file.length().saturating_sub(offset).min(data.len());
        let is_full = match self.full {
            None => false,
            Some(Full::Growing) => in_place < data.len(),
            Some(Full::Writing) => true,
        };
        if !is_full {
            file.write(offset, data);
            return (data.len(), result);
        }
        self.tally.full += 1;
        let room = match self.full {
            Some(Full::Growing) => self.random.usize(in_place..data.len()),
            Some(Full::Writing) | None => 0,
        };
        file.write(offset, &data[..room]);
        (room, result.and(Err(Fault::Full)))
    }

    pub(crate) fn truncate(&mut self, number: FileNumber, length: usize) -> Result<(), Fault> {
        self.operate()?;
        let file = &mut self.files[number];
        if self.full.is_some() && length > file.length() {
            self.tally.full += 1;
            return Err(Fault::Full);
        }
        file.truncate(length);
        Ok(())
    }

    /// `seen` is how many failures the caller has been told of.
    pub(crate) fn sync(
        &mut self,
        number: FileNumber,
        name: &str,
        seen: &mut u64,
    ) -> Result<(), Fault> {
        self.operate()?;
        self.tally.syncs += 1;
        let fails = self.is_sync_to_fail(name);
        let file = &mut self.files[number];
        if fails {
            file.fail_sync(&mut self.random);
        } else {
            file.sync();
        }
        if *seen < file.failures() {
            *seen = file.failures();
            self.tally.failed_syncs += 1;
            return Err(Fault::Sync);
        }
        Ok(())
    }

    fn is_sync_to_fail(&mut self, name: &str) -> bool {
        match &mut self.sync_fault {
            Some(SyncFault::Once(left, end) | SyncFault::From(left, end)) if *left > 0 => {
                *left -= u32::from(name.ends_with(*end));
                false
            }
            Some(SyncFault::Once(_, end)) if name.ends_with(*end) => {
                self.sync_fault = None;
                true
            }
            Some(SyncFault::From(_, end)) => name.ends_with(*end),
            Some(SyncFault::Once(..)) | None => false,
        }
    }

    pub(crate) fn sync_folder(&mut self) {
        for name in self.names.values_mut() {
            name.durable = name.current();
            name.pending.clear();
        }
    }

    /// A part of the memory that connections share.
    pub(crate) fn share(&mut self, part: usize, extends: bool) -> Result<(), Fault> {
        self.demand_power()?;
        if part >= self.shared {
            if extends && self.full.is_some() {
                self.tally.full += 1;
                return Err(Fault::Full);
            }
            self.shared = if extends { part + 1 } else { self.shared };
        }
        Ok(())
    }

    pub(crate) fn failures(&self, number: FileNumber) -> u64 {
        self.files[number].failures()
    }

    pub(crate) const fn demand_power(&self) -> Result<(), Fault> {
        if self.is_on { Ok(()) } else { Err(Fault::NoPower) }
    }

    fn operate(&mut self) -> Result<(), Fault> {
        self.demand_power()?;
        self.tally.operations += 1;
        self.is_on = self.cut_at != Some(self.tally.operations);
        self.demand_power()
    }

    /// The files of which something else is read from now on.
    pub(crate) fn forget_cache(&mut self) -> Vec<(String, Vec<u8>)> {
        let Self { names, files, .. } = self;
        let names = names.iter().filter_map(|(name, known)| Some((name, known.current()?)));
        names.filter_map(|(name, file)| Some((name.clone(), files[file].forget_cache()?))).collect()
    }

    /// What may be left after the power went.
    pub(crate) fn survivor(&mut self) -> Image {
        let Self { names, files, random, .. } = self;
        let mut image = Image::new();
        for (name, known) in names {
            let changes = random.usize(..=known.pending.len());
            let file = match changes.checked_sub(1) {
                Some(last) => known.pending[last],
                None => known.durable,
            };
            if let Some(file) = file {
                image.insert(name.clone(), files[file].survivor(random));
            }
        }
        image
    }
}

impl Name {
    fn current(&self) -> Option<FileNumber> {
        self.pending.last().copied().unwrap_or(self.durable)
    }
}
