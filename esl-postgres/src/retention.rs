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
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use esl_core::{
    Seq, Timestamp,
    storage::{AgeLimit, StorageError},
};
use tokio_postgres::Row;

use crate::{
    PostgresStorage,
    error::Damage,
    parameters::parameters,
    removal::{OPERATION, Slice, counted, named_by_heads},
    rows::{get, seq, seq_from, seq_number, time, whole},
};

/// Where a round stands.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// The organizations up to this key were begun with.
    after: i32,
    /// Those of them that are not done, in turn.
    underway: VecDeque<Place>,
}

/// Where it stands in an organization.
#[derive(Debug)]
struct Place {
    key: i32,
    /// Everything up to here is old.
    to: Seq,
    /// The lanes up to this one are done; `None` when all are.
    after_lane: Option<i64>,
    owing: Owing,
    /// The events up to here are done.
    after_seq: Seq,
}

/// Goes on with the round; true when it has come to its end.
pub(crate) async fn remove(
    storage: &PostgresStorage,
    round: &mut Round,
    age: Duration,
    slice: &mut Slice,
) -> Result<bool, StorageError> {
    let limits = AgeLimit::new(slice.now, age);
    remove_records(storage, &limits, slice).await?;
    while slice.left > 0 {
        let next = match next_organization(storage, round.after, &limits, slice).await? {
            Next::Found(place) => {
                round.after = place.key;
                Some(place)
            }
            Next::NotYet(after) => {
                round.after = after;
                None
            }
            Next::End => match round.underway.pop_front() {
                Some(place) => Some(place),
                None => {
                    *round = Round::default();
                    return Ok(true);
                }
            },
        };
        let Some(mut place) = next else { continue };
        // Where it stands is not lost with an error.
        let is_done = place.go_on(storage, &limits, slice).await;
        if !matches!(is_done, Ok(true)) {
            round.underway.push_back(place);
        }
        is_done?;
    }
    Ok(false)
}

/// Removes replays that have been over for as long as events are kept, and what is as old in the trail.
async fn remove_records(
    storage: &PostgresStorage,
    limits: &AgeLimit,
    slice: &mut Slice,
) -> Result<(), StorageError> {
    let values = parameters![storage.suite_time(), limits.old.as_millis(), slice.limit()];
    let row = storage.database().query_one(OPERATION, REMOVE_RECORDS, values).await?;
    let replays = whole(OPERATION, counted(&row, 0))?;
    let audit = whole(OPERATION, counted(&row, 1))?;
    slice.removed.replays += replays;
    slice.removed.audit += audit;
    slice.use_up(replays + audit);
    Ok(())
}

const REMOVE_RECORDS: &str = "SELECT replays, audit FROM esl.remove_records_1($1, $2, $3)";

/// What the next organizations have.
enum Next {
    Found(Place),
    /// None up to this key has anything.
    NotYet(i32),
    End,
}

async fn next_organization(
    storage: &PostgresStorage,
    after: i32,
    limits: &AgeLimit,
    slice: &mut Slice,
) -> Result<Next, StorageError> {
    let AgeLimit { old, possible } = limits;
    let now = storage.suite_time();
    let values = parameters![now, after, slice.limit(), old.as_millis(), possible.as_millis()];
    let row = storage.database().query_one(OPERATION, NEXT, values).await?;
    let (next, looked_at) = whole(OPERATION, read_next(&row))?;
    slice.use_up(looked_at);
    Ok(next)
}

fn read_next(row: &Row) -> Result<(Next, usize), Damage> {
    let looked_at = counted(row, 1)?;
    let Some(after) = get::<Option<i32>>(row, 0)? else { return Ok((Next::End, looked_at)) };
    let Some(key) = get::<Option<i32>>(row, 2)? else {
        return Ok((Next::NotYet(after), looked_at));
    };
    let place = Place {
        key,
        to: seq(row, 3)?,
        after_lane: Some(0),
        owing: Owing::default(),
        after_seq: Seq::ZERO,
    };
    Ok((Next::Found(place), looked_at))
}

const NEXT: &str = "SELECT after, looked_at, key, old_to FROM esl.retention_1($1, $2, $3, $4, $5)";

impl Place {
    /// Goes on in the organization; true when it is done.
    async fn go_on(
        &mut self,
        storage: &PostgresStorage,
        limits: &AgeLimit,
        slice: &mut Slice,
    ) -> Result<bool, StorageError> {
        while slice.left > 0 {
            let is_done = match self.after_lane {
                Some(after) => self.remove_closed(storage, after, slice).await?,
                None => self.remove_events(storage, limits, slice).await?,
            };
            if is_done {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes what is closed in the next lanes; true if the organization was deleted meanwhile, and so is
    /// no more retention's.
    async fn remove_closed(
        &mut self,
        storage: &PostgresStorage,
        after: i64,
        slice: &mut Slice,
    ) -> Result<bool, StorageError> {
        let now = storage.suite_time();
        let values = parameters![now, self.key, after, seq_number(self.to), slice.limit()];
        let row = storage.database().query_opt(OPERATION, REMOVE_CLOSED, values).await?;
        let Some(row) = row else { return Ok(true) };
        whole(OPERATION, self.removed_closed(&row, slice))?;
        Ok(false)
    }

    fn removed_closed(&mut self, row: &Row, slice: &mut Slice) -> Result<(), Damage> {
        slice.use_up(counted(row, 1)?);
        slice.removed.deliveries += counted(row, 2)?;
        slice.removed.attempts += counted(row, 3)?;
        let (lanes, seqs): (Vec<i64>, Vec<i64>) = (get(row, 4)?, get(row, 5)?);
        for (lane, seq) in lanes.into_iter().zip(seqs) {
            self.owing.add(lane, seq_from(seq, 5)?);
        }
        self.after_lane = get(row, 0)?;
        Ok(())
    }

    /// Removes old events that nobody owes; true when all are gone through.
    async fn remove_events(
        &mut self,
        storage: &PostgresStorage,
        limits: &AgeLimit,
        slice: &mut Slice,
    ) -> Result<bool, StorageError> {
        let (after, to) = (seq_number(self.after_seq), seq_number(self.to));
        let limit = slice.limit();
        let rows = storage
            .database()
            .query(OPERATION, EVENTS, parameters![self.key, after, to, limit])
            .await?;
        let mut is_last = i64::try_from(rows.len()).unwrap_or(i64::MAX) < limit;
        let (mut doomed, mut bytes, mut done_to) = (Vec::new(), 0, self.after_seq);
        for row in &rows {
            if slice.left == 0 {
                is_last = false;
                break;
            }
            let event = whole(OPERATION, Event::read(row))?;
            let Some(is_owed) = self.owing.owe(storage, event.seq, self.to, slice).await? else {
                is_last = false;
                break;
            };
            done_to = event.seq;
            slice.use_up(1);
            if !is_owed && (limits.is_old(event.at) || !limits.is_possible(event.at)) {
                slice.use_up_bytes(event.bytes);
                bytes += event.bytes;
                doomed.push(seq_number(event.seq));
            }
        }
        if !doomed.is_empty() {
            let values = parameters![storage.suite_time(), self.key, doomed];
            let row = storage.database().query_one(OPERATION, REMOVE_EVENTS, values).await?;
            slice.removed.events += whole(OPERATION, counted(&row, 0))?;
            slice.removed.bytes += bytes;
            slice.removed.blobs.extend(whole(OPERATION, named_by_heads(&row, 1))?);
        }
        self.after_seq = done_to;
        Ok(is_last)
    }
}

/// An event that may be removed.
struct Event {
    seq: Seq,
    /// Of its envelope and its changes.
    bytes: u64,
    at: Timestamp,
}

impl Event {
    fn read(row: &Row) -> Result<Self, Damage> {
        let bytes: i64 = get(row, 1)?;
        Ok(Self { seq: seq(row, 0)?, bytes: bytes.unsigned_abs(), at: time(row, 2)? })
    }
}

const REMOVE_CLOSED: &str = "
SELECT after, used, deliveries, attempts, owing_lanes, owing_seqs
FROM esl.remove_closed_1($1, $2, $3, $4, $5)";

const EVENTS: &str = "
SELECT e.seq, (octet_length(e.body) + coalesce(octet_length(e.changes), 0))::bigint, e.timestamp
FROM esl.events e
WHERE e.organization = $1 AND e.seq > $2 AND e.seq <= $3 ORDER BY e.seq LIMIT $4";

const REMOVE_EVENTS: &str = "SELECT events, heads FROM esl.remove_events_1($1, $2, $3)";

/// The lanes that owe something old: each with an event that it owes, before which it owes nothing but
/// what was gone through already.
///
/// Up to where things are removed nothing is opened again, so what was found once can only have become
/// less: an event that was settled meanwhile goes in the next round.
#[derive(Debug, Default)]
struct Owing(BinaryHeap<Reverse<(Seq, i64)>>);

impl Owing {
    fn add(&mut self, lane: i64, first: Seq) {
        self.0.push(Reverse((first, lane)));
    }

    /// Whether some lane owes that event; `None` if the slice is used up before that is known. To be
    /// asked of one event after the other.
    ///
    /// A lane is only asked again once the event that it was found with is passed, and no further ones
    /// are when one says yes: a lane that owes everything spares all others.
    async fn owe(
        &mut self,
        storage: &PostgresStorage,
        seq: Seq,
        to: Seq,
        slice: &mut Slice,
    ) -> Result<Option<bool>, StorageError> {
        loop {
            match self.0.peek() {
                Some(Reverse((owed, _))) if *owed >= seq => return Ok(Some(*owed == seq)),
                Some(_) if slice.left == 0 => return Ok(None),
                Some(_) => self.ask(storage, seq, to, slice).await?,
                None => return Ok(Some(false)),
            }
        }
    }

    /// Asks some of the lanes what they owe from a seq on that were found with one before it.
    async fn ask(
        &mut self,
        storage: &PostgresStorage,
        seq: Seq,
        to: Seq,
        slice: &mut Slice,
    ) -> Result<(), StorageError> {
        let lanes: Vec<i64> = {
            let passed = std::iter::from_fn(|| {
                let is_passed = self.0.peek().is_some_and(|Reverse((owed, _))| *owed < seq);
                if is_passed { self.0.pop() } else { None }
            });
            passed.take(ASKED_AT_ONCE).map(|Reverse((_, lane))| lane).collect()
        };
        slice.use_up(lanes.len() * SEARCHES);
        let values = parameters![lanes, seq_number(seq), seq_number(to)];
        let asked = storage.database().query(OPERATION, OWED, values).await;
        let rows = match asked {
            Ok(rows) => rows,
            Err(error) => {
                // They are asked once more.
                lanes.into_iter().for_each(|lane| self.add(lane, Seq::ZERO));
                return Err(error);
            }
        };
        for row in &rows {
            let found: Option<i64> = whole(OPERATION, get(row, 1))?;
            if let Some(found) = found {
                let first = whole(OPERATION, seq_from(found, 1))?;
                self.add(whole(OPERATION, get(row, 0))?, first);
            }
        }
        Ok(())
    }
}

/// What asking a lane costs: its two kinds of open deliveries are two ranges.
const SEARCHES: usize = 2;

/// Few, since one that owes the event in question spares the rest.
const ASKED_AT_ONCE: usize = 32;

const OWED: &str = "
SELECT t.lane, esl.first_owed_1(t.lane, $2, $3) FROM unnest($1) AS t (lane)";
