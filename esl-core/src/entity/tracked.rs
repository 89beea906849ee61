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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::storage::References;

    #[test]
    fn numbers_come_out_of_storage_as_they_went_in() {
        let numbers = json!([0.1, -0.0, 1e300, 5e-324, 2.638344616030823e-256, u64::MAX, i64::MIN]);
        let document = Document::from_iter([("numbers".to_owned(), numbers)]);
        let stored = StoredEntity {
            key: EntityKey::new("a".parse().expect("a kind"), "b".parse().expect("an id")),
            revision: 1,
            references: References::default(),
            created_at: Timestamp::from_millis(0),
            updated_at: Timestamp::from_millis(0),
            due_at: None,
            document: serde_json::to_vec(&document).expect("a document is JSON").into(),
        };
        let entity = Entity::read(stored).expect("it was written like this");
        assert_eq!(entity.document, document);
    }
}
