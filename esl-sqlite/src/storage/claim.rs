//! Handing out what is due.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use esl_core::{
    OrganizationId, RetryPolicy, SealedEvent, Seq, Timestamp,
    storage::{Claimed, Due, Want, due_time},
};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row};

use crate::storage::{
    damage::Place,
    error::is_damage,
    readers::Snapshot,
    rows::{self, EventKey, SEALED_EVENT, lane_number, seq_number},
};

/// What the lanes have, for a worker that was checked.
pub(crate) fn claim(
    snapshot: &Snapshot<'_>,
    wants: &[Want],
    bytes_max: usize,
) -> rusqlite::Result<Vec<Claimed>> {
    let mut claim = Claim::prepare(snapshot, bytes_max)?;
    let mut claimed = Vec::with_capacity(wants.len());
    for want in wants {
        // Each lane is read as of one moment, which is all that its answer says.
        snapshot.refresh()?;
        let bytes_left = claim.bytes_left;
        claim.at = None;
        match claim.lane(want) {
            Ok(lane) => claimed.extend(lane),
            // The others go on.
            Err(error) if is_damage(&error) => {
                claim.bytes_left = bytes_left;
                let (lane, seq) = (lane_number(want.lane), claim.at.map(seq_number));
                snapshot.tell_of_damage(Place::Delivery { lane, seq }, &error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(claimed)
}

struct Claim<'c> {
    snapshot: &'c Snapshot<'c>,
    now: Timestamp,
    bytes_left: usize,
    /// The delivery that is being read.
    at: Option<Seq>,
    owner: CachedStatement<'c>,
    tried: CachedStatement<'c>,
    untried: CachedStatement<'c>,
    tried_by_seq: CachedStatement<'c>,
    event: CachedStatement<'c>,
    /// One event often goes to many lanes.
    events: HashMap<EventKey, Content>,
}

/// What there is to send of an event.
#[derive(Clone)]
enum Content {
    Sealed(Arc<SealedEvent>),
    /// What is owed of it is about to be cancelled.
    Erased,
    /// What is owed of it stays so until it is mended or erased.
    Damaged,
}

/// Whose lane it is.
#[derive(Clone, Copy)]
struct Owner {
    id: OrganizationId,
    key: i64,
}

impl<'c> Claim<'c> {
    fn prepare(snapshot: &'c Snapshot<'c>, bytes_left: usize) -> rusqlite::Result<Self> {
        let connection: &'c Connection = snapshot.connection;
        Ok(Self {
            snapshot,
            now: snapshot.now,
            bytes_left,
            at: None,
            owner: connection.prepare_cached(OWNER)?,
            tried: connection.prepare_cached(TRIED)?,
            untried: connection.prepare_cached(UNTRIED)?,
            tried_by_seq: connection.prepare_cached(TRIED_BY_SEQ)?,
            event: connection.prepare_cached(&format!(
                "SELECT {SEALED_EVENT}, erased_at IS NOT NULL FROM esl_events WHERE key = ?1"
            ))?,
            events: HashMap::new(),
        })
    }

    /// What one lane has; `None` if it is paused or gone.
    fn lane(&mut self, want: &Want) -> rusqlite::Result<Option<Claimed>> {
        let owner = self.owner.query_row([lane_number(want.lane)], |row| {
            Ok(Owner { key: row.get(0)?, id: OrganizationId::from_bytes(row.get(1)?) })
        });
        let Some(owner) = owner.optional()? else { return Ok(None) };
        if want.in_order {
            return self.in_order(want, owner).map(Some);
        }
        let mut due = Vec::new();
        let mut is_cut_short = false;
        let next_due = self.retries(want, owner, &mut due, &mut is_cut_short)?;
        let is_all = self.never_tried(want, owner, &mut due, is_cut_short)?;
        Ok(Some(Claimed { lane: want.lane, due, is_all, next_due }))
    }

    /// Hands out both kinds by seq, up to a retry that is not due or an event that is damaged: what
    /// comes after it would overtake it.
    fn in_order(&mut self, want: &Want, owner: Owner) -> rusqlite::Result<Claimed> {
        let mut claimed =
            Claimed { lane: want.lane, due: Vec::new(), is_all: true, next_due: None };
        let mut tried = self.tried_by_seq.query([lane_number(want.lane)])?;
        let mut untried = self.untried.query((lane_number(want.lane), 0))?;
        let (mut retry, mut first) = (Found::next(&mut tried)?, Found::next(&mut untried)?);
        loop {
            let is_retry = match (&retry, &first) {
                (Some(retry), Some(first)) => retry.seq < first.seq,
                (retry, _) => retry.is_some(),
            };
            let Some(found) = (if is_retry { retry.take() } else { first.take() }) else { break };
            let due_at = due_time(found.due_at, self.now);
            if is_retry && due_at > self.now {
                claimed.next_due = Some(due_at);
                break;
            }
            if claimed.due.len() == want.room {
                claimed.is_all = false;
                break;
            }
            let Found { seq, attempts, charged, .. } = found;
            self.at = Some(seq);
            match content(self.snapshot, &mut self.event, &mut self.events, owner, seq)? {
                Content::Sealed(event) => {
                    let due = Due { seq, event, is_retry, attempts, charged };
                    if !fits(&mut self.bytes_left, &due, &claimed.due) {
                        claimed.is_all = false;
                        break;
                    }
                    claimed.due.push(due);
                }
                Content::Erased => {}
                Content::Damaged => break,
            }
            if is_retry {
                retry = Found::next(&mut tried)?;
            } else {
                first = Found::next(&mut untried)?;
            }
        }
        Ok(claimed)
    }

    /// Hands out retries by due time, and says when the first one is due that is left.
    fn retries(
        &mut self,
        want: &Want,
        owner: Owner,
        due: &mut Vec<Due>,
        is_cut_short: &mut bool,
    ) -> rusqlite::Result<Option<Timestamp>> {
        let held: HashSet<Seq> = want.held.iter().copied().collect();
        let mut next_due = None;
        // Those that are due by their time, and those whose time is too far away to be true.
        for after in [Timestamp::EPOCH, self.now + RetryPolicy::DELAY_MAX] {
            let mut rows = self.tried.query((lane_number(want.lane), after.as_millis()))?;
            while let Some(row) = rows.next()? {
                let due_at = due_time(rows::time(row, 0)?, self.now);
                let seq = rows::seq(row, 1)?;
                if held.contains(&seq) {
                    continue;
                }
                if due_at > self.now {
                    next_due = Some(due_at);
                    break;
                }
                if due.len() == want.room {
                    return Ok(Some(due_at));
                }
                self.at = Some(seq);
                let content =
                    content(self.snapshot, &mut self.event, &mut self.events, owner, seq)?;
                let Content::Sealed(event) = content else { continue };
                let retry = open(row, seq, event, true)?;
                if !fits(&mut self.bytes_left, &retry, due) {
                    *is_cut_short = true;
                    return Ok(Some(due_at));
                }
                due.push(retry);
            }
            if next_due.is_none() {
                // The first range went on to the end, and so through the second.
                break;
            }
        }
        Ok(next_due)
    }

    /// Hands out what was never tried, by seq, and says whether it is all there is.
    fn never_tried(
        &mut self,
        want: &Want,
        owner: Owner,
        due: &mut Vec<Due>,
        is_cut_short: bool,
    ) -> rusqlite::Result<bool> {
        let Some(after) = want.after else { return Ok(true) };
        let mut rows = self.untried.query((lane_number(want.lane), seq_number(after)))?;
        while let Some(row) = rows.next()? {
            if is_cut_short || due.len() == want.room {
                return Ok(false);
            }
            let seq = rows::seq(row, 1)?;
            self.at = Some(seq);
            let content = content(self.snapshot, &mut self.event, &mut self.events, owner, seq)?;
            let Content::Sealed(event) = content else { continue };
            let first = open(row, seq, event, false)?;
            if !fits(&mut self.bytes_left, &first, due) {
                return Ok(false);
            }
            due.push(first);
        }
        Ok(true)
    }
}

/// An open delivery, as its row has it.
struct Found {
    seq: Seq,
    due_at: Timestamp,
    attempts: u32,
    charged: u32,
}

impl Found {
    fn next(rows: &mut rusqlite::Rows<'_>) -> rusqlite::Result<Option<Self>> {
        let read = |row: &Row<'_>| {
            Ok(Self {
                due_at: rows::time(row, 0)?,
                seq: rows::seq(row, 1)?,
                attempts: row.get(2)?,
                charged: row.get(3)?,
            })
        };
        rows.next()?.map(read).transpose()
    }
}

/// Takes a delivery's bytes off what is left. The first one of a lane goes in any case, so that no
/// lane waits for ever.
fn fits(bytes_left: &mut usize, next: &Due, due: &[Due]) -> bool {
    let bytes = next.event.body.len();
    let fits = bytes <= *bytes_left || due.is_empty();
    if fits {
        *bytes_left = bytes_left.saturating_sub(bytes);
    }
    fits
}

fn open(row: &Row<'_>, seq: Seq, event: Arc<SealedEvent>, is_retry: bool) -> rusqlite::Result<Due> {
    Ok(Due { seq, event, is_retry, attempts: row.get(2)?, charged: row.get(3)? })
}

fn content(
    snapshot: &Snapshot<'_>,
    select: &mut CachedStatement<'_>,
    contents: &mut HashMap<EventKey, Content>,
    owner: Owner,
    seq: Seq,
) -> rusqlite::Result<Content> {
    let key = EventKey::new(owner.key, seq);
    if let Some(content) = contents.get(&key) {
        return Ok(content.clone());
    }
    let mut place = Place::Event(key, None);
    let content = select.query_row([key.0], |row| {
        place = Place::event(key, row, 0);
        let is_erased: bool = row.get(6)?;
        if is_erased {
            return Ok(Content::Erased);
        }
        rows::sealed_event(row, 0, owner.id).map(Content::Sealed)
    });
    // One that is gone is damage, too: nothing is owed of an event that was removed.
    let content = snapshot.readable(place, content)?.unwrap_or(Content::Damaged);
    contents.insert(key, content.clone());
    Ok(content)
}

const OWNER: &str = "
SELECT o.key, o.id
FROM esl_subscriptions s JOIN esl_organizations o ON o.key = s.organization
WHERE s.lane = ?1 AND s.active AND s.expiring IS NULL AND s.deleted_at IS NULL
    AND o.deleted_at IS NULL";

const TRIED: &str = "
SELECT due_at, seq, attempts, charged FROM esl_open
WHERE lane = ?1 AND due_at > ?2 ORDER BY due_at, seq";

const TRIED_BY_SEQ: &str = "
SELECT due_at, seq, attempts, charged FROM esl_open INDEXED BY esl_open_tried
WHERE lane = ?1 AND due_at > 0 ORDER BY seq";

const UNTRIED: &str = "
SELECT due_at, seq, attempts, charged FROM esl_open
WHERE lane = ?1 AND due_at = 0 AND seq > ?2 ORDER BY seq";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn a_claim_reads_ranges_of_the_key_and_sorts_nothing() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        let key = "SEARCH esl_open USING PRIMARY KEY (lane=? AND due_at>?)";
        assert_plan(&connection, TRIED, &[key]);
        let key = "SEARCH esl_open USING PRIMARY KEY (lane=? AND due_at=? AND seq>?)";
        assert_plan(&connection, UNTRIED, &[key]);
        let index = "SEARCH esl_open USING INDEX esl_open_tried (lane=?)";
        assert_plan(&connection, TRIED_BY_SEQ, &[index]);
        let keys = ["s", "o"].map(|it| format!("SEARCH {it} USING INTEGER PRIMARY KEY (rowid=?)"));
        assert_plan(&connection, OWNER, &keys.each_ref().map(String::as_str));
    }
}
