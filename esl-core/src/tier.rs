//! How much an organization may use: tiers (SPEC.md, "Rate Limiting").

use std::{fmt, str::FromStr};

use crate::Timestamp;

/// A class of organizations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tier {
    /// `free`
    Free,
    /// `standard`
    Standard,
    /// `enterprise`
    Enterprise,
}

impl Tier {
    /// All of them, the smallest first.
    pub const ALL: [Self; 3] = [Self::Free, Self::Standard, Self::Enterprise];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Standard => "standard",
            Self::Enterprise => "enterprise",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A tier that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no tier `{0}`; expected free, standard or enterprise")]
pub struct UnknownTier(pub String);

impl FromStr for Tier {
    type Err = UnknownTier;

    fn from_str(text: &str) -> Result<Self, UnknownTier> {
        let tier = Self::ALL.into_iter().find(|tier| tier.as_str() == text);
        tier.ok_or_else(|| UnknownTier(text.to_owned()))
    }
}

/// How much there may be of something. The smaller one is less; nothing is more than `Unlimited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// So many at most.
    AtMost(u64),
    /// As many as there are.
    Unlimited,
}

impl Limit {
    /// The number; `None` if there is none.
    #[must_use]
    pub const fn get(self) -> Option<u64> {
        match self {
            Self::AtMost(count) => Some(count),
            Self::Unlimited => None,
        }
    }

    /// Whether there may be so many.
    #[must_use]
    pub fn allows(self, count: u64) -> bool {
        self.get().is_none_or(|limit| count <= limit)
    }
}

/// As configuration has it: a number or `unlimited`.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(count) => count.fmt(f),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}

/// What is no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a number or `unlimited`")]
pub struct NoLimit;

impl FromStr for Limit {
    type Err = NoLimit;

    fn from_str(text: &str) -> Result<Self, NoLimit> {
        match text {
            "unlimited" => Ok(Self::Unlimited),
            _ => text.parse().map(Self::AtMost).map_err(|_| NoLimit),
        }
    }
}

/// What an organization may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// How many subscriptions it may have.
    pub subscriptions: Limit,
    /// How many events it may publish in an hour of the clock (UTC).
    pub events_per_hour: Limit,
    /// How often a delivery is tried again.
    pub retries: u32,
}

/// What each tier allows. The default is as documented (SPEC.md, "Rate Limiting").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiers {
    /// [`Tier::Free`]
    pub free: Allowance,
    /// [`Tier::Standard`]
    pub standard: Allowance,
    /// [`Tier::Enterprise`]
    pub enterprise: Allowance,
}

impl Default for Tiers {
    fn default() -> Self {
        let allowance = |subscriptions, events_per_hour, retries| Allowance {
            subscriptions,
            events_per_hour: Limit::AtMost(events_per_hour),
            retries,
        };
        Self {
            free: allowance(Limit::AtMost(5), 1_000, 3),
            standard: allowance(Limit::AtMost(25), 10_000, 5),
            enterprise: allowance(Limit::Unlimited, 100_000, 10),
        }
    }
}

impl Tiers {
    /// What a plan allows.
    ///
    /// ```
    /// use esl_core::{Limit, Plan, Tier, Tiers};
    ///
    /// let mut plan = Plan::new(Tier::Free);
    /// plan.subscriptions = Some(Limit::AtMost(7));
    /// let allowance = Tiers::default().allowance(&plan);
    /// assert_eq!(allowance.subscriptions, Limit::AtMost(7));
    /// assert_eq!(allowance.events_per_hour, Limit::AtMost(1_000));
    /// ```
    #[must_use]
    pub fn allowance(&self, plan: &Plan) -> Allowance {
        let tier = match plan.tier {
            Tier::Free => self.free,
            Tier::Standard => self.standard,
            Tier::Enterprise => self.enterprise,
        };
        Allowance {
            subscriptions: plan.subscriptions.unwrap_or(tier.subscriptions),
            events_per_hour: plan.events_per_hour.unwrap_or(tier.events_per_hour),
            retries: plan.retries.unwrap_or(tier.retries),
        }
    }
}

impl Tiers {
    /// How many subscriptions an organization may have; without a plan, any number.
    #[must_use]
    pub fn subscriptions_max(&self, plan: Option<Plan>) -> Limit {
        plan.map_or(Limit::Unlimited, |plan| self.allowance(&plan).subscriptions)
    }
}

/// What was agreed with an organization: a tier, and what differs from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Its tier.
    pub tier: Tier,
    /// Instead of the tier's.
    pub subscriptions: Option<Limit>,
    /// Instead of the tier's.
    pub events_per_hour: Option<Limit>,
    /// Instead of the tier's.
    pub retries: Option<u32>,
}

impl Plan {
    /// Which of its members another plan, or none, has otherwise, for the audit trail.
    #[must_use]
    pub fn changed(before: Option<Self>, after: Option<Self>) -> Vec<&'static str> {
        let has = |plan: Option<Self>| {
            plan.map(|Self { tier, subscriptions, events_per_hour, retries }| {
                (Some(tier), subscriptions, events_per_hour, retries)
            })
            .unwrap_or_default()
        };
        let (before, after) = (has(before), has(after));
        let members = [
            ("tier", before.0 != after.0),
            ("subscriptions", before.1 != after.1),
            ("events_per_hour", before.2 != after.2),
            ("retries", before.3 != after.3),
        ];
        members.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// A tier as it is.
    #[must_use]
    pub const fn new(tier: Tier) -> Self {
        Self { tier, subscriptions: None, events_per_hour: None, retries: None }
    }
}

/// What an organization has used of its hour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Usage {
    /// Which hour it is.
    pub hour: Hour,
    /// How many events it has published in it.
    pub events: u64,
}

impl Usage {
    /// What is used at `now`: nothing if the hour is over. An hour does not come again when the clock
    /// is set back; but one that is further away than the next was counted by a clock that was wrong.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Self {
        let hour = Hour::of(now);
        let counts = self.hour >= hour && self.hour <= hour.next();
        if counts { self } else { Self { hour, events: 0 } }
    }

    /// With so many more events, which thresholds of a limit it has come to that it had not yet.
    #[must_use]
    pub fn crossed(self, more: u64, limit: Limit) -> Crossed {
        let is_crossed = |threshold: Threshold| {
            let at = threshold.of(limit);
            at.is_some_and(|at| self.events < at && self.events.saturating_add(more) >= at)
        };
        Crossed {
            warning: is_crossed(Threshold::Warning),
            exceeded: is_crossed(Threshold::Exceeded),
        }
    }
}

/// A whole hour of the clock (UTC).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hour(i64);

impl Hour {
    const MILLISECONDS: i64 = 3_600_000;

    /// The hour that a time is in.
    #[must_use]
    pub const fn of(time: Timestamp) -> Self {
        Self(time.as_millis().div_euclid(Self::MILLISECONDS))
    }

    /// The one after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// When it is over.
    #[must_use]
    pub const fn end(self) -> Timestamp {
        Timestamp::from_millis((self.0.saturating_add(1)).saturating_mul(Self::MILLISECONDS))
    }

    /// Its number, for storage.
    #[must_use]
    pub const fn number(self) -> i64 {
        self.0
    }

    /// The hour of that number.
    #[must_use]
    pub const fn from_number(number: i64) -> Self {
        Self(number)
    }
}

/// Where an organization is told how much it has used (SPEC.md, "System Events").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Threshold {
    /// At 80 % of the limit.
    Warning,
    /// At the limit.
    Exceeded,
}

impl Threshold {
    /// At how many events of a limit; `None` if there is nothing to come to.
    #[must_use]
    pub const fn of(self, limit: Limit) -> Option<u64> {
        match (self, limit) {
            (_, Limit::Unlimited | Limit::AtMost(0)) => None,
            // Without a product that could be too large.
            (Self::Warning, Limit::AtMost(limit)) => Some(limit - limit / 5),
            (Self::Exceeded, Limit::AtMost(limit)) => Some(limit),
        }
    }
}

/// Thresholds that were come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Crossed {
    /// [`Threshold::Warning`]
    pub warning: bool,
    /// [`Threshold::Exceeded`]
    pub exceeded: bool,
}

impl Crossed {
    /// Whether it was none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        !self.warning && !self.exceeded
    }

    /// Whether it was this one.
    #[must_use]
    pub const fn has(self, threshold: Threshold) -> bool {
        match threshold {
            Threshold::Warning => self.warning,
            Threshold::Exceeded => self.exceeded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tiers_are_as_documented() {
        let allowances = Tier::ALL.map(|tier| {
            let Allowance { subscriptions, events_per_hour, retries } =
                Tiers::default().allowance(&Plan::new(tier));
            (subscriptions.to_string(), events_per_hour.to_string(), retries)
        });
        let expected = [("5", "1000", 3), ("25", "10000", 5), ("unlimited", "100000", 10)]
            .map(|(subscriptions, events, retries)| (subscriptions.into(), events.into(), retries));
        assert_eq!(allowances, expected);
    }

    #[test]
    fn limits_and_tiers_are_read_as_they_are_printed() {
        for limit in [Limit::AtMost(0), Limit::AtMost(u64::MAX), Limit::Unlimited] {
            assert_eq!(limit.to_string().parse(), Ok(limit));
        }
        for tier in Tier::ALL {
            assert_eq!(tier.to_string().parse(), Ok(tier));
        }
        for text in ["", "-1", "Unlimited", "1e3", "18446744073709551616"] {
            assert_eq!(text.parse::<Limit>(), Err(NoLimit), "{text}");
        }
    }

    #[test]
    fn each_threshold_is_crossed_by_the_event_that_comes_to_it() {
        let used = |events| Usage { hour: Hour::default(), events };
        let crossed = |before, more, limit| {
            let crossed = used(before).crossed(more, Limit::AtMost(limit));
            (crossed.warning, crossed.exceeded)
        };
        assert_eq!(crossed(798, 1, 1000), (false, false));
        assert_eq!(crossed(799, 1, 1000), (true, false));
        assert_eq!(crossed(800, 199, 1000), (false, false));
        assert_eq!(crossed(999, 1, 1000), (false, true));
        // What may not be refused can go beyond.
        assert_eq!(crossed(1000, 5, 1000), (false, false));
        assert_eq!(crossed(0, 1000, 1000), (true, true));
        assert_eq!(crossed(0, 0, 1000), (false, false));
        // Small limits are rounded so that the warning never comes after the other.
        assert_eq!(crossed(0, 1, 1), (true, true));
        assert_eq!(crossed(2, 1, 4), (false, false));
        assert_eq!(crossed(3, 1, 4), (true, true));
        assert_eq!(crossed(0, 1, 0), (false, false));
        assert!(used(0).crossed(u64::MAX, Limit::Unlimited).is_empty());
    }

    #[test]
    fn an_hour_begins_with_nothing_used_and_does_not_come_again() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let used = Usage { hour: Hour::of(at(3600)), events: 7 };
        assert_eq!(used.at(at(7199)), used);
        assert_eq!(used.hour.end(), at(7200));
        assert_eq!(used.at(at(7200)), Usage { hour: Hour::of(at(7200)), events: 0 });
        assert_eq!(used.at(at(0)), used);
        let ahead = Usage { hour: Hour::of(at(7200)), events: 7 };
        assert_eq!(ahead.at(at(3599)), Usage { hour: Hour::of(at(0)), events: 0 });
    }
}
