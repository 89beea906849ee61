//! Erasing what an event said.

use esl_core::{
    BlobKey, EventId, OrganizationId, erased,
    storage::{Erased, StorageError, StorageErrorKind},
};
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::oneshot;

use crate::{
    SqliteStorage, blobs,
    changes::News,
    error::Stop,
    rows::{self, Ending, EventKey, SEALED_EVENT, seq_number},
    session::Session,
};

pub(crate) const ERASE: &str = "erase an event";

/// The organizations that have an event of that id, in the intake, too.
pub(crate) fn find(connection: &Connection, id: EventId) -> rusqlite::Result<Vec<OrganizationId>> {
    let sql = "SELECT o.id FROM esl_events e JOIN esl_organizations o ON o.key = e.key >> 40
               WHERE e.id = ?1 AND o.deleted_at IS NULL
               UNION
               SELECT organization FROM esl_intake WHERE event_id = ?1";
    let mut select = connection.prepare_cached(sql)?;
    let found =
        select.query_map([id.to_bytes()], |row| Ok(OrganizationId::from_bytes(row.get(0)?)))?;
    found.collect()
}

/// Puts an event without what it said in place of the event, and cancels what is owed of it.
pub(crate) fn erase(
    session: &mut Session<'_>,
    organization: OrganizationId,
    id: EventId,
) -> Result<Erased, Stop> {
    let not_found = || Stop::refused(StorageErrorKind::NotFound, ERASE);
    let row = session.organization(organization)?.ok_or_else(not_found)?;
    let connection = session.connection;
    let waiting = "SELECT substr(body, 1, 1024) FROM esl_intake
                   WHERE organization = ?1 AND event_id = ?2";
    let ids = (organization.to_bytes(), id.to_bytes());
    let mut waiting = connection.prepare_cached(waiting)?;
    let waiting = waiting.query_map(ids, blobs::named)?.collect::<Result<Vec<_>, _>>()?;
    let sql = format!(
        "SELECT {SEALED_EVENT}, key, erased_at IS NOT NULL
         FROM esl_events WHERE id = ?1 AND key >> 40 = ?2"
    );
    let mut select = connection.prepare_cached(&sql)?;
    let event = select.query_row((id.to_bytes(), row.key), |row| {
        let event = rows::sealed_event(row, 0, organization)?;
        Ok((event, EventKey(row.get(6)?), row.get::<_, bool>(7)?))
    });
    let event = event.optional()?;
    if event.is_none() && waiting.is_empty() {
        return Err(not_found());
    }
    session.overwrite_freed()?;
    let intake = "DELETE FROM esl_intake WHERE organization = ?1 AND event_id = ?2";
    connection.prepare_cached(intake)?.execute(ids)?;
    let mut erasure = Erased { before: false, blobs: waiting.into_iter().flatten().collect() };
    let Some((event, key, was_erased)) = event else { return Ok(erasure) };
    if was_erased {
        return Ok(Erased { before: true, ..erasure });
    }
    erasure.blobs.extend(BlobKey::named_by(&event.body));
    let update = "UPDATE esl_events SET body = ?2, changes = NULL, erased_at = ?3 WHERE key = ?1";
    let now = session.now.as_millis();
    connection.prepare_cached(update)?.execute((key.0, &*erased(&event), now))?;

    let seq = seq_number(key.seq());
    let fan_out = "DELETE FROM esl_fan_outs WHERE organization = ?1 AND seq = ?2";
    let ended = connection.prepare_cached(fan_out)?.execute((row.key, seq))?;
    if ended > 0 {
        session.change_organization(organization, |row| row.fan_outs -= 1);
    }
    let lanes = "SELECT lane FROM esl_subscriptions WHERE organization = ?1";
    let mut lanes = connection.prepare_cached(lanes)?;
    let lanes = lanes.query_map([row.key], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    let mut forget = connection.prepare_cached(FORGET)?;
    let mut due = connection.prepare_cached(DUE)?;
    let mut close = connection.prepare_cached(crate::sweep::CLOSE)?;
    let mut remove = connection.prepare_cached(crate::sweep::REMOVE)?;
    for lane in lanes {
        forget.execute((lane, seq))?;
        if let Some(due_at) = due.query_row((lane, seq), |row| row.get::<_, i64>(0)).optional()? {
            close.execute((lane, due_at, seq, Ending::Cancelled.number(), now))?;
            remove.execute((lane, due_at, seq))?;
        }
    }
    session.tell_others(News::Erased(organization))?;
    Ok(erasure)
}

const FORGET: &str = "UPDATE esl_attempts SET detail = NULL WHERE lane = ?1 AND seq = ?2";

const DUE: &str = "
SELECT due_at FROM esl_open WHERE lane = ?1 AND due_at = 0 AND seq = ?2
UNION ALL
SELECT due_at FROM esl_open INDEXED BY esl_open_tried
WHERE lane = ?1 AND seq = ?2 AND due_at > 0";

impl SqliteStorage {
    /// Comes back when nothing of what was erased is left in the WAL, or when that takes too long: then
    /// it is emptied as soon as nobody reads it.
    pub(crate) async fn wash(&self) -> Result<(), StorageError> {
        let (caller, washed) = oneshot::channel();
        let work = move |session: &mut Session<'_>| {
            session.effects.washed.push(caller);
            Ok(())
        };
        self.writer().run(ERASE, 1, work).await?;
        // A writer that ends empties the WAL if it can.
        if !washed.await.unwrap_or(true) {
            tracing::warn!(
                "somebody reads from the WAL, a backup perhaps: until that is over, what was erased \
                 is still in it"
            );
        }
        Ok(())
    }
}
