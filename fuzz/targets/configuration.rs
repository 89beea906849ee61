//! An environment, `NAME=value` in each line; a `~` in a value stands for what is not to be seen. A
//! configuration comes of it or all that is wrong with it, each variable is judged by itself, as the
//! documentation says, and nothing that is shown has a secret or breaks a line.
#![no_main]

use std::{collections::BTreeMap, ffi::OsString, os::unix::ffi::OsStringExt, sync::LazyLock};

use esl_server::{Config, Written};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let environment = environment(bytes);
    let known: Vec<_> =
        KNOWN.iter().copied().filter(|name| environment.contains_key(*name)).collect();
    let read = Read::of(environment.iter());
    // In another order, and with what counts as unset.
    let empty = Vec::new();
    let unset = KNOWN.iter().filter(|name| !environment.contains_key(**name));
    let unset: Vec<_> = unset.map(|name| ((*name).to_owned(), empty.clone())).collect();
    let more = unset.iter().map(|(name, value)| (name, value));
    assert_eq!(Read::of(environment.iter().rev().chain(more)), read);

    let mut faults = String::new();
    for name in &known {
        let (name, value) = environment.get_key_value(*name).expect("it is there");
        let alone = Read::of([(name, value)]);
        let is_right = matches!(alone, Read::Right { .. });
        if let Some(expected) = is_documented(name, value) {
            assert_eq!(is_right, expected, "{name}");
        }
        if let Read::Wrong(message) = alone {
            let fault = message.strip_prefix(INTRODUCTION).expect("that it is not valid");
            assert!(fault.starts_with(&format!("\n  {name} is `")), "{message}");
            faults.push_str(fault);
        }
    }
    match &read {
        Read::Wrong(message) => {
            assert_eq!(*message, format!("{INTRODUCTION}{faults}"));
            let lines = message.lines().skip(1);
            assert!(lines.clone().all(is_line) && lines.count() <= known.len(), "{message}");
        }
        Read::Right { in_force, unknown, .. } => {
            assert_eq!(faults, "");
            for name in known {
                let set = format!("{name} is set");
                let shown = format!("{name}=");
                let is_shown = |line: &&String| **line == set || line.starts_with(&shown);
                let lines: Vec<_> = in_force.iter().filter(is_shown).collect();
                assert_eq!(lines.len(), 1, "{name}: {in_force:?}");
                assert_eq!(SECRET.contains(&name), *lines[0] == set, "{in_force:?}");
            }
            let is_unknown =
                |name: &&String| name.starts_with("ESL_") && !KNOWN.contains(&name.as_str());
            assert_eq!(unknown.len(), environment.keys().filter(is_unknown).count());
            assert!(in_force.iter().chain(unknown).all(|line| is_line(line)), "{read:?}");
        }
    }
    if !environment.iter().any(|(name, value)| may_be_seen(name, value)) {
        assert!(!format!("{read:?}").contains(HIDDEN), "{read:?}");
    }
});

/// What comes of an environment, as far as it can be seen.
#[derive(Debug, PartialEq)]
enum Read {
    Right { in_force: Vec<String>, unknown: Vec<String>, debug: String },
    Wrong(String),
}

impl Read {
    fn of<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a Vec<u8>)>) -> Self {
        let pairs = pairs.into_iter();
        let pairs = pairs.map(|(name, value)| (name.clone(), OsString::from_vec(value.clone())));
        let written: Written = pairs.collect();
        let names = format!("{written:?}");
        match Config::new(written) {
            Ok(config) => Self::Right {
                in_force: config.in_force(),
                unknown: config.unknown().iter().map(ToString::to_string).collect(),
                debug: format!("{config:?} {names}"),
            },
            Err(faults) => Self::Wrong(faults.to_string()),
        }
    }
}

fn environment(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut environment = BTreeMap::new();
    for line in bytes.split(|&byte| byte == b'\n') {
        let Some(end) = line.iter().position(|&byte| byte == b'=') else { continue };
        let Ok(name) = str::from_utf8(&line[..end]) else { continue };
        let value = &line[end + 1..];
        // No process has such an environment.
        if line.contains(&0) || value.is_empty() {
            continue;
        }
        let mut written = Vec::new();
        if name == "ESL_CA_FILE" {
            // Never a file that is there: what is read would depend on the machine.
            written.extend_from_slice(b"/there/is/no/such/folder/");
        }
        for &byte in value {
            match byte {
                b'~' => written.extend_from_slice(HIDDEN.as_bytes()),
                _ => written.push(byte),
            }
        }
        environment.entry(name.to_owned()).or_insert(written);
    }
    environment
}

/// Whether it is one line, for those who take Unicode's separators for line ends, too, and reads in the
/// direction in which it is written.
fn is_line(line: &str) -> bool {
    let is_mark = |c| match c {
        '\u{2028}' | '\u{2029}' => true,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        _ => c.is_control(),
    };
    !line.contains(is_mark)
}

/// Whether what is not to be seen stands where all may be seen.
fn may_be_seen(name: &str, value: &[u8]) -> bool {
    let value = String::from_utf8_lossy(value);
    let open = match name {
        _ if SECRET.contains(&name) => "",
        _ if KNOWN.contains(&name) && (URLS.contains(&name) || value.contains("://")) => {
            // Of a URL, what is behind user and password and before the query.
            let behind = value.rsplit('@').next().unwrap_or_default();
            behind.split('?').next().unwrap_or_default()
        }
        _ if KNOWN.contains(&name) => &value,
        _ => "",
    };
    name.contains(HIDDEN) || open.contains(HIDDEN)
}

/// Whether docs/configuration.md allows a value, where it is easily said.
fn is_documented(name: &str, value: &[u8]) -> Option<bool> {
    let Ok(text) = str::from_utf8(value) else { return Some(false) };
    let lower = text.to_ascii_lowercase();
    let is_one_of = |words: &str| words.split(' ').any(|word| word == lower);
    Some(match name {
        "ESL_ENABLED"
        | "ESL_BLOB_REDIRECT"
        | "ESL_BROKER_EVENTS"
        | "ESL_BROKER_INGEST"
        | "ESL_ALLOW_PRIVATE_CALLBACKS"
        | "PROFILER_ENABLED" => is_one_of("true 1 yes on false 0 no off"),
        "ESL_CA_FILE" => false,
        "ESL_LOG_FORMAT" => is_one_of("text json"),
        "ESL_MAX_PAYLOAD_SIZE" => is_whole(text, 1024, 16_777_216),
        "ESL_RETENTION" => text == "forever" || is_duration(text, HOUR, 36_500 * 24 * HOUR),
        "ESL_RETRY_ATTEMPTS" => is_whole(text, 0, 100),
        "ESL_RETRY_DELAY_MS" => is_whole(text, 1, 3_600_000),
        "ESL_RETRY_SCHEDULE" => {
            let mut delays = text.split(',');
            delays.clone().count() <= 100 && delays.all(|delay| is_duration(delay.trim(), 0, HOUR))
        }
        "ESL_SHUTDOWN_DELAY" => is_duration(text, 0, 600_000),
        "ESL_SHUTDOWN_GRACE" => is_duration(text, 1_000, 600_000),
        "ESL_SIGNATURE_ALGORITHM" => matches!(text, "sha256" | "sha384" | "sha512"),
        "ESL_WORKER_THREADS" => is_whole(text, 1, 1024),
        "OAUTH_TOKEN_LIFETIME" | "OAUTH_REFRESH_LIFETIME" => is_whole(text, 1, 31_536_000),
        "RATE_LIMIT_EVENTS_HOUR" => lower == "unlimited" || is_whole(text, 1, 1_000_000_000_000),
        "XDEBUG_MODE" => is_one_of("off develop debug trace profile"),
        _ => return None,
    })
}

fn is_whole(text: &str, min: u128, max: u128) -> bool {
    number(text.strip_prefix('+').unwrap_or(text)).is_some_and(|n| (min..=max).contains(&n))
}

fn is_duration(text: &str, min: u128, max: u128) -> bool {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", HOUR), ("d", 24 * HOUR)];
    units.iter().any(|(unit, length)| {
        let count = text.strip_suffix(unit).and_then(number);
        count.is_some_and(|count| (min..=max).contains(&count.saturating_mul(*length)))
    })
}

/// Of digits only.
fn number(digits: &str) -> Option<u128> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let add = |sum: u128, byte: u8| sum.saturating_mul(10).saturating_add(u128::from(byte - b'0'));
    is_number.then(|| digits.bytes().fold(0, add))
}

/// The variables of the documentation, in its order.
static KNOWN: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let page = include_str!("../../docs/configuration.md");
    page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
});

const SECRET: [&str; 2] = ["ESL_ENCRYPTION_KEY", "ESL_BOOTSTRAP_CLIENT"];
const URLS: [&str; 8] = [
    "ESL_LISTEN",
    "ESL_ALLOWED_CALLBACKS",
    "ESL_TRUSTED_PROXIES",
    "ESL_DATABASE_URL",
    "ESL_PUBLIC_URL",
    "ESL_BROKER_URL",
    "ESL_BLOB_STORAGE_URL",
    "ESL_EGRESS_PROXY",
];
const HIDDEN: &str = "hunter_2";
const INTRODUCTION: &str = "the configuration is not valid";
const HOUR: u128 = 3_600_000;
