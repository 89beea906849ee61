//! What one engine of several does.

use crate::storage::Tenure;

/// What an engine does, where several share a storage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// It takes what is published, and delivers.
    #[default]
    All,
    /// It takes what is published, and leaves all else to others: it delivers nothing, and does no chores.
    /// A storage that serves one engine at a time has no use for one.
    Api,
    /// It delivers, as [`All`](Self::All) does. Nothing keeps it from taking what is published; whoever
    /// runs it serves no API.
    Worker,
}

impl Role {
    /// Whether it delivers, and does the chores.
    pub(super) const fn works(self) -> bool {
        match self {
            Self::All | Self::Worker => true,
            Self::Api => false,
        }
    }

    /// What it enlists for, if it can send or cannot.
    pub(super) const fn tenure(self, can_send: bool) -> Tenure {
        let leads = if self.works() { Some("chores") } else { None };
        Tenure { takes_lanes: self.works() && can_send, leads }
    }
}
