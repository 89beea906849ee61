//! What the processors have done for this process. Beside a rate it says whether a machine that was busy
//! with something else has made the difference.

use std::{fs, time::Duration};

/// How long the processors have worked for it up to now; `None` where this is not Linux.
pub(crate) fn used() -> Option<Duration> {
    Stat::read("self").map(|stat| stat.own)
}

/// The same for another process and its children, with those that have ended.
pub(crate) fn used_by(process: u32) -> Option<Duration> {
    let parent = Stat::read(&process.to_string())?;
    let names =
        fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    // Other entries have no such file.
    let children = names.filter_map(|name| Stat::read(&name)).filter(|stat| stat.parent == process);
    Some(parent.own + parent.ended + children.map(|child| child.own).sum::<Duration>())
}

/// What the system says of a process.
struct Stat {
    parent: u32,
    own: Duration,
    /// Of children that have ended.
    ended: Duration,
}

impl Stat {
    fn read(process: &str) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // What stands before is the program's name, which may have anything in it.
        let (_, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<u64> = fields.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
        // Fields 4 and 14 to 17 of proc_pid_stat(5), in hundredths of a second on every machine there is.
        let ticks = |first: usize| Some(fields.get(first..first + 2)?.iter().sum::<u64>());
        Some(Self {
            parent: u32::try_from(*fields.get(1)?).ok()?,
            own: Duration::from_millis(ticks(11)? * 10),
            ended: Duration::from_millis(ticks(13)? * 10),
        })
    }
}

/// Microseconds for each of so many.
pub(crate) fn each(before: Option<Duration>, count: usize) -> f64 {
    between(before, used(), count)
}

/// The same, of what was used meanwhile.
pub(crate) fn between(before: Option<Duration>, now: Option<Duration>, count: usize) -> f64 {
    let spent = now.zip(before).map(|(now, before)| now.saturating_sub(before));
    spent.map_or(f64::NAN, |spent| spent.as_secs_f64() * 1e6 / count as f64)
}
