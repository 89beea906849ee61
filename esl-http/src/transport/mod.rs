//! Delivery over HTTP: one POST per attempt, over connections that are kept and used again.
//!
//! - `connector` opens connections, and is where addresses are refused: between resolving and
//!   connecting, so that a name that changes what it leads to gains nothing. `resolve`, `dial`,
//!   `proxy` (with `socks`) and `tls` are its steps.
//! - `connection` is what it opens; `progress` is how an attempt learns where its time went.
//! - `answer` reads what comes back, `failure` names what went wrong.
//! - `getting` goes the same way for receivers, who fetch large payloads.

mod answer;
mod connection;
mod connector;
mod dial;
mod failure;
#[cfg(feature = "fetch")]
mod getting;
mod progress;
mod proxy;
mod resolve;
mod socks;
mod tls;

use std::{
    fmt,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use esl_core::{Answer, AttemptError, CallbackPolicy, Failure, Outbound, Sent, Transport};
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Uri,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use hyper_util::{
    client::legacy::{self, Client},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::pki_types::{
    CertificateDer,
    pem::{self, PemObject as _},
};

#[cfg(feature = "fetch")]
pub(crate) use self::getting::Getting;
use self::{
    connection::{Connections, Marker},
    connector::{Connector, Opener},
    progress::Progress,
};
pub use self::{
    proxy::{Proxy, ProxyError},
    resolve::{Resolver, SystemResolver},
};

/// Delivers over HTTP/2 or HTTP/1.1, with TLS by rustls and the machine's root certificates.
///
/// - Which of the two it is, the receiver chooses in the TLS handshake (ALPN). Plain `http` is
///   HTTP/1.1. Over HTTP/2, all attempts to a host share one connection, as many at once as the
///   receiver allows; the others wait within their deadlines. An attempt that times out takes back
///   its own request only; whether the connection is alive is found out by pings, within 10 s.
/// - An address that its [`CallbackPolicy`] does not permit is never connected to. The check stands
///   between resolving and connecting.
/// - Connections are kept and used again. One that turns out to be closed is reported as
///   [`AttemptError::StaleConnection`]; nothing is tried again in secret. A fresh send
///   ([`Outbound::fresh`]) uses a connection of its own, and only once.
/// - No redirect is followed, and no proxy is taken from the environment: only the one it is
///   [given](HttpTransportBuilder::with_proxy).
/// - On a machine without root certificates, those of Mozilla's program are used, as they were when
///   this crate's dependency on them was built.
/// - Of an answer, the head may have 16 KiB; of the body, no more than that is read.
///
/// A clone shares the connections. The runtime it is used on must have time and network enabled;
/// building needs no runtime.
///
/// ```
/// use esl_http::HttpTransport;
/// let transport = HttpTransport::default(); // public addresses only
/// # let _ = transport;
/// ```
#[derive(Clone)]
pub struct HttpTransport {
    /// Uses kept connections, and keeps those that it opens.
    keeping: Client<Connector, Full<Bytes>>,
    /// Opens a connection for each request, and keeps none.
    fresh: Client<Connector, Full<Bytes>>,
}

impl HttpTransport {
    /// A transport that calls what the policy permits.
    #[must_use]
    pub fn new(policy: CallbackPolicy) -> Self {
        Self::builder()
            .with_policy(policy)
            .build()
            .expect("building fails on given root certificates only")
    }

    /// A transport with other than the default options.
    #[must_use]
    pub fn builder() -> HttpTransportBuilder {
        HttpTransportBuilder::default()
    }

    /// Sends, and notes in the attempt's progress how far it has come.
    async fn exchange(&self, outbound: Outbound, started: Instant) -> Result<Answer, Failure> {
        let client = if outbound.fresh { &self.fresh } else { &self.keeping };
        let response = match client.request(request(outbound)?).await {
            Ok(response) => response,
            Err(error) => return Err(failure::of_request(&error)),
        };
        progress::note_used(response.extensions().get::<Marker>());
        progress::note(|timings| timings.first_byte = Some(started.elapsed()));
        answer::read(response).await
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn send(&self, outbound: Outbound) -> Sent {
        let started = Instant::now();
        let timeout = outbound.timeout;
        let mut attempt = pin!(Progress::follow(self.exchange(outbound, started)));
        let result = tokio::time::timeout(timeout, attempt.as_mut()).await;
        let mut timings = Progress::of(attempt).timings();
        timings.total = started.elapsed();
        let result = result.unwrap_or_else(|_| {
            let part =
                if timings.first_byte.is_some() { "the answer did not end" } else { "no answer" };
            Err(Failure {
                error: AttemptError::Timeout,
                detail: format!("{part} within {timeout:?}"),
            })
        });
        Sent { result, timings }
    }
}

fn request(outbound: Outbound) -> Result<Request<Full<Bytes>>, Failure> {
    let uri = Uri::try_from(outbound.url.as_str()).map_err(|_| unsendable("the URL"))?;
    let mut headers = HeaderMap::with_capacity(outbound.headers.len() + 3);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in outbound.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unsendable(&name))?;
        let value = HeaderValue::try_from(value).map_err(|_| unsendable(name.as_str()))?;
        headers.append(name, value);
    }
    let mut request = Request::new(Full::new(outbound.body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

/// For what a [`Outbound`] must not hold; then nothing is connected to.
fn unsendable(what: &str) -> Failure {
    Failure { error: AttemptError::Connect, detail: format!("{what} cannot be sent over HTTP") }
}

impl Default for HttpTransport {
    /// Only public addresses, only `https`.
    fn default() -> Self {
        Self::new(CallbackPolicy::public())
    }
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").finish_non_exhaustive()
    }
}

/// The options of a [`HttpTransport`].
#[derive(Debug)]
pub struct HttpTransportBuilder {
    policy: CallbackPolicy,
    proxy: Option<Proxy>,
    resolver: Arc<dyn Resolver>,
    root_certificates: Vec<CertificateDer<'static>>,
    connect_timeout: Duration,
    idle_timeout: Duration,
    kept_max: usize,
}

impl Default for HttpTransportBuilder {
    fn default() -> Self {
        Self {
            policy: CallbackPolicy::public(),
            proxy: None,
            resolver: Arc::new(SystemResolver::default()),
            root_certificates: Vec::new(),
            connect_timeout: CONNECT_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            kept_max: KEPT_MAX,
        }
    }
}

impl HttpTransportBuilder {
    /// Which addresses may be called. Defaults to public ones.
    #[must_use]
    pub fn with_policy(mut self, policy: CallbackPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// The proxy through which every connection goes. Defaults to none.
    ///
    /// The policy then sees less: it still refuses an address in a URL and a name that is local by
    /// itself, but what any other name leads to is known to the proxy alone. So it should be one
    /// that refuses what is not public.
    #[must_use]
    pub fn with_proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// What names are resolved with. Defaults to [`SystemResolver`]. What it answers is held
    /// against the policy like everything else.
    #[must_use]
    pub fn with_resolver(mut self, resolver: impl Resolver) -> Self {
        self.resolver = Arc::new(resolver);
        self
    }

    /// Trusts certificates (DER) as roots, beside those of the machine.
    #[must_use]
    pub fn with_root_certificates(mut self, der: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.root_certificates.extend(der.into_iter().map(CertificateDer::from));
        self
    }

    /// Trusts the certificates in a PEM text (RFC 7468) as roots, beside those of the machine.
    ///
    /// # Errors
    /// When there is none in it, or one cannot be read.
    pub fn with_root_certificates_pem(mut self, pem: &[u8]) -> Result<Self, HttpTransportError> {
        let unreadable = |error: pem::Error| HttpTransportError::RootCertificate(error.into());
        let before = self.root_certificates.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            self.root_certificates.push(certificate.map_err(unreadable)?);
        }
        if self.root_certificates.len() == before {
            return Err(unreadable(pem::Error::NoItemsFound));
        }
        Ok(self)
    }

    /// How long opening a TCP connection may take, all addresses of a name together. Defaults to
    /// 5 s: enough for a lost packet or two, and a dead receiver is not waited for to the end of
    /// the attempt.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long an unused connection is kept. Defaults to 30 s: less than what load balancers
    /// commonly allow, so that we are the ones who close it.
    #[must_use]
    pub fn with_idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// How many open connections there may be before new ones are used only once. Defaults to
    /// 1 024: each kept connection holds a file descriptor.
    #[must_use]
    pub fn with_kept_connections_max(mut self, connections: usize) -> Self {
        self.kept_max = connections;
        self
    }

    /// The transport.
    ///
    /// # Errors
    /// When one of the [root certificates](Self::with_root_certificates) is none.
    pub fn build(self) -> Result<HttpTransport, HttpTransportError> {
        let (connector, mut client) = self.client()?;
        let keeping = client.build(connector.clone());
        let fresh = client.pool_max_idle_per_host(0).build(connector);
        Ok(HttpTransport { keeping, fresh })
    }

    /// What opens connections, and what the clients that use them are built with.
    fn client(self) -> Result<(Connector, legacy::Builder), HttpTransportError> {
        let opener = Opener {
            policy: self.policy,
            proxy: self.proxy,
            resolver: self.resolver,
            tls: tls::Tls::new(self.root_certificates)?,
            connect_timeout: self.connect_timeout,
            connections: Connections::new(self.kept_max),
        };
        let connector = Connector(Arc::new(opener));
        let mut client = Client::builder(TokioExecutor::new());
        client
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(self.idle_timeout)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .retry_canceled_requests(false)
            .http1_max_buf_size(answer::HEAD_BYTES_MAX as usize)
            .timer(TokioTimer::new())
            .http2_max_header_list_size(answer::HEAD_BYTES_MAX)
            .http2_initial_stream_window_size(HTTP2_STREAM_WINDOW)
            .http2_initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
            .http2_keep_alive_interval(HTTP2_PING_AFTER)
            .http2_keep_alive_timeout(HTTP2_PING_TIMEOUT);
        Ok((connector, client))
    }
}

/// Why a transport could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpTransportError {
    /// What was given as a root certificate is none.
    #[error("a root certificate could not be read")]
    RootCertificate(#[source] Box<dyn std::error::Error + Send + Sync>),
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const KEPT_MAX: usize = 1024;
/// What a receiver may send of an answer before it is read: about what is read of it at all.
const HTTP2_STREAM_WINDOW: u32 = 32 * 1024;
const HTTP2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Over HTTP/2 an attempt that times out leaves its connection to the others. So that these do not
/// time out one after the other on a connection that is dead, one that is silent while it owes
/// answers is asked for a sign of life. Together the two are less than a usual attempt's time, so the
/// attempts that wait on it end as stale and are sent again.
const HTTP2_PING_AFTER: Duration = Duration::from_secs(5);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(5);
/// As many as a lane may have in flight: fewer would open and close connections at every burst.
const IDLE_PER_HOST_MAX: usize = 256;
