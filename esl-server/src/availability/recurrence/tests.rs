use chrono::{Datelike, Days, NaiveDate, TimeDelta};

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn recurrence(cron: &str, time_zone: &str) -> Recurrence {
    Recurrence::new(cron, time_zone).unwrap_or_else(|fault| panic!("{cron}, {time_zone}: {fault}"))
}

/// What fires after `after`, as local time with its offset.
fn fires(cron: &str, time_zone: &str, after: &str, expected: &[&str]) {
    let upcoming = recurrence(cron, time_zone).upcoming(at(after), expected.len());
    let zone: Tz = time_zone.parse().unwrap();
    let local = upcoming.iter().map(|at| {
        let local = DateTime::<Utc>::from(*at).with_timezone(&zone);
        local.format("%Y-%m-%d %H:%M %z").to_string()
    });
    assert_eq!(local.collect::<Vec<_>>(), expected, "{cron} in {time_zone} after {after}");
}

#[test]
fn an_expression_is_read_by_the_clocks_of_its_time_zone() {
    let new_year = "2026-12-31T20:00:00Z";
    fires("0 0 * * *", "Europe/Berlin", new_year, &["2027-01-01 00:00 +0100"]);
    fires("0 0 1 1 *", "America/New_York", new_year, &["2027-01-01 00:00 -0500"]);
    fires("0 0 1 1 *", "Asia/Kolkata", new_year, &["2028-01-01 00:00 +0530"]);
    fires("59 23 31 DEC *", "UTC", new_year, &["2026-12-31 23:59 +0000", "2027-12-31 23:59 +0000"]);
    let week = "2026-11-27T00:00:00Z"; // A Friday.
    let working_days =
        ["2026-11-27 08:30 +0530", "2026-11-30 08:30 +0530", "2026-12-01 08:30 +0530"];
    fires("30 8 * * MON-FRI", "Asia/Kolkata", week, &working_days);
    fires("30 8 * * 1-5", "Asia/Kolkata", week, &working_days);
    fires(
        "0 9,17 * nov sat-sun",
        "UTC",
        week,
        &[
            "2026-11-28 09:00 +0000",
            "2026-11-28 17:00 +0000",
            "2026-11-29 09:00 +0000",
            "2026-11-29 17:00 +0000",
            "2027-11-06 09:00 +0000",
        ],
    );
    // Either a day or a weekday is enough.
    fires("0 0 1 * MON", "UTC", week, &["2026-11-30 00:00 +0000", "2026-12-01 00:00 +0000"]);
    fires(
        "15-45/15 */12 * * 7",
        "UTC",
        week,
        &[
            "2026-11-29 00:15 +0000",
            "2026-11-29 00:30 +0000",
            "2026-11-29 00:45 +0000",
            "2026-11-29 12:15 +0000",
        ],
    );
    fires("@hourly", "Asia/Kolkata", week, &["2026-11-27 06:00 +0530", "2026-11-27 07:00 +0530"]);
    fires("@Weekly", "UTC", week, &["2026-11-29 00:00 +0000"]);
    fires("@annually", "UTC", week, &["2027-01-01 00:00 +0000"]);
}

#[test]
fn days_that_are_rare_are_waited_for() {
    fires(
        "0 12 29 2 *",
        "Europe/Berlin",
        "2026-11-27T00:00:00Z",
        &["2028-02-29 12:00 +0100", "2032-02-29 12:00 +0100"],
    );
    // 2100 is no leap year.
    fires("0 0 29 2 *", "UTC", "2096-02-29T00:00:00Z", &["2104-02-29 00:00 +0000"]);
    fires(
        "0 0 31 * *",
        "UTC",
        "2026-01-31T00:00:00Z",
        &["2026-03-31 00:00 +0000", "2026-05-31 00:00 +0000"],
    );
}

#[test]
fn a_time_of_the_day_that_is_skipped_fires_at_the_first_moment_after_the_gap() {
    let berlin = "2026-03-28T12:00:00Z";
    fires(
        "30 2 * * *",
        "Europe/Berlin",
        berlin,
        &["2026-03-29 03:00 +0200", "2026-03-30 02:30 +0200"],
    );
    fires(
        "30 2 29 3 *",
        "Europe/Berlin",
        berlin,
        &["2026-03-29 03:00 +0200", "2027-03-29 02:30 +0200"],
    );
    // Once, whatever else falls together with it.
    fires(
        "*/15 2 * * *",
        "Europe/Berlin",
        berlin,
        &["2026-03-29 03:00 +0200", "2026-03-30 02:00 +0200"],
    );
    fires(
        "0,30 2,3 * * *",
        "Europe/Berlin",
        berlin,
        &["2026-03-29 03:00 +0200", "2026-03-29 03:30 +0200", "2026-03-30 02:00 +0200"],
    );
    fires(
        "0 1-4 * * *",
        "America/New_York",
        "2026-03-08T05:00:00Z",
        &["2026-03-08 01:00 -0500", "2026-03-08 03:00 -0400", "2026-03-08 04:00 -0400"],
    );
    fires(
        "15 2 * * SUN",
        "Australia/Lord_Howe",
        "2026-10-03T00:00:00Z",
        &["2026-10-04 02:30 +1100", "2026-10-11 02:15 +1100"],
    );
    // Where it is midnight that is skipped, and where the last hour of a Saturday is.
    fires("@daily", "Africa/Cairo", "2026-04-23T12:00:00Z", &["2026-04-24 01:00 +0300"]);
    fires("30 23 * * SAT", "America/Nuuk", "2026-03-27T12:00:00Z", &["2026-03-29 00:00 -0100"]);
}

#[test]
fn a_time_of_the_day_that_is_shown_twice_fires_at_the_first_of_both() {
    let berlin = "2026-10-24T12:00:00Z";
    fires(
        "30 2 * * *",
        "Europe/Berlin",
        berlin,
        &["2026-10-25 02:30 +0200", "2026-10-26 02:30 +0100"],
    );
    fires(
        "0,30 2-3 * * *",
        "Europe/Berlin",
        berlin,
        &[
            "2026-10-25 02:00 +0200",
            "2026-10-25 02:30 +0200",
            "2026-10-25 03:00 +0100",
            "2026-10-25 03:30 +0100",
        ],
    );
    // From between the two, and from the second: they have fired.
    for after in ["2026-10-25T00:45:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z"] {
        fires("30 2 * * *", "Europe/Berlin", after, &["2026-10-26 02:30 +0100"]);
    }
    fires(
        "30 1 * * *",
        "America/New_York",
        "2026-11-01T04:00:00Z",
        &["2026-11-01 01:30 -0400", "2026-11-02 01:30 -0500"],
    );
    fires(
        "45 1 * * *",
        "Australia/Lord_Howe",
        "2026-04-04T12:00:00Z",
        &["2026-04-05 01:45 +1100", "2026-04-06 01:45 +1030"],
    );
}

#[test]
fn what_fires_in_every_hour_goes_by_what_the_clock_shows() {
    let (spring, autumn) = ("2026-03-29T00:00:00Z", "2026-10-24T23:30:00Z");
    fires(
        "*/30 * * * *",
        "Europe/Berlin",
        spring,
        &["2026-03-29 01:30 +0100", "2026-03-29 03:00 +0200", "2026-03-29 03:30 +0200"],
    );
    fires(
        "*/30 * * * *",
        "Europe/Berlin",
        autumn,
        &[
            "2026-10-25 02:00 +0200",
            "2026-10-25 02:30 +0200",
            "2026-10-25 02:00 +0100",
            "2026-10-25 02:30 +0100",
            "2026-10-25 03:00 +0100",
        ],
    );
    for (zone, change) in [
        ("Europe/Berlin", spring),
        ("Europe/Berlin", autumn),
        ("America/New_York", "2026-03-08T05:00:00Z"),
        ("America/New_York", "2026-11-01T04:00:00Z"),
        ("Asia/Kolkata", spring),
    ] {
        let hourly = recurrence("15 0-23 * * *", zone).upcoming(at(change), 6);
        let hour = std::time::Duration::from_secs(3600);
        assert!(hourly.windows(2).all(|pair| pair[0] + hour == pair[1]), "{zone}: {hourly:?}");
    }
    // The clock moves by half an hour.
    fires(
        "15,45 * * * *",
        "Australia/Lord_Howe",
        "2026-10-03T14:20:00Z",
        &[
            "2026-10-04 01:15 +1030",
            "2026-10-04 01:45 +1030",
            "2026-10-04 02:45 +1100",
            "2026-10-04 03:15 +1100",
        ],
    );
    fires(
        "15,45 * * * *",
        "Australia/Lord_Howe",
        "2026-04-04T14:00:00Z",
        &[
            "2026-04-05 01:15 +1100",
            "2026-04-05 01:45 +1100",
            "2026-04-05 01:45 +1030",
            "2026-04-05 02:15 +1030",
        ],
    );
}

#[test]
fn the_next_time_is_never_the_present_one() {
    let daily = recurrence("0 8 * * *", "UTC");
    for (after, next) in [
        ("2026-11-27T07:59:59.999Z", "2026-11-27T08:00:00.000Z"),
        ("2026-11-27T08:00:00.000Z", "2026-11-28T08:00:00.000Z"),
        ("2026-11-27T08:00:00.001Z", "2026-11-28T08:00:00.000Z"),
    ] {
        assert_eq!(daily.next_after(at(after)), Some(at(next)));
    }
    assert_eq!(daily.next_after(Timestamp::EPOCH), Some(at("1970-01-01T08:00:00Z")));
    assert_eq!(daily.next_after(Timestamp::MAX), None);
    assert_eq!(recurrence("* * * * *", "UTC").next_after(Timestamp::MAX), None);
    assert_eq!(daily.upcoming(Timestamp::MAX, 5), []);
    assert_eq!(daily.upcoming(Timestamp::EPOCH, 0), []);
}

#[test]
fn what_is_wrong_is_named_with_what_was_expected() {
    let [minute, hour, day, month, weekday] = FIELDS.each_ref().map(RecurrenceFault::Field);
    let form = RecurrenceFault::Form;
    let long = format!("{} 0 * * *", ["0"; 130].join(","));
    for (cron, fault) in [
        ("", form),
        ("* * * *", form),
        ("0 30 8 * * *", form),
        ("30 8 * * * 2027", form),
        ("@reboot", form),
        ("@daily 8", form),
        ("every day", form),
        (&long, form),
        ("60 * * * *", minute),
        ("-1 * * * *", minute),
        ("5/5 * * * *", minute),
        ("/5 * * * *", minute),
        ("*/0 * * * *", minute),
        ("*/90 * * * *", minute),
        ("1,,2 * * * *", minute),
        ("1, 2 * * *", minute),
        ("*,5 * * * *", minute),
        ("JAN * * * *", minute),
        ("+5 * * * *", minute),
        ("٣ * * * *", minute),
        ("@daily * * * *", minute),
        ("0 24 * * *", hour),
        ("0 22-6 * * *", hour),
        ("0 8-9-10 * * *", hour),
        ("0 0 0 * *", day),
        ("0 0 32 * *", day),
        ("0 0 L * *", day),
        ("0 0 15W * *", day),
        ("0 0 ? * *", day),
        ("0 0 * 13 *", month),
        ("0 0 * JANUARY *", month),
        ("0 0 * JAN1 *", month),
        ("0 0 * * 8", weekday),
        ("0 0 * * FRI-MON", weekday),
        ("0 0 * * MONTUE", weekday),
        ("0 0 * * MON#1", weekday),
        ("0 0 * * +MON", weekday),
        ("0 0 * * 5L", weekday),
        ("0 0 30 2 *", RecurrenceFault::NoSuchDate),
        ("0 0 30-31 FEB *", RecurrenceFault::NoSuchDate),
        ("0 0 31 2,4,6,9,11 *", RecurrenceFault::NoSuchDate),
    ] {
        assert_eq!(Recurrence::new(cron, "nowhere").unwrap_err(), fault, "{cron}");
        assert_eq!(fault.pointer(), "/cron");
    }
    for zone in ["", "Berlin", "europe/berlin", "Europe/Berlin ", "+01:00", "Mars/Olympus"] {
        let fault = Recurrence::new("* * * * *", zone).unwrap_err();
        assert_eq!((fault, fault.pointer()), (RecurrenceFault::TimeZone, "/time_zone"), "{zone}");
    }
    assert_eq!(
        hour.to_string(),
        "expected as the hour 0 to 23, or *; also in lists, ranges that go upwards, and steps such as \
         */2 or 1-5/2"
    );
    // With a weekday there is always a date.
    fires("0 0 30 2 MON", "UTC", "2027-01-31T12:00:00Z", &["2027-02-01 00:00 +0000"]);
}

const ZONES: [&str; 14] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "UTC",
    "Africa/Cairo",         // Midnight is skipped.
    "Asia/Beirut",          // The last hour of a day is shown twice.
    "America/Havana",       // The first hour of a day is.
    "America/Nuuk",         // The last hour of a day is skipped.
    "Antarctica/Troll",     // Two hours are.
    "Africa/Casablanca",    // Back in Ramadan.
    "Europe/Dublin",        // Winter is what is changed to.
    "Pacific/Chatham",      // Three quarters of an hour beside the rest.
    "America/Scoresbysund", // Changed its offset together with its clock, in 2024.
];

#[test]
fn nothing_fires_twice_or_is_left_out_in_two_years() {
    let mut random = fastrand::Rng::with_seed(SEED);
    let from = NaiveDate::from_ymd_opt(2024, 1, 1).unwrap();
    let to = from + Days::new(731);
    for round in 0..ROUNDS {
        let zone = ZONES[round % ZONES.len()];
        let fields = Fields::random(&mut random);
        let Ok(recurrence) = Recurrence::new(&fields.to_string(), zone) else {
            assert_eq!(fields.walk(from, to, zone.parse().unwrap()), [], "{fields}");
            continue;
        };
        let named = format!("round {round}: {fields} in {zone}");

        let expected = fields.walk(from, to, zone.parse().unwrap());
        let (first, last) = (expected[0], expected[expected.len() - 1]);
        let mut found = vec![recurrence.next_after(first - MILLISECOND).unwrap()];
        while let Some(next) =
            recurrence.next_after(found[found.len() - 1]).filter(|at| *at <= last)
        {
            assert!(found.last() < Some(&next), "{named}: {next} is not after {found:?}");
            found.push(next);
        }
        assert!(found == expected, "{named}: {:?}", differing(&found, &expected));

        // From wherever it is asked, it says the same.
        for _ in 0..100 {
            let near = random.choice(&expected).unwrap().as_millis() + random.i64(-HOURS..HOURS);
            let asked =
                Timestamp::from_millis(near.clamp(first.as_millis() - 1, last.as_millis() - 1));
            let next = expected[expected.partition_point(|at| *at <= asked)];
            assert_eq!(recurrence.next_after(asked), Some(next), "{named} after {asked}");
        }
    }
}

fn differing(found: &[Timestamp], expected: &[Timestamp]) -> Option<(Timestamp, Timestamp)> {
    found.iter().copied().zip(expected.iter().copied()).find(|(found, expected)| found != expected)
}

/// The fields of an expression, as the values that they take in.
struct Fields([Values; 5]);

struct Values {
    text: String,
    all: Vec<u32>,
}

impl Fields {
    fn random(random: &mut fastrand::Rng) -> Self {
        let minute = match random.u8(..5) {
            0 => Values::list(random, 0, 59, 3),
            1 => Values::step(random.u32(10..=31), 0, 59),
            2 => Values::range(random, 0, 59, 10),
            _ => Values::list(random, 0, 59, 1),
        };
        let hour = match random.u8(..6) {
            0 | 1 => Values::every(0, 23),
            2 => Values::step(random.u32(1..=12), 0, 23),
            3 => Values::range(random, 0, 23, 4),
            // Those in which clocks are changed.
            _ => Values::list(random, 0, 3, 2),
        };
        let mut sparse = |min, max| match random.u8(..4) {
            0 => Values::list(random, min, max, 3),
            1 => Values::range(random, min, max, 5),
            _ => Values::every(min, max),
        };
        let (day, month) = (sparse(1, 31), sparse(1, 12));
        let weekday = sparse(0, 6);
        Self([minute, hour, day, month, weekday])
    }

    /// Walks every minute that the clocks on the wall may show, and says when it is.
    fn walk(&self, from: NaiveDate, to: NaiveDate, zone: Tz) -> Vec<Timestamp> {
        let mut moments = Vec::new();
        for date in from.iter_days().take_while(|date| *date < to) {
            for (hour, minute) in (0..24).flat_map(|hour| (0..60).map(move |minute| (hour, minute)))
            {
                if self.take_in(date, hour, minute) {
                    let local = date.and_hms_opt(hour, minute, 0).unwrap();
                    moments.extend(self.moments_of(local, zone));
                }
            }
        }
        let mut moments: Vec<_> = moments.into_iter().map(|at| at.to_utc().into()).collect();
        moments.sort();
        moments.dedup();
        moments
    }

    fn take_in(&self, date: NaiveDate, at_hour: u32, at_minute: u32) -> bool {
        let Self([minute, hour, day, month, weekday]) = self;
        let is_date = || {
            let is_day = day.all.contains(&date.day());
            let is_weekday = weekday.all.contains(&date.weekday().num_days_from_sunday());
            match (day.text.as_str(), weekday.text.as_str()) {
                ("*", _) | (_, "*") => is_day && is_weekday,
                _ => is_day || is_weekday,
            }
        };
        minute.all.contains(&at_minute)
            && hour.all.contains(&at_hour)
            && month.all.contains(&date.month())
            && is_date()
    }

    fn moments_of(&self, local: NaiveDateTime, zone: Tz) -> Vec<DateTime<Tz>> {
        match zone.from_local_datetime(&local) {
            MappedLocalTime::Single(at) => vec![at],
            MappedLocalTime::Ambiguous(first, second) if self.every_hour() => vec![first, second],
            MappedLocalTime::Ambiguous(first, _) => vec![first],
            MappedLocalTime::None if self.every_hour() => Vec::new(),
            MappedLocalTime::None => {
                let mut later = (1..).map(|minute| local + TimeDelta::minutes(minute));
                vec![later.find_map(|at| zone.from_local_datetime(&at).single()).unwrap()]
            }
        }
    }

    fn every_hour(&self) -> bool {
        self.0[1].all.len() == 24
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.each_ref().map(|values| values.text.as_str()).join(" "))
    }
}

impl Values {
    fn every(min: u32, max: u32) -> Self {
        Self { text: "*".into(), all: (min..=max).collect() }
    }

    fn step(step: u32, min: u32, max: u32) -> Self {
        let all = (min..=max).step_by(usize::try_from(step).unwrap()).collect();
        Self { text: format!("*/{step}"), all }
    }

    fn range(random: &mut fastrand::Rng, min: u32, max: u32, length: u32) -> Self {
        let first = random.u32(min..max);
        let last = random.u32(first..=max.min(first + length));
        Self { text: format!("{first}-{last}"), all: (first..=last).collect() }
    }

    fn list(random: &mut fastrand::Rng, min: u32, max: u32, length: usize) -> Self {
        let all: Vec<_> = (0..length).map(|_| random.u32(min..=max)).collect();
        let text = all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        Self { text, all }
    }
}

const SEED: u64 = 20_261_126;
const ROUNDS: usize = 42;
const MILLISECOND: std::time::Duration = std::time::Duration::from_millis(1);
/// Around a moment, in milliseconds.
const HOURS: i64 = 4 * 3_600_000;
