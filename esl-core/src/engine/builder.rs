use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    Esl, Options,
    driver::{Driver, Parts},
    fan_out,
    headers::HeaderNames,
    lanes::{Lanes, Limits},
    publish::Sealer,
    role::Role,
    target::Defaults,
};
use crate::{
    Algorithm, BlobStore, CallbackPolicy, Chance, Clock, EventTypeEntry, InProcessWake,
    RetryPolicy, SubscriptionOptions, SystemChance, SystemClock, Tiers, Transport, Wake,
    event_types,
    link::Links,
    storage::{Storage, StorageError},
};

/// Puts an engine together. What is not named has a default fit for production.
#[derive(Debug)]
#[must_use = "nothing runs until `build`"]
pub struct EslBuilder {
    storage: Arc<dyn Storage>,
    transport: Option<Arc<dyn Transport>>,
    wake: Arc<dyn Wake>,
    blobs: Option<Arc<dyn BlobStore>>,
    public_url: String,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    retry: RetryPolicy,
    tiers: Tiers,
    algorithm: Algorithm,
    header_prefix: String,
    callbacks: CallbackPolicy,
    payload_bytes_max: usize,
    attempt_timeout: Duration,
    grace: Duration,
    in_flight_max: u32,
    slice: usize,
    role: Role,
    is_enabled: bool,
    #[cfg(feature = "entities")]
    kinds: crate::Kinds,
    event_types: Vec<EventTypeEntry>,
    retention: Option<Duration>,
}

impl EslBuilder {
    /// For how long events are kept where nothing else is said: 30 days.
    pub const RETENTION_DEFAULT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

    pub(super) fn new(storage: Arc<dyn Storage>) -> Self {
        Self {
            storage,
            transport: None,
            wake: Arc::new(InProcessWake::new()),
            blobs: None,
            public_url: "http://127.0.0.1:8080".to_owned(),
            clock: Arc::new(SystemClock::new()),
            chance: Arc::new(SystemChance::default()),
            retry: RetryPolicy::default(),
            tiers: Tiers::default(),
            algorithm: Algorithm::default(),
            header_prefix: "X-Sapien".to_owned(),
            callbacks: CallbackPolicy::default(),
            payload_bytes_max: 256 * 1024,
            attempt_timeout: Duration::from_secs(15),
            grace: Duration::from_secs(20),
            in_flight_max: Limits::default().in_flight,
            slice: fan_out::SLICE,
            role: Role::default(),
            is_enabled: true,
            #[cfg(feature = "entities")]
            kinds: crate::Kinds::default(),
            event_types: Vec::new(),
            retention: Some(Self::RETENTION_DEFAULT),
        }
    }

    /// What carries events to their receivers; an engine without one accepts events and keeps them
    /// until one with a transport runs.
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Some(Arc::new(transport));
        self
    }

    /// How hints reach the other engines over the same storage. Defaults to none being there.
    pub fn wake(mut self, wake: impl Wake) -> Self {
        self.wake = Arc::new(wake);
        self
    }

    /// Where data goes that is too large to go inline. Without one, such events are refused.
    pub fn blobs(mut self, blobs: impl BlobStore) -> Self {
        self.blobs = Some(Arc::new(blobs));
        self
    }

    /// As [`blobs`](Self::blobs), for a store that is shared already.
    pub fn blobs_in(mut self, blobs: Arc<dyn BlobStore>) -> Self {
        self.blobs = Some(blobs);
        self
    }

    /// Where the API is reached from outside, for links to large payloads: they are
    /// `<public URL>/api/v1/blobs/…`. Defaults to what `esl-server` listens on by default.
    pub fn public_url(mut self, url: impl Into<String>) -> Self {
        self.public_url = url.into();
        self
    }

    /// The time. Give the storage the same one.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Where jitter and ids come from.
    pub fn chance(mut self, chance: Arc<dyn Chance>) -> Self {
        self.chance = chance;
        self
    }

    /// When to try again. Defaults to 5 retries after 1, 2, 4, 8 and 16 s.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// What the tiers allow, which holds for organizations that have a [`Plan`](crate::Plan). Defaults
    /// to what is documented.
    pub fn tiers(mut self, tiers: Tiers) -> Self {
        self.tiers = tiers;
        self
    }

    /// The hash of the documented signature. Defaults to SHA-256.
    pub fn signature_algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// What ESL's own headers begin with. Defaults to `X-Sapien`.
    pub fn header_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.header_prefix = prefix.into();
        self
    }

    /// Which callback URLs may be subscribed. Give the transport the same policy. Defaults to
    /// public addresses over https.
    pub fn callbacks(mut self, policy: CallbackPolicy) -> Self {
        self.callbacks = policy;
        self
    }

    /// The largest envelope that carries its data inline. Defaults to 256 KiB, as documented.
    pub fn payload_bytes_max(mut self, bytes: usize) -> Self {
        self.payload_bytes_max = bytes;
        self
    }

    /// The deadline of an attempt, from 1 to 20 s. Defaults to 15 s: a receiver that needs longer
    /// should accept the event first and work on it afterwards. Other values are clamped.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout =
            timeout.clamp(SubscriptionOptions::TIMEOUT_MIN, SubscriptionOptions::TIMEOUT_MAX);
        self
    }

    /// How long a shutdown waits for sends that are under way. Defaults to 20 s: the longest
    /// attempt.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How many sends may be under way at once. Defaults to 4 096; an open file is needed for each.
    pub fn in_flight_max(mut self, sends: u32) -> Self {
        self.in_flight_max = sends.max(1);
        self
    }

    /// What this engine does, where several share a storage. Defaults to all there is to do.
    pub fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// For tests: so many lanes are a slice of a fan-out.
    #[doc(hidden)]
    pub fn lanes_in_slice(mut self, lanes: usize) -> Self {
        self.slice = lanes.max(1);
        self
    }

    /// For how long events are kept, with their deliveries; longer, while one of them is still owed.
    /// `None` keeps them for ever. Defaults to 30 days.
    pub fn retention(mut self, age: Option<Duration>) -> Self {
        self.retention = age;
        self
    }

    /// Whether the event system is on. While it is off, publishing is refused as
    /// [`PublishError::Disabled`](crate::PublishError::Disabled), the intake stays where it is, and
    /// nothing is sent; reads and subscriptions work. Defaults to true.
    pub fn enabled(mut self, is_enabled: bool) -> Self {
        self.is_enabled = is_enabled;
        self
    }

    /// The kinds of entities that there are. Defaults to none.
    #[cfg(feature = "entities")]
    pub fn kinds(mut self, kinds: crate::Kinds) -> Self {
        self.kinds = kinds;
        self
    }

    /// Describes event types that the application itself publishes, for [`Esl::event_types`]. One that the
    /// engine would describe is described by this instead. Nothing else depends on it: what is published
    /// under a type is not looked at.
    pub fn event_types(mut self, event_types: Vec<EventTypeEntry>) -> Self {
        self.event_types = event_types;
        self
    }

    /// All that are described, by name.
    fn all_event_types(&mut self) -> Vec<EventTypeEntry> {
        #[cfg(feature = "entities")]
        let of_kinds = self.kinds.event_types();
        #[cfg(not(feature = "entities"))]
        let of_kinds = Vec::new();
        let all = of_kinds.into_iter().chain(event_types::own()).chain(self.event_types.drain(..));
        let by_name: BTreeMap<_, _> = all.map(|entry| (entry.event_type.clone(), entry)).collect();
        by_name.into_values().collect()
    }

    /// Begins an epoch in the storage and starts the engine, on the current tokio runtime.
    ///
    /// # Errors
    /// When the storage cannot be used, or serves one engine at a time and another has it.
    pub async fn build(mut self) -> Result<Esl, StorageError> {
        let event_types = self.all_event_types();
        let limits = Limits { in_flight: self.in_flight_max, ..Limits::default() };
        let mut lanes = Lanes::new(limits);
        // Whoever cannot send leaves the lanes to those who can.
        let tenure = self.role.tenure(self.is_enabled && self.transport.is_some());
        if !self.is_enabled {
            lanes.stop();
        }
        let transport = self.transport.unwrap_or_else(|| {
            lanes.stop();
            Arc::new(NoTransport)
        });
        let links = Links::new(&self.public_url);
        let link_bytes = links.bytes();
        let driver = Driver::new(Parts {
            storage: self.storage,
            transport,
            wake: self.wake,
            clock: self.clock,
            chance: self.chance,
            defaults: Defaults {
                algorithm: self.algorithm,
                headers: HeaderNames::new(&self.header_prefix),
                retry: self.retry,
                attempt_timeout: self.attempt_timeout,
            },
            links,
            blobs: self.blobs.clone(),
            sealer: Sealer {
                payload_bytes_max: self.payload_bytes_max,
                blobs: self.blobs,
                link_bytes,
            },
            is_enabled: self.is_enabled,
            #[cfg(feature = "entities")]
            kinds: self.kinds,
            slice: self.slice,
            tiers: self.tiers,
            tenure,
            lanes,
        });
        let options = Options {
            callbacks: self.callbacks,
            grace: self.grace,
            role: self.role,
            retention: self.retention,
            event_types,
        };
        Esl::start(driver, options).await
    }
}

/// In place of a transport where none was named; the lanes send nothing then.
#[derive(Debug)]
struct NoTransport;

#[async_trait::async_trait]
impl Transport for NoTransport {
    async fn send(&self, _outbound: crate::Outbound) -> crate::Sent {
        std::future::pending().await
    }
}
