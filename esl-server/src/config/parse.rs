//! What a variable's text means. Each parser says what it expected instead.

use std::{
    error::Error,
    fmt::{Debug, Display},
    fs,
    net::SocketAddr,
    ops::RangeInclusive,
    str::FromStr,
    time::Duration,
};

use esl_amqp::{BrokerUrl, BrokerUrlError};
use esl_core::{
    Algorithm, CallbackAllowList, Client, Digest, Keyring, KeyringError, Limit, OrganizationId,
    RetryPolicy, Role, UnknownAlgorithm,
};
use esl_http::{
    HttpTransport, HttpTransportBuilder, Proxy, ProxyError,
    api::{TrustedProxies, TrustedProxiesError},
};
use esl_postgres::PostgresOptions;
use tracing_subscriber::EnvFilter;
use url::Url;

use super::{BootstrapClient, DatabaseUrl, LogFormat, RootCertificates, XdebugMode};

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

/// A number and its unit, as in `20s`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&str) -> Parsed<Duration> {
    move |text| match read_duration(text) {
        Some(duration) if range.contains(&duration) => Ok(duration),
        _ => Err(format!("expected {}, such as 20s", durations_within(&range))),
    }
}

/// For how long events are kept; `None` for ever.
pub(super) fn retention(text: &str) -> Parsed<Option<Duration>> {
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
pub(super) fn retry_schedule(text: &str) -> Parsed<Vec<Duration>> {
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

pub(super) fn algorithm(text: &str) -> Parsed<Algorithm> {
    text.parse().map_err(|error: UnknownAlgorithm| error.to_string())
}

pub(super) fn broker_url(text: &str) -> Parsed<BrokerUrl> {
    text.parse().map_err(|error: BrokerUrlError| error.to_string())
}

/// Whether it names a store that can be set up shows when it is.
pub(super) fn blob_storage_url(text: &str) -> Parsed<String> {
    const KINDS: [&str; 4] = ["file:///", "s3://", "gs://", "az://"];
    let is_plain = !text.contains(['?', '#']);
    if text == "memory:" || is_plain && KINDS.iter().any(|kind| text.starts_with(kind)) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "expected memory:, or what begins with one of {}, without query and fragment",
        KINDS.join(", ")
    ))
}

pub(super) fn allowed_callbacks(text: &str) -> Parsed<CallbackAllowList> {
    if may_hold_what_grants_access(text) {
        return Err(format!("expected {ALLOWED_CALLBACKS_EXPECTED}"));
    }
    text.parse().map_err(|error| format!("{error}; expected {ALLOWED_CALLBACKS_EXPECTED}"))
}

/// Whether it has what only a URL does that was put in the wrong place, a password or a query: an error
/// that repeats an entry would show it.
fn may_hold_what_grants_access(entries: &str) -> bool {
    entries.contains(['@', '?'])
}

pub(super) fn trusted_proxies(text: &str) -> Parsed<TrustedProxies> {
    let expected = "expected networks and addresses with commas in between";
    if may_hold_what_grants_access(text) {
        return Err(expected.into());
    }
    text.parse().map_err(|error: TrustedProxiesError| format!("{error}; {expected}"))
}

pub(super) fn egress_proxy(text: &str) -> Parsed<Proxy> {
    text.parse().map_err(|error: ProxyError| error.to_string())
}

/// Reads the file, too: what is in it is the value.
pub(super) fn ca_file(path: &str) -> Parsed<RootCertificates> {
    let expected = "expected a file of certificates in PEM";
    let pem = fs::read(path).map_err(|error| format!("{expected}: {error}"))?;
    let builder = HttpTransport::builder().with_root_certificates_pem(&pem);
    match builder.and_then(HttpTransportBuilder::build) {
        Ok(_) => Ok(RootCertificates { pem }),
        Err(error) => {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            Err(format!("{expected}: {error}{cause}"))
        }
    }
}

pub(super) fn database_url(text: &str) -> Parsed<DatabaseUrl> {
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        return match PostgresOptions::check_url(text) {
            Ok(()) => Ok(DatabaseUrl::Postgres(text.to_owned())),
            Err(error) => {
                Err(error.source().map(ToString::to_string).unwrap_or_else(|| error.to_string()))
            }
        };
    }
    let expected = "expected sqlite:// and the path of a file, such as sqlite://esl.db or \
                    sqlite:///var/lib/esl/esl.db, or postgres:// and a server";
    let Some(path) = text.strip_prefix("sqlite://") else { return Err(expected.into()) };
    // Taken as it stands, so a query or an escape would silently be part of the name.
    if path.is_empty() || path.ends_with('/') || path.contains(['?', '#', '%', '\0']) {
        return Err(format!("{expected}, without options and escapes"));
    }
    Ok(DatabaseUrl::Sqlite(path.into()))
}

pub(super) fn database_listen_url(text: &str) -> Parsed<DatabaseUrl> {
    match database_url(text) {
        Ok(DatabaseUrl::Sqlite(_)) => Err("expected postgres:// and a server".into()),
        parsed => parsed,
    }
}

pub(super) fn database_schema(text: &str) -> Parsed<String> {
    match PostgresOptions::is_schema(text) {
        true => Ok(text.to_owned()),
        false => {
            Err("expected 1 to 63 lower-case letters, digits and underscores, and neither a digit \
                      nor `pg_` at the beginning"
                .into())
        }
    }
}

pub(super) fn role(text: &str) -> Parsed<Role> {
    match text {
        "all" => Ok(Role::All),
        "api" => Ok(Role::Api),
        "worker" => Ok(Role::Worker),
        _ => Err("expected all, api or worker".into()),
    }
}

pub(super) fn listen_address(text: &str) -> Parsed<SocketAddr> {
    text.parse().map_err(|_| {
        "expected an IP address and a port, such as 127.0.0.1:8080 or, for all of this machine's \
         addresses, 0.0.0.0:8080"
            .into()
    })
}

pub(super) fn public_url(text: &str) -> Parsed<String> {
    let is_plain = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    };
    match Url::parse(text) {
        Ok(url) if is_plain(&url) => Ok(url.as_str().trim_end_matches('/').to_owned()),
        _ => Err("expected an http or https URL without user, query and fragment, such as \
                  https://esl.example.com"
            .into()),
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

const ALLOWED_CALLBACKS_EXPECTED: &str = "networks, addresses, host names and `*.` with a name, with commas in between, such as \
     10.20.0.0/16,hooks.internal";
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
    fn a_ca_file_holds_certificates_that_can_be_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ca.pem");
        let path = path.to_str().expect("it is UTF-8");
        assert!(ca_file(path).is_err());
        // PEM around what is no certificate.
        let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in ["", "not PEM", empty] {
            fs::write(path, text).expect("it can be written");
            let error = ca_file(path).unwrap_err();
            assert!(error.starts_with("expected a file of certificates in PEM: "), "{error}");
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

    #[test]
    fn a_database_is_the_path_of_a_file_or_a_server() {
        for (text, expected) in [
            ("sqlite://esl.db", Some("esl.db")),
            ("sqlite://data/esl.db", Some("data/esl.db")),
            ("sqlite:///var/lib/esl/esl.db", Some("/var/lib/esl/esl.db")),
            ("sqlite://", None),
            ("sqlite:///var/lib/", None),
            ("sqlite://esl.db?mode=rwc", None),
            ("sqlite:esl.db", None),
            ("esl.db", None),
            ("mysql://localhost/esl", None),
            ("postgres:esl", None),
        ] {
            let expected = expected.map(|path| DatabaseUrl::Sqlite(path.into()));
            assert_eq!(database_url(text).ok(), expected, "{text}");
        }
        let url = "postgres://esl:hunter2@db.internal/esl";
        let server = database_url(url).expect("it is right");
        assert_eq!(server, DatabaseUrl::Postgres(url.to_owned()));
        assert_eq!(format!("{server} {server:?}").matches("db.internal").count(), 2);
        assert!(!format!("{server} {server:?}").contains("hunter2"));
        let wrong = database_url("postgres://esl:hunter2@db.internal/esl?sslmode=hunter2");
        let wrong = wrong.expect_err("there is no such mode");
        assert!(wrong.contains("verify-full") && !wrong.contains("hunter2"), "{wrong}");
        assert_eq!(database_listen_url(url).ok(), Some(server));
        let wrong = ["sqlite://esl.db", "mysql://esl:hunter2@db/esl"].map(database_listen_url);
        assert!(!format!("{wrong:?}").contains("hunter2") && wrong.iter().all(Result::is_err));
        for (name, is_right) in [("esl", true), ("esl_2", true), ("Esl", false), ("2esl", false)] {
            assert_eq!(database_schema(name).is_ok(), is_right, "{name}");
        }
    }

    #[test]
    fn a_public_url_is_kept_without_its_last_slash() {
        for (text, expected) in [
            ("https://esl.example.com", Some("https://esl.example.com")),
            ("https://esl.example.com/", Some("https://esl.example.com")),
            ("http://127.0.0.1:8080/esl/", Some("http://127.0.0.1:8080/esl")),
            ("esl.example.com", None),
            ("ftp://esl.example.com", None),
            ("https://user@esl.example.com", None),
            ("https://esl.example.com/?a=b", None),
        ] {
            assert_eq!(public_url(text).ok().as_deref(), expected, "{text}");
        }
    }

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
        assert!(listen_address("0.0.0.0:8080").is_ok() && listen_address(":8080").is_err());
        assert!(broker_url("amqps://esl:secret@broker:5671/events").is_ok());
        assert!(broker_url("http://localhost").is_err());
        for (list, is_right) in [
            ("", true),
            ("10.20.0.0/16, hooks.internal", true),
            ("10.20.0.1/16", false),
            ("*", false),
        ] {
            assert_eq!(allowed_callbacks(list).is_ok(), is_right, "{list}");
        }
        let slip = allowed_callbacks("10.20.0.1/16").unwrap_err();
        assert!(slip.contains("its address is 10.20.0.0"), "{slip}");
        assert!(trusted_proxies("10.20.0.0/16, ::1").is_ok());
        let slip = trusted_proxies("10.20.0.1/16").unwrap_err();
        assert!(slip.contains("its address is 10.20.0.0"), "{slip}");
        assert!(egress_proxy("socks5://proxy.internal").is_ok());
        assert!(egress_proxy("socks5h://proxy.internal").is_ok());
        assert!(egress_proxy("https://proxy.internal").is_err());
        for (url, is_right) in [
            ("memory:", true),
            ("file:///var/lib/esl", true),
            ("s3://bucket/prefix", true),
            ("az://container/prefix?sv=1&sig=secret", false),
            ("file:///var/lib/esl#1", false),
            ("file:blobs", false),
            ("/var/lib/esl", false),
            ("https://blob.sapien.example.com", false),
        ] {
            assert_eq!(blob_storage_url(url).is_ok(), is_right, "{url}");
        }
    }
}
