//! A callback URL, and in the line below it a list of what may be called besides. What is kept is
//! kept as it is, leads to the same host for whoever calls it, and is public unless it need not be.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use esl_core::{CallbackAllowList, CallbackPolicy, CallbackUrl};
use libfuzzer_sys::fuzz_target;
use url::{Host, Url};

fuzz_target!(|text: &str| {
    let (text, list) = text.split_once('\n').unwrap_or((text, ""));
    let kept = |policy: &CallbackPolicy| {
        let kept = CallbackUrl::parse(text, policy);
        if let Ok(url) = &kept {
            assert_eq!(CallbackUrl::parse(url.as_str(), policy).as_ref(), Ok(url));
            is_what_is_called(url);
        }
        kept
    };
    let public = kept(&CallbackPolicy::public());
    let any = kept(&CallbackPolicy::allow_private());
    if let Ok(url) = &public {
        assert_eq!(any.as_ref(), Ok(url));
        is_public(url);
    }
    let Ok(list) = list.parse::<CallbackAllowList>() else { return };
    let listed = kept(&CallbackPolicy::public().with_allowed(list.clone()));
    if public.is_ok() || list.is_empty() {
        assert_eq!(listed, public);
    }
    if let Ok(url) = &listed {
        assert_eq!(any.as_ref(), Ok(url));
        assert!(url.as_str().starts_with("https://"));
    }
});

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

fn is_public(kept: &CallbackUrl) {
    let url = Url::parse(kept.as_str()).expect("a URL");
    assert_eq!(url.scheme(), "https");
    match url.host().expect("it has a host") {
        Host::Ipv4(address) => assert!(!is_private_v4(address), "{kept}"),
        Host::Ipv6(address) => assert!(!is_private_v6(address), "{kept}"),
        Host::Domain(name) => {
            assert!(name.parse::<IpAddr>().is_err(), "{kept}");
            let last = name.rsplit('.').next().expect("there is one");
            assert!(name.contains('.') && !is_number(last), "{kept}");
            for local in ["localhost", "local", "internal", "lan", "home.arpa"] {
                assert!(name != local && !name.ends_with(&format!(".{local}")), "{kept}");
            }
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

/// As the standard library sees it, and what of it is not stable yet.
fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 198 && (18..20).contains(&b))
        || (a, b, c) == (192, 0, 0)
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    let [a, b, .., y, z] = address.segments();
    let last = Ipv4Addr::from_bits(u32::from(y) << 16 | u32::from(z));
    if address.to_ipv4_mapped().is_some() || (a, b) == (0x64, 0xff9b) {
        return is_private_v4(last);
    }
    address.is_loopback()
        || address.is_unspecified()
        || address.is_unique_local()
        || address.is_unicast_link_local()
        || address.is_multicast()
        || !(0x2000..0x4000).contains(&a)
        || a == 0x2002
        || (a == 0x2001 && (b == 0 || b == 0xdb8))
}
