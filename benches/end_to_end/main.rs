//! ESL beside a bare relay, in one run: `cargo bench --bench end_to_end`
//!
//! The relay is the least that any webhook service does: it takes an event by HTTP, signs it and POSTs
//! it on, with the same client, and stores nothing. Publishers, service and receiver share the machine.
//!
//! `ESL_BENCH_EVENTS` says how many events go through each (default 1 000 000, in rounds of 50 000, the
//! two in turn), `ESL_BENCH_CONNECTIONS` over how many connections (default 128),
//! `ESL_BENCH_SUBSCRIPTIONS` how many subscriptions one event fans out to (default 100 000), and
//! `ESL_BENCH_DIR` where the database lies. An argument names the one part to run.

mod disk;
mod embedded;
mod fan_out;
mod isolation;
mod latency;
mod load;
mod receiver;
mod relay;
mod service;

use std::{path::PathBuf, time::Duration};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    // `cargo test --benches` only wants to know whether it starts.
    let is_test = std::env::args().any(|argument| argument == "--test");
    let settings = Settings::from_env(is_test)?;
    let chosen = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let runs = |part: &str| chosen.as_deref().is_none_or(|chosen| chosen == part);

    println!("disk: {}", disk::measure(&settings.folder)?);
    if runs("throughput") {
        relay::compare(&settings)?;
    }
    if runs("latency") {
        latency::compare(&settings)?;
    }
    if runs("embedded") {
        embedded::measure(&settings)?;
    }
    if runs("isolation") {
        isolation::measure(&settings)?;
    }
    if runs("fan_out") {
        fan_out::measure(&settings)?;
    }
    Ok(())
}

/// What the run is made of.
#[derive(Debug)]
struct Settings {
    events: usize,
    round: usize,
    connections: usize,
    paced: usize,
    subscriptions: usize,
    /// How long the other organization is watched before the fan-out.
    quiet: Duration,
    folder: PathBuf,
    _keep: tempfile::TempDir,
}

impl Settings {
    fn from_env(is_test: bool) -> anyhow::Result<Self> {
        let number = |name: &str, default: usize| match std::env::var(name) {
            Ok(text) => text.parse().map_err(|_| anyhow::anyhow!("{name}: expected a number")),
            Err(_) => Ok(default),
        };
        let events = number("ESL_BENCH_EVENTS", if is_test { 200 } else { 1_000_000 })?;
        let parent = std::env::var("ESL_BENCH_DIR").unwrap_or_else(|_| ".".to_owned());
        let keep = tempfile::Builder::new().prefix(".bench").tempdir_in(parent)?;
        Ok(Self {
            events,
            round: events.min(50_000),
            connections: number("ESL_BENCH_CONNECTIONS", 128)?,
            paced: if is_test { 20 } else { 2_000 },
            subscriptions: number("ESL_BENCH_SUBSCRIPTIONS", if is_test { 200 } else { 100_000 })?,
            quiet: Duration::from_millis(if is_test { 100 } else { 5_000 }),
            folder: keep.path().to_owned(),
            _keep: keep,
        })
    }
}

/// The value below which so many percent of the sorted values lie.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let index = sorted.len() * percent / 100;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
