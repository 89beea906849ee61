//! What a client is made of.

use std::{fmt, sync::Arc, time::Duration};

use esl_core::Scopes;
use url::Url;
use zeroize::Zeroizing;

use super::{Client, ClientError, ClientErrorKind, Inner, RetryPolicy, tokens::Tokens};

/// Makes a [`Client`]. Its `Debug` shows no secret.
#[must_use]
pub struct ClientBuilder {
    base: String,
    identity: Identity,
    scopes: Option<Scopes>,
    timeout: Duration,
    connect_timeout: Duration,
    root_certificates: Vec<Vec<u8>>,
    user_agent: String,
    retries: RetryPolicy,
}

/// As whom a client asks.
#[derive(Clone)]
pub(super) enum Identity {
    /// As nobody: for what is open to everybody.
    Nobody,
    /// As whom a token was given to, by somebody else.
    Token(Zeroizing<String>),
    /// As a client of an organization.
    Client { id: String, secret: Zeroizing<String> },
}

impl ClientBuilder {
    pub(super) fn new(base: impl Into<String>) -> Self {
        Self {
            base: base.into(),
            identity: Identity::Nobody,
            scopes: None,
            timeout: Duration::from_secs(65),
            connect_timeout: Duration::from_secs(10),
            root_certificates: Vec::new(),
            user_agent: concat!("esl-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            retries: RetryPolicy::default(),
        }
    }

    /// Asks as a client of an organization: tokens are fetched when the first is needed, and anew before they
    /// expire.
    pub fn with_credentials(mut self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        let secret = Zeroizing::new(secret.into());
        self.identity = Identity::Client { id: id.into(), secret };
        self
    }

    /// Asks with a token that somebody else has fetched; when it is not good any more, so is the client.
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.identity = Identity::Token(Zeroizing::new(token.into()));
        self
    }

    /// What tokens are to be good for. Defaults to all that the client has.
    pub const fn with_scopes(mut self, scopes: Scopes) -> Self {
        self.scopes = Some(scopes);
        self
    }

    /// The time for each try, until its answer is whole. Defaults to 65 s: a little more than what the server
    /// gives itself for an answer.
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The time for a connection to come about, within that. Defaults to 10 s.
    pub const fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Trusts the certificates in this PEM, too, beside those of the system.
    pub fn with_root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates.push(pem.into());
        self
    }

    /// Who asks, for the server's log. Defaults to `esl-client/` and the version.
    pub fn with_user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// When requests are sent again.
    pub const fn with_retries(mut self, retries: RetryPolicy) -> Self {
        self.retries = retries;
        self
    }

    /// The client. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Misuse`](ClientErrorKind::Misuse) if the base is no http or https URL, or has more than a host, a port
    /// and a path; if a certificate cannot be read, or for https there is none, neither here nor in the system;
    /// or if the user agent or the token cannot stand in a header.
    pub fn build(self) -> Result<Client, ClientError> {
        let base = base(&self.base)?;
        let mut http = reqwest::Client::builder()
            .user_agent(self.user_agent)
            .timeout(self.timeout)
            .connect_timeout(self.connect_timeout)
            // A token goes to the server that it is for, and to no other that one names.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            // What is repeated is decided in one place.
            .retry(reqwest::retry::never());
        let mut certificates = Vec::new();
        for pem in &self.root_certificates {
            let read = reqwest::Certificate::from_pem_bundle(pem).map_err(misuse)?;
            if read.is_empty() {
                return Err(ClientError::misuse(MAKING, "expected certificates in PEM"));
            }
            certificates.extend(read);
        }
        http = match base.starts_with("https:") {
            true => http.tls_certs_merge(certificates),
            // Without TLS, the system's certificates need not be there.
            false => http.tls_certs_only(certificates),
        };
        let tokens = Tokens::new(self.identity, self.scopes)?;
        let http = http.build().map_err(misuse)?;
        Ok(Client(Arc::new(Inner { http, base, tokens, retries: self.retries })))
    }
}

/// The base without a slash at its end.
fn base(text: &str) -> Result<String, ClientError> {
    let wrong = || {
        let detail = "expected the server's URL, as in https://events.example.com: http or https, with a path \
            or without, and no user name, query or fragment";
        ClientError::misuse(MAKING, detail)
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    let is_right = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if is_right { Ok(url.as_str().trim_end_matches('/').to_owned()) } else { Err(wrong()) }
}

fn misuse(error: reqwest::Error) -> ClientError {
    ClientError::new(ClientErrorKind::Misuse, MAKING).with_source(error.without_url())
}

const MAKING: &str = "making a client";

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("Nobody"),
            Self::Token(_) => f.write_str("Token(…)"),
            Self::Client { id, .. } => {
                f.debug_struct("Client").field("id", id).finish_non_exhaustive()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_a_server_with_a_path_or_without() {
        for (text, expected) in [
            ("http://127.0.0.1:8080", Some("http://127.0.0.1:8080")),
            ("https://events.example.com/", Some("https://events.example.com")),
            ("https://example.com/esl/", Some("https://example.com/esl")),
            ("example.com", None),
            ("ftp://example.com", None),
            ("https://user@example.com", None),
            ("https://:hunter2@example.com", None),
            ("https://example.com?x=1", None),
            ("https://example.com#x", None),
            ("", None),
        ] {
            let read = base(text);
            assert_eq!(read.as_deref().ok(), expected, "{text}");
            assert!(!read.is_err_and(|error| format!("{error} {error:?}").contains("hunter2")));
        }
    }
}
