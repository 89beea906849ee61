//! How many files the process may open, shared out.

use std::fs;

/// What each part may hold open at once. An eighth is left for the database and whatever else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    /// What was shared out.
    pub(crate) open_files_max: u64,
    /// Deliveries being sent.
    pub(crate) sends: u32,
    /// Connections kept for later deliveries.
    pub(crate) kept: usize,
    /// Clients of the API.
    pub(crate) clients: usize,
}

impl Shares {
    /// Of what this process may open.
    pub(crate) fn of_this_process() -> Self {
        Self::of(open_files_max().unwrap_or(UNKNOWN))
    }

    fn of(open_files_max: u64) -> Self {
        let eighth = usize::try_from(open_files_max / 8).unwrap_or(usize::MAX / 8).max(1);
        Self {
            open_files_max,
            sends: u32::try_from(3 * eighth).unwrap_or(u32::MAX).min(SENDS_MAX),
            kept: eighth.min(KEPT_MAX),
            clients: (3 * eighth).min(CLIENTS_MAX),
        }
    }
}

/// The soft limit, where the system shows it as a file. Asking for it, and raising it, takes a
/// foreign call, which this workspace does without.
fn open_files_max() -> Option<u64> {
    soft_limit(&fs::read_to_string("/proc/self/limits").ok()?)
}

fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// The usual limit, where nothing can be read.
const UNKNOWN: u64 = 1024;
/// Beyond these, more would not make it faster.
const SENDS_MAX: u32 = 4096;
const KEPT_MAX: usize = 1024;
const CLIENTS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_read() {
        let limits = "\
Limit                     Soft Limit           Hard Limit           Units
Max core file size        0                    unlimited            bytes
Max open files            20000                1048576              files
";
        assert_eq!(soft_limit(limits), Some(20_000));
        assert_eq!(soft_limit(&limits.replace("20000  ", "unlimited")), Some(u64::MAX));
        assert_eq!(soft_limit(""), None);
    }

    #[test]
    fn the_shares_fit_into_the_limit_and_are_never_nothing() {
        for (limit, sends, kept, clients) in [
            (1, 3, 1, 3),
            (1024, 384, 128, 384),
            (20_000, 4096, 1024, 7500),
            (1_048_576, 4096, 1024, 10_000),
            (u64::MAX, 4096, 1024, 10_000),
        ] {
            let expected = Shares { open_files_max: limit, sends, kept, clients };
            assert_eq!(Shares::of(limit), expected);
        }
    }
}
