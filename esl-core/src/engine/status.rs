//! How an engine fares, in figures.

use std::time::Duration;

use super::{Esl, lanes::Now};

/// How an engine fares, as far as it knows without asking its storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Whether it takes lanes and its epoch runs: what is owed is sent.
    pub delivers: bool,
    /// Whether the chores that one of the engines over a storage does for all are its own.
    pub leads: bool,
    /// How many sends are under way.
    pub in_flight: u32,
    /// How many sends are over whose outcome is not committed yet.
    pub unsettled: usize,
    /// How long ago the oldest event came that this engine has in hand and has not tried to send, though
    /// nothing but room keeps it: neither a pause, nor a receiver that fails or asks for time. `None` if
    /// there is no such event.
    pub behind: Option<Duration>,
}

impl Esl {
    /// How the engine fares. Its cost depends on the number of lanes that have work, so ask every now and
    /// then.
    ///
    /// ```
    /// # use esl_core::{Esl, MemoryStorage};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let esl = Esl::builder(MemoryStorage::new()).build().await?;
    /// let status = esl.status();
    /// assert_eq!((status.in_flight, status.behind), (0, None));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn status(&self) -> Status {
        let driver = &self.engine.driver;
        let Now { utc, monotonic } = driver.now();
        let lanes = driver.lanes();
        let has_epoch = lanes.worker().is_some_and(|it| !lanes.time_left(&it, monotonic).is_zero());
        Status {
            delivers: driver.tenure.takes_lanes && has_epoch,
            leads: has_epoch && driver.leads(),
            in_flight: lanes.in_flight(),
            unsettled: lanes.unsettled(),
            behind: lanes.oldest_untried().map(|came_at| utc.since(came_at)),
        }
    }
}
