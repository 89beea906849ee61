//! Secrets as columns hold them.
//!
//! One in plain text is a text, and one that is sealed with the keyring a blob, so that neither can be
//! taken for the other, whatever the secret is. A key of links is 32 bytes in plain, and more if sealed.

use std::str;

use esl_core::{
    KeyId, Keyring, NoRandomness, OpenError, OrganizationId, SealedPlace, SecretField,
    SubscriptionId,
};
use rusqlite::{
    Error, Row,
    types::{Type, Value, ValueRef},
};

use crate::storage::rows::{damaged, mistyped};

/// Seals and opens secrets, if there is a keyring.
#[derive(Debug, Clone, Default)]
pub(crate) struct Secrets {
    pub(crate) keyring: Option<Keyring>,
}

/// A subscription, as far as its secrets are bound to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holder {
    pub(crate) organization: OrganizationId,
    pub(crate) subscription: SubscriptionId,
}

impl Holder {
    pub(crate) const fn place(self, field: SecretField) -> SealedPlace {
        let Self { organization, subscription } = self;
        SealedPlace::Subscription { organization, subscription, field }
    }
}

impl Secrets {
    /// What a column of text holds.
    pub(crate) fn text(&self, secret: &str, place: SealedPlace) -> rusqlite::Result<Value> {
        match &self.keyring {
            None => Ok(Value::from(secret.to_owned())),
            Some(keyring) => seal(keyring, secret.as_bytes(), place),
        }
    }

    /// What a column of bytes holds.
    pub(crate) fn bytes(&self, secret: &[u8], place: SealedPlace) -> rusqlite::Result<Value> {
        match &self.keyring {
            None => Ok(Value::from(secret.to_vec())),
            Some(keyring) => seal(keyring, secret, place),
        }
    }

    /// Reads what [`text`](Self::text) has written, with this keyring or another; `None` if there is
    /// nothing.
    pub(crate) fn read_text<T>(
        &self,
        row: &Row<'_>,
        index: usize,
        place: SealedPlace,
        read: impl FnOnce(&str) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        let value = row.get_ref(index)?;
        if let ValueRef::Blob(sealed) = value {
            let opened = self.open(sealed, index, place)?;
            let text = str::from_utf8(&opened);
            return read(text.map_err(|error| damaged(index, Type::Blob, error))?).map(Some);
        }
        let text = value.as_str_or_null().map_err(|error| mistyped(index, error))?;
        text.map(read).transpose()
    }

    /// Reads what [`bytes`](Self::bytes) has written, with this keyring or another.
    pub(crate) fn read_bytes<const LENGTH: usize>(
        &self,
        row: &Row<'_>,
        index: usize,
        place: SealedPlace,
    ) -> rusqlite::Result<[u8; LENGTH]> {
        let bytes = row.get_ref(index)?.as_blob().map_err(|error| mistyped(index, error))?;
        if let Ok(plain) = bytes.try_into() {
            return Ok(plain);
        }
        let opened = self.open(bytes, index, place)?;
        opened.as_slice().try_into().map_err(|error| damaged(index, Type::Blob, error))
    }

    fn open(
        &self,
        sealed: &[u8],
        index: usize,
        place: SealedPlace,
    ) -> rusqlite::Result<impl std::ops::Deref<Target = Vec<u8>> + use<>> {
        let opened = match &self.keyring {
            Some(keyring) => keyring.open(sealed, place),
            None => {
                Err(KeyId::of_sealed(sealed).map_or(OpenError::NotGenuine, OpenError::UnknownKey))
            }
        };
        opened.map_err(|error| damaged(index, Type::Blob, error))
    }
}

fn seal(keyring: &Keyring, secret: &[u8], place: SealedPlace) -> rusqlite::Result<Value> {
    let sealed = keyring.seal(secret, place);
    sealed.map(Value::from).map_err(|error| Error::ToSqlConversionFailure(error.into()))
}

/// Whether a secret could not be sealed for lack of random bits. Nothing is wrong with it.
pub(crate) fn is_without_randomness(error: &Error) -> bool {
    matches!(error, Error::ToSqlConversionFailure(cause) if cause.is::<NoRandomness>())
}

/// Whether a secret could not be read because its key was not given.
pub(crate) fn is_key_missing(error: &Error) -> bool {
    let Error::FromSqlConversionFailure(_, _, cause) = error else { return false };
    matches!(cause.downcast_ref(), Some(OpenError::UnknownKey(_)))
}
