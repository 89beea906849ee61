//! What an operator lists as callable although it is not public.

use std::{net::IpAddr, str::FromStr};

use url::Host;

use super::{address, is_hostname};

/// Networks, addresses and host names that may be called although they are not public.
///
/// Read from a text with commas in between. Each entry is
/// - a network, such as `10.20.0.0/16` or `fd00:1::/32`,
/// - an address, such as `10.20.30.40`,
/// - a host name, such as `hooks.internal`, wherever it leads, or
/// - everything below a name, such as `*.corp.example`, likewise.
///
/// Whoever decides what a listed name leads to decides what is called. An IPv4 address mapped into
/// IPv6 (`::ffff:10.20.30.40`) counts as the IPv4 address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallbackAllowList(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Network { first: IpAddr, length: u32 },
    Name(String),
    Below(String),
}

/// Why a text is not a [`CallbackAllowList`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallbackAllowListError {
    /// An entry that is none of the four kinds.
    #[error(
        "`{0}` is not a network such as 10.20.0.0/16, an address, a host name, or `*.` and a name"
    )]
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

impl CallbackAllowList {
    /// Nothing beside what is public.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether nothing is on it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The address must be [`canonical`].
    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        self.0.iter().any(|entry| match *entry {
            Entry::Network { first, length } => is_in(address, first, length),
            Entry::Name(_) | Entry::Below(_) => false,
        })
    }

    pub(super) fn has_name(&self, name: &str) -> bool {
        self.0.iter().any(|entry| match entry {
            Entry::Network { .. } => false,
            Entry::Name(listed) => name.eq_ignore_ascii_case(listed),
            Entry::Below(domain) => name.len() > domain.len() && address::is_within(name, domain),
        })
    }
}

impl FromStr for CallbackAllowList {
    type Err = CallbackAllowListError;

    /// An empty text, and empty entries, stand for nothing.
    fn from_str(text: &str) -> Result<Self, CallbackAllowListError> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(entry).collect::<Result<_, _>>().map(Self)
    }
}

fn entry(text: &str) -> Result<Entry, CallbackAllowListError> {
    let malformed = || CallbackAllowListError::Malformed(text.to_owned());
    if let Some((address, length)) = text.split_once('/') {
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let is_number = length.bytes().all(|byte| byte.is_ascii_digit());
        let length = length.parse().ok().filter(|&length| is_number && length <= bits(address));
        return network(text, address, length.ok_or_else(malformed)?);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return network(text, address, bits(address));
    }
    match text.strip_prefix("*.") {
        Some(domain) => name(domain).map(Entry::Below),
        None => name(text).map(Entry::Name),
    }
    .ok_or_else(malformed)
}

fn network(text: &str, address: IpAddr, length: u32) -> Result<Entry, CallbackAllowListError> {
    // A network of mapped addresses would never be asked for: see `canonical`.
    if canonical(address) != address {
        return Err(CallbackAllowListError::Malformed(text.to_owned()));
    }
    let first = match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    };
    if first != address {
        return Err(CallbackAllowListError::BitsBeyond { entry: text.to_owned(), first });
    }
    Ok(Entry::Network { first, length })
}

/// A host name as callback URLs have it: lower case, Punycode.
fn name(text: &str) -> Option<String> {
    match Host::parse(text).ok()? {
        // A dot at the end would never match: callbacks with one are refused.
        Host::Domain(name) if is_hostname(&name) && !name.ends_with('.') => Some(name),
        // Among the rest are addresses in unusual spellings.
        _ => None,
    }
}

fn bits(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn is_in(address: IpAddr, first: IpAddr, length: u32) -> bool {
    match (address, first) {
        (IpAddr::V4(address), IpAddr::V4(first)) => address::is_in_v4(address, first, length),
        (IpAddr::V6(address), IpAddr::V6(first)) => address::is_in_v6(address, first, length),
        _ => false,
    }
}

/// The IPv4 address where one is mapped into IPv6: this machine connects to it then. The other
/// embeddings end at somebody else's gateway, so they are networks of their own here.
pub(super) fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::{CallbackAllowListError::*, *};

    #[test]
    fn each_entry_is_a_network_an_address_a_name_or_what_is_below_a_name() {
        for text in [
            "",
            " , ,",
            "10.0.0.0/8",
            "0.0.0.0/0",
            "127.0.0.1",
            "127.0.0.1/32",
            "::/0",
            "::1",
            "fd00::/8 , hooks.internal,*.corp",
            "intranet",
            "Bücher.Example",
            "64:ff9b::/96",
        ] {
            assert!(text.parse::<CallbackAllowList>().is_ok(), "{text}");
        }
        for text in [
            "*",
            "*.",
            "*.*",
            "a.*",
            "a b",
            "https://hooks.internal",
            "hooks.internal:8443",
            "hooks.internal/x",
            "hooks.internal.",
            "hooks..internal",
            "*..internal",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "10.0.0.0/255.0.0.0",
            "fd00::/129",
            "10.1",
            "2130706433",
            "0x7f.1",
            "[::1]",
            "::ffff:10.0.0.1",
            "::ffff:0:0/96",
        ] {
            let expected = Err(Malformed(text.to_owned()));
            assert_eq!(text.parse::<CallbackAllowList>(), expected, "{text}");
        }
    }

    #[test]
    fn a_network_whose_address_has_more_bits_is_refused_with_the_one_that_may_be_meant() {
        for (text, first) in [
            ("10.1.2.3/8", "10.0.0.0"),
            ("10.20.0.1/16", "10.20.0.0"),
            ("1.0.0.0/0", "0.0.0.0"),
            ("fd00::1/64", "fd00::"),
        ] {
            let entry = text.to_owned();
            let expected = Err(BitsBeyond { entry, first: first.parse().unwrap() });
            assert_eq!(text.parse::<CallbackAllowList>(), expected, "{text}");
        }
    }

    #[test]
    fn names_are_compared_as_callback_urls_have_them() {
        let list: CallbackAllowList = "Bücher.Example, *.Corp".parse().unwrap();
        assert!(list.has_name("xn--bcher-kva.example"));
        assert!(list.has_name("wiki.corp") && !list.has_name("mycorp") && !list.has_name("corp"));
    }
}
