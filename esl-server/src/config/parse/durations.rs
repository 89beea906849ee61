//! How long something takes, or is kept.

use std::{ops::RangeInclusive, time::Duration};

use esl_core::RetryPolicy;

use super::{Parsed, RETRIES_MAX};

/// A number and its unit, as in `20s`.
pub(in crate::config) fn duration(
    range: RangeInclusive<Duration>,
) -> impl Fn(&str) -> Parsed<Duration> {
    move |text| match read_duration(text) {
        Some(duration) if range.contains(&duration) => Ok(duration),
        _ => Err(format!("expected {}, such as 20s", durations_within(&range))),
    }
}

/// For how long events are kept; `None` for ever.
pub(in crate::config) fn retention(text: &str) -> Parsed<Option<Duration>> {
    let range = Duration::from_secs(60 * 60)..=Duration::from_secs(36_500 * 24 * 60 * 60);
    if text == "forever" {
        return Ok(None);
    }
    match read_duration(text) {
        Some(duration) if range.contains(&duration) => Ok(Some(duration)),
        _ => Err(format!("expected forever, or {}, such as 30d", durations_within(&range))),
    }
}

/// Durations with commas between them, as in `5s,5m,30m`.
pub(in crate::config) fn retry_schedule(text: &str) -> Parsed<Vec<Duration>> {
    let range = Duration::ZERO..=RetryPolicy::DELAY_MAX;
    let delays: Option<Vec<_>> = text
        .split(',')
        .map(|part| read_duration(part.trim()).filter(|delay| range.contains(delay)))
        .collect();
    match delays {
        Some(delays) if delays.len() <= RETRIES_MAX as usize => Ok(delays),
        _ => Err(format!(
            "expected up to {RETRIES_MAX} durations with commas between them, each {}, such as \
             5s,5m,30m",
            durations_within(&range)
        )),
    }
}

fn read_duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|char: char| !char.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(60 * 60).map(Duration::from_secs),
        "d" => number.checked_mul(24 * 60 * 60).map(Duration::from_secs),
        _ => None,
    }
}

fn durations_within(range: &RangeInclusive<Duration>) -> String {
    let (from, to) = (written(*range.start()), written(*range.end()));
    format!("a number with ms, s, m, h or d, from {from} to {to}")
}

/// A duration as it is written here, in the largest unit that it is whole in.
fn written(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let is_whole = |unit: &&(&str, u128)| milliseconds.is_multiple_of(unit.1);
    let (unit, length) = units.iter().find(is_whole).unwrap_or(&("ms", 1));
    match milliseconds {
        0 => "0s".into(),
        _ => format!("{}{unit}", milliseconds / length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_kept_for_an_hour_at_least_or_for_ever() {
        let day = Duration::from_secs(24 * 60 * 60);
        for (text, expected) in [
            ("30d", Some(Some(30 * day))),
            ("1h", Some(Some(day / 24))),
            ("forever", Some(None)),
            ("59m", None),
            ("36501d", None),
            ("0", None),
            ("30", None),
            ("", None),
        ] {
            assert_eq!(retention(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn durations_have_a_unit_and_keep_within_their_bounds() {
        let parse = duration(Duration::from_secs(1)..=Duration::from_secs(3600));
        for (text, expected) in [
            ("20s", Some(20)),
            ("2000ms", Some(2)),
            ("5m", Some(300)),
            ("1h", Some(3600)),
            ("61m", None),
            ("1d", None),
            ("0s", None),
            ("20", None),
            ("s", None),
            ("", None),
            ("-5s", None),
            ("1.5s", None),
            ("5 s", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
        ] {
            assert_eq!(parse(text).ok(), expected.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn a_retry_schedule_is_a_list_of_durations() {
        let seconds =
            |delays: &[u64]| delays.iter().map(|&delay| Duration::from_secs(delay)).collect();
        for (text, expected) in [
            ("5s,5m,30m", Some(seconds(&[5, 300, 1800]))),
            ("0s, 1h", Some(seconds(&[0, 3600]))),
            ("5s,,5m", None),
            ("2h", None),
            ("5", None),
        ] {
            assert_eq!(retry_schedule(text).ok(), expected, "{text}");
        }
        assert!(retry_schedule(&vec!["1s"; 101].join(",")).is_err());
        let expected = retry_schedule("2h").expect_err("it is too long");
        assert!(
            expected.contains("each a number with ms, s, m, h or d, from 0s to 1h"),
            "{expected}"
        );
    }

    #[test]
    fn a_duration_is_written_in_the_largest_unit_that_it_is_whole_in() {
        for text in ["0s", "1ms", "1500ms", "20s", "90s", "10m", "61m", "1h", "25h", "2d"] {
            assert_eq!(read_duration(text).map(written).as_deref(), Some(text));
        }
    }
}
