//! The storage's time.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use esl_core::{Clock, Timestamp};

/// A clock that never runs backwards: set back, it stands still until it has caught up.
#[derive(Debug)]
pub(crate) struct StorageTime {
    clock: Arc<dyn Clock>,
    latest: AtomicI64,
}

impl StorageTime {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, latest: AtomicI64::new(0) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        let millis = self.clock.utc().as_millis();
        let latest = self.latest.fetch_max(millis, Ordering::Relaxed);
        Timestamp::from_millis(latest.max(millis))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use esl_core::testing::ManualClock;

    use super::*;

    #[test]
    fn a_clock_that_is_set_back_stands_still_until_it_has_caught_up() {
        let noon = Timestamp::from_millis(1_705_329_120_000);
        let clock = ManualClock::new(noon);
        let time = StorageTime::new(Arc::new(clock.clone()));
        assert_eq!(time.now(), noon);
        clock.set_utc(noon - Duration::from_secs(60));
        assert_eq!(time.now(), noon);
        clock.set_utc(noon + Duration::from_millis(1));
        assert_eq!(time.now(), noon + Duration::from_millis(1));
    }
}
