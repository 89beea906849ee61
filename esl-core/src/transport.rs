//! The seam to whatever carries a signed event to its receiver.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{AttemptError, CallbackUrl, Timings};

/// Carries one event to one receiver, once.
///
/// # Contract
/// - One call is one attempt: no retry, no redirect followed, one deadline ([`Outbound::timeout`])
///   over everything from resolving the name to the end of the answer.
/// - What a receiver does, a refusal or a hang included, is a [`Sent`]; there is no error.
/// - A fresh send ([`Outbound::fresh`]) opens a connection, and so never comes to
///   [`AttemptError::StaleConnection`].
/// - What our own side could not do, before anything was asked of the receiver, is
///   [`AttemptError::Unsent`]: it is tried again for as long as it takes. What may be the receiver's
///   doing is another error.
/// - An address that must not be called is refused before a byte goes out, also when only the
///   resolved address shows it.
/// - At most 16 KiB of an answer's body is read, and of that at most 1 KiB is handed on, only
///   unless the status is 2xx. It is cut nowhere earlier: what is masked in it depends on that.
///
/// # Cancellation
/// A dropped call closes its connection. Whether the receiver saw the event is then unknown.
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// POSTs the body and reports what came of it.
    async fn send(&self, outbound: Outbound) -> Sent;
}

/// One signed event, ready to go. Its `Debug` shows of the headers the names alone: some are credentials.
#[derive(Clone)]
pub struct Outbound {
    /// Where to.
    pub url: CallbackUrl,
    /// Headers beside `Content-Type: application/json`, in lower case. Values are visible ASCII.
    pub headers: Vec<(HeaderName, String)>,
    /// The exact bytes that were signed.
    pub body: Bytes,
    /// The deadline for the whole attempt.
    pub timeout: Duration,
    /// Opens a connection of its own instead of using a kept one.
    pub fresh: bool,
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, headers, body, timeout, fresh } = self;
        let headers: Vec<_> = headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Outbound")
            .field("url", url)
            .field("headers", &headers)
            .field("body", body)
            .field("timeout", timeout)
            .field("fresh", fresh)
            .finish()
    }
}

/// The name of a header, in lower case.
pub type HeaderName = std::sync::Arc<str>;

/// What came of an attempt.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The receiver's answer, or why there is none.
    pub result: Result<Answer, Failure>,
    /// Where the time went.
    pub timings: Timings,
}

/// What a receiver answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The `Retry-After` header as it came.
    pub retry_after: Option<String>,
    /// The beginning of the body, 1 KiB at most; empty after a 2xx.
    pub excerpt: Bytes,
}

impl Answer {
    /// The longest [`excerpt`](Self::excerpt). One of that length may have been cut.
    pub const EXCERPT_BYTES_MAX: usize = 1024;
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub error: AttemptError,
    /// What is known beyond that, for the person who reads the attempt. No secrets, no addresses
    /// of the operator's own network.
    pub detail: String,
}
