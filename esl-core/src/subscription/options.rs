use std::{num::NonZeroU32, time::Duration};

use super::{CustomHeaders, JsonObject};
use crate::RetryPolicy;

/// How a subscription's deliveries are made, where it differs from the engine's own way; and notes of
/// its owner, which ESL keeps and shows.
///
/// ```
/// use std::time::Duration;
/// use esl_core::{SendOrder, SubscriptionOptions};
///
/// let options = SubscriptionOptions::default()
///     .with_timeout(Duration::from_secs(5))
///     .with_order(SendOrder::Strict);
/// # assert_eq!(options.timeout, Some(Duration::from_secs(5)));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionOptions {
    /// What it is for, in its owner's words.
    pub description: Option<String>,
    /// Its owner's own data about it.
    pub metadata: Option<JsonObject>,
    /// Headers that go with every delivery.
    pub headers: CustomHeaders,
    /// The delays before the retries; there are as many retries as delays. `None` for the engine's
    /// retry policy, an empty one for no retry at all.
    pub retry_schedule: Option<Vec<Duration>>,
    /// The deadline of an attempt, 1 to 20 s. `None` for the engine's.
    pub timeout: Option<Duration>,
    /// Sends begun in a second, on average; up to a fiftieth of it may begin at once.
    pub max_per_second: Option<NonZeroU32>,
    /// Sends under way at once, 256 at most. `None` for the engine's limit.
    pub max_in_flight: Option<NonZeroU32>,
    /// Whether a delivery waits for the one before it.
    pub order: SendOrder,
    /// What happens when a delivery has used up its retries.
    pub on_exhausted: OnExhausted,
}

impl SubscriptionOptions {
    /// The longest description, in bytes.
    pub const DESCRIPTION_BYTES_MAX: usize = 1024;
    /// The longest metadata, in bytes.
    pub const METADATA_BYTES_MAX: usize = 8 * 1024;
    /// The longest retry schedule.
    pub const RETRIES_MAX: usize = 100;
    /// The longest delay in a retry schedule.
    pub const RETRY_DELAY_MAX: Duration = RetryPolicy::DELAY_MAX;
    /// The shortest deadline.
    pub const TIMEOUT_MIN: Duration = Duration::from_secs(1);
    /// The longest deadline: with it, an attempt ends within a worker's epoch.
    pub const TIMEOUT_MAX: Duration = Duration::from_secs(20);
    /// The highest rate.
    pub const PER_SECOND_MAX: u32 = 100_000;
    /// The most sends under way at once.
    pub const IN_FLIGHT_MAX: u32 = 256;

    /// Says what it is for.
    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Adds its owner's own data.
    #[must_use]
    pub fn with_metadata(mut self, metadata: JsonObject) -> Self {
        self.metadata = Some(metadata);
        self
    }

    /// Sends these headers with every delivery.
    #[must_use]
    pub fn with_headers(mut self, headers: CustomHeaders) -> Self {
        self.headers = headers;
        self
    }

    /// Retries after these delays, exactly and without jitter.
    #[must_use]
    pub fn with_retry_schedule(mut self, delays: Vec<Duration>) -> Self {
        self.retry_schedule = Some(delays);
        self
    }

    /// Gives attempts this deadline; other values than 1 to 20 s are clamped.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout.clamp(Self::TIMEOUT_MIN, Self::TIMEOUT_MAX));
        self
    }

    /// Begins so many sends in a second at most, on average.
    #[must_use]
    pub fn with_max_per_second(mut self, sends: NonZeroU32) -> Self {
        self.max_per_second = Some(sends);
        self
    }

    /// Has so many sends under way at most; more than 256 are 256.
    #[must_use]
    pub fn with_max_in_flight(mut self, sends: NonZeroU32) -> Self {
        self.max_in_flight = NonZeroU32::new(sends.get().min(Self::IN_FLIGHT_MAX));
        self
    }

    /// Says whether a delivery waits for the one before it.
    #[must_use]
    pub fn with_order(mut self, order: SendOrder) -> Self {
        self.order = order;
        self
    }

    /// Says what happens when a delivery has used up its retries.
    #[must_use]
    pub fn with_on_exhausted(mut self, on_exhausted: OnExhausted) -> Self {
        self.on_exhausted = on_exhausted;
        self
    }

    /// Puts an update in force.
    pub fn update(&mut self, update: OptionsUpdate) {
        // By name, so that a new option is not forgotten here.
        let OptionsUpdate {
            description,
            metadata,
            headers,
            retry_schedule,
            timeout,
            max_per_second,
            max_in_flight,
            order,
            on_exhausted,
        } = update;
        put(&mut self.description, description);
        put(&mut self.metadata, metadata);
        put(&mut self.headers, headers);
        put(&mut self.retry_schedule, retry_schedule);
        put(&mut self.timeout, timeout);
        put(&mut self.max_per_second, max_per_second);
        put(&mut self.max_in_flight, max_in_flight);
        put(&mut self.order, order);
        put(&mut self.on_exhausted, on_exhausted);
    }
}

fn put<T>(held: &mut T, new: Option<T>) {
    if let Some(new) = new {
        *held = new;
    }
}

/// What a caller changes of the options: `None` leaves one as it is, `Some(None)` takes it back to
/// its default.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct OptionsUpdate {
    /// See [`SubscriptionOptions::description`].
    pub description: Option<Option<String>>,
    /// See [`SubscriptionOptions::metadata`].
    pub metadata: Option<Option<JsonObject>>,
    /// All headers, in place of all the old ones.
    pub headers: Option<CustomHeaders>,
    /// See [`SubscriptionOptions::retry_schedule`].
    pub retry_schedule: Option<Option<Vec<Duration>>>,
    /// See [`SubscriptionOptions::timeout`].
    pub timeout: Option<Option<Duration>>,
    /// See [`SubscriptionOptions::max_per_second`].
    pub max_per_second: Option<Option<NonZeroU32>>,
    /// See [`SubscriptionOptions::max_in_flight`].
    pub max_in_flight: Option<Option<NonZeroU32>>,
    /// See [`SubscriptionOptions::order`].
    pub order: Option<SendOrder>,
    /// See [`SubscriptionOptions::on_exhausted`].
    pub on_exhausted: Option<OnExhausted>,
}

/// Whether a delivery waits for the one before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SendOrder {
    /// Sends begin in the order of the events, several at a time; a retry comes when it is due.
    #[default]
    Parallel,
    /// One at a time, by seq. The first blocks the others until it is delivered or given up.
    Strict,
}

impl SendOrder {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Parallel, Self::Strict];

    /// Its stable spelling, as stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Parallel => "parallel",
            Self::Strict => "strict",
        }
    }

    /// Reads [`as_str`](Self::as_str) back.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|order| order.as_str() == name)
    }
}

/// What happens to a subscription when one of its deliveries has used up its retries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnExhausted {
    /// It goes on with the next delivery.
    #[default]
    Skip,
    /// It is switched off, so that nothing overtakes what could not be delivered.
    Pause,
}

impl OnExhausted {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Skip, Self::Pause];

    /// Its stable spelling, as stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Pause => "pause",
        }
    }

    /// Reads [`as_str`](Self::as_str) back.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|on_exhausted| on_exhausted.as_str() == name)
    }
}
