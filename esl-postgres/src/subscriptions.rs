//! Subscriptions and routes.

use async_trait::async_trait;
use esl_core::{
    Action, Actor, LaneId, OrganizationId, Subscription, SubscriptionId, SubscriptionUpdate, Tiers,
    Timestamp,
    storage::{
        LaneState, Page, PageOf, RouteTable, RouteVersion, StorageError, StorageErrorKind,
        Subscriptions,
    },
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage, audit,
    changes::News,
    damage::Place,
    encryption_keys,
    error::Damage,
    id::Id16,
    pages::PageReader,
    parameters::parameters,
    plan::{PLAN, plan},
    rows::{self, LANE_STATE, get, lane, lane_number, patterns, saturated, seq, whole},
    session::Session,
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
        organization: OrganizationId,
        page: Page<LaneId>,
    ) -> Result<PageOf<Subscription>, StorageError> {
        list(self, organization, page).await
    }

    async fn count_subscriptions(&self, organization: OrganizationId) -> Result<u64, StorageError> {
        let operation = "count subscriptions";
        let values = parameters![Id16::from(organization)];
        let row = self.database().query_one(operation, COUNT_ALL, values).await?;
        whole(operation, get::<i64>(&row, 0).map(i64::cast_unsigned))
    }

    async fn update_subscription(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
        update: SubscriptionUpdate,
        by: &Actor,
    ) -> Result<Subscription, StorageError> {
        change(self, organization, id, update, by).await
    }

    async fn delete_subscription(
        &self,
        organization: OrganizationId,
        id: SubscriptionId,
        by: &Actor,
    ) -> Result<LaneId, StorageError> {
        delete(self, organization, id, by).await
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
const UPDATE: &str = "update a subscription";
const DELETE: &str = "delete a subscription";
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
    let (organization, plan) = session.organization_with_plan(of).await?;
    let id = Id16::from(subscription.id);
    if session.query_opt(IS_USED, parameters![id]).await?.is_some() {
        return Err(session.refused(StorageErrorKind::Conflict));
    }
    if let Some(limit) = tiers.subscriptions_max(whole(CREATE, plan)?).get() {
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
    SELECT FROM esl.subscriptions
    WHERE organization = $1 AND (deleted_at IS NULL) IS TRUE LIMIT $2
) t";

/// Changes a subscription as it is once its organization is locked.
///
/// Its row is locked, too, and then that of its lane: commits, which lock the organization only if they
/// publish, switch it off and write how its receiver fares.
async fn change(
    storage: &PostgresStorage,
    organization: OrganizationId,
    id: SubscriptionId,
    update: SubscriptionUpdate,
    by: &Actor,
) -> Result<Subscription, StorageError> {
    let mut lease = storage.database().lease(UPDATE).await?;
    let mut session = storage.begin(&mut lease, UPDATE).await?;
    let row = session.organization(organization).await?;
    let found = session.query_opt(&lock_sql(), parameters![Id16::from(id), row.key]).await?;
    let found = found.ok_or_else(|| session.refused(StorageErrorKind::NotFound))?;
    let secrets = storage.secrets();
    let held = subscription_row::subscription(&found, organization, secrets);
    let held = whole(UPDATE, held)?;
    let updated = held.with_update(update, session.now());
    let mut updated =
        updated.map_err(|error| session.refused(StorageErrorKind::Conflict).with_source(error))?;
    if updated == held {
        return Ok(updated);
    }
    encryption_keys::demand_known(&session).await?;
    let state = lock_state(&session, updated.lane).await?;
    if let Some((action, fields)) = held.action_of(&updated) {
        audit::note(&session, organization, by, action, &id.to_string(), &fields).await?;
    }
    updated.updated_at = session.now();
    subscription_row::update(&session, row.key, &updated, UPDATE).await?;
    let next = state.after_update(&held, &updated);
    if next != state {
        write_state(&session, updated.lane, &next).await?;
    }
    if updated.events != held.events {
        session.raise_route_version(row).await?;
    }
    session.tell_others(News::Subscriptions(organization));
    session.commit().await?;
    Ok(updated)
}

fn lock_sql() -> String {
    format!(
        "SELECT {SUBSCRIPTION} FROM esl.subscriptions s
         WHERE s.id = $1 AND s.organization = $2 AND s.deleted_at IS NULL
         FOR NO KEY UPDATE"
    )
}

/// How the receiver of a lane has fared.
async fn lock_state(session: &Session<'_>, lane: LaneId) -> Result<LaneState, StorageError> {
    let text = format!("SELECT {LANE_STATE} FROM esl.lanes l WHERE l.lane = $1 FOR NO KEY UPDATE");
    let row = session.query_opt(&text, parameters![lane_number(lane)]).await?;
    let state = row.map(|row| rows::lane_state(&row, 0)).transpose();
    Ok(whole(UPDATE, state)?.unwrap_or_default())
}

async fn write_state(
    session: &Session<'_>,
    lane: LaneId,
    state: &LaneState,
) -> Result<(), StorageError> {
    let millis = |time: Option<Timestamp>| time.map(Timestamp::as_millis);
    let values = parameters![
        lane_number(lane),
        i64::from(state.failures),
        i64::from(state.failed_deliveries),
        millis(state.failing_since),
        state.open_probes.map(i64::from),
        millis(state.not_before),
        millis(state.last_success_at),
        millis(state.exhaustion_told_at),
    ];
    session.execute(WRITE_STATE, values).await.map(drop)
}

const WRITE_STATE: &str = "
INSERT INTO esl.lanes (lane, failures, failed_deliveries, failing_since, open_probes, not_before,
    last_success_at, exhaustion_told_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (lane) DO UPDATE SET failures = excluded.failures,
    failed_deliveries = excluded.failed_deliveries, failing_since = excluded.failing_since,
    open_probes = excluded.open_probes, not_before = excluded.not_before,
    last_success_at = excluded.last_success_at, exhaustion_told_at = excluded.exhaustion_told_at";

async fn delete(
    storage: &PostgresStorage,
    organization: OrganizationId,
    id: SubscriptionId,
    by: &Actor,
) -> Result<LaneId, StorageError> {
    let mut lease = storage.database().lease(DELETE).await?;
    let mut session = storage.begin(&mut lease, DELETE).await?;
    let row = session.organization(organization).await?;
    // Whatever else its row says: one that is damaged can be deleted, too.
    let values = parameters![Id16::from(id), row.key, session.now().as_millis()];
    let marked = session.query_opt(MARK_DELETED, values).await?;
    let marked = marked.ok_or_else(|| session.refused(StorageErrorKind::NotFound))?;
    let lane = whole(DELETE, lane(&marked, 0))?;
    session.execute(DISOWN, parameters![lane_number(lane)]).await?;
    let (action, subject) = (Action::SubscriptionDeleted, id.to_string());
    audit::note(&session, organization, by, action, &subject, &[]).await?;
    session.raise_route_version(row).await?;
    session.tell_others(News::Subscriptions(organization));
    session.commit().await?;
    Ok(lane)
}

const MARK_DELETED: &str = "
UPDATE esl.subscriptions SET deleted_at = $3
WHERE id = $1 AND organization = $2 AND deleted_at IS NULL
RETURNING lane";

const DISOWN: &str = "DELETE FROM esl.owners WHERE lane = $1";

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

async fn list(
    storage: &PostgresStorage,
    organization: OrganizationId,
    page: Page<LaneId>,
) -> Result<PageOf<Subscription>, StorageError> {
    let operation = "list subscriptions";
    let text = list_sql();
    let mut after = page.after.map_or(0, lane_number);
    let mut reader = PageReader::new(page.limit);
    loop {
        let values = parameters![Id16::from(organization), after, reader.ask()];
        let rows = storage.database().query(operation, &text, values).await?;
        for row in &rows {
            after = whole(operation, get(row, 0))?;
            let read = subscription_row::subscription(row, organization, storage.secrets());
            reader.take(storage.damages().readable(Place::Subscription(after), read));
        }
        if reader.is_done(rows.len()) {
            return Ok(reader.into_page());
        }
    }
}

fn list_sql() -> String {
    format!(
        "SELECT {SUBSCRIPTION}
         FROM esl.organizations g JOIN esl.subscriptions s ON s.organization = g.key
         WHERE g.id = $1 AND g.deleted_at IS NULL AND s.lane > $2
             AND (s.deleted_at IS NULL) IS TRUE
         ORDER BY s.lane LIMIT $3"
    )
}

const COUNT_ALL: &str = "
SELECT count(*)
FROM esl.organizations g JOIN esl.subscriptions s ON s.organization = g.key
WHERE g.id = $1 AND g.deleted_at IS NULL AND (s.deleted_at IS NULL) IS TRUE";

/// One row for each subscription, and one without if there is none: all as of one moment.
fn routes_sql() -> String {
    format!(
        "SELECT g.route_version, g.last_seq, s.lane, s.events, {PLAN}
         FROM esl.organizations g
         LEFT JOIN esl.subscriptions s
             ON s.organization = g.key AND (s.deleted_at IS NULL) IS TRUE
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
