//! What a handle has been told of others' changes, and not passed on yet.

use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering},
};

use esl_core::{OrganizationId, storage::Change};
use rusqlite::{Row, types::Type};
use tokio::sync::Notify;

use crate::storage::rows::damaged;

/// Changes on their way from the writer to whoever waits for them.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Each once, so that nobody needs to listen.
    untold: Mutex<Vec<Change>>,
    news: Notify,
    is_listening: AtomicBool,
}

impl Changes {
    /// Whether anybody ever wanted to know. Until then the writer need not look.
    pub(crate) fn is_listening(&self) -> bool {
        self.is_listening.load(Ordering::Relaxed)
    }

    /// Says that somebody wants to know; true if nobody did before.
    pub(crate) fn listen(&self) -> bool {
        !self.is_listening.swap(true, Ordering::Relaxed)
    }

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

/// What others are told through a row of `esl_changes`. (Intake rows speak for themselves.)
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
    /// The columns `kind` and `organization`. Numbers are never given anew.
    pub(crate) fn columns(self) -> (u8, Option<[u8; 16]>) {
        match self {
            Self::Subscriptions(organization) => (1, Some(organization.to_bytes())),
            Self::Lanes => (2, None),
            Self::Tenancy => (3, None),
            Self::Replays => (4, None),
            Self::Erased(organization) => (5, Some(organization.to_bytes())),
            Self::Schedule => (6, None),
        }
    }
}

/// Reads [`News::columns`], beginning at column `first`.
pub(crate) fn change(row: &Row<'_>, first: usize) -> rusqlite::Result<Change> {
    match row.get(first)? {
        1 => Ok(Change::Subscriptions(OrganizationId::from_bytes(row.get(first + 1)?))),
        2 => Ok(Change::Lanes),
        3 => Ok(Change::Tenancy),
        4 => Ok(Change::Replays),
        5 => Ok(Change::Erased(OrganizationId::from_bytes(row.get(first + 1)?))),
        6 => Ok(Change::Schedule),
        kind => Err(damaged(first, Type::Integer, format!("{kind} is not a kind of change"))),
    }
}
