//! What an fsync costs here, since no durable publish can be quicker.

use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{Settings, percentile};

pub(crate) fn measure(folder: &Path) -> anyhow::Result<String> {
    let times = fsyncs(folder, 500, Duration::ZERO)?;
    let show = |percent| percentile(&times, percent);
    Ok(format!("fdatasync p50 {:.0?}, p99 {:.0?}", show(50), show(99)))
}

/// Brings onto the disk what was written so far, so that it does not weigh on what is measured next.
pub(crate) fn settle(folder: &Path, settings: &Settings) {
    // In a process of its own: to open and close the database here would take SQLite's locks away.
    // Where there is no such program, the rest has to do.
    let _unknown = Command::new("sync").arg("-f").arg(folder).status();
    thread::sleep(settings.quiet);
}

/// How long each of so many synced writes of a page takes, in a file that has its size already, with a pause
/// after each. A machine that has rested in between takes longer for one: what comes at a pace is to be held
/// against syncs at that pace.
pub(crate) fn fsyncs(folder: &Path, count: u32, pause: Duration) -> anyhow::Result<Vec<Duration>> {
    let mut file = File::create(folder.join("fsync"))?;
    file.write_all(&vec![0; 1 << 22])?;
    file.sync_all()?;
    let mut times = Vec::new();
    for page in 0..count {
        file.seek(SeekFrom::Start(u64::from(page % 1024) * 4096))?;
        file.write_all(&[1; 4096])?;
        let start = Instant::now();
        file.sync_data()?;
        times.push(start.elapsed());
        thread::sleep(pause);
    }
    times.sort_unstable();
    Ok(times)
}
