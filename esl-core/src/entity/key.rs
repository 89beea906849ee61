//! What names an entity: its kind, and its id among those of that kind.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use crate::EventType;

/// The name of a kind of entities (`person`, `availability.profile`): what stands before `.created`,
/// `.updated` and `.deleted` in the types of their events.
///
/// ```
/// use esl_core::KindName;
/// let kind: KindName = "availability.profile".parse()?;
/// assert_eq!(kind.event_type("created").as_str(), "availability.profile.created");
/// assert!("Person".parse::<KindName>().is_err());
/// # Ok::<(), esl_core::KindNameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KindName(Arc<str>);

/// Why a text is not a [`KindName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected 1 to 7 segments of a-z, 0-9 and _, joined by dots, {} characters at most, not \
     beginning with `system`, for instance person",
    KindName::LENGTH_MAX
)]
pub struct KindNameError;

impl KindName {
    /// The longest name, in characters.
    pub const LENGTH_MAX: usize = 64;
    /// The longest name of an action, in characters.
    const ACTION_MAX: usize = EventType::LENGTH_MAX - Self::LENGTH_MAX - 1;

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What one of them is called: the last segment.
    #[must_use]
    pub fn noun(&self) -> &str {
        self.0.rsplit('.').next().unwrap_or(&self.0)
    }

    /// The type of the event that says what happened to one of them.
    ///
    /// # Panics
    /// If the action is not a segment of `[a-z0-9_]`, or has more than 63 characters.
    #[must_use]
    pub fn event_type(&self, action: &str) -> EventType {
        assert!(action.len() <= Self::ACTION_MAX, "an action is a short word");
        format!("{self}.{action}").parse().expect("an action is a segment of an event type")
    }
}

impl FromStr for KindName {
    type Err = KindNameError;

    fn from_str(text: &str) -> Result<Self, KindNameError> {
        // What makes a type of it must be one, and none of ESL's own.
        let event_type = format!("{text}.x").parse::<EventType>();
        let is_right = event_type.is_ok_and(|event_type| !event_type.is_system());
        if is_right && text.len() <= Self::LENGTH_MAX {
            Ok(Self(text.into()))
        } else {
            Err(KindNameError)
        }
    }
}

/// It is in the order of its text, and so is found by that.
impl Borrow<str> for KindName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KindName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KindName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What names an entity among those of its kind, in its organization: 1 to 100 characters of `A-Z`, `a-z`,
/// `0-9`, `_` and `-`.
///
/// Those that ESL makes are the kind's prefix and a ULID (`person_01J…`); others are their owner's to choose
/// (`user_42`).
///
/// ```
/// use esl_core::EntityId;
/// assert!("user_42".parse::<EntityId>().is_ok());
/// assert!("../user".parse::<EntityId>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityId(Arc<str>);

/// Why a text is not an [`EntityId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to {} characters of A-Z, a-z, 0-9, _ and -", EntityId::LENGTH_MAX)]
pub struct EntityIdError;

impl EntityId {
    /// The longest one, in characters.
    pub const LENGTH_MAX: usize = 100;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EntityId {
    type Err = EntityIdError;

    fn from_str(text: &str) -> Result<Self, EntityIdError> {
        let is_right = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if (1..=Self::LENGTH_MAX).contains(&text.len()) && text.bytes().all(is_right) {
            Ok(Self(text.into()))
        } else {
            Err(EntityIdError)
        }
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An entity of an organization: its kind, and its id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityKey {
    /// Its kind.
    pub kind: KindName,
    /// Its id among those of its kind.
    pub id: EntityId,
}

impl EntityKey {
    /// The entity of a kind that has this id.
    #[must_use]
    pub const fn new(kind: KindName, id: EntityId) -> Self {
        Self { kind, id }
    }
}

impl fmt::Display for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_makes_event_types_and_is_none_of_our_own() {
        let longest = "k".repeat(KindName::LENGTH_MAX);
        for right in ["person", "a.b.c.d.e.f.g", "availability.profile", "systems", &longest] {
            let kind: KindName = right.parse().expect(right);
            assert_eq!(kind.event_type("created").as_str(), format!("{right}.created"));
        }
        let too_long = "k".repeat(KindName::LENGTH_MAX + 1);
        for wrong in ["", ".", "a..b", "a.", "A", "a-b", "a.b.c.d.e.f.g.h", "system", "system.x"] {
            assert!(wrong.parse::<KindName>().is_err(), "{wrong}");
        }
        assert!(too_long.parse::<KindName>().is_err());
    }

    #[test]
    fn an_id_is_safe_in_any_path() {
        let longest = "i".repeat(EntityId::LENGTH_MAX);
        for right in ["a", "user_42", "-", "person_01J00000000000000000000000", &longest] {
            assert!(right.parse::<EntityId>().is_ok(), "{right}");
        }
        let too_long = "i".repeat(EntityId::LENGTH_MAX + 1);
        for wrong in ["", "a b", "a/b", "..", "a.b", "ä", "a\0", "a%20", &too_long] {
            assert!(wrong.parse::<EntityId>().is_err(), "{wrong}");
        }
    }
}
