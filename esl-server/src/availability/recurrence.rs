//! When a schedule fires: a cron expression, and the time zone whose clocks it is read by.

use std::{fmt, iter};

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, TimeZone, Utc};
use chrono_tz::{GapInfo, Tz};
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use esl_core::Timestamp;

/// When a schedule fires.
///
/// # The expression
/// Five fields: minute, hour, day, month and weekday, each of them `*`, a number, a range (`9-17`), a
/// step (`*/15`, `8-18/2`) or a list of these; months and weekdays by number or by name in three
/// letters, of whatever case; Sunday is 0 and 7. If both day and weekday are given, that is neither is
/// `*` alone, a date that suits either is enough. `@hourly`, `@daily`, `@weekly` (on Sunday),
/// `@monthly`, `@yearly` and `@annually` are short for what they say, at minute 0 and, all but the
/// first, at midnight. Nothing else is taken: no seconds, no years, no `L`, `W`, `#` or `?`.
///
/// # When clocks are changed
/// It depends on the field of the hour.
///
/// - One that names **some hours** names times of the day, and each of them fires once. One that the
///   clock skips in spring fires at the first moment after the gap, once even if several were skipped
///   or one was due then anyway. One that the clock shows twice in autumn fires at the first of both.
/// - One that takes in **every hour** (`*`) goes by what the clock shows. What it skips does not fire,
///   and what it shows twice fires twice: with a change of one hour, half-hourly goes on every half hour
///   and hourly every hour. Where clocks change by half an hour (Lord Howe Island), an hourly one may be
///   an hour and a half apart in spring, and half an hour in autumn.
///
/// The rules of the time zones are those of the IANA database that this was built with.
#[derive(Debug, Clone)]
pub(crate) struct Recurrence {
    cron: Cron,
    time_zone: Tz,
    is_every_hour: bool,
}

impl Recurrence {
    /// Reads a cron expression and the name of a time zone, as the IANA database spells it.
    ///
    /// What this takes never waits longer than eight years, from one 29 February to the next at worst.
    ///
    /// # Errors
    /// What is wrong, and with which of the two; the expression is looked at first.
    pub(crate) fn new(cron: &str, time_zone: &str) -> Result<Self, RecurrenceFault> {
        let cron = parse(cron)?;
        if !has_date(&cron) {
            return Err(RecurrenceFault::NoSuchDate);
        }
        let time_zone = time_zone.parse().map_err(|_| RecurrenceFault::TimeZone)?;
        let is_every_hour = cron.pattern.hours.values().len() == 24;
        Ok(Self { cron, time_zone, is_every_hour })
    }

    /// The first time it fires after this one, never at it. `None` only if that were in the year 5000
    /// or later.
    pub(crate) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after = DateTime::<Utc>::from(after).with_timezone(&self.time_zone);
        let next = if self.is_every_hour {
            self.next_on_the_clock(&after)
        } else {
            self.next_of_the_day(&after)
        };
        next.map(|at| at.to_utc().into())
    }

    /// The first times it fires after this one.
    pub(crate) fn upcoming(&self, after: Timestamp, count: usize) -> Vec<Timestamp> {
        iter::successors(self.next_after(after), |at| self.next_after(*at)).take(count).collect()
    }

    /// What the clock skips does not fire, and what it shows twice fires twice.
    fn next_on_the_clock(&self, after: &DateTime<Tz>) -> Option<DateTime<Tz>> {
        self.cron.find_next_occurrence(after, false).ok()
    }

    /// Each time of the day fires once, whatever the clock does to it.
    fn next_of_the_day(&self, after: &DateTime<Tz>) -> Option<DateTime<Tz>> {
        let mut local = after.naive_local();
        // A later time of the day never fires earlier. So there are no others to look at than those
        // that come next, and some of these have fired already where the clock shows them twice.
        loop {
            local = self.cron.find_next_occurrence(&local, false).ok()?;
            let at = self.moment_of(local)?;
            if at > *after {
                return Some(at);
            }
        }
    }

    fn moment_of(&self, local: NaiveDateTime) -> Option<DateTime<Tz>> {
        match self.time_zone.from_local_datetime(&local) {
            MappedLocalTime::Single(at) | MappedLocalTime::Ambiguous(at, _) => Some(at),
            MappedLocalTime::None => GapInfo::new(&local, &self.time_zone)?.end,
        }
    }
}

/// Why there is no [`Recurrence`] of a text; it prints what was expected, and repeats nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecurrenceFault {
    /// The expression is not of five fields, or a name that is not known.
    Form,
    /// A field of the expression.
    Field(&'static Field),
    /// The expression is for a date that never comes.
    NoSuchDate,
    /// The time zone.
    TimeZone,
}

impl RecurrenceFault {
    /// The member of a schedule that is wrong, by JSON pointer (RFC 6901).
    pub(crate) const fn pointer(self) -> &'static str {
        match self {
            Self::Form | Self::Field(_) | Self::NoSuchDate => "/cron",
            Self::TimeZone => "/time_zone",
        }
    }
}

impl fmt::Display for RecurrenceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => write!(
                f,
                "expected five fields in at most {CRON_BYTES_MAX} bytes: minute, hour, day, month and \
                 weekday, as in 30 8 * * MON-FRI; or @hourly, @daily, @weekly, @monthly or @yearly"
            ),
            Self::Field(Field { name, values, .. }) => write!(
                f,
                "expected as the {name} {values}, or *; also in lists, ranges that go upwards, and \
                 steps such as */2 or 1-5/2"
            ),
            Self::NoSuchDate => {
                f.write_str("expected a date that comes; none does in these months")
            }
            Self::TimeZone => f.write_str(
                "expected the name of a time zone in the IANA database, for instance Europe/Berlin",
            ),
        }
    }
}

impl std::error::Error for RecurrenceFault {}

/// A field of a cron expression.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Field {
    name: &'static str,
    values: &'static str,
    names: &'static [&'static str],
    max: u8,
}

impl Field {
    /// Whether this is the field as it is documented. The library alone would also take names in any
    /// field and inside numbers, nothing between commas, steps that are never made, and extensions.
    fn admits(&self, text: &str) -> bool {
        let number = |text: &str| -> Option<u8> {
            let is_number = matches!(text.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'9', b'0'..=b'9']);
            text.parse().ok().filter(|number| is_number && *number <= self.max)
        };
        let is_value = |text: &str| {
            number(text).is_some() || self.names.iter().any(|name| name.eq_ignore_ascii_case(text))
        };
        text.split(',').all(|part| match part.split_once('/') {
            Some(("*", step)) => number(step).is_some(),
            Some((range, step)) => range.split('-').all(is_value) && number(step).is_some(),
            None => part == "*" || part.split('-').all(is_value),
        })
    }
}

fn parse(cron: &str) -> Result<Cron, RecurrenceFault> {
    if cron.len() > CRON_BYTES_MAX {
        return Err(RecurrenceFault::Form);
    }
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    let texts: Vec<_> = cron.split_whitespace().collect();
    if let [name] = texts[..]
        && name.starts_with('@')
    {
        return parser.parse(name).map_err(|_| RecurrenceFault::Form);
    }
    if texts.len() != FIELDS.len() {
        return Err(RecurrenceFault::Form);
    }
    for (at, (field, text)) in FIELDS.iter().zip(&texts).enumerate() {
        let mut alone = ["*"; FIELDS.len()];
        alone[at] = text;
        if !field.admits(text) || parser.parse(&alone.join(" ")).is_err() {
            return Err(RecurrenceFault::Field(field));
        }
    }
    parser.parse(cron).map_err(|_| RecurrenceFault::Form)
}

/// Whether any date suits. The library would look for one until the year 5000.
fn has_date(cron: &Cron) -> bool {
    let pattern = &cron.pattern;
    let first_day = pattern.days.values().into_iter().min();
    // With a weekday, too, either is enough.
    !pattern.is_dow_wildcard()
        || pattern.months.values().iter().any(|&month| {
            first_day.is_some_and(|day| day <= DAYS_OF_MONTH_MAX[usize::from(month) - 1])
        })
}

const CRON_BYTES_MAX: usize = 256;

static FIELDS: [Field; 5] = [
    Field { name: "minute", values: "0 to 59", names: &[], max: 59 },
    Field { name: "hour", values: "0 to 23", names: &[], max: 23 },
    Field { name: "day", values: "1 to 31", names: &[], max: 31 },
    Field {
        name: "month",
        values: "1 to 12 or JAN to DEC",
        names: &[
            "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
        ],
        max: 12,
    },
    Field {
        name: "weekday",
        values: "0 to 7 or SUN to SAT",
        names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
        max: 7,
    },
];

const DAYS_OF_MONTH_MAX: [u16; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

#[cfg(test)]
mod tests;
