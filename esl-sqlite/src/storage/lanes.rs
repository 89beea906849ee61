//! Epochs, and the lanes that are the engine's.

use std::sync::Arc;

use async_trait::async_trait;
use esl_core::{
    LaneId, OrganizationId, SealedEvent, Seq, Timestamp, WorkerId,
    storage::{
        Change, Claimed, EPOCH, FanOut, IntakeRow, Lanes, Renewed, StorageError, StorageErrorKind,
        Swept, Taken, Tenure, Waiting, Want, Worker, due_time, encoding::Ending,
    },
};
use rusqlite::OptionalExtension;

use tokio::sync::oneshot;

use crate::storage::{
    SqliteStorage,
    changes::News,
    claim,
    damage::Place,
    encryption_keys,
    error::{Stop, is_damage},
    fan_out, intake, leaving, outbox,
    plan::{PLAN, plan},
    readers::Snapshot,
    rows::{self, EventKey, LANE_STATE, LANE_STATE_COLUMNS, lane_number, seq_number},
    secrets::is_key_missing,
    session::Session,
    set_back,
    settle::retry_time,
    subscription_row::{self, SUBSCRIPTION, SUBSCRIPTION_COLUMNS},
    sweep,
};

#[async_trait]
impl Lanes for SqliteStorage {
    async fn enlist(
        &self,
        worker: WorkerId,
        _tenure: Tenure,
    ) -> Result<(Worker, Renewed), StorageError> {
        // An engine wants to hear of others from its first moment on.
        self.listen();
        let work = move |session: &mut Session<'_>| enlist(session, worker);
        self.writer().run(ENLIST, 1, work).await
    }

    async fn renew(&self, worker: &Worker) -> Result<Renewed, StorageError> {
        let worker = *worker;
        let work = move |session: &mut Session<'_>| {
            session.demand_running(&worker, RENEW)?;
            let renewed = session.epoch()?.renewed(session.now + EPOCH);
            session.write_epoch(renewed)?;
            Ok(alone(worker.id, session.now))
        };
        self.writer().run(RENEW, 1, work).await
    }

    async fn resign(&self, worker: &Worker) -> Result<(), StorageError> {
        let worker = *worker;
        let work = move |session: &mut Session<'_>| {
            let epoch = session.epoch()?;
            if epoch.is_of(&worker) {
                session.write_epoch(epoch.ended())?;
                session.effects.releases_lock = true;
                session.leave(News::Lanes)?;
            }
            Ok(())
        };
        self.writer().run("resign", 1, work).await
    }

    async fn release(&self, worker: &Worker, lanes: &[LaneId]) -> Result<(), StorageError> {
        // There is nobody else to be told.
        self.ownership().remove(worker, lanes);
        Ok(())
    }

    async fn take(&self, worker: &Worker, lanes: &[LaneId]) -> Result<Vec<Taken>, StorageError> {
        let (worker, lanes) = (*worker, lanes.to_vec());
        let work = move |snapshot: &Snapshot<'_>| {
            snapshot.demand_running(&worker, TAKE)?;
            // There is one engine, so every lane is free for it or its own.
            let mut taken = Vec::with_capacity(lanes.len());
            for lane in lanes {
                snapshot.refresh()?;
                match take(snapshot, lane) {
                    Ok(lane) => taken.extend(lane),
                    // The others go on.
                    Err(error) if is_damage(&error) || is_key_missing(&error) => {
                        let place = Place::Subscription(lane_number(lane));
                        snapshot.tell_of_damage(place, &error);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(taken)
        };
        let taken = self.readers().run(TAKE, work).await?;
        self.ownership().add(&worker, taken.iter().map(|taken| taken.subscription.lane));
        Ok(taken)
    }

    async fn waiting(
        &self,
        _worker: &Worker,
        after: Option<LaneId>,
        limit: usize,
    ) -> Result<Vec<Waiting>, StorageError> {
        let work = move |snapshot: &Snapshot<'_>| Ok(waiting(snapshot, after, limit)?);
        self.readers().run("look for waiting lanes", work).await
    }

    async fn claim(
        &self,
        worker: &Worker,
        wants: &[Want],
        bytes_max: usize,
    ) -> Result<Vec<Claimed>, StorageError> {
        let worker = *worker;
        let wants = self.ownership().filter(&worker, wants, |want| want.lane);
        let wants: Vec<_> = wants.into_iter().cloned().collect();
        let work = move |snapshot: &Snapshot<'_>| {
            snapshot.demand_running(&worker, CLAIM)?;
            Ok(claim::claim(snapshot, &wants, bytes_max)?)
        };
        self.readers().run(CLAIM, work).await
    }

    async fn fan_outs(
        &self,
        after: Option<OrganizationId>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Option<(OrganizationId, Vec<FanOut>)>, StorageError> {
        let work =
            move |snapshot: &Snapshot<'_>| Ok(fan_out::read(snapshot, after, limit, bytes_max)?);
        self.readers().run("read fan-outs", work).await
    }

    async fn reopen(
        &self,
        organization: OrganizationId,
        lane: LaneId,
        seq: Seq,
    ) -> Result<(), StorageError> {
        let work = move |session: &mut Session<'_>| reopen(session, organization, lane, seq);
        self.writer().run(REOPEN, 1, work).await
    }

    async fn intake(
        &self,
        after: Option<IntakeRow>,
        limit: usize,
        left_out: &[OrganizationId],
    ) -> Result<Vec<(IntakeRow, Arc<SealedEvent>)>, StorageError> {
        let left_out = left_out.to_vec();
        let work =
            move |snapshot: &Snapshot<'_>| Ok(intake::read(snapshot, after, limit, &left_out)?);
        self.readers().run("read the intake", work).await
    }

    async fn enqueue(&self, events: Vec<Arc<SealedEvent>>) -> Result<(), StorageError> {
        let weight = events.len();
        let work = move |session: &mut Session<'_>| {
            for event in &events {
                outbox::insert_intake(session.connection, event)?;
            }
            session.effects.changes.push(Change::Intake);
            Ok(())
        };
        self.writer().run("enqueue events", weight, work).await
    }

    async fn changed(&self) -> Vec<Change> {
        self.listen().next().await
    }

    async fn sweep(&self, worker: &Worker, limit: usize) -> Result<Swept, StorageError> {
        let worker = *worker;
        let work = move |session: &mut Session<'_>| {
            session.demand_running(&worker, SWEEP)?;
            Ok(sweep::sweep(session, limit)?)
        };
        self.writer().run(SWEEP, limit, work).await
    }
}

const ENLIST: &str = "enlist an engine";
const RENEW: &str = "renew the epoch";
const TAKE: &str = "take lanes";
const CLAIM: &str = "claim deliveries";
const REOPEN: &str = "open a delivery again";
const SWEEP: &str = "sweep";

fn enlist(session: &mut Session<'_>, worker: WorkerId) -> Result<(Worker, Renewed), Stop> {
    let epoch = session.epoch()?;
    if session.lock.is_held() && epoch.is_running_for_another(worker, session.now) {
        let message = "another engine runs on this storage, in this process";
        let error = StorageError::new(StorageErrorKind::Fenced, ENLIST).with_source(message);
        return Err(Stop::Refused(error));
    }
    session.lock.acquire(ENLIST)?;
    leaving::demand_none(session.connection, ENLIST)?;
    encryption_keys::enlist(session, ENLIST)?;
    set_back::follow(session, epoch)?;
    if epoch.is_open() {
        // Whoever had it was killed, perhaps right after a sync has failed. Then what it lost is in the WAL
        // as the system has it in memory, and on the disk there is a gap, behind which nothing may come.
        let (empty, _nobody_waits) = oneshot::channel();
        session.effects.washed.push(empty);
    }
    let next = epoch.next(worker, session.now + EPOCH);
    session.write_epoch(next)?;
    Ok((Worker { id: worker, epoch: next.number() }, alone(worker, session.now)))
}

/// How things stand for the one engine that there is.
fn alone(worker: WorkerId, at: Timestamp) -> Renewed {
    Renewed { at, peers: vec![worker], leads: true }
}

fn take(snapshot: &Snapshot<'_>, lane: LaneId) -> rusqlite::Result<Option<Taken>> {
    let sql = format!(
        "SELECT {SUBSCRIPTION}, {LANE_STATE}, o.id, {PLAN}
         FROM esl_subscriptions s
         JOIN esl_organizations o ON o.key = s.organization
         LEFT JOIN esl_lanes l ON l.lane = s.lane
         WHERE s.lane = ?1 AND s.deleted_at IS NULL AND o.deleted_at IS NULL"
    );
    let mut select = snapshot.connection.prepare_cached(&sql)?;
    let taken = select.query_row([lane_number(lane)], |row| {
        let organization = row.get(SUBSCRIPTION_COLUMNS + LANE_STATE_COLUMNS)?;
        Ok(Taken {
            subscription: subscription_row::subscription(
                row,
                OrganizationId::from_bytes(organization),
                snapshot.secrets,
            )?,
            state: rows::lane_state(row, SUBSCRIPTION_COLUMNS)?,
            plan: plan(row, SUBSCRIPTION_COLUMNS + LANE_STATE_COLUMNS + 1)?,
        })
    });
    taken.optional()
}

/// Goes from lane to lane: each costs one search, however many deliveries it has.
fn waiting(
    snapshot: &Snapshot<'_>,
    after: Option<LaneId>,
    limit: usize,
) -> rusqlite::Result<Vec<Waiting>> {
    let connection = snapshot.connection;
    let mut next_lane = connection.prepare_cached(NEXT_LANE)?;
    let mut is_active = connection.prepare_cached(IS_ACTIVE)?;
    let mut waiting = Vec::new();
    let mut last = after.map_or(0, lane_number);
    while waiting.len() < limit {
        snapshot.refresh()?;
        let next = next_lane.query_row([last], |row| {
            // What was never tried has 0, and so is due at once.
            Ok(Waiting { lane: rows::lane(row, 0)?, due_at: rows::time(row, 1)? })
        });
        let Some(mut next) = next.optional()? else { break };
        next.due_at = due_time(next.due_at, snapshot.now);
        last = lane_number(next.lane);
        if is_active.exists([last])? {
            waiting.push(next);
        }
    }
    Ok(waiting)
}

const NEXT_LANE: &str = "
SELECT lane, due_at FROM esl_open WHERE lane > ?1 ORDER BY lane, due_at, seq LIMIT 1";

const IS_ACTIVE: &str = "
SELECT 1 FROM esl_subscriptions s JOIN esl_organizations o ON o.key = s.organization
WHERE s.lane = ?1 AND s.active AND s.expiring IS NULL AND s.deleted_at IS NULL
    AND o.deleted_at IS NULL";

fn reopen(
    session: &mut Session<'_>,
    organization: OrganizationId,
    lane: LaneId,
    seq: Seq,
) -> Result<(), Stop> {
    let not_found = || Stop::refused(StorageErrorKind::NotFound, REOPEN);
    let organization = session.organization(organization)?.ok_or_else(not_found)?;
    let connection = session.connection;
    let (lane, seq_number) = (lane_number(lane), seq_number(seq));

    let is_deleted = "SELECT deleted_at IS NOT NULL FROM esl_subscriptions
                      WHERE lane = ?1 AND organization = ?2";
    let is_erased = "SELECT erased_at IS NOT NULL FROM esl_events WHERE key = ?1";
    let EventKey(event) = organization.event_key(seq);
    let is_deleted: Option<bool> = connection
        .prepare_cached(is_deleted)?
        .query_row((lane, organization.key), |row| row.get(0))
        .optional()?;
    let is_deleted = is_deleted.ok_or_else(not_found)?;
    if seq > Seq::ZERO && seq <= organization.removed_to {
        return Err(Stop::refused(StorageErrorKind::Gone, REOPEN));
    }
    let is_erased: Option<bool> =
        connection.prepare_cached(is_erased)?.query_row([event], |row| row.get(0)).optional()?;
    let is_erased = is_erased.ok_or_else(not_found)?;
    let ending = "SELECT c.state FROM esl_closed c JOIN esl_subscriptions s ON s.lane = c.lane
                  WHERE c.lane = ?1 AND c.seq = ?2 AND s.organization = ?3";
    let ending = connection
        .prepare_cached(ending)?
        .query_row((lane, seq_number, organization.key), |row| rows::ending(row, 0))
        .optional()?;
    match ending {
        Some(_) if is_erased => return Err(Stop::refused(StorageErrorKind::Gone, REOPEN)),
        Some(Ending::Exhausted | Ending::Expired) if !is_deleted => {}
        Some(Ending::Exhausted | Ending::Expired | Ending::Delivered | Ending::Cancelled) => {
            return Err(Stop::refused(StorageErrorKind::Conflict, REOPEN));
        }
        None => {
            let is_open = "SELECT 1 FROM esl_open WHERE lane = ?1 AND due_at = 0 AND seq = ?2
                           UNION ALL
                           SELECT 1 FROM esl_open INDEXED BY esl_open_tried
                           WHERE lane = ?1 AND seq = ?2 AND due_at > 0";
            let is_open = connection.prepare_cached(is_open)?.exists((lane, seq_number))?;
            return Err(if is_open {
                Stop::refused(StorageErrorKind::Conflict, REOPEN)
            } else {
                not_found()
            });
        }
    }
    let now: Timestamp = session.now;
    let parameters = (lane, seq_number, organization.key, retry_time(now));
    connection.prepare_cached(OPEN_AGAIN)?.execute(parameters)?;
    let parameters = (lane, seq_number, organization.key);
    connection.prepare_cached(NO_LONGER_CLOSED)?.execute(parameters)?;
    session.tell_others(News::Lanes)?;
    Ok(())
}

/// Here and below: a delivery's id says its lane, and anybody can make one up.
const OPEN_AGAIN: &str = "
INSERT INTO esl_open (lane, due_at, seq, attempts, charged, created_at, last_status, last_error)
SELECT c.lane, ?4, c.seq, c.attempts, 0, c.created_at, c.last_status, c.last_error
FROM esl_closed c JOIN esl_subscriptions s ON s.lane = c.lane
WHERE c.lane = ?1 AND c.seq = ?2 AND s.organization = ?3";

const NO_LONGER_CLOSED: &str = "
DELETE FROM esl_closed
WHERE lane = ?1 AND seq = ?2
    AND EXISTS (SELECT 1 FROM esl_subscriptions WHERE lane = ?1 AND organization = ?3)";

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn waiting_lanes_are_found_by_search() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        // No sort, and one row at a time: the cost is that of a search for each lane.
        assert_plan(&connection, NEXT_LANE, &["SEARCH esl_open USING PRIMARY KEY (lane>?)"]);
        let keys = ["s", "o"].map(|it| format!("SEARCH {it} USING INTEGER PRIMARY KEY (rowid=?)"));
        assert_plan(&connection, IS_ACTIVE, &keys.each_ref().map(String::as_str));
    }

    #[test]
    fn a_delivery_is_opened_again_only_for_its_own_organization() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let rows = "
            INSERT INTO esl_subscriptions (lane, id, organization, callback_url, events, secret,
                active, send_order, on_exhausted, created_at, updated_at)
            VALUES (7, x'07', 1, '', '', '', 1, '', '', 0, 0);
            INSERT INTO esl_closed (lane, seq, state, attempts, finished_at)
            VALUES (7, 3, 1, 5, 0);";
        connection.execute_batch(rows).unwrap();
        for (organization, rows) in [(2, 0), (1, 1)] {
            let opened = connection.execute(OPEN_AGAIN, (7, 3, organization, 1)).unwrap();
            let removed = connection.execute(NO_LONGER_CLOSED, (7, 3, organization)).unwrap();
            assert_eq!((opened, removed), (rows, rows), "{organization}");
        }
    }
}
