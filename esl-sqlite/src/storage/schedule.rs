//! Events that wait for their time, until they are moved to the intake.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use async_trait::async_trait;
use esl_core::{
    EventId, Limit, OrganizationId, SealedEvent, Timestamp,
    storage::{
        Change, Page, PageOf, Schedule, ScheduleNumber, Scheduled, StorageError, StorageErrorKind,
    },
};
use rusqlite::OptionalExtension;

use crate::storage::{
    SqliteStorage,
    changes::News,
    damage::Place,
    error::Stop,
    readers::Snapshot,
    rows::{self, SEALED_EVENT},
    session::Session,
    subscriptions::page_of,
};

#[async_trait]
impl Schedule for SqliteStorage {
    async fn schedule(
        &self,
        events: Vec<(Timestamp, Arc<SealedEvent>)>,
        at_most: Limit,
    ) -> Result<(), StorageError> {
        let weight = events.len();
        let work = move |session: &mut Session<'_>| schedule(session, &events, at_most);
        self.writer().run(SCHEDULE, weight, work).await
    }

    async fn scheduled(
        &self,
        organization: OrganizationId,
        page: Page<ScheduleNumber>,
    ) -> Result<PageOf<Scheduled>, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| Ok(list(snapshot, organization, page)?);
        self.readers().run("list what is scheduled", work).await
    }

    async fn unschedule(
        &self,
        organization: OrganizationId,
        id: EventId,
    ) -> Result<(), StorageError> {
        let work = move |session: &mut Session<'_>| {
            let mut delete = session.connection.prepare_cached(DELETE)?;
            match delete.execute((organization.to_bytes(), id.to_bytes()))? {
                0 => Err(Stop::refused(StorageErrorKind::NotFound, UNSCHEDULE)),
                _ => Ok(()),
            }
        };
        self.writer().run(UNSCHEDULE, 1, work).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StorageError> {
        let work = |snapshot: &Snapshot<'_>| {
            let mut select = snapshot.connection.prepare_cached(NEXT_DUE)?;
            Ok(select.query_row([], |row| rows::time(row, 0)).optional()?)
        };
        self.readers().run("look for what is due", work).await
    }

    async fn release_due(&self, limit: usize) -> Result<usize, StorageError> {
        let work = move |session: &mut Session<'_>| Ok(release(session, limit)?);
        self.writer().run("release what is due", limit, work).await
    }
}

const SCHEDULE: &str = "schedule events";
const UNSCHEDULE: &str = "unschedule an event";

/// Every check comes before the first write.
fn schedule(
    session: &mut Session<'_>,
    events: &[(Timestamp, Arc<SealedEvent>)],
    at_most: Limit,
) -> Result<(), Stop> {
    let refused = |kind| Stop::refused(kind, SCHEDULE);
    let mut new: HashMap<OrganizationId, HashSet<EventId>> = HashMap::new();
    for (_, event) in events {
        let organization = event.organization;
        if session.organization(organization)?.is_none() {
            return Err(refused(StorageErrorKind::NotFound));
        }
        let new = new.entry(organization).or_default();
        let id = organization.to_bytes();
        let waits = session.connection.prepare_cached(WAITS)?.exists((id, event.id.to_bytes()))?;
        if waits || !new.insert(event.id) {
            return Err(refused(StorageErrorKind::Conflict));
        }
        let mut count = session.connection.prepare_cached(COUNT)?;
        let count: u32 = count.query_row([id], |row| row.get(0))?;
        if !at_most.allows(u64::from(count) + new.len() as u64) {
            return Err(refused(StorageErrorKind::OverLimit));
        }
    }
    let mut insert = session.connection.prepare_cached(INSERT)?;
    for (due_at, event) in events {
        insert.execute((
            due_at.as_millis(),
            event.organization.to_bytes(),
            event.id.to_bytes(),
            event.event_type.as_str(),
            event.timestamp.as_millis(),
            event.digest,
            &*event.body,
            event.changes.as_deref(),
        ))?;
    }
    session.effects.changes.push(Change::Schedule);
    Ok(session.tell_others(News::Schedule)?)
}

fn list(
    snapshot: &Snapshot<'_>,
    organization: OrganizationId,
    page: Page<ScheduleNumber>,
) -> rusqlite::Result<PageOf<Scheduled>> {
    let after = page.after.map_or(0, |ScheduleNumber(number)| number.cast_signed());
    let mut select = snapshot.connection.prepare_cached(&list_sql())?;
    page_of(select.query((organization.to_bytes(), after))?, page.limit, |row| {
        let number: i64 = row.get(0)?;
        let read = || {
            Ok(Scheduled {
                number: ScheduleNumber(number.cast_unsigned()),
                due_at: rows::time(row, 1)?,
                event: rows::sealed_event(row, 2, organization)?,
            })
        };
        snapshot.readable(Place::Scheduled(number), read())
    })
}

fn list_sql() -> String {
    let event = SEALED_EVENT.replacen("id", "event_id", 1);
    format!(
        "SELECT number, due_at, {event} FROM esl_scheduled
         WHERE organization = ?1 AND number > ?2 ORDER BY number"
    )
}

/// A row goes as it is: whether it can be read is for whoever moves the intake to see.
fn release(session: &mut Session<'_>, limit: usize) -> rusqlite::Result<usize> {
    let connection = session.connection;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut select = connection.prepare_cached(DUE)?;
    let due: Vec<i64> = select
        .query_map((session.now.as_millis(), limit), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut release = connection.prepare_cached(RELEASE)?;
    let mut delete = connection.prepare_cached(RELEASED)?;
    for number in &due {
        release.execute([number])?;
        delete.execute([number])?;
    }
    if !due.is_empty() {
        session.effects.changes.push(Change::Intake);
    }
    Ok(due.len())
}

const INSERT: &str = "
INSERT INTO esl_scheduled
    (due_at, organization, event_id, event_type, timestamp, digest, body, changes)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

const WAITS: &str = "SELECT 1 FROM esl_scheduled WHERE organization = ?1 AND event_id = ?2";

const COUNT: &str = "SELECT count(*) FROM esl_scheduled WHERE organization = ?1";

const DELETE: &str = "DELETE FROM esl_scheduled WHERE organization = ?1 AND event_id = ?2";

const NEXT_DUE: &str = "SELECT due_at FROM esl_scheduled ORDER BY due_at LIMIT 1";

const DUE: &str = "
SELECT number FROM esl_scheduled WHERE due_at <= ?1 ORDER BY due_at, number LIMIT ?2";

const RELEASE: &str = "
INSERT INTO esl_intake (organization, event_id, event_type, timestamp, digest, body, changes)
SELECT organization, event_id, event_type, timestamp, digest, body, changes
FROM esl_scheduled WHERE number = ?1";

const RELEASED: &str = "DELETE FROM esl_scheduled WHERE number = ?1";

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn what_is_scheduled_is_found_by_search() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let event = "INDEX esl_scheduled_by_event (organization=? AND event_id=?)";
        let by_number = "SEARCH esl_scheduled USING INTEGER PRIMARY KEY (rowid=?)";
        for (sql, plan) in [
            (WAITS, format!("SEARCH esl_scheduled USING COVERING {event}")),
            (COUNT, "SEARCH esl_scheduled USING COVERING INDEX".to_owned()),
            (DELETE, format!("SEARCH esl_scheduled USING {event}")),
            (
                &list_sql(),
                "SEARCH esl_scheduled USING INDEX esl_scheduled_by_organization \
                 (organization=? AND number>?)"
                    .to_owned(),
            ),
            (NEXT_DUE, "SCAN esl_scheduled USING COVERING INDEX esl_scheduled_by_due".to_owned()),
            (
                DUE,
                "SEARCH esl_scheduled USING COVERING INDEX esl_scheduled_by_due (due_at<?)"
                    .to_owned(),
            ),
            (RELEASE, by_number.to_owned()),
            (RELEASED, by_number.to_owned()),
        ] {
            assert_plan(&connection, sql, &[&plan]);
        }
    }
}
