//! What an attempt's result means.

use std::time::Duration;

use crate::{Answer, AttemptError, Failure, RetryPolicy, Timestamp, retry_after};

/// What a receiver's behaviour asks of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// 2xx: it has the event.
    Accepted,
    /// 410: it wants no more.
    Gone,
    /// A pooled connection was closed under us before a byte was answered: says nothing about the
    /// receiver, so it is tried again at once and not charged.
    Stale,
    /// Our own side could not send: says nothing about the receiver, and is tried again after a
    /// while, for as long as it takes.
    Unsent,
    /// Anything else, redirects included.
    Failed {
        /// How long it asked us to wait, with 429 and 503; an hour at most.
        retry_after: Option<Duration>,
        /// Whether it seems overloaded or away, so that fewer sends at a time are called for.
        is_strained: bool,
    },
}

/// Judges an attempt's result.
#[must_use]
pub fn judge(result: &Result<Answer, Failure>, now: Timestamp) -> Verdict {
    match result {
        Ok(answer) => match answer.status {
            200..=299 => Verdict::Accepted,
            410 => Verdict::Gone,
            429 | 503 => Verdict::Failed {
                retry_after: answer
                    .retry_after
                    .as_deref()
                    .and_then(|text| retry_after(text, now))
                    .map(|wait| wait.min(RetryPolicy::DELAY_MAX)),
                is_strained: false,
            },
            _ => Verdict::Failed { retry_after: None, is_strained: false },
        },
        Err(failure) => match failure.error {
            AttemptError::StaleConnection => Verdict::Stale,
            AttemptError::Unsent => Verdict::Unsent,
            AttemptError::Timeout | AttemptError::Connect => {
                Verdict::Failed { retry_after: None, is_strained: true }
            }
            AttemptError::Status
            | AttemptError::RefusedAddress
            | AttemptError::Dns
            | AttemptError::Tls
            | AttemptError::Reset
            | AttemptError::TooLarge => Verdict::Failed { retry_after: None, is_strained: false },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&str>) -> Result<Answer, Failure> {
        let retry_after = retry_after.map(str::to_owned);
        Ok(Answer { status, retry_after, excerpt: bytes::Bytes::new() })
    }

    fn failed(retry_after: Option<u64>, is_strained: bool) -> Verdict {
        Verdict::Failed { retry_after: retry_after.map(Duration::from_secs), is_strained }
    }

    #[test]
    fn only_2xx_is_a_success_and_only_429_and_503_may_ask_to_wait() {
        for (status, header, expected) in [
            (200, None, Verdict::Accepted),
            (299, None, Verdict::Accepted),
            (199, None, failed(None, false)),
            (301, None, failed(None, false)),
            (404, Some("5"), failed(None, false)),
            (410, None, Verdict::Gone),
            (429, Some("5"), failed(Some(5), false)),
            (503, Some(" 7 "), failed(Some(7), false)),
            (503, Some("99999999999999999999999"), failed(Some(3600), false)),
            (503, Some("-1"), failed(None, false)),
            (503, Some("Thu, 01 Jan 1970 00:00:01 GMT"), failed(Some(0), false)),
            (500, None, failed(None, false)),
        ] {
            let now = Timestamp::from_millis(2000);
            assert_eq!(judge(&answer(status, header), now), expected, "{status} {header:?}");
        }
    }

    #[test]
    fn a_stale_connection_and_our_own_trouble_are_not_the_receivers_fault() {
        for error in AttemptError::ALL {
            let result = Err(Failure { error, detail: String::new() });
            let expected = match error {
                AttemptError::StaleConnection => Verdict::Stale,
                AttemptError::Unsent => Verdict::Unsent,
                AttemptError::Timeout | AttemptError::Connect => failed(None, true),
                _ => failed(None, false),
            };
            assert_eq!(judge(&result, Timestamp::EPOCH), expected);
        }
    }
}
