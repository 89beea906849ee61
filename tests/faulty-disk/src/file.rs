//! One file, as the disk has it: what was synced, and what was written since.

use std::ops::Range;

use fastrand::Rng;

#[derive(Debug, Default)]
pub(crate) struct File {
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// As whoever reads it finds it.
    length: usize,
    /// How often a sync has failed.
    failures: u64,
    /// Whether the file differs from what is read, and no sync will mend that.
    is_stale: bool,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Truncate(usize),
}

impl File {
    pub(crate) fn new(durable: Vec<u8>) -> Self {
        let length = durable.len();
        Self { durable, length, ..Self::default() }
    }

    pub(crate) const fn length(&self) -> usize {
        self.length
    }

    pub(crate) const fn failures(&self) -> u64 {
        self.failures
    }

    pub(crate) fn write(&mut self, offset: usize, data: &[u8]) {
        self.length = self.length.max(offset + data.len());
        self.pending.push(Change::Write { offset, data: data.to_vec() });
    }

    pub(crate) fn truncate(&mut self, length: usize) {
        self.length = length;
        self.pending.push(Change::Truncate(length));
    }

    pub(crate) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            apply(&mut self.durable, &change);
        }
    }

    /// Nobody will try again to write what is lost here. Lengths are in the file system's journal.
    pub(crate) fn fail_sync(&mut self, random: &mut Rng) {
        self.failures += 1;
        let loses_all = random.bool();
        let sector = draw_sector(random);
        for change in std::mem::take(&mut self.pending) {
            let pieces = pieces(&change, sector);
            for piece in pieces {
                if matches!(piece, Change::Truncate(_)) || (!loses_all && random.bool()) {
                    apply(&mut self.durable, &piece);
                } else {
                    self.is_stale = true;
                }
            }
        }
        self.durable.resize(self.length, 0);
    }

    /// What is read from now on, if that is not what was read up to now.
    pub(crate) fn forget_cache(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.is_stale).then(|| {
            let mut content = self.durable.clone();
            self.pending.iter().for_each(|change| apply(&mut content, change));
            content
        })
    }

    /// What may be left of it after a power cut.
    pub(crate) fn survivor(&self, random: &mut Rng) -> Vec<u8> {
        let mut content = self.durable.clone();
        let sector = draw_sector(random);
        let count = self.pending.len();
        match random.u8(0..6) {
            0 => {}
            1 => self.pending.iter().for_each(|change| apply(&mut content, change)),
            2 => {
                let whole = random.usize(..=count);
                self.pending[..whole].iter().for_each(|change| apply(&mut content, change));
                if let Some(torn) = self.pending.get(whole) {
                    let pieces = pieces(torn, sector);
                    let written = random.usize(..=pieces.len());
                    pieces[..written].iter().for_each(|piece| apply(&mut content, piece));
                }
            }
            3 => {
                let some = self.pending.iter().filter(|_| random.bool()).collect::<Vec<_>>();
                some.into_iter().for_each(|change| apply(&mut content, change));
            }
            _ => {
                // Any sector of any write, but rarely just half of them.
                let kept = random.f64();
                for piece in self.pending.iter().flat_map(|change| pieces(change, sector)) {
                    if random.f64() < kept {
                        apply(&mut content, &piece);
                    }
                }
            }
        }
        if content.len() < self.length && random.bool() {
            let grown = random.usize(content.len()..=self.length);
            let is_garbage = random.bool();
            let byte = |random: &mut Rng| if is_garbage { random.u8(..) } else { 0 };
            content.extend((content.len()..grown).map(|_| byte(random)).collect::<Vec<_>>());
        }
        content
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, data } => {
            let end = offset + data.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*offset..end].copy_from_slice(data);
        }
        Change::Truncate(length) => content.resize(*length, 0),
    }
}

/// A change as the disk makes it, sector by sector.
fn pieces(change: &Change, sector: usize) -> Vec<Change> {
    match change {
        Change::Truncate(_) => vec![change.clone()],
        Change::Write { offset, data } => sectors(*offset..offset + data.len(), sector)
            .map(|range| {
                let part = &data[range.start - offset..range.end - offset];
                Change::Write { offset: range.start, data: part.to_vec() }
            })
            .collect(),
    }
}

fn sectors(range: Range<usize>, sector: usize) -> impl Iterator<Item = Range<usize>> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        let end = range.end.min((start / sector + 1) * sector);
        let piece = start..end;
        start = end;
        (!piece.is_empty()).then_some(piece)
    })
}

fn draw_sector(random: &mut Rng) -> usize {
    if random.bool() { 512 } else { 4096 }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_was_synced_survives_and_of_the_rest_anything_may() {
        let mut file = File::default();
        file.write(0, &[1; 1024]);
        file.sync();
        file.write(512, &[2; 1024]);
        let mut random = Rng::with_seed(1);
        let survivors: BTreeSet<_> = (0..200).map(|_| file.survivor(&mut random)).collect();
        assert!(survivors.iter().all(|survivor| survivor[..512] == [1; 512]));
        let second = survivors.iter().map(|survivor| survivor[512..1024].to_vec());
        let second: BTreeSet<_> = second.collect();
        assert_eq!(second, [vec![1; 512], vec![2; 512]].into(), "a sector is whole");
        let torn = |survivor: &Vec<u8>| survivor[512..1024] == [1; 512] && survivor.ends_with(&[2]);
        assert!(survivors.iter().any(torn), "the end of a write without its beginning");
        assert!(survivors.iter().any(|survivor| survivor.len() == 1024), "none of it");
        let grown = |survivor: &&Vec<u8>| survivor[1024..].iter().any(|byte| *byte != 2);
        assert!(survivors.iter().filter(grown).count() > 1, "a length without what it is of");
    }

    #[test]
    fn what_a_failed_sync_has_lost_is_read_until_the_cache_forgets_it_and_never_synced() {
        let mut random = Rng::with_seed(2);
        let mut forgotten = 0;
        for _ in 0..20 {
            let mut file = File::new(vec![1; 512]);
            file.write(0, &[2; 512]);
            file.fail_sync(&mut random);
            file.sync();
            let kept = file.survivor(&mut random);
            match file.forget_cache() {
                Some(content) => {
                    forgotten += 1;
                    assert_eq!((&content, &kept), (&vec![1; 512], &vec![1; 512]));
                }
                None => assert_eq!(kept, [2; 512]),
            }
        }
        assert!((1..20).contains(&forgotten));
    }
}
