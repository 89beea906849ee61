//! What the processors have done for this process. Beside a rate it says whether a machine that was busy
//! with something else has made the difference.

use std::{fs, time::Duration};

/// How long the processors have worked for it up to now; `None` where this is not Linux.
pub(crate) fn used() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // What stands before is the program's name, which may have anything in it.
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks = |index: usize| fields.split(' ').nth(index)?.parse::<u64>().ok();
    // Fields 14 and 15 of proc_pid_stat(5), in hundredths of a second on every machine there is.
    Some(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}

/// Microseconds for each of so many.
pub(crate) fn each(before: Option<Duration>, count: usize) -> f64 {
    let spent = used().zip(before).map(|(now, before)| now.saturating_sub(before));
    spent.map_or(f64::NAN, |spent| spent.as_secs_f64() * 1e6 / count as f64)
}
