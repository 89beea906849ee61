//! What an embedder holds.

use std::{fmt, sync::Arc};

use esl_core::Esl;
use tokio::{sync::Mutex, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    BrokerState, BrokerUrl,
    state::StateCell,
    supervisor::{self, Parts},
    wake::{AmqpWake, Hints},
};

/// Puts together what an engine has to do with a broker. Nothing is connected until
/// [`start`](Self::start).
#[derive(Debug)]
#[must_use = "nothing runs until `start`"]
pub struct Broker {
    parts: Parts,
}

impl Broker {
    /// With the broker there.
    pub const fn new(url: BrokerUrl) -> Self {
        Self { parts: Parts { url, hints: None, events: None, ingest: None } }
    }

    /// Hints between this engine and the others over the same storage. Each engine needs a `Broker` of
    /// its own.
    pub fn wake(&mut self) -> AmqpWake {
        let hints = self.parts.hints.get_or_insert_with(|| Arc::new(Hints::new()));
        AmqpWake::new(Arc::clone(hints))
    }

    /// Sends every event that is committed to the exchange `esl.events`: those that are committed after
    /// this was first asked for on the storage, whoever publishes them. One of the engines over a storage
    /// does it at a time.
    pub fn events(mut self, esl: Esl) -> Self {
        self.parts.events = Some(esl);
        self
    }

    /// Publishes events that come to the queue `esl.ingest`. Whoever may write there publishes for every
    /// organization.
    pub fn ingest(mut self, esl: Esl) -> Self {
        self.parts.ingest = Some(esl);
        self
    }

    /// Connects, and goes on to connect, on the current tokio runtime. That the broker is away is no
    /// error, and is seen in [`BrokerLink::state`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(self) -> BrokerLink {
        let (state, stop) = (Arc::new(StateCell::default()), CancellationToken::new());
        let run = supervisor::run(self.parts, Arc::clone(&state), stop.clone());
        BrokerLink { state, stop, task: Mutex::new(Some(tokio::spawn(run))) }
    }
}

/// A broker that an engine is joined to, or tries to be. Dropped, it ends at once, and what had come in
/// and was not acknowledged comes again.
pub struct BrokerLink {
    state: Arc<StateCell>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl BrokerLink {
    /// How it stands.
    #[must_use]
    pub fn state(&self) -> BrokerState {
        self.state.get()
    }

    /// Waits until the state is such as is wanted: connected, for instance.
    pub async fn until(&self, is_so: impl FnMut(&BrokerState) -> bool) -> BrokerState {
        self.state.until(is_so).await
    }

    /// Takes nothing more in, acknowledges what is being published, and disconnects; in some seconds at
    /// most. To be called before the engine is shut down. Calling it twice is fine.
    ///
    /// # Panics
    /// If the task has panicked, which only a bug makes it do.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        let mut task = self.task.lock().await;
        if let Some(running) = task.as_mut() {
            let ended = running.await;
            *task = None;
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}

impl Drop for BrokerLink {
    fn drop(&mut self) {
        if let Some(running) = self.task.get_mut() {
            running.abort();
        }
    }
}

impl fmt::Debug for BrokerLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerLink").field("state", &self.state()).finish_non_exhaustive()
    }
}
