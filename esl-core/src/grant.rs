//! Refresh tokens: what one is traded for, and how all tokens of a grant end together.

use crate::{Digest, OrganizationId, Scopes, Timestamp, Token, TokenKind};

/// Which grant a token comes of: what a client was given at once, and all that this was traded for
/// since. 16 random bytes, which only mean something beside the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenFamily([u8; 16]);

impl TokenFamily {
    /// A family of these bytes, which must be random.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// A refresh token that a client has shown, to get new tokens for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// SHA-256 of the token that was shown.
    pub shown: Digest,
    /// The client that has shown it, and has proven itself.
    pub client: String,
    /// Whom that client acts for.
    pub organization: OrganizationId,
    /// What the new access token shall be good for; `None` is all that the grant has.
    pub scopes: Option<Scopes>,
    /// The new access token.
    pub access: NewToken,
    /// The new refresh token.
    pub refresh: NewToken,
}

/// A token that is to be stored, if it is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewToken {
    /// SHA-256 of the token.
    pub digest: Digest,
    /// From then on it is worth nothing.
    pub expires_at: Timestamp,
}

/// What came of a [`Rotation`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Rotated {
    /// The new tokens are stored, and the one that was shown is used up.
    Renewed(Box<Renewed>),
    /// It is no refresh token of this client that is still good. Nothing has changed.
    Unknown,
    /// It had been used before, so two have it, of whom one has stolen it: all tokens of its family
    /// are revoked.
    Reused,
    /// More was asked for than the grant has, which is this. Nothing has changed.
    Exceeds(Scopes),
}

/// The tokens that one was traded for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// Good for what was asked for.
    pub access: Token,
    /// Good for all that the old one was, as far as the client still has it.
    pub refresh: Token,
}

/// What came of revoking a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Revoked {
    /// It is worth nothing any more; if it was a refresh token, neither is any token of its family.
    Done,
    /// There is no such token in the organization (any more).
    Unknown,
    /// It was given to another client of the organization. Nothing has changed.
    OfAnother,
}

impl Rotation {
    /// Decides, for a storage, which has looked up in one transaction what the digest names, unless
    /// it has expired, whether that was used before, and what the client has; and does what is said.
    pub fn decide(&self, shown: Option<(&Token, bool)>, held: Scopes) -> Rotated {
        let is_ours = |token: &Token| {
            token.kind == TokenKind::Refresh
                && token.client == self.client
                && token.organization == self.organization
        };
        let Some((token, is_used)) = shown.filter(|(token, _)| is_ours(token)) else {
            return Rotated::Unknown;
        };
        if is_used {
            return Rotated::Reused;
        }
        let granted = token.scopes.within(held);
        let asked = self.scopes.unwrap_or(granted);
        if asked.is_empty() || !granted.cover(asked) {
            return Rotated::Exceeds(granted);
        }
        let new = |kind, NewToken { digest, expires_at }, scopes| Token {
            digest,
            kind,
            scopes,
            expires_at,
            ..token.clone()
        };
        Rotated::Renewed(Box::new(Renewed {
            access: new(TokenKind::Access, self.access, asked),
            // What was asked for narrows the access token alone (RFC 6749, section 6).
            refresh: new(TokenKind::Refresh, self.refresh, granted),
        }))
    }
}
