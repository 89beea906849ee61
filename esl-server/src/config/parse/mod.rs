//! What a variable's text means. Each parser says what it expected instead.

mod durations;
mod places;

use std::{
    fmt::{Debug, Display},
    ops::RangeInclusive,
    str::FromStr,
    time::Duration,
};

use esl_core::{
    Algorithm, Client, Digest, Keyring, KeyringError, Limit, OrganizationId, Role, UnknownAlgorithm,
};
use tracing_subscriber::EnvFilter;

pub(super) use self::{
    durations::{duration, retention, retry_schedule},
    places::{
        allowed_callbacks, blob_storage_url, broker_url, ca_file, database_listen_url,
        database_schema, database_url, egress_proxy, listen_address, public_url, trusted_proxies,
    },
};
use super::{BootstrapClient, LogFormat, XdebugMode};

/// A value, or what was expected in its place.
pub(super) type Parsed<T> = Result<T, String>;

/// Of a variable that may be unset, which an empty text is.
pub(super) fn optional<T>(
    parse: impl FnOnce(&str) -> Parsed<T>,
) -> impl FnOnce(&str) -> Parsed<Option<T>> {
    |text| if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

pub(super) fn boolean(text: &str) -> Parsed<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("expected true or false".into()),
    }
}

/// A whole number within bounds.
pub(super) fn whole<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Parsed<T>
where
    T: FromStr + PartialOrd + Display + Debug,
{
    move |text| match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("expected a whole number from {} to {}", range.start(), range.end())),
    }
}

/// A whole number of some unit of time, within bounds.
pub(super) fn units(
    unit: Duration,
    range: RangeInclusive<u32>,
) -> impl Fn(&str) -> Parsed<Duration> {
    let whole = whole(range);
    move |text| whole(text).map(|number| unit * number)
}

pub(super) fn events_per_hour(text: &str) -> Parsed<Limit> {
    if text.eq_ignore_ascii_case("unlimited") {
        return Ok(Limit::Unlimited);
    }
    whole(1..=1_000_000_000_000)(text)
        .map(Limit::AtMost)
        .map_err(|_| "expected a whole number from 1, or `unlimited`".into())
}

pub(super) fn algorithm(text: &str) -> Parsed<Algorithm> {
    text.parse().map_err(|error: UnknownAlgorithm| error.to_string())
}

pub(super) fn role(text: &str) -> Parsed<Role> {
    match text {
        "all" => Ok(Role::All),
        "api" => Ok(Role::Api),
        "worker" => Ok(Role::Worker),
        _ => Err("expected all, api or worker".into()),
    }
}

pub(super) fn bootstrap_client(text: &str) -> Parsed<BootstrapClient> {
    let Some((id, secret)) = text.split_once(':') else {
        return Err("expected an id, a colon and a secret".into());
    };
    if !Client::is_id(id) {
        return Err(format!("expected {} before the colon", Client::ID_EXPECTED));
    }
    if id.parse::<OrganizationId>().is_ok() {
        return Err("expected before the colon an id that is not an organization's: the client's \
                    organization is named like it"
            .into());
    }
    let length = secret.len();
    if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&length) {
        return Err(format!(
            "expected a secret of {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} characters after the \
             colon, not of {length}; `openssl rand -hex 32` makes one"
        ));
    }
    if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("expected a secret of visible ASCII after the colon".into());
    }
    Ok(BootstrapClient { id: id.to_owned(), secret: Digest::of(secret.as_bytes()) })
}

/// Keys with commas between them, the one that encrypts first.
pub(super) fn encryption_keys(text: &str) -> Parsed<Keyring> {
    text.parse().map_err(|error: KeyringError| match error {
        KeyringError::Key(number) => format!(
            "expected keys of 32 random bytes in base64 or hex, with commas in between, and number \
             {number} is none; `openssl rand -base64 32` makes one"
        ),
        error => format!("expected each key once: {error}"),
    })
}

pub(crate) fn header_prefix(text: &str) -> Parsed<String> {
    let is_token = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let is_closed = text.starts_with('-') || text.ends_with('-');
    if !is_token || is_closed || !(1..=64).contains(&text.len()) {
        return Err("expected up to 64 letters, digits and inner hyphens, such as X-Sapien".into());
    }
    let family = text.split('-').next().unwrap_or_default();
    if family.eq_ignore_ascii_case("webhook") {
        return Err("expected another beginning than webhook, which the headers of Standard \
                    Webhooks have; such as X-Sapien"
            .into());
    }
    if STANDARD_HEADER_FAMILIES.iter().any(|standard| family.eq_ignore_ascii_case(standard)) {
        return Err(format!(
            "expected another beginning than {}, which headers of HTTP itself have; such as \
             X-Sapien",
            family.to_ascii_lowercase()
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn log_filter(text: &str) -> Parsed<String> {
    let is_level = |text: &str| {
        ["off", "error", "warn", "info", "debug", "trace"]
            .iter()
            .any(|level| text.eq_ignore_ascii_case(level))
    };
    // A lone word that is no level would be taken for a module, and nothing would be logged.
    let is_clear = |part: &str| is_level(part.trim()) || part.contains(['=', '[']);
    if text.split(',').all(is_clear) && EnvFilter::try_new(text).is_ok() {
        Ok(text.to_owned())
    } else {
        Err("expected a level (off, error, warn, info, debug or trace), modules with levels, or \
             both, such as warn,esl_core=debug"
            .into())
    }
}

pub(super) fn log_format(text: &str) -> Parsed<LogFormat> {
    match text.to_ascii_lowercase().as_str() {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("expected text or json".into()),
    }
}

pub(super) fn xdebug_mode(text: &str) -> Parsed<XdebugMode> {
    match text.to_ascii_lowercase().as_str() {
        "off" => Ok(XdebugMode::Off),
        "develop" => Ok(XdebugMode::Develop),
        "debug" => Ok(XdebugMode::Debug),
        "trace" => Ok(XdebugMode::Trace),
        "profile" => Ok(XdebugMode::Profile),
        _ => Err("expected off, develop, debug, trace or profile".into()),
    }
}

pub(crate) const RETRIES_MAX: u32 = 100;
/// What the names of standard headers begin with, those of a POST above all. `X` is nobody's.
const STANDARD_HEADER_FAMILIES: [&str; 13] = [
    "accept",
    "access",
    "authorization",
    "cache",
    "connection",
    "content",
    "host",
    "if",
    "proxy",
    "sec",
    "te",
    "transfer",
    "user",
];
const SECRET_BYTES_MIN: usize = 32;
const SECRET_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bootstrap_client_has_an_id_and_a_long_secret() {
        let secret = "x".repeat(32);
        let client = bootstrap_client(&format!("id:{secret}:x")).expect("a client");
        assert_eq!(client.id, "id");
        assert!(client.secret.matches(&Digest::of(format!("{secret}:x").as_bytes())));
        for wrong in [
            secret.clone(),
            format!(":{secret}"),
            format!("a b:{secret}"),
            format!("org_01HM6QTXJ0XKGH8V6V5J3W2Q9R:{secret}"),
            format!("id:{}", "x".repeat(31)),
            format!("id:{}", "x".repeat(257)),
            format!("id:{} {secret}", "x"),
        ] {
            let expected = bootstrap_client(&wrong).expect_err("it is wrong");
            assert!(!expected.contains("xxx"), "{expected}");
        }
    }

    #[test]
    fn encryption_keys_are_32_bytes_each_and_are_not_repeated_in_what_is_said() {
        let (one, other) = ("01".repeat(32), "/".repeat(42) + "8=");
        let keyring = encryption_keys(&format!("{one}, {other}")).expect("two keys");
        assert_eq!(keyring.ids().len(), 2);
        for (wrong, said) in [
            (format!("{one},hunter2"), "number 2 is none; `openssl rand -base64 32` makes one"),
            ("hunter2".into(), "number 1 is none"),
            (format!("{one},"), "number 2 is none"),
            (format!("{one},{other},{one}"), "expected each key once: key 3 is there before"),
        ] {
            let expected = encryption_keys(&wrong).expect_err("it is wrong");
            assert!(expected.contains(said), "{expected}");
            assert!(!expected.contains("hunter2") && !expected.contains(&one), "{expected}");
        }
    }

    #[test]
    fn a_log_filter_that_would_silence_the_log_by_a_slip_is_refused() {
        for (text, is_right) in [
            ("info", true),
            ("WARN", true),
            ("warn,esl_core=debug", true),
            ("off", true),
            ("inof", false),
            ("esl_core=loud", false),
            ("", false),
        ] {
            assert_eq!(log_filter(text).is_ok(), is_right, "{text}");
        }
    }

    #[test]
    fn the_remaining_values_are_what_the_documentation_says() {
        for (text, expected) in [("true", Some(true)), ("OFF", Some(false)), ("2", None)] {
            assert_eq!(boolean(text).ok(), expected, "{text}");
        }
        assert_eq!(events_per_hour("unlimited"), Ok(Limit::Unlimited));
        assert_eq!(events_per_hour("10000"), Ok(Limit::AtMost(10_000)));
        assert!(events_per_hour("0").is_err() && events_per_hour("-1").is_err());
        assert_eq!(algorithm("sha384"), Ok(Algorithm::Sha384));
        assert!(algorithm("md5").is_err());
        assert_eq!(whole(1..=5_u32)("5"), Ok(5));
        assert_eq!(whole(1..=5_u32)("6").unwrap_err(), "expected a whole number from 1 to 5");
        for (text, is_right) in [
            ("X-Sapien", true),
            ("Acme", true),
            ("", false),
            ("ö", false),
            ("bad prefix", false),
            ("X_", false),
            ("X-", false),
            ("X:", false),
            ("X-Webhook", true),
            ("Webhooks", true),
            ("webhook", false),
            ("WebHook", false),
            ("Webhook-Id", false),
            ("Content", false),
            ("content-x", false),
            ("Contents", true),
        ] {
            assert_eq!(header_prefix(text).is_ok(), is_right, "{text}");
        }
        assert!(header_prefix("Webhook").is_err_and(|error| error.contains("Standard Webhooks")));
        assert!(header_prefix("Content").is_err_and(|error| error.contains("than content")));
    }
}
