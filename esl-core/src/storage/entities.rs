use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use super::StorageError;
use crate::{EntityId, EntityKey, KindName, OrganizationId, Timestamp};

/// Reads of entities. They are written in [units](super::Unit::entities), with the events that say so.
///
/// Storage knows nothing of what is in a document. What can be asked for stands beside it, in an **index**:
/// entries of a field and a value, which whoever writes a document states with it.
#[async_trait]
pub trait Entities: fmt::Debug + Send + Sync + 'static {
    /// One entity.
    async fn entity(
        &self,
        organization: OrganizationId,
        key: &EntityKey,
    ) -> Result<Option<StoredEntity>, StorageError>;

    /// Entities of a kind, as the query says. A call looks at a bounded number of entries, and so may give
    /// fewer than asked for, even none, while there are more: [`EntityPage::next`] says where to go on.
    async fn entities(
        &self,
        organization: OrganizationId,
        query: &EntityQuery,
    ) -> Result<EntityPage, StorageError>;

    /// For each of some values, the entities of a kind that have it in that field of their index, by id. At
    /// most [`REFERENCES_MAX`] each.
    async fn referring(
        &self,
        organization: OrganizationId,
        kind: &KindName,
        field: &str,
        values: &[IndexValue],
    ) -> Result<Vec<Vec<StoredEntity>>, StorageError>;

    /// When the next entity of any organization is due.
    async fn next_entity_due(&self) -> Result<Option<Timestamp>, StorageError>;

    /// Entities of all organizations that are due by storage's time, those that have been for longest first,
    /// at most `limit`. They stay due until they are written with another time.
    async fn due_entities(&self, limit: usize) -> Result<Vec<DueEntity>, StorageError>;
}

/// So many entities may refer to one in storage: all of them may have to be written in one unit.
pub const REFERENCES_MAX: u32 = 1000;

/// A document that is kept, and what storage knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntity {
    /// Which entity it is.
    pub key: EntityKey,
    /// How often it was written: 1 for one that is new.
    pub revision: u64,
    /// Who refers to it.
    pub references: References,
    /// When it was written first, as whoever wrote it says.
    pub created_at: Timestamp,
    /// When it was written last.
    pub updated_at: Timestamp,
    /// When something is to be done about it.
    pub due_at: Option<Timestamp>,
    /// The document, in JSON.
    pub document: Bytes,
}

/// What an entity knows of those that refer to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct References {
    /// How many they are.
    pub count: u32,
    /// How often one of them came, went or was written.
    pub version: u64,
}

impl References {
    /// What it knows after [`EntityAction::Refer`].
    #[must_use]
    pub const fn referred(self, by: i32) -> Self {
        Self { count: self.count.saturating_add_signed(by), version: self.version + 1 }
    }
}

/// Writes of entities of one organization, in a unit.
#[derive(Debug, Clone)]
pub struct EntityWrite {
    /// Whose entities they are: whose events are published, if the unit publishes.
    pub organization: OrganizationId,
    /// What is written. Every expectation is of what was there before the unit.
    pub steps: Vec<EntityStep>,
}

/// What is expected of an entity, and what becomes of it.
#[derive(Debug, Clone)]
pub struct EntityStep {
    /// Which one.
    pub key: EntityKey,
    /// What the writer has read; if it is otherwise by now, the unit is
    /// [`Refused::Stale`](super::Refused::Stale).
    pub expected: Expected,
    /// What becomes of it.
    pub action: EntityAction,
}

/// What a writer goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// It is not there.
    Absent,
    /// It is there, whatever it is.
    Present,
    /// It is there at this revision.
    Revision(u64),
    /// It is there at this revision, and those who refer to it are at that [`version`](References::version).
    Unchanged(u64, u64),
}

impl Expected {
    /// Whether an entity is as expected. Storage decides by this.
    #[must_use]
    pub fn is_met(self, entity: Option<(u64, References)>) -> bool {
        match (self, entity) {
            (Self::Absent, entity) => entity.is_none(),
            (Self::Present, entity) => entity.is_some(),
            (Self::Revision(expected), Some((revision, _))) => revision == expected,
            (Self::Unchanged(expected, version), Some((revision, references))) => {
                revision == expected && references.version == version
            }
            (Self::Revision(_) | Self::Unchanged(..), None) => false,
        }
    }
}

/// What becomes of an entity. If a unit has several for one, they happen in order.
#[derive(Debug, Clone)]
pub enum EntityAction {
    /// Nothing: it is only expected to be as it was read.
    Check,
    /// It is written, and its revision goes up by one.
    Put(PutEntity),
    /// It goes, with its index. The next one of its id begins at revision 1.
    Delete,
    /// Others come to refer to it, cease to, or are written while they do: its
    /// [`version`](References::version) goes up by one, and their count by so many. If they would be more
    /// than [`REFERENCES_MAX`], the unit is [`Refused::TooManyReferences`](super::Refused::TooManyReferences).
    /// Of one that is deleted in the same unit it says nothing.
    Refer(i32),
}

/// A document to be kept.
#[derive(Debug, Clone)]
pub struct PutEntity {
    /// When it was written first.
    pub created_at: Timestamp,
    /// When this is.
    pub updated_at: Timestamp,
    /// When something is to be done about it. Other handles are told
    /// [`Change::Schedule`](super::Change::Schedule).
    pub due_at: Option<Timestamp>,
    /// The document, in JSON.
    pub document: Bytes,
    /// What is no longer in its index …
    pub unindexed: Vec<IndexEntry>,
    /// … and what comes into it. Each entry is in one of the two, and stands there once.
    pub indexed: Vec<IndexEntry>,
}

/// An entry of an index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexEntry {
    /// The name of the field, at most [`FIELD_BYTES_MAX`](Self::FIELD_BYTES_MAX).
    pub field: Arc<str>,
    /// Its value.
    pub value: IndexValue,
}

impl IndexEntry {
    /// The longest name of a field, in bytes.
    pub const FIELD_BYTES_MAX: usize = 128;
}

/// A value of an index: bytes whose order is the order of what they stand for, at most
/// [`BYTES_MAX`](Self::BYTES_MAX).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexValue(pub Box<[u8]>);

impl IndexValue {
    /// The longest one, in bytes.
    pub const BYTES_MAX: usize = 256;
}

/// Which entities, and in what order.
#[derive(Debug, Clone)]
pub struct EntityQuery {
    /// Of this kind.
    pub kind: KindName,
    /// Those that have all of these entries in their index.
    pub having: Vec<IndexEntry>,
    /// By the values of this field of their index, then by id; by id alone if `None`. One that has no entry
    /// of that field is left out.
    pub by: Option<Arc<str>>,
    /// The other way round.
    pub is_descending: bool,
    /// Those that come after this one.
    pub after: Option<EntityPosition>,
    /// At most so many.
    pub limit: usize,
}

/// A place in the order of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityPosition {
    /// The value of the field that they are ordered by, if they are by one.
    pub value: Option<IndexValue>,
    /// The id.
    pub id: EntityId,
}

/// Some entities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityPage {
    /// The entities.
    pub items: Vec<StoredEntity>,
    /// Where to go on, if there may be more.
    pub next: Option<EntityPosition>,
}

/// So many entries a call of [`Entities::entities`] looks at, about.
pub const ENTRIES_MAX: usize = 10_000;

/// An entity about which something is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueEntity {
    /// Whose it is.
    pub organization: OrganizationId,
    /// The entity, whose [`due_at`](StoredEntity::due_at) is not `None`.
    pub entity: StoredEntity,
}
