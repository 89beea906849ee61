//! Events that go to very many lanes: stored at once, and owed to the lanes in slices.

use std::sync::Arc;

use esl_core::{
    LaneId, OrganizationId, Seq,
    storage::{Audience, Expand, FAN_OUT_ABOVE, FanOut, Refused, Routed, encoding::Ending},
};
use rusqlite::OptionalExtension;

use crate::storage::{
    changes::News,
    commit::Declined,
    damage::Place,
    readers::Snapshot,
    rows::{self, EventKey, SEALED_EVENT, lane_number, seq_number},
    session::{OrganizationRow, Session},
};

/// Whether an event's deliveries come to be later: because they are many, or because others come
/// before them.
pub(crate) fn is_needed(
    organization: &OrganizationRow,
    routed: &Routed,
    is_large_unit: bool,
) -> bool {
    let is_only = matches!(routed.audience, Audience::Only(_));
    let is_large = is_large_unit || routed.lanes.len() > FAN_OUT_ABOVE;
    !is_only && !routed.lanes.is_empty() && (is_large || organization.fan_outs > 0)
}

/// Keeps what is needed to owe an event later.
pub(crate) fn begin(
    session: &Session<'_>,
    organization: &mut OrganizationRow,
    routed: &Routed,
    seq: Seq,
) -> rusqlite::Result<()> {
    let last = *routed.lanes.last().expect("is_needed says so of some lanes only");
    let except = match routed.audience {
        Audience::Except(lane) => Some(lane_number(lane)),
        Audience::Matching | Audience::Only(_) => None,
    };
    let parameters = (organization.key, seq_number(seq), lane_number(last), except);
    session.connection.prepare_cached(BEGIN)?.execute(parameters)?;
    organization.fan_outs += 1;
    Ok(())
}

/// Refuses a slice that is not next.
pub(crate) fn demand_turn(session: &mut Session<'_>, expand: &Expand) -> Result<(), Declined> {
    let organization = session.organization(expand.organization)?;
    let organization = organization.ok_or(Refused::UnknownOrganization(expand.organization))?;
    let first = session
        .connection
        .prepare_cached(FIRST)?
        .query_row([organization.key], |row| Ok((rows::seq(row, 0)?, rows::lane(row, 1)?)));
    if first.optional()? != Some((expand.seq, expand.after)) {
        return Err(Refused::OutOfTurn.into());
    }
    if organization.route_version != expand.route_version {
        return Err(Refused::Rerouted.into());
    }
    Ok(())
}

/// Owes the event to the lanes of a slice that was checked; true if it was erased meanwhile. Then what
/// would be owed is cancelled, so that each lane's list says what became of it.
pub(crate) fn expand(session: &mut Session<'_>, expand: &Expand) -> rusqlite::Result<bool> {
    let organization = session.organization(expand.organization)?;
    let organization = organization.expect("the unit was checked");
    let seq = seq_number(expand.seq);
    let EventKey(event) = organization.event_key(expand.seq);
    let is_erased = session.connection.prepare_cached(IS_ERASED)?.exists([event])?;
    if is_erased {
        let now = session.now.as_millis();
        let mut cancel = session.connection.prepare_cached(CANCEL)?;
        for lane in &*expand.lanes {
            cancel.execute((lane_number(*lane), seq, Ending::Cancelled.number(), now))?;
        }
    } else {
        for lane in &*expand.lanes {
            session.statements.owe.execute((lane_number(*lane), 0, seq))?;
        }
    }
    match expand.next {
        Some(next) => {
            let parameters = (organization.key, seq, lane_number(next));
            session.connection.prepare_cached(GO_ON)?.execute(parameters)?;
        }
        None => {
            session.connection.prepare_cached(END)?.execute((organization.key, seq))?;
            session.change_organization(expand.organization, |row| row.fan_outs -= 1);
        }
    }
    if !expand.lanes.is_empty() && !is_erased {
        session.tell_others(News::Lanes)?;
    }
    Ok(is_erased)
}

/// The open fan-outs of the next organization that has some, up to an event that is damaged: those after
/// it are not next until it is mended or erased.
pub(crate) fn read(
    snapshot: &Snapshot<'_>,
    after: Option<OrganizationId>,
    limit: usize,
    bytes_max: usize,
) -> rusqlite::Result<Option<(OrganizationId, Vec<FanOut>)>> {
    let connection = snapshot.connection;
    let after: i64 = match after {
        Some(id) => {
            crate::storage::session::read_organization(connection, id)?.map_or(0, |row| row.key)
        }
        None => 0,
    };
    let next = connection.prepare_cached(NEXT)?.query_row([after], |row| {
        Ok((row.get::<_, i64>(0)?, OrganizationId::from_bytes(row.get(1)?)))
    });
    let Some((key, organization)) = next.optional()? else { return Ok(None) };
    let mut select = connection.prepare_cached(OPEN)?;
    let mut event = connection
        .prepare_cached(&format!("SELECT {SEALED_EVENT} FROM esl_events WHERE key = ?1"))?;
    let mut rows = select.query((key, i64::try_from(limit).unwrap_or(i64::MAX)))?;
    let mut fan_outs = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let seq = rows::seq(row, 0)?;
        let event_key = EventKey::new(key, seq);
        let mut place = Place::Event(event_key, None);
        let event = event.query_row([event_key.0], |row| {
            place = Place::event(event_key, row, 0);
            rows::sealed_event(row, 0, organization)
        });
        let Some(event) = snapshot.readable(place, event)? else { break };
        bytes += event.body.len();
        if bytes > bytes_max && !fan_outs.is_empty() {
            break;
        }
        let except: Option<i64> = row.get(3)?;
        fan_outs.push(FanOut {
            seq,
            event: Arc::clone(&event),
            after: rows::lane(row, 1)?,
            last: rows::lane(row, 2)?,
            except: except.map(|lane| LaneId::new(lane.cast_unsigned())),
        });
    }
    Ok(Some((organization, fan_outs)))
}

const BEGIN: &str = "
INSERT INTO esl_fan_outs (organization, seq, after_lane, last_lane, except_lane)
VALUES (?1, ?2, 0, ?3, ?4)";

const IS_ERASED: &str = "SELECT 1 FROM esl_events WHERE key = ?1 AND erased_at IS NOT NULL";

const CANCEL: &str = "
INSERT INTO esl_closed (lane, seq, state, attempts, finished_at) VALUES (?1, ?2, ?3, 0, ?4)";

const FIRST: &str = "
SELECT seq, after_lane FROM esl_fan_outs WHERE organization = ?1 ORDER BY seq LIMIT 1";

const GO_ON: &str = "
UPDATE esl_fan_outs SET after_lane = ?3 WHERE organization = ?1 AND seq = ?2";

const END: &str = "DELETE FROM esl_fan_outs WHERE organization = ?1 AND seq = ?2";

const NEXT: &str = "
SELECT o.key, o.id FROM esl_fan_outs f JOIN esl_organizations o ON o.key = f.organization
WHERE f.organization > ?1 AND o.deleted_at IS NULL ORDER BY f.organization LIMIT 1";

const OPEN: &str = "
SELECT seq, after_lane, last_lane, except_lane FROM esl_fan_outs
WHERE organization = ?1 ORDER BY seq LIMIT ?2";

#[cfg(test)]
mod tests {
    use esl_core::Timestamp;
    use rusqlite::Connection;

    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn fan_outs_are_found_by_search() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let first = "SEARCH esl_fan_outs USING PRIMARY KEY (organization=?)";
        assert_plan(&connection, FIRST, &[first]);
        assert_plan(&connection, OPEN, &[first]);
        let next = "SEARCH f USING PRIMARY KEY (organization>?)";
        let key = "SEARCH o USING INTEGER PRIMARY KEY (rowid=?)";
        assert_plan(&connection, NEXT, &[next, key]);
        let one = "SEARCH esl_fan_outs USING PRIMARY KEY (organization=? AND seq=?)";
        assert_plan(&connection, GO_ON, &[one]);
        assert_plan(&connection, END, &[one]);
    }
}
