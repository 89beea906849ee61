//! Reads of events and deliveries.

use async_trait::async_trait;
use esl_core::{
    Attempt, AuditEntry, AuditNumber, Delivery, DeliveryId, DeliveryState, EventId, EventType,
    OrganizationId, Seq, SubscriptionId,
    storage::{Health, Page, PageOf, Records, StorageError, StorageErrorKind, StoredEvent},
};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::storage::{
    SqliteStorage, audit,
    damage::Place,
    deliveries::{self, One},
    error::Stop,
    health,
    readers::Snapshot,
    rows::{self, ATTEMPT, EventKey, STORED_EVENT, lane_number, seq_number},
    session::{Session, read_organization},
    subscriptions::page_of,
};

#[async_trait]
impl Records for SqliteStorage {
    async fn event(
        &self,
        organization: OrganizationId,
        id: EventId,
    ) -> Result<Option<StoredEvent>, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| Ok(event(snapshot, organization, id)?);
        self.readers().run("read an event", work).await
    }

    async fn events(
        &self,
        organization: OrganizationId,
        event_type: Option<EventType>,
        page: Page<Seq>,
    ) -> Result<PageOf<StoredEvent>, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| {
            Ok(match event_type {
                None => events(snapshot, organization, page)?,
                Some(event_type) => events_of_type(snapshot, organization, &event_type, page)?,
            })
        };
        self.readers().run("list events", work).await
    }

    async fn deliveries(
        &self,
        organization: OrganizationId,
        subscription: SubscriptionId,
        state: Option<DeliveryState>,
        page: Page<Seq>,
    ) -> Result<Option<PageOf<Delivery>>, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| {
            Ok(deliveries::list(snapshot, organization, subscription, state, page)?)
        };
        self.readers().run("list deliveries", work).await
    }

    async fn health(
        &self,
        organization: OrganizationId,
        subscription: SubscriptionId,
    ) -> Result<Option<Health>, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| {
            Ok(health::health(snapshot.connection, organization, subscription)?)
        };
        self.readers().run("read a subscription's health", work).await
    }

    async fn delivery(
        &self,
        organization: OrganizationId,
        id: DeliveryId,
    ) -> Result<Option<(Delivery, Vec<Attempt>)>, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| match deliveries::one(snapshot, organization, id)?
        {
            One::Found(delivery) => {
                let attempts = attempts(snapshot.connection, organization, id)?;
                Ok(Some((delivery, attempts)))
            }
            One::Removed => Err(Stop::refused(StorageErrorKind::Gone, "read a delivery")),
            One::Unknown => Ok(None),
        };
        self.readers().run("read a delivery", work).await
    }

    async fn audit(
        &self,
        organization: OrganizationId,
        page: Page<AuditNumber>,
    ) -> Result<PageOf<AuditEntry>, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| Ok(audit::list(snapshot, organization, page)?);
        self.readers().run("read the audit trail", work).await
    }

    async fn check(&self) -> Result<(), StorageError> {
        let write = |session: &mut Session<'_>| {
            let sql = "UPDATE esl_engine SET checked_at = ?1 WHERE one = 1";
            session.connection.prepare_cached(sql)?.execute([session.now.as_millis()])?;
            Ok(session.now)
        };
        self.writer().run("write", 1, write).await?;
        let read = |snapshot: &Snapshot<'_>| {
            let sql = "SELECT checked_at FROM esl_engine WHERE one = 1";
            let mut select = snapshot.connection.prepare_cached(sql)?;
            Ok(select.query_row([], |row| rows::time(row, 0))?)
        };
        self.readers().run("read", read).await?;
        Ok(())
    }
}

fn event(
    snapshot: &Snapshot<'_>,
    organization: OrganizationId,
    id: EventId,
) -> rusqlite::Result<Option<StoredEvent>> {
    let connection = snapshot.connection;
    let Some(organization) = read_organization(connection, organization)? else { return Ok(None) };
    let sql = format!("SELECT {STORED_EVENT} FROM esl_events WHERE id = ?1 AND key >> 40 = ?2");
    let mut select = connection.prepare_cached(&sql)?;
    select.query_row((id.to_bytes(), organization.key), rows::stored_event).optional()
}

/// Newest first.
fn events(
    snapshot: &Snapshot<'_>,
    organization: OrganizationId,
    page: Page<Seq>,
) -> rusqlite::Result<PageOf<StoredEvent>> {
    let connection = snapshot.connection;
    let Some(organization) = read_organization(connection, organization)? else {
        return Ok(PageOf { items: Vec::new(), more: false });
    };
    let below = page.after.unwrap_or(organization.last_seq.next());
    let keys = (organization.event_key(Seq::ZERO).0, organization.event_key(below).0);
    let mut select = connection.prepare_cached(&events_sql(""))?;
    page_of(select.query(keys)?, page.limit, |row| readable(snapshot, row))
}

/// An event, if its row holds what was written there.
fn readable(snapshot: &Snapshot<'_>, row: &Row<'_>) -> rusqlite::Result<Option<StoredEvent>> {
    let place = Place::event(EventKey(row.get(0)?), row, 1);
    snapshot.readable(place, rows::stored_event(row))
}

/// Newest first; looked for in stretches, since a rare type may be far down.
fn events_of_type(
    snapshot: &Snapshot<'_>,
    organization: OrganizationId,
    event_type: &EventType,
    page: Page<Seq>,
) -> rusqlite::Result<PageOf<StoredEvent>> {
    let connection = snapshot.connection;
    let Some(organization) = read_organization(connection, organization)? else {
        return Ok(PageOf { items: Vec::new(), more: false });
    };
    let mut select = connection.prepare_cached(&events_sql("AND event_type = ?3"))?;
    let EventKey(lowest) = organization.event_key(Seq::ZERO);
    let EventKey(mut below) =
        organization.event_key(page.after.unwrap_or(organization.last_seq.next()));
    let mut items = Vec::new();
    while items.len() <= page.limit && below > lowest + 1 {
        let above = lowest.max(below - STRETCH);
        let left = page.limit.saturating_add(1) - items.len();
        let found = select.query((above, below, event_type.as_str()))?;
        items.extend(page_of(found, left, |row| readable(snapshot, row))?.items);
        below = above + 1;
        // What is below stays as it is, so a later moment of the database is as good.
        snapshot.refresh()?;
    }
    let more = items.len() > page.limit;
    items.truncate(page.limit);
    Ok(PageOf { items, more })
}

fn events_sql(condition: &str) -> String {
    format!(
        "SELECT {STORED_EVENT} FROM esl_events WHERE key > ?1 AND key < ?2 {condition}
         ORDER BY key DESC"
    )
}

/// A delivery's id says its lane, and anybody can make one up.
fn attempts(
    connection: &Connection,
    organization: OrganizationId,
    id: DeliveryId,
) -> rusqlite::Result<Vec<Attempt>> {
    let mut select = connection.prepare_cached(&attempts_sql())?;
    let parameters = (lane_number(id.lane()), seq_number(id.seq()), organization.to_bytes());
    select.query_map(parameters, rows::attempt)?.collect()
}

fn attempts_sql() -> String {
    format!(
        "SELECT {ATTEMPT} FROM esl_attempts
         WHERE lane = ?1 AND seq = ?2 AND EXISTS (
             SELECT 1 FROM esl_subscriptions s JOIN esl_organizations o ON o.key = s.organization
             WHERE s.lane = ?1 AND o.id = ?3)
         ORDER BY number"
    )
}

/// How many events are looked through at a time: some milliseconds' worth.
const STRETCH: i64 = 10_000;

#[cfg(test)]
mod tests {
    use esl_core::Timestamp;
    use rusqlite::Connection;

    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn events_are_a_range_of_the_key() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        for condition in ["", "AND event_type = ?3"] {
            let key = "SEARCH esl_events USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)";
            assert_plan(&connection, &events_sql(condition), &[key]);
        }
    }

    #[test]
    fn attempts_are_found_by_search_and_only_for_their_own_organization() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let key = "SEARCH esl_attempts USING PRIMARY KEY (lane=? AND seq=?)";
        let subquery = ["SCALAR SUBQUERY", "SEARCH s USING INTEGER PRIMARY KEY"];
        let organization = ["SEARCH o USING", "SEARCH s USING"];
        let steps = [key, subquery[0], subquery[1], organization[0], organization[1]];
        assert_plan(&connection, &attempts_sql(), &steps);

        let rows = "
            INSERT INTO esl_organizations (key, id, name, created_at)
            VALUES (1, x'01010101010101010101010101010101', 'a', 0),
                (2, x'02020202020202020202020202020202', 'b', 0);
            INSERT INTO esl_subscriptions (lane, id, organization, callback_url, events, secret,
                active, send_order, on_exhausted, created_at, updated_at)
            VALUES (7, x'07', 1, '', '', '', 1, '', '', 0, 0);
            INSERT INTO esl_attempts (lane, seq, number, started_at, probe, charged, total_ns)
            VALUES (7, 3, 1, 0, 0, 1, 5);";
        connection.execute_batch(rows).unwrap();
        let event = EventId::from_bytes([9; 16]);
        let id = DeliveryId::new(event, Seq::new(3), esl_core::LaneId::new(7));
        for (organization, count) in [(1, 1), (2, 0), (3, 0)] {
            let organization = OrganizationId::from_bytes([organization; 16]);
            let found = attempts(&connection, organization, id).unwrap();
            assert_eq!(found.len(), count, "{organization}");
        }
    }
}
