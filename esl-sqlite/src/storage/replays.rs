//! Replays: ranges of events that are sent again, a step at a time.

use std::num::NonZeroU32;

use async_trait::async_trait;
use esl_core::{
    EventType, LaneId, OrganizationId, Replay, ReplayId, ReplayNumber, ReplayOf, ReplayRange,
    ReplayState, Seq, SubscriptionId, Timestamp,
    storage::{
        Candidates, Page, PageOf, ReplayStep, Replays, StorageError, StorageErrorKind, Worker,
        encoding::{self, Ending},
    },
};
use rusqlite::{Connection, OptionalExtension, Row, types::Type};

use crate::storage::{
    SqliteStorage,
    changes::News,
    error::Stop,
    readers::Snapshot,
    rows::{self, EventKey, damaged, lane_number, seq_number},
    session::{OrganizationRow, Session, read_organization},
    settle::retry_time,
    subscriptions::page_of,
};

#[async_trait]
impl Replays for SqliteStorage {
    async fn create_replay(&self, replay: Replay) -> Result<Replay, StorageError> {
        let work = move |session: &mut Session<'_>| create(session, replay);
        self.writer().run(CREATE, 1, work).await
    }

    async fn replay(
        &self,
        organization: OrganizationId,
        id: ReplayId,
    ) -> Result<Option<Replay>, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| Ok(one(snapshot.connection, organization, id)?);
        self.readers().run("read a replay", work).await
    }

    async fn replays(
        &self,
        organization: OrganizationId,
        subscription: SubscriptionId,
        page: Page<ReplayNumber>,
    ) -> Result<Option<PageOf<Replay>>, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| {
            Ok(list(snapshot.connection, organization, subscription, page)?)
        };
        self.readers().run("list replays", work).await
    }

    async fn cancel_replay(
        &self,
        organization: OrganizationId,
        id: ReplayId,
    ) -> Result<Replay, StorageError> {
        let work = move |session: &mut Session<'_>| cancel(session, organization, id);
        self.writer().run(CANCEL, 1, work).await
    }

    async fn running_replays(
        &self,
        after: ReplayNumber,
        limit: usize,
    ) -> Result<Vec<Replay>, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| {
            let mut select = snapshot.connection.prepare_cached(&running_sql())?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let found = select.query_map((after.0.cast_signed(), limit), replay)?;
            Ok(found.collect::<Result<_, _>>()?)
        };
        self.readers().run("look for replays", work).await
    }

    async fn candidates(&self, replay: &Replay, limit: usize) -> Result<Candidates, StorageError> {
        let replay = replay.clone();
        let work =
            move |snapshot: &Snapshot<'_>| Ok(candidates(snapshot.connection, &replay, limit)?);
        self.readers().run("look for what a replay is of", work).await
    }

    async fn advance_replay(
        &self,
        worker: &Worker,
        step: ReplayStep,
    ) -> Result<Replay, StorageError> {
        let worker = *worker;
        let weight = 1 + step.seqs.len();
        let work = move |session: &mut Session<'_>| {
            session.demand_running(&worker, ADVANCE)?;
            advance(session, &step)
        };
        self.writer().run(ADVANCE, weight, work).await
    }
}

const CREATE: &str = "create a replay";
const CANCEL: &str = "cancel a replay";
const ADVANCE: &str = "advance a replay";

fn create(session: &mut Session<'_>, mut replay: Replay) -> Result<Replay, Stop> {
    let not_found = || Stop::refused(StorageErrorKind::NotFound, CREATE);
    let organization = session.organization(replay.organization)?.ok_or_else(not_found)?;
    let connection = session.connection;
    let lane = "SELECT lane FROM esl_subscriptions
                WHERE id = ?1 AND organization = ?2 AND deleted_at IS NULL";
    let parameters = (replay.subscription.to_bytes(), organization.key);
    let lane = connection.prepare_cached(lane)?.query_row(parameters, |row| rows::lane(row, 0));
    replay.lane = lane.optional()?.ok_or_else(not_found)?;
    let mut last = connection.prepare_cached(LAST_IS_RUNNING)?;
    let last = last.query_row([lane_number(replay.lane)], |row| row.get(0)).optional()?;
    if last == Some(true) {
        return Err(Stop::refused(StorageErrorKind::Conflict, CREATE));
    }
    replay.range.to = replay.range.to.min(organization.last_seq);
    let insert = "INSERT INTO esl_replays
                      (id, lane, kind, from_seq, to_seq, since, until, max_per_second, state,
                       position, opened, created_at)
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
                  RETURNING number";
    let parameters = (
        replay.id.to_bytes(),
        lane_number(replay.lane),
        encoding::replay_of_number(&replay.of),
        seq_number(replay.range.from),
        seq_number(replay.range.to),
        replay.range.since.map(Timestamp::as_millis),
        replay.range.until.map(Timestamp::as_millis),
        replay.max_per_second.get(),
        replay.state.as_str(),
        seq_number(replay.position),
        replay.opened.cast_signed(),
        replay.created_at.as_millis(),
    );
    let number: i64 = connection.prepare_cached(insert)?.query_one(parameters, |row| row.get(0))?;
    replay.number = ReplayNumber(number.cast_unsigned());
    session.tell_others(News::Replays)?;
    Ok(replay)
}

fn cancel(
    session: &mut Session<'_>,
    organization: OrganizationId,
    id: ReplayId,
) -> Result<Replay, Stop> {
    let found = one(session.connection, organization, id)?;
    let mut replay = found.ok_or(Stop::refused(StorageErrorKind::NotFound, CANCEL))?;
    if replay.state == ReplayState::Running {
        replay.state = ReplayState::Cancelled;
        replay.finished_at = Some(session.now);
        write(session, &replay)?;
    }
    Ok(replay)
}

fn advance(session: &mut Session<'_>, step: &ReplayStep) -> Result<Replay, Stop> {
    let conflict = || Stop::refused(StorageErrorKind::Conflict, ADVANCE);
    let organization = session.organization(step.organization)?.ok_or_else(conflict)?;
    let found = one(session.connection, step.organization, step.replay)?;
    let mut replay = found.ok_or_else(conflict)?;
    if replay.state != ReplayState::Running || replay.position != step.from {
        return Err(conflict());
    }
    let reachable = reachable(session.connection, organization.key)?;
    let lane = Lane { connection: session.connection, lane: replay.lane, organization };
    for seq in step.seqs.iter().filter(|seq| **seq <= reachable) {
        replay.opened += u64::from(lane.open(*seq, &replay.of, session.now)?);
    }
    replay.position = step.to;
    if step.is_done {
        replay.state = ReplayState::Done;
        replay.finished_at = Some(session.now);
    }
    write(session, &replay)?;
    session.tell_others(News::Lanes)?;
    Ok(replay)
}

fn write(session: &Session<'_>, replay: &Replay) -> rusqlite::Result<()> {
    session.connection.prepare_cached(UPDATE)?.execute((
        replay.number.0.cast_signed(),
        replay.state.as_str(),
        seq_number(replay.position),
        replay.opened.cast_signed(),
        replay.finished_at.map(Timestamp::as_millis),
        replay.organization.to_bytes(),
    ))?;
    Ok(())
}

fn candidates(
    connection: &Connection,
    replay: &Replay,
    limit: usize,
) -> rusqlite::Result<Candidates> {
    let mut found = Candidates { position: replay.position, ..Candidates::default() };
    let Some(organization) = read_organization(connection, replay.organization)? else {
        found.is_end = true;
        return Ok(found);
    };
    // What is old is not opened any more.
    found.position = found.position.max(organization.removed_to);
    let to = replay.range.to.min(reachable(connection, organization.key)?);
    if to > found.position {
        let lane = Lane { connection, lane: replay.lane, organization };
        match replay.of {
            ReplayOf::Deliveries { delivered: false, .. } => {
                lane.undelivered(replay, to, limit, &mut found)?;
            }
            _ => lane.walk(replay, to, limit, &mut found)?,
        }
    }
    found.is_end = found.position >= replay.range.to;
    Ok(found)
}

/// Up to where all deliveries of an organization's events have come to be.
fn reachable(connection: &Connection, organization: i64) -> rusqlite::Result<Seq> {
    let mut first = connection.prepare_cached(FIRST_FAN_OUT)?;
    let first = first.query_row([organization], |row| rows::seq(row, 0)).optional()?;
    Ok(first.map_or(Seq::MAX, |seq| Seq::new(seq.get() - 1)))
}

/// The lane of a replay's subscription.
struct Lane<'c> {
    connection: &'c Connection,
    lane: LaneId,
    organization: OrganizationRow,
}

impl Lane<'_> {
    /// Goes through the events.
    fn walk(
        &self,
        replay: &Replay,
        to: Seq,
        limit: usize,
        found: &mut Candidates,
    ) -> rusqlite::Result<()> {
        let mut select = self.connection.prepare_cached(EVENTS)?;
        let EventKey(above) = self.organization.event_key(found.position);
        let EventKey(to_key) = self.organization.event_key(to);
        let mut rows = select.query((above, to_key, LOOKED_AT_MAX))?;
        let mut looked_at = 0;
        while let Some(row) = rows.next()? {
            if found.events.len() == limit {
                return Ok(());
            }
            let seq = EventKey(row.get(0)?).seq();
            looked_at += 1;
            found.position = seq;
            let is_wanted = !row.get::<_, bool>(3)?
                && rows::audience(row, 4)?.includes(self.lane)
                && replay.range.covers(rows::time(row, 2)?);
            if is_wanted && self.is_candidate(seq, &replay.of)? {
                found.events.push((seq, rows::parsed::<EventType>(row, 1)?));
            }
        }
        if looked_at < LOOKED_AT_MAX {
            found.position = to;
        }
        Ok(())
    }

    /// Goes through what was not delivered, of which there is an index.
    fn undelivered(
        &self,
        replay: &Replay,
        to: Seq,
        limit: usize,
        found: &mut Candidates,
    ) -> rusqlite::Result<()> {
        let mut select = self.connection.prepare_cached(UNDELIVERED)?;
        let lane = lane_number(self.lane);
        let (mut seqs, mut seen_to) = (Vec::new(), to);
        for ending in [Ending::Exhausted, Ending::Expired] {
            if !replay.of.includes(ending.state()) {
                continue;
            }
            let (above, to) = (seq_number(found.position), seq_number(to));
            let parameters = (lane, ending.number(), above, to, LOOKED_AT_MAX);
            let some = select.query_map(parameters, |row| rows::seq(row, 0))?;
            let some: Vec<Seq> = some.collect::<Result<_, _>>()?;
            if i64::try_from(some.len()) == Ok(LOOKED_AT_MAX) {
                seen_to = seen_to.min(*some.last().expect("it is not empty"));
            }
            seqs.extend(some);
        }
        seqs.retain(|seq| *seq <= seen_to);
        seqs.sort_unstable();
        let mut event = self.connection.prepare_cached(EVENT)?;
        for seq in seqs {
            if found.events.len() == limit {
                return Ok(());
            }
            found.position = seq;
            let EventKey(key) = self.organization.event_key(seq);
            let read =
                |row: &Row<'_>| Ok((rows::parsed::<EventType>(row, 0)?, rows::time(row, 1)?));
            let Some((event_type, timestamp)) = event.query_row([key], read).optional()? else {
                continue;
            };
            if replay.range.covers(timestamp) {
                found.events.push((seq, event_type));
            }
        }
        found.position = seen_to;
        Ok(())
    }

    fn is_candidate(&self, seq: Seq, of: &ReplayOf) -> rusqlite::Result<bool> {
        let ending = self.ending(seq)?;
        Ok(match (of, ending) {
            (ReplayOf::Missing, Some(_)) => false,
            (ReplayOf::Missing, None) => !self.is_open(seq)?,
            (_, ending) => ending.is_some_and(|ending| of.includes(ending.state())),
        })
    }

    fn ending(&self, seq: Seq) -> rusqlite::Result<Option<Ending>> {
        let mut select = self.connection.prepare_cached(ENDING)?;
        let parameters = (lane_number(self.lane), seq_number(seq));
        select.query_row(parameters, |row| rows::ending(row, 0)).optional()
    }

    fn is_open(&self, seq: Seq) -> rusqlite::Result<bool> {
        let parameters = (lane_number(self.lane), seq_number(seq));
        self.connection.prepare_cached(IS_OPEN)?.exists(parameters)
    }

    /// Opens a delivery, if the event is still what the replay is of.
    fn open(&self, seq: Seq, of: &ReplayOf, now: Timestamp) -> rusqlite::Result<bool> {
        let EventKey(key) = self.organization.event_key(seq);
        if seq <= self.organization.removed_to {
            return Ok(false);
        }
        let mut audience = self.connection.prepare_cached(EVENT)?;
        let audience = audience.query_row([key], |row| rows::audience(row, 2)).optional()?;
        let is_for_it = audience.is_some_and(|audience| audience.includes(self.lane));
        if !is_for_it || !self.is_candidate(seq, of)? {
            return Ok(false);
        }
        let (lane, seq, due_at) = (lane_number(self.lane), seq_number(seq), retry_time(now));
        match of {
            ReplayOf::Missing => {
                let parameters = (lane, due_at, seq, now.as_millis());
                self.connection.prepare_cached(OWE)?.execute(parameters)?;
            }
            _ => {
                self.connection.prepare_cached(REOPEN)?.execute((lane, seq, due_at))?;
                self.connection.prepare_cached(REMOVE_CLOSED)?.execute((lane, seq))?;
            }
        }
        Ok(true)
    }
}

fn one(
    connection: &Connection,
    organization: OrganizationId,
    id: ReplayId,
) -> rusqlite::Result<Option<Replay>> {
    let sql = format!("SELECT {REPLAY} WHERE r.id = ?1 AND o.id = ?2");
    let mut select = connection.prepare_cached(&sql)?;
    select.query_row((id.to_bytes(), organization.to_bytes()), replay).optional()
}

fn list(
    connection: &Connection,
    organization: OrganizationId,
    subscription: SubscriptionId,
    page: Page<ReplayNumber>,
) -> rusqlite::Result<Option<PageOf<Replay>>> {
    let Some(row) = read_organization(connection, organization)? else { return Ok(None) };
    let lane = "SELECT lane FROM esl_subscriptions WHERE id = ?1 AND organization = ?2";
    let lane: Option<i64> = connection
        .prepare_cached(lane)?
        .query_row((subscription.to_bytes(), row.key), |row| row.get(0))
        .optional()?;
    let Some(lane) = lane else { return Ok(None) };
    let mut select = connection.prepare_cached(&list_sql())?;
    let before = page.after.map_or(i64::MAX, |number| number.0.cast_signed());
    let found = select.query((lane, before, organization.to_bytes()))?;
    page_of(found, page.limit, |row| replay(row).map(Some)).map(Some)
}

fn list_sql() -> String {
    format!(
        "SELECT {REPLAY} WHERE r.lane = ?1 AND r.number < ?2 AND o.id = ?3 ORDER BY r.number DESC"
    )
}

fn running_sql() -> String {
    format!(
        "SELECT {REPLAY}
         WHERE r.state = 'running' AND r.number > ?1 AND s.deleted_at IS NULL
             AND o.deleted_at IS NULL
         ORDER BY r.number LIMIT ?2"
    )
}

/// The columns and tables that [`replay`] reads.
const REPLAY: &str = "
r.number, r.id, o.id, s.id, r.lane, r.kind, r.from_seq, r.to_seq, r.since, r.until,
r.max_per_second, r.state, r.position, r.opened, r.created_at, r.finished_at, s.deleted_at
FROM esl_replays r
CROSS JOIN esl_subscriptions s ON s.lane = r.lane
CROSS JOIN esl_organizations o ON o.key = s.organization";

fn replay(row: &Row<'_>) -> rusqlite::Result<Replay> {
    let per_second = NonZeroU32::new(row.get(10)?);
    let max_per_second =
        per_second.ok_or_else(|| damaged(10, Type::Integer, "nothing in a second"))?;
    let range = ReplayRange {
        from: rows::seq(row, 6)?,
        to: rows::seq(row, 7)?,
        since: rows::optional_time(row, 8)?,
        until: rows::optional_time(row, 9)?,
    };
    let new = {
        let mut new = esl_core::NewReplay::new(kind(row, 5)?);
        new.range = range;
        new.max_per_second = max_per_second;
        new
    };
    let mut replay = Replay::new(
        ReplayId::from_bytes(row.get(1)?),
        OrganizationId::from_bytes(row.get(2)?),
        SubscriptionId::from_bytes(row.get(3)?),
        new,
        rows::time(row, 14)?,
    );
    replay.number = ReplayNumber(row.get::<_, i64>(0)?.cast_unsigned());
    replay.lane = rows::lane(row, 4)?;
    let state: String = row.get(11)?;
    let state = ReplayState::from_name(&state);
    replay.state = state.ok_or_else(|| damaged(11, Type::Text, "not a state of a replay"))?;
    replay.position = rows::seq(row, 12)?;
    replay.opened = row.get::<_, i64>(13)?.cast_unsigned();
    replay.finished_at = rows::optional_time(row, 15)?;
    let deleted_at = rows::optional_time(row, 16)?;
    replay.end_with_subscription(deleted_at);
    Ok(replay)
}

/// Reads `esl_replays.kind`.
fn kind(row: &Row<'_>, index: usize) -> rusqlite::Result<ReplayOf> {
    let kind = encoding::replay_of(row.get(index)?);
    kind.ok_or_else(|| damaged(index, Type::Integer, "not a kind of replay"))
}

/// Rows that are looked at in one call: some milliseconds' worth.
const LOOKED_AT_MAX: i64 = 1000;

/// None is made while another one runs, so it is the last one that does.
const LAST_IS_RUNNING: &str = "
SELECT state = 'running' FROM esl_replays WHERE lane = ?1 ORDER BY number DESC LIMIT 1";

const UPDATE: &str = "
UPDATE esl_replays SET state = ?2, position = ?3, opened = ?4, finished_at = ?5
WHERE number = ?1 AND EXISTS (
    SELECT 1 FROM esl_subscriptions s JOIN esl_organizations o ON o.key = s.organization
    WHERE s.lane = esl_replays.lane AND o.id = ?6)";

const FIRST_FAN_OUT: &str =
    "SELECT seq FROM esl_fan_outs WHERE organization = ?1 ORDER BY seq LIMIT 1";

const EVENTS: &str = "
SELECT key, event_type, timestamp, erased_at IS NOT NULL, audience FROM esl_events
WHERE key > ?1 AND key <= ?2 ORDER BY key LIMIT ?3";

const EVENT: &str =
    "SELECT event_type, timestamp, audience FROM esl_events WHERE key = ?1 AND erased_at IS NULL";

const UNDELIVERED: &str = "
SELECT seq FROM esl_closed INDEXED BY esl_closed_undelivered
WHERE lane = ?1 AND state = ?2 AND state <> 0 AND seq > ?3 AND seq <= ?4 ORDER BY seq LIMIT ?5";

const ENDING: &str = "SELECT state FROM esl_closed WHERE lane = ?1 AND seq = ?2";

const IS_OPEN: &str = "
SELECT 1 FROM esl_open WHERE lane = ?1 AND due_at = 0 AND seq = ?2
UNION ALL
SELECT 1 FROM esl_open INDEXED BY esl_open_tried WHERE lane = ?1 AND seq = ?2 AND due_at > 0";

const OWE: &str = "
INSERT INTO esl_open (lane, due_at, seq, attempts, charged, created_at)
VALUES (?1, ?2, ?3, 0, 0, ?4)";

const REOPEN: &str = "
INSERT INTO esl_open (lane, due_at, seq, attempts, charged, created_at, last_status, last_error)
SELECT lane, ?3, seq, attempts, 0, created_at, last_status, last_error
FROM esl_closed WHERE lane = ?1 AND seq = ?2";

const REMOVE_CLOSED: &str = "DELETE FROM esl_closed WHERE lane = ?1 AND seq = ?2";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn what_a_replay_is_of_is_found_by_search() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let events = "SEARCH esl_events USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)";
        assert_plan(&connection, EVENTS, &[events]);
        let undelivered =
            "SEARCH esl_closed USING INDEX esl_closed_undelivered (lane=? AND state=? AND seq>?";
        let covering =
            "SEARCH esl_closed USING COVERING INDEX esl_closed_undelivered (lane=? AND s";
        assert_plan(&connection, UNDELIVERED, &[undelivered, covering]);
        let key = "SEARCH esl_closed USING PRIMARY KEY (lane=? AND seq=?)";
        assert_plan(&connection, ENDING, &[key]);
        assert_plan(&connection, REOPEN, &[key]);
    }

    #[test]
    fn a_replay_is_written_only_for_its_own_organization() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let rows = "
            INSERT INTO esl_organizations (key, id, name, created_at)
            VALUES (1, x'01', 'a', 0), (2, x'02', 'b', 0);
            INSERT INTO esl_subscriptions (lane, id, organization, callback_url, events, secret,
                active, send_order, on_exhausted, created_at, updated_at)
            VALUES (7, x'07', 1, '', '', '', 1, '', '', 0, 0);
            INSERT INTO esl_replays (number, id, lane, kind, from_seq, to_seq, max_per_second,
                state, position, opened, created_at)
            VALUES (5, x'05', 7, 1, 0, 9, 1, 'running', 0, 0, 0);";
        connection.execute_batch(rows).unwrap();
        for (organization, rows) in [(2, 0), (1, 1)] {
            let parameters = (5, "cancelled", 0, 0, 1, [organization]);
            let written = connection.execute(UPDATE, parameters).unwrap();
            assert_eq!(written, rows, "{organization}");
        }
    }

    #[test]
    fn replays_are_found_by_search() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let by_id = "SEARCH o USING COVERING INDEX sqlite_autoindex_esl_organizations_1 (id=? AND";
        let others = ["s", "o"].map(|it| format!("SEARCH {it} USING INTEGER PRIMARY KEY"));
        for (sql, first) in [
            (running_sql(), "SEARCH r USING INDEX esl_replays_running (number>?)"),
            (list_sql(), "SEARCH r USING INDEX esl_replays_by_lane (lane=? AND number<?)"),
        ] {
            assert_plan(&connection, &sql, &[first, &others[0], &others[1], by_id]);
        }
        let last = "SEARCH esl_replays USING INDEX esl_replays_by_lane (lane=?)";
        assert_plan(&connection, LAST_IS_RUNNING, &[last]);
    }
}
