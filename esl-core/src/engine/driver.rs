//! What the engine's tasks share, and how a change of the lanes turns into work.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    ids::Ids,
    inbox::Inbox,
    lanes::{Calls, Lanes, Now, Sending},
    publish::Sealer,
    routes::RouteIndex,
    send,
    target::{Defaults, Target},
    usage::Usages,
};
use crate::{
    BlobStore, Chance, Clock, Draw, EventId, Monotonic, OrganizationId, Plan, SealedEvent,
    Subscription, Tiers, Timestamp, Transport, Wake, data_ref,
    link::{Links, link_expiry},
    relinked,
    storage::{Storage, StorageError, StorageTime, Tenure},
};

/// So many publishes may wait for their commits; more wait for room.
const PUBLISHES_MAX: usize = 8192;

/// Everything that the engine's tasks share.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) wake: Arc<dyn Wake>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) chance: Arc<dyn Chance>,
    pub(crate) time: StorageTime,
    pub(crate) ids: Ids,
    pub(crate) defaults: Defaults,
    pub(crate) links: Links,
    pub(crate) blobs: Option<Arc<dyn BlobStore>>,
    pub(crate) sealer: Sealer,
    /// Room for publishes that wait for their commits.
    pub(crate) room: Semaphore,
    /// Whether events are recorded and sent.
    pub(crate) is_enabled: bool,
    #[cfg(feature = "entities")]
    pub(crate) kinds: crate::Kinds,
    /// Lanes in a slice of a fan-out.
    pub(crate) slice: usize,
    pub(crate) routes: RouteIndex,
    pub(crate) tiers: Tiers,
    pub(crate) usages: Usages,
    pub(crate) inbox: Inbox,
    lanes: Mutex<Lanes>,
    /// The claimer has something to do.
    pub(crate) claims: Notify,
    /// There may be intake rows.
    pub(crate) intake: Notify,
    /// Something was scheduled.
    pub(crate) schedule: Notify,
    /// Something is to be done about an entity at a time.
    #[cfg(feature = "entities")]
    pub(crate) due: Notify,
    #[cfg(feature = "entities")]
    pub(crate) writers: super::entities::Writers,
    #[cfg(feature = "entities")]
    pub(crate) recent: super::entities::Recent,
    /// Lanes may have work that nobody told of.
    pub(crate) poll: Notify,
    /// Engines may have come or gone.
    pub(crate) engines: Notify,
    /// The engines that share the lanes have changed.
    pub(crate) handover: Notify,
    /// There are events to be expanded.
    pub(crate) fan_outs: Notify,
    /// There are replays to go on with.
    pub(crate) replays: Notify,
    /// There are chores that somebody waits for.
    pub(crate) chores: Notify,
    /// More could be sent at once than is.
    pub(crate) crowded: Notify,
    /// Events were committed.
    pub(crate) committed: Notify,
    trouble_told_at: Mutex<Option<Monotonic>>,
    damage_told_at: Mutex<HashMap<OrganizationId, Monotonic>>,
    /// The sends under way.
    pub(crate) sends: TaskTracker,
    /// How many of them have not come to run yet.
    starting: AtomicUsize,
    /// How many commits have begun.
    pub(crate) commits: AtomicU64,
    /// Ends what is under way.
    pub(crate) abort: CancellationToken,
    /// What the engine enlists for.
    pub(crate) tenure: Tenure,
    is_leading: AtomicBool,
    /// A task of the engine has panicked.
    pub(crate) has_panicked: AtomicBool,
}

/// The parts that a [`Driver`] is built from.
pub(crate) struct Parts {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) wake: Arc<dyn Wake>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) chance: Arc<dyn Chance>,
    pub(crate) defaults: Defaults,
    pub(crate) links: Links,
    pub(crate) blobs: Option<Arc<dyn BlobStore>>,
    pub(crate) sealer: Sealer,
    pub(crate) is_enabled: bool,
    #[cfg(feature = "entities")]
    pub(crate) kinds: crate::Kinds,
    pub(crate) slice: usize,
    pub(crate) tiers: Tiers,
    pub(crate) tenure: Tenure,
    pub(crate) lanes: Lanes,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let time = StorageTime::new(Arc::clone(&parts.clock));
        let ids = Ids::new(Arc::clone(&parts.clock), Arc::clone(&parts.chance));
        Self {
            storage: parts.storage,
            transport: parts.transport,
            wake: parts.wake,
            clock: parts.clock,
            chance: parts.chance,
            time,
            ids,
            defaults: parts.defaults,
            links: parts.links,
            blobs: parts.blobs,
            sealer: parts.sealer,
            room: Semaphore::new(PUBLISHES_MAX),
            is_enabled: parts.is_enabled,
            #[cfg(feature = "entities")]
            kinds: parts.kinds,
            slice: parts.slice,
            routes: RouteIndex::default(),
            tiers: parts.tiers,
            usages: Usages::default(),
            inbox: Inbox::default(),
            lanes: Mutex::new(parts.lanes),
            claims: Notify::new(),
            intake: Notify::new(),
            schedule: Notify::new(),
            #[cfg(feature = "entities")]
            due: Notify::new(),
            #[cfg(feature = "entities")]
            writers: super::entities::Writers::default(),
            #[cfg(feature = "entities")]
            recent: super::entities::Recent::default(),
            poll: Notify::new(),
            engines: Notify::new(),
            handover: Notify::new(),
            fan_outs: Notify::new(),
            replays: Notify::new(),
            chores: Notify::new(),
            crowded: Notify::new(),
            committed: Notify::new(),
            trouble_told_at: Mutex::default(),
            damage_told_at: Mutex::default(),
            sends: TaskTracker::new(),
            starting: AtomicUsize::new(0),
            commits: AtomicU64::new(0),
            abort: CancellationToken::new(),
            tenure: parts.tenure,
            is_leading: AtomicBool::new(false),
            has_panicked: AtomicBool::new(false),
        }
    }

    /// The time, as storage has it: retries are due by it.
    pub(crate) fn now(&self) -> Now {
        Now { utc: self.time.now(), monotonic: self.clock.monotonic() }
    }

    /// Whether the chores are this engine's, as of the last renewal. Others that think the same do no harm.
    pub(crate) fn leads(&self) -> bool {
        self.is_leading.load(Ordering::Relaxed)
    }

    /// Says whether it leads from now on; whether it did before.
    pub(crate) fn lead(&self, leads: bool) -> bool {
        self.is_leading.swap(leads, Ordering::Relaxed)
    }

    pub(crate) fn draw(&self) -> Draw {
        Draw(self.chance.bits())
    }

    /// Logs that our own side cannot send, at most once in a while for all lanes together.
    pub(crate) fn tell_of_trouble(&self, detail: &str, now: Monotonic) {
        let mut told_at = self.trouble_told_at.lock().unwrap_or_else(PoisonError::into_inner);
        if told_at.is_none_or(|told_at| now >= told_at + TROUBLE_TOLD_EVERY) {
            *told_at = Some(now);
            tracing::error!(detail, "deliveries cannot be sent; they wait, and are tried again");
        }
    }

    /// Logs that what an organization subscribes to cannot be read, at most once in a while.
    pub(crate) fn tell_of_damage(&self, organization: OrganizationId, error: &StorageError) {
        let now = self.clock.monotonic();
        let mut told_at = self.damage_told_at.lock().unwrap_or_else(PoisonError::into_inner);
        told_at.retain(|_, told_at| now < *told_at + DAMAGE_TOLD_EVERY);
        if let Entry::Vacant(untold) = told_at.entry(organization) {
            untold.insert(now);
            tracing::error!(
                %organization,
                error = error as &dyn std::error::Error,
                "its events wait, and are tried again: what it subscribes to cannot be read"
            );
        }
    }

    pub(crate) fn target(&self, subscription: Subscription, plan: Option<Plan>) -> Arc<Target> {
        let retries_max = plan.map(|plan| self.tiers.allowance(&plan).retries);
        Arc::new(Target::new(subscription, &self.defaults, retries_max))
    }

    /// What goes out of an event at `now`: its envelope, with a link that lasts if it refers to a blob.
    pub(crate) fn outgoing(&self, event: &SealedEvent, now: Timestamp) -> Bytes {
        self.outgoing_body((event.organization, event.id), &event.body, event.timestamp, now)
    }

    pub(crate) fn outgoing_body(
        &self,
        (organization, event): (OrganizationId, EventId),
        body: &Bytes,
        sealed_at: Timestamp,
        now: Timestamp,
    ) -> Bytes {
        if data_ref(body).is_none() {
            return body.clone();
        }
        let expires_at = link_expiry(sealed_at, now);
        relinked(body, self.links.make(organization, event, expires_at), expires_at)
    }

    /// The lanes, to read or to change in a way that brings no work about.
    pub(crate) fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().expect("no code panics while it holds this lock")
    }

    /// Changes the lanes, and begins the sends that the change has made possible.
    pub(crate) fn update<R>(self: &Arc<Self>, change: impl FnOnce(&mut Lanes) -> R) -> R {
        let now = self.clock.monotonic();
        let mut sends: Vec<Sending> = Vec::new();
        let (result, calls) = {
            let mut lanes = self.lanes();
            let result = change(&mut lanes);
            while let Some(send) = lanes.next(now) {
                sends.push(send);
            }
            (result, lanes.calls())
        };
        for send in sends {
            self.begin(send);
        }
        self.answer(calls);
        result
    }

    /// A change of an organization's subscriptions has failed. If it may have been committed all the
    /// same, nobody else will tell of it: what is known of them is read anew.
    pub(crate) fn follow_failure(
        self: &Arc<Self>,
        organization: OrganizationId,
        error: &StorageError,
    ) {
        if error.is_transient() {
            self.routes.forget(organization);
            self.usages.forget(organization);
            self.update(|lanes| lanes.take_again(organization));
        }
    }

    /// Begins a send, behind those that have begun before.
    pub(crate) fn begin(self: &Arc<Self>, send: Sending) {
        self.starting.fetch_add(1, Ordering::Relaxed);
        let driver = Arc::clone(self);
        self.sends.spawn(self.watched(async move {
            driver.starting.fetch_sub(1, Ordering::Relaxed);
            send::run(driver, send).await;
        }));
    }

    /// A task of the engine, which is noted when it panics.
    pub(crate) fn watched(
        self: &Arc<Self>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let watch = Watch(Arc::clone(self));
        async move {
            let _watch = watch;
            task.await;
        }
    }

    /// Whether sends have begun that have not come to run yet.
    pub(crate) fn is_starting(&self) -> bool {
        self.starting.load(Ordering::Relaxed) > 0
    }

    /// Wakes the tasks that the lanes have something for.
    pub(crate) fn answer(&self, calls: Calls) {
        if calls.claims {
            self.claims.notify_one();
        }
        if calls.crowded {
            self.crowded.notify_one();
        }
    }
}

/// Notes when the task that holds it panics: tokio ends that task alone, and whoever waits for what it did
/// would wait for ever.
struct Watch(Arc<Driver>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.has_panicked.store(true, Ordering::Relaxed);
        }
    }
}

/// Trouble of our own is logged so often, while it lasts.
const TROUBLE_TOLD_EVERY: Duration = Duration::from_secs(60);

/// Damage of one organization is logged so often: only a person can mend it.
const DAMAGE_TOLD_EVERY: Duration = Duration::from_secs(60 * 60);
