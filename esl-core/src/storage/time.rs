use std::sync::{Arc, Mutex};

use crate::{Clock, Monotonic, RetryPolicy, Timestamp};

/// The time that a storage goes by, for adapters that take theirs from a [`Clock`].
///
/// It is the clock's time of day, but never runs backwards: when the clock is set back, time goes on
/// from where it was, at the pace of the monotonic clock. So a retry that is due in a minute is due in
/// a minute, whatever is done to the clock meanwhile.
#[derive(Debug)]
pub struct StorageTime {
    clock: Arc<dyn Clock>,
    latest: Mutex<(Timestamp, Monotonic)>,
}

impl StorageTime {
    /// Time by this clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let latest = Mutex::new((clock.utc(), clock.monotonic()));
        Self { clock, latest }
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let mut latest = self.latest.lock().expect("no code panics while it holds this lock");
        let monotonic = self.clock.monotonic();
        let gone_on = latest.0 + monotonic.saturating_sub(latest.1);
        let now = self.clock.utc().max(gone_on);
        // Whole milliseconds only, and what is left of them is kept: many small steps would otherwise add
        // up to none, or to less than they are.
        if now > gone_on {
            *latest = (now, monotonic);
        } else if now > latest.0 {
            *latest = (now, latest.1 + now.since(latest.0));
        }
        latest.0
    }
}

/// When a retry that is stored as due at `stored` is due for one who asks at `now`.
///
/// No delay is longer than [`RetryPolicy::DELAY_MAX`]. A time that is further away was stored while the
/// clock was ahead, by a process that is gone; such a retry is due now.
#[must_use]
pub fn due_time(stored: Timestamp, now: Timestamp) -> Timestamp {
    if stored > now + RetryPolicy::DELAY_MAX { now } else { stored }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::ManualClock;

    #[test]
    fn time_goes_on_when_the_clock_is_set_back_and_follows_it_when_it_is_set_forward() {
        let noon = Timestamp::from_millis(1_705_329_120_000);
        let second = Duration::from_secs(1);
        let clock = ManualClock::new(noon);
        let time = StorageTime::new(Arc::new(clock.clone()));
        clock.set_utc(noon - second * 3600);
        assert_eq!(time.now(), noon);
        clock.advance(second * 5);
        assert_eq!(time.now(), noon + second * 5);
        clock.set_utc(noon + second);
        assert_eq!(time.now(), noon + second * 5);
        clock.set_utc(noon + second * 60);
        assert_eq!(time.now(), noon + second * 60);
    }

    #[test]
    fn set_back_it_goes_on_as_quickly_however_often_one_asks() {
        let noon = Timestamp::from_millis(1_705_329_120_000);
        let clock = ManualClock::new(noon);
        let time = StorageTime::new(Arc::new(clock.clone()));
        clock.set_utc(noon - Duration::from_secs(3600));
        for _ in 0..1000 {
            clock.advance(Duration::from_micros(1_500));
            let _asked = time.now();
        }
        assert_eq!(time.now(), noon + Duration::from_millis(1_500));
    }
}
