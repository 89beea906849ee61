//! What a handle has been told of others' changes, and not passed on yet.

use std::{
    collections::HashSet,
    mem::take,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use esl_core::{LaneId, OrganizationId, storage::Change};
use tokio::sync::{Notify, SetOnce};
use tokio_postgres::Row;

use crate::{
    error::Damage,
    id::Id16,
    rows::{get, id},
};

/// Changes and hints on their way to whoever waits for them.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    untold: Mutex<HashSet<Change>>,
    news: Notify,
    /// Whether anybody wants to know: until then nothing is asked of the server.
    wanted: SetOnce<()>,
    hints: Mutex<Vec<LaneId>>,
    hinted: Notify,
    /// Whether somebody waits for hints, so that they need not come as changes.
    takes_hints: AtomicBool,
    /// The lanes that were taken by this handle. Some may be another's since; never is one of its own missing.
    own_lanes: Mutex<HashSet<LaneId>>,
    leads: AtomicBool,
}

impl Changes {
    pub(crate) fn tell(&self, change: Change) {
        lock(&self.untold).insert(change);
        self.news.notify_one();
    }

    /// Waits until there is something to say. Dropped, it has taken nothing.
    pub(crate) async fn next(&self) -> Vec<Change> {
        self.want();
        loop {
            let untold = take(&mut *lock(&self.untold));
            if !untold.is_empty() {
                return untold.into_iter().collect();
            }
            self.news.notified().await;
        }
    }

    /// Says that somebody wants to know of changes or hints.
    fn want(&self) {
        // The second one finds it said.
        _ = self.wanted.set(());
    }

    /// Comes back once somebody wants to know.
    pub(crate) async fn wanted(&self) {
        self.wanted.wait().await;
    }

    /// From now on lanes are named to whoever [waits for hints](Self::next_hints).
    pub(crate) fn take_hints(&self) {
        self.takes_hints.store(true, Ordering::Relaxed);
        self.want();
    }

    pub(crate) fn takes_hints(&self) -> bool {
        self.takes_hints.load(Ordering::Relaxed)
    }

    /// Passes on that others have something for these lanes.
    pub(crate) fn hint(&self, lanes: impl IntoIterator<Item = LaneId>) {
        if !self.takes_hints() {
            return self.tell(Change::Lanes);
        }
        let mut hints = lock(&self.hints);
        // Whoever does not listen finds the lanes when it looks round.
        hints.extend(lanes);
        hints.truncate(HINTS_MAX);
        drop(hints);
        self.hinted.notify_one();
    }

    pub(crate) async fn next_hints(&self) -> Vec<LaneId> {
        loop {
            let hints = take(&mut *lock(&self.hints));
            if !hints.is_empty() {
                return hints;
            }
            self.hinted.notified().await;
        }
    }

    /// Notes lanes that this handle has taken.
    pub(crate) fn own(&self, lanes: impl IntoIterator<Item = LaneId>) {
        lock(&self.own_lanes).extend(lanes);
    }

    /// Notes that this handle has let go of lanes.
    pub(crate) fn disown(&self, lanes: &[LaneId]) {
        let mut own = lock(&self.own_lanes);
        for lane in lanes {
            own.remove(lane);
        }
    }

    /// Notes that an epoch has begun or ended: what was owned under the former one is free.
    pub(crate) fn own_nothing(&self) {
        lock(&self.own_lanes).clear();
        self.lead(false);
    }

    /// Those of the lanes that others have to be told of.
    pub(crate) fn foreign(&self, lanes: impl IntoIterator<Item = LaneId>) -> Vec<LaneId> {
        let own = lock(&self.own_lanes);
        lanes.into_iter().filter(|lane| !own.contains(lane)).collect()
    }

    /// Whether this handle's engine does the chores: then it looks often at what nobody tells of.
    pub(crate) fn lead(&self, leads: bool) {
        self.leads.store(leads, Ordering::Relaxed);
    }

    pub(crate) fn leads(&self) -> bool {
        self.leads.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds this lock")
}

/// Lanes that are named to somebody who does not listen. More of them are found by looking round.
const HINTS_MAX: usize = 65_536;

/// What others are told through a row of `changes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    Subscriptions(OrganizationId),
    Lanes,
    Tenancy,
    Replays,
    Erased(OrganizationId),
    Schedule,
    /// Rows of the intake can be moved that could not before. (New ones speak for themselves.)
    Intake,
}

impl News {
    /// The columns `kind` and `organization`. Numbers are never given anew; the functions write 1, 2 and 6, too;
    /// 8, which is that there is something to be fanned out; and 9, that an engine has come or gone.
    pub(crate) fn columns(self) -> (i16, Option<Id16>) {
        match self {
            Self::Subscriptions(organization) => (1, Some(organization.into())),
            Self::Lanes => (2, None),
            Self::Tenancy => (3, None),
            Self::Replays => (4, None),
            Self::Erased(organization) => (5, Some(organization.into())),
            Self::Schedule => (6, None),
            Self::Intake => (7, None),
        }
    }
}

/// Reads [`News::columns`], beginning at column `first`; nothing if a newer build has written it, that says
/// something which this one does not know.
pub(crate) fn change(row: &Row, first: usize) -> Result<Option<Change>, Damage> {
    Ok(Some(match get::<i16>(row, first)? {
        1 => Change::Subscriptions(id(row, first + 1)?),
        2 => Change::Lanes,
        3 => Change::Tenancy,
        4 => Change::Replays,
        5 => Change::Erased(id(row, first + 1)?),
        6 => Change::Schedule,
        7 => Change::Intake,
        8 => Change::FanOuts,
        9 => Change::Engines,
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(numbers: &[u64]) -> Vec<LaneId> {
        numbers.iter().copied().map(LaneId::new).collect()
    }

    #[tokio::test]
    async fn lanes_are_named_to_whoever_asked_for_that_and_are_a_change_for_others() {
        let changes = Changes::default();
        changes.hint(lanes(&[1, 2]));
        assert_eq!(changes.next().await, [Change::Lanes]);
        changes.take_hints();
        changes.hint(lanes(&[3]));
        changes.hint(lanes(&[4]));
        assert_eq!(changes.next_hints().await, lanes(&[3, 4]));
        assert!(lock(&changes.untold).is_empty());
    }

    #[test]
    fn nobody_is_told_of_lanes_that_are_ones_own() {
        let changes = Changes::default();
        changes.own(lanes(&[1, 2]));
        assert_eq!(changes.foreign(lanes(&[1, 2, 3])), lanes(&[3]));
        changes.own_nothing();
        assert_eq!(changes.foreign(lanes(&[1, 3])), lanes(&[1, 3]));
    }
}
