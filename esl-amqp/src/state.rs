//! How it stands with the broker.

use std::{error::Error, fmt::Write as _};

use esl_core::Timestamp;
use tokio::sync::watch;

/// How it stands with the broker at this moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerState {
    /// Since when there is a connection on which everything that was asked for is at work. `None` while
    /// there is none.
    pub connected_since: Option<Timestamp>,
    /// What ended the last connection, or hindered the last try. It stays when all is well again.
    pub last_trouble: Option<BrokerTrouble>,
}

/// What was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerTrouble {
    /// When.
    pub at: Timestamp,
    /// What, in words; no user and no password.
    pub what: String,
}

/// The state, as the supervisor keeps it.
#[derive(Debug, Default)]
pub(crate) struct StateCell(watch::Sender<BrokerState>);

impl StateCell {
    pub(crate) fn get(&self) -> BrokerState {
        self.0.borrow().clone()
    }

    /// Waits until it is so.
    pub(crate) async fn until(&self, is_so: impl FnMut(&BrokerState) -> bool) -> BrokerState {
        let mut states = self.0.subscribe();
        let state = states.wait_for(is_so).await;
        state.expect("the sender is in this cell").clone()
    }

    pub(crate) fn connected(&self, at: Timestamp) {
        self.0.send_modify(|state| state.connected_since = Some(at));
    }

    /// There is no connection, or none any more.
    pub(crate) fn disconnected(&self, trouble: Option<BrokerTrouble>) {
        self.0.send_modify(|state| {
            state.connected_since = None;
            if trouble.is_some() {
                state.last_trouble = trouble;
            }
        });
    }
}

impl BrokerTrouble {
    pub(crate) fn new(at: Timestamp, error: &dyn Error) -> Self {
        Self { at, what: in_words(error) }
    }
}

/// An error with what caused it.
fn in_words(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Some errors repeat what caused them.
        let said = error.to_string();
        if !words.contains(&said) {
            _ = write!(words, ": {said}");
        }
        cause = error.source();
    }
    words
}
