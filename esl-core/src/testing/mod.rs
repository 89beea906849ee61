//! For tests: a clock that is moved by hand, chance with a known seed, a transport that follows a
//! script, and the suites that every storage and every [`Seen`](crate::Seen) pass.
//!
//! Nothing here sleeps or opens a socket. A test moves [`ManualClock`], and waits for what it wants
//! to see with the methods named `wait_for_…`, which complete through a signal.

mod chance;
mod clock;
#[doc(hidden)]
pub mod seen_suite;
#[doc(hidden)]
pub mod suite;
mod transport;

#[doc(inline)]
pub use crate::{seen_suite, storage_suite};
pub use chance::SeededChance;
pub use clock::ManualClock;
pub use seen_suite::SeenHarness;
pub use suite::{Engines, Harness};
pub use transport::{Reply, ScriptedTransport, Sighting};
