//! What holds on a server of PostgreSQL: these tests start one, or use `ESL_TEST_POSTGRES_URL`.

mod chores;
mod cluster;
mod conformance;
mod keys;
mod listening;
mod opening;
mod outbox;
mod reading;
mod world;
