//! Pace: so many things in a second, on average.

use std::{num::NonZeroU32, time::Duration};

use crate::Monotonic;

/// A bucket of permits that fills at a steady rate. It holds a fiftieth of a second's worth, and one
/// at least: what was not used is not saved up for a burst.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    per_second: NonZeroU32,
    /// Permits, as the time that they take to come.
    saved: Duration,
    as_of: Monotonic,
}

impl Pace {
    pub(super) fn new(per_second: NonZeroU32, now: Monotonic) -> Self {
        let mut pace = Self { per_second, saved: Duration::ZERO, as_of: now };
        pace.saved = pace.saved_max();
        pace
    }

    pub(super) const fn per_second(&self) -> NonZeroU32 {
        self.per_second
    }

    /// Uses one permit, which the caller knows to be there. Says when to come again if there is no
    /// other.
    pub(super) fn take(&mut self, now: Monotonic) -> Option<Monotonic> {
        self.fill(now);
        self.saved = self.saved.saturating_sub(self.interval());
        if self.saved >= self.interval() {
            return None;
        }
        // Until half of what fits is there, so that a high rate does not ask for a timer each time.
        let wanted = (self.saved_max() / 2).max(self.interval());
        Some(now + (wanted - self.saved))
    }

    fn fill(&mut self, now: Monotonic) {
        let passed = now.saturating_sub(self.as_of);
        self.saved = self.saved.saturating_add(passed).min(self.saved_max());
        self.as_of = now;
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.per_second.get()
    }

    fn saved_max(&self) -> Duration {
        BURST.max(self.interval())
    }
}

/// So much of a second may come at once.
const BURST: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    /// How many permits are used by when, by one who takes all that there are.
    fn used(per_second: u32, until: Duration) -> u32 {
        let start = Monotonic::ZERO;
        let mut pace = Pace::new(NonZeroU32::new(per_second).expect("a rate"), start);
        let (mut now, mut used) = (start, 0);
        while now < start + until {
            used += 1;
            if let Some(again) = pace.take(now) {
                assert!(again > now);
                now = again;
            }
        }
        used
    }

    #[test]
    fn in_the_long_run_the_rate_is_kept_and_bursts_are_a_fiftieth() {
        for rate in [1, 2, 3, 7, 50, 1000, 5000, 100_000] {
            let burst = (rate / 50).max(1);
            let ten_seconds = used(rate, Duration::from_secs(10));
            let expected = 10 * rate;
            assert!((expected..=expected + burst).contains(&ten_seconds), "{rate}: {ten_seconds}");
        }
    }

    #[test]
    fn idle_time_saves_up_no_burst() {
        let start = Monotonic::ZERO;
        let mut pace = Pace::new(NonZeroU32::new(100).expect("a rate"), start);
        let later = start + Duration::from_secs(3600);
        let at_once = (1..).find(|_| pace.take(later).is_some());
        assert_eq!(at_once, Some(2));
    }
}
