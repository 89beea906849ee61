//! Machine-made credentials of clients.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ulid::Ulid;
use zeroize::Zeroizing;

use crate::{Client, Digest, OrganizationId, Scopes, Timestamp};

/// The secret of a client: 256 random bits, as text that needs no escape anywhere. It is shown once,
/// and only its [`digest`](Self::digest) is kept.
pub struct ClientSecret(Zeroizing<String>);

impl ClientSecret {
    /// A new one.
    ///
    /// # Panics
    /// If the operating system has no random bits.
    #[must_use]
    pub fn generate() -> Self {
        Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(random::<32>())))
    }

    /// The text. Only for the answer that shows it once.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What storage keeps of it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret(…)")
    }
}

impl Client {
    /// A client that is yet to be stored, and the secret that its owner is shown once. Without an
    /// `id`, which must be [one](Self::is_id), it gets one that nobody has.
    ///
    /// # Panics
    /// If the operating system has no random bits.
    #[must_use]
    pub fn generate(
        id: Option<String>,
        organization: OrganizationId,
        scopes: Scopes,
        created_at: Timestamp,
    ) -> (Self, ClientSecret) {
        let secret = ClientSecret::generate();
        let made_up = || {
            let random = u128::from_be_bytes(random());
            format!("client_{}", Ulid::from_parts(created_at.as_millis_u64(), random))
        };
        let id = id.unwrap_or_else(made_up);
        (Self { id, organization, secret: secret.digest(), scopes, created_at }, secret)
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has random bits");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_256_bits_and_are_not_kept() {
        let organization = OrganizationId::from_bytes([1; 16]);
        let client = || Client::generate(None, organization, Scopes::all(), Timestamp::EPOCH);
        let ((one, secret), (other, other_secret)) = (client(), client());
        assert_eq!(secret.expose().len(), 43);
        assert!(one.secret.matches(&Digest::of(secret.expose().as_bytes())));
        assert!(one.id != other.id && secret.expose() != other_secret.expose());
        assert!(Client::is_id(&one.id), "{}", one.id);
        assert!(!format!("{one:?} {secret:?}").contains(secret.expose()));
    }
}
