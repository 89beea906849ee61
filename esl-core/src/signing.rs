//! Signing: what a receiver checks to know that an event is genuine.
//!
//! Two schemes go with every delivery. The documented one is the lowercase hex HMAC of the raw body
//! (SPEC.md, "Webhook Handler Implementation"). Beside it stands
//! [Standard Webhooks](https://www.standardwebhooks.com), which also covers the event's id and the
//! time of sending, and so protects against replay.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

/// What a subscription's events are signed with. Its `Debug` shows nothing.
///
/// A secret that begins with `whsec_` goes on with the base64 of 24 to 64 bytes, and those bytes
/// are the key of the Standard Webhooks signature. Of any other secret, the text itself is. The
/// documented signature always uses the text itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

/// Why a text is not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// It is empty, or longer than [`Secret::LENGTH_MAX`].
    #[error("expected 1 to 256 bytes")]
    Length,
    /// What follows `whsec_` is not base64 of a key.
    #[error("after `whsec_`, expected the base64 of 24 to 64 bytes")]
    Base64,
}

impl Secret {
    /// The longest secret, in bytes.
    pub const LENGTH_MAX: usize = 256;
    const PREFIX: &str = "whsec_";

    /// Checks and keeps a secret.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn new(text: impl Into<String>) -> Result<Self, SecretError> {
        let text = Zeroizing::new(text.into());
        if text.is_empty() || text.len() > Self::LENGTH_MAX {
            return Err(SecretError::Length);
        }
        let secret = Self(text);
        secret.standard_key()?;
        Ok(secret)
    }

    /// The `whsec_` secret of 32 random bytes.
    #[must_use]
    pub fn from_random(bytes: &[u8; 32]) -> Self {
        Self(Zeroizing::new(format!("{}{}", Self::PREFIX, STANDARD.encode(bytes))))
    }

    /// The text. Only for the answer that shows a secret once, and for storage.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn standard_key(&self) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let Some(encoded) = self.0.strip_prefix(Self::PREFIX) else {
            return Ok(Zeroizing::new(self.0.as_bytes().to_vec()));
        };
        let key = STANDARD.decode(encoded).map_err(|_| SecretError::Base64)?;
        let key = Zeroizing::new(key);
        if (24..=64).contains(&key.len()) { Ok(key) } else { Err(SecretError::Base64) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The hash under the documented signature's HMAC (`ESL_SIGNATURE_ALGORITHM`). The Standard
/// Webhooks scheme has no choice: its `v1` is SHA-256.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// The documented default.
    #[default]
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// Its name in configuration, the same as in PHP's `hash_hmac`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }
}

/// A text that is no [`Algorithm`]. It does not repeat the text, which may be a secret in the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected sha256, sha384 or sha512")]
pub struct UnknownAlgorithm;

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == text).ok_or(UnknownAlgorithm)
    }
}

/// Signs for one subscription. The keys' inner and outer hash states are computed once, so that a
/// signature costs the hashing of its message and little more.
#[derive(Clone)]
pub struct Signer {
    sapien: Keyed,
    standard: Hmac<Sha256>,
}

#[derive(Clone)]
pub(crate) enum Keyed {
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

impl Keyed {
    pub(crate) fn new(algorithm: Algorithm, key: &[u8]) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(keyed(key)),
            Algorithm::Sha384 => {
                Self::Sha384(KeyInit::new_from_slice(key).expect("HMAC takes keys of any length"))
            }
            Algorithm::Sha512 => {
                Self::Sha512(KeyInit::new_from_slice(key).expect("HMAC takes keys of any length"))
            }
        }
    }

    fn hex(&self, message: &[u8]) -> String {
        match self {
            Self::Sha256(mac) => hex::encode(tag(mac, &[message])),
            Self::Sha384(mac) => hex::encode(tag(mac, &[message])),
            Self::Sha512(mac) => hex::encode(tag(mac, &[message])),
        }
    }

    /// Compares in constant time.
    pub(crate) fn verify(&self, message: &[u8], expected: &[u8]) -> bool {
        match self {
            Self::Sha256(mac) => mac.clone().chain_update(message).verify_slice(expected).is_ok(),
            Self::Sha384(mac) => mac.clone().chain_update(message).verify_slice(expected).is_ok(),
            Self::Sha512(mac) => mac.clone().chain_update(message).verify_slice(expected).is_ok(),
        }
    }
}

impl Signer {
    /// Prepares the keys of a secret.
    #[must_use]
    pub fn new(secret: &Secret, algorithm: Algorithm) -> Self {
        Self {
            sapien: Keyed::new(algorithm, secret.expose().as_bytes()),
            standard: standard_keyed(secret),
        }
    }

    /// The documented signature of a body: lowercase hex.
    #[must_use]
    pub fn sapien(&self, body: &[u8]) -> String {
        self.sapien.hex(body)
    }

    /// The Standard Webhooks signature: `v1,` and base64, over id, time in seconds and body.
    #[must_use]
    pub fn standard(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let seconds = seconds.to_string();
        let tag = tag(&self.standard, &standard_message(id, &seconds, body));
        let mut out = String::with_capacity(47);
        out.push_str("v1,");
        STANDARD.encode_string(tag, &mut out);
        out
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(…)")
    }
}

pub(crate) fn standard_keyed(secret: &Secret) -> Hmac<Sha256> {
    keyed(&secret.standard_key().expect("Secret::new has decoded the key before"))
}

pub(crate) fn standard_message<'a>(id: &'a str, seconds: &'a str, body: &'a [u8]) -> [&'a [u8]; 5] {
    [id.as_bytes(), b".", seconds.as_bytes(), b".", body]
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    KeyInit::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn tag<M: Mac + Clone>(mac: &M, parts: &[&[u8]]) -> hmac::digest::Output<M> {
    let mut mac = mac.clone();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vectors_come_out() {
        // RFC 4231, test case 2.
        let signer = Signer::new(&Secret::new("Jefe").expect("a secret"), Algorithm::Sha256);
        assert_eq!(
            signer.sapien(b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        // The example of the Standard Webhooks specification's reference libraries.
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        assert_eq!(
            Signer::new(&secret, Algorithm::Sha512).standard(
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                br#"{"test": 2432232314}"#,
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn secrets_are_checked_and_never_shown() {
        assert_eq!(Secret::new(""), Err(SecretError::Length));
        assert_eq!(Secret::new("x".repeat(257)), Err(SecretError::Length));
        for (bytes, is_right) in [(23, false), (24, true), (64, true), (65, false)] {
            let text = format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
            assert_eq!(Secret::new(text).is_ok(), is_right, "{bytes}");
        }
        assert_eq!(Secret::new("whsec_not base64"), Err(SecretError::Base64));
        let secret = Secret::from_random(&[7; 32]);
        assert_eq!(Secret::new(secret.expose()), Ok(secret.clone()));
        assert!(!format!("{secret:?}").contains("whsec"));
    }
}
