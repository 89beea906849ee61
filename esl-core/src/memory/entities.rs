use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;

use super::{MemoryStorage, State, changes::HandleId};
use crate::{
    EntityId, EntityKey, KindName, OrganizationId, Timestamp,
    storage::{
        Change, DueEntity, Entities, EntityAction, EntityPage, EntityPosition, EntityQuery,
        EntityStep, EntityWrite, IndexEntry, IndexValue, PutEntity, REFERENCES_MAX, References,
        Refused, StorageError, StoredEntity,
    },
};

/// The entities of an organization.
pub(super) type EntityRows = BTreeMap<EntityKey, EntityRow>;

pub(super) struct EntityRow {
    entity: StoredEntity,
    index: BTreeSet<IndexEntry>,
}

impl EntityRow {
    /// The value of a field of its index.
    fn value(&self, field: &Arc<str>) -> Option<&IndexValue> {
        self.index.iter().find(|entry| entry.field == *field).map(|entry| &entry.value)
    }
}

#[async_trait]
impl Entities for MemoryStorage {
    async fn entity(
        &self,
        organization: OrganizationId,
        key: &EntityKey,
    ) -> Result<Option<StoredEntity>, StorageError> {
        let state = self.state();
        let rows = state.entities_of(organization);
        Ok(rows.and_then(|rows| rows.get(key)).map(|row| row.entity.clone()))
    }

    async fn entities(
        &self,
        organization: OrganizationId,
        query: &EntityQuery,
    ) -> Result<EntityPage, StorageError> {
        let state = self.state();
        let rows = state.entities_of(organization).into_iter().flatten();
        let rows = rows.filter(|(key, _)| key.kind == query.kind);
        let rows =
            rows.filter(|(_, row)| query.having.iter().all(|entry| row.index.contains(entry)));
        let mut found: Vec<(Option<IndexValue>, EntityId, &StoredEntity)> = rows
            .filter_map(|(key, row)| {
                let value = match &query.by {
                    Some(field) => Some(row.value(field)?.clone()),
                    None => None,
                };
                Some((value, key.id.clone(), &row.entity))
            })
            .collect();
        found.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        if query.is_descending {
            found.reverse();
        }
        if let Some(after) = &query.after {
            let after = (&after.value, &after.id);
            found.retain(|(value, id, _)| match query.is_descending {
                true => (value, id) < after,
                false => (value, id) > after,
            });
        }
        let more = found.len() > query.limit;
        found.truncate(query.limit);
        let last = found.last().map(|(value, id, _)| (value.clone(), id.clone()));
        let next = last.filter(|_| more).map(|(value, id)| EntityPosition { value, id });
        let items = found.into_iter().map(|(_, _, entity)| entity.clone()).collect();
        Ok(EntityPage { items, next })
    }

    async fn referring(
        &self,
        organization: OrganizationId,
        kind: &KindName,
        field: &str,
        values: &[IndexValue],
    ) -> Result<Vec<Vec<StoredEntity>>, StorageError> {
        let state = self.state();
        let having = |value: &IndexValue| {
            let entry = IndexEntry { field: field.into(), value: value.clone() };
            let rows = state.entities_of(organization).into_iter().flatten();
            rows.filter(|(key, row)| key.kind == *kind && row.index.contains(&entry))
                .map(|(_, row)| row.entity.clone())
                .take(REFERENCES_MAX as usize)
                .collect()
        };
        Ok(values.iter().map(having).collect())
    }

    async fn next_entity_due(&self) -> Result<Option<Timestamp>, StorageError> {
        let state = self.state();
        Ok(state.scheduled_entities().map(|(due_at, _, _)| due_at).min())
    }

    async fn due_entities(&self, limit: usize) -> Result<Vec<DueEntity>, StorageError> {
        let state = self.state();
        let now = state.now();
        let due = state.scheduled_entities().filter(|(due_at, _, _)| *due_at <= now);
        let mut due: Vec<_> = due.collect();
        due.sort_by_key(|(due_at, organization, entity)| (*due_at, *organization, &entity.key));
        due.truncate(limit);
        let due = due.into_iter();
        Ok(due
            .map(|(_, organization, entity)| DueEntity { organization, entity: entity.clone() })
            .collect())
    }
}

impl State {
    fn entities_of(&self, organization: OrganizationId) -> Option<&EntityRows> {
        self.organizations.get(&organization).map(|row| &row.entities)
    }

    fn scheduled_entities(
        &self,
    ) -> impl Iterator<Item = (Timestamp, OrganizationId, &StoredEntity)> {
        let organizations = self.organizations.iter();
        let rows = organizations.flat_map(|(id, row)| row.entities.values().map(|row| (*id, row)));
        rows.filter_map(|(id, row)| Some((row.entity.due_at?, id, &row.entity)))
    }

    /// Refuses writes that go by what is not so any more.
    pub(super) fn demand_expected(&self, write: &EntityWrite) -> Result<(), Refused> {
        let rows = self.entities_of(write.organization);
        let rows = rows.ok_or(Refused::UnknownOrganization(write.organization))?;
        let mut counts: BTreeMap<&EntityKey, i64> = BTreeMap::new();
        for step in &write.steps {
            let row = rows.get(&step.key);
            let stands = row.map(|row| (row.entity.revision, row.entity.references));
            if !step.expected.is_met(stands) {
                return Err(Refused::Stale(step.key.clone()));
            }
            if let EntityAction::Refer(by) = step.action {
                let count = stands.map_or(0, |(_, references)| i64::from(references.count));
                let count = counts.entry(&step.key).or_insert(count);
                *count += i64::from(by);
                if by > 0 && *count > i64::from(REFERENCES_MAX) {
                    return Err(Refused::TooManyReferences(step.key.clone()));
                }
            }
        }
        Ok(())
    }

    /// Writes what was checked.
    pub(super) fn write(&mut self, write: &EntityWrite, by: HandleId) {
        let organization = self.organizations.get_mut(&write.organization);
        let rows = &mut organization.expect("the unit was checked").entities;
        let mut is_scheduled = false;
        for EntityStep { key, action, .. } in &write.steps {
            match action {
                EntityAction::Check => {}
                EntityAction::Put(put) => {
                    is_scheduled |= put.due_at.is_some();
                    let row =
                        rows.entry(key.clone()).or_insert_with(|| EntityRow::new(key.clone()));
                    row.put(put.clone());
                }
                EntityAction::Delete => drop(rows.remove(key)),
                EntityAction::Refer(by) => {
                    if let Some(row) = rows.get_mut(key) {
                        row.entity.references = row.entity.references.referred(*by);
                    }
                }
            }
        }
        if is_scheduled {
            self.listeners.tell_others(by, Change::Schedule);
        }
    }
}

impl EntityRow {
    fn new(key: EntityKey) -> Self {
        let entity = StoredEntity {
            key,
            revision: 0,
            references: References::default(),
            created_at: Timestamp::EPOCH,
            updated_at: Timestamp::EPOCH,
            due_at: None,
            document: bytes::Bytes::new(),
        };
        Self { entity, index: BTreeSet::new() }
    }

    fn put(&mut self, put: PutEntity) {
        let PutEntity { created_at, updated_at, due_at, document, unindexed, indexed } = put;
        let revision = self.entity.revision + 1;
        self.entity = StoredEntity {
            revision,
            created_at,
            updated_at,
            due_at,
            document,
            ..self.entity.clone()
        };
        for entry in &unindexed {
            self.index.remove(entry);
        }
        self.index.extend(indexed);
    }
}
