//! Where a request comes from: the address at the other end of the connection or, behind proxies of
//! the operator's own, the one that they name.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use axum::{
    extract::ConnectInfo,
    http::{HeaderMap, request::Parts},
};

/// The address of the client; absent where the server did not say who connects.
///
/// [`serve`](super::serve) says so by itself. An embedder who serves the router by other means leaves
/// a [`ConnectInfo<SocketAddr>`] with each request, as axum's
/// `into_make_service_with_connect_info` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ClientAddress(Option<IpAddr>);

impl ClientAddress {
    /// The rightmost address that is no trusted proxy's: what stands left of it was written by
    /// somebody who may write anything.
    pub(super) fn of(parts: &Parts, trusted: &TrustedProxies) -> Self {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        Self(peer.map(|ConnectInfo(peer)| farthest(peer.ip(), &parts.headers, trusted)))
    }

    /// Who connects, if that is no trusted proxy but passes for one.
    pub(super) fn unnamed_proxy(parts: &Parts, trusted: &TrustedProxies) -> Option<IpAddr> {
        let ConnectInfo(peer) = parts.extensions.get::<ConnectInfo<SocketAddr>>()?;
        let peer = peer.ip().to_canonical();
        let passes_for_one = parts.headers.contains_key("x-forwarded-for");
        (passes_for_one && !trusted.has(peer)).then_some(peer)
    }

    /// The address, if it is known.
    pub(super) const fn ip(self) -> Option<IpAddr> {
        self.0
    }

    /// Who shares a limit: one subscriber has 2⁶⁴ addresses of IPv6.
    pub(super) fn bucket(self) -> Self {
        Self(self.0.map(|address| match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(address) => {
                Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into()
            }
        }))
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("unknown"),
        }
    }
}

fn farthest(peer: IpAddr, headers: &HeaderMap, trusted: &TrustedProxies) -> IpAddr {
    let mut address = peer.to_canonical();
    let values = headers.get_all("x-forwarded-for").iter().rev();
    // What is not text ends the walk like what is no address.
    let entries = values.flat_map(|value| value.to_str().unwrap_or("?").rsplit(','));
    for entry in entries {
        if !trusted.has(address) {
            break;
        }
        // The proxy that wrote nonsense, or passed it on, is then all that is known.
        let Some(before) = forwarded(entry) else { break };
        address = before;
    }
    address
}

/// An address as proxies write it: bare, or with a port.
fn forwarded(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    let address = bare.parse().or_else(|_| entry.parse().map(|address: SocketAddr| address.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

/// The proxies whose `X-Forwarded-For` is believed. Defaults to none.
///
/// Read from a text with commas in between; each entry is a network, such as `10.20.0.0/16` or
/// `fd00:1::/32`, or an address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    first: IpAddr,
    length: u32,
}

/// Why a text is not a list of [`TrustedProxies`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustedProxiesError {
    /// An entry that is neither a network nor an address.
    #[error("`{0}` is not a network such as 10.20.0.0/16, nor an address")]
    Malformed(String),
    /// A network whose address has bits beyond its length: either of the two is a slip.
    #[error("`{entry}` is not a network: with this length its address is {first}")]
    BitsBeyond {
        /// The entry as written.
        entry: String,
        /// The first address of the network.
        first: IpAddr,
    },
}

impl TrustedProxies {
    /// The address must be canonical: IPv4 is not written as IPv6.
    fn has(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| first_of(address, network.length) == Some(network.first))
    }
}

impl FromStr for TrustedProxies {
    type Err = TrustedProxiesError;

    /// An empty text, and empty entries, stand for nothing.
    fn from_str(text: &str) -> Result<Self, TrustedProxiesError> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(network).collect::<Result<_, _>>().map(Self)
    }
}

fn network(entry: &str) -> Result<Network, TrustedProxiesError> {
    let malformed = || TrustedProxiesError::Malformed(entry.to_owned());
    let (address, length) = match entry.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (entry, None),
    };
    let address: IpAddr = address.parse().map_err(|_| malformed())?;
    // A network of mapped addresses would never be asked for.
    if address.to_canonical() != address {
        return Err(malformed());
    }
    let length = match length {
        None => bits(address),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().map_err(|_| malformed())?
        }
        Some(_) => return Err(malformed()),
    };
    match first_of(address, length) {
        None => Err(malformed()),
        Some(first) if first == address => Ok(Network { first, length }),
        Some(first) => Err(TrustedProxiesError::BitsBeyond { entry: entry.to_owned(), first }),
    }
}

/// The first address of the network of this length that an address is in; `None` if it has not that
/// many bits.
fn first_of(address: IpAddr, length: u32) -> Option<IpAddr> {
    let beyond = bits(address).checked_sub(length)?;
    Some(match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(beyond).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(beyond).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    })
}

fn bits(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, Request};

    use super::*;

    /// The address of a request from that peer with these headers.
    fn address(peer: &str, forwarded: &[&[u8]], trusted: &str) -> String {
        let (mut parts, ()) = Request::new(()).into_parts();
        if let Ok(peer) = peer.parse::<IpAddr>() {
            parts.extensions.insert(ConnectInfo(SocketAddr::new(peer, 4711)));
        }
        for value in forwarded {
            let value = HeaderValue::from_bytes(value).expect("a header");
            parts.headers.append("x-forwarded-for", value);
        }
        ClientAddress::of(&parts, &trusted.parse().expect("a list")).to_string()
    }

    #[test]
    fn the_rightmost_address_that_is_no_trusted_proxy_counts() {
        let list = "10.0.0.0/8, 192.0.2.1, fd00::/8";
        for (peer, forwarded, trusted, expected) in [
            ("203.0.113.1", &[][..], list, "203.0.113.1"),
            // Whoever is not trusted may write what he likes.
            ("203.0.113.1", &[&b"1.1.1.1"[..]], list, "203.0.113.1"),
            ("10.1.1.1", &[b"1.1.1.1"], "", "10.1.1.1"),
            ("10.1.1.1", &[b"1.1.1.1"], list, "1.1.1.1"),
            ("10.1.1.1", &[b"6.6.6.6, 1.1.1.1 ,10.2.2.2,192.0.2.1"], list, "1.1.1.1"),
            ("10.1.1.1", &[b"6.6.6.6", b"1.1.1.1, 10.2.2.2"], list, "1.1.1.1"),
            ("10.1.1.1", &[b"10.3.3.3, 10.2.2.2"], list, "10.3.3.3"),
            ("::ffff:10.1.1.1", &[b"::ffff:1.1.1.1"], list, "1.1.1.1"),
            ("fd00::1", &[b"1.1.1.1:443"], list, "1.1.1.1"),
            ("fd00::1", &[b"[2001:db8::1]:443"], list, "2001:db8::1"),
            ("fd00::1", &[b"[2001:db8::1]"], list, "2001:db8::1"),
            ("nobody", &[b"1.1.1.1"], "0.0.0.0/0, ::/0", "unknown"),
        ] {
            assert_eq!(address(peer, forwarded, trusted), expected, "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn behind_nonsense_the_proxy_that_passed_it_on_is_all_that_is_known() {
        for nonsense in [
            &b""[..],
            b",",
            b"unknown",
            b"_hidden",
            b"1.1.1",
            b"\xff\xfe",
            b"[",
            b"]",
            b"[]:",
            b"1.1.1.1:99999",
            b"1.1.1.1.",
            b"::1::",
            b"1.1.1.1 2.2.2.2",
        ] {
            assert_eq!(address("10.1.1.1", &[nonsense], "10.0.0.0/8"), "10.1.1.1", "{nonsense:?}");
            let behind = [&b"1.1.1.1"[..], nonsense, b"10.2.2.2"];
            assert_eq!(address("10.1.1.1", &behind, "10.0.0.0/8"), "10.2.2.2", "{nonsense:?}");
        }
    }

    #[test]
    fn a_list_of_proxies_is_networks_and_addresses() {
        for (list, is_right) in [
            ("", true),
            (" 10.0.0.0/8 ,, ::1", true),
            ("0.0.0.0/0, ::/0", true),
            ("10.0.0.1/8", false),
            ("10.0.0.0/33", false),
            ("10.0.0.0/+8", false),
            ("10.0.0.0/", false),
            ("10.0.0.0/99999999999", false),
            ("proxy.internal", false),
            ("::ffff:10.0.0.0/104", false),
        ] {
            assert_eq!(list.parse::<TrustedProxies>().is_ok(), is_right, "{list}");
        }
        let slip = "fd00::1/8".parse::<TrustedProxies>().expect_err("it has bits beyond");
        assert!(slip.to_string().ends_with("its address is fd00::"), "{slip}");
    }

    #[test]
    fn addresses_of_one_network_of_ipv6_share_a_limit() {
        let bucket = |text: &str| ClientAddress(text.parse().ok()).bucket();
        assert_eq!(bucket("2001:db8::1"), bucket("2001:db8::ffff:0:0:2"));
        assert_ne!(bucket("2001:db8::1"), bucket("2001:db8:0:1::1"));
        assert_ne!(bucket("192.0.2.1"), bucket("192.0.2.2"));
        assert_eq!(bucket("nobody"), bucket("nobody either"));
    }
}
