//! Waking the engine that owns a lane when another one has committed something for it.

use std::fmt;

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::LaneId;

/// Carries hints between engines over one storage.
///
/// A hint only: losing all of them costs time, since every engine looks by itself every few seconds,
/// and never an event.
#[async_trait]
pub trait Wake: fmt::Debug + Send + Sync + 'static {
    /// Tells whoever owns these lanes that there is something in storage for them.
    fn notify(&self, lanes: &[LaneId]);

    /// Waits for hints from others, of lanes that may or may not be ours.
    ///
    /// # Cancellation
    /// A dropped call may lose hints.
    async fn listen(&self) -> Vec<LaneId>;
}

/// Hints by both ways, so that either may fail.
///
/// ```
/// # use esl_core::{InProcessWake, Wake};
/// # fn takes(_: impl Wake) {}
/// takes((InProcessWake::new(), InProcessWake::new()));
/// ```
#[async_trait]
impl<A: Wake, B: Wake> Wake for (A, B) {
    fn notify(&self, lanes: &[LaneId]) {
        self.0.notify(lanes);
        self.1.notify(lanes);
    }

    async fn listen(&self) -> Vec<LaneId> {
        // The one that is dropped may lose hints, as may whoever drops this.
        tokio::select! {
            lanes = self.0.listen() => lanes,
            lanes = self.1.listen() => lanes,
        }
    }
}

/// Hints between engines of one process.
///
/// ```
/// # use esl_core::InProcessWake;
/// let first = InProcessWake::new();
/// let second = first.join(); // for the second engine
/// ```
#[derive(Debug)]
pub struct InProcessWake {
    sender: broadcast::Sender<Vec<LaneId>>,
    receiver: tokio::sync::Mutex<broadcast::Receiver<Vec<LaneId>>>,
}

impl InProcessWake {
    /// For the first engine.
    #[must_use]
    pub fn new() -> Self {
        Self::with(broadcast::channel(256).0)
    }

    /// For one more engine.
    #[must_use]
    pub fn join(&self) -> Self {
        Self::with(self.sender.clone())
    }

    fn with(sender: broadcast::Sender<Vec<LaneId>>) -> Self {
        let receiver = tokio::sync::Mutex::new(sender.subscribe());
        Self { sender, receiver }
    }
}

impl Default for InProcessWake {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Wake for InProcessWake {
    fn notify(&self, lanes: &[LaneId]) {
        // Nobody listens while the engines start.
        let _heard = self.sender.send(lanes.to_vec());
    }

    async fn listen(&self) -> Vec<LaneId> {
        loop {
            match self.receiver.lock().await.recv().await {
                Ok(lanes) => return lanes,
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}
