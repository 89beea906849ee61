//! Which callbacks ESL may call.

use std::net::IpAddr;

use super::{
    address,
    allow_list::{CallbackAllowList, canonical},
};

/// Which callback URLs and addresses are allowed. Defaults to [`public`](Self::public).
///
/// It is asked twice: when a subscription names its URL, and by the transport at each connect, for
/// the address that the host leads to by then.
///
/// ```
/// use esl_core::{CallbackPolicy, CallbackUrl};
/// let policy = CallbackPolicy::public().with_allowed("10.20.0.0/16, hooks.internal".parse()?);
/// assert!(CallbackUrl::parse("https://10.20.30.40/events", &policy).is_ok());
/// assert!(CallbackUrl::parse("https://hooks.internal/events", &policy).is_ok());
/// assert!(CallbackUrl::parse("https://10.99.0.1/events", &policy).is_err());
/// # Ok::<(), esl_core::CallbackAllowListError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallbackPolicy {
    allow_private: bool,
    allowed: CallbackAllowList,
}

impl CallbackPolicy {
    /// Only `https`, and only hosts of the public internet.
    #[must_use]
    pub const fn public() -> Self {
        Self { allow_private: false, allowed: CallbackAllowList::new() }
    }

    /// Everything, also what is within the operator's own network, and also `http`. For development
    /// and tests: whoever may subscribe then reaches everything that the server reaches.
    #[must_use]
    pub const fn allow_private() -> Self {
        Self { allow_private: true, allowed: CallbackAllowList::new() }
    }

    /// Also what is on the list, although it is not public. It must still be `https`.
    #[must_use]
    pub fn with_allowed(mut self, allowed: CallbackAllowList) -> Self {
        self.allowed = allowed;
        self
    }

    /// Whether URLs of this scheme may be called.
    #[must_use]
    pub fn permits_scheme(&self, scheme: &str) -> bool {
        match scheme {
            "https" => true,
            "http" => self.allow_private,
            _ => false,
        }
    }

    /// Whether an address may be called. For what is public, an IPv4 address within an IPv6 address
    /// counts as itself.
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        self.allow_private
            || address::is_public(address)
            || self.allowed.has_address(canonical(address))
    }

    /// Whether a host's name may be resolved at all; what it leads to is another check. An address in
    /// an unusual spelling, such as `127.1`, is no name.
    #[must_use]
    pub fn permits_name(&self, name: &str) -> bool {
        self.allow_private || address::is_public_name(name) || self.allowed.has_name(name)
    }

    /// Whether an address may be called that a host's name has led to. A name on the list may lead
    /// anywhere.
    #[must_use]
    pub fn permits_resolved(&self, name: &str, address: IpAddr) -> bool {
        self.permits(address) || self.allowed.has_name(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allowed: &str) -> CallbackPolicy {
        CallbackPolicy::public().with_allowed(allowed.parse().unwrap())
    }

    #[test]
    fn a_list_adds_to_what_is_public_and_opens_no_other_scheme() {
        let policy = policy("10.20.0.0/16, fd00:1::/32, hooks.internal, *.corp");
        for (address, is_permitted) in [
            ("8.8.8.8", true),
            ("10.20.0.0", true),
            ("10.20.255.255", true),
            ("10.21.0.0", false),
            ("10.19.255.255", false),
            ("127.0.0.1", false),
            ("::ffff:10.20.0.1", true),
            ("::ffff:10.21.0.1", false),
            ("64:ff9b::10.20.0.1", false),
            ("fd00:1::1", true),
            ("fd00:2::1", false),
            ("::1", false),
        ] {
            assert_eq!(policy.permits(address.parse().unwrap()), is_permitted, "{address}");
        }
        for (name, is_permitted) in [
            ("your-app.com", true),
            ("hooks.internal", true),
            ("HOOKS.Internal", true),
            ("hooks.internal.", false),
            ("api.hooks.internal", false),
            ("other.internal", false),
            ("wiki.corp", true),
            ("a.b.corp", true),
            ("corp", false),
            ("localhost", false),
        ] {
            assert_eq!(policy.permits_name(name), is_permitted, "{name}");
        }
        assert!(!policy.permits_scheme("http"));
    }

    #[test]
    fn only_a_name_on_the_list_may_lead_anywhere() {
        let policy = policy("hooks.internal, 10.20.0.0/16");
        let permits = |name, address: &str| policy.permits_resolved(name, address.parse().unwrap());
        assert!(permits("hooks.internal", "192.168.0.1"));
        assert!(permits("your-app.com", "8.8.8.8"));
        assert!(permits("your-app.com", "10.20.0.1"));
        assert!(!permits("your-app.com", "192.168.0.1"));
    }

    #[test]
    fn a_whole_family_of_addresses_is_not_the_other_one() {
        let v6 = policy("::/0");
        assert!(v6.permits("fd00::1".parse().unwrap()) && v6.permits("::1".parse().unwrap()));
        assert!(!v6.permits("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!v6.permits("127.0.0.1".parse().unwrap()));
        let v4 = policy("0.0.0.0/0");
        assert!(v4.permits("127.0.0.1".parse().unwrap()));
        assert!(v4.permits("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!v4.permits("::1".parse().unwrap()));
    }
}
