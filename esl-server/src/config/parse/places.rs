//! Where things are: addresses, networks, databases, files.

use std::{error::Error, fs, net::SocketAddr};

use esl_amqp::{BrokerUrl, BrokerUrlError};
use esl_core::CallbackAllowList;
use esl_http::{
    HttpTransport, HttpTransportBuilder, Proxy, ProxyError,
    api::{TrustedProxies, TrustedProxiesError},
};
use esl_postgres::PostgresOptions;
use url::Url;

use super::Parsed;
use crate::config::{DatabaseUrl, RootCertificates};

pub(in crate::config) fn broker_url(text: &str) -> Parsed<BrokerUrl> {
    text.parse().map_err(|error: BrokerUrlError| error.to_string())
}

/// Whether it names a store that can be set up shows when it is.
pub(in crate::config) fn blob_storage_url(text: &str) -> Parsed<String> {
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

pub(in crate::config) fn allowed_callbacks(text: &str) -> Parsed<CallbackAllowList> {
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

pub(in crate::config) fn trusted_proxies(text: &str) -> Parsed<TrustedProxies> {
    let expected = "expected networks and addresses with commas in between";
    if may_hold_what_grants_access(text) {
        return Err(expected.into());
    }
    text.parse().map_err(|error: TrustedProxiesError| format!("{error}; {expected}"))
}

pub(in crate::config) fn egress_proxy(text: &str) -> Parsed<Proxy> {
    text.parse().map_err(|error: ProxyError| error.to_string())
}

/// Reads the file, too: what is in it is the value.
pub(in crate::config) fn ca_file(path: &str) -> Parsed<RootCertificates> {
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

pub(in crate::config) fn database_url(text: &str) -> Parsed<DatabaseUrl> {
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

pub(in crate::config) fn database_listen_url(text: &str) -> Parsed<DatabaseUrl> {
    match database_url(text) {
        Ok(DatabaseUrl::Sqlite(_)) => Err("expected postgres:// and a server".into()),
        parsed => parsed,
    }
}

pub(in crate::config) fn database_schema(text: &str) -> Parsed<String> {
    match PostgresOptions::is_schema(text) {
        true => Ok(text.to_owned()),
        false => {
            Err("expected 1 to 63 lower-case letters, digits and underscores, and neither a digit \
                      nor `pg_` at the beginning"
                .into())
        }
    }
}

pub(in crate::config) fn listen_address(text: &str) -> Parsed<SocketAddr> {
    text.parse().map_err(|_| {
        "expected an IP address and a port, such as 127.0.0.1:8080 or, for all of this machine's \
         addresses, 0.0.0.0:8080"
            .into()
    })
}

pub(in crate::config) fn public_url(text: &str) -> Parsed<String> {
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

const ALLOWED_CALLBACKS_EXPECTED: &str = "networks, addresses, host names and `*.` with a name, with commas in between, such as \
     10.20.0.0/16,hooks.internal";

#[cfg(test)]
mod tests {
    use super::*;

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
    fn where_others_are_is_written_as_the_documentation_says() {
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
