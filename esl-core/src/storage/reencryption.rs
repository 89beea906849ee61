//! Rewriting the secrets that were stored in plain text, or with a key that is to be given up: what is the
//! same in every storage that keeps them on a disk. Where they stand, and how they are written beside an
//! engine, is the storage's own.

use std::{collections::BTreeSet, str};

use super::{StorageError, StorageErrorKind};
use crate::{KeyId, Keyring, LinkKey, OpenError, SealedPlace};

/// In what form secrets are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretForm {
    /// Encrypted with the first key of the storage's [`Keyring`].
    Encrypted,
    /// As they are.
    Plain,
}

/// What re-encrypting the secrets of a storage has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reencrypted {
    /// Subscriptions whose secrets were rewritten, deleted ones included.
    pub subscriptions: u64,
    /// Keys of links that were rewritten.
    pub link_keys: u64,
    /// Secrets that were left as they are, since they are not what ESL writes there.
    pub damaged: u64,
    /// Whether what stood there before was cleaned away, as far as the storage can do that. If not, its
    /// chores do it, or another call.
    pub is_clean: bool,
    /// The keys that secrets may still be encrypted with. All others can be given up.
    pub keys_in_use: Vec<KeyId>,
    /// The keys that engines which run on the storage encrypt with, if they are others than the first one of
    /// whoever has called: what those engines write from now on needs them.
    pub engine_keys: Vec<KeyId>,
}

/// Says of one stored secret after the other what it becomes.
#[derive(Debug, Clone)]
pub struct Resealing {
    /// What reads, and writes unless they become plain.
    keyring: Keyring,
    form: SecretForm,
    damaged: u64,
    keys_left: BTreeSet<KeyId>,
}

impl Resealing {
    /// For a storage with that keyring, whose secrets are to have that form.
    ///
    /// # Errors
    /// [`KeyMissing`](StorageErrorKind::KeyMissing) without a keyring: nothing could be read or written.
    pub fn new(keyring: Option<&Keyring>, form: SecretForm) -> Result<Self, StorageError> {
        let Some(keyring) = keyring.cloned() else {
            let error = StorageError::new(StorageErrorKind::KeyMissing, REENCRYPT);
            return Err(error.with_source("no key was given"));
        };
        Ok(Self { keyring, form, damaged: 0, keys_left: BTreeSet::new() })
    }

    /// The key that they are encrypted with from now on; `None` if they become plain.
    #[must_use]
    pub fn key(&self) -> Option<KeyId> {
        match self.form {
            SecretForm::Encrypted => Some(self.keyring.first()),
            SecretForm::Plain => None,
        }
    }

    /// Whether a stored secret, of which the first bytes will do, is encrypted with that key, or plain if
    /// there is none.
    #[must_use]
    pub fn is_right(key: Option<KeyId>, stored: &[u8], is_sealed: bool) -> bool {
        match key {
            Some(key) => is_sealed && KeyId::of_sealed(stored) == Some(key),
            None => !is_sealed,
        }
    }

    /// What is to stand in the place of a stored secret: sealed, unless they become plain. `None` if it is
    /// right as it is, or damaged, which is counted; a damaged one keeps its key in use.
    ///
    /// # Errors
    /// [`KeyMissing`](StorageErrorKind::KeyMissing) if it is sealed with a key that the keyring does not have,
    /// as when it came meanwhile; [`Unavailable`](StorageErrorKind::Unavailable) if the operating system gives
    /// no random bits.
    pub fn reseal(
        &mut self,
        stored: &[u8],
        is_sealed: bool,
        place: SealedPlace,
    ) -> Result<Option<Vec<u8>>, StorageError> {
        if Self::is_right(self.key(), stored, is_sealed) {
            return Ok(None);
        }
        let opened;
        let plain = if is_sealed {
            match self.keyring.open(stored, place) {
                Ok(plain) => {
                    opened = plain;
                    &opened[..]
                }
                Err(OpenError::NotGenuine) => {
                    self.note_damaged(stored);
                    return Ok(None);
                }
                Err(error @ OpenError::UnknownKey(_)) => {
                    return Err(StorageError::new(StorageErrorKind::KeyMissing, REENCRYPT)
                        .with_source(error));
                }
            }
        } else {
            stored
        };
        if !is_secret_of(place, plain) {
            self.note_damaged(if is_sealed { stored } else { &[] });
            return Ok(None);
        }
        match self.form {
            SecretForm::Plain => Ok(Some(plain.to_vec())),
            SecretForm::Encrypted => self.keyring.seal(plain, place).map(Some).map_err(|error| {
                StorageError::new(StorageErrorKind::Unavailable, REENCRYPT).with_source(error)
            }),
        }
    }

    /// Counts a secret that cannot be read; of one that was sealed, `sealed` says with which key.
    pub fn note_damaged(&mut self, sealed: &[u8]) {
        self.damaged += 1;
        self.keys_left.extend(KeyId::of_sealed(sealed));
    }

    /// How many were damaged.
    #[must_use]
    pub const fn damaged(&self) -> u64 {
        self.damaged
    }

    /// The keys of those that were damaged: as long as somebody may mend them, they are needed.
    #[must_use]
    pub const fn keys_left(&self) -> &BTreeSet<KeyId> {
        &self.keys_left
    }
}

/// Whether it can be what ESL keeps there.
fn is_secret_of(place: SealedPlace, plain: &[u8]) -> bool {
    match place {
        SealedPlace::Subscription { .. } => str::from_utf8(plain).is_ok(),
        SealedPlace::LinkKey(_) => plain.len() == LinkKey::BYTES,
    }
}

/// The operation that its errors name.
const REENCRYPT: &str = "re-encrypt the secrets";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EncryptionKey, OrganizationId, SecretField, SubscriptionId};

    const PLACE: SealedPlace = SealedPlace::Subscription {
        organization: OrganizationId::from_bytes([1; 16]),
        subscription: SubscriptionId::from_bytes([2; 16]),
        field: SecretField::Current,
    };
    const LINKS: SealedPlace = SealedPlace::LinkKey(1);

    fn keyring(keys: &[u8]) -> Keyring {
        Keyring::new(keys.iter().map(|byte| EncryptionKey::from_bytes(&[*byte; 32]))).unwrap()
    }

    fn sealed(key: u8, secret: &[u8], place: SealedPlace) -> Vec<u8> {
        keyring(&[key]).seal(secret, place).unwrap()
    }

    fn resealing(form: SecretForm) -> Resealing {
        Resealing::new(Some(&keyring(&[2, 1])), form).unwrap()
    }

    #[test]
    fn what_has_another_form_or_key_is_written_anew() {
        let (mut encrypting, mut baring) =
            (resealing(SecretForm::Encrypted), resealing(SecretForm::Plain));
        let secret = b"a secret";
        let (old, new) = (sealed(1, secret, PLACE), sealed(2, secret, PLACE));
        for (stored, is_sealed) in [(&secret[..], false), (&old, true)] {
            let resealed = encrypting.reseal(stored, is_sealed, PLACE).unwrap().unwrap();
            assert_eq!(&keyring(&[2]).open(&resealed, PLACE).unwrap()[..], secret);
        }
        assert_eq!(encrypting.reseal(&new, true, PLACE).unwrap(), None);
        for sealed in [&old, &new] {
            assert_eq!(baring.reseal(sealed, true, PLACE).unwrap().as_deref(), Some(&secret[..]));
        }
        assert_eq!(baring.reseal(secret, false, PLACE).unwrap(), None);
        assert_eq!((encrypting.damaged(), baring.damaged()), (0, 0));
        assert_eq!((encrypting.key(), baring.key()), (Some(keyring(&[2]).first()), None));
    }

    #[test]
    fn what_is_damaged_stays_as_it_is_and_keeps_its_key() {
        let elsewhere = sealed(1, b"a secret", LINKS);
        let no_text = sealed(1, b"\xff", PLACE);
        let too_short = sealed(1, b"31 bytes are not a key of links", LINKS);
        for (stored, is_sealed, place, keeps_key) in [
            (&elsewhere[..], true, PLACE, true),
            (&no_text, true, PLACE, true),
            (&too_short, true, LINKS, true),
            (b"\xff", false, PLACE, false),
            (b"too short", false, LINKS, false),
            (b"not sealed at all", true, PLACE, false),
        ] {
            let mut resealing = resealing(SecretForm::Encrypted);
            assert_eq!(resealing.reseal(stored, is_sealed, place).unwrap(), None, "{stored:?}");
            assert_eq!(resealing.damaged(), 1, "{stored:?}");
            let keys: Vec<_> = resealing.keys_left().iter().copied().collect();
            let expected = keeps_key.then(|| keyring(&[1]).first());
            assert_eq!(keys, expected.into_iter().collect::<Vec<_>>(), "{stored:?}");
        }
    }

    #[test]
    fn a_key_that_is_missing_is_no_damage() {
        let refused = Resealing::new(None, SecretForm::Encrypted).unwrap_err();
        assert_eq!(refused.kind(), StorageErrorKind::KeyMissing);
        let mut resealing = resealing(SecretForm::Encrypted);
        let refused = resealing.reseal(&sealed(3, b"a secret", PLACE), true, PLACE).unwrap_err();
        assert_eq!((refused.kind(), resealing.damaged()), (StorageErrorKind::KeyMissing, 0));
    }
}
