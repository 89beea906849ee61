//! Units: what is new, in the order of their coming.

use async_trait::async_trait;
use esl_core::{
    LaneId,
    storage::{Commit, Committed, EntityAction, FAN_OUT_ABOVE, Refused, StorageError, Unit},
};

use crate::{PostgresStorage, changes::Changes};

#[async_trait]
impl Commit for PostgresStorage {
    async fn commit(
        &self,
        units: Vec<Unit>,
    ) -> Result<Vec<Result<Committed, Refused>>, StorageError> {
        if units.is_empty() {
            return Ok(Vec::new());
        }
        let tellings: Vec<_> = units.iter().map(|unit| Telling::of(unit, self.changes())).collect();
        let results = self.committer().commit(units).await?;
        for (result, telling) in results.iter().zip(tellings) {
            if let Ok(committed) = result {
                telling.tell(self);
                if committed.events.iter().any(|event| event.fanned_out) {
                    self.notifier().look();
                }
            }
        }
        Ok(results)
    }
}

/// What others are to be told of a unit that stands.
struct Telling {
    /// Of others, or of nobody, that get something.
    lanes: Vec<LaneId>,
    /// Whether rows were written for others.
    is_news: bool,
}

impl Telling {
    fn of(unit: &Unit, changes: &Changes) -> Self {
        let switches_off =
            unit.settle.as_ref().is_some_and(|settle| !settle.switch_offs.is_empty());
        let is_news = switches_off || schedules(unit);
        // Whoever takes hints gives some, too: its engine knows best whom.
        if changes.takes_hints() {
            return Self { lanes: Vec::new(), is_news };
        }
        let events = unit.publish.iter().flat_map(|publish| &publish.events);
        // What is fanned out is owed to nobody yet.
        let owed = events.filter(|event| event.lanes.len() <= FAN_OUT_ABOVE);
        let owed = owed.flat_map(|event| event.lanes.iter());
        let expanded = unit.expand.iter().flat_map(|expand| expand.lanes.iter());
        Self { lanes: changes.foreign(owed.chain(expanded).copied()), is_news }
    }

    fn tell(self, storage: &PostgresStorage) {
        if !self.lanes.is_empty() {
            storage.notifier().lanes(self.lanes);
        }
        if self.is_news {
            storage.notifier().look();
        }
    }
}

/// Whether there is an entity about which something is to be done at a time.
fn schedules(unit: &Unit) -> bool {
    let mut steps = unit.entities.iter().flat_map(|write| &write.steps);
    steps.any(|step| matches!(&step.action, EntityAction::Put(put) if put.due_at.is_some()))
}
