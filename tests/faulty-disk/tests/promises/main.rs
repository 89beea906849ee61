//! What ESL promises of a SQLite file on a disk that loses power, fails to sync, is full or cannot read.
//!
//! Each test makes rounds, and each round has a seed, which a failure names. `ESL_ROUNDS` says how many
//! there are; with `ESL_SEED` there is one: `ESL_SEED=7 cargo test -p esl-faulty-disk power_cuts`.

#![expect(clippy::unwrap_used, reason = "in a test, the panic says enough")]

mod bites;
mod check;
mod cuts;
mod ledger;
mod life;
mod syncs;

use std::{env, future::Future, ops::Range, path::PathBuf};

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

/// Runs one round, and says its seed if it fails.
fn round<T>(seed: u64, round: impl Future<Output = T>) -> T {
    struct Seed(u64);
    impl Drop for Seed {
        fn drop(&mut self) {
            if std::thread::panicking() {
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
