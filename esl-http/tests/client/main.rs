//! The client: against servers that say what a case wants, and against the real API.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod api;
mod pages;
mod publishing;
mod retries;
mod scripted;
mod secrecy;
mod tls;
mod tokens;
mod world;
