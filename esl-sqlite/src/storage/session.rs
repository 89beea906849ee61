//! What the writer knows while it writes: the connection, the time, and what it need not read again.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use esl_core::{
    Hour, LaneId, OrganizationId, Seq, Timestamp, Usage, WorkerId,
    storage::{Change, RouteVersion, StorageErrorKind, StorageTime, Worker},
};
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::oneshot;

use crate::storage::{
    changes::News,
    engine_lock::EngineLock,
    error::Stop,
    rows::{EventKey, lane_number, seq_number},
    secrets::Secrets,
    statements::Statements,
};

/// One transaction after another, as the work in them sees it.
pub(crate) struct Session<'c> {
    pub(crate) connection: &'c Connection,
    pub(crate) statements: Statements<'c>,
    /// The time of this transaction.
    pub(crate) now: Timestamp,
    pub(crate) secrets: Arc<Secrets>,
    /// Whether the key that secrets are sealed with is known to be in its table.
    pub(crate) is_key_noted: bool,
    /// Held while this handle has an engine.
    pub(crate) lock: EngineLock,
    /// What happens once this transaction is committed.
    pub(crate) effects: Effects,
    /// Names this handle in `esl_changes`.
    author: i64,
    /// The news of this transaction that was left for others.
    left: Vec<News>,
    organizations: HashMap<OrganizationId, Cached>,
    /// The organizations of this transaction whose rows are yet to be written.
    unwritten: Vec<OrganizationId>,
    live_lanes: HashMap<LaneId, bool>,
    /// Up to which lane expiry has looked.
    pub(crate) expiry_after: i64,
    /// Where removing stands.
    pub(crate) removal: crate::storage::removal::Progress,
    epoch: Option<Epoch>,
}

/// What happens once the transaction is committed, and only then.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) changes: Vec<Change>,
    pub(crate) releases_lock: bool,
    /// Who is told once nothing is in the WAL any more, of what was erased for instance.
    pub(crate) washed: Vec<oneshot::Sender<bool>>,
}

/// An organization, as far as commits need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OrganizationRow {
    pub(crate) key: i64,
    pub(crate) last_seq: Seq,
    pub(crate) route_version: RouteVersion,
    /// How many fan-outs are open.
    pub(crate) fan_outs: u32,
    /// Up to here deliveries were removed, and events, but for those that are still owed.
    pub(crate) removed_to: Seq,
    /// Of the last hour in which it published.
    pub(crate) usage: Usage,
}

struct Cached {
    row: OrganizationRow,
    is_written: bool,
}

/// The row of `esl_engine`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch {
    worker: Option<WorkerId>,
    number: u64,
    lapses_at: Timestamp,
}

impl<'c> Session<'c> {
    pub(crate) fn new(
        connection: &'c Connection,
        lock: EngineLock,
        author: i64,
        secrets: Arc<Secrets>,
    ) -> rusqlite::Result<Self> {
        Ok(Self {
            connection,
            statements: Statements::prepare(connection)?,
            now: Timestamp::EPOCH,
            secrets,
            is_key_noted: false,
            lock,
            effects: Effects::default(),
            author,
            left: Vec::new(),
            organizations: HashMap::new(),
            unwritten: Vec::new(),
            live_lanes: HashMap::new(),
            expiry_after: 0,
            removal: crate::storage::removal::Progress::default(),
            epoch: None,
        })
    }

    /// Begins a transaction, once nobody else writes.
    pub(crate) fn begin(&mut self, time: &StorageTime) -> rusqlite::Result<()> {
        self.statements.begin.execute([])?;
        self.now = time.now();
        self.left.clear();
        Ok(())
    }

    /// Drops what was read before: another connection may have changed it, or it was rolled back. Never
    /// in the middle of a transaction: what is unwritten of it would be lost.
    pub(crate) fn forget(&mut self) {
        self.organizations.clear();
        self.unwritten.clear();
        self.live_lanes.clear();
        self.epoch = None;
        self.is_key_noted = false;
    }

    /// Drops what is known of one organization, with what is unwritten of it: it is deleted. What other
    /// work of this transaction has made of the others stays.
    pub(crate) fn forget_organization(&mut self, id: OrganizationId) {
        self.organizations.remove(&id);
        self.unwritten.retain(|other| *other != id);
        self.live_lanes.clear();
    }

    /// An organization, with what this transaction has made of it.
    pub(crate) fn organization(
        &mut self,
        id: OrganizationId,
    ) -> rusqlite::Result<Option<OrganizationRow>> {
        if let Some(cached) = self.organizations.get(&id) {
            return Ok(Some(cached.row));
        }
        let row = read_organization(self.connection, id)?;
        if let Some(row) = row {
            if self.organizations.len() >= CACHED_MAX && self.unwritten.is_empty() {
                self.organizations.clear();
            }
            self.organizations.insert(id, Cached { row, is_written: true });
        }
        Ok(row)
    }

    /// Changes an organization that was read before; written when the transaction ends.
    pub(crate) fn change_organization(
        &mut self,
        id: OrganizationId,
        change: impl FnOnce(&mut OrganizationRow),
    ) {
        let cached = self.organizations.get_mut(&id).expect("callers have read the organization");
        change(&mut cached.row);
        if cached.is_written {
            cached.is_written = false;
            self.unwritten.push(id);
        }
    }

    /// Raises the version that routing goes by, of an organization that was read before.
    pub(crate) fn raise_route_version(&mut self, id: OrganizationId) {
        self.change_organization(id, |row| row.route_version.0 += 1);
    }

    /// Writes each changed organization once, as the last thing of the transaction.
    pub(crate) fn write_organizations(&mut self) -> rusqlite::Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let mut update = self.connection.prepare_cached(UPDATE_ORGANIZATION)?;
        for id in self.unwritten.drain(..) {
            let cached = self.organizations.get_mut(&id).expect("what is unwritten is cached");
            cached.is_written = true;
            let row = cached.row;
            update.execute((
                row.key,
                seq_number(row.last_seq),
                row.route_version.0.cast_signed(),
                row.fan_outs,
                seq_number(row.removed_to),
                row.usage.hour.number(),
                row.usage.events.cast_signed(),
            ))?;
        }
        Ok(())
    }

    /// Whether a lane's subscription exists and was not deleted.
    pub(crate) fn is_live(&mut self, lane: LaneId) -> rusqlite::Result<bool> {
        if self.live_lanes.len() >= CACHED_MAX {
            self.live_lanes.clear();
        }
        match self.live_lanes.entry(lane) {
            Entry::Occupied(known) => Ok(*known.get()),
            Entry::Vacant(unknown) => {
                let mut select = self.connection.prepare_cached(IS_LIVE)?;
                let is_live = select.exists([lane_number(lane)])?;
                Ok(*unknown.insert(is_live))
            }
        }
    }

    /// To be called by whoever deletes a subscription.
    pub(crate) fn forget_lane(&mut self, lane: LaneId) {
        self.live_lanes.remove(&lane);
    }

    /// Whose epoch it is.
    pub(crate) fn epoch(&mut self) -> rusqlite::Result<Epoch> {
        if let Some(epoch) = self.epoch {
            return Ok(epoch);
        }
        let epoch = Epoch::read(self.connection)?;
        self.epoch = Some(epoch);
        Ok(epoch)
    }

    /// Whether a worker's epoch runs.
    pub(crate) fn is_running(&mut self, worker: &Worker) -> rusqlite::Result<bool> {
        let now = self.now;
        Ok(self.epoch()?.is_running(worker, now))
    }

    /// Refuses a worker whose epoch is over.
    pub(crate) fn demand_running(
        &mut self,
        worker: &Worker,
        operation: &'static str,
    ) -> Result<(), Stop> {
        if self.is_running(worker)? {
            Ok(())
        } else {
            Err(Stop::refused(StorageErrorKind::Fenced, operation))
        }
    }

    pub(crate) fn write_epoch(&mut self, epoch: Epoch) -> rusqlite::Result<()> {
        self.connection.prepare_cached(UPDATE_EPOCH)?.execute((
            epoch.worker.map(WorkerId::to_bytes),
            epoch.number.cast_signed(),
            epoch.lapses_at.as_millis(),
        ))?;
        self.epoch = Some(epoch);
        Ok(())
    }

    /// Leaves news for the engine, unless it is this handle's, which learns of its own calls by
    /// itself.
    pub(crate) fn tell_others(&mut self, news: News) -> rusqlite::Result<()> {
        if self.lock.is_held() { Ok(()) } else { self.leave(news) }
    }

    /// Leaves news for whoever else listens.
    pub(crate) fn leave(&mut self, news: News) -> rusqlite::Result<()> {
        if self.left.contains(&news) {
            return Ok(());
        }
        self.left.push(news);
        let (kind, organization) = news.columns();
        // Each piece of news once, so that there are few rows when no engine ever comes. The newest
        // number counts: whoever has read an older one has yet to hear of this.
        let forget =
            "DELETE FROM esl_changes WHERE author = ?1 AND kind = ?2 AND organization IS ?3";
        let leave = "INSERT INTO esl_changes (author, kind, organization) VALUES (?1, ?2, ?3)";
        for sql in [forget, leave] {
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.execute((self.author, kind, organization))?;
        }
        Ok(())
    }
}

impl OrganizationRow {
    pub(crate) const fn event_key(&self, seq: Seq) -> EventKey {
        EventKey::new(self.key, seq)
    }
}

impl Epoch {
    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT worker, epoch, lapses_at FROM esl_engine WHERE one = 1";
        connection.prepare_cached(sql)?.query_row([], |row| {
            Ok(Self {
                worker: row.get::<_, Option<_>>(0)?.map(WorkerId::from_bytes),
                number: row.get::<_, i64>(1)?.cast_unsigned(),
                lapses_at: crate::storage::rows::time(row, 2)?,
            })
        })
    }

    /// The epoch after this one.
    pub(crate) const fn next(self, worker: WorkerId, lapses_at: Timestamp) -> Self {
        Self { worker: Some(worker), number: self.number + 1, lapses_at }
    }

    pub(crate) const fn renewed(self, lapses_at: Timestamp) -> Self {
        Self { lapses_at, ..self }
    }

    /// Nobody's; its number is not used again.
    pub(crate) const fn ended(self) -> Self {
        Self { worker: None, ..self }
    }

    pub(crate) const fn lapses_at(&self) -> Timestamp {
        self.lapses_at
    }

    /// Whether nobody has ended it.
    pub(crate) const fn is_open(&self) -> bool {
        self.worker.is_some()
    }

    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn is_of(&self, worker: &Worker) -> bool {
        self.worker == Some(worker.id) && self.number == worker.epoch
    }

    pub(crate) fn is_running(&self, worker: &Worker, now: Timestamp) -> bool {
        self.is_of(worker) && now < self.lapses_at
    }

    /// Whether some other worker than this one has it, and it runs.
    pub(crate) fn is_running_for_another(&self, worker: WorkerId, now: Timestamp) -> bool {
        self.worker.is_some_and(|holder| holder != worker) && now < self.lapses_at
    }
}

pub(crate) fn read_organization(
    connection: &Connection,
    id: OrganizationId,
) -> rusqlite::Result<Option<OrganizationRow>> {
    let sql = "SELECT key, last_seq, route_version, fan_outs, removed_to, used_hour, used_events
               FROM esl_organizations WHERE id = ?1";
    let mut select = connection.prepare_cached(sql)?;
    select
        .query_row([id.to_bytes()], |row| {
            Ok(OrganizationRow {
                key: row.get(0)?,
                last_seq: crate::storage::rows::seq(row, 1)?,
                route_version: RouteVersion(row.get::<_, i64>(2)?.cast_unsigned()),
                fan_outs: row.get(3)?,
                removed_to: crate::storage::rows::seq(row, 4)?,
                usage: Usage {
                    hour: Hour::from_number(row.get(5)?),
                    events: row.get::<_, i64>(6)?.cast_unsigned(),
                },
            })
        })
        .optional()
}

const UPDATE_ORGANIZATION: &str = "UPDATE esl_organizations
     SET last_seq = ?2, route_version = ?3, fan_outs = ?4, removed_to = ?5, used_hour = ?6,
         used_events = ?7
     WHERE key = ?1";
const UPDATE_EPOCH: &str =
    "UPDATE esl_engine SET worker = ?1, epoch = ?2, lapses_at = ?3 WHERE one = 1";
const IS_LIVE: &str = "
SELECT 1 FROM esl_subscriptions s JOIN esl_organizations o ON o.key = s.organization
WHERE s.lane = ?1 AND s.deleted_at IS NULL AND o.deleted_at IS NULL";

/// Entries in each cache, at which it begins anew: some megabytes.
const CACHED_MAX: usize = 1 << 16;
