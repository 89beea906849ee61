use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;

use super::{MemoryStorage, conflict, not_found, subscriptions::page_of};
use crate::{
    EventId, Limit, OrganizationId, SealedEvent, Timestamp,
    storage::{
        Change, Page, PageOf, Schedule, ScheduleNumber, Scheduled, StorageError, StorageErrorKind,
    },
};

/// What waits for its time.
#[derive(Default)]
pub(super) struct ScheduleRows {
    rows: BTreeMap<u64, (Timestamp, Arc<SealedEvent>)>,
    last: u64,
}

impl ScheduleRows {
    pub(super) fn remove_all_of(&mut self, organization: OrganizationId) {
        self.rows.retain(|_, (_, event)| event.organization != organization);
    }

    fn of(
        &self,
        organization: OrganizationId,
    ) -> impl Iterator<Item = (u64, &(Timestamp, Arc<SealedEvent>))> {
        let rows = self.rows.iter().map(|(number, row)| (*number, row));
        rows.filter(move |(_, (_, event))| event.organization == organization)
    }
}

#[async_trait]
impl Schedule for MemoryStorage {
    async fn schedule(
        &self,
        events: Vec<(Timestamp, Arc<SealedEvent>)>,
        at_most: Limit,
    ) -> Result<(), StorageError> {
        const OPERATION: &str = "schedule events";
        let mut state = self.state();
        let mut new: BTreeMap<OrganizationId, BTreeSet<EventId>> = BTreeMap::new();
        for (_, event) in &events {
            let organization = event.organization;
            if !state.organizations.contains_key(&organization) {
                return Err(not_found(OPERATION));
            }
            let new = new.entry(organization).or_default();
            let waits = state.schedule.of(organization).any(|(_, (_, it))| it.id == event.id);
            if waits || !new.insert(event.id) {
                return Err(conflict(OPERATION));
            }
            if !at_most.allows((state.schedule.of(organization).count() + new.len()) as u64) {
                return Err(StorageError::new(StorageErrorKind::OverLimit, OPERATION));
            }
        }
        for row in events {
            state.schedule.last += 1;
            let number = state.schedule.last;
            state.schedule.rows.insert(number, row);
        }
        state.listeners.tell_all(Change::Schedule);
        Ok(())
    }

    async fn scheduled(
        &self,
        organization: OrganizationId,
        page: Page<ScheduleNumber>,
    ) -> Result<PageOf<Scheduled>, StorageError> {
        let state = self.state();
        let after = page.after.map_or(0, |ScheduleNumber(number)| number);
        let rows = state.schedule.of(organization).filter(|(number, _)| *number > after);
        let rows = rows.map(|(number, (due_at, event))| Scheduled {
            number: ScheduleNumber(number),
            due_at: *due_at,
            event: Arc::clone(event),
        });
        Ok(page_of(rows, page.limit))
    }

    async fn unschedule(
        &self,
        organization: OrganizationId,
        id: EventId,
    ) -> Result<(), StorageError> {
        let mut state = self.state();
        let found = state.schedule.of(organization).find(|(_, (_, event))| event.id == id);
        let number = found.map(|(number, _)| number).ok_or_else(|| not_found("unschedule"))?;
        state.schedule.rows.remove(&number);
        Ok(())
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
        Ok(self.state().schedule.rows.values().map(|(due_at, _)| *due_at).min())
    }

    async fn release_due(&self, limit: usize) -> Result<usize, StorageError> {
        let mut state = self.state();
        let now = state.now();
        let rows = state.schedule.rows.iter();
        let mut due: Vec<_> = rows
            .filter(|(_, (due_at, _))| *due_at <= now)
            .map(|(number, (due_at, _))| (*due_at, *number))
            .collect();
        due.sort_unstable();
        due.truncate(limit);
        for (_, number) in &due {
            let (_, event) = state.schedule.rows.remove(number).expect("it was found");
            state.intake.push(event);
        }
        if !due.is_empty() {
            state.listeners.tell_all(Change::Intake);
        }
        Ok(due.len())
    }
}
