//! Databases that are filled in a process of their own, so that what filling takes is not in the memory
//! of the one that is measured.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tokio::runtime::Builder;

use crate::{lanes, pause, receiver::Receiver};

/// Fills a new database for a part, with so many events or lanes for that receiver.
pub(crate) fn fill(
    part: &str,
    folder: &Path,
    receiver: &Receiver,
    count: usize,
) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([FILL, part]).arg(folder).args([&receiver.url, &count.to_string()]);
    let status = command.status()?;
    anyhow::ensure!(status.success(), "{part} was not filled: {status}");
    Ok(())
}

/// What the other process does; false if this is not it.
pub(crate) fn is_done() -> anyhow::Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [FILL, part, folder, url, count] =
        &arguments.iter().map(|one| &**one).collect::<Vec<_>>()[..]
    else {
        return Ok(false);
    };
    let (folder, count) = (PathBuf::from(folder), count.parse()?);
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match *part {
        "pause" => runtime.block_on(pause::fill(&folder, url, count))?,
        "lanes" => runtime.block_on(lanes::fill_many(&folder, url, count))?,
        "lane" => runtime.block_on(lanes::fill_one(&folder, url, count))?,
        _ => anyhow::bail!("{part} is not filled apart"),
    }
    Ok(true)
}

const FILL: &str = "--fill";
