//! Handing out what is due.
//!
//! The server says what lanes have, and how large it is; what of that there is room for is decided here, and
//! then read.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Arc,
};

use esl_core::{
    LaneId, OrganizationId, RetryPolicy, SealedEvent, Seq, Timestamp,
    storage::{Claimed, Due, StorageError, Want, Worker},
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage,
    damage::Place,
    error::Damage,
    flatten::epoch_number,
    id::Id16,
    parameters::parameters,
    rows::{
        self, count, get, lane_number, limit_number, sealed_event, seq, seq_number, time, whole,
    },
};

/// What the lanes have, for a worker that owns them.
pub(crate) async fn claim(
    storage: &PostgresStorage,
    worker: &Worker,
    wants: &[Want],
    bytes_max: usize,
) -> Result<Vec<Claimed>, StorageError> {
    let lanes = look(storage, worker, wants).await?;
    let mut bytes_left = bytes_max;
    let picked: Vec<_> =
        lanes.iter().map(|lane| (lane, lane.pick(&wants[lane.want], &mut bytes_left))).collect();
    let events = contents(storage, &picked).await?;
    let claimed = picked.into_iter().map(|(lane, picked)| {
        let want = &wants[lane.want];
        picked.claimed(want.lane, want.in_order, |seq| {
            events.get(&(lane.organization, seq)).cloned().unwrap_or(Content::Damaged)
        })
    });
    Ok(claimed.collect())
}

const OPERATION: &str = "claim deliveries";

/// A lane that is the worker's, and what it has.
#[derive(Debug, PartialEq, Eq)]
struct Lane {
    /// Which want it answers.
    want: usize,
    organization: i32,
    id: OrganizationId,
    now: Timestamp,
    /// Retries that are due by their time.
    due: Vec<Open>,
    /// The first ones that are not.
    later: Vec<Open>,
    /// Those whose time is too far away to be true; they are due.
    far: Vec<Open>,
    untried: Vec<Open>,
    /// Retries by seq, of a lane that is in order.
    by_seq: Vec<Open>,
}

/// An open delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Open {
    seq: Seq,
    due_at: Timestamp,
    attempts: u32,
    charged: u32,
    /// Of its event; `None` if that is not there.
    bytes: Option<usize>,
}

async fn look(
    storage: &PostgresStorage,
    worker: &Worker,
    wants: &[Want],
) -> Result<Vec<Lane>, StorageError> {
    let (id, epoch) = (Id16::from(worker.id), epoch_number(worker));
    let delay_max = i64::try_from(RetryPolicy::DELAY_MAX.as_millis()).unwrap_or(i64::MAX);
    let lanes: Vec<i64> = wants.iter().map(|want| lane_number(want.lane)).collect();
    // One more than there is room for says that there is more. Damaged ones are passed over.
    let more = |room: usize| limit_number(room.saturating_add(1 + DAMAGED_MAX));
    let retries: Vec<i64> =
        wants.iter().map(|want| more(want.room.saturating_add(want.held.len()))).collect();
    let untried: Vec<i64> = wants.iter().map(|want| more(want.room)).collect();
    let in_order: Vec<bool> = wants.iter().map(|want| want.in_order).collect();
    // In order everything counts, whatever was handed out before.
    let after = |want: &Want| {
        if want.in_order { Some(0) } else { want.after.map(seq_number) }
    };
    let after: Vec<Option<i64>> = wants.iter().map(after).collect();
    let values = parameters![
        storage.suite_time(),
        id,
        epoch,
        delay_max,
        lanes,
        retries,
        untried,
        after,
        in_order,
    ];
    let rows = storage.database().query(OPERATION, LOOK, values).await?;
    let mut lanes: HashMap<usize, Result<Lane, Damage>> = HashMap::new();
    for row in &rows {
        let want: i32 = whole(OPERATION, get(row, 0))?;
        let want = usize::try_from(want - 1).unwrap_or(usize::MAX);
        let entry = match lanes.entry(want) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(Lane::new(want, row)),
        };
        if let Ok(lane) = entry
            && let Err(damage) = lane.add(row)
        {
            *entry = Err(damage);
        }
    }
    let mut found = Vec::with_capacity(lanes.len());
    for (index, want) in wants.iter().enumerate() {
        let Some(lane) = lanes.remove(&index) else { continue };
        // The others go on.
        let place = Place::Delivery { lane: lane_number(want.lane), seq: None };
        found.extend(storage.damages().readable(place, lane));
    }
    Ok(found)
}

const LOOK: &str = "
SELECT want, organization, organization_id, part, due_at, seq, attempts, charged, bytes
FROM esl.claim_1($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// So many damaged events at the head of a lane hold up nothing behind them.
const DAMAGED_MAX: usize = 16;

impl Lane {
    fn new(want: usize, row: &Row) -> Result<Self, Damage> {
        Ok(Self {
            want,
            organization: get(row, 1)?,
            id: rows::id(row, 2)?,
            now: Timestamp::EPOCH,
            due: Vec::new(),
            later: Vec::new(),
            far: Vec::new(),
            untried: Vec::new(),
            by_seq: Vec::new(),
        })
    }

    fn add(&mut self, row: &Row) -> Result<(), Damage> {
        let part = match get::<i32>(row, 3)? {
            0 => {
                self.now = time(row, 4)?;
                return Ok(());
            }
            1 => &mut self.due,
            2 => &mut self.later,
            3 => &mut self.far,
            4 => &mut self.untried,
            5 => &mut self.by_seq,
            _ => return Err(Damage::new(3, "there is no such part")),
        };
        let bytes: Option<i64> = get(row, 8)?;
        part.push(Open {
            due_at: time(row, 4)?,
            seq: seq(row, 5)?,
            attempts: count(row, 6)?,
            charged: count(row, 7)?,
            bytes: bytes.and_then(|bytes| usize::try_from(bytes).ok()),
        });
        Ok(())
    }

    /// What of it is handed out.
    fn pick(&self, want: &Want, bytes_left: &mut usize) -> Picked {
        let mut picking = Picking { room: want.room, bytes_left, due: Vec::new() };
        if want.in_order {
            return self.pick_in_order(picking);
        }
        let held: HashSet<Seq> = want.held.iter().copied().collect();
        let is_free = |open: &&Open| !held.contains(&open.seq);
        let far = self.far.iter().map(|open| Open { due_at: self.now, ..*open });
        let retries: Vec<Open> = self.due.iter().copied().chain(far).collect();
        let mut next_due = self.later.iter().find(is_free).map(|open| open.due_at);
        let mut is_cut_short = false;
        for retry in retries.iter().filter(is_free) {
            match picking.offer(retry, true) {
                Offer::Taken | Offer::Damaged => {}
                no @ (Offer::NoRoom | Offer::TooLarge) => {
                    is_cut_short = no == Offer::TooLarge;
                    next_due = Some(retry.due_at);
                    break;
                }
            }
        }
        let mut is_all = true;
        for first in &self.untried {
            let offer = if is_cut_short { Offer::TooLarge } else { picking.offer(first, false) };
            match offer {
                Offer::Taken | Offer::Damaged => {}
                Offer::NoRoom | Offer::TooLarge => {
                    is_all = false;
                    break;
                }
            }
        }
        Picked { due: picking.due, is_all, next_due }
    }

    /// Hands out both kinds by seq, up to a retry that is not due or an event that is damaged: what
    /// comes after it would overtake it.
    fn pick_in_order(&self, mut picking: Picking<'_>) -> Picked {
        let mut all: Vec<(&Open, bool)> = self.by_seq.iter().map(|retry| (retry, true)).collect();
        all.extend(self.untried.iter().map(|first| (first, false)));
        all.sort_by_key(|(open, _)| open.seq);
        let (mut is_all, mut next_due) = (true, None);
        let far = self.now + RetryPolicy::DELAY_MAX;
        for (open, is_retry) in all {
            if is_retry && open.due_at > self.now && open.due_at <= far {
                next_due = Some(open.due_at);
                break;
            }
            match picking.offer(open, is_retry) {
                Offer::Taken => {}
                Offer::Damaged => break,
                Offer::NoRoom | Offer::TooLarge => {
                    is_all = false;
                    break;
                }
            }
        }
        Picked { due: picking.due, is_all, next_due }
    }
}

/// A lane's turn.
struct Picking<'b> {
    room: usize,
    bytes_left: &'b mut usize,
    due: Vec<(Open, bool)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offer {
    Taken,
    NoRoom,
    TooLarge,
    Damaged,
}

impl Picking<'_> {
    /// The first one of a lane goes in any case, so that no lane waits for ever.
    fn offer(&mut self, open: &Open, is_retry: bool) -> Offer {
        if self.due.len() == self.room {
            return Offer::NoRoom;
        }
        let Some(bytes) = open.bytes else { return Offer::Damaged };
        if bytes > *self.bytes_left && !self.due.is_empty() {
            return Offer::TooLarge;
        }
        *self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.due.push((*open, is_retry));
        Offer::Taken
    }
}

/// What of a lane is handed out, without the events.
#[derive(Debug, PartialEq, Eq)]
struct Picked {
    due: Vec<(Open, bool)>,
    is_all: bool,
    next_due: Option<Timestamp>,
}

impl Picked {
    fn claimed(self, lane: LaneId, in_order: bool, content: impl Fn(Seq) -> Content) -> Claimed {
        let mut due = Vec::with_capacity(self.due.len());
        for (open, is_retry) in self.due {
            match content(open.seq) {
                Content::Sealed(event) => due.push(Due {
                    seq: open.seq,
                    event,
                    is_retry,
                    attempts: open.attempts,
                    charged: open.charged,
                }),
                Content::Damaged if in_order => break,
                Content::Erased | Content::Damaged => {}
            }
        }
        Claimed { lane, due, is_all: self.is_all, next_due: self.next_due }
    }
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

/// The events of what was picked: one often goes to many lanes.
async fn contents(
    storage: &PostgresStorage,
    picked: &[(&Lane, Picked)],
) -> Result<HashMap<(i32, Seq), Content>, StorageError> {
    let mut contents = HashMap::new();
    for (lane, picked) in picked {
        for (open, _) in &picked.due {
            contents.insert((lane.organization, open.seq), Content::Damaged);
        }
    }
    if contents.is_empty() {
        return Ok(contents);
    }
    let ids: HashMap<i32, OrganizationId> =
        picked.iter().map(|(lane, _)| (lane.organization, lane.id)).collect();
    let organizations: Vec<i32> = contents.keys().map(|(organization, _)| *organization).collect();
    let seqs: Vec<i64> = contents.keys().map(|(_, seq)| seq_number(*seq)).collect();
    let values = parameters![organizations, seqs];
    let found = storage.database().query(OPERATION, CONTENTS, values).await?;
    for row in &found {
        let organization: i32 = whole(OPERATION, get(row, 0))?;
        let seq = whole(OPERATION, seq(row, 1))?;
        let place = Place::Event(organization, seq, rows::id(row, 3).ok());
        let Some(id) = ids.get(&organization) else { continue };
        let content = match get(row, 2) {
            Ok(true) => Ok(Content::Erased),
            Ok(false) => sealed_event(row, 3, *id).map(Content::Sealed),
            Err(damage) => Err(damage),
        };
        let content = storage.damages().readable(place, content).unwrap_or(Content::Damaged);
        contents.insert((organization, seq), content);
    }
    Ok(contents)
}

const CONTENTS: &str = "
SELECT f.organization, f.seq, f.erased_at IS NOT NULL,
    f.id, f.event_type, f.timestamp, f.digest, f.body, f.changes
FROM unnest($1, $2) AS t (organization, seq)
CROSS JOIN LATERAL (
    SELECT * FROM esl.events e WHERE e.organization = t.organization AND e.seq = t.seq LIMIT 1
) f";
