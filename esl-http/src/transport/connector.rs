//! Opens connections: resolves, refuses, connects, shakes hands.

use std::{
    error, fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use esl_core::{AttemptError, CallbackPolicy, Failure};
use hyper::{Uri, http::uri::Scheme};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use tower_service::Service;

use super::{
    connection::{Connections, Io, OpenConnection},
    dial::dial,
    failure, progress,
    proxy::{Proxy, TunnelError},
    resolve::Resolver,
    tls::Tls,
};

/// What the pool calls when it has no connection to a host. The pool clones it for each attempt.
#[derive(Debug, Clone)]
pub(super) struct Connector(pub(super) Arc<Opener>);

/// Opens connections to what the policy permits.
#[derive(Debug)]
pub(super) struct Opener {
    pub(super) policy: CallbackPolicy,
    pub(super) proxy: Option<Proxy>,
    pub(super) resolver: Arc<dyn Resolver>,
    pub(super) tls: Tls,
    pub(super) connect_timeout: Duration,
    pub(super) connections: Connections,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) struct ConnectError(pub(super) Failure);

impl Service<Uri> for Connector {
    type Response = TokioIo<OpenConnection>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let opener = Arc::clone(&self.0);
        Box::pin(async move { opener.open(&to).await.map(TokioIo::new) })
    }
}

impl Opener {
    async fn open(&self, to: &Uri) -> Result<OpenConnection, ConnectError> {
        let is_tls = to.scheme() == Some(&Scheme::HTTPS);
        if !self.policy.permits_scheme(to.scheme_str().unwrap_or_default()) {
            return Err(ConnectError::refused("plain http is not allowed"));
        }
        let host = Host::of(to);
        let port = to.port_u16().unwrap_or(if is_tls { 443 } else { 80 });

        let tcp = match &self.proxy {
            None => self.dial(&self.addresses(host, port).await?).await?,
            Some(proxy) => {
                self.check(host)?;
                self.tunnel(proxy, host, port).await?
            }
        };

        let io = if is_tls {
            let began = Instant::now();
            let tls = self.tls.handshake(host.bare, tcp).await?;
            progress::note(|timings| timings.tls = Some(began.elapsed()));
            Io::Tls(Box::new(tls))
        } else {
            Io::Plain(tcp)
        };
        let connection = self.connections.add(io);
        progress::note_opened(connection.marker());
        Ok(connection)
    }

    /// Refuses what the host says of itself.
    fn check(&self, host: Host<'_>) -> Result<(), ConnectError> {
        match host.address() {
            Some(address) if self.policy.permits(address) => Ok(()),
            Some(_) => Err(ConnectError::refused("the host is not a public address")),
            None if self.policy.permits_name(host.bare) => Ok(()),
            None => Err(ConnectError::refused("the host is local by its name")),
        }
    }

    /// Where to connect to: only what the policy permits, and at least one.
    async fn addresses(&self, host: Host<'_>, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
        self.check(host)?;
        if let Some(address) = host.address() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let began = Instant::now();
        let resolved = self.resolver.resolve(host.bare).await;
        progress::note(|timings| timings.resolve = Some(began.elapsed()));
        let resolved = resolved.map_err(|error| ConnectError::of_io(AttemptError::Dns, &error))?;
        if resolved.is_empty() {
            return Err(ConnectError::new(AttemptError::Dns, "the name has no address"));
        }
        let permitted: Vec<_> = resolved
            .into_iter()
            .filter(|&address| self.policy.permits_resolved(host.bare, address))
            .take(ADDRESSES_MAX)
            .map(|address| SocketAddr::new(address, port))
            .collect();
        if permitted.is_empty() {
            // Which address it was is the operator's business, not the subscriber's.
            return Err(ConnectError::refused("the host leads to an address that is not public"));
        }
        Ok(permitted)
    }

    async fn dial(&self, addresses: &[SocketAddr]) -> Result<TcpStream, ConnectError> {
        let began = Instant::now();
        let tcp = timeout(self.connect_timeout, dial(addresses))
            .await
            .map_err(|_| ConnectError::no_connection_within(self.connect_timeout))?
            .map_err(|error| ConnectError::of_io(AttemptError::Connect, &error))?;
        progress::note(|timings| timings.connect = Some(began.elapsed()));
        Ok(tcp)
    }

    /// Connects through the proxy, which resolves the name. The proxy itself is the operator's
    /// choice, so the policy is not asked about its address.
    async fn tunnel(
        &self,
        proxy: &Proxy,
        host: Host<'_>,
        port: u16,
    ) -> Result<TcpStream, ConnectError> {
        let began = Instant::now();
        let to_proxy = timeout(self.connect_timeout, self.dial_proxy(proxy)).await;
        // Without the proxy nothing can be sent at all: no receiver is to blame.
        let to_proxy =
            to_proxy.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|error| {
                let detail = format!("the egress proxy cannot be reached: {}", error.kind());
                ConnectError::new(AttemptError::Unsent, detail)
            })?;
        let tcp = timeout(self.connect_timeout, proxy.tunnel(to_proxy, host.as_in_url, port))
            .await
            .map_err(|_| ConnectError::no_connection_within(self.connect_timeout))?
            .map_err(|error| ConnectError::of_tunnel(&error))?;
        progress::note(|timings| timings.connect = Some(began.elapsed()));
        Ok(tcp)
    }

    async fn dial_proxy(&self, proxy: &Proxy) -> io::Result<TcpStream> {
        let addresses = match proxy.host().parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => self.resolver.resolve(proxy.host()).await?,
        };
        let addresses = addresses.into_iter().take(ADDRESSES_MAX);
        let addresses: Vec<_> =
            addresses.map(|address| SocketAddr::new(address, proxy.port())).collect();
        dial(&addresses).await
    }
}

/// The host of a URL.
#[derive(Debug, Clone, Copy)]
struct Host<'a> {
    as_in_url: &'a str,
    /// Without the brackets of an IPv6 address.
    bare: &'a str,
}

impl<'a> Host<'a> {
    fn of(url: &'a Uri) -> Self {
        let as_in_url = url.host().unwrap_or_default();
        let bare = as_in_url.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        Self { as_in_url, bare: bare.unwrap_or(as_in_url) }
    }

    fn address(self) -> Option<IpAddr> {
        self.bare.parse().ok()
    }
}

impl ConnectError {
    pub(super) fn new(error: AttemptError, detail: impl Into<String>) -> Self {
        Self(Failure { error, detail: detail.into() })
    }

    fn refused(detail: &str) -> Self {
        Self::new(AttemptError::RefusedAddress, detail)
    }

    /// What `otherwise` names, unless it is our own side that lacks something.
    fn of_io(otherwise: AttemptError, error: &io::Error) -> Self {
        match lack(error) {
            Some(lack) => Self::new(AttemptError::Unsent, lack),
            None => Self::new(otherwise, failure::bounded(error.to_string())),
        }
    }

    /// A proxy that does not let us in is like one that is away: no receiver is to blame.
    fn of_tunnel(error: &TunnelError) -> Self {
        let (error, detail) = match error {
            TunnelError::NotLetIn(cause) => {
                (AttemptError::Unsent, format!("the egress proxy does not let us in: {cause}"))
            }
            TunnelError::NoConnection(cause) => {
                (AttemptError::Connect, format!("the egress proxy made no connection: {cause}"))
            }
        };
        Self::new(error, failure::bounded(detail))
    }

    fn no_connection_within(timeout: Duration) -> Self {
        Self::new(AttemptError::Connect, format!("no connection within {timeout:?}"))
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)
    }
}

impl error::Error for ConnectError {}

/// What this process or this machine has no more of (`EMFILE`, `ENFILE`, `ENOBUFS`).
pub(super) fn lack(error: &io::Error) -> Option<&'static str> {
    const NO_BUFFERS: i32 =
        if cfg!(any(target_os = "linux", target_os = "android")) { 105 } else { 55 };
    match error.raw_os_error().filter(|_| cfg!(unix))? {
        23 | 24 => Some("there are too many open files"),
        NO_BUFFERS => Some("there is no buffer space left"),
        _ => None,
    }
}

/// Of a name that leads to very many, so many addresses are tried.
const ADDRESSES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{Mutex, PoisonError},
    };

    use async_trait::async_trait;

    use super::*;

    /// Answers each question with the next of its answers.
    #[derive(Debug)]
    struct Scripted(Mutex<VecDeque<Vec<IpAddr>>>);

    #[async_trait]
    impl Resolver for Scripted {
        async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            answers.pop_front().ok_or_else(|| io::Error::other("no such name"))
        }
    }

    fn opener(policy: CallbackPolicy, answers: &[&[&str]]) -> Opener {
        let answers =
            answers.iter().map(|answer| answer.iter().map(|a| a.parse().unwrap()).collect());
        Opener {
            policy,
            proxy: None,
            resolver: Arc::new(Scripted(Mutex::new(answers.collect()))),
            tls: Tls::new(Vec::new()).unwrap(),
            connect_timeout: Duration::from_secs(5),
            connections: Connections::new(1),
        }
    }

    async fn addresses(opener: &Opener, host: &str) -> Result<Vec<String>, AttemptError> {
        let host = Host { as_in_url: host, bare: host };
        match opener.addresses(host, 443).await {
            Ok(addresses) => Ok(addresses.iter().map(ToString::to_string).collect()),
            Err(ConnectError(failure)) => Err(failure.error),
        }
    }

    #[tokio::test]
    async fn of_what_a_name_leads_to_only_public_addresses_are_connected_to() {
        let mixed = ["10.0.0.1", "8.8.8.8", "::1", "2606:4700:4700::1111", "fd00::1"];
        let opener = opener(CallbackPolicy::public(), &[&mixed]);
        let permitted = vec!["8.8.8.8:443".to_owned(), "[2606:4700:4700::1111]:443".to_owned()];
        assert_eq!(addresses(&opener, "your-app.com").await, Ok(permitted));
    }

    #[tokio::test]
    async fn a_name_that_leads_elsewhere_the_second_time_is_refused_then() {
        let opener = opener(CallbackPolicy::public(), &[&["8.8.8.8"], &["127.0.0.1"]]);
        let first = addresses(&opener, "rebind.your-app.com").await;
        assert_eq!(first, Ok(vec!["8.8.8.8:443".to_owned()]));
        let second = addresses(&opener, "rebind.your-app.com").await;
        assert_eq!(second, Err(AttemptError::RefusedAddress));
    }

    #[tokio::test]
    async fn a_name_that_is_listed_may_lead_anywhere_and_no_other_name_may() {
        let listed = || CallbackPolicy::public().with_allowed("hooks.internal".parse().unwrap());
        let inside = &["10.0.0.1"][..];
        let opener = opener(listed(), &[inside, inside]);
        let there = addresses(&opener, "hooks.internal").await;
        assert_eq!(there, Ok(vec!["10.0.0.1:443".to_owned()]));
        let elsewhere = addresses(&opener, "hooks.your-app.com").await;
        assert_eq!(elsewhere, Err(AttemptError::RefusedAddress));
        assert_eq!(addresses(&opener, "10.0.0.1").await, Err(AttemptError::RefusedAddress));
    }

    #[tokio::test]
    async fn a_name_without_addresses_is_a_failure_of_dns() {
        let opener = opener(CallbackPolicy::public(), &[&[]]);
        assert_eq!(addresses(&opener, "empty.your-app.com").await, Err(AttemptError::Dns));
        assert_eq!(addresses(&opener, "absent.your-app.com").await, Err(AttemptError::Dns));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_our_own_side_lacks_is_not_the_receivers_fault() {
        /// Fails with this code.
        #[derive(Debug)]
        struct Lacking(i32);

        #[async_trait]
        impl Resolver for Lacking {
            async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
                Err(io::Error::from_raw_os_error(self.0))
            }
        }

        for (code, is_ours) in
            [(24, true), (23, true), (105, true), (111, false), (101, false), (11, false)]
        {
            for otherwise in [AttemptError::Connect, AttemptError::Dns] {
                let error = io::Error::from_raw_os_error(code);
                let ConnectError(failure) = ConnectError::of_io(otherwise, &error);
                let expected = if is_ours { AttemptError::Unsent } else { otherwise };
                assert_eq!(failure.error, expected, "{code}");
            }
            let mut opener = opener(CallbackPolicy::public(), &[]);
            opener.resolver = Arc::new(Lacking(code));
            let expected = if is_ours { AttemptError::Unsent } else { AttemptError::Dns };
            assert_eq!(addresses(&opener, "your-app.com").await, Err(expected), "{code}");
        }
    }

    #[tokio::test]
    async fn a_name_with_very_many_addresses_is_not_tried_for_ever() {
        let many: Vec<String> = (0..255).map(|last| format!("8.8.8.{last}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let opener = opener(CallbackPolicy::public(), &[&many]);
        let tried = addresses(&opener, "many.your-app.com").await.unwrap();
        assert_eq!(tried.len(), ADDRESSES_MAX);
    }
}
