//! The seams through which time and chance come in.
//!
//! The engine calls neither tokio's time nor a random source directly, so that a test can say what
//! time it is and what the dice show.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    time::{Duration, Instant, SystemTime},
};

use crate::Timestamp;

/// A point on a clock that is never set: how long after the clock's own beginning.
pub type Monotonic = Duration;

/// What time it is, and waiting.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time of day. May jump, both ways.
    fn utc(&self) -> Timestamp;

    /// Never goes back.
    fn monotonic(&self) -> Monotonic;

    /// Completes once [`monotonic`](Self::monotonic) has reached `deadline`, at once if it has.
    fn sleep_until(&self, deadline: Monotonic) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// The machine's clocks.
#[derive(Debug, Clone)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock that begins now.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn utc(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        // A clock set before 1970 counts as 1970.
        let millis = since_epoch.map_or(0, |since| since.as_millis());
        Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Monotonic {
        self.start.elapsed()
    }

    fn sleep_until(&self, deadline: Monotonic) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep_until((self.start + deadline).into()))
    }
}

/// Where random bits come from.
pub trait Chance: fmt::Debug + Send + Sync + 'static {
    /// 64 random bits, for jitter and ids. Need not be fit for secrets.
    fn bits(&self) -> u64;
}

/// A fast generator, seeded by the operating system.
#[derive(Debug, Default, Clone, Copy)]
#[non_exhaustive]
pub struct SystemChance;

impl Chance for SystemChance {
    fn bits(&self) -> u64 {
        fastrand::u64(..)
    }
}
