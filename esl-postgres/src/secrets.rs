//! Secrets as columns hold them: bytes, and a bit beside them that says whether they are sealed with the
//! keyring or plain.

use std::{ops::Deref, str};

use esl_core::{
    KeyId, Keyring, NoRandomness, OpenError, OrganizationId, SealedPlace, SecretField,
    SubscriptionId,
};

use crate::error::Damage;

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
    /// Whether what is written from now on is sealed.
    pub(crate) const fn seals(&self) -> bool {
        self.keyring.is_some()
    }

    /// What a column holds.
    pub(crate) fn bytes(&self, secret: &[u8], place: SealedPlace) -> Result<Vec<u8>, NoRandomness> {
        match &self.keyring {
            None => Ok(secret.to_vec()),
            Some(keyring) => keyring.seal(secret, place),
        }
    }

    /// Reads a text that [`bytes`](Self::bytes) has written, with this keyring or another.
    pub(crate) fn read_text<T>(
        &self,
        bytes: &[u8],
        is_sealed: bool,
        (column, place): (usize, SealedPlace),
        read: impl FnOnce(&str) -> Result<T, Damage>,
    ) -> Result<T, Damage> {
        let text = |bytes| str::from_utf8(bytes).map_err(|error| Damage::new(column, error));
        if is_sealed { read(text(&self.open(bytes, column, place)?)?) } else { read(text(bytes)?) }
    }

    /// Opens what is sealed.
    pub(crate) fn open(
        &self,
        sealed: &[u8],
        column: usize,
        place: SealedPlace,
    ) -> Result<impl Deref<Target = Vec<u8>> + use<>, Damage> {
        let opened = match &self.keyring {
            Some(keyring) => keyring.open(sealed, place),
            None => {
                Err(KeyId::of_sealed(sealed).map_or(OpenError::NotGenuine, OpenError::UnknownKey))
            }
        };
        opened.map_err(|error| Damage::new(column, error))
    }
}
