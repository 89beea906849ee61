//! `esl-server migrate-storage`: the real binary, a file of SQLite's, and a server of PostgreSQL's that is started
//! here, or `ESL_TEST_POSTGRES_URL`, which keeps what it acknowledges.

mod check;
#[path = "../../esl-postgres/tests/on_server/cluster.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod cluster;
mod interrupted;
mod moving;
#[path = "../ports.rs"]
mod ports;
mod refused;
mod strange;
#[path = "../server/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "other tests need more of it")]
mod support;

/// What the server is started with, beside what it needs: nothing, since ESL refuses one that may lose something.
const SERVER_OPTIONS: &str = "";
