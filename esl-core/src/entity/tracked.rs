use serde_json::Value;

use super::{Document, EntityKind};
use crate::{
    EntityId, EntityKey, KindName, Timestamp,
    storage::{References, StorageError, StorageErrorKind, StoredEntity},
};

/// An entity as it stood when it was read.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Entity {
    /// Its kind, and its id.
    pub key: EntityKey,
    /// How often it was written.
    pub revision: u64,
    /// Who refers to it.
    pub references: References,
    /// When it was written first.
    pub created_at: Timestamp,
    /// When it was written last.
    pub updated_at: Timestamp,
    /// When something is to be done about it.
    pub due_at: Option<Timestamp>,
    /// What it says, without what ESL adds.
    pub document: Document,
}

impl Entity {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> &KindName {
        &self.key.kind
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> &EntityId {
        &self.key.id
    }

    /// What a field of its document refers to.
    pub(crate) fn reference(&self, field: &str) -> Option<&str> {
        self.document.get(field)?.as_str()
    }

    /// What is shown of it, with those that are shown in it.
    pub(crate) fn representation(
        &self,
        kind: &EntityKind,
        embedded: Vec<Value>,
        now: Timestamp,
    ) -> Document {
        let times = (self.created_at, self.updated_at);
        let mut shown = kind.representation(self.id(), &self.document, times, embedded);
        kind.rules().show(&mut shown, self, now);
        shown
    }

    /// Reads what is stored.
    pub(crate) fn read(stored: StoredEntity) -> Result<Self, StorageError> {
        let document = serde_json::from_slice(&stored.document).map_err(|error| {
            StorageError::new(StorageErrorKind::Corrupt, "read an entity").with_source(error)
        })?;
        Ok(Self {
            key: stored.key,
            revision: stored.revision,
            references: stored.references,
            created_at: stored.created_at,
            updated_at: stored.updated_at,
            due_at: stored.due_at,
            document,
        })
    }
}
