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
    let detail = match cause(error) {
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
    let is_unanswered = is_unsent || used.is_some_and(|used| is_unanswered(error, used));
    if progress::is_reused(used) && is_unanswered {
        let detail = "the connection from an earlier attempt had been closed".to_owned();
        return Failure { error: AttemptError::StaleConnection, detail };
    }
    let detail = match cause(error) {
        Some(cause) => format!("the connection broke: {cause}"),
        None => "the connection was closed without an answer".to_owned(),
    };
    Failure { error: AttemptError::Reset, detail }
}

/// Whether the receiver has said nothing to a request before its connection broke.
fn is_unanswered(error: &hyper::Error, used: &Marker) -> bool {
    if !used.is_http2() {
        return !used.has_heard();
    }
    // What came in may have been for other streams. But an answer that had begun would not be an
    // error here, so all that matters is whether the connection ended or refused the stream (RFC
    // 9113, 8.7), or whether the receiver gave up this very request.
    match http2_cause(error) {
        Some(cause) => cause.is_go_away() || cause.reason() == Some(h2::Reason::REFUSED_STREAM),
        // The time is that of a ping which was not answered.
        None => io_cause(error).is_some() || error.is_timeout(),
    }
}

fn used_connection(error: &legacy::Error) -> Option<Marker> {
    let mut extras = Extensions::new();
    error.connect_info()?.get_extras(&mut extras);
    extras.remove()
}

/// What is known of why a connection broke.
fn cause(error: &hyper::Error) -> Option<String> {
    let text = match (http2_cause(error), io_cause(error)) {
        (Some(cause), _) if cause.is_library() => {
            format!("the answer is not HTTP/2, or its head is too large ({cause})")
        }
        (Some(cause), _) => cause.to_string(),
        (None, Some(cause)) => cause.to_string(),
        (None, None) if error.is_timeout() => "nothing was heard any more".to_owned(),
        (None, None) => return None,
    };
    Some(bounded(text))
}

fn io_cause(error: &hyper::Error) -> Option<&io::Error> {
    error.source()?.downcast_ref()
}

fn http2_cause(error: &hyper::Error) -> Option<&h2::Error> {
    error.source()?.downcast_ref()
}

/// Cuts a text that a receiver has a hand in.
pub(super) fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(DETAIL_BYTES_MAX));
    text
}

const DETAIL_BYTES_MAX: usize = 512;
