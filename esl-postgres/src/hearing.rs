//! What a listening connection has brought, and whether it brings anything.

use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use esl_core::storage::{StorageError, StorageErrorKind};
use tokio::{sync::Notify, time::sleep_until};

use crate::{error::refused, listen::OPERATION};

/// What a connection has brought, until it is read.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    state: Mutex<State>,
    news: Notify,
    has_ended: AtomicBool,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) look: bool,
    pub(crate) echo: Option<u64>,
}

impl Heard {
    pub(crate) fn note(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.news.notify_one();
    }

    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.news.notify_one();
    }

    /// Waits until there is something, or a time has come.
    pub(crate) async fn wait(&self, until: Instant) -> Result<State, StorageError> {
        loop {
            if self.has_ended.load(Ordering::Acquire) {
                let why = "the connection was closed";
                return Err(refused(StorageErrorKind::Unavailable, OPERATION).with_source(why));
            }
            let state = std::mem::take(&mut *self.state());
            if state.look || state.echo.is_some() {
                return Ok(state);
            }
            // Both arms may be dropped: they hold nothing.
            tokio::select! {
                () = self.news.notified() => {}
                () = sleep_until(until.into()) => return Ok(State::default()),
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }
}

/// Whether this connection hears: what it says to itself, by way of another one, must come back.
#[derive(Debug)]
pub(crate) struct Echo {
    number: u64,
    state: EchoState,
    pub(crate) was_heard: bool,
}

#[derive(Debug, Clone, Copy)]
enum EchoState {
    /// Nothing is asked for.
    Quiet {
        until: Option<Instant>,
    },
    /// It may not have been said yet.
    Asked,
    Said {
        at: Instant,
    },
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Wait,
    Ask(u64),
    Missed,
}

impl Echo {
    /// Numbers go on from that which was said last.
    pub(crate) const fn new(last: u64) -> Self {
        Self { number: last, state: EchoState::Quiet { until: None }, was_heard: false }
    }

    /// True if it is what was asked for.
    pub(crate) fn hear(&mut self, number: u64) -> bool {
        if number != self.number {
            return false;
        }
        self.was_heard = true;
        self.state = EchoState::Quiet { until: Some(Instant::now() + ECHO_EVERY) };
        true
    }

    pub(crate) fn step(&mut self, said: u64, now: Instant) -> Step {
        match self.state {
            EchoState::Quiet { until } if until.is_some_and(|until| now < until) => Step::Wait,
            EchoState::Quiet { .. } => {
                self.number += 1;
                self.state = EchoState::Asked;
                Step::Ask(self.number)
            }
            EchoState::Asked => {
                // Whoever says it may be without a connection, and is asked again.
                if said >= self.number {
                    self.state = EchoState::Said { at: now };
                }
                Step::Wait
            }
            EchoState::Said { at } if now.saturating_duration_since(at) < ECHO_WITHIN => Step::Wait,
            EchoState::Said { .. } => {
                self.state = EchoState::Quiet { until: Some(now + ECHO_EVERY) };
                Step::Missed
            }
        }
    }
}

const ECHO_EVERY: Duration = Duration::from_secs(5);
const ECHO_WITHIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_that_does_not_come_back_is_missed_once_it_was_said() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut echo = Echo::new(7);
        assert_eq!(echo.step(7, at(0)), Step::Ask(8));
        // Nobody has said it yet.
        assert_eq!(echo.step(7, at(9_000)), Step::Wait);
        assert_eq!(echo.step(8, at(10_000)), Step::Wait);
        assert_eq!(echo.step(8, at(11_999)), Step::Wait);
        assert_eq!(echo.step(8, at(12_000)), Step::Missed);
        assert_eq!(echo.step(8, at(16_999)), Step::Wait);
        assert_eq!(echo.step(8, at(17_000)), Step::Ask(9));
        assert!(!echo.hear(8) && !echo.was_heard, "it came too late");
        assert!(echo.hear(9) && echo.was_heard);
        assert_eq!(echo.step(9, Instant::now()), Step::Wait);
    }
}
