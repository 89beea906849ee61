//! Event types (`person.updated`), and the patterns that subscriptions match them with.

use std::{fmt, str::FromStr, sync::Arc};

/// The name of a kind of event: 2 to 8 segments of `[a-z0-9_]`, joined by dots, 128 characters at most.
///
/// ```
/// use esl_core::EventType;
/// let event_type: EventType = "availability.profile.created".parse()?;
/// assert_eq!(event_type.as_str(), "availability.profile.created");
/// assert!("Person.Updated".parse::<EventType>().is_err());
/// # Ok::<(), esl_core::EventTypeError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(Arc<str>);

/// Why a text is not an event type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected 2 to 8 segments of a-z, 0-9 and _, joined by dots, 128 characters at most, \
     for instance person.updated"
)]
pub struct EventTypeError;

impl EventType {
    /// The longest name, in characters.
    pub const LENGTH_MAX: usize = 128;

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is one of ESL's own (`system.…`), which nobody else may publish.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0.starts_with("system.")
    }

    /// The names of the levels above it, the nearest last: `a.b.c` is below `a` and `a.b`.
    #[cfg(feature = "engine")]
    pub(crate) fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('.').map(|(dot, _)| &self.0[..dot])
    }
}

impl FromStr for EventType {
    type Err = EventTypeError;

    fn from_str(text: &str) -> Result<Self, EventTypeError> {
        let segments = text.split('.').count();
        if text.len() <= Self::LENGTH_MAX && (2..=8).contains(&segments) && are_segments(text) {
            Ok(Self(text.into()))
        } else {
            Err(EventTypeError)
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which event types a subscription wants.
///
/// Three forms, and nothing else: a type itself (`person.updated`); everything below a name at any
/// depth (`availability.*`); everything, `system.*` included (`*`).
///
/// ```
/// use esl_core::{EventPattern, EventType};
/// let pattern: EventPattern = "availability.*".parse()?;
/// let deep: EventType = "availability.profile.created".parse()?;
/// assert!(pattern.matches(&deep));
/// assert!("person.*.created".parse::<EventPattern>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EventPattern {
    /// `*`
    All,
    /// `x.*`: holds the `x`.
    Below(Arc<str>),
    /// One type.
    Exactly(EventType),
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an event type (person.updated), everything below a name (person.*), or *")]
pub struct EventPatternError;

impl EventPattern {
    /// Whether events of this type are wanted.
    #[must_use]
    pub fn matches(&self, event_type: &EventType) -> bool {
        match self {
            Self::All => true,
            Self::Below(name) => {
                event_type.as_str().strip_prefix(&**name).is_some_and(|rest| rest.starts_with('.'))
            }
            Self::Exactly(wanted) => wanted == event_type,
        }
    }
}

impl FromStr for EventPattern {
    type Err = EventPatternError;

    fn from_str(text: &str) -> Result<Self, EventPatternError> {
        if text == "*" {
            return Ok(Self::All);
        }
        if let Some(name) = text.strip_suffix(".*") {
            // Below the eighth segment, or past the last character, no type can be.
            let segments = name.split('.').count();
            let fits = segments < 8 && name.len() + 2 <= EventType::LENGTH_MAX;
            return if fits && are_segments(name) {
                Ok(Self::Below(name.into()))
            } else {
                Err(EventPatternError)
            };
        }
        text.parse().map(Self::Exactly).map_err(|_| EventPatternError)
    }
}

impl fmt::Display for EventPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Below(name) => write!(f, "{name}.*"),
            Self::Exactly(event_type) => fmt::Display::fmt(event_type, f),
        }
    }
}

impl fmt::Debug for EventPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn are_segments(text: &str) -> bool {
    text.split('.').all(|segment| {
        !segment.is_empty()
            && segment.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_two_to_eight_plain_segments() {
        let longest = format!("a.{}", "b".repeat(126));
        for right in ["a.b", "person.updated", "a.b.c.d.e.f.g.h", "a_1._", &longest] {
            assert!(right.parse::<EventType>().is_ok(), "{right}");
        }
        let too_long = format!("a.{}", "b".repeat(127));
        for wrong in [
            "",
            "a",
            ".",
            "a.",
            ".a",
            "a..b",
            "A.b",
            "a-b.c",
            "a.b ",
            "a.*",
            "é.b",
            "a.b.c.d.e.f.g.h.i",
            &too_long,
        ] {
            assert!(wrong.parse::<EventType>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pattern_matches_below_its_name_at_any_depth_and_nothing_beside_it() {
        for (pattern, matching, other) in [
            ("*", &["a.b", "system.x"][..], &[][..]),
            ("a.*", &["a.b", "a.b.c"], &["ab.c", "b.a"]),
            ("a.b.*", &["a.b.c", "a.b.c.d"], &["a.b", "a.bc.d", "a.c.b"]),
            ("a.b", &["a.b"], &["a.b.c", "a.bb"]),
        ] {
            let parsed: EventPattern = pattern.parse().expect(pattern);
            assert_eq!(parsed.to_string(), pattern);
            for text in matching {
                assert!(parsed.matches(&text.parse().expect(text)), "{pattern} {text}");
            }
            for text in other {
                assert!(!parsed.matches(&text.parse().expect(text)), "{pattern} {text}");
            }
        }
        for wrong in ["", "**", "*.a", "a", "a*", "a.*.b", ".*", "a.b.c.d.e.f.g.h.*", "A.*"] {
            assert!(wrong.parse::<EventPattern>().is_err(), "{wrong}");
        }
    }
}
