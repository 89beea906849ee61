//! What a transaction asks storage for, of what it has read and written.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Entity, EntityKey, EntityKind, OrganizationId, Representation,
    storage::{EntityAction, EntityStep, EntityWrite, Expected, PutEntity},
};

/// What was read, as it stood.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) entity: Option<Arc<Entity>>,
    /// Whether those who refer to it were read, too.
    pub(super) with_references: bool,
}

/// An entity that is written.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) kind: Arc<EntityKind>,
    pub(super) key: EntityKey,
    pub(super) before: Option<Arc<Entity>>,
    /// `None` if it is deleted.
    pub(super) after: Option<Arc<Entity>>,
    /// What is shown of it now, or was before it was deleted, where that was asked for.
    pub(super) shown: Option<Arc<Representation>>,
}

/// What storage is asked for: what is written, who comes to refer to whom, and that all else that was read
/// still stands.
pub(super) fn of(
    organization: OrganizationId,
    reads: &BTreeMap<EntityKey, Read>,
    writes: &[Write],
) -> EntityWrite {
    let mut steps = Vec::new();
    let mut references: BTreeMap<EntityKey, i32> = BTreeMap::new();
    for write in writes {
        write.count_references(&mut references);
        let action = match &write.after {
            Some(after) => EntityAction::Put(write.put(after)),
            None if write.before.is_some() => EntityAction::Delete,
            // It came and went.
            None => EntityAction::Check,
        };
        steps.push(EntityStep { key: write.key.clone(), expected: write.expected(reads), action });
    }
    let written = |key: &EntityKey| writes.iter().find(|write| write.key == *key);
    for (key, by) in references {
        let expected = match written(&key) {
            Some(write) if write.after.is_none() => continue,
            Some(write) => write.expected(reads),
            None => Expected::Present,
        };
        steps.push(EntityStep { key, expected, action: EntityAction::Refer(by) });
    }
    for (key, read) in reads.iter().filter(|(key, _)| written(key).is_none()) {
        let expected = expected(read.entity.as_deref(), read.with_references);
        steps.push(EntityStep { key: key.clone(), expected, action: EntityAction::Check });
    }
    EntityWrite { organization, steps }
}

fn expected(entity: Option<&Entity>, with_references: bool) -> Expected {
    match entity {
        None => Expected::Absent,
        Some(entity) if with_references => {
            Expected::Unchanged(entity.revision, entity.references.version)
        }
        Some(entity) => Expected::Revision(entity.revision),
    }
}

impl Write {
    /// What it goes by: what was there when it was read.
    fn expected(&self, reads: &BTreeMap<EntityKey, Read>) -> Expected {
        let read = reads.get(&self.key);
        expected(self.before.as_deref(), read.is_some_and(|read| read.with_references))
    }

    /// Whether something is to be done about it at a time.
    pub(super) fn is_scheduled(&self) -> bool {
        self.after.as_ref().is_some_and(|after| after.due_at.is_some())
    }

    fn put(&self, after: &Entity) -> PutEntity {
        let before = self.before.as_deref();
        PutEntity {
            created_at: after.created_at,
            updated_at: after.updated_at,
            due_at: after.due_at,
            document: serde_json::to_vec(&after.document).expect("a document is JSON").into(),
            unindexed: before.map_or_else(Vec::new, |before| self.kind.index(before, Some(after))),
            indexed: self.kind.index(after, before),
        }
    }

    /// Counts what comes to refer to others by this, what ceases to, and what is written while it does.
    fn count_references(&self, references: &mut BTreeMap<EntityKey, i32>) {
        for reference in self.kind.references() {
            let named = |entity: &Option<Arc<Entity>>| {
                let id = entity.as_ref()?.reference(&reference.field)?.parse().ok()?;
                Some(EntityKey::new(reference.to.clone(), id))
            };
            let (was, is) = (named(&self.before), named(&self.after));
            if was == is {
                is.into_iter().for_each(|key| _ = references.entry(key).or_default());
                continue;
            }
            was.into_iter().for_each(|key| *references.entry(key).or_default() -= 1);
            is.into_iter().for_each(|key| *references.entry(key).or_default() += 1);
        }
    }
}
