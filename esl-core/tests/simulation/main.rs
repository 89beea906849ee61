//! The whole engine, simulated: some engines over one storage, a network and clocks, all of which go
//! wrong as a seed has it, and an oracle that knows what was promised.
//!
//! A seed is one world. What it violates is printed with the command that repeats it:
//!
//! ```text
//! ESL_SIMULATION_SEED=123 cargo test -p esl-core --test simulation one_seed -- --nocapture
//! ```
//!
//! `ESL_SIMULATION_TRACE=1` beside it prints everything that happens. `ESL_SIMULATION_SEEDS=10000` tries
//! so many, from `ESL_SIMULATION_FIRST` on.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod bug;
mod commits;
mod dice;
mod faults;
mod ledger;
mod network;
mod node;
mod oracle;
mod regressions;
mod script;
mod simulation;
mod storage;
mod trace;
mod world;

use std::{
    cell::Cell,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, Once,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    bug::Bug,
    simulation::{Outcome, simulate},
};

/// So many seeds are tried where nothing else is said.
const SEEDS: u64 = 200;

#[test]
fn whatever_goes_wrong_no_promise_is_broken() {
    let first = number("ESL_SIMULATION_FIRST").unwrap_or(0);
    let seeds = number("ESL_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let failed = Mutex::new(Vec::new());
    let counts = Mutex::new(BTreeMap::new());
    on_all_processors(first..first + seeds, |seed| {
        let outcome = run(seed, None, false);
        let mut counts = counts.lock().unwrap();
        for (what, count) in &outcome.counts {
            *counts.entry(*what).or_insert(0) += count;
        }
        drop(counts);
        if !outcome.violations.is_empty() {
            failed.lock().unwrap().push(outcome);
        }
    });
    println!("{seeds} seeds from {first} on");
    for (what, count) in counts.into_inner().unwrap() {
        println!("{count:>10} {what}");
    }
    let mut failed = failed.into_inner().unwrap();
    failed.sort_by_key(|outcome| outcome.seed);
    failed.iter().take(20).for_each(report);
    assert!(failed.is_empty(), "{} of {seeds} seeds break a promise", failed.len());
}

/// Repeats the seed in `ESL_SIMULATION_SEED`.
#[test]
fn one_seed() {
    let seed = number("ESL_SIMULATION_SEED").unwrap_or(0);
    let outcome = run(seed, None, number("ESL_SIMULATION_TRACE").is_some());
    print!("{}", outcome.text);
    report(&outcome);
    assert!(outcome.violations.is_empty(), "seed {seed} breaks a promise");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    on_all_processors(0..20, |seed| {
        assert_eq!(run(seed, None, false).hash, run(seed, None, false).hash, "seed {seed}");
    });
}

#[test]
fn a_settlement_that_is_dropped_is_found() {
    assert_found(Bug::SettlementDropped, 20);
}

#[test]
fn an_acknowledgement_before_the_commit_is_found() {
    assert_found(Bug::AcknowledgedBeforeCommit, 100);
}

#[test]
fn one_send_too_many_at_a_time_is_found() {
    assert_found(Bug::OneMoreInFlight, 20);
}

#[test]
fn an_attempt_that_is_not_charged_is_found() {
    assert_found(Bug::OneAttemptForgotten, 20);
}

/// Whether one of the first seeds shows a planted bug.
fn assert_found(bug: Bug, within: u64) {
    let found = (0..within).find(|seed| !run(*seed, Some(bug), false).violations.is_empty());
    println!("{bug:?} is found by seed {found:?}");
    assert!(found.is_some(), "{bug:?} is not found in {within} seeds");
}

fn report(outcome: &Outcome) {
    let Outcome { seed, hash, violations, .. } = outcome;
    println!("seed {seed}, trace {hash:016x}: {} violations", violations.len());
    for violation in violations.iter().take(5) {
        println!("    {violation}");
    }
    if !violations.is_empty() {
        println!(
            "    ESL_SIMULATION_SEED={seed} cargo test -p esl-core --test simulation one_seed -- --nocapture"
        );
    }
}

thread_local! {
    /// What has panicked on this thread: a task's panic goes no further than the task.
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// Simulates a seed; a panic of any task is a violation, too.
fn run(seed: u64, bug: Option<Bug>, keeps_text: bool) -> Outcome {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
    PANICS.set(0);
    let mut outcome = catch_unwind(AssertUnwindSafe(|| simulate(seed, bug, keeps_text)))
        .unwrap_or_else(|_| Outcome {
            seed,
            hash: 0,
            violations: Vec::new(),
            counts: BTreeMap::new(),
            text: String::new(),
        });
    if PANICS.get() > 0 {
        outcome.violations.push(format!("{} panics", PANICS.get()));
    }
    outcome
}

fn on_all_processors(seeds: std::ops::Range<u64>, try_seed: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    try_seed(seed);
                }
            });
        }
    });
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}
