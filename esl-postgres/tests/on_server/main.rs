//! What holds on a server of PostgreSQL: these tests start one, or use `ESL_TEST_POSTGRES_URL`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod chores;
mod churn;
mod clock;
mod cluster;
mod conformance;
mod entities;
mod growth;
mod keys;
mod listening;
mod metering;
mod opening;
mod outages;
mod outbox;
mod pooled;
#[path = "../../../tests/ports.rs"]
mod ports;
mod publishing;
mod reading;
mod reencryption;
mod removing;
mod tls;
mod world;

/// What the server is started with, beside what it needs: nothing of it is to last.
const SERVER_OPTIONS: &str = "-c fsync=off -c full_page_writes=off";
