//! Fresh identifiers, from the clock and chance.

use std::sync::{Arc, Mutex};

use ulid::Ulid;

use crate::{
    Chance, Clock, EventId, InstallationId, PutId, ReplayId, RequestId, SubscriptionId, Timestamp,
    WorkerId,
};

/// Makes ULIDs that never go below the last one, whatever the clock does.
#[derive(Debug)]
pub(crate) struct Ids {
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    last: Mutex<Ulid>,
}

impl Ids {
    pub(crate) fn new(clock: Arc<dyn Clock>, chance: Arc<dyn Chance>) -> Self {
        Self { clock, chance, last: Mutex::new(Ulid::nil()) }
    }

    /// An id for an event, and the time it is sealed at.
    pub(crate) fn event(&self) -> (EventId, Timestamp) {
        let now = self.clock.utc();
        (EventId::from_ulid(self.ulid(now)), now)
    }

    pub(crate) fn subscription(&self) -> SubscriptionId {
        SubscriptionId::from_ulid(self.ulid(self.clock.utc()))
    }

    /// An id for an entity, with what ids of its kind begin with.
    #[cfg(feature = "entities")]
    pub(crate) fn entity(&self, prefix: &str) -> crate::EntityId {
        let id = format!("{prefix}{}", self.ulid(self.clock.utc()));
        id.parse().expect("a prefix and a ULID are an id")
    }

    pub(crate) fn replay(&self) -> ReplayId {
        ReplayId::from_ulid(self.ulid(self.clock.utc()))
    }

    pub(crate) fn request(&self) -> RequestId {
        RequestId::from_ulid(self.ulid(self.clock.utc()))
    }

    pub(crate) fn worker(&self) -> WorkerId {
        WorkerId::from_ulid(self.ulid(self.clock.utc()))
    }

    pub(crate) fn installation(&self) -> InstallationId {
        InstallationId::from_ulid(self.ulid(self.clock.utc()))
    }

    pub(crate) fn put(&self) -> PutId {
        PutId::from_bits(self.random())
    }

    fn random(&self) -> u128 {
        u128::from(self.chance.bits()) << 64 | u128::from(self.chance.bits())
    }

    fn ulid(&self, now: Timestamp) -> Ulid {
        let random = self.random();
        let mut last = self.last.lock().expect("no code panics while it holds this lock");
        // Within one millisecond, and while the clock is behind, the random part still differs; only
        // the time part is kept from going back.
        let millis = now.as_millis_u64().max(last.timestamp_ms());
        *last = Ulid::from_parts(millis, random);
        *last
    }
}
