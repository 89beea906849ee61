//! A piece of work for a thread of ours, and the caller who waits for what comes of it.

use esl_core::storage::StorageError;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::storage::{
    error::{SharedError, Stop},
    session::Session,
};

/// Work in a transaction of the writer.
pub(crate) trait Job: Send {
    /// Does it. An error means that the whole transaction must be rolled back.
    fn run(&mut self, session: &mut Session<'_>) -> rusqlite::Result<()>;

    /// Roughly how many rows it writes.
    fn weight(&self) -> usize;

    /// Whether it must be the first of its transaction.
    fn is_first(&self) -> bool;

    /// Tells the caller how it went: called after the commit, or instead of it with what went wrong.
    fn answer(self: Box<Self>, committed: Result<(), &SharedError>);
}

/// The one kind of [`Job`].
pub(crate) struct Work<T, F> {
    operation: &'static str,
    weight: usize,
    is_first: bool,
    work: Option<F>,
    result: Option<Result<T, StorageError>>,
    caller: oneshot::Sender<Result<T, StorageError>>,
    /// The work's place in the queue, free again when it is done.
    _place: OwnedSemaphorePermit,
}

impl<T, F> Work<T, F> {
    pub(crate) const fn new(
        operation: &'static str,
        weight: usize,
        is_first: bool,
        work: F,
        caller: oneshot::Sender<Result<T, StorageError>>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self { operation, weight, is_first, work: Some(work), result: None, caller, _place: place }
    }
}

impl<T, F> Job for Work<T, F>
where
    T: Send,
    F: FnOnce(&mut Session<'_>) -> Result<T, Stop> + Send,
{
    fn run(&mut self, session: &mut Session<'_>) -> rusqlite::Result<()> {
        // Whoever dropped the call does not mind whether it was done.
        if self.caller.is_closed() {
            return Ok(());
        }
        let work = self.work.take().expect("work is run once");
        self.result = Some(match work(session) {
            Ok(value) => Ok(value),
            Err(Stop::Refused(error)) => Err(error),
            Err(Stop::Failed(error)) => return Err(error),
        });
        Ok(())
    }

    fn weight(&self) -> usize {
        self.weight
    }

    fn is_first(&self) -> bool {
        self.is_first
    }

    fn answer(self: Box<Self>, committed: Result<(), &SharedError>) {
        let answer = match committed {
            Err(error) => Err(error.to_error(self.operation)),
            Ok(()) => match self.result {
                Some(result) => result,
                None => return,
            },
        };
        // A caller that is gone has no use for the answer.
        _ = self.caller.send(answer);
    }
}
