//! The configuration, in two steps: what is [`Written`] in the environment, and what it means. After
//! the second step nothing can be invalid.

mod docs;
mod parse;
mod suggest;
mod table;

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fmt,
    path::PathBuf,
};

use esl_core::{CallbackPolicy, Digest, RetryPolicy, Role, Tiers};

pub use self::table::Config;
pub(crate) use self::{
    docs::{help, page},
    parse::{RETRIES_MAX, header_prefix},
};
use self::{
    parse::Parsed,
    table::{Exposure, VARIABLES, Variable, in_one_line, without_credentials},
};
use crate::database::absolute;

impl Config {
    /// What the text means.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn new(written: Written) -> Result<Self, Faults> {
        let config = Self::read(written).map_err(Faults)?;
        match config.role {
            Role::All => Ok(config),
            _ if matches!(config.database, DatabaseUrl::Postgres(_)) => Ok(config),
            _ => Err(Faults(vec![config.half_a_node_on_a_file()])),
        }
    }

    /// One engine at a time does all there is to do on a file.
    fn half_a_node_on_a_file(&self) -> Fault {
        let name = "ESL_ROLE";
        let value = self.written.raw(name).unwrap_or_default().to_owned();
        let expected =
            "expected all, since ESL_DATABASE_URL is a file, which one node has for itself";
        Fault { name, value, expected: expected.to_owned() }
    }

    /// When failed deliveries are tried again.
    pub(crate) fn retry(&self) -> RetryPolicy {
        let policy = RetryPolicy::default().with_budget(self.retry_attempts);
        match &self.retry_schedule {
            None => policy.with_first_delay(self.retry_delay),
            Some(delays) if self.written.has("ESL_RETRY_ATTEMPTS") => {
                policy.with_schedule(delays.clone())
            }
            Some(delays) => {
                let budget = u32::try_from(delays.len()).expect("its length is checked");
                policy.with_budget(budget).with_schedule(delays.clone())
            }
        }
    }

    /// What the tiers allow: of Standard what is configured, and of the others what is documented.
    pub(crate) fn tiers(&self) -> Tiers {
        let mut tiers = Tiers::default();
        tiers.standard.events_per_hour = self.events_per_hour;
        tiers.standard.retries = self.retry().budget();
        tiers
    }

    /// Which callbacks may be called.
    pub(crate) fn callbacks(&self) -> CallbackPolicy {
        let policy = if self.allow_private_callbacks {
            CallbackPolicy::allow_private()
        } else {
            CallbackPolicy::public()
        };
        policy.with_allowed(self.allowed_callbacks.clone())
    }

    /// What is logged.
    pub(crate) fn log_filter(&self) -> &str {
        if self.written.has("ESL_LOG") {
            return &self.log_filter;
        }
        match self.xdebug_mode {
            XdebugMode::Off | XdebugMode::Profile => &self.log_filter,
            XdebugMode::Develop | XdebugMode::Debug => {
                "info,esl_core=debug,esl_http=debug,esl_server=debug,esl_sqlite=debug,esl_postgres=debug"
            }
            XdebugMode::Trace => {
                "info,esl_core=trace,esl_http=trace,esl_server=trace,esl_sqlite=trace,esl_postgres=trace"
            }
        }
    }

    /// Every variable that has a value, written or by default, fit for a log.
    #[must_use]
    pub fn in_force(&self) -> Vec<String> {
        let shown = VARIABLES.iter().filter_map(|variable| {
            let value = self.written.raw(variable.name).unwrap_or(variable.default);
            match variable.exposure {
                _ if value.is_empty() => None,
                Exposure::Open | Exposure::Url => {
                    Some(format!("{}={}", variable.name, variable.shown(value)))
                }
                Exposure::Secret => Some(format!("{} is set", variable.name)),
            }
        });
        shown.collect()
    }

    /// Variables that look like ours and are not.
    #[must_use]
    pub fn unknown(&self) -> Vec<Unknown> {
        self.written.unknown()
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.in_force()).finish()
    }
}

/// The variables as they stand in the environment, without those that are empty. Shows names only.
#[derive(Default)]
pub struct Written(BTreeMap<String, OsString>);

impl Written {
    /// What the environment of this process says.
    #[must_use]
    pub fn from_environment() -> Self {
        env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect()
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn raw(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.to_str().unwrap_or("(not UTF-8)"))
    }

    /// The text that is to be read: what is written, or the default.
    fn text(&self, variable: &Variable) -> Parsed<&str> {
        match self.0.get(variable.name).map(OsString::as_os_str).map(OsStr::to_str) {
            None => Ok(variable.default),
            Some(Some(text)) => Ok(text),
            Some(None) => Err("expected UTF-8".into()),
        }
    }

    fn unknown(&self) -> Vec<Unknown> {
        let is_known = |name: &str| {
            VARIABLES.iter().any(|variable| variable.name == name) || OF_COMMANDS.contains(&name)
        };
        let names = self.0.keys().filter(|name| name.starts_with("ESL_") && !is_known(name));
        names
            .map(|name| {
                let candidates = VARIABLES.iter().map(|variable| variable.name);
                Unknown { name: name.clone(), nearest: suggest::nearest(name, candidates) }
            })
            .collect()
    }
}

/// What `listen` and `verify` read, and what may stand in the environment of a server beside them.
const OF_COMMANDS: [&str; 4] =
    ["ESL_CLIENT_ID", "ESL_CLIENT_SECRET", "ESL_SERVER_URL", "ESL_WEBHOOK_SECRET"];

impl<N: Into<String>, V: Into<OsString>> FromIterator<(N, V)> for Written {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let pairs = pairs.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self(pairs.filter(|(_, value): &(_, OsString)| !value.is_empty()).collect())
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug)]
pub struct Faults(Vec<Fault>);

/// A value that is wrong.
#[derive(Debug)]
struct Fault {
    name: &'static str,
    /// Fit for a log.
    value: String,
    expected: String,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is not valid")?;
        for Fault { name, value, expected } in &self.0 {
            write!(f, "\n  {name} is `{value}`: {}", in_one_line(expected))?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// A variable that nothing reads, and the one that may have been meant.
#[derive(Debug, PartialEq, Eq)]
pub struct Unknown {
    name: String,
    nearest: Option<&'static str>,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no variable {}", in_one_line(&self.name))?;
        match self.nearest {
            Some(nearest) => write!(f, "; did you mean {nearest}?"),
            None => Ok(()),
        }
    }
}

/// Where the state lives (`ESL_DATABASE_URL`). Its `Display` is fit for a log.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum DatabaseUrl {
    /// A file of SQLite's.
    Sqlite(PathBuf),
    /// A server, with the password that the URL has in it.
    Postgres(String),
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => f.write_str(&absolute(path)),
            Self::Postgres(url) => f.write_str(&without_credentials(url)),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A client to be made at the start (`ESL_BOOTSTRAP_CLIENT`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BootstrapClient {
    pub(crate) id: String,
    pub(crate) secret: Digest,
}

/// Certificates that are trusted as roots (`ESL_CA_FILE`), which can be read as such.
pub(crate) struct RootCertificates {
    pub(crate) pem: Vec<u8>,
}

impl fmt::Debug for RootCertificates {
    /// Not what is in the file: some have keys in them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootCertificates").finish_non_exhaustive()
    }
}

/// What a line of the log looks like (`ESL_LOG_FORMAT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// How much detail is wanted (`XDEBUG_MODE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum XdebugMode {
    Off,
    Develop,
    Debug,
    Trace,
    Profile,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use esl_core::{Draw, Limit};

    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<Config, Faults> {
        Config::new(pairs.iter().copied().collect())
    }

    #[test]
    fn half_a_node_needs_a_database_that_is_shared() {
        let postgres = ("ESL_DATABASE_URL", "postgres://esl@localhost/esl?sslmode=disable");
        for (role, expected) in [("api", Role::Api), ("worker", Role::Worker), ("all", Role::All)] {
            let shared = config(&[("ESL_ROLE", role), postgres]).expect("it is right");
            assert_eq!(shared.role, expected);
            let alone = config(&[("ESL_ROLE", role)]).map(|_| ()).map_err(|it| it.to_string());
            match expected {
                Role::All => alone.expect("it is right"),
                _ => assert!(alone.expect_err("a file").contains(&format!("ESL_ROLE is `{role}`"))),
            }
        }
        let wrong = config(&[("ESL_ROLE", "workers")]).expect_err("there is none");
        assert!(wrong.to_string().contains("expected all, api or worker"), "{wrong}");
    }

    #[test]
    fn an_empty_value_counts_as_unset() {
        let config = config(&[("ESL_LISTEN", ""), ("ESL_LISTN", "")]).expect("it is right");
        assert_eq!(config.listen.port(), 8080);
        assert_eq!(config.unknown(), []);
    }

    #[test]
    fn all_wrong_values_are_reported_at_once_and_no_secret_with_them() {
        let faults = config(&[
            ("ESL_LISTEN", "80 80\n"),
            ("ESL_RETRY_ATTEMPTS", "many"),
            ("ESL_BROKER_URL", "http://user:password@localhost"),
            ("ESL_BOOTSTRAP_CLIENT", "id:password"),
            ("ESL_ALLOWED_CALLBACKS", "10.0.0.0/8,https://user:password@host"),
            ("ESL_TRUSTED_PROXIES", "user:password@host"),
            ("ESL_LOG", "info"),
        ]);
        let message = faults.expect_err("they are wrong").to_string();
        let lines: Vec<_> = message.lines().collect();
        assert_eq!(lines.len(), 7, "{message}");
        assert!(lines[1].contains("ESL_LISTEN is `80 80\\n`: expected an IP address"), "{message}");
        assert!(lines[2].contains("ESL_BOOTSTRAP_CLIENT is `(hidden)`"), "{message}");
        assert!(lines[3].contains("ESL_BROKER_URL is `http://(hidden)@localhost`"), "{message}");
        assert!(lines[4].contains("ESL_RETRY_ATTEMPTS is `many`"), "{message}");
        assert!(!message.contains("password"), "{message}");
    }

    #[test]
    fn what_grants_access_in_a_url_is_in_no_fault_wherever_it_was_put() {
        // What was expected may say "password".
        for url in ["https://user:hunter2@host/", "host?sig=hunter2"] {
            for variable in VARIABLES.iter().filter(|variable| variable.exposure == Exposure::Url) {
                let Err(faults) = config(&[(variable.name, url)]) else { continue };
                assert!(!faults.to_string().contains("hunter2"), "{faults}");
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_not_text_is_reported() {
        use std::os::unix::ffi::OsStringExt;
        let value = OsString::from_vec(vec![b'x', 0xff]);
        let faults = Config::new([("ESL_LISTEN", value)].into_iter().collect());
        let message = faults.expect_err("it is not text").to_string();
        assert!(message.contains("ESL_LISTEN") && message.contains("expected UTF-8"), "{message}");
    }

    #[test]
    fn an_unknown_variable_is_named_with_the_nearest_one() {
        let config =
            config(&[("ESL_LITSEN", "x"), ("ESL_QUITE_ELSE", "x"), ("OTHER", "x")]).expect("right");
        let messages: Vec<_> = config.unknown().iter().map(Unknown::to_string).collect();
        assert_eq!(
            messages,
            [
                "there is no variable ESL_LITSEN; did you mean ESL_LISTEN?",
                "there is no variable ESL_QUITE_ELSE",
            ]
        );
    }

    #[test]
    fn what_is_in_force_is_shown_without_secrets() {
        let secret = "s".repeat(32);
        let key = "abcdef01".repeat(8);
        let config = config(&[
            ("ESL_LISTEN", "127.0.0.1:1"),
            ("ESL_BOOTSTRAP_CLIENT", &format!("client:{secret}")),
            ("ESL_ENCRYPTION_KEY", &key),
        ])
        .expect("it is right");
        let shown = config.in_force().join(" ");
        assert!(shown.contains("ESL_LISTEN=127.0.0.1:1 "), "{shown}");
        assert!(shown.contains("ESL_BOOTSTRAP_CLIENT is set"), "{shown}");
        assert!(shown.contains("RATE_LIMIT_EVENTS_HOUR=10000"), "{shown}");
        assert!(!shown.contains("ESL_BROKER_URL"), "{shown}");
        assert!(shown.contains("ESL_ENCRYPTION_KEY is set"), "{shown}");
        for secret in [&secret, &key] {
            assert!(!shown.contains(secret) && !format!("{config:?}").contains(secret), "{shown}");
        }
    }

    #[test]
    fn whatever_is_written_is_shown_in_one_line_each() {
        let config = config(&[
            ("ESL_BLOB_STORAGE_URL", "s3://bucket/\nESL_LISTEN=x"),
            ("ESL_ALLOWED_CALLBACKS", "10.20.0.0/16,\n*.corp"),
            ("ESL_LITSEN\n\u{1b}[2J", "x"),
        ])
        .expect("it is right");
        let shown = config.in_force();
        assert!(shown.contains(&"ESL_BLOB_STORAGE_URL=s3://bucket/\\nESL_LISTEN=x".to_owned()));
        assert!(shown.contains(&"ESL_ALLOWED_CALLBACKS=10.20.0.0/16,\\n*.corp".to_owned()));
        let unknown = config.unknown()[0].to_string();
        assert!(unknown.starts_with("there is no variable ESL_LITSEN\\n\\u{1b}[2J"), "{unknown}");
    }

    #[test]
    fn a_password_that_is_taken_is_not_in_what_is_printed_for_debugging() {
        let config = config(&[
            ("ESL_BLOB_STORAGE_URL", "s3://user:hunter2@bucket"),
            ("ESL_EGRESS_PROXY", "http://user:hunter2@proxy"),
        ])
        .expect("it is right");
        assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
    }

    #[test]
    fn a_retry_schedule_brings_its_own_number_of_retries() {
        let retry = |pairs: &[(&str, &str)]| config(pairs).expect("it is right").retry();
        assert_eq!(retry(&[]), RetryPolicy::default());
        let schedule = ("ESL_RETRY_SCHEDULE", "5s,5m,30m");
        assert_eq!(retry(&[schedule]).budget(), 3);
        let both = retry(&[schedule, ("ESL_RETRY_ATTEMPTS", "7")]);
        assert_eq!(both.budget(), 7);
        assert_eq!(both.delay(2, Draw(0)), Duration::from_secs(300));
        let plain = retry(&[("ESL_RETRY_ATTEMPTS", "2"), ("ESL_RETRY_DELAY_MS", "10")]);
        assert_eq!(plain.budget(), 2);
        assert_eq!(plain.delay(1, Draw::MIDDLE), Duration::from_millis(10));
    }

    #[test]
    fn the_standard_tier_is_as_configured_and_the_others_as_documented() {
        let tiers = |pairs: &[(&str, &str)]| config(pairs).expect("it is right").tiers();
        assert_eq!(tiers(&[]), Tiers::default());
        let mut expected = Tiers::default();
        expected.standard.events_per_hour = Limit::Unlimited;
        expected.standard.retries = 2;
        let schedule = ("ESL_RETRY_SCHEDULE", "5s,5m");
        assert_eq!(tiers(&[("RATE_LIMIT_EVENTS_HOUR", "unlimited"), schedule]), expected);
    }

    #[test]
    fn xdebug_mode_adds_detail_where_the_log_has_no_filter_of_its_own() {
        for (pairs, expected) in [
            (&[][..], "info"),
            (&[("XDEBUG_MODE", "profile")], "info"),
            (&[("XDEBUG_MODE", "debug"), ("ESL_LOG", "warn")], "warn"),
        ] {
            assert_eq!(config(pairs).expect("it is right").log_filter(), expected);
        }
        for mode in ["develop", "debug", "trace"] {
            let config = config(&[("XDEBUG_MODE", mode)]).expect("it is right");
            let filter = tracing_subscriber::EnvFilter::try_new(config.log_filter());
            assert!(filter.is_ok() && config.log_filter() != "info", "{mode}");
        }
    }
}
