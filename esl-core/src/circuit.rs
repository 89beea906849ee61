//! The circuit: how a lane keeps off a receiver that only fails.
//!
//! It delays and nothing else. While it is open one delivery at a time is tried, as a probe that is
//! not charged; the first success closes it.

use std::time::Duration;

use crate::{DisabledReason, Subscription, Timestamp, storage::LaneState};

/// It opens after so many failures in a row …
pub const FAILURES_TO_OPEN: u32 = 10;
/// … from at least so many deliveries.
pub const DELIVERIES_TO_OPEN: u32 = 3;
/// The first probe comes so long after it opened; each further wait is twice as long.
pub const FIRST_PROBE_AFTER: Duration = Duration::from_secs(30);
/// No wait between probes is longer.
pub const PROBE_DELAY_MAX: Duration = Duration::from_secs(10 * 60);
/// A subscription whose receiver has only failed for so long is switched off …
pub const SWITCH_OFF_AFTER: Duration = Duration::from_secs(5 * 24 * 60 * 60);
/// … if that was at least so many attempts.
pub const SWITCH_OFF_ATTEMPTS: u32 = 20;
/// Of deliveries that were given up an organization is told so often at most, for each subscription.
pub const EXHAUSTION_TOLD_EVERY: Duration = Duration::from_secs(60 * 60);

const HOUR_MILLIS: i64 = 60 * 60 * 1000;

/// One failed attempt, as far as the circuit cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    /// Whether the delivery is another than those that failed before it in this row.
    pub is_new_delivery: bool,
    /// Whether it was the open circuit's probe.
    pub is_probe: bool,
    /// How long the receiver asked us to wait.
    pub retry_after: Option<Duration>,
}

impl LaneState {
    /// Whether only probes may be sent.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open_probes.is_some()
    }

    /// The state after a 2xx.
    #[must_use]
    pub fn after_success(self, now: Timestamp) -> Self {
        // To the hour, so that a healthy lane's row is written once an hour and not at every success.
        let hour = Timestamp::from_millis(now.as_millis() / HOUR_MILLIS * HOUR_MILLIS);
        let exhaustion_told_at = self.exhaustion_told_at;
        Self { last_success_at: Some(hour), exhaustion_told_at, ..Self::default() }
    }

    /// The state after a failure.
    #[must_use]
    pub fn after_failure(self, strike: Strike, now: Timestamp) -> Self {
        let mut next = self;
        next.failures = self.failures.saturating_add(1);
        next.failing_since = self.failing_since.or(Some(now));
        if strike.is_new_delivery {
            next.failed_deliveries = (self.failed_deliveries + 1).min(DELIVERIES_TO_OPEN);
        }
        let opens =
            next.failures >= FAILURES_TO_OPEN && next.failed_deliveries >= DELIVERIES_TO_OPEN;
        let wait = match self.open_probes {
            None if opens => {
                next.open_probes = Some(0);
                Some(FIRST_PROBE_AFTER)
            }
            Some(failed) if strike.is_probe => {
                let failed = failed.saturating_add(1);
                next.open_probes = Some(failed);
                let factor = 1_u32.checked_shl(failed).unwrap_or(u32::MAX);
                Some(FIRST_PROBE_AFTER.saturating_mul(factor).min(PROBE_DELAY_MAX))
            }
            // Sent before it opened: says nothing new.
            Some(_) | None => None,
        };
        let until = wait.max(strike.retry_after).map(|wait| now + wait);
        next.not_before = self.not_before.max(until);
        next
    }

    /// The state after somebody changed the subscription: a new URL is another receiver, of whom
    /// nothing is known; and one who resumes wants to see at once what happens, and not to be switched
    /// off again for what was before.
    #[must_use]
    pub fn after_update(self, before: &Subscription, after: &Subscription) -> Self {
        if before.callback_url != after.callback_url {
            Self { exhaustion_told_at: self.exhaustion_told_at, ..Self::default() }
        } else if !before.active && after.active {
            Self {
                failures: 0,
                failed_deliveries: 0,
                failing_since: None,
                not_before: None,
                ..self
            }
        } else {
            self
        }
    }

    /// Whether the organization is to be told that a delivery was given up: an hour after it was told
    /// last.
    #[must_use]
    pub fn is_to_tell_of_exhaustion(&self, now: Timestamp) -> bool {
        self.exhaustion_told_at.is_none_or(|told| now.since(told) >= EXHAUSTION_TOLD_EVERY)
    }

    /// Whether so much failure is reason to switch the subscription off.
    #[must_use]
    pub fn to_switch_off(&self, now: Timestamp) -> Option<DisabledReason> {
        let since = self.failing_since?;
        let is_hopeless =
            now.since(since) >= SWITCH_OFF_AFTER && self.failures >= SWITCH_OFF_ATTEMPTS;
        is_hopeless.then_some(DisabledReason::Failing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_705_329_120_000);

    fn strike(is_new_delivery: bool, is_probe: bool) -> Strike {
        Strike { is_new_delivery, is_probe, retry_after: None }
    }

    fn after(failures: u32, deliveries: u32) -> LaneState {
        (0..failures).fold(LaneState::default(), |state, index| {
            state.after_failure(strike(index < deliveries, false), START)
        })
    }

    #[test]
    fn it_opens_after_ten_failures_of_three_deliveries() {
        for (failures, deliveries, is_open) in
            [(9, 9, false), (10, 2, false), (10, 3, true), (50, 2, false), (50, 50, true)]
        {
            assert_eq!(after(failures, deliveries).is_open(), is_open, "{failures} {deliveries}");
        }
        let open = after(10, 3);
        assert_eq!(open.not_before, Some(START + FIRST_PROBE_AFTER));
        assert_eq!(open.failing_since, Some(START));
    }

    #[test]
    fn probes_come_after_30_60_120_seconds_up_to_ten_minutes() {
        let mut state = after(10, 3);
        let mut waits = vec![];
        for _ in 0..6 {
            let now = state.not_before.expect("it is open");
            state = state.after_failure(strike(false, true), now);
            waits.push(state.not_before.expect("it is open").since(now).as_secs());
        }
        assert_eq!(waits, [60, 120, 240, 480, 600, 600]);
    }

    #[test]
    fn a_straggler_does_not_move_the_probe_and_a_success_closes_it() {
        let open = after(10, 3);
        let later = open.after_failure(strike(true, false), START + Duration::from_secs(10));
        assert_eq!(later.not_before, open.not_before);
        let closed = later.after_success(START);
        assert_eq!((closed.is_open(), closed.not_before, closed.failures), (false, None, 0));
    }

    #[test]
    fn a_receiver_may_ask_for_more_time_than_the_circuit_but_not_for_less() {
        let wait = |seconds| Some(Duration::from_secs(seconds));
        let patient = LaneState::default()
            .after_failure(Strike { retry_after: wait(90), ..strike(true, false) }, START);
        assert_eq!(patient.not_before, Some(START + Duration::from_secs(90)));
        let sooner =
            patient.after_failure(Strike { retry_after: wait(1), ..strike(true, false) }, START);
        assert_eq!(sooner.not_before, patient.not_before);
    }

    #[test]
    fn five_days_and_twenty_attempts_of_nothing_else_switch_off() {
        let day = Duration::from_secs(24 * 60 * 60);
        assert_eq!(after(20, 1).to_switch_off(START + 5 * day), Some(DisabledReason::Failing));
        assert_eq!(after(19, 1).to_switch_off(START + 5 * day), None);
        assert_eq!(after(20, 1).to_switch_off(START + 4 * day), None);
        assert_eq!(LaneState::default().to_switch_off(START + 9 * day), None);
    }
}
