//! Erasing what an event said.

use bytes::Bytes;
use esl_core::{
    BlobKey, EventId, OrganizationId, SealedEvent, Timestamp, erased,
    storage::{Change, Erased, StorageError, StorageErrorKind, encoding::Ending},
};
use rusqlite::{Connection, OptionalExtension, Row};
use tokio::sync::oneshot;

use crate::storage::{
    SqliteStorage, blobs,
    changes::News,
    cleaning,
    error::Stop,
    removal::Slice,
    rows::{self, EventKey, SEALED_EVENT, seq_number},
    session::Session,
    washing,
};

const ERASE: &str = "erase an event";

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

/// Puts an event without what it said in place of the event: from now on nothing of it is handed out.
/// What is owed of it, and what was answered to it, is left to [`go_on`] with the key that is given; what
/// is yet to be owed of it, to [`fan_out::expand`](crate::storage::fan_out::expand).
fn begin(
    session: &mut Session<'_>,
    organization: OrganizationId,
    id: EventId,
) -> Result<(Erased, Option<EventKey>), Stop> {
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
        Ok((shell(row, (organization, id), session.now)?, EventKey(row.get(6)?), row.get(7)?))
    });
    let event: Option<(SealedEvent, EventKey, bool)> = event.optional()?;
    if event.is_none() && waiting.is_empty() {
        return Err(not_found());
    }
    let removed = connection.prepare_cached(REMOVE_INTAKE)?.execute(ids)?;
    if removed > 0 {
        cleaning::demand(session)?;
    }
    let mut erasure = Erased { before: false, blobs: waiting.into_iter().flatten().collect() };
    let Some((event, key, was_erased)) = event else { return Ok((erasure, None)) };
    if was_erased {
        // Perhaps a process ended in the middle of it.
        return Ok((Erased { before: true, ..erasure }, Some(key)));
    }
    erasure.blobs.extend(BlobKey::named_by(&event.body));
    let update = "UPDATE esl_events SET event_type = ?2, timestamp = ?3, digest = ?4, body = ?5,
                      changes = NULL, erased_at = ?6 WHERE key = ?1";
    connection.prepare_cached(update)?.execute((
        key.0,
        event.event_type.as_str(),
        event.timestamp.as_millis(),
        event.digest,
        &*erased(&event),
        session.now.as_millis(),
    ))?;
    cleaning::demand(session)?;

    let left = "INSERT OR REPLACE INTO esl_erasures (event, after_lane) VALUES (?1, 0)";
    connection.prepare_cached(left)?.execute([key.0])?;
    // To this handle's own engine, too: until the last slice is done, the call has not come back.
    session.effects.changes.push(Change::Erased(organization));
    session.tell_others(News::Erased(organization))?;
    Ok((erasure, Some(key)))
}

/// What is kept of an event, and what it says, as far as that can be read: erasing is how one gets rid of
/// what is damaged.
fn shell(
    row: &Row<'_>,
    (organization, id): (OrganizationId, EventId),
    now: Timestamp,
) -> rusqlite::Result<SealedEvent> {
    let body = row.get_ref(4)?.as_bytes_or_null().ok().flatten().unwrap_or_default();
    Ok(SealedEvent {
        id,
        organization,
        event_type: rows::parsed(row, 1).unwrap_or_else(|_| DAMAGED.parse().expect("a type")),
        timestamp: rows::time(row, 2).unwrap_or(now),
        digest: row.get(3).unwrap_or(None),
        body: Bytes::copy_from_slice(body),
        changes: None,
    })
}

/// The type of an erased event whose own cannot be read.
const DAMAGED: &str = "system.damaged";

/// Cancels what is owed of an erased event, and takes what receivers said to it from the attempts, in at
/// most `limit` lanes; true when none is left.
fn go_on(session: &mut Session<'_>, event: EventKey, limit: usize) -> rusqlite::Result<bool> {
    let connection = session.connection;
    let after = "SELECT after_lane FROM esl_erasures WHERE event = ?1";
    let mut after = connection.prepare_cached(after)?;
    let after = after.query_row([event.0], |row| row.get::<_, i64>(0)).optional()?;
    let Some(after) = after else { return Ok(true) };
    let mut lanes = connection.prepare_cached(LANES)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let lanes = lanes.query_map((event.organization(), after, limit), |row| row.get(0))?;
    let lanes = lanes.collect::<Result<Vec<i64>, _>>()?;
    let mut forget = connection.prepare_cached(FORGET)?;
    let mut due = connection.prepare_cached(DUE)?;
    let mut close = connection.prepare_cached(crate::storage::sweep::CLOSE)?;
    let mut remove = connection.prepare_cached(crate::storage::sweep::REMOVE)?;
    let (seq, now) = (seq_number(event.seq()), session.now.as_millis());
    for lane in &lanes {
        forget.execute((lane, seq))?;
        if let Some(due_at) = due.query_row((lane, seq), |row| row.get::<_, i64>(0)).optional()? {
            close.execute((lane, due_at, seq, Ending::Cancelled.number(), now))?;
            remove.execute((lane, due_at, seq))?;
        }
    }
    match lanes.last() {
        Some(last) => {
            let stands = "UPDATE esl_erasures SET after_lane = ?2 WHERE event = ?1";
            connection.prepare_cached(stands)?.execute((event.0, last))?;
            Ok(false)
        }
        None => {
            let done = "DELETE FROM esl_erasures WHERE event = ?1";
            connection.prepare_cached(done)?.execute([event.0])?;
            Ok(true)
        }
    }
}

/// Goes on with what a process has not come to the end of; true when there is none.
pub(crate) fn resume(session: &mut Session<'_>, slice: &mut Slice) -> rusqlite::Result<bool> {
    let next = "SELECT event FROM esl_erasures ORDER BY event LIMIT 1";
    while slice.left > 0 {
        let mut next = session.connection.prepare_cached(next)?;
        let event = next.query_row([], |row| row.get(0).map(EventKey)).optional()?;
        let Some(event) = event else { return Ok(true) };
        let lanes = slice.left.min(LANES_MAX);
        go_on(session, event, lanes)?;
        slice.use_up(lanes);
    }
    Ok(false)
}

/// Lanes of a slice: a millisecond or two.
const LANES_MAX: usize = 500;

const LANES: &str = "
SELECT lane FROM esl_subscriptions WHERE organization = ?1 AND lane > ?2 ORDER BY lane LIMIT ?3";

const REMOVE_INTAKE: &str = "DELETE FROM esl_intake WHERE organization = ?1 AND event_id = ?2";

const FORGET: &str = "UPDATE esl_attempts SET detail = NULL WHERE lane = ?1 AND seq = ?2";

const DUE: &str = "
SELECT due_at FROM esl_open WHERE lane = ?1 AND due_at = 0 AND seq = ?2
UNION ALL
SELECT due_at FROM esl_open INDEXED BY esl_open_tried
WHERE lane = ?1 AND seq = ?2 AND due_at > 0";

impl SqliteStorage {
    /// Erases an event, and comes back when nothing of it is left.
    pub(crate) async fn erase(
        &self,
        organization: OrganizationId,
        id: EventId,
    ) -> Result<Erased, StorageError> {
        let work = move |session: &mut Session<'_>| begin(session, organization, id);
        let (erased, event) = self.writer().run(ERASE, 1, work).await?;
        if let Some(event) = event {
            // Between the slices the writer does what others want.
            let slice = move |session: &mut Session<'_>| Ok(go_on(session, event, LANES_MAX)?);
            while !self.writer().run(ERASE, LANES_MAX, slice).await? {}
        }
        if !self.clean_up().await? {
            tracing::warn!(
                "somebody has read from the WAL for {}s, a backup perhaps: what was erased is still \
                 in it until that is over and a running server has emptied it, which it tries once a \
                 minute, or the event was erased once more",
                washing::PATIENCE.as_secs()
            );
        }
        Ok(erased)
    }

    /// Comes back when the WAL was emptied, or with false when that takes too long: then it is emptied as
    /// soon as nobody reads it.
    pub(crate) async fn wash(&self) -> Result<bool, StorageError> {
        let (caller, washed) = oneshot::channel();
        let work = move |session: &mut Session<'_>| {
            session.effects.washed.push(caller);
            Ok(())
        };
        self.writer().run(ERASE, 1, work).await?;
        // A writer that ends empties the WAL if it can.
        Ok(washed.await.unwrap_or(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn what_is_left_of_an_erased_event_is_found_by_search() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let lanes = "SEARCH esl_subscriptions USING COVERING INDEX esl_subscriptions_by_organi";
        assert_plan(&connection, LANES, &[lanes]);
        let attempts = "SEARCH esl_attempts USING PRIMARY KEY (lane=? AND seq=?)";
        assert_plan(&connection, FORGET, &[attempts]);
        let untried = "SEARCH esl_open USING PRIMARY KEY (lane=? AND due_at=? AND seq";
        let tried = ["INDEX", "COVERING INDEX"]
            .map(|kind| format!("SEARCH esl_open USING {kind} esl_open_tried (lane=? AND seq"));
        let union = ["COMPOUND QUERY", "LEFT-MOST SUBQUERY", "UNION ALL"];
        let steps = [union[0], union[1], union[2], untried, &tried[0], &tried[1]];
        assert_plan(&connection, DUE, &steps);
        let ids =
            "SEARCH esl_intake USING INDEX esl_intake_by_event (event_id=? AND organization=?)";
        assert_plan(&connection, REMOVE_INTAKE, &[ids]);
    }
}
