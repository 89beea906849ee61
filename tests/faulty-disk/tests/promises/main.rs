//! What ESL promises of a SQLite file on a disk that loses power, fails to sync, is full or cannot read.
//!
//! Each test makes rounds, and each round has a seed, which a failure names. `ESL_ROUNDS` says how many
//! there are; with `ESL_SEED` there is one: `ESL_SEED=7 cargo test -p esl-faulty-disk cuts`.

#![expect(clippy::unwrap_used, reason = "in a test, the panic says enough")]

mod bites;
mod check;
mod cuts;
mod full;
mod ledger;
mod life;
mod syncs;

use std::{
    env,
    future::Future,
    ops::Range,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use esl_faulty_disk::Machine;
use fastrand::Rng;

/// The seeds of a test that makes so many rounds unless it is told otherwise.
fn seeds(rounds: u64) -> Range<u64> {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("ESL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ESL_ROUNDS").unwrap_or(rounds),
    }
}

/// Makes some rounds at once, since each waits for its own threads most of the time, and gives back what
/// came of all.
fn rounds<T: Send, F: Future<Output = T>>(
    seeds: Range<u64>,
    make: impl Fn(u64) -> F + Sync,
) -> Vec<T> {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut done = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return done;
            }
            done.push(round(seed, make(seed)));
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

const AT_ONCE: usize = 4;

/// Runs one round, and says its seed if it fails.
fn round<T>(seed: u64, round: impl Future<Output = T>) -> T {
    struct Seed(u64);
    impl Drop for Seed {
        fn drop(&mut self) {
            if thread::panicking() {
                eprintln!("with ESL_SEED={}", self.0);
            }
        }
    }
    let _seed = Seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(round)
}

fn database(machine: &Machine) -> PathBuf {
    machine.folder().join("esl.db")
}

/// Draws for one purpose, so that what another one draws changes nothing.
fn random(seed: u64, purpose: u64) -> Rng {
    Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(purpose))
}
