//! Storage in memory, shared by as many engines as are given it.
//!
//! The model that other adapters are compared with: plain maps behind one lock, and nothing clever.
//! What a method promises stands at its trait, in [`storage`](crate::storage).

mod changes;
mod commit;
mod entities;
mod feed;
mod lanes;
mod records;
mod removal;
mod replays;
mod rows;
mod schedule;
mod subscriptions;
mod tenancy;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use self::{
    changes::{HandleId, Listeners},
    rows::{Intake, LaneRow, OrganizationRow, TokenRow, WorkerRow},
};
use crate::{
    Action, Actor, AuditEntry, AuditNumber, BlobKey, Client, Clock, EventId, InstallationId,
    LaneId, LinkKey, OrganizationId, Replay, ReplayNumber, Seq, SubscriptionId, SystemClock,
    Timestamp, WorkerId,
    storage::{FAN_OUT_ABOVE, StorageError, StorageErrorKind, StorageTime, Worker},
};

/// Storage in memory, for tests, for trying things out, and for events that may die with the
/// process.
///
/// A clone is another **handle** on the same storage, as a second process would have on a database:
/// give each engine its own. What is changed through one handle is news to the others
/// ([`changed`](crate::storage::Lanes::changed)), and not to itself.
///
/// ```
/// use esl_core::{MemoryStorage, storage::Tenancy};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let storage = MemoryStorage::new();
/// let same = storage.clone();
/// assert!(same.organizations().await?.is_empty());
/// # Ok::<(), esl_core::storage::StorageError>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct MemoryStorage {
    state: Arc<Mutex<State>>,
    handle: HandleId,
    /// Told when there is something to say to this handle.
    news: Arc<tokio::sync::Notify>,
}

impl MemoryStorage {
    /// An empty storage that goes by the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock::new()))
    }

    /// An empty storage that goes by this clock.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self::handle_on(Arc::new(Mutex::new(State::new(clock))))
    }

    /// For tests: an event that goes to more lanes than this is fanned out, where otherwise it is
    /// [`FAN_OUT_ABOVE`]. Holds for every handle.
    #[doc(hidden)]
    #[must_use]
    pub fn fanning_out_above(self, lanes: usize) -> Self {
        self.state().fan_out_above = lanes;
        self
    }

    fn handle_on(state: Arc<Mutex<State>>) -> Self {
        let news = Arc::default();
        let handle = lock(&state).listeners.add(Arc::clone(&news));
        Self { state, handle, news }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for MemoryStorage {
    fn clone(&self) -> Self {
        Self::handle_on(Arc::clone(&self.state))
    }
}

impl Drop for MemoryStorage {
    fn drop(&mut self) {
        self.state().listeners.remove(self.handle);
    }
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("MemoryStorage")
            .field("organizations", &state.organizations.len())
            .field("events", &state.events_by_id.len())
            .field("lanes", &state.lanes.len())
            .finish_non_exhaustive()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no code panics while it holds this lock")
}

/// Everything that is stored.
struct State {
    time: StorageTime,
    organizations: BTreeMap<OrganizationId, OrganizationRow>,
    /// Those that were deleted, and not made anew.
    deleted_organizations: BTreeSet<OrganizationId>,
    /// Organizations in the order of their creation.
    organization_order: Vec<OrganizationId>,
    clients: BTreeMap<String, Client>,
    tokens: BTreeMap<[u8; 32], TokenRow>,
    /// An event's id is its own over all organizations.
    events_by_id: BTreeMap<(OrganizationId, EventId), Seq>,
    /// Subscriptions with their lanes and deliveries; deleted ones stay.
    lanes: BTreeMap<LaneId, LaneRow>,
    lanes_by_subscription: BTreeMap<SubscriptionId, LaneId>,
    last_lane: u64,
    installation: Option<InstallationId>,
    link_keys: Vec<(LinkKey, Timestamp)>,
    /// The blobs that the events of deleted organizations named.
    freed_blobs: Vec<BlobKey>,
    /// How many slices of removing there were.
    removals: usize,
    intake: Intake,
    schedule: schedule::ScheduleRows,
    /// By its name, the cursors of each feed that has begun.
    feeds: BTreeMap<String, BTreeMap<OrganizationId, Seq>>,
    replays: BTreeMap<ReplayNumber, Replay>,
    workers: BTreeMap<WorkerId, WorkerRow>,
    /// Who leads in which duty, as long as that worker's epoch runs.
    leaders: BTreeMap<&'static str, Worker>,
    last_epoch: u64,
    fan_out_above: usize,
    listeners: Listeners,
    audit: Vec<AuditEntry>,
    last_audit: u64,
}

impl State {
    fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            time: StorageTime::new(clock),
            organizations: BTreeMap::new(),
            deleted_organizations: BTreeSet::new(),
            organization_order: Vec::new(),
            clients: BTreeMap::new(),
            tokens: BTreeMap::new(),
            events_by_id: BTreeMap::new(),
            lanes: BTreeMap::new(),
            lanes_by_subscription: BTreeMap::new(),
            last_lane: 0,
            installation: None,
            link_keys: Vec::new(),
            freed_blobs: Vec::new(),
            removals: 0,
            intake: Intake::default(),
            schedule: schedule::ScheduleRows::default(),
            feeds: BTreeMap::new(),
            replays: BTreeMap::new(),
            workers: BTreeMap::new(),
            leaders: BTreeMap::new(),
            last_epoch: 0,
            fan_out_above: FAN_OUT_ABOVE,
            listeners: Listeners::default(),
            audit: Vec::new(),
            last_audit: 0,
        }
    }

    fn now(&self) -> Timestamp {
        self.time.now()
    }

    /// Notes in the audit trail what is about to be committed.
    fn note(
        &mut self,
        organization: OrganizationId,
        by: &Actor,
        action: Action,
        subject: &dyn fmt::Display,
        fields: &[&str],
    ) {
        self.last_audit += 1;
        self.audit.push(AuditEntry {
            number: AuditNumber::new(self.last_audit),
            organization,
            at: self.now(),
            actor: by.clone(),
            action,
            subject: subject.to_string(),
            fields: fields.iter().map(|field| (*field).to_owned()).collect(),
        });
    }
}

const fn not_found(operation: &'static str) -> StorageError {
    StorageError::new(StorageErrorKind::NotFound, operation)
}

const fn conflict(operation: &'static str) -> StorageError {
    StorageError::new(StorageErrorKind::Conflict, operation)
}
