//! Callback URLs, and which of them ESL may call.

mod address;
mod allow_list;
mod policy;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use url::{Host, Url};

pub use self::{
    allow_list::{CallbackAllowList, CallbackAllowListError},
    policy::CallbackPolicy,
};

/// Where a subscription's events are POSTed: an absolute `http` or `https` URL that has passed a
/// [`CallbackPolicy`], normalized, without a fragment.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CallbackUrl(Arc<str>);

/// Why a text is not a callback URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallbackUrlError {
    /// Not an absolute URL with a host that there can be, or longer than
    /// [`CallbackUrl::LENGTH_MAX`].
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
    /// Port 0, which nothing listens on.
    #[error("port 0 cannot be called")]
    Port,
    /// A host that is private, loopback, link-local, multicast, reserved or local by name.
    #[error(
        "the host is not a public address; an operator may list it in ESL_ALLOWED_CALLBACKS, or, \
         for development, open all with ESL_ALLOW_PRIVATE_CALLBACKS=true"
    )]
    PrivateHost,
}

impl CallbackUrl {
    /// The longest URL, in characters.
    pub const LENGTH_MAX: usize = 2048;

    /// Reads a URL and holds it against the policy. A name is not resolved here: the transport
    /// checks the addresses it leads to at every connect.
    ///
    /// The URL is kept as browsers would write it: an address in any spelling becomes the usual
    /// one, names become lower case and Punycode, and a fragment, which is never sent, is dropped.
    ///
    /// ```
    /// use esl_core::{CallbackPolicy, CallbackUrl, CallbackUrlError};
    /// let policy = CallbackPolicy::public();
    /// let url = CallbackUrl::parse("https://Your-App.com:443/webhooks/sapien#top", &policy)?;
    /// assert_eq!(url.as_str(), "https://your-app.com/webhooks/sapien");
    /// // 2130706433 is 127.0.0.1.
    /// let refused = CallbackUrl::parse("https://2130706433/", &policy);
    /// assert_eq!(refused, Err(CallbackUrlError::PrivateHost));
    /// # Ok::<(), CallbackUrlError>(())
    /// ```
    ///
    /// # Errors
    /// See [`CallbackUrlError`].
    pub fn parse(text: &str, policy: &CallbackPolicy) -> Result<Self, CallbackUrlError> {
        // The parser would drop tabs and line ends and trim spaces without a word.
        let has_blanks = text.chars().any(|c| c.is_control() || c.is_whitespace());
        if has_blanks || text.len() > Self::LENGTH_MAX {
            return Err(CallbackUrlError::Malformed);
        }
        let mut url = Url::parse(text).map_err(|_| CallbackUrlError::Malformed)?;
        url.set_fragment(None);
        let host = url.host().ok_or(CallbackUrlError::Malformed)?;
        if !policy.permits_scheme(url.scheme()) {
            return Err(CallbackUrlError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(CallbackUrlError::UserInfo);
        }
        if url.port() == Some(0) {
            return Err(CallbackUrlError::Port);
        }
        let is_allowed = match host {
            Host::Ipv4(address) => policy.permits(address.into()),
            Host::Ipv6(address) => policy.permits(address.into()),
            Host::Domain(name) if !is_hostname(name) => return Err(CallbackUrlError::Malformed),
            Host::Domain(name) => policy.permits_name(name),
        };
        if !is_allowed {
            return Err(CallbackUrlError::PrivateHost);
        }
        if url.as_str().len() > Self::LENGTH_MAX {
            return Err(CallbackUrlError::Malformed);
        }
        Ok(Self(url.as_str().into()))
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

/// What DNS, resolvers and other URL parsers agree on; [`Url`] takes more. A dot at the end, which
/// stands for the root, is left to the caller.
fn is_hostname(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= NAME_LENGTH_MAX && name.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    (1..=LABEL_LENGTH_MAX).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
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

/// RFC 1035, 2.3.4: 255 bytes on the wire, which are two more than the characters with their dots.
const NAME_LENGTH_MAX: usize = 253;
/// RFC 1035, 2.3.4.
const LABEL_LENGTH_MAX: usize = 63;
