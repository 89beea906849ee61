//! The memory of this process: the service, and the receivers and publishers beside it.

/// What it uses now, in MiB.
pub(crate) fn now() -> Option<u64> {
    read("VmRSS:")
}

/// The most that it has used since [`forget_peak`], in MiB.
pub(crate) fn peak() -> Option<u64> {
    read("VmHWM:")
}

/// The peak begins anew from what is used now.
pub(crate) fn forget_peak() {
    // Where this is not Linux, nothing is known of it anyway.
    let _unknown = std::fs::write("/proc/self/clear_refs", "5");
}

/// MiB as they are printed.
pub(crate) fn show(mebibytes: Option<u64>) -> String {
    mebibytes.map_or("unknown".to_owned(), |mebibytes| format!("{mebibytes} MiB"))
}

fn read(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes / 1024)
}
