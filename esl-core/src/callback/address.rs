//! The addresses and names that are not for callbacks: everything that is not a public host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::is_hostname;

/// Whether an address belongs to the public internet, whatever it is embedded in.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Whether a name can be one of the public internet's. What it leads to is another question.
pub(super) fn is_public_name(name: &str) -> bool {
    // With a dot at the end a name escapes every comparison with the same name without it.
    if name.ends_with('.') || !name.contains('.') {
        return false;
    }
    is_hostname(name)
        && !ends_in_number(name)
        && !LOCAL_DOMAINS.iter().any(|domain| is_within(name, domain))
}

/// Whether resolvers and proxies may take a name for an IPv4 address, such as `127.1` or `0x7f.1`.
/// No top-level domain is a number.
fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    match last.strip_prefix("0x").or_else(|| last.strip_prefix("0X")) {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => last.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !SPECIAL_V4.iter().any(|&(network, length)| is_in_v4(address, network, length))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(translated) = translated_v4(address) {
        return is_public_v4(translated);
    }
    let (network, length) = GLOBAL_UNICAST_V6;
    is_in_v6(address, network, length)
        && !SPECIAL_V6.iter().any(|&(network, length)| is_in_v6(address, network, length))
        && isatap_v4(address).is_none_or(is_public_v4)
}

/// The IPv4 address that a packet to this IPv6 address becomes one to, where that is certain. The
/// other embeddings (compatible, 6to4, Teredo, the local NAT64 prefix) lie in networks that are
/// refused as a whole.
fn translated_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let mapped = (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);
    // RFC 6052. Where IPv4 hosts are reached through NAT64, resolvers answer with this prefix, so
    // it cannot be refused as a whole.
    let nat64 = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);
    let is_translated =
        [mapped, nat64].iter().any(|&(network, length)| is_in_v6(address, network, length));
    is_translated.then(|| last_v4(address))
}

/// The IPv4 address of an ISATAP host, under any prefix (RFC 5214, 6.1); the second spelling has the
/// universal bit set. It says where a tunnel ends. Where there is no tunnel, the packet goes where
/// the prefix says, so a public end does not make a prefix public.
fn isatap_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let is_isatap = matches!(address.segments(), [_, _, _, _, 0 | 0x200, 0x5efe, _, _]);
    is_isatap.then(|| last_v4(address))
}

fn last_v4(address: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, d)
}

pub(super) fn is_in_v4(address: Ipv4Addr, network: Ipv4Addr, length: u32) -> bool {
    (address.to_bits() ^ network.to_bits()).leading_zeros() >= length
}

pub(super) fn is_in_v6(address: Ipv6Addr, network: Ipv6Addr, length: u32) -> bool {
    (address.to_bits() ^ network.to_bits()).leading_zeros() >= length
}

/// Whether a name is a domain or below it.
pub(super) fn is_within(name: &str, domain: &str) -> bool {
    let Some(start) = name.len().checked_sub(domain.len()) else { return false };
    name.get(start..).is_some_and(|end| end.eq_ignore_ascii_case(domain))
        && (start == 0 || name.as_bytes()[start - 1] == b'.')
}

/// Domains that mean something only within one machine or network (RFC 6761, RFC 6762 with its
/// appendix G, RFC 8375, ICANN's `internal`, under which clouds keep their metadata, and what hosts
/// files give this machine).
const LOCAL_DOMAINS: [&str; 12] = [
    "localhost",
    "local",
    "internal",
    "localdomain",
    "localdomain4",
    "localdomain6",
    "home.arpa",
    "corp",
    "home",
    "intranet",
    "lan",
    "private",
];

/// IPv4 networks that are not public: IANA's special-purpose registry, and multicast.
const SPECIAL_V4: [(Ipv4Addr, u32); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8), // this network; 0.0.0.0 is this machine
    (Ipv4Addr::new(10, 0, 0, 0), 8), // private
    (Ipv4Addr::new(100, 64, 0, 0), 10), // carrier-grade NAT, Alibaba's metadata
    (Ipv4Addr::new(127, 0, 0, 0), 8), // loopback
    (Ipv4Addr::new(168, 63, 129, 16), 32), // Azure's platform, from within its machines
    (Ipv4Addr::new(169, 254, 0, 0), 16), // link-local, most clouds' metadata
    (Ipv4Addr::new(172, 16, 0, 0), 12), // private
    (Ipv4Addr::new(192, 0, 0, 0), 24), // protocol assignments, Oracle's metadata
    (Ipv4Addr::new(192, 0, 2, 0), 24), // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24), // 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16), // private
    (Ipv4Addr::new(198, 18, 0, 0), 15), // benchmarking
    (Ipv4Addr::new(198, 51, 100, 0), 24), // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24), // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4), // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4), // reserved, broadcast
];

/// The only part of IPv6 that is public. Outside of it lie loopback, unspecified, IPv4-compatible
/// (`::/96`), discard (`100::/64`), the local NAT64 prefix (`64:ff9b:1::/48`), segment routing
/// (`5f00::/16`), unique-local (`fc00::/7`, two clouds' metadata), link-local (`fe80::/10`),
/// site-local (`fec0::/10`) and multicast (`ff00::/8`).
const GLOBAL_UNICAST_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What is not public within [`GLOBAL_UNICAST_V6`].
const SPECIAL_V6: [(Ipv6Addr, u32); 4] = [
    // Protocol assignments: Teredo (2001::/32), benchmarking (2001:2::/48), ORCHID and others.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),     // 6to4
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),     // documentation
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_special_network_is_refused_from_its_first_to_its_last_address() {
        for (first, last, before, after) in [
            ("0.0.0.0", "0.255.255.255", None, Some("1.0.0.0")),
            ("10.0.0.0", "10.255.255.255", Some("9.255.255.255"), Some("11.0.0.0")),
            ("100.64.0.0", "100.127.255.255", Some("100.63.255.255"), Some("100.128.0.0")),
            ("127.0.0.0", "127.255.255.255", Some("126.255.255.255"), Some("128.0.0.0")),
            ("168.63.129.16", "168.63.129.16", Some("168.63.129.15"), Some("168.63.129.17")),
            ("169.254.0.0", "169.254.255.255", Some("169.253.255.255"), Some("169.255.0.0")),
            ("172.16.0.0", "172.31.255.255", Some("172.15.255.255"), Some("172.32.0.0")),
            ("192.0.0.0", "192.0.0.255", Some("191.255.255.255"), Some("192.0.1.0")),
            ("192.0.2.0", "192.0.2.255", Some("192.0.1.255"), Some("192.0.3.0")),
            ("192.88.99.0", "192.88.99.255", Some("192.88.98.255"), Some("192.88.100.0")),
            ("192.168.0.0", "192.168.255.255", Some("192.167.255.255"), Some("192.169.0.0")),
            ("198.18.0.0", "198.19.255.255", Some("198.17.255.255"), Some("198.20.0.0")),
            ("198.51.100.0", "198.51.100.255", Some("198.51.99.255"), Some("198.51.101.0")),
            ("203.0.113.0", "203.0.113.255", Some("203.0.112.255"), Some("203.0.114.0")),
            ("224.0.0.0", "255.255.255.255", Some("223.255.255.255"), None),
            ("::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None, Some("2000::")),
            ("2001::", "2001:1ff:ffff::", Some("2000:ffff::"), Some("2001:200::")),
            ("2001:db8::", "2001:db8:ffff::", Some("2001:db7:ffff::"), Some("2001:db9::")),
            ("2002::", "2002:ffff::", Some("2001:ffff::"), Some("2003::")),
            ("3fff::", "3fff:fff:ffff::", Some("3ffe:ffff::"), Some("3fff:1000::")),
            ("4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("3fff:ffff::"), None),
        ] {
            for refused in [first, last] {
                assert!(!is_public(refused.parse().unwrap()), "{refused}");
            }
            for allowed in [before, after].into_iter().flatten() {
                assert!(is_public(allowed.parse().unwrap()), "{allowed}");
            }
        }
    }

    #[test]
    fn an_address_within_an_address_is_judged_as_where_it_leads() {
        for (refused, why) in [
            ("::1", "loopback"),
            ("::127.0.0.1", "compatible"),
            ("::8.8.8.8", "compatible, which leads nowhere"),
            ("::ffff:127.0.0.1", "mapped"),
            ("::ffff:10.1.2.3", "mapped"),
            ("::ffff:169.254.169.254", "mapped"),
            ("::ffff:0:127.0.0.1", "translated, RFC 2765"),
            ("64:ff9b::127.0.0.1", "NAT64"),
            ("64:ff9b::a9fe:a9fe", "NAT64"),
            ("64:ff9b:1::8.8.8.8", "local NAT64"),
            ("64:ff9b::1:8.8.8.8", "beside NAT64"),
            ("2002:7f00:1::", "6to4"),
            ("2002:a9fe:a9fe::1", "6to4"),
            ("2001:0:7f00:1::", "Teredo"),
            ("2001:0:4136:e378:8000:63bf:80ff:fffe", "Teredo"),
            ("2606:4700::5efe:10.0.0.1", "ISATAP"),
            ("2606:4700::200:5efe:10.0.0.1", "ISATAP"),
            ("fe80::1", "link-local"),
            ("febf:ffff::1", "link-local"),
            ("fec0::1", "site-local"),
            ("fc00::1", "unique-local"),
            ("fd00:ec2::254", "Amazon's metadata"),
            ("fd20:ce::254", "Google's metadata"),
            ("ff02::1", "multicast"),
            ("100::1", "discard"),
            ("5f00::1", "segment routing"),
        ] {
            assert!(!is_public(refused.parse().unwrap()), "{refused}: {why}");
        }
        for allowed in [
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2606:4700:4700::1111",
            "2606:4700::5efe:8.8.8.8",
            "2001:4860:4860::8888",
            "2a00:1450:4001:81b::200e",
        ] {
            assert!(is_public(allowed.parse().unwrap()), "{allowed}");
        }
    }

    #[test]
    fn a_name_that_means_something_only_locally_or_is_none_is_refused() {
        for refused in [
            "",
            ".",
            "localhost",
            "LOCALHOST",
            "localhost.",
            "api.localhost",
            "intranet",
            "metadata",
            "metadata.google.internal",
            "metadata.google.internal.",
            "Printer.Local",
            "db.internal",
            "nas.lan",
            "router.home.arpa",
            "localhost.localdomain",
            "wiki.corp",
            "example.com.",
            "example..com",
            "127.0.0.1",
            "127.1",
            "0x7f.1",
            "0X7F.0X1",
            "0177.1",
            "example.0x",
            "example.1",
            "127.0.0.1%lo",
            "::ffff:127.0.0.1%lo",
            "127.0.0.1:443",
            "user@example.com",
            "example.com/a.b",
            "127。0。0。1",
        ] {
            assert!(!is_public_name(refused), "{refused}");
        }
        for allowed in [
            "example.com",
            "a.b.example.com",
            "notlocalhost.com",
            "local.example.com",
            "mylocal.io",
            "arpa.net",
            "xn--bcher-kva.example",
            "Example.COM",
            "127.0.0.1.example",
            "0x7f.1x",
            "example.0xg",
        ] {
            assert!(is_public_name(allowed), "{allowed}");
        }
    }
}
