//! Moving all that one storage holds into another one, of another kind.
//!
//! ```text
//!   source: marked, read-only ──▶ rows, table by table ──▶ target: marked, refuses engines
//!           │                     (begun anew at any row)           │
//!           └── tally of each table  ── the same? ──  tally of each table
//!                                      │
//!   target: marked as done, engines may start ──▶ source: marked as left, for good
//! ```
//!
//! At no moment can an engine start on both: the source is closed before the first row is read, and the target
//! opens when all rows are there. [`next_step`] says what to do from what both are marked with; adapters
//! read and write [`Row`]s of [`TABLES`], each in its own way.

mod tables;

use std::fmt;

use sha2::{Digest as _, Sha256};

pub use self::tables::{Column, Kind, TABLES, Table};
use crate::{Digest, Timestamp};

/// Names one move from a storage into another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransferId([u8; 16]);

impl TransferId {
    /// The id of these bytes, which must be random.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its 16 bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

/// Which database rows are moved to: an identity that no other has, and what people call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Its identity.
    pub identity: [u8; 16],
    /// Its name, without a password.
    pub name: String,
}

/// The mark of a storage whose rows are moved elsewhere: nothing is changed in it any more, and no engine
/// starts on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// The move.
    pub id: TransferId,
    /// Where to.
    pub to: Destination,
    /// When all was there.
    pub left_at: Option<Timestamp>,
}

/// What a storage is to which rows are to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arriving {
    /// There is nothing in it.
    Empty,
    /// There is something in it, which did not come from another storage.
    Filled,
    /// Another storage's rows are moved to it, or were.
    Marked {
        /// The move.
        id: TransferId,
        /// When all was there.
        arrived_at: Option<Timestamp>,
    },
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// Close the source, mark the target, and move everything.
    Begin,
    /// Go on where a move of these two was interrupted.
    GoOn,
    /// All is there; only the source may have to be told.
    Done,
    /// Nothing: there is something in the way.
    Refuse(Obstacle),
}

/// Why nothing can be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// There is something in the target.
    NotEmpty,
    /// A move of another source to the target is not finished.
    OfAnother,
    /// The source is being moved to another target.
    ToAnother,
    /// The source was moved before, to this target or another one.
    Left,
}

/// What to do with a source and a target that are marked so. `identity` is the target's.
#[must_use]
pub fn next_step(leaving: Option<&Leaving>, arriving: Arriving, identity: [u8; 16]) -> NextStep {
    let Some(leaving) = leaving else {
        return match arriving {
            Arriving::Empty => NextStep::Begin,
            Arriving::Filled | Arriving::Marked { arrived_at: Some(_), .. } => {
                NextStep::Refuse(Obstacle::NotEmpty)
            }
            Arriving::Marked { arrived_at: None, .. } => NextStep::Refuse(Obstacle::OfAnother),
        };
    };
    let is_left = leaving.left_at.is_some();
    if leaving.to.identity != identity {
        return NextStep::Refuse(if is_left { Obstacle::Left } else { Obstacle::ToAnother });
    }
    match arriving {
        Arriving::Marked { id, .. } if id != leaving.id => NextStep::Refuse(Obstacle::OfAnother),
        Arriving::Marked { arrived_at: Some(_), .. } => NextStep::Done,
        // An older copy of the target stands in its place: what was sent since is not in it.
        _ if is_left => NextStep::Refuse(Obstacle::Left),
        Arriving::Marked { arrived_at: None, .. } => NextStep::GoOn,
        // It was interrupted right at the beginning.
        Arriving::Empty => NextStep::Begin,
        Arriving::Filled => NextStep::Refuse(Obstacle::NotEmpty),
    }
}

/// A row of a [`Table`]: its values, in the order of the columns.
pub type Row = Vec<Value>;

/// A value of a row. Its `Debug` shows no bytes: they may be a secret's.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// None.
    Null,
    /// A number, or 1 for yes and 0 for no.
    Number(i64),
    /// Bytes, and those of ids and texts.
    Bytes(Vec<u8>),
}

impl Value {
    /// How many bytes it takes, about.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        match self {
            Self::Null | Self::Number(_) => 8,
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// Writes it so that no other values, one after the other, look the same.
    fn write(&self, mut out: impl FnMut(&[u8])) {
        match self {
            Self::Null => out(&[0]),
            Self::Number(number) => {
                out(&[1]);
                out(&number.to_be_bytes());
            }
            Self::Bytes(bytes) => {
                out(&[2]);
                out(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
                out(bytes);
            }
        }
    }

    /// Reads what [`write`](Self::write) has written first, and the rest.
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (tag, rest) = bytes.split_first()?;
        match tag {
            0 => Some((Self::Null, rest)),
            1 => {
                let (number, rest) = rest.split_first_chunk()?;
                Some((Self::Number(i64::from_be_bytes(*number)), rest))
            }
            2 => {
                let (length, rest) = rest.split_first_chunk()?;
                let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
                let (bytes, rest) = rest.split_at_checked(length)?;
                Some((Self::Bytes(bytes.to_vec()), rest))
            }
            _ => None,
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Number(number) => write!(f, "Number({number})"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
        }
    }
}

/// How far a move is: the last row that was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Its table.
    pub table: &'static Table,
    /// Its key.
    pub key: Vec<Value>,
}

impl Position {
    /// That of a row.
    #[must_use]
    pub fn of(table: &'static Table, row: &Row) -> Self {
        Self { table, key: row[..table.key].to_vec() }
    }

    /// Its key as bytes, for a column.
    #[must_use]
    pub fn key_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for value in &self.key {
            value.write(|part| bytes.extend_from_slice(part));
        }
        bytes
    }

    /// Reads back what [`key_bytes`](Self::key_bytes) has made.
    #[must_use]
    pub fn from_parts(table: &str, mut bytes: &[u8]) -> Option<Self> {
        let table = Table::of(table)?;
        let mut key = Vec::with_capacity(table.key);
        while !bytes.is_empty() {
            let (value, rest) = Value::read(bytes)?;
            key.push(value);
            bytes = rest;
        }
        (key.len() == table.key).then_some(Self { table, key })
    }
}

/// How many rows a table has, and a hash over all of them in the order of their keys.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    rows: u64,
    hash: Sha256,
}

impl Tally {
    /// Adds a row.
    pub fn add(&mut self, row: &Row) {
        self.rows += 1;
        for value in row {
            value.write(|part| self.hash.update(part));
        }
    }

    /// How many rows there were.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// SHA-256 over all of them.
    #[must_use]
    pub fn checksum(&self) -> Digest {
        Digest::from_bytes(self.hash.clone().finalize().into())
    }
}

impl PartialEq for Tally {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows && self.checksum() == other.checksum()
    }
}

impl Eq for Tally {}

/// So many rows are moved in one transaction at most …
pub const BATCH_ROWS: usize = 10_000;

/// … and no further one once they have so many bytes.
pub const BATCH_BYTES: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TransferId = TransferId::from_bytes([1; 16]);
    const OTHER: TransferId = TransferId::from_bytes([2; 16]);
    const TARGET: [u8; 16] = [3; 16];

    fn leaving(identity: [u8; 16], is_left: bool) -> Leaving {
        let to = Destination { identity, name: "postgres://db/app".into() };
        Leaving { id: ID, to, left_at: is_left.then_some(Timestamp::EPOCH) }
    }

    const fn marked(id: TransferId, is_done: bool) -> Arriving {
        let arrived_at = if is_done { Some(Timestamp::EPOCH) } else { None };
        Arriving::Marked { id, arrived_at }
    }

    #[test]
    fn no_engine_can_have_sent_from_both_whatever_was_interrupted() {
        let (here, there) = (leaving(TARGET, false), leaving([4; 16], false));
        let (left, left_there) = (leaving(TARGET, true), leaving([4; 16], true));
        let refuse = NextStep::Refuse;
        for (leaving, arriving, expected) in [
            (None, Arriving::Empty, NextStep::Begin),
            (None, Arriving::Filled, refuse(Obstacle::NotEmpty)),
            (None, marked(OTHER, false), refuse(Obstacle::OfAnother)),
            (None, marked(OTHER, true), refuse(Obstacle::NotEmpty)),
            (Some(&here), Arriving::Empty, NextStep::Begin),
            (Some(&here), Arriving::Filled, refuse(Obstacle::NotEmpty)),
            (Some(&here), marked(ID, false), NextStep::GoOn),
            (Some(&here), marked(ID, true), NextStep::Done),
            (Some(&here), marked(OTHER, false), refuse(Obstacle::OfAnother)),
            (Some(&here), marked(OTHER, true), refuse(Obstacle::OfAnother)),
            (Some(&there), Arriving::Empty, refuse(Obstacle::ToAnother)),
            (Some(&there), marked(ID, false), refuse(Obstacle::ToAnother)),
            (Some(&left), Arriving::Empty, refuse(Obstacle::Left)),
            (Some(&left), marked(ID, false), refuse(Obstacle::Left)),
            (Some(&left), marked(ID, true), NextStep::Done),
            (Some(&left_there), Arriving::Empty, refuse(Obstacle::Left)),
            (Some(&left_there), marked(ID, true), refuse(Obstacle::Left)),
        ] {
            let step = next_step(leaving, arriving, TARGET);
            assert_eq!(step, expected, "{leaving:?} {arriving:?}");
        }
    }

    #[test]
    fn a_position_comes_back_as_it_was_and_nothing_else_is_one() {
        let table = Table::of("idempotency").unwrap();
        for key in [
            vec![Value::Number(-1), Value::Bytes(vec![])],
            vec![Value::Null, Value::Bytes(vec![0, 1, 2])],
        ] {
            let position = Position { table, key };
            let bytes = position.key_bytes();
            assert_eq!(Position::from_parts("idempotency", &bytes), Some(position));
            assert_eq!(Position::from_parts("idempotency", &bytes[..bytes.len() - 1]), None);
            assert_eq!(Position::from_parts("events_2", &bytes), None);
            assert_eq!(Position::from_parts("organizations", &bytes), None);
        }
    }

    #[test]
    fn a_tally_tells_rows_apart_whose_values_only_stand_elsewhere() {
        let text = |text: &str| Value::Bytes(text.into());
        let tally = |rows: &[Row]| {
            let mut tally = Tally::default();
            rows.iter().for_each(|row| tally.add(row));
            tally
        };
        let all = [
            tally(&[]),
            tally(&[vec![Value::Null]]),
            tally(&[vec![Value::Number(0)]]),
            tally(&[vec![text("")]]),
            tally(&[vec![text("ab"), text("c")]]),
            tally(&[vec![text("a"), text("bc")]]),
            tally(&[vec![text("ab")], vec![text("c")]]),
        ];
        for (place, one) in all.iter().enumerate() {
            for (other_place, other) in all.iter().enumerate() {
                assert_eq!(one == other, place == other_place, "{place} {other_place}");
            }
        }
    }

    #[test]
    fn every_table_has_a_name_a_key_and_columns_of_its_own() {
        for table in TABLES {
            assert!((1..=table.columns.len()).contains(&table.key), "{}", table.name);
            assert_eq!(Table::of(table.name), Some(table));
            let mut names: Vec<_> = table.names().collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), table.columns.len(), "{}", table.name);
        }
    }
}
