//! Events that wait for their time, until they are moved to the intake.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use esl_core::{
    EventId, Limit, OrganizationId, SealedEvent, Timestamp,
    storage::{
        Change, Page, PageOf, Schedule, ScheduleNumber, Scheduled, StorageError, StorageErrorKind,
    },
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage,
    changes::News,
    damage::Place,
    error::{Damage, refused},
    id::Id16,
    pages::PageReader,
    parameters::parameters,
    rows::{SEALED_EVENT, SealedEvents, get, limit_number, saturated, sealed_event, time, whole},
};

#[async_trait]
impl Schedule for PostgresStorage {
    async fn schedule(
        &self,
        events: Vec<(Timestamp, Arc<SealedEvent>)>,
        at_most: Limit,
    ) -> Result<(), StorageError> {
        schedule(self, &events, at_most).await
    }

    async fn scheduled(
        &self,
        organization: OrganizationId,
        page: Page<ScheduleNumber>,
    ) -> Result<PageOf<Scheduled>, StorageError> {
        list(self, organization, page).await
    }

    async fn unschedule(
        &self,
        organization: OrganizationId,
        id: EventId,
    ) -> Result<(), StorageError> {
        let operation = "unschedule an event";
        let values = parameters![self.suite_time(), Id16::from(organization), Id16::from(id)];
        match self.database().execute(operation, DELETE, values).await? {
            0 => Err(refused(StorageErrorKind::NotFound, operation)),
            _ => Ok(()),
        }
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
        let operation = "look for what is due";
        let row = self.database().query_opt(operation, NEXT_DUE, &[]).await?;
        whole(operation, row.map(|row| time(&row, 0)).transpose())
    }

    async fn release_due(&self, limit: usize) -> Result<usize, StorageError> {
        let values = parameters![self.suite_time(), limit_number(limit)];
        let released = self.database().execute("release what is due", RELEASE, values).await?;
        if released > 0 {
            self.changes().tell(Change::Intake);
            self.notifier().look();
        }
        Ok(usize::try_from(released).unwrap_or(usize::MAX))
    }
}

const SCHEDULE: &str = "schedule events";

/// What is refused is written first, and rolled back: all are there, or none.
async fn schedule(
    storage: &PostgresStorage,
    events: &[(Timestamp, Arc<SealedEvent>)],
    at_most: Limit,
) -> Result<(), StorageError> {
    if events.is_empty() {
        return Ok(());
    }
    let due_at: Vec<i64> = events.iter().map(|(due_at, _)| due_at.as_millis()).collect();
    let columns = SealedEvents::of(events.iter().map(|(_, event)| &**event));
    let organizations: BTreeSet<Id16> = columns.organizations.iter().copied().collect();
    let mut lease = storage.database().lease(SCHEDULE).await?;
    let mut session = storage.begin(&mut lease, SCHEDULE).await?;
    for organization in &organizations {
        session.organization(OrganizationId::from(*organization)).await?;
    }
    let values = parameters![
        due_at,
        columns.organizations,
        columns.ids,
        columns.types,
        columns.times,
        columns.digests,
        columns.bodies,
        columns.changes,
    ];
    let inserted = session.execute(INSERT, values).await?;
    if usize::try_from(inserted).unwrap_or(usize::MAX) < events.len() {
        return Err(session.refused(StorageErrorKind::Conflict));
    }
    if let Some(limit) = at_most.get() {
        let organizations: Vec<Id16> = organizations.into_iter().collect();
        let values = parameters![organizations, saturated(limit)];
        if session.query_opt(IS_BEYOND, values).await?.is_some() {
            return Err(session.refused(StorageErrorKind::OverLimit));
        }
    }
    session.tell_others(News::Schedule);
    session.commit().await?;
    storage.changes().tell(Change::Schedule);
    Ok(())
}

async fn list(
    storage: &PostgresStorage,
    organization: OrganizationId,
    page: Page<ScheduleNumber>,
) -> Result<PageOf<Scheduled>, StorageError> {
    let operation = "list what is scheduled";
    let mut after = page.after.map_or(0, |ScheduleNumber(number)| number.cast_signed());
    let mut reader = PageReader::new(page.limit);
    loop {
        let values = parameters![Id16::from(organization), after, reader.ask()];
        let rows = storage.database().query(operation, &list_sql(), values).await?;
        for row in &rows {
            after = whole(operation, get(row, 0))?;
            let item = scheduled(row, organization);
            reader.take(storage.damages().readable(Place::Scheduled(after), item));
        }
        if reader.is_done(rows.len()) {
            return Ok(reader.into_page());
        }
    }
}

fn scheduled(row: &Row, organization: OrganizationId) -> Result<Scheduled, Damage> {
    Ok(Scheduled {
        number: ScheduleNumber(get::<i64>(row, 0)?.cast_unsigned()),
        due_at: time(row, 1)?,
        event: sealed_event(row, 2, organization)?,
    })
}

/// A range of the index by organization: in the order of their numbers alone, a plan could go through
/// everybody's.
fn list_sql() -> String {
    let event = SEALED_EVENT.replacen("id", "event_id", 1);
    format!(
        "SELECT number, due_at, {event} FROM esl.scheduled
         WHERE (organization, number) > ($1, $2) AND organization <= $1
         ORDER BY organization, number LIMIT $3"
    )
}

const INSERT: &str = "
INSERT INTO esl.scheduled
    (due_at, organization, event_id, event_type, timestamp, digest, body, changes)
SELECT t.due_at, t.organization, t.id, t.type, t.at, t.digest, t.body, t.changes
FROM unnest($1, $2, $3, $4, $5, $6, $7, $8)
    WITH ORDINALITY AS t (due_at, organization, id, type, at, digest, body, changes, n)
ORDER BY t.n
ON CONFLICT (organization, event_id) DO NOTHING";

/// Whether more than so many wait in one of these organizations.
const IS_BEYOND: &str = "
SELECT FROM unnest($1) AS t (organization) CROSS JOIN LATERAL (
    SELECT FROM esl.scheduled q WHERE q.organization = t.organization OFFSET $2 LIMIT 1
) beyond
LIMIT 1";

const DELETE: &str = "
DELETE FROM esl.scheduled q USING (SELECT esl.begin_1($1)) begun
WHERE q.organization = $2 AND q.event_id = $3";

const NEXT_DUE: &str = "SELECT due_at FROM esl.scheduled ORDER BY due_at LIMIT 1";

/// Each once, whoever else does it. A row goes as it is: whether it can be read is for whoever moves the
/// intake to see.
const RELEASE: &str = "
WITH begun AS MATERIALIZED (SELECT esl.begin_1($1) AS now),
due AS (
    SELECT q.number FROM esl.scheduled q WHERE q.due_at <= (SELECT now FROM begun)
    ORDER BY q.due_at, q.number LIMIT $2 FOR UPDATE OF q SKIP LOCKED
),
gone AS (
    DELETE FROM esl.scheduled q USING due WHERE q.number = due.number RETURNING q.*
)
INSERT INTO esl.intake (organization, event_id, event_type, timestamp, digest, body, changes)
SELECT g.organization, g.event_id, g.event_type, g.timestamp, g.digest, g.body, g.changes
FROM gone g ORDER BY g.due_at, g.number";
