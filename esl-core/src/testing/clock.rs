use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::sync::watch;

use crate::{Clock, Monotonic, Timestamp};

/// A clock that stands still until a test moves it. Clones are the same clock.
///
/// ```
/// use std::time::Duration;
/// use esl_core::{Clock, Timestamp, testing::ManualClock};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let clock = ManualClock::new(Timestamp::from_millis(1_705_329_120_000));
/// let sleep = tokio::spawn(clock.sleep_until(clock.monotonic() + Duration::from_secs(5)));
/// clock.wait_for_sleepers(1).await;
/// clock.advance(Duration::from_secs(5));
/// sleep.await.expect("no panic");
/// assert_eq!(clock.utc().to_string(), "2024-01-15T14:32:05.000Z");
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct ManualClock {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Told whenever a task goes to sleep.
    asleep: watch::Sender<()>,
}

struct State {
    /// What time of day it was when it was last set, and the monotonic time then. A time of day has
    /// whole milliseconds; advanced bit by bit, it would lose the fractions.
    set: (Timestamp, Monotonic),
    monotonic: Monotonic,
    sleepers: BTreeMap<SleeperId, Waker>,
    next_sleeper: u64,
}

impl State {
    fn utc(&self) -> Timestamp {
        let (utc, at) = self.set;
        utc + (self.monotonic - at)
    }
}

/// Ordered by deadline; the number keeps sleepers with the same deadline apart.
type SleeperId = (Monotonic, u64);

impl ManualClock {
    /// A clock that shows `utc`. Its monotonic time begins at zero.
    #[must_use]
    pub fn new(utc: Timestamp) -> Self {
        let state = State {
            set: (utc, Duration::ZERO),
            monotonic: Duration::ZERO,
            sleepers: BTreeMap::new(),
            next_sleeper: 0,
        };
        let shared = Shared { state: Mutex::new(state), asleep: watch::Sender::new(()) };
        Self { shared: Arc::new(shared) }
    }

    /// Moves both times on and wakes every task whose sleep is over, in the order of their
    /// deadlines.
    pub fn advance(&self, duration: Duration) {
        let due = {
            let mut state = self.state();
            state.monotonic += duration;
            let last_due = (state.monotonic, u64::MAX);
            let still_asleep = state.sleepers.split_off(&last_due);
            std::mem::replace(&mut state.sleepers, still_asleep)
        };
        // Outside the lock: a waker may run code that asks what time it is.
        for waker in due.into_values() {
            waker.wake();
        }
    }

    /// Sets the time of day, forwards or back. The monotonic time and the sleepers do not notice.
    pub fn set_utc(&self, utc: Timestamp) {
        let mut state = self.state();
        state.set = (utc, state.monotonic);
    }

    /// How many tasks sleep on this clock.
    #[must_use]
    pub fn sleepers(&self) -> usize {
        self.state().sleepers.len()
    }

    /// The earliest deadline of a sleeping task.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Monotonic> {
        self.state().sleepers.keys().next().map(|(deadline, _)| *deadline)
    }

    /// Waits until at least so many tasks sleep.
    pub async fn wait_for_sleepers(&self, count: usize) {
        self.wait_until(|state| (state.sleepers.len() >= count).then_some(())).await;
    }

    /// Waits until a task sleeps whose deadline is `deadline` or earlier, and returns the earliest
    /// deadline there is.
    pub async fn wait_for_sleeper_due_by(&self, deadline: Monotonic) -> Monotonic {
        self.wait_until(|state| {
            let earliest = state.sleepers.keys().next().map(|(deadline, _)| *deadline);
            earliest.filter(|earliest| *earliest <= deadline)
        })
        .await
    }

    async fn wait_until<T>(&self, met: impl Fn(&State) -> Option<T>) -> T {
        let mut asleep = self.shared.asleep.subscribe();
        loop {
            if let Some(value) = met(&self.state()) {
                return value;
            }
            asleep.changed().await.expect("the sender lives in self");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no code panics while it holds this lock")
    }
}

impl Clock for ManualClock {
    fn utc(&self) -> Timestamp {
        self.state().utc()
    }

    fn monotonic(&self) -> Monotonic {
        self.state().monotonic
    }

    fn sleep_until(&self, deadline: Monotonic) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(Sleep { clock: self.clone(), deadline, id: None })
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("ManualClock")
            .field("utc", &state.utc())
            .field("monotonic", &state.monotonic)
            .field("sleepers", &state.sleepers.len())
            .finish()
    }
}

struct Sleep {
    clock: ManualClock,
    deadline: Monotonic,
    /// Set from the first poll on, when the task begins to sleep.
    id: Option<SleeperId>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let clock = self.clock.clone();
        {
            let mut state = clock.state();
            if state.monotonic >= self.deadline {
                return Poll::Ready(());
            }
            let id = self.id.unwrap_or_else(|| {
                state.next_sleeper += 1;
                (self.deadline, state.next_sleeper)
            });
            self.id = Some(id);
            state.sleepers.insert(id, context.waker().clone());
        }
        clock.shared.asleep.send_replace(());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let waker = self.clock.state().sleepers.remove(&id);
            // After the lock is free: dropping a waker may drop the task it belongs to.
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::from_millis(1_705_329_120_000);
    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn only_sleepers_that_are_due_wake() {
        let clock = ManualClock::new(NOON);
        let short = tokio::spawn(clock.sleep_until(SECOND));
        let long = tokio::spawn(clock.sleep_until(SECOND * 2));
        clock.wait_for_sleepers(2).await;
        assert_eq!(clock.wait_for_sleeper_due_by(SECOND).await, SECOND);
        clock.advance(SECOND);
        short.await.expect("no panic");
        assert_eq!((clock.sleepers(), clock.next_deadline()), (1, Some(SECOND * 2)));
        long.abort();
        assert!(long.await.is_err());
        assert_eq!(clock.sleepers(), 0);
    }

    #[test]
    fn many_small_steps_are_as_long_as_one() {
        let clock = ManualClock::new(NOON);
        (0..1000).for_each(|_| clock.advance(Duration::from_micros(1_500)));
        assert_eq!((clock.utc(), clock.monotonic()), (NOON + SECOND * 3 / 2, SECOND * 3 / 2));
    }

    #[tokio::test]
    async fn setting_the_time_of_day_wakes_nobody() {
        let clock = ManualClock::new(NOON);
        let sleep = tokio::spawn(clock.sleep_until(SECOND));
        clock.wait_for_sleepers(1).await;
        clock.set_utc(NOON + SECOND * 3600);
        clock.set_utc(NOON - SECOND * 3600);
        assert_eq!((clock.utc(), clock.monotonic()), (NOON - SECOND * 3600, Duration::ZERO));
        assert_eq!(clock.sleepers(), 1);
        clock.advance(SECOND);
        sleep.await.expect("no panic");
        clock.sleep_until(SECOND).await;
    }
}
