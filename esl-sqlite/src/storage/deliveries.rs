//! Deliveries as their organization sees them.
//!
//! What an open one is called follows from its subscription, so a pause or a deletion rewrites no
//! rows. A list is a merge of the places where deliveries are, each in the order of seqs already.

use esl_core::{
    Delivery, DeliveryId, DeliveryState, EventId, LaneId, OrganizationId, Seq, SubscriptionId,
    Timestamp,
    storage::{
        Page, PageOf,
        encoding::{DeliveryRow, Ending, EventHead, LaneHead, Standing},
    },
};
use rusqlite::{OptionalExtension, Params, Row};

use crate::storage::{
    damage::Place,
    readers::Snapshot,
    rows::{self, EventKey, lane_number, seq_number},
    session::{OrganizationRow, read_organization},
};

/// The deliveries of a subscription, newest event first.
pub(crate) fn list(
    snapshot: &Snapshot<'_>,
    organization: OrganizationId,
    subscription: SubscriptionId,
    state: Option<DeliveryState>,
    page: Page<Seq>,
) -> rusqlite::Result<Option<PageOf<Delivery>>> {
    let Some(lane) = Lane::find(snapshot, organization, subscription)? else {
        return Ok(None);
    };
    let mut below = page.after.map_or(Seq::MAX.get().cast_signed() + 1, seq_number);
    let mut items = Vec::new();
    loop {
        let wanted = page.limit - items.len();
        let at = At { lane: lane_number(lane.head.lane), below, limit: wanted.saturating_add(1) };
        let mut found = lane.in_state(&at, state)?;
        found.sort_unstable_by_key(|row| std::cmp::Reverse(row.seq));
        let more = found.len() > wanted;
        found.truncate(wanted);
        for row in &found {
            below = seq_number(row.seq);
            let key = lane.organization.event_key(row.seq);
            let event = match lane.event(row.seq) {
                // Settled while the old events went; the next round removes it.
                Ok(None) if row.seq <= lane.organization.removed_to => continue,
                Ok(None) => Err(event_is_gone(row.seq)),
                event => event,
            };
            let event = snapshot.readable(Place::Event(key, None), event)?.flatten();
            items.extend(event.map(|event| lane.head.delivery(row, event)));
        }
        if !more || items.len() == page.limit {
            return Ok(Some(PageOf { items, more }));
        }
        // What is below stays as it is, so a later moment of the database is as good.
        snapshot.refresh()?;
    }
}

/// What there is under an id.
pub(crate) enum One {
    Found(Delivery),
    /// It was removed because its event was old.
    Removed,
    Unknown,
}

/// The delivery of that very id.
pub(crate) fn one(
    snapshot: &Snapshot<'_>,
    organization: OrganizationId,
    id: DeliveryId,
) -> rusqlite::Result<One> {
    let lane = Lane::find_by_number(snapshot, organization, id.lane())?;
    let Some(lane) = lane else { return Ok(One::Unknown) };
    if let Some(event) = lane.event(id.seq())? {
        if !id.is_of(event.id) {
            return Ok(One::Unknown);
        }
        if let Some(row) = lane.one(id.seq())? {
            return Ok(One::Found(lane.head.delivery(&row, event)));
        }
    }
    let is_removed = id.seq() > Seq::ZERO && id.seq() <= lane.organization.removed_to;
    Ok(if is_removed { One::Removed } else { One::Unknown })
}

/// A lane, where it is read.
struct Lane<'c> {
    snapshot: &'c Snapshot<'c>,
    organization: OrganizationRow,
    head: LaneHead,
}

/// Which part of a lane is listed.
struct At {
    lane: i64,
    below: i64,
    limit: usize,
}

impl<'c> Lane<'c> {
    fn find(
        snapshot: &'c Snapshot<'c>,
        organization: OrganizationId,
        subscription: SubscriptionId,
    ) -> rusqlite::Result<Option<Self>> {
        Self::read(snapshot, organization, "s.id = ?2", subscription.to_bytes())
    }

    fn find_by_number(
        snapshot: &'c Snapshot<'c>,
        organization: OrganizationId,
        lane: LaneId,
    ) -> rusqlite::Result<Option<Self>> {
        Self::read(snapshot, organization, "s.lane = ?2", lane_number(lane))
    }

    fn read(
        snapshot: &'c Snapshot<'c>,
        organization: OrganizationId,
        condition: &str,
        key: impl rusqlite::ToSql,
    ) -> rusqlite::Result<Option<Self>> {
        let connection = snapshot.connection;
        let Some(organization) = read_organization(connection, organization)? else {
            return Ok(None);
        };
        let sql = format!(
            "SELECT s.lane, s.id, s.active, s.deleted_at, l.not_before
             FROM esl_subscriptions s LEFT JOIN esl_lanes l ON l.lane = s.lane
             WHERE s.organization = ?1 AND {condition}"
        );
        let mut select = connection.prepare_cached(&sql)?;
        let lane = select.query_row((organization.key, key), |row| {
            Ok(Self {
                snapshot,
                organization,
                head: LaneHead {
                    lane: rows::lane(row, 0)?,
                    subscription: SubscriptionId::from_bytes(row.get(1)?),
                    is_active: row.get(2)?,
                    deleted_at: rows::optional_time(row, 3)?,
                    not_before: rows::optional_time(row, 4)?,
                },
            })
        });
        lane.optional()
    }

    /// What has that state, of each place where some is: not in order.
    fn in_state(
        &self,
        at: &At,
        state: Option<DeliveryState>,
    ) -> rusqlite::Result<Vec<DeliveryRow>> {
        Ok(match state {
            None => {
                let mut found = self.open(at)?;
                found.extend(self.closed(at)?);
                found
            }
            Some(DeliveryState::Delivered) => self.closed_as(at, Ending::Delivered)?,
            Some(DeliveryState::Exhausted) => self.closed_as(at, Ending::Exhausted)?,
            Some(DeliveryState::Expired) => self.closed_as(at, Ending::Expired)?,
            Some(DeliveryState::Cancelled) => {
                let mut found = self.closed_as(at, Ending::Cancelled)?;
                if self.head.open_state() == DeliveryState::Cancelled {
                    found.extend(self.open(at)?);
                }
                found
            }
            Some(open) if open == self.head.open_state() => self.open(at)?,
            Some(_) => Vec::new(),
        })
    }

    fn open(&self, at: &At) -> rusqlite::Result<Vec<DeliveryRow>> {
        let mut found = self.rows(UNTRIED, at.parameters(), at.limit, open_row)?;
        found.extend(self.rows(TRIED, at.parameters(), at.limit, open_row)?);
        Ok(found)
    }

    fn closed(&self, at: &At) -> rusqlite::Result<Vec<DeliveryRow>> {
        self.rows(CLOSED, at.parameters(), at.limit, closed_row)
    }

    fn closed_as(&self, at: &At, ending: Ending) -> rusqlite::Result<Vec<DeliveryRow>> {
        match ending {
            // Most of them are: no index says which.
            Ending::Delivered => self.rows(DELIVERED, at.parameters(), at.limit, closed_row),
            Ending::Exhausted | Ending::Expired | Ending::Cancelled => {
                let parameters = (at.lane, at.below, ending.number());
                self.rows(UNDELIVERED, parameters, at.limit, closed_row)
            }
        }
    }

    fn one(&self, seq: Seq) -> rusqlite::Result<Option<DeliveryRow>> {
        let parameters = (lane_number(self.head.lane), seq_number(seq));
        let mut found = self.rows(ONE_UNTRIED, parameters, 1, open_row)?;
        found.extend(self.rows(ONE_TRIED, parameters, 1, open_row)?);
        found.extend(self.rows(ONE_CLOSED, parameters, 1, closed_row)?);
        Ok(found.pop())
    }

    /// The first `limit` rows that hold what was written there.
    fn rows(
        &self,
        sql: &str,
        parameters: impl Params,
        limit: usize,
        read: fn(&Row<'_>) -> rusqlite::Result<DeliveryRow>,
    ) -> rusqlite::Result<Vec<DeliveryRow>> {
        let mut select = self.snapshot.connection.prepare_cached(sql)?;
        let mut rows = select.query(parameters)?;
        let mut found = Vec::new();
        while found.len() < limit
            && let Some(row) = rows.next()?
        {
            let place = Place::Delivery { lane: lane_number(self.head.lane), seq: row.get(0).ok() };
            found.extend(self.snapshot.readable(place, read(row))?);
        }
        Ok(found)
    }

    fn event(&self, seq: Seq) -> rusqlite::Result<Option<EventHead>> {
        let sql = "SELECT id, event_type, timestamp FROM esl_events WHERE key = ?1";
        let EventKey(key) = self.organization.event_key(seq);
        let event = self.snapshot.connection.prepare_cached(sql)?.query_row([key], |row| {
            Ok(EventHead {
                id: EventId::from_bytes(row.get(0)?),
                event_type: rows::parsed(row, 1)?,
                timestamp: rows::time(row, 2)?,
            })
        });
        event.optional()
    }
}

impl At {
    const fn parameters(&self) -> (i64, i64) {
        (self.lane, self.below)
    }
}

fn open_row(row: &Row<'_>) -> rusqlite::Result<DeliveryRow> {
    let due_at: i64 = row.get(5)?;
    let standing = match due_at {
        0 => Standing::Untried,
        due_at => Standing::RetryAt(Timestamp::from_millis(due_at)),
    };
    read_row(row, standing)
}

fn closed_row(row: &Row<'_>) -> rusqlite::Result<DeliveryRow> {
    read_row(row, Standing::Closed(rows::ending(row, 6)?, rows::time(row, 5)?))
}

fn read_row(row: &Row<'_>, standing: Standing) -> rusqlite::Result<DeliveryRow> {
    Ok(DeliveryRow {
        seq: rows::seq(row, 0)?,
        attempts: row.get(1)?,
        created_at: rows::optional_time(row, 2)?,
        last_status: row.get(3)?,
        last_error: rows::attempt_error(row, 4)?,
        standing,
    })
}

fn event_is_gone(seq: Seq) -> rusqlite::Error {
    let message = format!("a delivery of an event that is gone, seq {}", seq.get());
    rows::damaged(0, rusqlite::types::Type::Null, message)
}

const UNTRIED: &str = "
SELECT seq, attempts, created_at, last_status, last_error, due_at FROM esl_open
WHERE lane = ?1 AND due_at = 0 AND seq < ?2 ORDER BY seq DESC";

const TRIED: &str = "
SELECT seq, attempts, created_at, last_status, last_error, due_at
FROM esl_open INDEXED BY esl_open_tried
WHERE lane = ?1 AND seq < ?2 AND due_at > 0 ORDER BY seq DESC";

const CLOSED: &str = "
SELECT seq, attempts, created_at, last_status, last_error, finished_at, state FROM esl_closed
WHERE lane = ?1 AND seq < ?2 ORDER BY seq DESC";

const DELIVERED: &str = "
SELECT seq, attempts, created_at, last_status, last_error, finished_at, state FROM esl_closed
WHERE lane = ?1 AND seq < ?2 AND state = 0 ORDER BY seq DESC";

const UNDELIVERED: &str = "
SELECT seq, attempts, created_at, last_status, last_error, finished_at, state
FROM esl_closed INDEXED BY esl_closed_undelivered
WHERE lane = ?1 AND state = ?3 AND state <> 0 AND seq < ?2 ORDER BY seq DESC";

const ONE_UNTRIED: &str = "
SELECT seq, attempts, created_at, last_status, last_error, due_at FROM esl_open
WHERE lane = ?1 AND due_at = 0 AND seq = ?2";

const ONE_TRIED: &str = "
SELECT seq, attempts, created_at, last_status, last_error, due_at
FROM esl_open INDEXED BY esl_open_tried
WHERE lane = ?1 AND seq = ?2 AND due_at > 0";

const ONE_CLOSED: &str = "
SELECT seq, attempts, created_at, last_status, last_error, finished_at, state FROM esl_closed
WHERE lane = ?1 AND seq = ?2";

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::storage::plans::assert_plan;

    #[test]
    fn lists_are_ranges_of_an_index_and_sort_nothing() {
        let connection = Connection::open_in_memory().unwrap();
        crate::storage::schema::migrate(&connection, Timestamp::EPOCH).unwrap();
        for (sql, plan) in [
            (UNTRIED, "SEARCH esl_open USING PRIMARY KEY (lane=? AND due_at=? AND seq<?)"),
            (TRIED, "SEARCH esl_open USING INDEX esl_open_tried (lane=? AND seq<?)"),
            (CLOSED, "SEARCH esl_closed USING PRIMARY KEY (lane=? AND seq<?)"),
            (DELIVERED, "SEARCH esl_closed USING PRIMARY KEY (lane=? AND seq<?)"),
            (UNDELIVERED, "SEARCH esl_closed USING INDEX esl_closed_undelivered (lane=? AND state"),
            (ONE_UNTRIED, "SEARCH esl_open USING PRIMARY KEY (lane=? AND due_at=? AND seq=?)"),
            (ONE_TRIED, "SEARCH esl_open USING INDEX esl_open_tried (lane=? AND seq=?"),
            (ONE_CLOSED, "SEARCH esl_closed USING PRIMARY KEY (lane=? AND seq=?)"),
        ] {
            assert_plan(&connection, sql, &[plan]);
        }
    }
}
