//! What everything in a simulated world shares.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    future::Future,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use esl_core::{
    Clock, MemoryStorage, Monotonic, RetryPolicy, Timestamp, storage::FAN_OUT_ABOVE,
    testing::ManualClock,
};

use crate::{bug::Bug, dice::Dice, faults::Faults, ledger::Ledger, trace::Trace};

pub(crate) const START: Timestamp = Timestamp::from_millis(1_705_329_120_000);

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) clock: ManualClock,
    /// For whatever goes wrong.
    pub(crate) dice: Dice,
    pub(crate) faults: Faults,
    /// The storage as it is, without faults.
    pub(crate) truth: MemoryStorage,
    /// The engines' own way to try again.
    pub(crate) retry: RetryPolicy,
    /// An event for more lanes is fanned out …
    pub(crate) fan_out_above: usize,
    /// … in slices of so many.
    pub(crate) slice: usize,
    pub(crate) bug: Option<Bug>,
    is_healed: AtomicBool,
    ledger: Mutex<Ledger>,
    trace: Mutex<Trace>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    /// The next call of this name fails when all is done.
    loses_answer_of: Mutex<Option<&'static str>>,
    /// Calls of storage since time last moved.
    calls: AtomicU64,
}

impl World {
    pub(crate) fn new(dice: &Dice, bug: Option<Bug>, keeps_text: bool) -> Self {
        let clock = ManualClock::new(START);
        let fan_out_above = *dice.pick(&[FAN_OUT_ABOVE, 1, 2, 3]);
        let truth = MemoryStorage::with_clock(std::sync::Arc::new(clock.clone()))
            .fanning_out_above(fan_out_above);
        let first = *dice.pick(&[100, 1000, 1000, 5000]);
        let retry = RetryPolicy::default()
            .with_budget(u32::try_from(dice.between(0, 5)).unwrap())
            .with_first_delay(Duration::from_millis(first));
        Self {
            clock,
            dice: dice.fork(),
            faults: Faults::draw(dice),
            truth,
            retry,
            fan_out_above,
            slice: *dice.pick(&[1, 1, 2, 250]),
            bug,
            is_healed: AtomicBool::new(false),
            ledger: Mutex::default(),
            trace: Mutex::new(Trace::new(keeps_text)),
            counts: Mutex::default(),
            loses_answer_of: Mutex::default(),
            calls: AtomicU64::new(0),
        }
    }

    pub(crate) fn now(&self) -> Monotonic {
        self.clock.monotonic()
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    /// From now on nothing goes wrong any more.
    pub(crate) fn heal(&self) {
        self.is_healed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_healed(&self) -> bool {
        self.is_healed.load(Ordering::Relaxed)
    }

    /// Whether something goes wrong that has this chance; if so, it is counted.
    pub(crate) fn strikes(&self, fault: &'static str, permille: u32) -> bool {
        let strikes = !self.is_healed() && permille > 0 && self.dice.permille(permille);
        if strikes {
            self.count(fault);
        }
        strikes
    }

    pub(crate) fn count(&self, what: &'static str) {
        *self.counts.lock().unwrap().entry(what).or_default() += 1;
    }

    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().unwrap().clone()
    }

    pub(crate) fn note(&self, line: fmt::Arguments<'_>) {
        let now = self.now();
        writeln!(self.trace.lock().unwrap(), "{:>12.3} {line}", now.as_secs_f64()).unwrap();
    }

    pub(crate) fn trace(&self) -> MutexGuard<'_, Trace> {
        self.trace.lock().unwrap()
    }

    pub(crate) fn violation(&self, what: fmt::Arguments<'_>) {
        self.note(format_args!("VIOLATION {what}"));
        let violation = format!("at {:.3} s: {what}", self.now().as_secs_f64());
        self.ledger().violations.push(violation);
    }

    pub(crate) fn lose_answer_of(&self, operation: &'static str) {
        *self.loses_answer_of.lock().unwrap() = Some(operation);
    }

    /// Whether the answer of this call is lost.
    pub(crate) fn loses_answer(&self, operation: &'static str) -> bool {
        self.loses_answer_of.lock().unwrap().take_if(|lost| *lost == operation).is_some()
    }

    pub(crate) fn called(&self) {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        assert!(calls < 200_000, "storage is called over and over while no time passes");
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.calls.store(0, Ordering::Relaxed);
        self.clock.advance(by);
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        self.clock.sleep_until(self.now() + duration).await;
    }
}

/// The in-memory storage answers at once.
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it does not answer at once"),
    }
}
