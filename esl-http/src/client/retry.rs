//! When a request is sent again.

use std::time::Duration;

use super::{ClientErrorKind, exchange::Repeat};

/// How often a request is tried, and how long is waited in between.
///
/// What is safe to repeat (reading, replacing, deleting, and publishing, whose key stays the same) is tried
/// again after a connection that failed or broke, a timeout, 408, 429, 502, 503 and 504. What makes something
/// anew each time is tried again only if it certainly was not done: no connection came about, or 429.
///
/// The wait doubles from try to try, and half of it is left to chance. `Retry-After` is obeyed: it is
/// never waited for less, and where it asks for more than [`patience`](Self::with_patience), the error is
/// given back at once, and says how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    tries: u32,
    first_delay: Duration,
    delay_max: Duration,
    patience: Duration,
}

impl RetryPolicy {
    /// Once, and no more.
    #[must_use]
    pub fn never() -> Self {
        Self::default().with_tries(1)
    }

    /// How often a request is tried at most, the first time included; 0 is 1. Defaults to 5, which with their
    /// delays outlast a restart of the server.
    #[must_use]
    pub const fn with_tries(mut self, tries: u32) -> Self {
        self.tries = tries;
        self
    }

    /// The delay before the second try, and what it grows to at most. Defaults to 250 ms and 10 s.
    #[must_use]
    pub const fn with_delays(mut self, first: Duration, max: Duration) -> Self {
        self.first_delay = first;
        self.delay_max = max;
        self
    }

    /// What `Retry-After` may ask for at most; longer, the call fails at once. Defaults to 30 s, so that an
    /// organization that is out of events for the hour is told, and not held up.
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How long is waited after the `tried`-th try (the first is 1), which failed so; `None` if it is the
    /// last. `draw` is from 0 to 1.
    pub(super) fn wait(
        &self,
        tried: u32,
        failed: ClientErrorKind,
        repeat: Repeat,
        retry_after: Option<Duration>,
        draw: f64,
    ) -> Option<Duration> {
        let is_undone = matches!(failed, ClientErrorKind::Connect | ClientErrorKind::RateLimited);
        let may = match repeat {
            Repeat::Never => false,
            Repeat::WhenUndone => is_undone,
            Repeat::WhenInDoubt => failed.is_transient(),
        };
        if !may || tried >= self.tries || retry_after.is_some_and(|asked| asked > self.patience) {
            return None;
        }
        let doublings = tried.saturating_sub(1).min(31);
        let delay = self.first_delay.saturating_mul(1 << doublings).min(self.delay_max);
        let jitter = (delay / 2).mul_f64(draw);
        // Clients that are sent away together do not come back together.
        Some(retry_after.unwrap_or_default().max(delay / 2).saturating_add(jitter))
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            tries: 5,
            first_delay: Duration::from_millis(250),
            delay_max: Duration::from_secs(10),
            patience: Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(millis: u64) -> Option<Duration> {
        Some(Duration::from_millis(millis))
    }

    #[test]
    fn the_wait_doubles_up_to_its_most_and_half_of_it_is_chance() {
        let policy = RetryPolicy::default().with_tries(9);
        for (tried, draw, expected) in [
            (1, 0.0, millis(125)),
            (1, 1.0, millis(250)),
            (2, 0.5, millis(375)),
            (3, 1.0, millis(1000)),
            (7, 1.0, millis(10_000)),
            (8, 1.0, millis(10_000)),
            (9, 1.0, None),
        ] {
            let wait = policy.wait(tried, ClientErrorKind::Broken, Repeat::WhenInDoubt, None, draw);
            assert_eq!(wait, expected, "{tried} {draw}");
        }
    }

    #[test]
    fn what_the_server_asks_for_is_obeyed_within_patience() {
        let policy = RetryPolicy::default();
        for (asked, expected) in [
            (Duration::ZERO, millis(250)),
            (Duration::from_secs(3), millis(3125)),
            (Duration::from_secs(30), millis(30_125)),
            (Duration::from_secs(31), None),
        ] {
            let kind = ClientErrorKind::Unavailable;
            assert_eq!(
                policy.wait(1, kind, Repeat::WhenInDoubt, Some(asked), 1.0),
                expected,
                "{asked:?}"
            );
        }
    }

    #[test]
    fn what_the_server_asks_for_is_never_too_long_to_be_counted() {
        let policy = RetryPolicy::default().with_patience(Duration::MAX);
        let policy = policy.with_delays(Duration::from_secs(10), Duration::from_secs(10));
        let kind = ClientErrorKind::Unavailable;
        let wait = policy.wait(1, kind, Repeat::WhenInDoubt, Some(Duration::MAX), 1.0);
        assert_eq!(wait, Some(Duration::MAX));
    }

    #[test]
    fn what_may_have_been_done_is_repeated_only_if_that_is_safe() {
        let policy = RetryPolicy::default();
        for (kind, safe, unsafe_too) in [
            (ClientErrorKind::Connect, true, true),
            (ClientErrorKind::RateLimited, true, true),
            (ClientErrorKind::Broken, true, false),
            (ClientErrorKind::Timeout, true, false),
            (ClientErrorKind::Unavailable, true, false),
            (ClientErrorKind::Internal, false, false),
            (ClientErrorKind::Tls, false, false),
            (ClientErrorKind::Unauthorized, false, false),
            (ClientErrorKind::Conflict, false, false),
            (ClientErrorKind::TooLarge, false, false),
            (ClientErrorKind::Unexpected, false, false),
        ] {
            let waits =
                |policy: RetryPolicy, repeat| policy.wait(1, kind, repeat, None, 0.0).is_some();
            assert_eq!(waits(policy, Repeat::WhenInDoubt), safe, "{kind:?}");
            assert_eq!(waits(policy, Repeat::WhenUndone), unsafe_too, "{kind:?}");
            assert!(!waits(policy, Repeat::Never));
            assert!(!waits(RetryPolicy::never(), Repeat::WhenInDoubt));
        }
    }
}
