//! ESL beside a bare relay, and under what weighs on it: `cargo bench --bench end_to_end`
//!
//! Without an argument every part runs, each in a process of its own, and a table at the end holds all
//! against the budget.
//!
//! The relay is the least that any webhook service does: it takes an event by HTTP, signs it and POSTs
//! it on, with the same client, and stores nothing. Publishers, service and receiver share the machine.
//!
//! An argument names the one part to run:
//!
//! - `throughput` and `latency`: from publish to delivery, ESL and the relay in turn
//! - `postgres` and `postgres_nodes`: the same on PostgreSQL, on one node and on three; `rabbitmq` and
//!   `rabbitmq_nodes`: with RabbitMQ beside it, to which every event goes, too
//! - `embedded`: durable publishing in the process, with nothing sent
//! - `entities`: persons that are created and renamed, beside plain publishes
//! - `isolation`: a healthy receiver beside 100 that never answer
//! - `fan_out`: many events to 1 000 subscriptions, and a few to very many
//! - `history`: publishing where very many old events are stored
//! - `idle`: the memory of a service that nobody uses
//! - `replay`: 50 000 events to a new subscription, at a pace
//! - `pause`: pausing and resuming a subscription that very many deliveries wait for
//! - `retention`: publishing while very many old events are removed
//! - `lanes` and `lane`: a start with deliveries waiting, in very many lanes and in one
//! - `guessing`: calls of others while somebody guesses secrets of clients
//!
//! `ESL_BENCH_EVENTS` says how many events there are (default 1 000 000): how many go through ESL and
//! the relay, in rounds of 50 000; how many deliveries wait in `pause` and `lanes`; how many events are
//! old in `retention`. `ESL_BENCH_CONNECTIONS` says over how many connections they come (default 128),
//! `ESL_BENCH_SUBSCRIPTIONS` how many subscriptions are very many in `fan_out` (default 100 000),
//! `ESL_BENCH_HISTORY` how many old events there are in `history` (default 10 000 000: 10 GB), and
//! `ESL_BENCH_DIR` where the database lies.
//!
//! PostgreSQL and RabbitMQ are started where they are installed. `ESL_BENCH_POSTGRES_URL` and
//! `ESL_BENCH_BROKER_URL` name others in place of them. The parts that need what is not there say so.

mod bystander;
mod cpu;
mod disk;
mod embedded;
mod entities;
mod fan_out;
mod filled;
mod guessing;
mod history;
mod idle;
mod isolation;
mod lanes;
mod latency;
mod load;
mod memory;
mod nodes;
mod one_to_one;
mod pause;
#[path = "../../tests/ports.rs"]
mod ports;
mod postgres;
mod rabbitmq;
mod receiver;
mod relay;
mod replay;
mod retention;
mod service;
mod table;
mod tally;

use std::{path::PathBuf, time::Duration};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    if filled::is_done()? {
        return Ok(());
    }
    // `cargo test --benches` only wants to know whether it starts.
    let is_test = std::env::args().any(|argument| argument == "--test");
    let settings = Settings::from_env(is_test)?;
    let chosen = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));

    if chosen.is_none() && !is_test {
        return table::measure_all();
    }
    println!("disk: {}", disk::measure(&settings.folder)?);
    let is_chosen = |part: &str| chosen.as_deref().is_none_or(|chosen| chosen == part);
    let parts: Vec<_> = PARTS.into_iter().filter(|(part, _)| is_chosen(part)).collect();
    anyhow::ensure!(!parts.is_empty(), "there is no part of that name");
    for (_, measure) in parts {
        measure(&settings)?;
    }
    Ok(())
}

type Measure = fn(&Settings) -> anyhow::Result<()>;

const PARTS: [(&str, Measure); 18] = [
    ("throughput", relay::compare),
    ("postgres", nodes::one),
    ("postgres_nodes", nodes::three),
    ("rabbitmq", nodes::one_with_broker),
    ("rabbitmq_nodes", nodes::three_with_broker),
    ("latency", latency::compare),
    ("embedded", embedded::measure),
    ("entities", entities::measure),
    ("isolation", isolation::measure),
    ("fan_out", fan_out::measure),
    ("idle", idle::measure),
    ("lanes", lanes::measure_many),
    ("lane", lanes::measure_one),
    ("history", history::measure),
    ("replay", replay::measure),
    ("pause", pause::measure),
    ("retention", retention::measure),
    ("guessing", guessing::measure),
];

/// What the run is made of.
#[derive(Debug)]
struct Settings {
    events: usize,
    round: usize,
    connections: usize,
    paced: usize,
    subscriptions: usize,
    /// How many old events are very many.
    history: usize,
    /// How long others are watched before something heavy, and a rate is taken.
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
            history: number("ESL_BENCH_HISTORY", if is_test { 2_000 } else { 10_000_000 })?,
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
