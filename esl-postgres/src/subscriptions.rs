//! Subscriptions and routes.

use async_trait::async_trait;
use esl_core::{
    Action, Actor, LaneId, OrganizationId, Subscription, SubscriptionId, SubscriptionUpdate, Tiers,
    storage::{
        Page, PageOf, RouteTable, RouteVersion, StorageError, StorageErrorKind, Subscriptions,
    },
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage, audit,
    changes::News,
    encryption_keys,
    error::Damage,
    id::Id16,
    parameters::parameters,
    plan::{PLAN, plan},
    rows::{get, lane, patterns, saturated, seq, whole},
    subscription_row::{self, SUBSCRIPTION},
};

#[async_trait]
impl Subscriptions for PostgresStorage {
    async fn create_subscription(
        &self,
        subscription: Subscription,
        tiers: &Tiers,
        by: &Actor,
    ) -> Result<Subscription, StorageError> {
        create(self, subscription, tiers, by).await
    }

    async fn subscription(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
    ) -> Result<Option<Subscription>, StorageError> {
        one(self, organization, id).await
    }

    async fn subscriptions(
        &self,
        _organization: OrganizationId,
        _page: Page<LaneId>,
    ) -> Result<PageOf<Subscription>, StorageError> {
        unimplemented!("subscriptions are listed")
    }

    async fn count_subscriptions(
        &self,
        _organization: OrganizationId,
    ) -> Result<u64, StorageError> {
        unimplemented!("subscriptions are counted")
    }

    async fn update_subscription(
        &self,
        _organization: OrganizationId,
        _id: SubscriptionId,
        _update: SubscriptionUpdate,
        _by: &Actor,
    ) -> Result<Subscription, StorageError> {
        unimplemented!("a subscription is updated")
    }

    async fn delete_subscription(
        &self,
        _organization: OrganizationId,
        _id: SubscriptionId,
        _by: &Actor,
    ) -> Result<LaneId, StorageError> {
        unimplemented!("a subscription is deleted")
    }

    async fn routes(
        &self,
        organization: OrganizationId,
    ) -> Result<Option<RouteTable>, StorageError> {
        let values = parameters![Id16::from(organization)];
        let found = self.database().query(ROUTES_OPERATION, &routes_sql(), values).await?;
        whole(ROUTES_OPERATION, routes(&found))
    }
}

const CREATE: &str = "create a subscription";
const ROUTES_OPERATION: &str = "read routes";

async fn create(
    storage: &PostgresStorage,
    mut subscription: Subscription,
    tiers: &Tiers,
    by: &Actor,
) -> Result<Subscription, StorageError> {
    let mut lease = storage.database().lease(CREATE).await?;
    let mut session = storage.begin(&mut lease, CREATE).await?;
    let of = subscription.organization;
    let organization = session.organization(of).await?;
    let id = Id16::from(subscription.id);
    if session.query_opt(IS_USED, parameters![id]).await?.is_some() {
        return Err(session.refused(StorageErrorKind::Conflict));
    }
    if let Some(limit) = tiers.subscriptions_max(organization.plan).get() {
        let limit = saturated(limit);
        let row = session.query_one(COUNT, parameters![organization.key, limit]).await?;
        if whole(CREATE, get::<i64>(&row, 0))? >= limit {
            return Err(session.refused(StorageErrorKind::OverLimit));
        }
    }
    encryption_keys::demand_known(&session).await?;
    let inserted = subscription_row::insert(&session, organization.key, &subscription, CREATE);
    subscription.lane = inserted.await?;
    let subject = subscription.id.to_string();
    audit::note(&session, of, by, Action::SubscriptionCreated, &subject, &[]).await?;
    session.raise_route_version(organization).await?;
    session.tell_others(News::Subscriptions(of));
    session.commit().await?;
    Ok(subscription)
}

/// Whether an id was ever used, in whatever organization.
const IS_USED: &str = "SELECT 1 FROM esl.subscriptions WHERE id = $1";

/// Counts those that are not deleted, up to a number.
const COUNT: &str = "
SELECT count(*) FROM (
    SELECT FROM esl.subscriptions WHERE organization = $1 AND deleted_at IS NULL LIMIT $2
) t";

async fn one(
    storage: &PostgresStorage,
    organization: OrganizationId,
    id: SubscriptionId,
) -> Result<Option<Subscription>, StorageError> {
    let operation = "read a subscription";
    let text = format!(
        "SELECT {SUBSCRIPTION}
         FROM esl.subscriptions s JOIN esl.organizations g ON g.key = s.organization
         WHERE s.id = $1 AND g.id = $2 AND s.deleted_at IS NULL AND g.deleted_at IS NULL"
    );
    let values = parameters![Id16::from(id), Id16::from(organization)];
    let row = storage.database().query_opt(operation, &text, values).await?;
    let read = |row| subscription_row::subscription(&row, organization, storage.secrets());
    whole(operation, row.map(read).transpose())
}

/// One row for each subscription, and one without if there is none: all as of one moment.
fn routes_sql() -> String {
    format!(
        "SELECT g.route_version, g.last_seq, s.lane, s.events, {PLAN}
         FROM esl.organizations g
         LEFT JOIN esl.subscriptions s ON s.organization = g.key AND s.deleted_at IS NULL
         WHERE g.id = $1 AND g.deleted_at IS NULL
         ORDER BY s.lane"
    )
}

fn routes(rows: &[Row]) -> Result<Option<RouteTable>, Damage> {
    let Some(first) = rows.first() else { return Ok(None) };
    let mut table = RouteTable {
        version: RouteVersion(get::<i64>(first, 0)?.cast_unsigned()),
        last_seq: seq(first, 1)?,
        lanes: Vec::with_capacity(rows.len()),
        plan: plan(first, 4)?,
    };
    for row in rows {
        if get::<Option<i64>>(row, 2)?.is_some() {
            table.lanes.push((lane(row, 2)?, patterns(row, 3)?));
        }
    }
    Ok(Some(table))
}
