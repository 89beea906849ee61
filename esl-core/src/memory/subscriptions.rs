use std::ops::Bound;

use async_trait::async_trait;

use super::{MemoryStorage, State, conflict, not_found, rows::LaneRow};
use crate::{
    Action, Actor, LaneId, OrganizationId, Subscription, SubscriptionId, SubscriptionUpdate, Tiers,
    storage::{
        Change, Page, PageOf, RouteTable, RouteVersion, StorageError, StorageErrorKind,
        Subscriptions,
    },
};

#[async_trait]
impl Subscriptions for MemoryStorage {
    async fn create_subscription(
        &self,
        mut subscription: Subscription,
        tiers: &Tiers,
        by: &Actor,
    ) -> Result<Subscription, StorageError> {
        const OPERATION: &str = "create a subscription";
        let mut state = self.state();
        let (id, organization) = (subscription.id, subscription.organization);
        let row = state.organizations.get(&organization).ok_or_else(|| not_found(OPERATION))?;
        let limit = tiers.subscriptions_max(row.organization.plan);
        if state.lanes_by_subscription.contains_key(&id) {
            return Err(conflict(OPERATION));
        }
        let has = state.live_lanes(organization).count() as u64;
        if !limit.allows(has + 1) {
            return Err(StorageError::new(StorageErrorKind::OverLimit, OPERATION));
        }
        // No number comes twice.
        state.last_lane += 1;
        subscription.lane = LaneId::new(state.last_lane);
        state.lanes.insert(subscription.lane, LaneRow::new(subscription.clone()));
        state.lanes_by_subscription.insert(id, subscription.lane);
        state.note(organization, by, Action::SubscriptionCreated, &id, &[]);
        state.raise_route_version(organization);
        state.listeners.tell_others(self.handle, Change::Subscriptions(organization));
        Ok(subscription)
    }

    async fn subscription(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
    ) -> Result<Option<Subscription>, StorageError> {
        Ok(self.state().live_lane(organization, id).map(|row| row.subscription.clone()))
    }

    async fn subscriptions(
        &self,
        organization: OrganizationId,
        page: Page<LaneId>,
    ) -> Result<PageOf<Subscription>, StorageError> {
        let state = self.state();
        let after = page.after.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = state.lanes.range((after, Bound::Unbounded)).map(|(_, row)| row);
        let live = rows
            .filter(|row| row.subscription.organization == organization && !row.is_deleted())
            .map(|row| row.subscription.clone());
        Ok(page_of(live, page.limit))
    }

    async fn count_subscriptions(&self, organization: OrganizationId) -> Result<u64, StorageError> {
        Ok(self.state().live_lanes(organization).count() as u64)
    }

    async fn update_subscription(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
        update: SubscriptionUpdate,
        by: &Actor,
    ) -> Result<Subscription, StorageError> {
        let mut state = self.state();
        let now = state.now();
        const OPERATION: &str = "update a subscription";
        let row = state.live_lane_mut(organization, id);
        let row = row.ok_or(not_found(OPERATION))?;
        let held = &mut row.subscription;

        let updated = held.with_update(update, now);
        let mut updated = updated.map_err(|error| conflict(OPERATION).with_source(error))?;
        if updated == *held {
            return Ok(updated);
        }
        let done = held.action_of(&updated);
        updated.updated_at = now;
        let is_rerouted = updated.events != held.events;
        row.state = row.state.after_update(held, &updated);
        *held = updated.clone();
        if let Some((action, fields)) = done {
            state.note(organization, by, action, &id, &fields);
        }
        if is_rerouted {
            state.raise_route_version(organization);
        }
        state.listeners.tell_others(self.handle, Change::Subscriptions(organization));
        Ok(updated)
    }

    async fn delete_subscription(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
        by: &Actor,
    ) -> Result<LaneId, StorageError> {
        let mut state = self.state();
        let now = state.now();
        let row = state.live_lane_mut(organization, id);
        let row = row.ok_or(not_found("delete a subscription"))?;
        row.deleted_at = Some(now);
        let lane = row.subscription.lane;
        state.note(organization, by, Action::SubscriptionDeleted, &id, &[]);
        state.raise_route_version(organization);
        state.listeners.tell_others(self.handle, Change::Subscriptions(organization));
        Ok(lane)
    }

    async fn routes(
        &self,
        organization: OrganizationId,
    ) -> Result<Option<RouteTable>, StorageError> {
        let state = self.state();
        let Some(row) = state.organizations.get(&organization) else { return Ok(None) };
        let lanes = state.lanes.iter();
        let lanes = lanes
            .filter(|(_, row)| row.subscription.organization == organization && !row.is_deleted())
            .map(|(lane, row)| (*lane, row.subscription.events.clone()));
        Ok(Some(RouteTable {
            version: row.route_version,
            last_seq: row.last_seq,
            lanes: lanes.collect(),
            plan: row.organization.plan,
        }))
    }
}

impl State {
    /// The lane of a subscription, of a deleted one too, if it is that organization's.
    pub(super) fn lane(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
    ) -> Option<&LaneRow> {
        let row = &self.lanes[self.lanes_by_subscription.get(&id)?];
        (row.subscription.organization == organization).then_some(row)
    }

    fn live_lane(&self, organization: OrganizationId, id: SubscriptionId) -> Option<&LaneRow> {
        self.lane(organization, id).filter(|row| !row.is_deleted())
    }

    fn live_lanes(&self, organization: OrganizationId) -> impl Iterator<Item = &LaneRow> {
        let lanes = self.lanes.values();
        lanes.filter(move |row| row.subscription.organization == organization && !row.is_deleted())
    }

    fn live_lane_mut(
        &mut self,
        organization: OrganizationId,
        id: SubscriptionId,
    ) -> Option<&mut LaneRow> {
        let lane = self.live_lane(organization, id)?.subscription.lane;
        self.lanes.get_mut(&lane)
    }

    fn raise_route_version(&mut self, organization: OrganizationId) {
        let row = self.organizations.get_mut(&organization);
        let RouteVersion(version) =
            &mut row.expect("callers have looked the organization up").route_version;
        *version += 1;
    }
}

/// The first `limit` of what is left of a list.
pub(super) fn page_of<T>(mut left: impl Iterator<Item = T>, limit: usize) -> PageOf<T> {
    let items = left.by_ref().take(limit).collect();
    PageOf { items, more: left.next().is_some() }
}
