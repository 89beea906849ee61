//! Texts that hold several things.

use std::{fmt::Write as _, time::Duration};

use crate::{CustomHeaders, EventPattern, EventPatternError};

/// The patterns of a subscription. They hold no spaces, so a space keeps them apart.
#[must_use]
pub fn patterns_text(patterns: &[EventPattern]) -> String {
    let mut text = String::new();
    for pattern in patterns {
        if !text.is_empty() {
            text.push(' ');
        }
        write!(text, "{pattern}").expect("a String takes all");
    }
    text
}

/// Reads [`patterns_text`] back.
///
/// # Errors
/// What is wrong with the first that is no pattern.
pub fn patterns(text: &str) -> Result<Vec<EventPattern>, EventPatternError> {
    text.split_ascii_whitespace().map(str::parse).collect()
}

/// A line for each header, as neither names nor values hold line feeds; `None` for no header. What is in the
/// values may be secret.
#[must_use]
pub fn headers_text(headers: &CustomHeaders) -> Option<String> {
    if headers.is_empty() {
        return None;
    }
    let mut text = String::new();
    for (name, value) in headers.expose() {
        writeln!(text, "{name}:{value}").expect("a String takes all");
    }
    Some(text)
}

/// Reads [`headers_text`] back; `None` if it is not what was written.
#[must_use]
pub fn headers(text: &str) -> Option<CustomHeaders> {
    let lines: Option<Vec<_>> = text.lines().map(|line| line.split_once(':')).collect();
    CustomHeaders::new(lines?).ok()
}

/// The delays of a retry schedule, in milliseconds with spaces between them.
#[must_use]
pub fn delays_text(delays: &[Duration]) -> String {
    let millis = |delay: &Duration| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    let delays: Vec<_> = delays.iter().map(|delay| millis(delay).to_string()).collect();
    delays.join(" ")
}

/// Reads [`delays_text`] back; `None` if it is not what was written.
#[must_use]
pub fn delays(text: &str) -> Option<Vec<Duration>> {
    let delays = text.split_ascii_whitespace().map(|delay| delay.parse().ok());
    delays.map(|delay| delay.map(Duration::from_millis)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_comes_back() {
        let all: Vec<EventPattern> =
            ["*", "a.*", "a.b"].map(|pattern| pattern.parse().unwrap()).to_vec();
        assert_eq!(patterns_text(&all), "* a.* a.b");
        assert_eq!(patterns("* a.* a.b"), Ok(all));
        assert_eq!(patterns_text(&[]), "");

        let sent = CustomHeaders::new([("X-Key", "a:b"), ("X-Other", "c")]).unwrap();
        let text = headers_text(&sent).unwrap();
        assert_eq!(headers(&text), Some(sent));
        assert_eq!(headers_text(&CustomHeaders::default()), None);

        let waits = [Duration::ZERO, Duration::from_secs(5)];
        assert_eq!(delays_text(&waits), "0 5000");
        assert_eq!(delays("0 5000"), Some(waits.to_vec()));
    }

    #[test]
    fn what_was_not_written_so_is_nothing() {
        assert!(patterns("a.b A-B!").is_err());
        assert_eq!(headers("no colon"), None);
        assert_eq!(
            [delays("1 -1"), delays("1s"), delays("99999999999999999999")],
            [None, None, None]
        );
    }
}
