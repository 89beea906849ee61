//! Identifiers: a prefix that names the kind, and a [ULID](https://github.com/ulid/spec).
//!
//! Every kind is its own type, so that an organization cannot be passed where an event is
//! expected. ULIDs identify; they never order anything. Order is [`Seq`]'s.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ulid::Ulid;

/// Why a text is not an identifier of the expected kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected `{prefix}` followed by a ULID (26 characters of Crockford's base 32, upper case)"
)]
pub struct IdError {
    prefix: &'static str,
}

macro_rules! prefixed_ulid {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Ulid);

        impl $name {
            /// What every identifier of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            /// Gives a ULID this kind.
            #[must_use]
            pub const fn from_ulid(ulid: Ulid) -> Self {
                Self(ulid)
            }

            /// The ULID without its prefix.
            #[must_use]
            pub const fn as_ulid(&self) -> Ulid {
                self.0
            }

            /// The 16 bytes that storage keeps.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.to_bytes()
            }

            /// Reads back what [`to_bytes`](Self::to_bytes) gave.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Ulid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut buffer = [0; ulid::ULID_LEN];
                f.write_str($prefix)?;
                f.write_str(self.0.array_to_str(&mut buffer))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix($prefix)
                    .and_then(canonical_ulid)
                    .map(Self)
                    .ok_or(IdError { prefix: $prefix })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Only the spelling that we print ourselves: one event must not have two names.
fn canonical_ulid(text: &str) -> Option<Ulid> {
    let ulid = Ulid::from_string(text).ok()?;
    let mut buffer = [0; ulid::ULID_LEN];
    (ulid.array_to_str(&mut buffer) == text).then_some(ulid)
}

prefixed_ulid! {
    /// An event: `evt_01J…`. Within an organization, the same id is the same event, for ever.
    EventId, "evt_"
}
prefixed_ulid! {
    /// An organization, whose data and subscriptions nobody else reaches: `org_01J…`.
    OrganizationId, "org_"
}
prefixed_ulid! {
    /// A subscription: `sub_01J…`.
    SubscriptionId, "sub_"
}
prefixed_ulid! {
    /// A request to the API: `req_01J…`. It becomes the `correlation_id` of what it publishes.
    RequestId, "req_"
}
prefixed_ulid! {
    /// A replay: `rpl_01J…`.
    ReplayId, "rpl_"
}
prefixed_ulid! {
    /// A worker: one running engine.
    WorkerId, "wrk_"
}
prefixed_ulid! {
    /// An installation: one database, with whatever copies of it take its place.
    InstallationId, "ins_"
}
prefixed_ulid! {
    /// A delivery: one event on its way to one subscription, `dlv_01J…`.
    ///
    /// Nothing stores it. Its time part is the event's, and the other 80 bits are the event's
    /// [`Seq`] and the subscription's [`LaneId`], 40 bits each, so it is unique wherever lanes are
    /// and leads back to its rows without an index.
    DeliveryId, "dlv_"
}

impl DeliveryId {
    /// The delivery of `event`, which is number `seq` of its organization, on `lane`.
    #[must_use]
    pub fn new(event: EventId, seq: Seq, lane: LaneId) -> Self {
        let low = u128::from(seq.0) << 40 | u128::from(lane.0);
        Self(Ulid::from_parts(event.as_ulid().timestamp_ms(), low))
    }

    /// The event's number in its organization.
    #[must_use]
    pub fn seq(&self) -> Seq {
        Seq(u64::try_from(self.0.random() >> 40).expect("40 of 80 bits are left"))
    }

    /// The lane of the subscription.
    #[must_use]
    pub fn lane(&self) -> LaneId {
        let low = self.0.random() & u128::from(LaneId::MAX.0);
        LaneId(u64::try_from(low).expect("40 bits are left"))
    }

    /// Whether this can be a delivery of `event`: their time parts agree.
    ///
    /// Storage finds rows by `seq` and `lane`; an id that was made up fails here.
    #[must_use]
    pub fn is_of(&self, event: EventId) -> bool {
        self.0.timestamp_ms() == event.as_ulid().timestamp_ms()
    }
}

/// The place of an event among its organization's events: 1, 2, 3 … without gaps.
///
/// Cursors, replay and every order go by it. At most 2⁴⁰ − 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(u64);

impl Seq {
    /// Before the first event.
    pub const ZERO: Self = Self(0);
    /// The last one there can be.
    pub const MAX: Self = Self((1 << 40) - 1);

    /// Wraps a number.
    ///
    /// # Panics
    /// Above [`Seq::MAX`], which an organization reaches after 34 years at 1 000 events a second.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        assert!(number <= Self::MAX.0, "a seq has 40 bits");
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The seq that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::new(self.0 + 1)
    }
}

/// The number of a subscription's lane: 1, 2, 3 … in the order of creation, over all organizations.
///
/// Numbers are not used again after a deletion. At most 2⁴⁰ − 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(u64);

impl LaneId {
    /// The last one there can be.
    pub const MAX: Self = Self((1 << 40) - 1);

    /// Wraps a number.
    ///
    /// # Panics
    /// Above [`LaneId::MAX`].
    #[must_use]
    pub const fn new(number: u64) -> Self {
        assert!(number <= Self::MAX.0, "a lane has 40 bits");
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_only_in_the_spelling_it_is_printed_in() {
        let id = EventId::from_ulid(Ulid::from_parts(1_705_329_120_000, 42));
        let text = id.to_string();
        assert_eq!(text.parse::<EventId>(), Ok(id));
        for wrong in [
            "",
            "evt_",
            &text[4..],
            &text.to_lowercase(),
            &text.replace("evt_", "org_"),
            &format!("{text}0"),
            "evt_81ARZ3NDEKTSV4RRFFQ69G5FAV",
        ] {
            assert!(wrong.parse::<EventId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_delivery_id_leads_back_to_its_event_and_lane() {
        let event = EventId::from_ulid(Ulid::from_parts(1_705_329_120_000, u128::MAX >> 48));
        for (seq, lane) in [(1, 1), (77, 40_000), (Seq::MAX.get(), LaneId::MAX.get())] {
            let id = DeliveryId::new(event, Seq::new(seq), LaneId::new(lane));
            assert_eq!((id.seq().get(), id.lane().get()), (seq, lane));
            assert!(id.is_of(event));
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }
}
