//! What a handle has been told of others' changes, and not passed on yet.

use std::sync::{Mutex, MutexGuard};

use esl_core::{OrganizationId, storage::Change};
use tokio::sync::Notify;

use crate::id::Id16;

/// Changes on their way to whoever waits for them.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Each once, so that nobody needs to listen.
    untold: Mutex<Vec<Change>>,
    news: Notify,
}

impl Changes {
    pub(crate) fn tell(&self, change: Change) {
        let mut untold = self.untold();
        if !untold.contains(&change) {
            untold.push(change);
        }
        drop(untold);
        self.news.notify_one();
    }

    /// Waits until there is something to say. Dropped, it has taken nothing.
    pub(crate) async fn next(&self) -> Vec<Change> {
        loop {
            let untold = std::mem::take(&mut *self.untold());
            if !untold.is_empty() {
                return untold;
            }
            self.news.notified().await;
        }
    }

    fn untold(&self) -> MutexGuard<'_, Vec<Change>> {
        self.untold.lock().expect("no code panics while it holds this lock")
    }
}

/// What others are told through a row of `changes`. (Intake rows speak for themselves.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    Subscriptions(OrganizationId),
    Lanes,
    Tenancy,
    Replays,
    Erased(OrganizationId),
    Schedule,
}

impl News {
    /// The columns `kind` and `organization`. Numbers are never given anew; the functions write 1 and 2, too.
    pub(crate) fn columns(self) -> (i16, Option<Id16>) {
        match self {
            Self::Subscriptions(organization) => (1, Some(organization.into())),
            Self::Lanes => (2, None),
            Self::Tenancy => (3, None),
            Self::Replays => (4, None),
            Self::Erased(organization) => (5, Some(organization.into())),
            Self::Schedule => (6, None),
        }
    }
}
