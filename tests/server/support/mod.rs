//! What a case is made of.

mod api;
mod authority;
mod curl;
mod lines;
mod postgres;
mod receiver;
mod server;

use std::{future::Future, time::Duration};

pub(crate) use self::{
    api::{Api, Broken},
    authority::{Authority, self_signed},
    curl::{curl, shell},
    receiver::{Behaviour, Received, Receiver},
    server::{Ended, Folder, Running, Server, postgres_url},
};

/// The client that most cases bring along, as `ESL_BOOTSTRAP_CLIENT` wants it.
pub(crate) const CLIENT: &str = "shop";
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The variables of a server with that client, which may call receivers on loopback.
pub(crate) const WITH_CLIENT: [(&str, &str); 2] = [
    ("ESL_BOOTSTRAP_CLIENT", "shop:0123456789abcdef0123456789abcdef"),
    ("ESL_ALLOW_PRIVATE_CALLBACKS", "true"),
];

/// [`WITH_CLIENT`], for cases that publish more than a new organization may in an hour.
pub(crate) const WITHOUT_LIMIT: [(&str, &str); 3] =
    [WITH_CLIENT[0], WITH_CLIENT[1], ("RATE_LIMIT_EVENTS_HOUR", "unlimited")];

/// Chance that can be repeated: it says what it begins with, and takes that from `ESL_TEST_SEED`.
pub(crate) fn random() -> fastrand::Rng {
    let seed = match std::env::var("ESL_TEST_SEED") {
        Ok(seed) => seed.parse().expect("ESL_TEST_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("ESL_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Waits for what must happen; a machine that takes longer than this has stopped.
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(result) => result,
        Err(_) => panic!("{what}: did not happen within {PATIENCE:?}"),
    }
}

/// How often a case kills its server. `ESL_TEST_KILLS` makes it fewer times, where whoever follows has to wait
/// each time until the epoch of the one that was killed is over.
pub(crate) fn kills(usually: u32) -> u32 {
    let kills = std::env::var("ESL_TEST_KILLS").ok();
    kills.map_or(usually, |kills| kills.parse().expect("ESL_TEST_KILLS is a number"))
}

/// The most memory that a process has held, in KiB.
pub(crate) fn memory_peak_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let line = line.expect("the system says so").trim();
    line.trim_end_matches(" kB").parse().expect("a number")
}

const PATIENCE: Duration = Duration::from_secs(300);
