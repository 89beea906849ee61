//! What became of deliveries.

use esl_core::{
    Action, Actor, Attempt, LaneId, Timestamp,
    storage::{
        LaneState, Outcome, Settle, Settlement, SwitchOff,
        encoding::{Ending, attempt_error_number, duration_number},
    },
};

use crate::storage::{
    audit,
    changes::News,
    rows::{lane_number, seq_number},
    session::Session,
    statements::ByKind,
    subscription_row,
};

/// Writes a settlement whose worker was checked.
pub(crate) fn settle(session: &mut Session<'_>, settle: &Settle) -> rusqlite::Result<()> {
    for settlement in &settle.settlements {
        // The deletion of its subscription has closed it, whether or not its row says so yet.
        if session.is_live(settlement.lane)? && move_delivery(session, settlement)? {
            for attempt in &settlement.log {
                log(session, settlement, attempt)?;
            }
        }
    }
    for (lane, state) in &settle.lanes {
        // Of a deleted organization the rows may be gone already, and nobody would remove this one.
        if session.is_live(*lane)? {
            write_state(session, *lane, state)?;
        }
    }
    for switch_off in &settle.switch_offs {
        write_switch_off(session, switch_off)?;
    }
    Ok(())
}

/// Whether the delivery was open, and not settled so before.
fn move_delivery(session: &mut Session<'_>, settlement: &Settlement) -> rusqlite::Result<bool> {
    match settlement.outcome {
        Outcome::Delivered => close(session, settlement, Ending::Delivered),
        Outcome::Exhausted => close(session, settlement, Ending::Exhausted),
        Outcome::RetryAt(due_at) => put_off(session, settlement, due_at),
        _ => unreachable!("an outcome that this storage was not built for"),
    }
}

fn close(
    session: &mut Session<'_>,
    settlement: &Settlement,
    ending: Ending,
) -> rusqlite::Result<bool> {
    let (lane, seq) = (lane_number(settlement.lane), seq_number(settlement.seq));
    let close = &mut session.statements.close;
    let mut was_tried = settlement.attempts > 1;
    // Where it most likely is comes first; the other place is for what was put off uncharged, or
    // opened again.
    for _ in 0..2 {
        let closed = close.of(was_tried).execute((
            lane,
            seq,
            ending.number(),
            settlement.attempts,
            settlement.at.as_millis(),
            settlement.status,
            settlement.error.map(attempt_error_number),
            settlement.attempts_before(),
        ))?;
        if closed > 0 {
            session.statements.remove.of(was_tried).execute((lane, seq))?;
            return Ok(true);
        }
        was_tried = !was_tried;
    }
    Ok(false)
}

fn put_off(
    session: &mut Session<'_>,
    settlement: &Settlement,
    due_at: Timestamp,
) -> rusqlite::Result<bool> {
    let put_off = &mut session.statements.put_off;
    for was_tried in [settlement.attempts > 1, settlement.attempts <= 1] {
        let moved = put_off.of(was_tried).execute((
            lane_number(settlement.lane),
            seq_number(settlement.seq),
            retry_time(due_at),
            settlement.attempts,
            settlement.charged,
            settlement.status,
            settlement.error.map(attempt_error_number),
            settlement.attempts_before(),
        ))?;
        if moved > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A due time as `esl_open` says it, where 0 means that there was no attempt yet.
pub(crate) fn retry_time(due_at: Timestamp) -> i64 {
    due_at.as_millis().max(1)
}

fn log(session: &Session<'_>, settlement: &Settlement, attempt: &Attempt) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO esl_attempts
                   (lane, seq, number, started_at, status, error, detail, probe, charged,
                    resolve_ns, connect_ns, tls_ns, first_byte_ns, total_ns)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
    let timings = &attempt.timings;
    session.connection.prepare_cached(sql)?.execute((
        lane_number(settlement.lane),
        seq_number(settlement.seq),
        attempt.number,
        attempt.started_at.as_millis(),
        attempt.status,
        attempt.error.map(attempt_error_number),
        &attempt.detail,
        attempt.probe,
        attempt.charged,
        timings.resolve.map(duration_number),
        timings.connect.map(duration_number),
        timings.tls.map(duration_number),
        timings.first_byte.map(duration_number),
        duration_number(timings.total),
    ))?;
    Ok(())
}

pub(crate) fn write_state(
    session: &Session<'_>,
    lane: LaneId,
    state: &LaneState,
) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO esl_lanes
                   (lane, failures, failed_deliveries, failing_since, open_probes, not_before,
                    last_success_at, exhaustion_told_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    session.connection.prepare_cached(sql)?.execute((
        lane_number(lane),
        state.failures,
        state.failed_deliveries,
        state.failing_since.map(Timestamp::as_millis),
        state.open_probes,
        state.not_before.map(Timestamp::as_millis),
        state.last_success_at.map(Timestamp::as_millis),
        state.exhaustion_told_at.map(Timestamp::as_millis),
    ))?;
    Ok(())
}

fn write_switch_off(session: &mut Session<'_>, switch_off: &SwitchOff) -> rusqlite::Result<()> {
    let lane = lane_number(switch_off.lane);
    if !session.is_live(switch_off.lane)? {
        return Ok(());
    }
    let Some(held) = subscription_row::by_lane(session, lane)? else { return Ok(()) };
    // One that a person has paused meanwhile stays paused by that person.
    let mut updated = held.switched_off(switch_off.reason, session.now);
    if updated == held {
        return Ok(());
    }
    updated.updated_at = session.now;
    subscription_row::update(session, &updated)?;
    let (organization, id) = (updated.organization, updated.id.to_string());
    let action = Action::SubscriptionUpdated;
    audit::note(session, organization, &Actor::System, action, &id, &["active"])?;
    session.tell_others(News::Subscriptions(organization))
}

impl<'c> ByKind<'c> {
    fn of(&mut self, was_tried: bool) -> &mut rusqlite::Statement<'c> {
        if was_tried { &mut self.tried } else { &mut self.untried }
    }
}
