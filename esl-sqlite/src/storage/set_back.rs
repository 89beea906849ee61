//! A clock that was set back between two engines.
//!
//! While an engine runs, time goes on whatever is done to the clock. The next one goes by the clock
//! again, and what the last one has put off until later would be later still by as much as the clock
//! was set back, or, once that is more than any delay, due all at once. So it moves with the clock.

use std::time::Duration;

use esl_core::storage::EPOCH;

use crate::storage::session::{Epoch, Session};

/// Moves what is due later, if the clock was set back since `last` was renewed.
pub(crate) fn follow(session: &Session<'_>, last: Epoch) -> rusqlite::Result<()> {
    let Some(by) = set_back_by(session, last).filter(|by| *by > TOLERATED) else { return Ok(()) };
    let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    // 0 is for what was never tried.
    let retries = "UPDATE esl_open INDEXED BY esl_open_tried SET due_at = max(due_at - ?1, 1)
                   WHERE due_at > 0";
    session.connection.execute(retries, [millis])?;
    let lanes = "UPDATE esl_lanes SET not_before = not_before - ?1 WHERE not_before IS NOT NULL";
    session.connection.execute(lanes, [millis])?;
    tracing::warn!(?by, "the clock was set back while no engine ran; retries move with it");
    Ok(())
}

fn set_back_by(session: &Session<'_>, last: Epoch) -> Option<Duration> {
    let renewed_at =
        last.lapses_at().as_millis().checked_sub(i64::try_from(EPOCH.as_millis()).ok()?)?;
    let by = renewed_at.checked_sub(session.now.as_millis())?;
    u64::try_from(by).ok().map(Duration::from_millis)
}

/// Less is not worth reading every retry for.
const TOLERATED: Duration = Duration::from_secs(1);
