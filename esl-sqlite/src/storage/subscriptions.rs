//! Subscriptions and routes.

use async_trait::async_trait;
use esl_core::{
    Action, Actor, LaneId, OrganizationId, Subscription, SubscriptionId, SubscriptionUpdate, Tiers,
    storage::{LaneState, Page, PageOf, RouteTable, StorageError, StorageErrorKind, Subscriptions},
};
use rusqlite::{Connection, OptionalExtension, Row, Rows};

use crate::storage::{
    SqliteStorage, audit,
    changes::News,
    damage::Place,
    encryption_keys,
    error::Stop,
    plan::read_plan,
    readers::Snapshot,
    rows::{self, LANE_STATE, lane_number},
    secrets::Secrets,
    session::{OrganizationRow, Session, read_organization},
    settle::write_state,
    subscription_row::{self, SUBSCRIPTION},
};

#[async_trait]
impl Subscriptions for SqliteStorage {
    async fn create_subscription(
        &self,
        subscription: Subscription,
        tiers: &Tiers,
        by: &Actor,
    ) -> Result<Subscription, StorageError> {
        let (tiers, by) = (*tiers, by.clone());
        let work = move |session: &mut Session<'_>| create(session, subscription, &tiers, &by);
        self.writer().run(CREATE, 1, work).await
    }

    async fn subscription(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
    ) -> Result<Option<Subscription>, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| {
            let connection = snapshot.connection;
            let Some(row) = read_organization(connection, organization)? else { return Ok(None) };
            Ok(live((connection, snapshot.secrets), organization, row, id)?)
        };
        self.readers().run("read a subscription", work).await
    }

    async fn subscriptions(
        &self,
        organization: OrganizationId,
        page: Page<LaneId>,
    ) -> Result<PageOf<Subscription>, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| Ok(list(snapshot, organization, page)?);
        self.readers().run("list subscriptions", work).await
    }

    async fn count_subscriptions(&self, organization: OrganizationId) -> Result<u64, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| {
            let connection = snapshot.connection;
            let Some(row) = read_organization(connection, organization)? else { return Ok(0) };
            Ok(count(connection, row.key, u64::MAX)?)
        };
        self.readers().run("count subscriptions", work).await
    }

    async fn update_subscription(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
        update: SubscriptionUpdate,
        by: &Actor,
    ) -> Result<Subscription, StorageError> {
        let by = by.clone();
        let work = move |session: &mut Session<'_>| change(session, organization, id, update, &by);
        self.writer().run(UPDATE, 1, work).await
    }

    async fn delete_subscription(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
        by: &Actor,
    ) -> Result<LaneId, StorageError> {
        let by = by.clone();
        let work = move |session: &mut Session<'_>| delete(session, organization, id, &by);
        self.writer().run(DELETE, 1, work).await
    }

    async fn routes(
        &self,
        organization: OrganizationId,
    ) -> Result<Option<RouteTable>, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| Ok(routes(snapshot, organization)?);
        self.readers().run("read routes", work).await
    }
}

const CREATE: &str = "create a subscription";
const UPDATE: &str = "update a subscription";
const DELETE: &str = "delete a subscription";

fn create(
    session: &mut Session<'_>,
    mut subscription: Subscription,
    tiers: &Tiers,
    by: &Actor,
) -> Result<Subscription, Stop> {
    let organization = session.organization(subscription.organization)?;
    let organization = organization.ok_or(Stop::refused(StorageErrorKind::NotFound, CREATE))?;
    let connection = session.connection;
    let is_used = "SELECT 1 FROM esl_subscriptions WHERE id = ?1";
    if connection.prepare_cached(is_used)?.exists([subscription.id.to_bytes()])? {
        return Err(Stop::refused(StorageErrorKind::Conflict, CREATE));
    }
    let plan = read_plan(connection, organization.key)?;
    if let Some(limit) = tiers.subscriptions_max(plan).get()
        && count(connection, organization.key, limit)? >= limit
    {
        return Err(Stop::refused(StorageErrorKind::OverLimit, CREATE));
    }
    encryption_keys::demand_known(session, CREATE)?;
    subscription.lane = subscription_row::insert(session, organization.key, &subscription)?;
    let (of, id) = (subscription.organization, subscription.id.to_string());
    audit::note(session, of, by, Action::SubscriptionCreated, &id, &[])?;
    session.forget_lane(subscription.lane);
    session.raise_route_version(subscription.organization);
    session.tell_others(News::Subscriptions(subscription.organization))?;
    Ok(subscription)
}

fn change(
    session: &mut Session<'_>,
    organization: OrganizationId,
    id: SubscriptionId,
    update: SubscriptionUpdate,
    by: &Actor,
) -> Result<Subscription, Stop> {
    let held = demand_live(session, organization, id, UPDATE)?;
    let updated = held.with_update(update, session.now);
    let mut updated = updated.map_err(|error| {
        Stop::Refused(StorageError::new(StorageErrorKind::Conflict, UPDATE).with_source(error))
    })?;
    if updated == held {
        return Ok(updated);
    }
    // Whatever refuses comes before what writes: the work of a refused call is committed, too.
    encryption_keys::demand_known(session, UPDATE)?;
    let state = read_state(session.connection, updated.lane);
    let state = state.map_err(|error| Stop::of_reading(UPDATE, error))?;
    if let Some((action, fields)) = held.action_of(&updated) {
        audit::note(session, organization, by, action, &id.to_string(), &fields)?;
    }
    updated.updated_at = session.now;
    subscription_row::update(session, &updated)?;
    let next = state.after_update(&held, &updated);
    if next != state {
        write_state(session, updated.lane, &next)?;
    }
    if updated.events != held.events {
        session.raise_route_version(organization);
    }
    session.tell_others(News::Subscriptions(organization))?;
    Ok(updated)
}

/// How the receiver of a lane has fared.
pub(crate) fn read_state(connection: &Connection, lane: LaneId) -> rusqlite::Result<LaneState> {
    let sql = format!("SELECT {LANE_STATE} FROM esl_lanes l WHERE l.lane = ?1");
    let mut select = connection.prepare_cached(&sql)?;
    let state = select.query_row([lane_number(lane)], |row| rows::lane_state(row, 0));
    Ok(state.optional()?.unwrap_or_default())
}

fn delete(
    session: &mut Session<'_>,
    organization: OrganizationId,
    id: SubscriptionId,
    by: &Actor,
) -> Result<LaneId, Stop> {
    // Whatever else its row says: one that is damaged can be deleted, too.
    let not_found = || Stop::refused(StorageErrorKind::NotFound, DELETE);
    let row = session.organization(organization)?.ok_or_else(not_found)?;
    let mut mark = session.connection.prepare_cached(MARK_DELETED)?;
    let parameters = (id.to_bytes(), row.key, session.now.as_millis());
    let lane = mark.query_row(parameters, |row| rows::lane(row, 0)).optional()?;
    let lane = lane.ok_or_else(not_found)?;
    let action = Action::SubscriptionDeleted;
    audit::note(session, organization, by, action, &id.to_string(), &[])?;
    session.forget_lane(lane);
    session.raise_route_version(organization);
    session.tell_others(News::Subscriptions(organization))?;
    Ok(lane)
}

const MARK_DELETED: &str = "
UPDATE esl_subscriptions SET deleted_at = ?3
WHERE id = ?1 AND organization = ?2 AND deleted_at IS NULL
RETURNING lane";

fn demand_live(
    session: &mut Session<'_>,
    organization: OrganizationId,
    id: SubscriptionId,
    operation: &'static str,
) -> Result<Subscription, Stop> {
    let found = match session.organization(organization)? {
        Some(row) => live((session.connection, &session.secrets), organization, row, id),
        None => Ok(None),
    };
    let found = found.map_err(|error| Stop::of_reading(operation, error))?;
    found.ok_or(Stop::refused(StorageErrorKind::NotFound, operation))
}

fn live(
    (connection, secrets): (&Connection, &Secrets),
    organization: OrganizationId,
    row: OrganizationRow,
    id: SubscriptionId,
) -> rusqlite::Result<Option<Subscription>> {
    let sql = format!(
        "SELECT {SUBSCRIPTION} FROM esl_subscriptions s
         WHERE id = ?1 AND organization = ?2 AND deleted_at IS NULL"
    );
    let mut select = connection.prepare_cached(&sql)?;
    let parameters = (id.to_bytes(), row.key);
    let found = select
        .query_row(parameters, |row| subscription_row::subscription(row, organization, secrets));
    found.optional()
}

fn list(
    snapshot: &Snapshot<'_>,
    organization: OrganizationId,
    page: Page<LaneId>,
) -> rusqlite::Result<PageOf<Subscription>> {
    let connection = snapshot.connection;
    let Some(row) = read_organization(connection, organization)? else {
        return Ok(PageOf { items: Vec::new(), more: false });
    };
    let mut select = connection.prepare_cached(&list_sql())?;
    let after = page.after.map_or(0, lane_number);
    page_of(select.query((row.key, after))?, page.limit, |row| {
        let place = Place::Subscription(row.get(0)?);
        let read = subscription_row::subscription(row, organization, snapshot.secrets);
        snapshot.readable(place, read)
    })
}

fn list_sql() -> String {
    format!(
        "SELECT {SUBSCRIPTION} FROM esl_subscriptions s
         WHERE organization = ?1 AND lane > ?2 AND deleted_at IS NULL
         ORDER BY lane"
    )
}

fn routes(
    snapshot: &Snapshot<'_>,
    organization: OrganizationId,
) -> rusqlite::Result<Option<RouteTable>> {
    let connection = snapshot.connection;
    let Some(row) = read_organization(connection, organization)? else { return Ok(None) };
    let mut select = connection.prepare_cached(ROUTES)?;
    let lanes =
        select.query_map([row.key], |row| Ok((rows::lane(row, 0)?, rows::patterns(row, 1)?)))?;
    Ok(Some(RouteTable {
        version: row.route_version,
        last_seq: row.last_seq,
        lanes: lanes.collect::<Result<_, _>>()?,
        plan: read_plan(connection, row.key)?,
    }))
}

/// Counts those that are not deleted, up to `max`.
fn count(connection: &Connection, organization: i64, max: u64) -> rusqlite::Result<u64> {
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let mut select = connection.prepare_cached(COUNT)?;
    select.query_row((organization, max), |row| row.get::<_, i64>(0).map(i64::cast_unsigned))
}

const COUNT: &str = "
SELECT count(*) FROM (
    SELECT 1 FROM esl_subscriptions WHERE organization = ?1 AND deleted_at IS NULL LIMIT ?2
)";

const ROUTES: &str = "
SELECT lane, events FROM esl_subscriptions
WHERE organization = ?1 AND deleted_at IS NULL
ORDER BY lane";

/// The first `limit` of rows that have something to show, without a look at more than one beyond them.
pub(crate) fn page_of<T>(
    mut rows: Rows<'_>,
    limit: usize,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<Option<T>>,
) -> rusqlite::Result<PageOf<T>> {
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        let Some(item) = read(row)? else { continue };
        if items.len() == limit {
            return Ok(PageOf { items, more: true });
        }
        items.push(item);
    }
    Ok(PageOf { items, more: false })
}

#[cfg(test)]
mod tests {
    use esl_core::Timestamp;

    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn routes_and_lists_read_only_what_is_live() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let search = "SEARCH esl_subscriptions USING INDEX esl_subscriptions_live (organization=?";
        assert_plan(&connection, ROUTES, &[search]);
        assert_plan(&connection, COUNT, &[search, "CO-ROUTINE", "SCAN (subquery-1)"]);
        let search = "SEARCH s USING INDEX esl_subscriptions_live (organization=? AND lane>?)";
        assert_plan(&connection, &list_sql(), &[search]);
    }
}
