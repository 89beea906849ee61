//! The one table of variables: what reads them, `--help` and docs/configuration.md come from here.

use std::{net::SocketAddr, time::Duration};

use esl_amqp::BrokerUrl;
use esl_core::{Algorithm, CallbackAllowList, Keyring, Limit, Role};
use esl_http::{Proxy, api::TrustedProxies};

use super::{
    BootstrapClient, DatabaseUrl, Fault, LogFormat, RootCertificates, Written, XdebugMode,
    parse::{self, Parsed},
};

/// An environment variable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    /// What holds when it is unset; empty if it then stays unset.
    pub(crate) default: &'static str,
    pub(crate) exposure: Exposure,
    meaning: &'static str,
}

/// How much of a value may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exposure {
    /// All of it, unless it is a URL that was put in the wrong place.
    Open,
    /// All but a URL's password and query.
    Url,
    /// Nothing.
    Secret,
}

impl Variable {
    /// What it is for, in the sentences of the documentation.
    pub(crate) fn meaning(&self) -> &'static str {
        self.meaning.trim_start()
    }

    /// A value of it, fit for a log.
    pub(crate) fn shown(&self, value: &str) -> String {
        match self.exposure {
            Exposure::Open if !value.contains("://") => in_one_line(value),
            Exposure::Open | Exposure::Url => without_credentials(value),
            Exposure::Secret => "(hidden)".to_owned(),
        }
    }
}

/// Escapes what would break the line of a log, pretend to be another one, or turn around what it says.
pub(super) fn in_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        // Separators of lines and paragraphs, and the marks by which text changes its direction.
        if c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            line.extend(c.escape_debug());
        } else {
            line.push(c);
        }
    }
    line
}

/// A URL as it may be shown, in one line.
pub(super) fn without_credentials(url: &str) -> String {
    in_one_line(&without_query(&without_password(url)))
}

/// Hides what stands between the scheme, or the beginning, and the last `@`: in a URL that is not
/// well-formed, a password may hold anything.
fn without_password(url: &str) -> String {
    let Some(end) = url.rfind('@') else { return url.to_owned() };
    let start = match url[..end].find("://") {
        Some(colon) if is_scheme(&url[..colon]) => colon + 3,
        _ => 0,
    };
    format!("{}(hidden){}", &url[..start], &url[end..])
}

/// Hides a query: what grants access to a store may be in it.
fn without_query(url: &str) -> String {
    match url.split_once('?') {
        Some((before, _)) => format!("{before}?(hidden)"),
        None => url.to_owned(),
    }
}

/// RFC 3986, 3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// A line of the table reads: name, exposure, default, field, type, parser; its documentation is the
/// variable's.
macro_rules! variables {
    ($(
        $(#[doc = $meaning:literal])+
        $name:literal $exposure:ident, default $default:literal => $field:ident: $type:ty = $parse:expr;
    )+) => {
        /// Everything that an operator chose, or the defaults. Its `Debug` shows what
        /// [`in_force`](Self::in_force) does.
        pub struct Config {
            $($(#[doc = $meaning])+ pub(crate) $field: $type,)+
            pub(super) written: Written,
        }

        /// All of them, in the order of the documentation.
        pub(crate) const VARIABLES: &[Variable] = &[$(Variable {
            name: $name,
            default: $default,
            exposure: Exposure::$exposure,
            meaning: concat!($($meaning),+),
        },)+];

        impl Config {
            /// Reads every variable, each by itself, and reports all that is wrong at once.
            pub(super) fn read(written: Written) -> Result<Self, Vec<Fault>> {
                let mut faults = Vec::new();
                let mut variables = VARIABLES.iter();
                $(let $field = read(variables.next(), &written, $parse, &mut faults);)+
                let ($(Some($field),)+) = ($($field,)+) else { return Err(faults) };
                Ok(Self { $($field,)+ written })
            }
        }
    };
}

fn read<T>(
    variable: Option<&Variable>,
    written: &Written,
    parse: impl FnOnce(&str) -> Parsed<T>,
    faults: &mut Vec<Fault>,
) -> Option<T> {
    let variable = variable.expect("the table has a line for each field");
    let text = written.text(variable);
    match text.and_then(parse) {
        Ok(value) => Some(value),
        Err(expected) => {
            let value = variable.shown(written.raw(variable.name).unwrap_or(variable.default));
            faults.push(Fault { name: variable.name, value, expected });
            None
        }
    }
}

variables! {
    /// Whether the event system is on. With `false` nothing is recorded or sent: publishing, pings,
    /// announcements of maintenance, redeliveries and replays, but for a dry run, which only counts, are
    /// answered with 503; everything else goes on: entities are kept, schedules fire and statuses go
    /// back, without events.
    "ESL_ENABLED" Open, default "true" => enabled: bool = parse::boolean;

    /// The address and port that the API is served on. Port 0 takes a free one, which the log names.
    "ESL_LISTEN" Url, default "127.0.0.1:8080" => listen: SocketAddr = parse::listen_address;

    /// Where the state lives: `sqlite://` and the path of a file, which is made if it is not there, or
    /// `postgres://user:password@host/database` for as many nodes as there are. A path that does not
    /// begin with a slash starts at the working directory. What of a server's URL leaves the machine is
    /// encrypted, and the server verified, unless `?sslmode=disable` says not to; see
    /// docs/operations.md.
    "ESL_DATABASE_URL" Url, default "sqlite://esl.db" => database: DatabaseUrl = parse::database_url;

    /// The schema of a Postgres database that ESL's tables and functions are in, which is made if it is
    /// not there: lower-case letters, digits and underscores.
    "ESL_DATABASE_SCHEMA" Open, default "esl" => database_schema: String = parse::database_schema;

    /// How many connections a node has to Postgres at most, beside the two or three that commit and
    /// listen, 1 to 1000.
    "ESL_DATABASE_CONNECTIONS" Open, default "8" => database_connections: usize =
        parse::whole(1..=1000);

    /// Where a node listens for what other nodes change, if `ESL_DATABASE_URL` leads to a pooler that keeps
    /// notifications for itself: a URL that goes past it, to the same database. Unset, it is
    /// `ESL_DATABASE_URL`, and through such a pooler a node asks four times a second instead.
    "ESL_DATABASE_LISTEN_URL" Url, default "" => database_listen: Option<DatabaseUrl> =
        parse::optional(parse::database_listen_url);

    /// What this node does, of several on one Postgres database: `all`, or one half of it. `api` serves the
    /// API and delivers nothing. `worker` delivers and does the chores, and serves nothing but `/health` and
    /// `/health/ready`.
    /// There may be any number of each.
    "ESL_ROLE" Open, default "all" => role: Role = parse::role;

    /// The key that the secrets of subscriptions, the values of their own headers and the keys of links
    /// are encrypted with in the database: 32 random bytes in base64 or hex, as
    /// `openssl rand -base64 32` makes them. Unset, they are stored in plain text. Several keys stand
    /// with commas in between: the first encrypts, all of them decrypt. From the first secret on, nothing
    /// but a backup can be done without the key, so keep it, elsewhere than the database; see
    /// docs/server.md.
    "ESL_ENCRYPTION_KEY" Secret, default "" => encryption_keys: Option<Keyring> =
        parse::optional(parse::encryption_keys);

    /// How the API is reached from outside, for the links that ESL gives out.
    /// Unset, it is `http://` and what `ESL_LISTEN` says.
    "ESL_PUBLIC_URL" Url, default "" => public_url: Option<String> = parse::optional(parse::public_url);

    /// A client to be made at the start, as `id:secret` with a secret of at least 32 characters.
    /// It gets every scope, in an organization of its own that is named like it. Nothing happens when
    /// it is there already; when it is there with another secret, the start fails.
    "ESL_BOOTSTRAP_CLIENT" Secret, default "" => bootstrap_client: Option<BootstrapClient> =
        parse::optional(parse::bootstrap_client);

    /// Message broker connection URL: that of a RabbitMQ, as `amqp://user:password@host:port/vhost` or
    /// `amqps://…`. Unset means that none is needed. While the broker is away, all else goes on; see
    /// docs/broker.md.
    "ESL_BROKER_URL" Url, default "" => broker: Option<BrokerUrl> =
        parse::optional(parse::broker_url);

    /// Whether every event goes to the broker, too, to the exchange `esl.events`: those that are published
    /// from the first start on with this.
    "ESL_BROKER_EVENTS" Open, default "false" => broker_events: bool = parse::boolean;

    /// Whether events are taken from the broker, from the queue `esl.ingest`. Whoever may write there
    /// publishes for every organization.
    "ESL_BROKER_INGEST" Open, default "false" => broker_ingest: bool = parse::boolean;

    /// How often a failed delivery is tried again, 0 to 100 times, for organizations of the tier
    /// Standard, which is what they begin with, and those without a tier.
    "ESL_RETRY_ATTEMPTS" Open, default "5" => retry_attempts: u32 = parse::whole(0..=parse::RETRIES_MAX);

    /// The delay before the first retry, 1 to 3600000 ms. Each further one is twice as long, an hour
    /// at most, with a jitter of ± 20 %.
    "ESL_RETRY_DELAY_MS" Open, default "1000" => retry_delay: Duration =
        parse::units(Duration::from_millis(1), 1..=3_600_000);

    /// The delays before the retries, exactly, in place of the doubling ones: durations with commas
    /// between them, such as `5s,5m,30m`, each an hour at most. There are as many retries as delays,
    /// unless `ESL_RETRY_ATTEMPTS` is set, too: then the last delay repeats.
    "ESL_RETRY_SCHEDULE" Open, default "" => retry_schedule: Option<Vec<Duration>> =
        parse::optional(parse::retry_schedule);

    /// The largest event, in bytes, that is sent with its data inline, 1024 to 16777216. The data of
    /// larger ones goes to the blob storage.
    "ESL_MAX_PAYLOAD_SIZE" Open, default "262144" => payload_bytes_max: usize =
        parse::whole(1024..=16 * 1024 * 1024);

    /// Blob storage endpoint for large payloads: `file:///` and a folder, `s3://bucket/prefix`,
    /// `gs://bucket/prefix` or `az://container/prefix`, with credentials from the variables that the
    /// tools of these stores read (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT` and the like); or `memory:`,
    /// until the server stops. Unset, it is a folder beside SQLite's file, named like it with `.blobs`
    /// at the end; with Postgres, events of more than `ESL_MAX_PAYLOAD_SIZE` are refused then, since all
    /// nodes have to reach the store.
    "ESL_BLOB_STORAGE_URL" Url, default "" => blob_storage: Option<String> =
        parse::optional(parse::blob_storage_url);

    /// Whether a receiver that fetches a large payload is sent on to the blob store itself, where
    /// that has links of its own (`s3:`, `gs:`, `az:`).
    "ESL_BLOB_REDIRECT" Open, default "false" => blob_redirect: bool = parse::boolean;

    /// For how long events are kept, with their deliveries: `1h` to `36500d`, or `forever`. An event
    /// that is still owed to somebody is kept for longer.
    "ESL_RETENTION" Open, default "30d" => retention: Option<Duration> = parse::retention;

    /// The hash under the HMAC of the signature header: `sha256`, `sha384` or `sha512`.
    "ESL_SIGNATURE_ALGORITHM" Open, default "sha256" => signature_algorithm: Algorithm = parse::algorithm;

    /// What the names of ESL's own headers begin with, as in `X-Sapien-Signature`. Beginnings that
    /// other headers have, such as `webhook` (Standard Webhooks) and `content`, are refused.
    "ESL_HEADER_PREFIX" Open, default "X-Sapien" => header_prefix: String = parse::header_prefix;

    /// Whether callbacks may be `http` and lead to private, loopback and other special addresses.
    /// For development and tests: whoever may subscribe then reaches everything that the server does.
    "ESL_ALLOW_PRIVATE_CALLBACKS" Open, default "false" => allow_private_callbacks: bool = parse::boolean;

    /// What `https` callbacks may lead to although it is not public, with commas in between: networks
    /// (`10.20.0.0/16`), addresses, host names (`hooks.internal`) and what is below a name
    /// (`*.corp.example`). A listed name may lead anywhere.
    "ESL_ALLOWED_CALLBACKS" Url, default "" => allowed_callbacks: CallbackAllowList =
        parse::allowed_callbacks;

    /// A proxy through which all deliveries leave: `http://` or `socks5://` (`socks5h://` is the same),
    /// perhaps a user and a password, a host and a port. It resolves the receivers' names, so it has to
    /// be the one that refuses what they must not lead to: see docs/network.md.
    "ESL_EGRESS_PROXY" Url, default "" => egress_proxy: Option<Proxy> =
        parse::optional(parse::egress_proxy);

    /// A file of certificates (PEM) of authorities that are trusted beside the machine's when
    /// delivering.
    "ESL_CA_FILE" Open, default "" => root_certificates: Option<RootCertificates> =
        parse::optional(parse::ca_file);

    /// The proxies in front of the server, as networks (`10.20.0.0/16`) and addresses with commas in
    /// between. What they write into `X-Forwarded-For` says where a client comes from, for slowing
    /// down those who guess secrets and for the audit trail: it is the rightmost address there that is no
    /// trusted proxy's.
    /// Without it, it is whoever connects.
    "ESL_TRUSTED_PROXIES" Url, default "" => trusted_proxies: TrustedProxies = parse::trusted_proxies;

    /// Access token lifetime, in seconds.
    "OAUTH_TOKEN_LIFETIME" Open, default "3600" => access_token_lifetime: Duration =
        parse::units(Duration::from_secs(1), 1..=31_536_000);

    /// Refresh token lifetime, in seconds. Each refresh gives a new one, which lasts as long again.
    "OAUTH_REFRESH_LIFETIME" Open, default "86400" => refresh_token_lifetime: Duration =
        parse::units(Duration::from_secs(1), 1..=31_536_000);

    /// How many events an organization of the tier Standard, which is what it begins with, may publish
    /// in an hour of the clock (UTC), or `unlimited`. `esl-server org set` gives an organization another
    /// tier, or a number of its own.
    "RATE_LIMIT_EVENTS_HOUR" Open, default "10000" => events_per_hour: Limit = parse::events_per_hour;

    /// What is logged, to the standard error: a level (`off`, `error`, `warn`, `info`, `debug` or
    /// `trace`), modules with levels, or both, such as `warn,esl_core=debug`.
    "ESL_LOG" Open, default "info" => log_filter: String = parse::log_filter;

    /// `text`, or `json` with one object in a line.
    "ESL_LOG_FORMAT" Open, default "text" => log_format: LogFormat = parse::log_format;

    /// How much detail the log has where `ESL_LOG` is unset: with `develop` and `debug` ESL's own
    /// debug messages are added, with `trace` all of its messages; `off` and `profile` add nothing.
    "XDEBUG_MODE" Open, default "off" => xdebug_mode: XdebugMode = parse::xdebug_mode;

    /// Whether `/_profiler` is served. It comes with a later version; until then there is a warning.
    "PROFILER_ENABLED" Open, default "false" => profiler_enabled: bool = parse::boolean;

    /// For how long a server that was told to stop goes on before it does, while `/health/ready` is 503
    /// already: as long as a load balancer takes to see that. `10m` at most.
    "ESL_SHUTDOWN_DELAY" Open, default "0s" => shutdown_delay: Duration =
        parse::duration(Duration::ZERO..=Duration::from_secs(600));

    /// How long a stop may take, from `1s` to `10m`: a quarter of it for requests that are being
    /// answered, the rest for deliveries that are being sent. What is cut off is sent again.
    "ESL_SHUTDOWN_GRACE" Open, default "20s" => shutdown_grace: Duration =
        parse::duration(Duration::from_secs(1)..=Duration::from_secs(600));

    /// How many threads do the work, 1 to 1024. Unset, there are as many as the machine has cores.
    "ESL_WORKER_THREADS" Open, default "" => worker_threads: Option<usize> =
        parse::optional(parse::whole(1..=1024));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_that_is_accepted() {
        let config = Config::read(Written::default()).expect("defaults are right");
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.public_url, None);
        assert_eq!(config.events_per_hour, Limit::AtMost(10_000));
    }

    #[test]
    fn names_are_unique() {
        for (index, variable) in VARIABLES.iter().enumerate() {
            assert!(VARIABLES[..index].iter().all(|other| other.name != variable.name));
        }
    }

    #[test]
    fn what_is_shown_stays_in_its_line_and_is_otherwise_as_it_is() {
        for (text, line) in [
            ("a\n\tb\r\u{1b}[31m", "a\\n\\tb\\r\\u{1b}[31m"),
            ("\u{85}\u{2028}\u{2029}", "\\u{85}\\u{2028}\\u{2029}"),
            ("\u{202a}\u{202e}on\u{202c}", "\\u{202a}\\u{202e}on\\u{202c}"),
            ("\u{2066}\u{2069}", "\\u{2066}\\u{2069}"),
            ("\u{2027}\u{202f}\u{2065}\u{206a}", "\u{2027}\u{202f}\u{2065}\u{206a}"),
            ("C:\\it's \"é\"", "C:\\it's \"é\""),
        ] {
            assert_eq!(in_one_line(text), line);
        }
    }

    #[test]
    fn what_grants_access_is_shown_by_no_variable_wherever_it_was_put() {
        let url = "https://user:hunter2@host/?sig=hunter2";
        for variable in VARIABLES {
            assert!(!variable.shown(url).contains("hunter2"), "{}", variable.name);
        }
        let shown = |name: &str, value| {
            let variable = VARIABLES.iter().find(|variable| variable.name == name);
            variable.expect("there is one").shown(value)
        };
        assert_eq!(shown("ESL_CA_FILE", "/etc/esl@prod/ca?.pem"), "/etc/esl@prod/ca?.pem");
        assert_eq!(shown("ESL_BLOB_STORAGE_URL", "az://c/p?sig=x"), "az://c/p?(hidden)");
    }

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        for (url, shown) in [
            ("amqp://user:pass@host/", "amqp://(hidden)@host/"),
            ("postgres://user:p@ss/w:ord@host", "postgres://(hidden)@host"),
            ("sqlite://esl.db", "sqlite://esl.db"),
            ("user:pass@host:3128", "(hidden)@host:3128"),
            ("user:pa//ss@host", "(hidden)@host"),
            ("user:pa://ss@host", "(hidden)@host"),
            (" http://user:pass@host", "(hidden)@host"),
            ("socks5h://user:pa://ss@host", "socks5h://(hidden)@host"),
            ("http://@host", "http://(hidden)@host"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
