//! Reads of events and deliveries.

use async_trait::async_trait;
use esl_core::{
    Attempt, AuditEntry, AuditNumber, Delivery, DeliveryId, DeliveryState, EventId, EventType,
    OrganizationId, Seq, SubscriptionId,
    storage::{Health, Page, PageOf, Records, StorageError, StoredEvent},
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage, audit,
    damage::Place,
    deliveries,
    error::Damage,
    health,
    id::Id16,
    pages::PageReader,
    parameters::parameters,
    rows::{self, STORED_EVENT, get, limit_number, seq, seq_number, stored_event, whole},
};

#[async_trait]
impl Records for PostgresStorage {
    async fn event(
        &self,
        organization: OrganizationId,
        id: EventId,
    ) -> Result<Option<StoredEvent>, StorageError> {
        let operation = "read an event";
        let values = parameters![Id16::from(organization), Id16::from(id)];
        let row = self.database().query_opt(operation, &event_sql(), values).await?;
        whole(operation, row.map(|row| stored_event(&row)).transpose())
    }

    async fn events(
        &self,
        organization: OrganizationId,
        event_type: Option<EventType>,
        page: Page<Seq>,
    ) -> Result<PageOf<StoredEvent>, StorageError> {
        match event_type {
            None => events(self, organization, page).await,
            Some(event_type) => events_of_type(self, organization, &event_type, page).await,
        }
    }

    async fn deliveries(
        &self,
        organization: OrganizationId,
        subscription: SubscriptionId,
        state: Option<DeliveryState>,
        page: Page<Seq>,
    ) -> Result<Option<PageOf<Delivery>>, StorageError> {
        deliveries::list(self, organization, subscription, state, page).await
    }

    async fn health(
        &self,
        organization: OrganizationId,
        subscription: SubscriptionId,
    ) -> Result<Option<Health>, StorageError> {
        health::health(self, organization, subscription).await
    }

    async fn delivery(
        &self,
        organization: OrganizationId,
        id: DeliveryId,
    ) -> Result<Option<(Delivery, Vec<Attempt>)>, StorageError> {
        deliveries::one(self, organization, id).await
    }

    async fn audit(
        &self,
        organization: OrganizationId,
        page: Page<AuditNumber>,
    ) -> Result<PageOf<AuditEntry>, StorageError> {
        audit::list(self, organization, page).await
    }

    async fn check(&self) -> Result<(), StorageError> {
        let values = parameters![self.handle(), self.suite_time()];
        self.database().query_one("write and read", CHECK, values).await.map(drop)
    }
}

const LIST: &str = "list events";

/// Newest first.
async fn events(
    storage: &PostgresStorage,
    organization: OrganizationId,
    page: Page<Seq>,
) -> Result<PageOf<StoredEvent>, StorageError> {
    let mut below = page.after.map_or(i64::MAX, seq_number);
    let mut reader = PageReader::new(page.limit);
    loop {
        let values = parameters![Id16::from(organization), below, reader.ask()];
        let rows = storage.database().query(LIST, &events_sql(), values).await?;
        for row in &rows {
            below = whole(LIST, get(row, 0))?;
            reader.take(whole(LIST, readable(storage, row))?);
        }
        if reader.is_done(rows.len()) {
            return Ok(reader.into_page());
        }
    }
}

/// Newest first; looked for in stretches, since a rare type may be far down.
async fn events_of_type(
    storage: &PostgresStorage,
    organization: OrganizationId,
    event_type: &EventType,
    page: Page<Seq>,
) -> Result<PageOf<StoredEvent>, StorageError> {
    let mut below = page.after.map_or(i64::MAX, seq_number);
    let mut reader = PageReader::new(page.limit);
    loop {
        let asked = reader.ask();
        let organization = Id16::from(organization);
        let values = parameters![organization, below, event_type.as_str(), asked, STRETCH];
        let rows = storage.database().query(LIST, &events_of_type_sql(), values).await?;
        let mut came = 0;
        for row in &rows {
            let Some(seq) = whole(LIST, get::<Option<i64>>(row, 0))? else { break };
            below = seq;
            came += 1;
            reader.take(whole(LIST, readable(storage, row))?);
        }
        if limit_number(came) == asked {
            if reader.is_done(came) {
                return Ok(reader.into_page());
            }
            continue;
        }
        // That was all of the stretch.
        let lowest = rows.first().map_or(Ok(None), |row| get(row, LOWEST));
        match whole(LIST, lowest)? {
            Some(lowest) => below = lowest,
            None => return Ok(reader.into_page()),
        }
    }
}

/// An event, if its row holds what was written there.
fn readable(storage: &PostgresStorage, row: &Row) -> Result<Option<StoredEvent>, Damage> {
    let place = Place::Event(get(row, ORGANIZATION)?, seq(row, 0)?, rows::id(row, 1).ok());
    Ok(storage.damages().readable(place, stored_event(row)))
}

/// As `events_id` has it: so no plan takes the organization for the way to it.
fn event_sql() -> String {
    format!("SELECT {STORED_EVENT} FROM esl.events WHERE id = $2 AND organization + 0 = ({KEY})")
}

fn events_sql() -> String {
    format!(
        "SELECT {STORED_EVENT}, organization FROM esl.events
         WHERE organization = ({KEY}) AND seq < $2 ORDER BY seq DESC LIMIT $3"
    )
}

/// A stretch: what is of the type, or one row without an event; each with where the stretch ends, which is
/// NULL if there is nothing any more.
fn events_of_type_sql() -> String {
    format!(
        "WITH looked_at AS MATERIALIZED (
             SELECT e.organization, e.seq, e.event_type = $3 AS is_wanted FROM esl.events e
             WHERE e.organization = ({KEY}) AND e.seq < $2 ORDER BY e.seq DESC LIMIT $5
         )
         SELECT {STORED_EVENT}, organization, lowest
         FROM (SELECT min(t.seq) AS lowest FROM looked_at t) stretch
         LEFT JOIN LATERAL (
             SELECT f.*
             FROM (
                 SELECT t.organization, t.seq FROM looked_at t
                 WHERE t.is_wanted ORDER BY t.seq DESC LIMIT $4
             ) t
             CROSS JOIN LATERAL (
                 SELECT e.* FROM esl.events e
                 WHERE e.organization = t.organization AND e.seq = t.seq LIMIT 1
             ) f
         ) found ON true
         ORDER BY seq DESC"
    )
}

/// Nothing for an organization that was deleted: another one may have its id.
const KEY: &str = "SELECT g.key FROM esl.organizations g WHERE g.id = $1 AND g.deleted_at IS NULL";

/// The columns that lists have after those of an event.
const ORGANIZATION: usize = 8;
const LOWEST: usize = 9;

/// How many events are looked through at a time: some milliseconds' worth.
const STRETCH: i64 = 10_000;

/// A write of the handle's own row, which goes to the disk as any other.
const CHECK: &str = "
INSERT INTO esl.handles AS h (id, number, used_at) VALUES ($1, 0, esl.begin_1($2))
ON CONFLICT (id) DO UPDATE SET used_at = excluded.used_at
RETURNING h.used_at";
