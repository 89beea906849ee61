//! A callback URL, and in the line below it a list of what may be called besides. What is kept is
//! kept as it is, leads to the same host for whoever calls it, and is public or on the list.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use esl_core::{CallbackAllowList, CallbackPolicy, CallbackUrl};
use libfuzzer_sys::fuzz_target;
use url::{Host, Url};

fuzz_target!(|text: &str| {
    let (text, written) = text.split_once('\n').unwrap_or((text, ""));
    let any = kept(text, &CallbackPolicy::allow_private());
    let read = any.as_ref().map(|url| Url::parse(url.as_str()).expect("a URL"));
    let host = read.as_ref().and_then(|url| {
        assert!(["http", "https"].contains(&url.scheme()));
        url.host().filter(|_| url.scheme() == "https")
    });
    // All that may be called, if it is open.
    let if_open = |is_open: bool| any.clone().filter(|_| is_open);
    let is_public = host.as_ref().is_some_and(is_public);
    assert_eq!(kept(text, &CallbackPolicy::public()), if_open(is_public), "{text}");

    let Ok(list) = written.parse::<CallbackAllowList>() else { return };
    let is_listed = host.as_ref().is_some_and(|host| is_listed(host, written));
    let policy = CallbackPolicy::public().with_allowed(list);
    assert_eq!(kept(text, &policy), if_open(is_public || is_listed), "{text} with {written}");
});

fn kept(text: &str, policy: &CallbackPolicy) -> Option<CallbackUrl> {
    let url = CallbackUrl::parse(text, policy).ok()?;
    assert_eq!(CallbackUrl::parse(url.as_str(), policy).as_ref(), Ok(&url));
    is_what_is_called(&url);
    Some(url)
}

/// The transport hands it to another parser, which must see the same host and port in it.
fn is_what_is_called(kept: &CallbackUrl) {
    let text = kept.as_str();
    assert!(text.is_ascii() && text.len() <= CallbackUrl::LENGTH_MAX);
    let url = Url::parse(text).expect("a URL");
    assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());
    let called: http::Uri = text.parse().expect("a URI");
    assert_eq!(called.scheme_str(), Some(url.scheme()));
    assert_eq!(called.host(), url.host_str());
    assert_eq!(called.port_u16(), url.port());
    assert_ne!(called.port_u16(), Some(0));
    let authority = called.authority().expect("it has a host");
    assert!(!authority.as_str().contains('@'), "{text}");
    assert_eq!(called.path(), url.path());
    assert_eq!(called.query(), url.query());
}

fn is_public(host: &Host<&str>) -> bool {
    match *host {
        Host::Ipv4(address) => !is_private_v4(address),
        Host::Ipv6(address) => !is_private_v6(address),
        Host::Domain(name) => {
            // With a dot at the end it is empty, which is refused, too.
            let last = name.rsplit('.').next().expect("there is one");
            let mut local = LOCAL.split(' ');
            let is_local = local.any(|local| name == local || name.ends_with(&format!(".{local}")));
            let is_address = name.parse::<IpAddr>().is_ok() || is_number(last);
            name.contains('.') && !is_address && !is_local
        }
    }
}

/// As `inet_aton` reads the parts of an address.
fn is_number(part: &str) -> bool {
    match part.strip_prefix("0x") {
        Some(digits) => digits.chars().all(|c| c.is_ascii_hexdigit()),
        None => part.chars().all(char::is_numeric),
    }
}

/// As the standard library sees it, and what of it is not stable yet or known to IANA.
fn is_private_v4(address: Ipv4Addr) -> bool {
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || match address.octets() {
            [0 | 240.., ..] => true,
            [100, b, ..] => (64..128).contains(&b),
            [168, 63, 129, 16] => true,
            [192, 0, 0, _] | [192, 88, 99, _] => true,
            [198, b, ..] => b == 18 || b == 19,
            _ => false,
        }
}

/// What leads to an IPv4 address is as private as that; beyond it only 2000::/3 is public, with holes.
fn is_private_v6(address: Ipv6Addr) -> bool {
    let [.., y, z] = address.segments();
    let last = Ipv4Addr::from_bits(u32::from(y) << 16 | u32::from(z));
    match address.segments() {
        // Mapped, and NAT64.
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => is_private_v4(last),
        // Protocols, with Teredo among them, documentation, 6to4, documentation again.
        [0x2001, 0..0x200 | 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..0x1000, ..] => true,
        // ISATAP.
        [0x2000..0x4000, _, _, _, 0 | 0x200, 0x5efe, ..] => is_private_v4(last),
        [0x2000..0x4000, ..] => false,
        _ => true,
    }
}

/// Whether an entry of a list that has been read covers a host.
fn is_listed(host: &Host<&str>, written: &str) -> bool {
    let entries = written.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let mut entries = entries.map(Entry::read);
    match *host {
        Host::Ipv4(address) => entries.any(|entry| entry.has_address(address.into())),
        Host::Ipv6(address) => entries.any(|entry| entry.has_address(address.into())),
        Host::Domain(name) => entries.any(|entry| entry.has_name(name)),
    }
}

enum Entry {
    /// The bits with which the addresses begin, as digits, and how many all are.
    Network(String, usize),
    Name(String),
    /// The end of the names, from the dot on.
    Below(String),
}

impl Entry {
    fn read(written: &str) -> Self {
        let (address, length) = written.split_once('/').unwrap_or((written, ""));
        if let Ok(address) = address.parse() {
            let bits = bits(address);
            let length = length.parse().unwrap_or(bits.len());
            let (network, rest) = bits.split_at(length);
            assert!(!rest.contains('1'), "{written}");
            return Self::Network(network.to_owned(), bits.len());
        }
        match written.strip_prefix("*.") {
            Some(name) => Self::Below(format!(".{}", as_in_urls(name))),
            None => Self::Name(as_in_urls(written)),
        }
    }

    fn has_address(&self, address: IpAddr) -> bool {
        let bits = bits(address);
        matches!(self, Self::Network(network, count) if bits.len() == *count && bits.starts_with(network))
    }

    fn has_name(&self, name: &str) -> bool {
        match self {
            Self::Network(..) => false,
            Self::Name(listed) => name == listed,
            Self::Below(end) => name.ends_with(end),
        }
    }
}

/// An address as its digits. Of an IPv4 address that is mapped into IPv6, those of the IPv4 address.
fn bits(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{:032b}", address.to_bits()),
        IpAddr::V6(address) => {
            let bits = format!("{:0128b}", address.to_bits());
            let mapped = format!("{}{}", "0".repeat(80), "1".repeat(16));
            bits.strip_prefix(&mapped).map(str::to_owned).unwrap_or(bits)
        }
    }
}

/// In lower case and Punycode.
fn as_in_urls(name: &str) -> String {
    let url = Url::parse(&format!("https://{name}/")).expect("a name");
    assert_eq!(url.path(), "/", "{name}");
    url.host_str().expect("it has a host").to_owned()
}

/// The domains that are of no use but within one machine or network.
const LOCAL: &str = "localhost local internal lan home.arpa corp home intranet private localdomain \
                     localdomain4 localdomain6";
