//! Organizations, their clients, and the tokens that clients are given.

use std::fmt;

use crate::{OrganizationId, Plan, Timestamp, TokenFamily};

/// Whose data and subscriptions are kept apart from everybody else's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    /// Its name to the outside.
    pub id: OrganizationId,
    /// Its name to people; unique, 1 to 100 characters.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it may use; without one there is no limit to that.
    pub plan: Option<Plan>,
}

impl Organization {
    /// One that may use as much as it likes.
    #[must_use]
    pub fn new(id: OrganizationId, name: impl Into<String>, created_at: Timestamp) -> Self {
        Self { id, name: name.into(), created_at, plan: None }
    }

    /// With limits.
    #[must_use]
    pub const fn with_plan(mut self, plan: Plan) -> Self {
        self.plan = Some(plan);
        self
    }
}

/// A program that acts for an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The `client_id` it authenticates with.
    pub id: String,
    /// Whom it acts for.
    pub organization: OrganizationId,
    /// SHA-256 of its secret; the secret itself is not kept.
    pub secret: Digest,
    /// What it may do at most.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Client {
    /// So many clients an organization has at most.
    pub const PER_ORGANIZATION_MAX: usize = 1_000;
    /// What an id must be, for messages.
    pub const ID_EXPECTED: &str =
        "an id of up to 100 letters, digits, dots, hyphens and underscores";
    const ID_BYTES_MAX: usize = 100;

    /// Whether a text can be the id of a new client: one that needs no escape in a form, a header, a
    /// path or a shell.
    #[must_use]
    pub fn is_id(text: &str) -> bool {
        // A path would lose these two, however they are escaped.
        let is_step = matches!(text, "." | "..");
        (1..=Self::ID_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            && !is_step
    }
}

/// A bearer token, as far as storage knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the token; the token itself is not kept.
    pub digest: Digest,
    /// Whether it opens routes or buys new tokens.
    pub kind: TokenKind,
    /// The client it was given to.
    pub client: String,
    /// Whom that client acts for.
    pub organization: OrganizationId,
    /// The grant that it comes of.
    pub family: TokenFamily,
    /// What it may be used for.
    pub scopes: Scopes,
    /// From then on it is worth nothing.
    pub expires_at: Timestamp,
}

/// The two kinds of token (RFC 6749, sections 1.4 and 1.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenKind {
    /// Opens routes.
    Access,
    /// Buys a new access token.
    Refresh,
}

/// SHA-256 of a machine-made secret of 256 random bits: such a secret needs no slow hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Hashes a secret.
    #[must_use]
    pub fn of(secret: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(secret).into())
    }

    /// Wraps 32 bytes that storage kept.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Compares in a time that does not depend on where two digests differ.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq;
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

/// One thing that a token may be good for (SPEC.md, "Required Scopes", and three of ours).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// `events:subscribe`: create and manage subscriptions.
    Subscribe,
    /// `events:read`: read events, subscriptions and deliveries.
    Read,
    /// `events:admin`: everything within the organization.
    Admin,
    /// `events:publish`: publish events.
    Publish,
    /// `entities:read`: read persons, pets, toys and availability.
    EntitiesRead,
    /// `entities:write`: change them.
    EntitiesWrite,
}

impl Scope {
    /// All of them, in the order they are printed.
    pub const ALL: [Self; 6] = [
        Self::Subscribe,
        Self::Read,
        Self::Admin,
        Self::Publish,
        Self::EntitiesRead,
        Self::EntitiesWrite,
    ];

    /// Its name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subscribe => "events:subscribe",
            Self::Read => "events:read",
            Self::Admin => "events:admin",
            Self::Publish => "events:publish",
            Self::EntitiesRead => "entities:read",
            Self::EntitiesWrite => "entities:write",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of scopes, printed with spaces between them (RFC 6749, section 3.3).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

/// A scope that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no scope `{0}`")]
pub struct UnknownScope(pub String);

impl Scopes {
    /// No scope.
    pub const NONE: Self = Self(0);

    /// Every scope there is.
    #[must_use]
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Whether it is good for something: named itself, or covered by `events:admin`.
    #[must_use]
    pub const fn allow(self, scope: Scope) -> bool {
        self.0 & (scope.bit() | Scope::Admin.bit()) != 0
    }

    /// Whether every scope of `other` is in this set, or covered by `events:admin`.
    #[must_use]
    pub const fn cover(self, other: Self) -> bool {
        self.0 & Scope::Admin.bit() != 0 || self.0 & other.0 == other.0
    }

    /// What both sets are good for; `events:admin` takes in all that the other one has.
    #[must_use]
    pub const fn within(self, other: Self) -> Self {
        if other.cover(self) {
            self
        } else if self.cover(other) {
            other
        } else {
            Self(self.0 & other.0)
        }
    }

    /// Scopes by name, with spaces between them; `None` if there is none, or one that does not exist.
    #[must_use]
    pub fn some(names: &str) -> Option<Self> {
        names.parse().ok().filter(|scopes: &Self| !scopes.is_empty())
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl std::str::FromStr for Scopes {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        text.split_ascii_whitespace()
            .map(|name| {
                Scope::ALL
                    .into_iter()
                    .find(|scope| scope.as_str() == name)
                    .ok_or_else(|| UnknownScope(name.to_owned()))
            })
            .collect()
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = Scope::ALL.into_iter().filter(|scope| self.0 & scope.bit() != 0);
        for (index, scope) in held.enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scopes({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_a_client_needs_no_escape() {
        let longest = "a".repeat(100);
        for id in ["a", "Shop-1.example_2", "...", &longest] {
            assert!(Client::is_id(id), "{id}");
        }
        let too_long = "a".repeat(101);
        for wrong in ["", ".", "..", "a b", "a:b", "a/b", "ä", "a%20", &too_long] {
            assert!(!Client::is_id(wrong), "{wrong}");
        }
    }
}
