//! Fetching, with the guard that deliveries are sent under.
//!
//! - `link` goes where a reference leads, over redirects.
//! - `stream` holds what comes back against the reference, while it comes.

mod link;
mod stream;

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use esl_core::{CallbackPolicy, Clock, DataRef, SystemClock};
use futures_util::TryStreamExt as _;
use tokio::time::{Instant, timeout_at};

pub use self::stream::DataStream;
use self::stream::Expected;
use super::{Fetch, FetchError};
use crate::{HttpTransportBuilder, HttpTransportError, Proxy, Resolver, transport::Getting};

/// Fetches large data over HTTP, for [`Receiver::with_fetch`](super::Receiver::with_fetch).
///
/// - An address that its [`CallbackPolicy`] does not permit is never connected to, whether the
///   reference names it, a name leads to it, or a redirect does. Plain `http` is refused unless the
///   policy is the one for development.
/// - At most three redirects are followed: ESL may answer with a link of its store
///   (`ESL_BLOB_REDIRECT`).
/// - Size and checksum are held against the reference while the bytes come. What has another checksum
///   than SHA-256 is not fetched.
/// - Nothing is sent that says who asks: the link is all that is needed.
///
/// A clone shares everything. The runtime it is used on must have time and network enabled; building
/// needs no runtime.
///
/// ```
/// use esl_http::receiver::{Fetcher, Receiver};
/// # use esl_http::receiver::Verifier;
/// # let verifier = Verifier::standard([]);
/// let receiver = Receiver::new(verifier).with_fetch(Fetcher::new());
/// # let _ = receiver;
/// ```
#[derive(Debug, Clone)]
pub struct Fetcher {
    getting: Getting,
    data_bytes_max: u64,
    timeout: Duration,
    clock: SystemClock,
}

impl Fetcher {
    /// Fetches up to 64 MiB from public addresses, over `https`, trusting the machine's root
    /// certificates.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build().expect("building fails on given root certificates only")
    }

    /// One with other than the default options.
    #[must_use]
    pub fn builder() -> FetcherBuilder {
        FetcherBuilder::default()
    }

    /// Opens the data, to be read bit by bit.
    ///
    /// # Errors
    /// See [`FetchError`]. What is known of the data before it comes is held against the reference
    /// here, the rest in the [stream](DataStream).
    ///
    /// # Cancellation
    /// A dropped call, or stream, closes the connection.
    pub async fn open(&self, reference: &DataRef) -> Result<DataStream, FetchError> {
        let expected = Expected::of(reference)?;
        if reference.size_bytes > self.data_bytes_max {
            let (size_bytes, bytes_max) = (reference.size_bytes, self.data_bytes_max);
            return Err(FetchError::TooLarge { size_bytes, bytes_max });
        }
        if reference.expires_at <= self.clock.utc() {
            return Err(FetchError::Expired);
        }
        let deadline = Instant::now() + self.timeout;
        let answer = timeout_at(deadline, link::follow(&self.getting, &reference.uri)).await;
        let body = answer.map_err(|_| FetchError::Timeout)??.into_body();
        DataStream::new(body, &expected, deadline)
    }
}

#[async_trait]
impl Fetch for Fetcher {
    async fn fetch(&self, reference: &DataRef) -> Result<Bytes, FetchError> {
        let data = self.open(reference).await?;
        let gather = |mut all: BytesMut, part: Bytes| async move {
            all.extend_from_slice(&part);
            Ok(all)
        };
        data.try_fold(BytesMut::new(), gather).await.map(BytesMut::freeze)
    }
}

impl Default for Fetcher {
    fn default() -> Self {
        Self::new()
    }
}

/// The options of a [`Fetcher`].
#[derive(Debug)]
pub struct FetcherBuilder {
    connecting: HttpTransportBuilder,
    data_bytes_max: u64,
    timeout: Duration,
}

impl Default for FetcherBuilder {
    fn default() -> Self {
        Self {
            connecting: HttpTransportBuilder::default(),
            data_bytes_max: DATA_BYTES_MAX,
            timeout: TIMEOUT,
        }
    }
}

impl FetcherBuilder {
    /// Which addresses may be called. Defaults to public ones, over `https`.
    /// [`CallbackPolicy::allow_private`] is for development.
    #[must_use]
    pub fn with_policy(mut self, policy: CallbackPolicy) -> Self {
        self.connecting = self.connecting.with_policy(policy);
        self
    }

    /// The proxy through which every connection goes. Defaults to none. See
    /// [`HttpTransportBuilder::with_proxy`].
    #[must_use]
    pub fn with_proxy(mut self, proxy: Proxy) -> Self {
        self.connecting = self.connecting.with_proxy(proxy);
        self
    }

    /// What names are resolved with. Defaults to the machine's resolver.
    #[must_use]
    pub fn with_resolver(mut self, resolver: impl Resolver) -> Self {
        self.connecting = self.connecting.with_resolver(resolver);
        self
    }

    /// Trusts certificates (DER) as roots, beside those of the machine.
    #[must_use]
    pub fn with_root_certificates(mut self, der: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.connecting = self.connecting.with_root_certificates(der);
        self
    }

    /// Trusts the certificates in a PEM text (RFC 7468) as roots, beside those of the machine.
    ///
    /// # Errors
    /// When there is none in it, or one cannot be read.
    pub fn with_root_certificates_pem(mut self, pem: &[u8]) -> Result<Self, HttpTransportError> {
        self.connecting = self.connecting.with_root_certificates_pem(pem)?;
        Ok(self)
    }

    /// How many bytes data may have; more is not asked for. Defaults to 64 MiB: what is fetched for
    /// [`SignedEvent`](super::SignedEvent) is held in memory.
    #[must_use]
    pub const fn with_data_max(mut self, bytes: u64) -> Self {
        self.data_bytes_max = bytes;
        self
    }

    /// How long it may take from connecting to the last byte. Defaults to 60 s: the largest data at
    /// 10 Mbit/s.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The fetcher.
    ///
    /// # Errors
    /// When one of the [root certificates](Self::with_root_certificates) is none.
    pub fn build(self) -> Result<Fetcher, HttpTransportError> {
        Ok(Fetcher {
            getting: Getting::new(self.connecting)?,
            data_bytes_max: self.data_bytes_max,
            timeout: self.timeout.min(TIMEOUT_MAX),
            clock: SystemClock::new(),
        })
    }
}

const DATA_BYTES_MAX: u64 = 64 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(60);
/// A year: a point in time that far away can be named.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
