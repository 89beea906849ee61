//! Changing a secret without an event that its receiver cannot verify.
//!
//! For the time of a grace, deliveries are signed with both: the documented header goes on with the
//! old secret, a second one beside it has the new, and the Standard Webhooks header carries both.

use std::time::Duration;

use super::Subscription;
use crate::{Secret, Timestamp};

/// The secret before the last rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetiringSecret {
    /// The old secret.
    pub secret: Secret,
    /// From then on nothing is signed with it.
    pub until: Timestamp,
}

impl RetiringSecret {
    /// Whether it still signs.
    #[must_use]
    pub fn is_in_use(&self, now: Timestamp) -> bool {
        now < self.until
    }
}

/// A change of the secret.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum SecretChange {
    /// Signs with `to` from now on, and with the old one, too, for the grace: 7 days at most. Without
    /// a grace, the old one is gone at once.
    Rotate {
        /// The new secret.
        to: Secret,
        /// For how long the old one signs, too.
        grace: Duration,
    },
    /// Ends the grace now. Nothing happens if there is none.
    Finish,
}

impl SecretChange {
    /// The longest grace; a longer one is this long.
    pub const GRACE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
    /// The grace that the API gives where the caller says nothing.
    pub const GRACE_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);
}

/// The grace of an earlier rotation is not over. Finish it first: with a third secret, receivers
/// that still have the first one could verify nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rotation of the secret is under way")]
pub struct RotationUnderWay;

impl Subscription {
    /// The old secret, while it still signs.
    #[must_use]
    pub fn retiring_at(&self, now: Timestamp) -> Option<&RetiringSecret> {
        self.retiring.as_ref().filter(|retiring| retiring.is_in_use(now))
    }

    pub(super) fn change_secret(
        &mut self,
        change: SecretChange,
        now: Timestamp,
    ) -> Result<(), RotationUnderWay> {
        match change {
            SecretChange::Rotate { .. } if self.retiring_at(now).is_some() => Err(RotationUnderWay),
            SecretChange::Rotate { to, grace } => {
                let grace = grace.min(SecretChange::GRACE_MAX);
                let old = std::mem::replace(&mut self.secret, to);
                self.retiring =
                    (!grace.is_zero()).then(|| RetiringSecret { secret: old, until: now + grace });
                Ok(())
            }
            SecretChange::Finish => {
                self.retiring = None;
                Ok(())
            }
        }
    }
}
