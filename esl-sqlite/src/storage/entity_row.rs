//! An entity as its row has it.

use std::collections::BTreeSet;

use bytes::Bytes;
use esl_core::{
    EntityKey,
    storage::{IndexEntry, IndexValue, References, StoredEntity},
};
use rusqlite::{Row, types::Type};

use crate::storage::rows::{damaged, mistyped, optional_time, parsed, time};

/// The columns that [`stored_entity`] reads, of a table that is called `e`.
pub(crate) const ENTITY: &str = "e.rowid, e.kind, e.id, e.revision, e.reference_count, \
     e.reference_version, e.created_at, e.updated_at, e.due_at, e.document";

/// Reads [`ENTITY`], beginning at column `first`.
pub(crate) fn stored_entity(row: &Row<'_>, first: usize) -> rusqlite::Result<StoredEntity> {
    let document = row.get_ref(first + 9)?.as_blob();
    let document = document.map_err(|error| mistyped(first + 9, error))?;
    Ok(StoredEntity {
        key: EntityKey::new(parsed(row, first + 1)?, parsed(row, first + 2)?),
        revision: count(row, first + 3)?,
        references: References { count: row.get(first + 4)?, version: count(row, first + 5)? },
        created_at: time(row, first + 6)?,
        updated_at: time(row, first + 7)?,
        due_at: optional_time(row, first + 8)?,
        document: Bytes::copy_from_slice(document),
    })
}

fn count(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(index)?;
    u64::try_from(number).map_err(|error| damaged(index, Type::Integer, error))
}

/// An entity, as far as those who write it need it.
pub(crate) struct EntityRow {
    pub(crate) rowid: i64,
    pub(crate) revision: u64,
    pub(crate) references: References,
    pub(crate) index: BTreeSet<IndexEntry>,
}

impl EntityRow {
    /// Reads `rowid, revision, reference_count, reference_version, indexed`.
    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let index = row.get_ref(4)?.as_blob().map_err(|error| mistyped(4, error))?;
        Ok(Self {
            rowid: row.get(0)?,
            revision: count(row, 1)?,
            references: References { count: row.get(2)?, version: count(row, 3)? },
            index: index_from(index)
                .ok_or_else(|| damaged(4, Type::Blob, "not the index of an entity"))?,
        })
    }
}

/// An index as `esl_entities.indexed` keeps it: of each entry the length of the field in one byte, the
/// field, the length of the value in two, and the value.
pub(crate) fn index_bytes<'i>(index: impl IntoIterator<Item = &'i IndexEntry>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for IndexEntry { field, value: IndexValue(value) } in index {
        bytes.push(u8::try_from(field.len()).expect("a field has 128 bytes at most"));
        bytes.extend_from_slice(field.as_bytes());
        let length = u16::try_from(value.len()).expect("a value has 256 bytes at most");
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(value);
    }
    bytes
}

/// Reads back what [`index_bytes`] has made.
fn index_from(mut bytes: &[u8]) -> Option<BTreeSet<IndexEntry>> {
    let mut index = BTreeSet::new();
    while let Some((length, rest)) = bytes.split_first() {
        let (field, rest) = rest.split_at_checked(usize::from(*length))?;
        let (length, rest) = rest.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let field = str::from_utf8(field).ok()?.into();
        index.insert(IndexEntry { field, value: IndexValue(value.into()) });
        bytes = rest;
    }
    Some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_comes_back_as_it_was_and_nothing_else_is_one() {
        let longest = "f".repeat(IndexEntry::FIELD_BYTES_MAX);
        let entries: [(&str, &[u8]); 4] =
            [("", b""), ("name", b"\0\xff"), ("ä", b""), (&longest, &[7; IndexValue::BYTES_MAX])];
        let index: BTreeSet<_> = entries
            .into_iter()
            .map(|(field, value)| IndexEntry {
                field: field.into(),
                value: IndexValue(value.into()),
            })
            .collect();
        let bytes = index_bytes(&index);
        assert_eq!(index_from(&[]), Some(BTreeSet::new()));
        assert_eq!(index_from(&bytes), Some(index));
        for cut in [1, 2, bytes.len() - 1] {
            assert_eq!(index_from(&bytes[..cut]), None, "{cut}");
        }
        assert_eq!(index_from(b"\x01\xff\0\0"), None);
    }
}
