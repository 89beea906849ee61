//! Blocking work, a step at a time, as a stream.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use esl_core::BlobError;
use futures_core::Stream;
use tokio::task::{JoinHandle, spawn_blocking};

/// What one step after another gives, until one gives nothing.
pub(super) struct Steps<S, T> {
    operation: &'static str,
    step: fn(&mut S) -> io::Result<Option<T>>,
    state: State<S, T>,
}

enum State<S, T> {
    Ready(S),
    Working(JoinHandle<(S, io::Result<Option<T>>)>),
    Over,
}

impl<S, T> Steps<S, T> {
    pub(super) const fn new(
        operation: &'static str,
        work: S,
        step: fn(&mut S) -> io::Result<Option<T>>,
    ) -> Self {
        Self { operation, step, state: State::Ready(work) }
    }
}

impl<S: Send + Unpin + 'static, T: Send + 'static> Stream for Steps<S, T> {
    type Item = Result<T, BlobError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Over => return Poll::Ready(None),
                State::Ready(mut work) => {
                    let step = self.step;
                    self.state = State::Working(spawn_blocking(move || {
                        let result = step(&mut work);
                        (work, result)
                    }));
                }
                State::Working(mut working) => {
                    let Poll::Ready(done) = Pin::new(&mut working).poll(cx) else {
                        self.state = State::Working(working);
                        return Poll::Pending;
                    };
                    let result = done.map_err(io::Error::other).and_then(|(work, result)| {
                        if matches!(result, Ok(Some(_))) {
                            self.state = State::Ready(work);
                        }
                        result
                    });
                    let result = result.map_err(|error| BlobError::new(self.operation, error));
                    return Poll::Ready(result.transpose());
                }
            }
        }
    }
}
