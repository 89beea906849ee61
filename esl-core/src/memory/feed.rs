use std::ops::Bound;

use async_trait::async_trait;

use super::{MemoryStorage, records::stored};
use crate::{
    OrganizationId, Seq,
    storage::{Fed, Feed, FeedBatch, FeedRoom, FeedStep, StorageError, Worker},
};

#[async_trait]
impl Feed for MemoryStorage {
    async fn begin_feed(&self, worker: &Worker, name: &str) -> Result<(), StorageError> {
        let mut state = self.state();
        state.demand_running(worker, "begin a feed")?;
        if !state.feeds.contains_key(name) {
            let rows = state.organizations.iter();
            let cursors = rows.map(|(id, row)| (*id, row.last_seq)).collect();
            state.feeds.insert(name.to_owned(), cursors);
        }
        Ok(())
    }

    async fn feed(
        &self,
        name: &str,
        after: Option<OrganizationId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Fed, StorageError> {
        let state = self.state();
        let mut fed = Fed::default();
        let Some(cursors) = state.feeds.get(name) else { return Ok(fed) };
        let mut room = FeedRoom::new(limit, bytes_max);
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (organization, row) in state.organizations.range((after, Bound::Unbounded)) {
            let from = cursors.get(organization).copied().unwrap_or(Seq::ZERO);
            if row.last_seq <= from {
                continue;
            }
            let mut batch = FeedBatch {
                organization: *organization,
                from,
                to: row.last_seq,
                events: Vec::new(),
            };
            let mut is_full = false;
            for (seq, event) in row.events.range((Bound::Excluded(from), Bound::Unbounded)) {
                let event = stored(*seq, event);
                is_full = !room.takes(&event);
                if is_full {
                    batch.to = batch.events.last().map_or(from, |last| last.seq);
                    break;
                }
                batch.events.push(event);
            }
            if batch.to > from {
                fed.after = Some(*organization);
                fed.batches.push(batch);
            }
            if is_full {
                return Ok(fed);
            }
        }
        Ok(Fed { after: None, ..fed })
    }

    async fn advance_feed(
        &self,
        worker: &Worker,
        name: &str,
        steps: Vec<FeedStep>,
    ) -> Result<(), StorageError> {
        let mut state = self.state();
        state.demand_running(worker, "advance a feed")?;
        let state = &mut *state;
        let Some(cursors) = state.feeds.get_mut(name) else { return Ok(()) };
        for FeedStep { organization, from, to } in steps {
            let Some(row) = state.organizations.get(&organization) else { continue };
            let cursor = cursors.entry(organization).or_default();
            if *cursor == from && (from..=row.last_seq).contains(&to) {
                *cursor = to;
            }
        }
        Ok(())
    }
}
