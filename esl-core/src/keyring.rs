//! Keys that secrets are encrypted with where they are stored.
//!
//! A secret that is sealed says which key opens it, and opens only in the place that it was sealed for:
//! copied into another row or column, it is worth nothing. A storage that is given a [`Keyring`] keeps
//! what it seals, and opens it when it reads; what it has kept in plain text before, it reads as it is.
//!
//! ```text
//! version (1 byte)  key's id (8)  nonce (24)  the secret, encrypted  tag (16)
//! ```
//!
//! Version 1 is XChaCha20-Poly1305. Its nonce is long enough to be drawn at random for each secret and
//! for ever, by any number of processes that share a key, and it takes the same time on every machine,
//! with instructions for AES or without.

use std::{fmt, str::FromStr, sync::Arc};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{OrganizationId, SubscriptionId};

/// A key that encrypts secrets: 32 random bytes. Its `Debug` shows its id alone.
pub struct EncryptionKey {
    id: KeyId,
    /// Overwrites the key when it is dropped.
    cipher: XChaCha20Poly1305,
}

/// Names a key: the beginning of a digest of it, which is no secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; KEY_ID_BYTES]);

/// Why a text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 32 random bytes in base64 or hex")]
pub struct EncryptionKeyError;

impl EncryptionKey {
    /// A key of these bytes, which must be random.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        let mac: Hmac<Sha256> = KeyInit::new_from_slice(bytes).expect("HMAC takes any key");
        let digest = mac.chain_update(b"esl: the id of an encryption key").finalize().into_bytes();
        let id = digest.first_chunk().expect("it has 32 bytes");
        Self { id: KeyId(*id), cipher: XChaCha20Poly1305::new(bytes.into()) }
    }

    /// Its name.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }
}

impl FromStr for EncryptionKey {
    type Err = EncryptionKeyError;

    /// Reads base64, of either alphabet and padded or not, or hex.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // As base64, 64 digits would be 48 bytes, so neither is taken for the other.
        let bytes = if text.len() == 2 * KEY_BYTES {
            hex::decode(text).map_err(|_| EncryptionKeyError)?
        } else {
            let standard = STANDARD.decode(text);
            standard.or_else(|_| URL_SAFE.decode(text)).map_err(|_| EncryptionKeyError)?
        };
        let bytes = Zeroizing::new(bytes);
        let bytes = bytes.as_slice().try_into().map_err(|_| EncryptionKeyError)?;
        Ok(Self::from_bytes(bytes))
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EncryptionKey").field(&self.id).finish()
    }
}

impl KeyId {
    /// Reads [`to_bytes`](Self::to_bytes) back.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_ID_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes, for storage.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; KEY_ID_BYTES] {
        self.0
    }

    /// Which key opens what was sealed; `None` if it was not sealed by this or an older ESL.
    #[must_use]
    pub fn of_sealed(sealed: &[u8]) -> Option<Self> {
        Some(Parts::of(sealed)?.key)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Keys, of which the first encrypts and any decrypts. Clones share them. Its `Debug` shows ids alone.
///
/// ```
/// use esl_core::{EncryptionKey, Keyring};
/// let old = EncryptionKey::from_bytes(&[1; 32]);
/// let keyring = Keyring::new([EncryptionKey::from_bytes(&[2; 32]), old])?;
/// assert_eq!(keyring.ids().len(), 2);
/// # Ok::<(), esl_core::KeyringError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Keyring(Arc<[EncryptionKey]>);

/// Why there is no keyring of some keys. Says which, never what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// There is none.
    #[error("expected a key")]
    Empty,
    /// One of them is no key; the first is 1.
    #[error("key {0}: {EncryptionKeyError}")]
    Key(usize),
    /// One of them is there twice.
    #[error("key {0} is there before")]
    Repeated(usize),
}

/// The operating system gives no random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random bits")]
pub struct NoRandomness;

/// Why what was sealed does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It was sealed with a key that is not there. Nothing is wrong with it.
    #[error("it is encrypted with the key {0}, which was not given")]
    UnknownKey(KeyId),
    /// It was altered, belongs somewhere else, or was not sealed at all.
    #[error("it was altered, or moved here from elsewhere")]
    NotGenuine,
}

impl Keyring {
    /// A keyring of these keys.
    ///
    /// # Errors
    /// When there is none, or one of them twice.
    pub fn new(keys: impl IntoIterator<Item = EncryptionKey>) -> Result<Self, KeyringError> {
        let keys: Arc<[_]> = keys.into_iter().collect();
        if keys.is_empty() {
            return Err(KeyringError::Empty);
        }
        for (index, key) in keys.iter().enumerate() {
            if keys[..index].iter().any(|other| other.id == key.id) {
                return Err(KeyringError::Repeated(index + 1));
            }
        }
        Ok(Self(keys))
    }

    /// The key that encrypts.
    #[must_use]
    pub fn first(&self) -> KeyId {
        self.0[0].id
    }

    /// All keys, the one that encrypts first.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = KeyId> {
        self.0.iter().map(EncryptionKey::id)
    }

    /// Whether it has that key.
    #[must_use]
    pub fn has(&self, id: KeyId) -> bool {
        self.0.iter().any(|key| key.id == id)
    }

    /// Encrypts a secret with the first key, for one place.
    ///
    /// # Errors
    /// When the operating system gives no random bits.
    pub fn seal(&self, secret: &[u8], place: SealedPlace) -> Result<Vec<u8>, NoRandomness> {
        let key = &self.0[0];
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| NoRandomness)?;
        let associated = place.to_bytes();
        let payload = Payload { msg: secret, aad: &associated };
        let encrypted = key.cipher.encrypt(&XNonce::from(nonce), payload);
        let encrypted = encrypted.expect("a secret is shorter than the cipher's limit of 256 GiB");
        let mut sealed = Vec::with_capacity(1 + KEY_ID_BYTES + NONCE_BYTES + encrypted.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&key.id.0);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&encrypted);
        Ok(sealed)
    }

    /// Decrypts what was sealed for this place.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&self, sealed: &[u8], place: SealedPlace) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let Parts { key, nonce, encrypted } = Parts::of(sealed).ok_or(OpenError::NotGenuine)?;
        let found = self.0.iter().find(|known| known.id == key);
        let key = found.ok_or(OpenError::UnknownKey(key))?;
        let associated = place.to_bytes();
        let payload = Payload { msg: encrypted, aad: &associated };
        let opened = key.cipher.decrypt(&XNonce::from(*nonce), payload);
        opened.map(Zeroizing::new).map_err(|_| OpenError::NotGenuine)
    }
}

impl FromStr for Keyring {
    type Err = KeyringError;

    /// Reads keys with commas between them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let keys = text.split(',').enumerate().map(|(index, key)| {
            key.trim().parse().map_err(|EncryptionKeyError| KeyringError::Key(index + 1))
        });
        Self::new(keys.collect::<Result<Vec<_>, _>>()?)
    }
}

/// Where a sealed secret belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SealedPlace {
    /// In a subscription.
    Subscription {
        /// Whose it is.
        organization: OrganizationId,
        /// Which one.
        subscription: SubscriptionId,
        /// What of it.
        field: SecretField,
    },
    /// Among the [keys of links](crate::LinkKey), by its number.
    LinkKey(i64),
}

/// The secrets of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretField {
    /// [`Subscription::secret`](crate::Subscription::secret).
    Current,
    /// [`Subscription::retiring`](crate::Subscription::retiring).
    Retiring,
    /// The [headers](crate::CustomHeaders) of its own.
    Headers,
}

impl SealedPlace {
    /// What binds a secret to the place: no two places have the same.
    fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Subscription { organization, subscription, field } => {
                let field: &[u8] = match field {
                    SecretField::Current => b"esl: a subscription's secret",
                    SecretField::Retiring => b"esl: a subscription's retiring secret",
                    SecretField::Headers => b"esl: a subscription's headers",
                };
                [field, &organization.to_bytes(), &subscription.to_bytes()].concat()
            }
            Self::LinkKey(number) => [b"esl: a key of links", &number.to_be_bytes()[..]].concat(),
        }
    }
}

struct Parts<'a> {
    key: KeyId,
    nonce: &'a [u8; NONCE_BYTES],
    encrypted: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(sealed: &'a [u8]) -> Option<Self> {
        let (&version, rest) = sealed.split_first()?;
        let (key, rest) = rest.split_first_chunk()?;
        let (nonce, encrypted) = rest.split_first_chunk()?;
        (version == VERSION).then_some(Self { key: KeyId(*key), nonce, encrypted })
    }
}

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 24;

const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PADDED_OR_NOT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, PADDED_OR_NOT);
const PADDED_OR_NOT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

    use super::*;

    const PLACE: SealedPlace = SealedPlace::Subscription {
        organization: OrganizationId::from_bytes([1; 16]),
        subscription: SubscriptionId::from_bytes([2; 16]),
        field: SecretField::Current,
    };

    fn keyring(keys: &[u8]) -> Keyring {
        let keys = keys.iter().map(|byte| EncryptionKey::from_bytes(&[*byte; 32]));
        Keyring::new(keys).expect("keys")
    }

    fn opened(keyring: &Keyring, sealed: &[u8], place: SealedPlace) -> Result<Vec<u8>, OpenError> {
        keyring.open(sealed, place).map(|opened| opened.to_vec())
    }

    #[test]
    fn the_first_key_seals_and_any_opens() {
        let sealed = keyring(&[1, 2]).seal(b"a secret", PLACE).expect("random bits");
        assert_eq!(KeyId::of_sealed(&sealed), Some(keyring(&[1]).first()));
        for keys in [&[1][..], &[2, 1], &[3, 2, 1]] {
            assert_eq!(opened(&keyring(keys), &sealed, PLACE), Ok(b"a secret".to_vec()));
        }
        let unknown = Err(OpenError::UnknownKey(keyring(&[1]).first()));
        assert_eq!(opened(&keyring(&[2]), &sealed, PLACE), unknown);
    }

    #[test]
    fn the_same_secret_looks_different_each_time() {
        let seal = || keyring(&[1]).seal(b"a secret", PLACE).expect("random bits");
        let (one, other) = (seal(), seal());
        assert_ne!(one[9..33], other[9..33]);
        assert_ne!(one[33..], other[33..]);
        assert!(!one.windows(8).any(|window| window == b"a secret"));
    }

    #[test]
    fn what_was_moved_or_altered_does_not_open() {
        let keyring = keyring(&[1]);
        let sealed = keyring.seal(b"a secret", PLACE).expect("random bits");
        let elsewhere = |organization, subscription, field| SealedPlace::Subscription {
            organization: OrganizationId::from_bytes([organization; 16]),
            subscription: SubscriptionId::from_bytes([subscription; 16]),
            field,
        };
        for place in [
            elsewhere(9, 2, SecretField::Current),
            elsewhere(1, 9, SecretField::Current),
            elsewhere(2, 1, SecretField::Current),
            elsewhere(1, 2, SecretField::Retiring),
            elsewhere(1, 2, SecretField::Headers),
            SealedPlace::LinkKey(1),
        ] {
            assert_eq!(opened(&keyring, &sealed, place), Err(OpenError::NotGenuine), "{place:?}");
        }
        let of_links = keyring.seal(b"a secret", SealedPlace::LinkKey(1)).expect("random bits");
        let moved = opened(&keyring, &of_links, SealedPlace::LinkKey(2));
        assert_eq!(moved, Err(OpenError::NotGenuine));
        for index in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[index] ^= 1;
            assert!(opened(&keyring, &altered, PLACE).is_err(), "byte {index}");
            assert!(opened(&keyring, &sealed[..index], PLACE).is_err(), "{index} bytes");
        }
    }

    #[test]
    fn what_is_sealed_today_opens_for_ever() {
        // Made by another implementation, with the key of 32 times 1 and the nonce 00 01 … 17.
        let sealed = hex::decode(SEALED_ONCE).expect("hex");
        assert_eq!(opened(&keyring(&[1]), &sealed, PLACE), Ok(b"a secret".to_vec()));
    }

    const SEALED_ONCE: &str = "01953e2617380881ad000102030405060708090a0b0c0d0e0f1011121314151617\
        19f0a8e0fee3b2fc7762d9a9c3149bfa61ff41bb300981ec";

    #[test]
    fn keys_are_read_from_base64_and_hex_and_from_nothing_else() {
        let bytes = [0xfb; KEY_BYTES];
        let id = EncryptionKey::from_bytes(&bytes).id();
        let padded = base64::engine::general_purpose::STANDARD.encode(bytes);
        let texts = [
            padded.clone(),
            STANDARD_NO_PAD.encode(bytes),
            URL_SAFE_NO_PAD.encode(bytes),
            hex::encode(bytes),
            hex::encode_upper(bytes),
        ];
        for text in &texts {
            assert_eq!(text.parse::<EncryptionKey>().map(|key| key.id()), Ok(id), "{text}");
        }
        for wrong in ["", "secret", &padded[1..], &format!("{padded}A"), &"g".repeat(64)] {
            assert_eq!(wrong.parse::<EncryptionKey>().err(), Some(EncryptionKeyError), "{wrong}");
        }
        let other = hex::encode([7; KEY_BYTES]);
        let both: Keyring = format!("{padded}, {other}").parse().expect("two keys");
        assert_eq!((both.ids().len(), both.first()), (2, id));
        let error = |text: &str| text.parse::<Keyring>().expect_err("it is none");
        assert_eq!(error(&format!("{other},{other}")), KeyringError::Repeated(2));
        assert_eq!(error(&format!("{other},")), KeyringError::Key(2));
        let message = error(&format!("{other},hunter2")).to_string();
        assert_eq!(message, "key 2: expected 32 random bytes in base64 or hex");
    }

    #[test]
    fn debug_shows_ids_alone() {
        let shown = format!("{:?}", keyring(&[1]));
        assert_eq!(shown, format!("Keyring([EncryptionKey({})])", keyring(&[1]).first()));
        assert_ne!(keyring(&[1]).first().to_bytes(), [1; 8]);
    }
}
