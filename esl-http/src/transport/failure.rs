//! Names what went wrong with an attempt.

use std::{error::Error as _, io};

use esl_core::{AttemptError, Failure};
use hyper::http::Extensions;
use hyper_util::client::legacy;

use super::{connection::Marker, connector::ConnectError, progress};

/// Why no answer came.
pub(super) fn of_request(error: &legacy::Error) -> Failure {
    let cause = error.source();
    if let Some(ConnectError(failure)) = cause.and_then(|cause| cause.downcast_ref()) {
        return failure.clone();
    }
    let used = used_connection(error);
    progress::note_used(used.as_ref());
    match cause.and_then(|cause| cause.downcast_ref::<hyper::Error>()) {
        Some(error) if error.is_parse() => of_unreadable(error),
        Some(error) => of_broken(error, used.as_ref()),
        None => Failure { error: AttemptError::Connect, detail: "no connection".to_owned() },
    }
}

/// Why an answer did not come to its end.
pub(super) fn of_body(error: &hyper::Error) -> Failure {
    let detail = match io_cause(error) {
        Some(cause) => format!("the answer broke off: {cause}"),
        None => "the answer broke off".to_owned(),
    };
    Failure { error: AttemptError::Reset, detail }
}

fn of_unreadable(error: &hyper::Error) -> Failure {
    if error.is_parse_too_large() {
        let detail = "the head of the answer is too large".to_owned();
        return Failure { error: AttemptError::TooLarge, detail };
    }
    Failure { error: AttemptError::Reset, detail: format!("the answer is not HTTP/1.1: {error}") }
}

fn of_broken(error: &hyper::Error, used: Option<&Marker>) -> Failure {
    // Neither canceled nor closed means that the request has left.
    let is_unsent = error.is_canceled() || error.is_closed();
    let is_unanswered = is_unsent || used.is_some_and(|used| !used.has_heard());
    if progress::is_reused(used) && is_unanswered {
        let detail = "the connection from an earlier attempt had been closed".to_owned();
        return Failure { error: AttemptError::StaleConnection, detail };
    }
    let detail = match io_cause(error) {
        Some(cause) => format!("the connection broke: {cause}"),
        None => "the connection was closed without an answer".to_owned(),
    };
    Failure { error: AttemptError::Reset, detail }
}

fn used_connection(error: &legacy::Error) -> Option<Marker> {
    let mut extras = Extensions::new();
    error.connect_info()?.get_extras(&mut extras);
    extras.remove()
}

fn io_cause(error: &hyper::Error) -> Option<String> {
    let cause = error.source()?.downcast_ref::<io::Error>()?;
    Some(bounded(cause.to_string()))
}

/// Cuts a text that a receiver has a hand in.
pub(super) fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(DETAIL_BYTES_MAX));
    text
}

const DETAIL_BYTES_MAX: usize = 512;
