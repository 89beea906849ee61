use std::fmt;

use zeroize::Zeroizing;

use crate::HeaderName;

/// Headers of a subscriber's own that go with every delivery, such as an API key that a gateway in
/// front of the receiver asks for. Their values are secrets: `Debug` shows the names alone.
///
/// ```
/// use esl_core::CustomHeaders;
/// let headers = CustomHeaders::new([("X-Api-Key", "k1")])?;
/// assert_eq!(format!("{headers:?}"), r#"["x-api-key"]"#);
/// assert!(CustomHeaders::new([("Content-Length", "7")]).is_err());
/// # Ok::<(), esl_core::CustomHeaderError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CustomHeaders(Vec<(HeaderName, Zeroizing<String>)>);

/// Why headers are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CustomHeaderError {
    /// More than [`CustomHeaders::COUNT_MAX`].
    #[error("expected at most 16 headers")]
    TooMany,
    /// Not a token of RFC 9110, section 5.6.2, or too long.
    #[error("expected a header name: 1 to 64 letters, digits, `-`, `_`, `.` and the like")]
    Name,
    /// Connections, framing, signatures: what HTTP or ESL itself says.
    #[error("this header is HTTP's or ESL's own")]
    Reserved,
    /// Not visible ASCII with spaces in between, or too long.
    #[error("expected 1 to 1024 characters of visible ASCII, with spaces only in between")]
    Value,
    /// The same name twice, whatever its case.
    #[error("this header stands there more than once")]
    Repeated,
}

impl CustomHeaders {
    /// How many there may be.
    pub const COUNT_MAX: usize = 16;
    const NAME_BYTES_MAX: usize = 64;
    const VALUE_BYTES_MAX: usize = 1024;

    /// Checks and keeps headers. Names are kept in lower case.
    ///
    /// # Errors
    /// The first thing that is wrong; [`check`](Self::check) says it for one header.
    pub fn new<N: AsRef<str>, V: AsRef<str>>(
        headers: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, CustomHeaderError> {
        let mut kept = Self::default();
        for (name, value) in headers {
            Self::check(name.as_ref(), value.as_ref())?;
            let name: HeaderName = name.as_ref().to_ascii_lowercase().into();
            if kept.0.iter().any(|(other, _)| *other == name) {
                return Err(CustomHeaderError::Repeated);
            }
            if kept.0.len() == Self::COUNT_MAX {
                return Err(CustomHeaderError::TooMany);
            }
            kept.0.push((name, Zeroizing::new(value.as_ref().to_owned())));
        }
        Ok(kept)
    }

    /// Whether a header may be sent.
    ///
    /// # Errors
    /// See [`CustomHeaderError`].
    pub fn check(name: &str, value: &str) -> Result<(), CustomHeaderError> {
        let is_token = (1..=Self::NAME_BYTES_MAX).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
        if !is_token {
            return Err(CustomHeaderError::Name);
        }
        if is_reserved(&name.to_ascii_lowercase()) {
            return Err(CustomHeaderError::Reserved);
        }
        let is_visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        let is_value = (1..=Self::VALUE_BYTES_MAX).contains(&value.len())
            && value.bytes().all(is_visible)
            && value.trim_ascii() == value;
        if is_value { Ok(()) } else { Err(CustomHeaderError::Value) }
    }

    /// Each header with its value. Only for sending and for storage.
    pub fn expose(&self) -> impl ExactSizeIterator<Item = (&HeaderName, &str)> {
        self.0.iter().map(|(name, value)| (name, value.as_str()))
    }

    /// The names, in lower case.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &HeaderName> {
        self.0.iter().map(|(name, _)| name)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for CustomHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// What belongs to the connection (RFC 9110, section 7.6.1), to the framing of the message, or to
/// ESL. A name in lower case.
fn is_reserved(name: &str) -> bool {
    const RESERVED: [&str; 15] = [
        "connection",
        "date",
        "expect",
        "forwarded",
        "host",
        "http2-settings",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "via",
        "accept-encoding",
        "early-data",
    ];
    const RESERVED_PREFIXES: [&str; 4] = ["content-", "proxy-", "webhook-", "x-sapien-"];
    RESERVED.contains(&name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_the_connection_the_framing_and_the_signature_are_refused() {
        use CustomHeaderError::{Name, Reserved, Value};
        let long = "x".repeat(65);
        let long_value = "v".repeat(1025);
        for (name, value, expected) in [
            ("X-Api-Key", "k 1", Ok(())),
            ("Authorization", "Bearer abc", Ok(())),
            ("Content-Type", "text/plain", Err(Reserved)),
            ("CONTENT-LENGTH", "7", Err(Reserved)),
            ("transfer-encoding", "chunked", Err(Reserved)),
            ("Host", "a", Err(Reserved)),
            ("Webhook-Signature", "v1,a", Err(Reserved)),
            ("X-Sapien-Signature", "00", Err(Reserved)),
            ("User-Agent", "me", Err(Reserved)),
            ("", "v", Err(Name)),
            ("a b", "v", Err(Name)),
            ("a:", "v", Err(Name)),
            ("é", "v", Err(Name)),
            (&long, "v", Err(Name)),
            ("a", "", Err(Value)),
            ("a", " v", Err(Value)),
            ("a", "v\r\nb: c", Err(Value)),
            ("a", "é", Err(Value)),
            ("a", &long_value, Err(Value)),
        ] {
            assert_eq!(CustomHeaders::check(name, value), expected, "{name}: {value}");
        }
    }

    #[test]
    fn names_are_unique_and_few_and_values_are_not_shown() {
        assert_eq!(CustomHeaders::new([("a", "1"), ("A", "2")]), Err(CustomHeaderError::Repeated));
        let many = (0..17).map(|number| (format!("h{number}"), "v"));
        assert_eq!(CustomHeaders::new(many), Err(CustomHeaderError::TooMany));
        let headers = CustomHeaders::new([("X-Key", "hidden-value")]).expect("a header");
        assert!(!format!("{headers:?}").contains("hidden-value"));
        assert_eq!(headers.expose().next().map(|(_, value)| value), Some("hidden-value"));
    }
}
