//! Deliveries as their organization sees them.
//!
//! What an open one is called follows from its subscription, so a pause or a deletion rewrites no rows. A
//! list is a merge of the places where deliveries are, each in the order of seqs already: one statement, which
//! reads the subscription as of the same moment.

use esl_core::{
    Attempt, Delivery, DeliveryId, DeliveryState, OrganizationId, Seq, SubscriptionId, Timestamp,
    storage::{
        Page, PageOf, StorageError, StorageErrorKind,
        encoding::{DeliveryRow, Ending, EventHead, LaneHead, Standing},
    },
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage,
    damage::Place,
    error::{Damage, refused},
    id::Id16,
    pages::PageReader,
    parameters::parameters,
    rows::{
        self, ATTEMPT, attempt, attempt_error, count, ending, get, id, lane_number, optional_time,
        parsed, seq, seq_number, status, time, whole,
    },
};

const LIST: &str = "list deliveries";
const ONE: &str = "read a delivery";

/// The deliveries of a subscription, newest event first.
pub(crate) async fn list(
    storage: &PostgresStorage,
    organization: OrganizationId,
    subscription: SubscriptionId,
    state: Option<DeliveryState>,
    page: Page<Seq>,
) -> Result<Option<PageOf<Delivery>>, StorageError> {
    let text = list_sql(state);
    let mut below = page.after.map_or(i64::MAX, seq_number);
    let mut reader = PageReader::new(page.limit);
    loop {
        let (organization, subscription) = (Id16::from(organization), Id16::from(subscription));
        let values = parameters![organization, subscription, below, reader.ask()];
        let rows = storage.database().query(LIST, &text, values).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let lane = whole(LIST, Lane::read(first))?;
        let mut came = 0;
        for row in &rows {
            let Some(seq) = whole(LIST, get::<Option<i64>>(row, DELIVERY_AT))? else { break };
            below = seq;
            came += 1;
            reader.take(lane.listed(storage, row));
        }
        // What is below stays as it is, so a later moment of the database is as good.
        if reader.is_done(came) {
            return Ok(Some(reader.into_page()));
        }
    }
}

/// The delivery of that very id, and its attempts.
pub(crate) async fn one(
    storage: &PostgresStorage,
    organization: OrganizationId,
    id: DeliveryId,
) -> Result<Option<(Delivery, Vec<Attempt>)>, StorageError> {
    // A delivery's id says its lane, and anybody can make one up.
    let (lane, seq) = (lane_number(id.lane()), seq_number(id.seq()));
    let values = parameters![Id16::from(organization), lane, seq];
    let rows = storage.database().query(ONE, &one_sql(), values).await?;
    match whole(ONE, found(&rows, id))? {
        One::Found(delivery, attempts) => Ok(Some((*delivery, attempts))),
        One::Removed => Err(refused(StorageErrorKind::Gone, ONE)),
        One::Unknown => Ok(None),
    }
}

/// What there is under an id.
enum One {
    Found(Box<Delivery>, Vec<Attempt>),
    /// It was removed because its event was old.
    Removed,
    Unknown,
}

/// Reads the rows of [`one_sql`]: one for each attempt, and one if there is none.
fn found(rows: &[Row], id: DeliveryId) -> Result<One, Damage> {
    let Some(first) = rows.first() else { return Ok(One::Unknown) };
    let lane = Lane::read(first)?;
    if let Some(event) = event_head(first)? {
        if !id.is_of(event.id) {
            return Ok(One::Unknown);
        }
        if get::<Option<i64>>(first, DELIVERY_AT)?.is_some() {
            let delivery = lane.head.delivery(&delivery_row(first)?, event);
            return Ok(One::Found(Box::new(delivery), attempts(rows)?));
        }
    }
    let is_removed = id.seq() > Seq::ZERO && id.seq() <= lane.removed_to;
    Ok(if is_removed { One::Removed } else { One::Unknown })
}

fn attempts(rows: &[Row]) -> Result<Vec<Attempt>, Damage> {
    let mut attempts = Vec::new();
    for row in rows {
        if get::<Option<i64>>(row, ATTEMPT_AT)?.is_some() {
            attempts.push(attempt(row, ATTEMPT_AT)?);
        }
    }
    Ok(attempts)
}

/// A lane, and what is known of its organization.
struct Lane {
    head: LaneHead,
    /// The key of its organization.
    organization: i32,
    removed_to: Seq,
}

/// The columns that [`Lane::read`] reads, with which a row begins.
const LANE: &str = "s.lane, s.id, s.active, s.deleted_at, l.not_before, g.key, g.removed_to";

impl Lane {
    fn read(row: &Row) -> Result<Self, Damage> {
        Ok(Self {
            head: LaneHead {
                lane: rows::lane(row, 0)?,
                subscription: id(row, 1)?,
                is_active: get(row, 2)?,
                deleted_at: optional_time(row, 3)?,
                not_before: optional_time(row, 4)?,
            },
            organization: get(row, 5)?,
            removed_to: seq(row, 6)?,
        })
    }

    /// What a list shows of a row: nothing if it is damaged, which is said.
    fn listed(&self, storage: &PostgresStorage, row: &Row) -> Option<Delivery> {
        let damages = storage.damages();
        let lane = lane_number(self.head.lane);
        let place = Place::Delivery { lane, seq: seq(row, DELIVERY_AT).ok() };
        let found = damages.readable(place, delivery_row(row))?;
        let event = match event_head(row) {
            // Settled while the old events went; the next round removes it.
            Ok(None) if found.seq <= self.removed_to => return None,
            Ok(None) => Err(Damage::new(EVENT_AT, "a delivery of an event that is gone")),
            Ok(Some(event)) => Ok(event),
            Err(damage) => Err(damage),
        };
        let place = Place::Event(self.organization, found.seq, id(row, EVENT_AT).ok());
        let event = damages.readable(place, event)?;
        Some(self.head.delivery(&found, event))
    }
}

/// Where the columns of a delivery begin.
const DELIVERY_AT: usize = 7;

/// The columns that [`delivery_row`] reads. `ended` is NULL for what is open.
const DELIVERY: &str = "
d.seq, d.attempts, d.created_at, d.last_status, d.last_error, d.at, d.ended";

fn delivery_row(row: &Row) -> Result<DeliveryRow, Damage> {
    let (at, ended) = (DELIVERY_AT + 5, DELIVERY_AT + 6);
    let standing = match (get::<Option<i16>>(row, ended)?, get::<i64>(row, at)?) {
        (None, 0) => Standing::Untried,
        (None, due_at) => Standing::RetryAt(Timestamp::from_millis(due_at)),
        (Some(_), _) => Standing::Closed(ending(row, ended)?, time(row, at)?),
    };
    Ok(DeliveryRow {
        seq: seq(row, DELIVERY_AT)?,
        attempts: count(row, DELIVERY_AT + 1)?,
        created_at: optional_time(row, DELIVERY_AT + 2)?,
        last_status: status(row, DELIVERY_AT + 3)?,
        last_error: attempt_error(row, DELIVERY_AT + 4)?,
        standing,
    })
}

/// Where the columns of its event begin.
const EVENT_AT: usize = DELIVERY_AT + 7;

const EVENT: &str = "e.id, e.event_type, e.timestamp";

/// Reads [`EVENT`]; `None` if there is none.
fn event_head(row: &Row) -> Result<Option<EventHead>, Damage> {
    if get::<Option<Id16>>(row, EVENT_AT)?.is_none() {
        return Ok(None);
    }
    Ok(Some(EventHead {
        id: id(row, EVENT_AT)?,
        event_type: parsed(row, EVENT_AT + 1)?,
        timestamp: time(row, EVENT_AT + 2)?,
    }))
}

/// Where the columns of an attempt begin.
const ATTEMPT_AT: usize = EVENT_AT + 3;

/// The deliveries in a state below a seq, newest first. A row for each, and one without if there is none.
fn list_sql(state: Option<DeliveryState>) -> String {
    let open = |condition: &str| [open_part(UNTRIED, condition), open_part(TRIED, condition)];
    let parts: Vec<String> = match state {
        None => open("").into_iter().chain([closed_part("")]).collect(),
        // Most of them are: no index says which.
        Some(DeliveryState::Delivered) => vec![closed_part("AND c.state = 0")],
        Some(DeliveryState::Exhausted) => vec![undelivered_part(Ending::Exhausted)],
        Some(DeliveryState::Expired) => vec![undelivered_part(Ending::Expired)],
        Some(DeliveryState::Cancelled) => {
            let parts = open("AND s.deleted_at IS NOT NULL").into_iter();
            parts.chain([undelivered_part(Ending::Cancelled)]).collect()
        }
        Some(DeliveryState::Pending) => open("AND s.deleted_at IS NULL AND s.active").into(),
        Some(DeliveryState::Held) => open("AND s.deleted_at IS NULL AND NOT s.active").into(),
        // None is in a state that this storage was not built for.
        Some(_) => vec![closed_part("AND false")],
    };
    let parts = parts.join(" UNION ALL ");
    format!(
        "SELECT {LANE}, {DELIVERY}, {EVENT}
         FROM esl.organizations g
         JOIN esl.subscriptions s ON s.organization = g.key
         LEFT JOIN esl.lanes l ON l.lane = s.lane
         LEFT JOIN LATERAL (
             SELECT part.* FROM ({parts}) part ORDER BY part.seq DESC LIMIT $4
         ) d ON true
         {OF_EVENT}
         WHERE g.id = $1 AND g.deleted_at IS NULL AND s.id = $2
         ORDER BY d.seq DESC"
    )
}

fn open_part(which: &str, condition: &str) -> String {
    format!(
        "(SELECT {OPEN} FROM esl.open a
          WHERE a.lane = s.lane AND {which} AND a.seq < $3 {condition}
          ORDER BY a.seq DESC LIMIT $4)"
    )
}

fn closed_part(condition: &str) -> String {
    format!(
        "(SELECT {CLOSED} FROM esl.closed c
          WHERE c.lane = s.lane AND c.seq < $3 {condition}
          ORDER BY c.seq DESC LIMIT $4)"
    )
}

fn undelivered_part(ending: Ending) -> String {
    closed_part(&format!("AND c.state = {} AND c.state <> 0", ending.number()))
}

/// A delivery, its event and its attempts. A row for each attempt, and one without if there is none; as
/// there is if the subscription has no such delivery.
fn one_sql() -> String {
    format!(
        "SELECT {LANE}, {DELIVERY}, {EVENT}, {ATTEMPT}
         FROM esl.organizations g
         JOIN esl.subscriptions s ON s.organization = g.key
         LEFT JOIN esl.lanes l ON l.lane = s.lane
         LEFT JOIN LATERAL (
             SELECT {OPEN} FROM esl.open a WHERE a.lane = s.lane AND {UNTRIED} AND a.seq = $3
             UNION ALL
             SELECT {OPEN} FROM esl.open a WHERE a.lane = s.lane AND {TRIED} AND a.seq = $3
             UNION ALL
             SELECT {CLOSED} FROM esl.closed c WHERE c.lane = s.lane AND c.seq = $3
             LIMIT 1
         ) d ON true
         LEFT JOIN LATERAL (
             SELECT e.id, e.event_type, e.timestamp FROM esl.events e
             WHERE e.organization = g.key AND e.seq = $3 LIMIT 1
         ) e ON true
         LEFT JOIN LATERAL (
             SELECT {ATTEMPT} FROM esl.attempts t
             WHERE t.lane = s.lane AND t.seq = d.seq ORDER BY t.number OFFSET 0
         ) t ON true
         WHERE g.id = $1 AND g.deleted_at IS NULL AND s.lane = $2
         ORDER BY t.number"
    )
}

/// The event of a delivery: one search for each.
const OF_EVENT: &str = "
LEFT JOIN LATERAL (
    SELECT e.id, e.event_type, e.timestamp FROM esl.events e
    WHERE e.organization = g.key AND e.seq = d.seq LIMIT 1
) e ON true";

const OPEN: &str = "
a.seq, a.attempts, a.created_at, a.last_status, a.last_error,
a.due_at AS at, NULL::smallint AS ended";

const UNTRIED: &str = "a.due_at = 0";

const TRIED: &str = "a.due_at > 0";

const CLOSED: &str = "
c.seq, c.attempts, c.created_at, c.last_status, c.last_error,
c.finished_at AS at, c.state AS ended";
