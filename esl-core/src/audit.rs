//! The audit trail: who changed what, when and from where.

use std::{fmt, net::IpAddr, str::FromStr};

use crate::{OrganizationId, Subscription, Timestamp};

/// Who changes something.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Actor {
    /// ESL itself, for a reason of its own: a receiver that is gone, say.
    System,
    /// Whoever runs the server, on its command line.
    Operator,
    /// The application that ESL is embedded in; for somebody, if it says for whom.
    Application {
        /// A name that the application knows.
        name: Option<String>,
    },
    /// A client, over the API.
    Client {
        /// Its `client_id`.
        id: String,
        /// Where its request came from, if that is known.
        address: Option<IpAddr>,
    },
}

impl Actor {
    /// The application that ESL is embedded in, for nobody in particular.
    pub const APPLICATION: Self = Self::Application { name: None };

    /// The application that ESL is embedded in, for somebody.
    ///
    /// ```
    /// use esl_core::Actor;
    ///
    /// assert_eq!(Actor::application("user 42").name(), Some("user 42"));
    /// ```
    #[must_use]
    pub fn application(name: impl Into<String>) -> Self {
        Self::Application { name: Some(name.into()) }
    }

    /// What kind of actor it is, as stored and shown.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Operator => "operator",
            Self::Application { .. } => "application",
            Self::Client { .. } => "client",
        }
    }

    /// Which one of its kind, if that is said.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::System | Self::Operator => None,
            Self::Application { name } => name.as_deref(),
            Self::Client { id, .. } => Some(id),
        }
    }

    /// Where from, if that is known.
    #[must_use]
    pub const fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Client { address, .. } => *address,
            Self::System | Self::Operator | Self::Application { .. } => None,
        }
    }

    /// Puts [`kind`](Self::kind), [`name`](Self::name) and [`address`](Self::address) together again;
    /// `None` if they are no actor's.
    #[must_use]
    pub fn from_parts(kind: &str, name: Option<String>, address: Option<IpAddr>) -> Option<Self> {
        match kind {
            "system" => Some(Self::System),
            "operator" => Some(Self::Operator),
            "application" => Some(Self::Application { name }),
            "client" => name.map(|id| Self::Client { id, address }),
            _ => None,
        }
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// An organization was made.
    OrganizationCreated,
    /// An organization was given another plan.
    OrganizationUpdated,
    /// An organization was deleted.
    OrganizationDeleted,
    /// A client was made.
    ClientCreated,
    /// A client was given another secret.
    ClientSecretRotated,
    /// A client was deleted.
    ClientDeleted,
    /// A subscription was made.
    SubscriptionCreated,
    /// Something else of a subscription than its secret was changed.
    SubscriptionUpdated,
    /// A subscription was given another secret.
    SubscriptionSecretRotated,
    /// A subscription's old secret does not sign any more.
    SubscriptionSecretRetired,
    /// A subscription was deleted.
    SubscriptionDeleted,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::OrganizationCreated,
        Self::OrganizationUpdated,
        Self::OrganizationDeleted,
        Self::ClientCreated,
        Self::ClientSecretRotated,
        Self::ClientDeleted,
        Self::SubscriptionCreated,
        Self::SubscriptionUpdated,
        Self::SubscriptionSecretRotated,
        Self::SubscriptionSecretRetired,
        Self::SubscriptionDeleted,
    ];

    /// Its stable spelling, as stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OrganizationCreated => "organization.created",
            Self::OrganizationUpdated => "organization.updated",
            Self::OrganizationDeleted => "organization.deleted",
            Self::ClientCreated => "client.created",
            Self::ClientSecretRotated => "client.secret_rotated",
            Self::ClientDeleted => "client.deleted",
            Self::SubscriptionCreated => "subscription.created",
            Self::SubscriptionUpdated => "subscription.updated",
            Self::SubscriptionSecretRotated => "subscription.secret_rotated",
            Self::SubscriptionSecretRetired => "subscription.secret_retired",
            Self::SubscriptionDeleted => "subscription.deleted",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not an action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no action `{0}`")]
pub struct UnknownAction(pub String);

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        let action = Self::ALL.into_iter().find(|action| action.as_str() == text);
        action.ok_or_else(|| UnknownAction(text.to_owned()))
    }
}

/// A change, as it is kept: names of what was changed, and no values, which may be secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Where it stands in the trail. Later ones have larger numbers.
    pub number: AuditNumber,
    /// Whose trail it is in.
    pub organization: OrganizationId,
    /// When it was committed, in storage's time.
    pub at: Timestamp,
    /// By whom.
    pub actor: Actor,
    /// What was done.
    pub action: Action,
    /// The id of what it was done to.
    pub subject: String,
    /// Which of its members were changed, where it is an update.
    pub fields: Vec<String>,
}

/// A place in the audit trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuditNumber(u64);

impl AuditNumber {
    /// The place of that number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Subscription {
    /// What an update that made `updated` of this one did, and to which members; `None` if nothing is
    /// different. A change of the secret is what counts, whatever else is changed with it.
    #[must_use]
    pub fn action_of(&self, updated: &Self) -> Option<(Action, Vec<&'static str>)> {
        let options = (&self.options, &updated.options);
        let members = [
            ("callback_url", self.callback_url != updated.callback_url),
            ("events", self.events != updated.events),
            ("active", self.active != updated.active),
            ("secret", self.secret != updated.secret || self.retiring != updated.retiring),
            ("description", options.0.description != options.1.description),
            ("metadata", options.0.metadata != options.1.metadata),
            ("headers", options.0.headers != options.1.headers),
            ("retry_schedule", options.0.retry_schedule != options.1.retry_schedule),
            ("timeout_ms", options.0.timeout != options.1.timeout),
            ("max_per_second", options.0.max_per_second != options.1.max_per_second),
            ("max_in_flight", options.0.max_in_flight != options.1.max_in_flight),
            ("ordering", options.0.order != options.1.order),
            ("on_exhausted", options.0.on_exhausted != options.1.on_exhausted),
        ];
        let changed: Vec<_> =
            members.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect();
        let action = if self.secret != updated.secret {
            Action::SubscriptionSecretRotated
        } else if self.retiring != updated.retiring {
            Action::SubscriptionSecretRetired
        } else {
            Action::SubscriptionUpdated
        };
        (!changed.is_empty()).then_some((action, changed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actors_and_actions_are_read_as_they_are_kept() {
        let address: Option<IpAddr> = Some([192, 0, 2, 1].into());
        for actor in [
            Actor::System,
            Actor::Operator,
            Actor::APPLICATION,
            Actor::application("user 42"),
            Actor::Client { id: "shop".into(), address },
            Actor::Client { id: "shop".into(), address: None },
        ] {
            let name = actor.name().map(str::to_owned);
            let read = Actor::from_parts(actor.kind(), name, actor.address());
            assert_eq!(read, Some(actor));
        }
        assert_eq!(Actor::from_parts("client", None, None), None);
        assert_eq!(Actor::from_parts("", None, None), None);
        for action in Action::ALL {
            assert_eq!(action.to_string().parse(), Ok(action));
        }
        assert!("subscription".parse::<Action>().is_err());
    }
}
