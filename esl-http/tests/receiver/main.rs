//! The receiver's side: what its layer lets through, once, and what handlers get.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod data;
mod delivery;
mod fetch;
#[path = "../api/log.rs"]
mod log;
mod logging;
mod once;
mod refusals;
mod service;
