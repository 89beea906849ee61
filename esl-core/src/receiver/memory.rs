//! What was seen, in memory.

use std::{
    collections::{HashSet, VecDeque},
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use super::{Begun, EventKey, Seen, SeenError};

/// Remembers, until the process ends, the last events that were taken; of more than it has room for, the
/// first is forgotten.
///
/// It is for one handler: each has a `MemorySeen` of its own, as [`Seen`] says.
#[derive(Debug)]
pub struct MemorySeen {
    events_max: NonZeroUsize,
    events: Mutex<Events>,
}

#[derive(Debug, Default)]
struct Events {
    under_way: HashSet<EventKey>,
    done: HashSet<EventKey>,
    /// In the order in which they were taken.
    order: VecDeque<EventKey>,
}

impl MemorySeen {
    /// Remembers 100 000 events, in some 13 MB.
    #[must_use]
    pub fn new() -> Self {
        Self::with_room_for(NonZeroUsize::new(100_000).expect("it is not zero"))
    }

    /// Remembers so many events.
    #[must_use]
    pub fn with_room_for(events_max: NonZeroUsize) -> Self {
        Self { events_max, events: Mutex::default() }
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemorySeen {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Seen for MemorySeen {
    async fn begin(&self, event: EventKey) -> Result<Begun, SeenError> {
        let mut events = self.events();
        if events.done.contains(&event) {
            return Ok(Begun::Before);
        }
        Ok(if events.under_way.insert(event) { Begun::Now } else { Begun::UnderWay })
    }

    async fn done(&self, event: EventKey) -> Result<(), SeenError> {
        let mut events = self.events();
        events.under_way.remove(&event);
        if events.done.insert(event) {
            events.order.push_back(event);
        }
        if events.order.len() > self.events_max.get()
            && let Some(first) = events.order.pop_front()
        {
            events.done.remove(&first);
        }
        Ok(())
    }

    async fn failed(&self, event: EventKey) -> Result<(), SeenError> {
        self.events().under_way.remove(&event);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EventId, OrganizationId};

    #[tokio::test]
    async fn of_more_than_there_is_room_for_the_first_is_forgotten() {
        let seen = MemorySeen::with_room_for(NonZeroUsize::new(2).unwrap());
        let organization = OrganizationId::from_bytes([1; 16]);
        let event = |number: u128| EventKey {
            organization,
            event: EventId::from_bytes(number.to_be_bytes()),
        };
        // In the order in which they are done; what is done twice takes its place once.
        for number in [1, 2, 2, 3] {
            seen.begin(event(number)).await.unwrap();
            seen.done(event(number)).await.unwrap();
        }
        for (number, expected) in [(2, Begun::Before), (3, Begun::Before), (1, Begun::Now)] {
            assert_eq!(seen.begin(event(number)).await.unwrap(), expected, "{number}");
        }
        // What is under way takes no room.
        seen.begin(event(4)).await.unwrap();
        assert_eq!(seen.begin(event(2)).await.unwrap(), Begun::Before);
    }
}
