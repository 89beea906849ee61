//! The steps of units that write entities.

use esl_core::{
    EntityKey, Timestamp,
    storage::{EntityAction, EntityStep, EntityWrite, Expected, IndexEntry, PutEntity},
};

use super::{Flattening, count};

impl<'u> Flattening<'u> {
    /// Adds the steps of a unit of an organization.
    pub(super) fn write(&mut self, write: &'u EntityWrite, org: i32, unit: i32) {
        for EntityStep { key, expected, action } in &write.steps {
            let entity = self.entity(key, org);
            let (expected, revision, version) = match *expected {
                Expected::Absent => (0, None, None),
                Expected::Present => (1, None, None),
                Expected::Revision(revision) => (2, Some(revision), None),
                Expected::Unchanged(revision, version) => (3, Some(revision), Some(version)),
            };
            let (action, put, by) = match action {
                EntityAction::Check => (0, None, 0),
                EntityAction::Put(put) => (1, Some(put), 0),
                EntityAction::Delete => (2, None, 0),
                EntityAction::Refer(by) => (3, None, *by),
            };
            let steps = &mut self.flat.steps;
            steps.unit.push(unit);
            steps.entity.push(entity);
            steps.expected.push(expected);
            steps.revision.push(revision.map(u64::cast_signed));
            steps.version.push(version.map(u64::cast_signed));
            steps.action.push(action);
            steps.by.push(by);
            steps.created_at.push(put.map(|put| put.created_at.as_millis()));
            steps.updated_at.push(put.map(|put| put.updated_at.as_millis()));
            steps.due_at.push(put.and_then(|put| put.due_at).map(Timestamp::as_millis));
            steps.document.push(put.map(|put| &*put.document));
            if let Some(put) = put {
                self.index(put);
            }
        }
    }

    /// The place of an entity among those of the group.
    fn entity(&mut self, key: &'u EntityKey, org: i32) -> i32 {
        let entities = &mut self.flat.entities;
        *self.entities.entry((org, key)).or_insert_with(|| {
            entities.org.push(org);
            entities.kind.push(key.kind.as_str());
            entities.id.push(key.id.as_str());
            count(&entities.org)
        })
    }

    /// Adds what the last step changes of the index.
    fn index(&mut self, put: &'u PutEntity) {
        let step = count(&self.flat.steps.unit);
        let entries = &mut self.flat.index_entries;
        let mut add = |IndexEntry { field, value }: &'u IndexEntry, is_in| {
            entries.step.push(step);
            entries.field.push(field.as_bytes());
            entries.value.push(&value.0);
            entries.is_in.push(is_in);
        };
        put.unindexed.iter().for_each(|entry| add(entry, false));
        put.indexed.iter().for_each(|entry| add(entry, true));
    }
}
