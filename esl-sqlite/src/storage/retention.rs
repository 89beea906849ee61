//! Removing what is old, in slices.
//!
//! A round goes through the organizations. In each it finds up to which seq everything is old, and
//! says so in the organization's row first: from then on nothing up to there is opened again. Then the
//! lanes' closed deliveries go, lane by lane, and at last the events, but for those that a lane still
//! owes. An organization that is not done with its slice waits until the others have had theirs.
//!
//! Where a round stands is remembered here and not in the database: a restart begins anew, and finds
//! little to do where it was before.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque, binary_heap::PeekMut},
    time::Duration,
};

use esl_core::{OrganizationId, Seq, storage::AgeLimit};
use rusqlite::{Connection, OptionalExtension};

use crate::storage::{
    audit,
    removal::{Doomed, Slice, remove_closed_of, remove_events},
    rows::{self, EventKey, seq_number},
    session::Session,
};

/// Where a round stands.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// The organizations up to this key were begun with.
    after: i64,
    /// Those of them that are not done, in turn.
    underway: VecDeque<Place>,
}

/// Where it stands in an organization.
#[derive(Debug)]
struct Place {
    key: i64,
    id: OrganizationId,
    /// Everything up to here is old.
    to: Seq,
    /// The lanes up to this one are done; `None` when all are.
    after_lane: Option<i64>,
    owing: Owing,
    /// The events up to here are done.
    after_seq: Seq,
}

/// Goes on with the round; true when it has come to its end.
pub(crate) fn remove(
    session: &mut Session<'_>,
    age: Duration,
    slice: &mut Slice,
) -> rusqlite::Result<bool> {
    let limits = AgeLimit::new(session.now, age);
    remove_replays(session.connection, &limits, slice)?;
    audit::remove(session.connection, limits.old, slice)?;
    let mut round = std::mem::take(&mut session.removal.round);
    while slice.left > 0 {
        let next = match next_organization(session.connection, round.after)? {
            Some((key, id)) => {
                round.after = key;
                slice.use_up(1);
                begin(session, key, id, &limits, slice)?
            }
            None => match round.underway.pop_front() {
                Some(place) => Some(place),
                None => return Ok(true),
            },
        };
        let Some(mut place) = next else { continue };
        if !place.go_on(session, &limits, slice)? {
            round.underway.push_back(place);
        }
    }
    session.removal.round = round;
    Ok(false)
}

/// Removes replays that have been over for as long as events are kept.
fn remove_replays(
    connection: &Connection,
    limits: &AgeLimit,
    slice: &mut Slice,
) -> rusqlite::Result<()> {
    let mut remove = connection.prepare_cached(FINISHED_REPLAYS)?;
    let replays = remove.execute((limits.old.as_millis(), slice.limit()))?;
    slice.removed.replays += replays;
    slice.use_up(replays);
    Ok(())
}

fn next_organization(
    connection: &Connection,
    after: i64,
) -> rusqlite::Result<Option<(i64, OrganizationId)>> {
    let mut select = connection.prepare_cached(NEXT_ORGANIZATION)?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok((row.get::<_, i64>(0)?, OrganizationId::from_bytes(row.get(1)?)))
    };
    select.query_row([after], read).optional()
}

/// Finds out up to where everything is old; `None` if nothing is.
fn begin(
    session: &mut Session<'_>,
    key: i64,
    id: OrganizationId,
    limits: &AgeLimit,
    slice: &mut Slice,
) -> rusqlite::Result<Option<Place>> {
    let connection = session.connection;
    let row = session.organization(id)?.expect("it was found in this transaction");
    let first_fan_out: Option<Seq> = connection
        .prepare_cached(FIRST_FAN_OUT)?
        .query_row([key], |row| rows::seq(row, 0))
        .optional()?;
    let expanded_to = first_fan_out.map_or(row.last_seq, |seq| Seq::new(seq.get() - 1));
    let to = old_to(connection, key, expanded_to, limits, slice)?;
    let Some(to) = to.max((row.removed_to > Seq::ZERO).then_some(row.removed_to)) else {
        return Ok(None);
    };
    if to > row.removed_to {
        session.change_organization(id, |row| row.removed_to = to);
    }
    let owing = Owing::default();
    Ok(Some(Place { key, id, to, after_lane: Some(0), owing, after_seq: Seq::ZERO }))
}

/// The last event that is old, by halving: events are sealed in the order of their seqs, but for
/// moments. (An event that is younger all the same stays; its deliveries are what may go too early.)
fn old_to(
    connection: &Connection,
    organization: i64,
    last: Seq,
    limits: &AgeLimit,
    slice: &mut Slice,
) -> rusqlite::Result<Option<Seq>> {
    let mut select = connection.prepare_cached(FIRST_FROM)?;
    let key = |seq| EventKey::new(organization, Seq::new(seq)).0;
    // The first event from a seq on whose time is possible. After one whose time is not, ever further
    // on, so that very many of them cost few searches.
    let mut first_from = |mut seq: u64, slice: &mut Slice| -> rusqlite::Result<Option<_>> {
        let mut stride = 1;
        loop {
            slice.use_up(1);
            let read = |row: &rusqlite::Row<'_>| {
                Ok((EventKey(row.get(0)?).seq().get(), rows::time(row, 1)?))
            };
            match select.query_row((key(seq), key(last.get())), read).optional()? {
                Some((found, time)) if !limits.is_possible(time) => seq = found + stride,
                Some((found, time)) => return Ok(Some((found, limits.is_old(time)))),
                None => return Ok(None),
            }
            stride *= 2;
        }
    };
    let Some((mut old, true)) = first_from(1, slice)? else { return Ok(None) };
    // `old` is old; nothing from `young` on is.
    let mut young = last.get() + 1;
    while young - old > 1 {
        let middle = old + (young - old) / 2;
        match first_from(middle, slice)? {
            Some((seq, true)) => {
                old = seq;
                young = young.max(seq + 1);
            }
            Some((_, false)) | None => young = middle,
        }
    }
    Ok(Some(Seq::new(old)))
}

impl Place {
    /// Goes on in the organization; true when it is done.
    fn go_on(
        &mut self,
        session: &mut Session<'_>,
        limits: &AgeLimit,
        slice: &mut Slice,
    ) -> rusqlite::Result<bool> {
        // Deleted meanwhile, it is no more retention's; its number may be another one's by now.
        let row = session.organization(self.id)?;
        if row.is_none_or(|row| row.key != self.key || row.removed_to < self.to) {
            return Ok(true);
        }
        while slice.left > 0 {
            if let Some(after) = self.after_lane {
                self.after_lane = self.remove_closed(session.connection, after, slice)?;
            } else if self.remove_events(session.connection, limits, slice)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes what is closed in the next lane; gives the lane up to which it is done then, `None`
    /// after the last.
    fn remove_closed(
        &mut self,
        connection: &Connection,
        after: i64,
        slice: &mut Slice,
    ) -> rusqlite::Result<Option<i64>> {
        let mut next = connection.prepare_cached(NEXT_LANE)?;
        let next = next.query_row((self.key, after), |row| Ok((row.get(0)?, row.get(1)?)));
        let Some((lane, is_swept)) = next.optional()? else { return Ok(None) };
        let is_done = remove_closed_of(connection, lane, self.to, slice)?;
        // The visit comes last, so that the smallest slice, too, removes something.
        slice.use_up(1);
        if !is_done {
            return Ok(Some(after));
        }
        self.owing.add(connection, lane, self.to)?;
        if is_swept {
            forget_if_empty(connection, lane)?;
        }
        Ok(Some(lane))
    }

    /// Removes old events that nobody owes; true when all are gone through.
    fn remove_events(
        &mut self,
        connection: &Connection,
        limits: &AgeLimit,
        slice: &mut Slice,
    ) -> rusqlite::Result<bool> {
        let mut select = connection.prepare_cached(EVENTS)?;
        let key = |seq| EventKey::new(self.key, seq).0;
        let mut events = select.query((key(self.after_seq), key(self.to)))?;
        let mut doomed = Vec::new();
        let mut is_last = false;
        while slice.left > 0 {
            let Some(row) = events.next()? else {
                is_last = true;
                break;
            };
            let (event, time) = (Doomed::read(row)?, rows::time(row, 2)?);
            let seq = EventKey(event.key).seq();
            let is_owed = self.owing.owe(connection, seq, self.to, slice)?;
            let Some(is_owed) = is_owed else { break };
            self.after_seq = seq;
            slice.use_up(1);
            if !is_owed && (limits.is_old(time) || !limits.is_possible(time)) {
                slice.use_up_bytes(event.bytes);
                doomed.push(event);
            }
        }
        drop(events);
        remove_events(connection, &doomed, slice)?;
        Ok(is_last)
    }
}

/// A deleted subscription's lane gets nothing new: once nothing is left in it, no round visits it again.
fn forget_if_empty(connection: &Connection, lane: i64) -> rusqlite::Result<()> {
    if connection.prepare_cached(IS_EMPTY)?.exists([lane])? {
        connection.prepare_cached(END_REPLAYS)?.execute([lane])?;
        connection.prepare_cached(EMPTIED)?.execute([lane])?;
    }
    Ok(())
}

/// The lanes that owe something old: each with an event that it owes, before which it owes nothing but
/// what was gone through already.
///
/// Up to where things are removed nothing is opened again, so what was found once can only have become
/// less: an event that was settled meanwhile goes in the next round.
#[derive(Debug, Default)]
struct Owing(BinaryHeap<Reverse<(Seq, i64)>>);

impl Owing {
    /// Adds a lane, if it owes anything.
    fn add(&mut self, connection: &Connection, lane: i64, to: Seq) -> rusqlite::Result<()> {
        let first = first_owed(connection, lane, Seq::ZERO, to)?;
        self.0.extend(first.map(|seq| Reverse((seq, lane))));
        Ok(())
    }

    /// Whether some lane owes that event; `None` if the slice is used up before that is known. To be
    /// asked of one event after the other.
    ///
    /// A lane is only asked again once the event that it was found with is passed, and no further ones
    /// are when one says yes: a lane that owes everything spares all others.
    fn owe(
        &mut self,
        connection: &Connection,
        seq: Seq,
        to: Seq,
        slice: &mut Slice,
    ) -> rusqlite::Result<Option<bool>> {
        while let Some(mut first) = self.0.peek_mut() {
            let Reverse((owed, lane)) = *first;
            if owed >= seq {
                return Ok(Some(owed == seq));
            }
            if slice.left == 0 {
                return Ok(None);
            }
            slice.use_up(SEARCHES);
            match first_owed(connection, lane, seq, to)? {
                Some(next) => {
                    *first = Reverse((next, lane));
                    if next == seq {
                        return Ok(Some(true));
                    }
                }
                None => drop(PeekMut::pop(first)),
            }
        }
        Ok(Some(false))
    }
}

/// What asking a lane costs: its two kinds of open deliveries are two ranges.
const SEARCHES: usize = 2;

/// The first event from a seq on that a lane owes.
fn first_owed(
    connection: &Connection,
    lane: i64,
    from: Seq,
    to: Seq,
) -> rusqlite::Result<Option<Seq>> {
    let mut first = None;
    for sql in [FIRST_UNTRIED, FIRST_TRIED] {
        let mut select = connection.prepare_cached(sql)?;
        let parameters = (lane, seq_number(from), seq_number(to));
        let found = select.query_row(parameters, |row| rows::seq(row, 0)).optional()?;
        first = first.into_iter().chain(found).min();
    }
    Ok(first)
}

const NEXT_ORGANIZATION: &str = "
SELECT key, id FROM esl_organizations WHERE key > ?1 AND deleted_at IS NULL ORDER BY key LIMIT 1";

const FIRST_FAN_OUT: &str =
    "SELECT seq FROM esl_fan_outs WHERE organization = ?1 ORDER BY seq LIMIT 1";

const FIRST_FROM: &str = "
SELECT key, timestamp FROM esl_events WHERE key >= ?1 AND key <= ?2 ORDER BY key LIMIT 1";

const NEXT_LANE: &str = "
SELECT lane, is_swept FROM esl_subscriptions
WHERE organization = ?1 AND lane > ?2 AND is_swept < 2 ORDER BY lane LIMIT 1";

const IS_EMPTY: &str = "
SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM esl_closed WHERE lane = ?1)
    AND NOT EXISTS (SELECT 1 FROM esl_open WHERE lane = ?1)";

const EMPTIED: &str = "UPDATE esl_subscriptions SET is_swept = 2 WHERE lane = ?1";

/// A replay to a deleted subscription is cancelled, whether or not its row says so yet.
const END_REPLAYS: &str = "
UPDATE esl_replays SET state = 'cancelled', finished_at = (
    SELECT deleted_at FROM esl_subscriptions s WHERE s.lane = esl_replays.lane
) WHERE lane = ?1 AND state = 'running'";

const FINISHED_REPLAYS: &str = "
DELETE FROM esl_replays WHERE number IN (
    SELECT number FROM esl_replays WHERE finished_at IS NOT NULL AND finished_at <= ?1 LIMIT ?2
)";

const EVENTS: &str = "
SELECT key, length(body) + coalesce(length(changes), 0), timestamp FROM esl_events
WHERE key > ?1 AND key <= ?2 ORDER BY key";

const FIRST_UNTRIED: &str = "
SELECT seq FROM esl_open
WHERE lane = ?1 AND due_at = 0 AND seq >= ?2 AND seq <= ?3 ORDER BY seq LIMIT 1";

const FIRST_TRIED: &str = "
SELECT seq FROM esl_open INDEXED BY esl_open_tried
WHERE lane = ?1 AND seq >= ?2 AND seq <= ?3 AND due_at > 0 ORDER BY seq LIMIT 1";

#[cfg(test)]
mod tests {
    use esl_core::Timestamp;

    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn what_is_old_is_found_by_search() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let events = "SEARCH esl_events USING INTEGER PRIMARY KEY (rowid";
        let lanes =
            "SEARCH esl_subscriptions USING INDEX esl_subscriptions_to_empty (organization=?";
        for (sql, plan) in [
            (NEXT_ORGANIZATION, "SEARCH esl_organizations USING INTEGER PRIMARY KEY (rowid>?)"),
            (FIRST_FAN_OUT, "SEARCH esl_fan_outs USING PRIMARY KEY (organization=?)"),
            (FIRST_FROM, events),
            (EVENTS, events),
            (NEXT_LANE, lanes),
            (FIRST_UNTRIED, "SEARCH esl_open USING PRIMARY KEY (lane=? AND due_at=? AND seq>? AND"),
            (FIRST_TRIED, "SEARCH esl_open USING COVERING INDEX esl_open_tried (lane=? AND seq>?"),
        ] {
            assert_plan(&connection, sql, &[plan]);
        }
        let empty =
            ["SCAN CONSTANT ROW", "SCALAR SUBQUERY", "SEARCH esl_closed", "SEARCH esl_open"];
        assert_plan(&connection, IS_EMPTY, &empty);
        let subscription = "SEARCH s USING INTEGER PRIMARY KEY (rowid=?)";
        let replays = "SEARCH esl_replays USING INDEX esl_replays_by_lane (lane=?)";
        let subquery = "CORRELATED SCALAR SUBQUERY";
        assert_plan(&connection, END_REPLAYS, &[replays, subquery, subscription]);
        let finished = "SEARCH esl_replays USING COVERING INDEX esl_replays_finished (finished_at";
        let replay = "SEARCH esl_replays USING INTEGER PRIMARY KEY (rowid=?)";
        let list = "LIST SUBQUERY";
        assert_plan(
            &connection,
            FINISHED_REPLAYS,
            &[finished, replay, list, "CREATE BLOOM FILTER"],
        );
    }
}
