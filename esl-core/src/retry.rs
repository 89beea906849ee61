//! When to try again.

use std::time::Duration;

use crate::Timestamp;

/// How often, and after how long, a failed delivery is tried again.
///
/// The default is the documented one: 5 retries, the first after 1 s, each delay twice the one
/// before, an hour at most, with ± 20 % of jitter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    budget: u32,
    delays: Delays,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Delays {
    Doubling { first: Duration },
    Schedule(Vec<Duration>),
}

impl RetryPolicy {
    /// No delay is longer.
    pub const DELAY_MAX: Duration = Duration::from_secs(60 * 60);

    /// So many retries: a delivery gets `1 + budget` attempts.
    #[must_use]
    pub const fn with_budget(mut self, budget: u32) -> Self {
        self.budget = budget;
        self
    }

    /// The delay before the first retry; each further one is twice as long.
    #[must_use]
    pub fn with_first_delay(mut self, first: Duration) -> Self {
        self.delays = Delays::Doubling { first };
        self
    }

    /// These delays, exactly and without jitter. With a budget beyond them, the last one repeats;
    /// an empty schedule tries again at once.
    #[must_use]
    pub fn with_schedule(mut self, delays: Vec<Duration>) -> Self {
        self.delays = Delays::Schedule(delays);
        self
    }

    /// The number of retries.
    #[must_use]
    pub const fn budget(&self) -> u32 {
        self.budget
    }

    /// How long to wait after the `charged`-th attempt (the first is 1) has failed.
    #[must_use]
    pub fn delay(&self, charged: u32, draw: Draw) -> Duration {
        let index = charged.saturating_sub(1);
        match &self.delays {
            Delays::Doubling { first } => {
                let factor = 1_u32.checked_shl(index).unwrap_or(u32::MAX);
                let plain = first.saturating_mul(factor).min(Self::DELAY_MAX);
                draw.spread(plain).min(Self::DELAY_MAX)
            }
            Delays::Schedule(delays) => {
                let index = usize::try_from(index).unwrap_or(usize::MAX);
                let delay = delays.get(index).or(delays.last());
                delay.copied().unwrap_or_default().min(Self::DELAY_MAX)
            }
        }
    }

    /// What becomes of a delivery whose `charged`-th attempt (the first is 1) has failed.
    #[must_use]
    pub fn after_failure(&self, charged: u32, now: Timestamp, draw: Draw) -> AfterFailure {
        if charged > self.budget {
            AfterFailure::Exhausted
        } else {
            AfterFailure::RetryAt(now + self.delay(charged, draw))
        }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { budget: 5, delays: Delays::Doubling { first: Duration::from_secs(1) } }
    }
}

/// What becomes of a delivery after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AfterFailure {
    /// It is tried again then.
    RetryAt(Timestamp),
    /// It is given up.
    Exhausted,
}

/// A random number, drawn beforehand, so that the rules that use it are functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw(pub u64);

impl Draw {
    /// The draw that changes nothing: the middle.
    pub const MIDDLE: Self = Self(1 << 63);

    /// 80 % to 120 % of a duration.
    fn spread(self, duration: Duration) -> Duration {
        // 0 ≤ unit < 1, from the draw's upper 53 bits, which is what an f64 holds exactly.
        let unit = (self.0 >> 11) as f64 / (1_u64 << 53) as f64;
        duration.mul_f64(0.8 + 0.4 * unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(delays: &[u64]) -> Vec<Duration> {
        delays.iter().map(|&delay| Duration::from_secs(delay)).collect()
    }

    #[test]
    fn delays_double_up_to_an_hour() {
        let policy = RetryPolicy::default();
        let delays: Vec<_> = (1..=14).map(|n| policy.delay(n, Draw::MIDDLE)).collect();
        assert_eq!(
            delays,
            seconds(&[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600])
        );
        assert_eq!(policy.delay(u32::MAX, Draw::MIDDLE), RetryPolicy::DELAY_MAX);
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        let policy = RetryPolicy::default().with_first_delay(Duration::from_millis(1000));
        assert_eq!(policy.delay(1, Draw(0)), Duration::from_millis(800));
        let highest = policy.delay(1, Draw(u64::MAX));
        assert!(highest > Duration::from_millis(1199) && highest <= Duration::from_millis(1200));
    }

    #[test]
    fn a_schedule_is_kept_to_the_letter() {
        let policy = RetryPolicy::default().with_schedule(seconds(&[5, 7, 9999]));
        let delays: Vec<_> = (1..=4).map(|n| policy.delay(n, Draw(0))).collect();
        assert_eq!(delays, seconds(&[5, 7, 3600, 3600]));
        let none = RetryPolicy::default().with_schedule(vec![]);
        assert_eq!(none.delay(1, Draw(0)), Duration::ZERO);
    }

    #[test]
    fn there_are_one_and_budget_attempts() {
        for budget in [0, 1, 5] {
            let policy = RetryPolicy::default().with_budget(budget);
            let after = |charged| policy.after_failure(charged, Timestamp::EPOCH, Draw::MIDDLE);
            for charged in 1..=budget {
                assert!(matches!(after(charged), AfterFailure::RetryAt(_)));
            }
            assert_eq!(after(budget + 1), AfterFailure::Exhausted);
        }
    }
}
