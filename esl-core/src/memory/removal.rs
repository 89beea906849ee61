use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    MemoryStorage, State, not_found,
    rows::{LaneRow, OrganizationRow},
};
use crate::{
    Action, Actor, BlobKey, EventId, InstallationId, LinkKey, OrganizationId, SealedEvent, Seq,
    Timestamp, erased,
    storage::{
        AgeLimit, Change, Erased, Removal, Removed, StorageError, Worker,
        encoding::{Ending, Standing},
    },
};

#[async_trait]
impl Removal for MemoryStorage {
    async fn remove_old(
        &self,
        worker: &Worker,
        age: Option<Duration>,
        limit: usize,
    ) -> Result<Removed, StorageError> {
        let mut state = self.state();
        let now = state.demand_running(worker, "remove what is old")?;
        let blobs = std::mem::take(&mut state.freed_blobs);
        let mut removed = Removed { blobs, ..Removed::default() };
        state.remove_strays(age.map(|age| now - age), limit, &mut removed);
        let Some(age) = age else { return Ok(removed) };
        state.remove_replays(now - age, limit, &mut removed);
        state.remove_audit(now - age, limit, &mut removed);
        let mut organizations: Vec<_> = state.organizations.keys().copied().collect();
        // Another one comes first each time.
        state.removals += 1;
        let first = state.removals % organizations.len().max(1);
        organizations.rotate_left(first);
        for organization in organizations {
            let ages = AgeLimit::new(now, age);
            state.remove_old_of(organization, &ages, limit, &mut removed);
        }
        Ok(removed)
    }

    async fn erase_event(
        &self,
        organization: OrganizationId,
        id: EventId,
    ) -> Result<Erased, StorageError> {
        let mut state = self.state();
        let now = state.now();
        let waiting = state.intake.erase(organization, id);
        let blobs = waiting.iter().filter_map(|event| BlobKey::named_by(&event.body)).collect();
        let mut erasure = Erased { before: false, blobs };
        let Some(seq) = state.events_by_id.get(&(organization, id)).copied() else {
            return if waiting.is_empty() { Err(not_found("erase an event")) } else { Ok(erasure) };
        };
        let row = state.organizations.get_mut(&organization).expect("it has an event");
        let event = row.events.get_mut(&seq).expect("its id is listed");
        if event.erased_at.is_some() {
            return Ok(Erased { before: true, ..erasure });
        }
        erasure.blobs.extend(BlobKey::named_by(&event.event.body));
        event.erased_at = Some(now);
        let body = erased(&event.event);
        event.event = Arc::new(SealedEvent { body, changes: None, ..(*event.event).clone() });
        let lanes = state.lanes.values_mut();
        for lane in lanes.filter(|lane| lane.subscription.organization == organization) {
            lane.erase(seq, now);
        }
        state.listeners.tell_others(self.handle, Change::Erased(organization));
        Ok(erasure)
    }

    async fn organizations_of_event(
        &self,
        id: EventId,
    ) -> Result<Vec<OrganizationId>, StorageError> {
        let state = self.state();
        let waiting = state.intake.rows.values().map(|event| (event.organization, event.id));
        let mut found: Vec<_> = state
            .events_by_id
            .keys()
            .copied()
            .chain(waiting)
            .filter(|(_, event)| *event == id)
            .map(|(organization, _)| organization)
            .collect();
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    async fn unnamed_blobs(&self, keys: Vec<BlobKey>) -> Result<Vec<BlobKey>, StorageError> {
        let state = self.state();
        Ok(keys.into_iter().filter(|key| !state.names(*key)).collect())
    }

    async fn installation(&self, fresh: InstallationId) -> Result<InstallationId, StorageError> {
        Ok(*self.state().installation.get_or_insert(fresh))
    }

    async fn link_keys(&self, fresh: LinkKey) -> Result<Vec<LinkKey>, StorageError> {
        let mut state = self.state();
        let now = state.now();
        let newest = state.link_keys.first();
        if newest.is_none_or(|(_, made_at)| now.since(*made_at) >= LinkKey::AGE_MAX) {
            state.link_keys.insert(0, (fresh, now));
            state.link_keys.truncate(2);
        }
        Ok(state.link_keys.iter().map(|(key, _)| key.clone()).collect())
    }

    async fn delete_organization(
        &self,
        id: OrganizationId,
        by: &Actor,
    ) -> Result<(), StorageError> {
        let mut state = self.state();
        let Some(organization) = state.organizations.remove(&id) else {
            return Err(not_found("delete an organization"));
        };
        state.deleted_organizations.insert(id);
        state.schedule.remove_all_of(id);
        state.feeds.values_mut().for_each(|cursors| _ = cursors.remove(&id));
        state.note(id, by, Action::OrganizationDeleted, &id, &[]);
        let events = organization.events.values();
        state.freed_blobs.extend(events.filter_map(|row| BlobKey::named_by(&row.event.body)));
        state.organization_order.retain(|other| *other != id);
        state.clients.retain(|_, client| client.organization != id);
        state.tokens.retain(|_, row| row.token.organization != id);
        state.events_by_id.retain(|(organization, _), _| *organization != id);
        state.intake.rows.retain(|_, event| event.organization != id);
        state.replays.retain(|_, replay| replay.organization != id);
        state.lanes.retain(|_, lane| lane.subscription.organization != id);
        let State { lanes, lanes_by_subscription, .. } = &mut *state;
        lanes_by_subscription.retain(|_, lane| lanes.contains_key(lane));
        state.listeners.tell_others(self.handle, Change::Tenancy);
        state.listeners.tell_others(self.handle, Change::Subscriptions(id));
        Ok(())
    }
}

impl State {
    fn names(&self, key: BlobKey) -> bool {
        let seq = self.events_by_id.get(&(key.organization, key.event));
        let stored = seq.map(|seq| &self.organizations[&key.organization].events[seq].event);
        let mut events = stored.into_iter().chain(self.intake.rows.values());
        events.any(|event| BlobKey::named_by(&event.body) == Some(key))
    }

    fn remove_replays(&mut self, before: Timestamp, limit: usize, removed: &mut Removed) {
        let over = self.replays.values().map(|replay| self.as_it_stands(replay));
        let over = over.filter(|replay| replay.finished_at.is_some_and(|at| at <= before));
        let over: Vec<_> = over.map(|replay| replay.number).collect();
        removed.more |= over.len() > limit;
        for number in over.into_iter().take(limit) {
            self.replays.remove(&number);
            removed.replays += 1;
        }
    }

    fn remove_audit(&mut self, before: Timestamp, limit: usize, removed: &mut Removed) {
        let old = self.audit.iter().filter(|entry| entry.at <= before);
        let count = old.count();
        removed.more |= count > limit;
        removed.audit += count.min(limit);
        // The oldest are the first.
        self.audit.drain(..count.min(limit));
    }

    /// Removes what waits in the intake for organizations that were deleted, and what is old there of
    /// those that there are not.
    fn remove_strays(&mut self, before: Option<Timestamp>, limit: usize, removed: &mut Removed) {
        let is_to_go = |event: &SealedEvent| {
            let is_old = before.is_some_and(|before| event.timestamp <= before);
            let is_stray = !self.organizations.contains_key(&event.organization);
            is_stray && (is_old || self.deleted_organizations.contains(&event.organization))
        };
        let strays = self.intake.rows.iter().filter(|(_, event)| is_to_go(event));
        let strays: Vec<i64> = strays.map(|(row, _)| *row).collect();
        removed.more |= strays.len() > limit;
        for row in strays.into_iter().take(limit) {
            let event = self.intake.rows.remove(&row).expect("it was there just now");
            removed.events += 1;
            removed.bytes += bytes_of(&event);
        }
    }

    fn remove_old_of(
        &mut self,
        organization: OrganizationId,
        ages: &AgeLimit,
        limit: usize,
        removed: &mut Removed,
    ) {
        let row = self.organizations.get_mut(&organization).expect("the caller has listed it");
        row.removed_to = row.removed_to.max(row.old_to(ages));
        let to = row.removed_to;
        let mut lanes: Vec<&mut LaneRow> = self
            .lanes
            .values_mut()
            .filter(|lane| lane.subscription.organization == organization)
            .collect();
        for lane in &mut lanes {
            lane.remove_closed(to, limit, removed);
        }
        // Owed, or waiting for its own turn to be removed.
        let has_delivery = |seq: &Seq| lanes.iter().any(|lane| lane.deliveries.contains_key(seq));
        let old = row.events.range(..=to).map(|(seq, _)| *seq);
        let mut old: Vec<Seq> = old.filter(|seq| !has_delivery(seq)).collect();
        let left = limit.saturating_sub(removed.events);
        removed.more |= old.len() > left;
        old.truncate(left);
        for seq in old {
            let event = row.events.remove(&seq).expect("it was there just now");
            self.events_by_id.remove(&(organization, event.event.id));
            removed.blobs.extend(BlobKey::named_by(&event.event.body));
            removed.events += 1;
            removed.bytes += bytes_of(&event.event);
        }
    }
}

fn bytes_of(event: &SealedEvent) -> u64 {
    let changes = event.changes.as_ref().map_or(0, |changes| changes.len());
    (event.body.len() + changes) as u64
}

impl OrganizationRow {
    /// Up to where all events are old, and expanded.
    fn old_to(&self, ages: &AgeLimit) -> Seq {
        let first_fan_out = self.fan_outs.first_key_value().map(|(seq, _)| *seq);
        let expanded = self.events.iter();
        let expanded =
            expanded.take_while(|(seq, _)| first_fan_out.is_none_or(|first| **seq < first));
        let possible = expanded.filter(|(_, row)| ages.is_possible(row.event.timestamp));
        let old = possible.take_while(|(_, row)| ages.is_old(row.event.timestamp));
        old.last().map_or(Seq::ZERO, |(seq, _)| *seq)
    }
}

impl LaneRow {
    fn remove_closed(&mut self, to: Seq, limit: usize, removed: &mut Removed) {
        let closed = self.deliveries.range(..=to).filter(|(_, row)| !row.is_open());
        let mut closed: Vec<Seq> = closed.map(|(seq, _)| *seq).collect();
        removed.more |= closed.len() > limit - removed.deliveries;
        closed.truncate(limit - removed.deliveries);
        for seq in closed {
            let row = self.deliveries.remove(&seq).expect("it was there just now");
            removed.deliveries += 1;
            removed.attempts += row.log.len();
        }
    }

    fn erase(&mut self, seq: Seq, now: Timestamp) {
        let Some(row) = self.deliveries.get_mut(&seq) else { return };
        for attempt in &mut row.log {
            attempt.detail = None;
        }
        if row.is_open() {
            self.set_standing(seq, Standing::Closed(Ending::Cancelled, now));
        }
    }
}
