//! What holds on a server of PostgreSQL: these tests start one, or use `ESL_TEST_POSTGRES_URL`.

mod clock;
mod cluster;
mod conformance;
mod metering;
mod opening;
mod outages;
mod publishing;
mod tls;

