//! How long a server asks to be left alone.

use std::time::Duration;

use chrono::DateTime;

use crate::Timestamp;

/// Reads a `Retry-After` header (RFC 9110, section 10.2.3), which is a number of seconds or a date; `None` if it is
/// neither. A date that has passed is zero.
///
/// ```
/// use std::time::Duration;
/// use esl_core::{Timestamp, retry_after};
/// let now: Timestamp = "2024-01-15T14:32:00Z".parse()?;
/// assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
/// let date = "Mon, 15 Jan 2024 14:32:30 GMT";
/// assert_eq!(retry_after(date, now), Some(Duration::from_secs(30)));
/// assert_eq!(retry_after("soon", now), None);
/// # Ok::<(), esl_core::TimestampError>(())
/// ```
#[must_use]
pub fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    Some(Timestamp::from(date.to_utc()).since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_number_of_seconds_or_a_date() {
        for (text, expected) in [
            ("0", Some(0)),
            (" 7 ", Some(7)),
            ("99999999999999999999", Some(u64::MAX)),
            ("Thu, 01 Jan 1970 00:00:09 GMT", Some(7)),
            ("Thu, 01 Jan 1970 00:00:01 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("tomorrow", None),
        ] {
            let now = Timestamp::from_millis(2000);
            assert_eq!(retry_after(text, now), expected.map(Duration::from_secs), "{text}");
        }
    }
}
