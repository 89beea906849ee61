use std::{fmt, sync::Arc, time::Duration};

use super::address::TrustedProxies;

/// What an operator may choose about the API.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ApiConfig {
    /// How long an access token is good. Defaults to an hour, as documented
    /// (`OAUTH_TOKEN_LIFETIME`).
    pub access_token_lifetime: Duration,
    /// How long a refresh token is good. Defaults to a day, as documented
    /// (`OAUTH_REFRESH_LIFETIME`).
    pub refresh_token_lifetime: Duration,
    /// How long a client may take to send a body. Defaults to 30 s: 16 MiB at 5 Mbit/s.
    pub body_timeout: Duration,
    /// How long a request may take in all. Defaults to 60 s, so that storage's own deadlines, which
    /// say more, come first.
    pub request_timeout: Duration,
    /// Whether a reader of a blob is sent on to the store itself, where that has links of its own
    /// (`ESL_BLOB_REDIRECT`). Defaults to false: the store need not be reachable from outside.
    pub blob_redirect: bool,
    /// The proxies in front, whose `X-Forwarded-For` says who the client is
    /// (`ESL_TRUSTED_PROXIES`). Defaults to none: anybody can write that header.
    pub trusted_proxies: TrustedProxies,
    /// The message broker that the engine is joined to, of which `/health` says whether it is there.
    /// Defaults to none, and then nothing is said of one.
    pub broker: Option<HealthCheck>,
    /// Whether the process wants to be given work; while it does not, `/health/ready` is 503. Defaults to
    /// none, and then it does as long as it can. For a process that is about to stop.
    pub readiness: Option<HealthCheck>,
}

/// Something that `/health` or `/health/ready` asks of the process around it.
#[derive(Clone)]
pub struct HealthCheck(Arc<dyn Fn() -> bool + Send + Sync>);

impl HealthCheck {
    /// By a function that knows the answer, and does not wait for it.
    #[must_use]
    pub fn new(is_well: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_well))
    }

    pub(super) fn is_well(&self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HealthCheck").field(&self.is_well()).finish()
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            access_token_lifetime: Duration::from_secs(3600),
            refresh_token_lifetime: Duration::from_secs(86_400),
            body_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(60),
            blob_redirect: false,
            trusted_proxies: TrustedProxies::default(),
            broker: None,
            readiness: None,
        }
    }
}

impl ApiConfig {
    /// Other lifetimes for the tokens it gives out.
    #[must_use]
    pub const fn with_token_lifetimes(mut self, access: Duration, refresh: Duration) -> Self {
        self.access_token_lifetime = access;
        self.refresh_token_lifetime = refresh;
        self
    }

    /// Sends readers of blobs on to the store itself, where that has links of its own.
    #[must_use]
    pub const fn with_blob_redirect(mut self, is_on: bool) -> Self {
        self.blob_redirect = is_on;
        self
    }

    /// Believes these proxies when they say who the client is.
    #[must_use]
    pub fn with_trusted_proxies(mut self, proxies: TrustedProxies) -> Self {
        self.trusted_proxies = proxies;
        self
    }

    /// Says at `/health` whether this broker is there.
    #[must_use]
    pub fn with_broker(mut self, broker: HealthCheck) -> Self {
        self.broker = Some(broker);
        self
    }

    /// Asks at `/health/ready` whether it wants work, too.
    #[must_use]
    pub fn with_readiness(mut self, readiness: HealthCheck) -> Self {
        self.readiness = Some(readiness);
        self
    }

    /// Another time for sending a body.
    #[must_use]
    pub const fn with_body_timeout(mut self, timeout: Duration) -> Self {
        self.body_timeout = timeout;
        self
    }

    /// Another time for a request as a whole.
    #[must_use]
    pub const fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }
}
