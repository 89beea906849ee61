//! A proxy through which every connection goes.

use std::{
    error::Error,
    fmt,
    future::{Ready, ready},
    io,
    net::IpAddr,
    str::FromStr,
    task::{Context, Poll},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::{Uri, header::HeaderValue};
use hyper_util::{client::legacy::connect::proxy::Tunnel, rt::TokioIo};
use percent_encoding::percent_decode_str;
use tokio::net::TcpStream;
use tower_service::Service;
use url::{Host, Url};

use super::socks;

/// A proxy through which deliveries leave: an HTTP one (`CONNECT`, RFC 9110, 9.3.6) or a SOCKS 5 one
/// (RFC 1928, RFC 1929).
///
/// Read from a URL, `http://[user:password@]host[:port]` or `socks5://[user:password@]host[:port]`;
/// `socks5h` is the same as `socks5`. Without a port it is 80 or 1080. In user and password, what
/// URLs have a use for is percent-encoded.
///
/// The proxy is asked for a host and a port, and what then passes through it is the same as without
/// it; a name is resolved by the proxy.
///
/// ```
/// let proxy: esl_http::Proxy = "http://esl:secret@proxy.internal:3128".parse()?;
/// assert_eq!(format!("{proxy:?}"), "Proxy(http://(hidden)@proxy.internal:3128)");
/// # Ok::<(), esl_http::ProxyError>(())
/// ```
#[derive(Clone)]
pub struct Proxy {
    protocol: Protocol,
    host: String,
    port: u16,
    credentials: Option<Credentials>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http,
    Socks5,
}

#[derive(Clone)]
struct Credentials {
    user: String,
    password: String,
}

/// Why a text is not a [`Proxy`]. Its words hold nothing of the text, which may have a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected http:// or socks5:// with a host, perhaps with user:password@ before it and a port \
     after it, such as http://proxy.internal:3128"
)]
#[non_exhaustive]
pub struct ProxyError;

impl Proxy {
    /// Its host, without the brackets of an IPv6 address.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Has a connection to the proxy go on to a host and a port. An IPv6 address has its brackets.
    pub(super) async fn tunnel(
        &self,
        to_proxy: TcpStream,
        host: &str,
        port: u16,
    ) -> Result<TcpStream, TunnelError> {
        match self.protocol {
            Protocol::Http => self.http_tunnel(to_proxy, &format!("{host}:{port}")).await,
            Protocol::Socks5 => {
                let login = self.credentials.as_ref();
                let login = login.map(|login| (login.user.as_str(), login.password.as_str()));
                let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
                socks::connect(to_proxy, login, bare.unwrap_or(host), port).await
            }
        }
    }

    async fn http_tunnel(
        &self,
        to_proxy: TcpStream,
        target: &str,
    ) -> Result<TcpStream, TunnelError> {
        // It has no other name.
        type HttpError = <Tunnel<Connected> as Service<Uri>>::Error;

        let to = Uri::try_from(target).map_err(|error| TunnelError::NoConnection(error.into()))?;
        // Where the proxy is, is known: there is a connection to it.
        let tunnel = Tunnel::new(Uri::from_static("proxy"), Connected(Some(to_proxy)));
        let mut tunnel = match &self.credentials {
            Some(credentials) => tunnel.with_auth(credentials.basic()),
            None => tunnel,
        };
        match tunnel.call(to).await {
            Ok(io) => Ok(io.into_inner()),
            Err(error @ HttpError::ProxyAuthRequired) => Err(TunnelError::NotLetIn(error.into())),
            Err(error) => Err(TunnelError::NoConnection(error.into())),
        }
    }
}

/// Why a proxy has not connected us.
#[derive(Debug)]
pub(super) enum TunnelError {
    /// It does not serve us: no receiver has a part in that.
    NotLetIn(Box<dyn Error + Send + Sync>),
    /// It was asked, and made no connection.
    NoConnection(Box<dyn Error + Send + Sync>),
}

/// A connector that has connected already.
struct Connected(Option<TcpStream>);

impl Service<Uri> for Connected {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().map(TokioIo::new).ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

impl Credentials {
    /// RFC 7617.
    fn basic(&self) -> HeaderValue {
        let encoded = BASE64_STANDARD.encode(format!("{}:{}", self.user, self.password));
        HeaderValue::try_from(format!("Basic {encoded}")).expect("Base64 fits into a header")
    }

    fn of(url: &Url) -> Option<Option<Self>> {
        if url.username().is_empty() && url.password().is_none() {
            return Some(None);
        }
        let decode = |text| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
        let user = decode(url.username())?;
        let password = decode(url.password().unwrap_or_default())?;
        // RFC 7617, 2 and RFC 1929, 2.
        let fits = |text: &str| text.len() <= 255 && !text.contains(char::is_control);
        let is_whole = !user.is_empty() && !user.contains(':') && fits(&user) && fits(&password);
        is_whole.then_some(Some(Self { user, password }))
    }
}

impl FromStr for Proxy {
    type Err = ProxyError;

    fn from_str(text: &str) -> Result<Self, ProxyError> {
        let url = Url::parse(text).map_err(|_| ProxyError)?;
        let (protocol, usual_port) = match url.scheme() {
            "http" => (Protocol::Http, 80),
            "socks5" | "socks5h" => (Protocol::Socks5, 1080),
            _ => return Err(ProxyError),
        };
        let is_bare = matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.port() != Some(0);
        if !is_bare {
            return Err(ProxyError);
        }
        let host = match url.host().ok_or(ProxyError)? {
            Host::Domain("") => return Err(ProxyError),
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => IpAddr::from(address).to_string(),
            Host::Ipv6(address) => IpAddr::from(address).to_string(),
        };
        let credentials = Credentials::of(&url).ok_or(ProxyError)?;
        Ok(Self { protocol, host, port: url.port().unwrap_or(usual_port), credentials })
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            Protocol::Http => "http",
            Protocol::Socks5 => "socks5",
        };
        let hidden = if self.credentials.is_some() { "(hidden)@" } else { "" };
        let (left, right) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "Proxy({scheme}://{hidden}{left}{}{right}:{})", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_url_of_a_host_and_perhaps_a_port_and_credentials() {
        for (text, shown) in [
            ("http://proxy.internal:3128", "http://proxy.internal:3128"),
            ("http://proxy.internal/", "http://proxy.internal:80"),
            ("HTTP://Proxy.Internal:80", "http://proxy.internal:80"),
            ("http://[::1]:3128", "http://[::1]:3128"),
            ("socks5://10.0.0.1", "socks5://10.0.0.1:1080"),
            ("socks5h://proxy:1081", "socks5://proxy:1081"),
            ("http://user:pass@proxy", "http://(hidden)@proxy:80"),
            ("socks5://user@proxy", "socks5://(hidden)@proxy:1080"),
        ] {
            let proxy: Proxy = text.parse().unwrap_or_else(|_| panic!("{text}"));
            assert_eq!(format!("{proxy:?}"), format!("Proxy({shown})"));
        }
        for text in [
            "",
            "proxy.internal:3128",
            "https://proxy.internal",
            "socks4://proxy.internal",
            "http://",
            "socks5://",
            "http://proxy.internal/path",
            "http://proxy.internal/?a=b",
            "http://proxy.internal:0",
            "http://proxy.internal:99999",
            "http://:password@proxy.internal",
            "http://us%3Aer:password@proxy.internal",
            "http://user:%0d%0a@proxy.internal",
            "http://user:%ff@proxy.internal",
        ] {
            assert_eq!(text.parse::<Proxy>().err(), Some(ProxyError), "{text}");
        }
        let long = format!("socks5://user:{}@proxy", "x".repeat(256));
        assert_eq!(long.parse::<Proxy>().err(), Some(ProxyError));
    }

    #[test]
    fn credentials_are_decoded() {
        let proxy: Proxy = "http://us%20er:p%40ss%3A@proxy".parse().unwrap();
        let credentials = proxy.credentials.unwrap();
        assert_eq!((&*credentials.user, &*credentials.password), ("us er", "p@ss:"));
        // "us er:p@ss:"
        assert_eq!(credentials.basic(), "Basic dXMgZXI6cEBzczo=");
    }
}
