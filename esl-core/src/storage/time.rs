use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use crate::{Clock, Monotonic, RetryPolicy, Timestamp};

/// The time that a storage goes by, for adapters that take theirs from a [`Clock`]; and for engines, which
/// [follow](Self::follow) that of their storage.
///
/// It is the clock's time of day, but never runs backwards: when the clock is set back, time goes on
/// from where it was, at the pace of the monotonic clock. So a retry that is due in a minute is due in
/// a minute, whatever is done to the clock meanwhile.
#[derive(Debug)]
pub struct StorageTime {
    clock: Arc<dyn Clock>,
    latest: Mutex<Latest>,
}

/// What time it was, and when.
#[derive(Debug)]
struct Latest {
    time: Timestamp,
    at: Monotonic,
    /// Whether the clock's time of day counts, or only how much time has passed.
    is_by_clock: bool,
}

impl StorageTime {
    /// Time by this clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let (time, at) = (clock.utc(), clock.monotonic());
        Self { clock, latest: Mutex::new(Latest { time, at, is_by_clock: true }) }
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let mut latest = self.lock();
        let monotonic = self.clock.monotonic();
        let gone_on = latest.gone_on(monotonic);
        let now = if latest.is_by_clock { self.clock.utc().max(gone_on) } else { gone_on };
        // Whole milliseconds only, and what is left of them is kept: many small steps would otherwise add
        // up to none, or to less than they are.
        if now > gone_on {
            (latest.time, latest.at) = (now, monotonic);
        } else if now > latest.time {
            let since = now.since(latest.time);
            (latest.time, latest.at) = (now, latest.at + since);
        }
        latest.time
    }

    /// Goes by the time of a storage, which was asked at `asked_at` by the monotonic clock what time it is,
    /// and has said `time` by now.
    ///
    /// While the clock comes to the same time, it still counts, and with it whatever is done to it: it is
    /// the storage's own, or as good as that. Where it does not, only the storage's time counts from now
    /// on, and how much of it has passed. Time that is a little ahead then waits for the storage's; what is
    /// further ahead was wrong, and is taken back.
    pub fn follow(&self, time: Timestamp, asked_at: Monotonic) {
        let mut latest = self.lock();
        let monotonic = self.clock.monotonic();
        let gone_on = latest.gone_on(monotonic);
        // The storage has answered at some moment since it was asked, in whole milliseconds.
        let (earliest, last) = (time, time + monotonic.saturating_sub(asked_at) + MILLISECOND);
        let by_clock = self.clock.utc().max(gone_on);
        latest.is_by_clock = earliest <= by_clock + MILLISECOND && by_clock <= last;
        if latest.is_by_clock {
            return;
        }
        let ahead = gone_on.since(last);
        (latest.time, latest.at) = if ahead > AHEAD_MAX {
            (earliest, monotonic)
        } else if ahead > Duration::ZERO {
            (gone_on, monotonic + ahead)
        } else {
            (gone_on.max(earliest), monotonic)
        };
    }

    fn lock(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().expect("no code panics while it holds this lock")
    }
}

impl Latest {
    fn gone_on(&self, now: Monotonic) -> Timestamp {
        self.time + now.saturating_sub(self.at)
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);
/// By so much the time of an engine may be ahead of its storage's and wait for it.
const AHEAD_MAX: Duration = Duration::from_secs(1);

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

    const NOON: Timestamp = Timestamp::from_millis(1_705_329_120_000);
    const SECOND: Duration = Duration::from_secs(1);

    /// The time of a node whose clock is at noon, and the clock.
    fn at_noon() -> (StorageTime, ManualClock) {
        let clock = ManualClock::new(NOON);
        (StorageTime::new(Arc::new(clock.clone())), clock)
    }

    #[test]
    fn a_node_whose_clock_is_wrong_goes_by_its_storage() {
        for storage in [NOON - SECOND * 600, NOON + SECOND * 600] {
            let (time, clock) = at_noon();
            time.follow(storage, Duration::ZERO);
            clock.advance(SECOND * 5);
            assert_eq!(time.now(), storage + SECOND * 5);
            // Whatever is done to the clock.
            clock.set_utc(NOON + SECOND * 3600);
            assert_eq!(time.now(), storage + SECOND * 5);
        }
    }

    #[test]
    fn a_node_whose_clock_is_the_storages_goes_on_going_by_it() {
        let (time, clock) = at_noon();
        clock.advance(SECOND);
        time.follow(NOON + MILLISECOND * 400, Duration::ZERO);
        assert_eq!(time.now(), NOON + SECOND);
        clock.set_utc(NOON + SECOND * 3600);
        assert_eq!(time.now(), NOON + SECOND * 3600);
        // Set back, the storage goes on, too; and then both follow the clock again.
        clock.set_utc(NOON);
        clock.advance(SECOND);
        let asked_at = clock.monotonic();
        time.follow(NOON + SECOND * 3601, asked_at);
        clock.set_utc(NOON + SECOND * 7200);
        assert_eq!(time.now(), NOON + SECOND * 7200);
    }

    #[test]
    fn a_little_ahead_it_waits_and_never_goes_back() {
        let (time, clock) = at_noon();
        time.follow(NOON + SECOND * 60, Duration::ZERO);
        clock.advance(SECOND * 5);
        let before = time.now();
        assert_eq!(before, NOON + SECOND * 65);
        // This node's second is shorter than the storage's.
        let asked_at = clock.monotonic();
        time.follow(NOON + SECOND * 65 - MILLISECOND * 500, asked_at);
        assert_eq!(time.now(), before);
        clock.advance(MILLISECOND * 499);
        assert_eq!(time.now(), before);
        clock.advance(MILLISECOND * 10);
        assert_eq!(time.now(), before + MILLISECOND * 10);
    }

    #[test]
    fn an_answer_that_took_long_changes_nothing_that_it_does_not_contradict() {
        let (time, clock) = at_noon();
        time.follow(NOON + SECOND * 60, Duration::ZERO);
        clock.advance(SECOND * 5);
        let asked_at = clock.monotonic() - SECOND * 2;
        time.follow(NOON + SECOND * 64, asked_at);
        assert_eq!(time.now(), NOON + SECOND * 65);
        time.follow(NOON + SECOND * 70, asked_at);
        assert_eq!(time.now(), NOON + SECOND * 70);
    }
}
