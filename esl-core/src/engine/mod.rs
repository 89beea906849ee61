//! The engine: what an embedder holds, and what runs behind it.
//!
//! Data flows one way, and each step has a file:
//!
//! ```text
//! publish ──▶ inbox ──▶ commit ──▶ lanes ──▶ send ──┐
//! (seal,        ▲         │          ▲              │
//!  size, route) │      storage ──▶ claim            │
//!               └──────────── settlements ◀─────────┘
//! ```

mod blobs;
mod breadth;
mod builder;
mod claim;
mod commit;
mod driver;
#[cfg(feature = "entities")]
mod entities;
mod fan_out;
mod headers;
mod history;
mod ids;
mod inbox;
mod intake;
mod lane;
mod lanes;
mod maintenance;
mod notices;
mod organizations;
mod pace;
mod peers;
mod publish;
mod publisher;
mod replays;
mod retention;
mod role;
mod routes;
mod schedule;
mod send;
mod status;
mod subscriptions;
mod target;
mod tenure;
mod turn;
mod usage;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::sync::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[cfg(feature = "entities")]
pub use self::entities::{Entities, Outcome, Shown, ShownPage, Transaction, Written};
pub use self::{
    blobs::delete_erased,
    builder::EslBuilder,
    maintenance::{Announced, Maintenance, MaintenanceError},
    publish::{PublishError, Published},
    publisher::Publisher,
    role::Role,
    status::Status,
    usage::Standing,
};
use self::{driver::Driver, lanes::Now, publish::Manner};
use crate::{
    Actor, CallbackPolicy, DeliveryId, EventTypeEntry, Monotonic, NewEvent, OrganizationId, Origin,
    Prepared, RequestId, SubscriptionId, Timestamp,
    storage::{Idempotency, Storage, StorageError, StorageErrorKind, Worker},
};

/// A running engine: publishes events and delivers them to whoever subscribed.
///
/// A cheap handle: clones are the same engine. It stops when [`shutdown`](Self::shutdown) is called;
/// when the last handle is dropped it stops, too, but leaves what is under way unsettled, to be
/// delivered again.
#[derive(Debug, Clone)]
pub struct Esl {
    engine: Arc<Engine>,
    /// Whose changes they are that are made by this handle.
    actor: Arc<Actor>,
}

#[derive(Debug)]
struct Engine {
    driver: Arc<Driver>,
    options: Options,
    /// Ends the tasks that bring work about.
    stop: CancellationToken,
    /// Those tasks.
    tasks: TaskTracker,
    /// The committer, which goes on until all is settled.
    committer: TaskTracker,
    is_shut_down: Mutex<bool>,
}

/// What only the handle itself goes by.
#[derive(Debug)]
struct Options {
    callbacks: CallbackPolicy,
    grace: Duration,
    role: Role,
    retention: Option<Duration>,
    event_types: Vec<EventTypeEntry>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop.cancel();
        self.driver.abort.cancel();
        self.driver.inbox.close();
    }
}

impl Esl {
    /// Starts to put an engine together over a storage.
    pub fn builder(storage: impl Storage) -> EslBuilder {
        EslBuilder::new(Arc::new(storage))
    }

    /// As [`builder`](Self::builder), over a storage that is shared already, or known only when the program
    /// runs.
    pub fn builder_on(storage: Arc<dyn Storage>) -> EslBuilder {
        EslBuilder::new(storage)
    }

    /// For a process without an engine: prepares and publishes only. An engine over the same
    /// storage, in whatever process, delivers.
    pub fn publisher(storage: impl Storage) -> Publisher {
        Publisher::new(Arc::new(storage))
    }

    async fn start(driver: Driver, options: Options) -> Result<Self, StorageError> {
        let driver = Arc::new(driver);
        let id = driver.ids.worker();
        tenure::enlist(&driver, id).await?;
        blobs::read_keys(&driver).await?;
        let (stop, tasks, committer) =
            (CancellationToken::new(), TaskTracker::new(), TaskTracker::new());
        committer.spawn(driver.watched(commit::run(Arc::clone(&driver))));
        tasks.spawn(driver.watched(claim::run(Arc::clone(&driver), stop.clone())));
        tasks.spawn(driver.watched(tenure::keep(Arc::clone(&driver), id, stop.clone())));
        tasks.spawn(driver.watched(tenure::listen(Arc::clone(&driver), stop.clone())));
        if let Some(store) = &driver.blobs {
            tasks.spawn(driver.watched(blobs::run(
                Arc::clone(&driver),
                Arc::clone(store),
                stop.clone(),
            )));
        }
        if options.role.works() {
            Self::work(&driver, &options, &tasks, &stop);
        }
        let is_shut_down = Mutex::new(false);
        let engine = Engine { driver, options, stop, tasks, committer, is_shut_down };
        Ok(Self { engine: Arc::new(engine), actor: Arc::new(Actor::APPLICATION) })
    }

    /// Spawns what an engine does that not only takes what is published.
    fn work(
        driver: &Arc<Driver>,
        options: &Options,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        tasks.spawn(driver.watched(breadth::run(Arc::clone(driver), stop.clone())));
        #[cfg(feature = "entities")]
        tasks.spawn(driver.watched(entities::run(Arc::clone(driver), stop.clone())));
        if driver.is_enabled {
            tasks.spawn(driver.watched(intake::run(Arc::clone(driver), stop.clone())));
            tasks.spawn(driver.watched(replays::run(Arc::clone(driver), stop.clone())));
            tasks.spawn(driver.watched(schedule::run(Arc::clone(driver), stop.clone())));
        }
        tasks.spawn(driver.watched(fan_out::run(Arc::clone(driver), stop.clone())));
        tasks.spawn(driver.watched(tenure::hand_over(Arc::clone(driver), stop.clone())));
        tasks.spawn(driver.watched(tenure::look_round(Arc::clone(driver), stop.clone())));
        tasks.spawn(driver.watched(tenure::sweep(Arc::clone(driver), stop.clone())));
        let retention = retention::run(Arc::clone(driver), options.retention, stop.clone());
        tasks.spawn(driver.watched(retention));
    }

    /// The same engine; what is changed by this handle is that actor's in the
    /// [audit trail](crate::storage::Records::audit). The handle that a builder gives is the
    /// application's.
    ///
    /// ```no_run
    /// # use esl_core::{Actor, Esl, OrganizationId, SubscriptionId, storage::StorageError};
    /// # async fn example(esl: Esl, acme: OrganizationId, id: SubscriptionId)
    /// # -> Result<(), StorageError> {
    /// esl.by(Actor::application("user 42")).delete_subscription(acme, id).await
    /// # }
    /// ```
    #[must_use]
    pub fn by(&self, actor: Actor) -> Self {
        Self { engine: Arc::clone(&self.engine), actor: Arc::new(actor) }
    }

    fn demand_enabled(&self) -> Result<(), PublishError> {
        if self.engine.driver.is_enabled { Ok(()) } else { Err(PublishError::Disabled) }
    }

    fn demand_recording(&self, operation: &'static str) -> Result<(), StorageError> {
        self.demand_enabled().map_err(|disabled| {
            StorageError::new(StorageErrorKind::Unavailable, operation).with_source(disabled)
        })
    }

    /// Runs work to its end, even if its caller is gone: between a change and what the engine makes
    /// of it nothing may stop.
    async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        match self.engine.tasks.spawn(work).await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// What this engine does, of several.
    #[must_use]
    pub fn role(&self) -> Role {
        self.engine.options.role
    }

    /// Whether events are recorded and sent; see [`EslBuilder::enabled`].
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.engine.driver.is_enabled
    }

    /// Whether all of the engine is at work. After a panic in it, of which only a bug or a part of the
    /// embedder's can be the cause, it is not, and does not come to be: what is published may be refused,
    /// or not sent. Nothing is lost, and a process that begins anew goes on.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        !self.engine.driver.has_panicked.load(Ordering::Relaxed)
    }

    /// Publishes an event. When this returns, it is durable and on its way.
    ///
    /// It goes to every active subscription whose creation had returned before this was called; a
    /// paused one gets it when it is resumed.
    ///
    /// # Errors
    /// See [`PublishError`]. After [`PublishError::Storage`] the event may have been committed.
    ///
    /// # Cancellation
    /// A dropped call may or may not have published.
    pub async fn publish(&self, event: NewEvent) -> Result<Published, PublishError> {
        let organization = event.organization;
        let published = self.publish_batch(organization, vec![event], None).await?;
        Ok(*published.first().expect("one event, one answer"))
    }

    /// Publishes events of one organization, all or none, with consecutive seqs in their order.
    ///
    /// With an [`Idempotency`] key, a repetition within 24 h publishes nothing and gives the first
    /// answer. No events are published as none.
    ///
    /// # Errors
    /// See [`PublishError`]; an event of another organization is
    /// [`PublishError::UnknownOrganization`].
    pub async fn publish_batch(
        &self,
        organization: OrganizationId,
        events: Vec<NewEvent>,
        idempotency: Option<Idempotency>,
    ) -> Result<Vec<Published>, PublishError> {
        self.demand_enabled()?;
        let driver = &self.engine.driver;
        if events.is_empty() {
            return Ok(Vec::new());
        }
        if events.iter().any(|event| event.organization != organization) {
            return Err(PublishError::UnknownOrganization);
        }
        let _room = driver.room.acquire().await.expect("it is never closed");
        let manner = Manner { idempotency: idempotency.as_ref(), ..Manner::PLAIN };
        let committed = publish::seal_and_publish(driver, organization, &events, manner).await?;
        Ok(committed.events.iter().map(Published::from).collect())
    }

    /// Seals an event that the caller's own transaction will insert (`publish_in` of the storage).
    ///
    /// # Errors
    /// As [`publish`](Self::publish), but nothing is stored yet.
    pub async fn prepare(&self, event: NewEvent) -> Result<Prepared, PublishError> {
        self.demand_enabled()?;
        let driver = &self.engine.driver;
        Ok(Prepared::new(driver.sealer.seal(&event, &driver.ids, None).await?))
    }

    /// Publishes a `system.ping` to one subscription alone, whatever its patterns are. A paused one
    /// gets it when it is resumed.
    ///
    /// # Errors
    /// [`PublishError::UnknownSubscription`] if there is none of that id; otherwise as for
    /// [`publish`](Self::publish).
    pub async fn ping(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
        origin: Option<Arc<Origin>>,
    ) -> Result<(Published, DeliveryId), PublishError> {
        self.demand_enabled()?;
        let _room = self.engine.driver.room.acquire().await.expect("it is never closed");
        publish::ping(&self.engine.driver, (organization, id), origin).await
    }

    /// The storage, for reads and for organizations, clients and tokens.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.engine.driver.storage
    }

    /// Which callback URLs may be subscribed.
    #[must_use]
    pub fn callback_policy(&self) -> &CallbackPolicy {
        &self.engine.options.callbacks
    }

    /// The event types that are described, by name: those of the kinds of entities, the
    /// engine's own, and what [`EslBuilder::event_types`] has added.
    #[must_use]
    pub fn event_types(&self) -> &[EventTypeEntry] {
        &self.engine.options.event_types
    }

    /// How the API is reached from outside, without a slash at the end.
    #[must_use]
    pub fn public_url(&self) -> &str {
        self.engine.driver.links.base()
    }

    /// Whether a header, whatever its case, begins like ESL's own (`X-Sapien-…`), and so cannot be a
    /// subscriber's.
    #[must_use]
    pub fn is_own_header(&self, name: &str) -> bool {
        self.engine.driver.defaults.headers.is_ours(&name.to_ascii_lowercase())
    }

    /// The engine's time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let Now { utc, .. } = self.engine.driver.now();
        utc
    }

    /// The engine's time, as far as nobody sets it: for measuring.
    #[must_use]
    pub fn monotonic(&self) -> Monotonic {
        self.engine.driver.now().monotonic
    }

    /// A fresh id for a request.
    #[must_use]
    pub fn request_id(&self) -> RequestId {
        self.engine.driver.ids.request()
    }

    /// In whose name this engine does what one of the engines over a storage does for all, such as
    /// passing on a [feed](crate::storage::Feed): its worker, if its epoch lasts for so long from now on.
    /// `None` while another engine is to do it.
    #[must_use]
    pub fn leads(&self, at_least: Duration) -> Option<Worker> {
        if !self.engine.driver.leads() {
            return None;
        }
        let now = self.monotonic();
        let lanes = self.engine.driver.lanes();
        lanes.worker().filter(|worker| {
            let left = lanes.time_left(worker, now);
            !left.is_zero() && left >= at_least
        })
    }

    /// Waits until this engine has committed events since the last call; sometimes it has not. For one
    /// task at a time.
    ///
    /// # Cancellation
    /// A dropped call loses nothing.
    pub async fn committed(&self) {
        self.engine.driver.committed.notified().await;
    }

    /// How many sends are under way.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.engine.driver.lanes().in_flight()
    }

    /// How many sends are over whose outcome is not committed yet.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.engine.driver.lanes().unsettled()
    }

    /// Stops: begins no more sends, lets those under way end within the grace, commits what they
    /// came to, and frees the lanes. Publishes are accepted until the last commit begins.
    ///
    /// Calling it twice is fine; the second call waits for the first.
    pub async fn shutdown(&self) {
        let engine = &self.engine;
        let mut is_shut_down = engine.is_shut_down.lock().await;
        if *is_shut_down {
            return;
        }
        let driver = &engine.driver;
        driver.lanes().stop();
        driver.sends.close();
        let deadline = driver.clock.monotonic() + engine.options.grace;
        // Both arms may be dropped: they hold nothing.
        tokio::select! {
            biased;
            () = driver.sends.wait() => {}
            () = driver.clock.sleep_until(deadline) => {
                tracing::warn!(sends = self.in_flight(), "sends cut off; they are made again");
            }
        }
        driver.abort.cancel();
        driver.sends.wait().await;
        engine.stop.cancel();
        engine.tasks.close();
        engine.tasks.wait().await;
        driver.inbox.close();
        engine.committer.close();
        engine.committer.wait().await;
        let worker = driver.lanes().worker();
        if let Some(worker) = worker
            && let Err(error) = driver.storage.resign(&worker).await
        {
            tracing::error!(error = &error as &dyn std::error::Error, "epoch not ended");
        }
        *is_shut_down = true;
    }
}
