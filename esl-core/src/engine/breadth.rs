//! How many sends there may be at once, so that they do not wait for each other here.
//!
//! Against slow receivers, thousands of sends at once cost little and are needed. Against quick ones,
//! a few dozen use all that the machine has, and any more only queue up in front of its processors,
//! where everybody's publishes and deliveries wait behind them. So the **breadth** follows how long a
//! task waits until it is run: it grows by a quarter while that is short and the breadth is what holds
//! sends back, and shrinks by a quarter when it is long.
//!
//! A send that has been under way for a while waits for its receiver and not for us. It does not count,
//! so receivers that hang take nothing from the others.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{driver::Driver, tenure::pause};

/// The sends there may be at once, and those that there are.
#[derive(Debug)]
pub(crate) struct Breadth {
    now: u32,
    max: u32,
    /// How many sends began in each of the last few pulses and are under way, the latest last.
    recent: VecDeque<u32>,
    /// The number of the first of these pulses.
    first: u64,
    /// How many sends that is in all.
    counted: u32,
    /// Whether it has kept a send back since the last pulse.
    has_held_back: bool,
}

impl Breadth {
    pub(crate) fn new(max: u32) -> Self {
        Self {
            now: BREADTH_MIN.min(max),
            max,
            recent: VecDeque::from([0]),
            first: 0,
            counted: 0,
            has_held_back: false,
        }
    }

    /// Whether another send may begin. If not, that is remembered until the next pulse.
    pub(crate) fn has_room(&mut self) -> bool {
        let has_room = self.counted < self.now;
        self.has_held_back |= !has_room;
        has_room
    }

    /// A send begins. Gives the pulse that it belongs to.
    pub(crate) fn begin(&mut self) -> u64 {
        self.counted += 1;
        *self.recent.back_mut().expect("there is a latest pulse") += 1;
        self.first + self.recent.len() as u64 - 1
    }

    /// A send is over.
    pub(crate) fn end(&mut self, pulse: u64) {
        let index = pulse.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some(count) = index.and_then(|index| self.recent.get_mut(index)) {
            *count -= 1;
            self.counted -= 1;
        }
    }

    /// A pulse has passed, in which a task waited so long until it was run.
    pub(crate) fn pulse(&mut self, wait: Duration) {
        if wait > WAIT_MAX {
            self.now = (self.now / 4 * 3).max(BREADTH_MIN);
        } else if self.has_held_back {
            self.now += (self.now / 4).max(1);
        } else if self.counted < self.now / 2 {
            // What is not used says nothing of what could be.
            self.now = (self.now - (self.now / 8).max(1)).max(BREADTH_MIN);
        }
        self.now = self.now.min(self.max);
        self.has_held_back = false;
        self.recent.push_back(0);
        if self.recent.len() > PULSES_COUNTED {
            self.first += 1;
            self.counted -= self.recent.pop_front().expect("there are some");
        }
    }

    /// Whether a send was kept back that a pulse may let go.
    pub(crate) const fn has_held_back(&self) -> bool {
        self.has_held_back
    }

    /// Whether the next pulse changes nothing, unless a send is kept back before.
    pub(crate) fn is_at_rest(&self) -> bool {
        !self.has_held_back && self.now == BREADTH_MIN.min(self.max)
    }
}

/// Adapts the breadth while it matters, until it is stopped.
pub(crate) async fn run(driver: Arc<Driver>, stop: CancellationToken) {
    loop {
        // Both arms may be dropped: they hold nothing.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = driver.crowded.notified() => {}
        }
        while pause(&driver, PULSE_EVERY, &stop).await {
            let before = driver.clock.monotonic();
            tokio::task::yield_now().await;
            let wait = driver.clock.monotonic().saturating_sub(before);
            let is_at_rest = driver.update(|lanes| lanes.pulse(wait));
            if is_at_rest {
                break;
            }
        }
    }
}

/// Between two pulses.
const PULSE_EVERY: Duration = Duration::from_millis(5);
/// A send counts for so many pulses: longer than receivers take that are close and well.
const PULSES_COUNTED: usize = 50;
/// While a task waits no longer than this, there is time for more.
const WAIT_MAX: Duration = Duration::from_micros(250);
/// Enough to keep a few processors busy with receivers that answer at once.
const BREADTH_MIN: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(50);
    const LONG: Duration = Duration::from_millis(20);

    /// Begins as many sends as there is room for.
    fn fill(breadth: &mut Breadth) -> Vec<u64> {
        std::iter::from_fn(|| breadth.has_room().then(|| breadth.begin())).collect()
    }

    #[test]
    fn against_slow_receivers_it_grows_to_the_full_within_a_second() {
        let mut breadth = Breadth::new(4096);
        let mut under_way = 0;
        for _ in 0..200 {
            under_way += fill(&mut breadth).len();
            breadth.pulse(SHORT);
        }
        assert!(under_way > 4096, "{under_way}");
    }

    #[test]
    fn what_waits_for_us_shrinks_it_and_never_to_nothing() {
        let mut breadth = Breadth::new(4096);
        for _ in 0..20 {
            fill(&mut breadth);
            breadth.pulse(SHORT);
        }
        let widest = breadth.now;
        assert!(widest > 100, "{widest}");
        breadth.pulse(LONG);
        assert!(breadth.now < widest && breadth.now > widest / 2, "{}", breadth.now);
        for _ in 0..100 {
            breadth.pulse(LONG);
        }
        assert_eq!(breadth.now, BREADTH_MIN);
    }

    #[test]
    fn a_send_that_takes_long_does_not_count_and_its_end_changes_nothing() {
        let mut breadth = Breadth::new(4096);
        let hung = fill(&mut breadth);
        assert_eq!(hung.len(), BREADTH_MIN as usize);
        assert!(!breadth.has_room());
        (0..PULSES_COUNTED).for_each(|_| breadth.pulse(LONG));
        let quick = fill(&mut breadth);
        assert_eq!(quick.len(), BREADTH_MIN as usize);
        hung.into_iter().for_each(|pulse| breadth.end(pulse));
        assert!(!breadth.has_room());
        quick.into_iter().for_each(|pulse| breadth.end(pulse));
        assert_eq!(breadth.counted, 0);
    }

    #[test]
    fn what_is_not_used_goes_back_to_rest() {
        let mut breadth = Breadth::new(4096);
        for _ in 0..20 {
            fill(&mut breadth).into_iter().for_each(|pulse| breadth.end(pulse));
            breadth.pulse(SHORT);
        }
        assert!(!breadth.is_at_rest());
        for _ in 0..100 {
            breadth.pulse(SHORT);
        }
        assert!(breadth.is_at_rest());
    }

    #[test]
    fn fewer_than_its_least_may_be_all_there_is() {
        let mut breadth = Breadth::new(1);
        assert_eq!(fill(&mut breadth).len(), 1);
        breadth.pulse(LONG);
        breadth.pulse(SHORT);
        assert_eq!(breadth.now, 1);
    }
}
